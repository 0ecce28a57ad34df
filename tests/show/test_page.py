"""Pages: names shown as they are, nothing run, nothing asked of other machines, a summary before the rest."""

import html
import json
import re
import socket

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.chromium import BINARY, Page

from deflare_core.show.notebook_page import drop_imports, drop_progress, make_notebook_page
from deflare_core.show.page import make_page, render_markdown
from deflare_core.show.run_index import write_index
from deflare_core.system.markdown import as_text, markdown_table

HOSTILE = (
    "a<svg onload=alert(1)>.h5",
    "<img src=https:example.org onerror=alert(1)>",
    "![x](https:example.org)",
    "[x](javascript:alert(1))",
    "`a`*b*_c_~~d~~",
    "&lt;b&gt;",
    "a|b\\|c\\",
    "1. x",
    "- x",
    "# x",
    "==",
    "<!--",
    "$x$",
)
RECORD = {"notebook": "t.ipynb", "status": "done", "asked": {"recording": HOSTILE[0]}, "parameters": {}}


def shown_text(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is(name):
    assert render_markdown(as_text(name)).strip() == f"<p>{html.escape(name, quote=False)}</p>".replace('"', "&quot;")
    cell = re.search(r"<td>(.*?)</td>", render_markdown(markdown_table(["a", "b"], [[as_text(name), "1"]])))
    assert cell is not None, "The row has two cells."
    assert html.unescape(cell[1]) == name


@settings(max_examples=40)
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_is_text_of_one_line(name):
    page = render_markdown(f"- {as_text(name)}: failed")
    assert re.sub(r"</?(ul|li)>", "", page).count("<") == 0, "A name makes no element of its own."
    assert shown_text(page).split() == f"{''.join(c if c.isprintable() else ' ' for c in name).strip()}: failed".split()


def notebook(*cells) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 01 Title: what?"), *cells])


def code(source: str, *outputs, tags=()) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def display(**data: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", {name.replace("_", "/"): value for name, value in data.items()})


def stream(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name="stderr", text=text)


def test_a_notebooks_page_begins_with_its_summary_and_folds_its_code():
    page = make_notebook_page(
        notebook(
            code("seed = 3", tags=["parameters"]),
            code("import os\nfrom a import (\n    b,\n)"),
            code(
                "import re\nfirst = 1  # here", stream("50%|##   | 1/2 [00:01<00:01]\rdone\nstep: 3it [00:02, 1.5it/s]")
            ),
            code("answer", display(text_markdown="**42** events", text_plain="<Markdown>"), tags=["summary"]),
        ),
        RECORD,
    )
    assert page.index("Title: what?") < page.index("Summary") < page.index("recording") < page.index("<strong>42")
    assert page.index("<strong>42") < page.index("first = 1") < page.index("<pre>answer"), "Code stays in its place."
    assert page.index("first = 1") < page.index("It stands in the summary above"), "No heading is left without words."
    assert not [text for text in ("import", "seed = 3", "Markdown") if text in page]
    assert "<details><summary>code</summary><pre>first = 1  # here</pre></details>" in page
    assert "<pre>done</pre>" in page, "What else was said than progress stays."
    assert HOSTILE[0] in shown_text(page)
    assert not [text for text in ("00:0", "<svg") if text in page]


def test_a_failed_cell_shows_why():
    error = nbformat.v4.new_output("error", ename="E", evalue="v", traceback=["\x1b[31mE\x1b[0m: <v>"])
    page = make_notebook_page(notebook(code("x", error)), {**RECORD, "status": "cell 1 failed: E: <v>"})
    assert "Outcome: cell 1 failed: E: &lt;v&gt;." in page
    assert "<pre>E: &lt;v&gt;</pre>" in page


def test_code_that_is_no_python_stays():
    assert drop_imports("%matplotlib inline\nimport x") == "%matplotlib inline\nimport x"
    assert drop_progress("video: 100%|███| 50/50 [00:01<00:00]\nWARNING: 100% of it") == "WARNING: 100% of it"


def test_every_run_is_listed_with_what_it_was_asked(tmp_path):
    for name, record in (("a", json.dumps(RECORD)), ("b", "{"), ("c", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(record)
    (tmp_path / "e <b> ?").mkdir()
    (tmp_path / "e <b> ?" / "index.html").touch()
    (tmp_path / "predictions").mkdir()
    page = write_index(tmp_path).read_text()
    assert re.findall(r'href="([^"]*)"', page).count("a/t.html") == 1
    assert 'href="e%20%3Cb%3E%20%3F/index.html"' in page
    assert page.count("its record cannot be read") == 2
    assert "predictions" not in page, "A folder without a page is no run."
    assert f"recording {HOSTILE[0]}" in shown_text(page)


@pytest.mark.skipif(BINARY is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")
def test_a_page_runs_nothing_and_asks_nobody(tmp_path):
    """Even where a cell's own HTML would: in a browser without a network, from the disk."""
    stranger = socket.create_server(("127.0.0.1", 0))
    stranger.setblocking(False)
    foreign = f"http://127.0.0.1:{stranger.getsockname()[1]}/a"
    attack = f"<script src={foreign}></script><link rel=stylesheet href={foreign}>"
    attack += f"<script>document.title = 'run'</script><img src={foreign} onerror=\"document.title = 'run'\">"
    rows = [[as_text(name), "1"] for name in HOSTILE]
    body = render_markdown(markdown_table(["name", ""], rows)) + attack + '<img id="own" src="own%20picture.png">'
    (tmp_path / "page.html").write_text(make_page("still", body))
    (tmp_path / "own picture.png").write_bytes(PIXEL)
    page = Page(tmp_path / "profile")
    try:
        page.send("Page.navigate", url=f"file://{tmp_path}/page.html")
        page.wait("document.readyState === 'complete' && document.title")
        assert page.js("document.querySelector('#own').naturalWidth") == 1, "A picture beside the page is shown."
        assert page.js("document.title") == "still"
        assert page.js("document.querySelectorAll('td svg, td img, td a').length") == 0
        with pytest.raises(BlockingIOError):
            stranger.accept()  # Nobody has called.
    finally:
        stranger.close()
        page.close()


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63680000008200"
    "81dd436af40000000049454e44ae426082"
)
"""A PNG of one pixel."""
