"""What the README promises is true: its snippet runs, its commands parse, its files exist."""

import re
import shlex

import pytest
from support.recordings import make_events, same_events

from deflare_core.app.arguments import read_arguments
from deflare_core.app.commands import COMMANDS as PROGRAM
from deflare_core.app.commands import find_command
from deflare_core.io.recordings import load_events, save_events
from deflare_core.system.places import PROJECT_ROOT

TOP = ("deflare_core", "data_simu", "notebooks", "configs", "reports", "tests")
README = (PROJECT_ROOT / "README.md").read_text()
PAGES = [PROJECT_ROOT / "CONTRIBUTING.md", *PROJECT_ROOT.glob("README.md"), *PROJECT_ROOT.glob("[!.]*/README.md")]
PAGES += PROJECT_ROOT.glob("deflare_core/*/README.md")
LIBRARY = (PROJECT_ROOT / "deflare_core/README.md").read_text()
USES = README + (PROJECT_ROOT / "deflare_core/app/README.md").read_text()
COMMANDS = sorted({line for line in USES.splitlines() if line.startswith("deflare ") and "`" not in line})


def test_the_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_events("recording.h5", make_events(num=2_000, duration_us=60_000), source="test")
    snippet = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    assert len(snippet.strip().splitlines()) <= 15
    names: dict = {}
    exec(snippet, names)
    assert names["voxel"].shape == (8, 12, 16)
    assert (names["summary"].num_in, names["summary"].num_synthesised) == (2_000, 0), "A gate invents nothing."
    assert same_events(names["deflared"], load_events("deflared.h5")), "In memory or from file to file, it is the same."


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_parses(command, monkeypatch):
    optional_too = re.sub(r" \[([^\]]*)\]", r" \1", command)
    _, *words = shlex.split(optional_too)
    found = find_command(words)
    monkeypatch.chdir(PROJECT_ROOT)
    arguments = read_arguments(found.load(), found.name, found.about, words[1:])
    assert arguments is not None, "Every option and setting is one that there is."


def test_each_command_is_shown():
    shown = {line.split()[1] for line in COMMANDS}
    assert {command.name for command in PROGRAM} == shown, "deflare_core/app/README.md shows a use of each command."


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120, "What is longer belongs to the README of a folder."


def test_every_make_target_of_the_readme_exists():
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:^|`|=\S+ )make ([a-z]+)", README, re.MULTILINE)
    assert {"quickstart", "test", "setup", "lab"} <= set(targets), "The README names the targets that a newcomer needs."
    for target in targets:
        assert f"\n{target}:" in makefile, f"The Makefile has no target {target}."


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_every_linked_file_exists(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page} links to {link}, which is not there."


def test_every_folder_stands_in_the_readme_and_has_one_of_its_own():
    for folder in (PROJECT_ROOT / name for name in TOP):
        assert f"[{folder.name}/]" in README, f"{folder.name} is missing from the README's table of folders."
        assert (folder / "README.md").is_file(), f"{folder.name} has no README."
    for wing in (PROJECT_ROOT / "deflare_core").glob("*/__init__.py"):
        assert f"\n{wing.parent.name}/ " in LIBRARY, f"{wing.parent.name} is missing from the library's wings."
    for path in (PROJECT_ROOT / "deflare_core").glob("*.py"):
        assert f"| `{path.name}` |" in LIBRARY, f"{path.name} is missing from the library's README."
