"""The server of an app answers its user alone, and runs its notebook once, however often it is asked."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import websocket
from support.waiting import poll

from deflare_core.system.places import PROJECT_ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("voila") is None, reason="needs the package voila"),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The address of an app, with its token, and its process: a notebook that tells the number of its kernel."""
    folder = tmp_path_factory.mktemp("app")
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    book.cells = [nbformat.v4.new_code_cell("import os; print(f'This is kernel {os.getpid()}.')")]
    nbformat.write(book, folder / "told.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "deflare_core.app.server", "told.ipynb", "--no-browser", f"--port={port}"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT), "JUPYTER_TOKEN": "known"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, env=environment)
        try:
            poll(lambda: find_address(folder / "log"), "the app's address")
            yield find_address(folder / "log"), process
        finally:
            process.terminate()
            process.wait(20)


def find_address(log: Path) -> str | None:
    """The address that the log names, with its token."""
    said = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", log.read_text())
    return said and said[0]


def ask(address: str, opener: urllib.request.OpenerDirector | None = None, **headers: str) -> tuple[int, str]:
    """The status and the page that answer a request."""
    request = urllib.request.Request(address, headers=headers)
    try:
        with (opener or urllib.request.build_opener()).open(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def list_children(process: subprocess.Popen) -> list[int]:
    """The processes that the server has started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_strangers_get_nothing(app):
    address, process = app
    bare, _, token = address.partition("?token=")
    for words in ("", "?token=", "?token=known", "told.ipynb", "voila/files/told.png"):
        assert "This is kernel" not in ask(bare + words)[1], f"'{words}': there is only a page that asks for a token."
    assert ask(address, Host="rebound.example")[0] == 403, "A name that leads here is not this machine's."
    assert list_children(process) == [], "None of this has run the notebook."
    assert token not in Path(f"/proc/{process.pid}/cmdline").read_text(), "All can read the words of a command."


def test_one_kernel_serves_every_tab(app):
    address, process = app
    bare = address.partition("?")[0]
    with ThreadPoolExecutor(3) as tabs:
        pages = [page for _, page in tabs.map(ask, [address] * 3)]
    [kernel] = list_children(process)
    assert pages[0] == pages[1] == pages[2], "All see the same run."
    assert f"This is kernel {kernel}." in pages[0]
    number = re.search(r'"kernelId": *"([^"]+)"', pages[0])[1]
    channels = f"{bare.replace('http', 'ws')}api/kernels/{number}/channels"
    cookies = urllib.request.HTTPCookieProcessor()
    browser = urllib.request.build_opener(cookies)
    ask(address, browser)
    cookie = "; ".join(f"{each.name}={each.value}" for each in cookies.cookiejar)
    for settings in ({}, {"cookie": cookie, "origin": "http://foreign.example"}):
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(channels, **settings)
    websocket.create_connection(channels, cookie=cookie).close()
    with browser.open(f"{bare}voila/api/shutdown/{number}", data=b"") as answer:
        assert answer.status == 204, "A tab that closes asks for its kernel's end; others may use it."
    assert ask(bare, browser)[1] == pages[0]
    os.kill(kernel, signal.SIGKILL)
    poll(lambda: ") Z " in Path(f"/proc/{kernel}/stat").read_text(), "the end of the kernel", tries=1_000)
    poll(lambda: ask(address)[1] != pages[0], "another kernel for the one that died", tries=100, pause_s=0.1)
    assert "This is kernel" in ask(address)[1]
    assert len(list_children(process)) == 1
