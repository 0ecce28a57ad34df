"""The viewer as an app: one command shows it alone in a browser, on a recording that the user names."""

import importlib.util
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from support.chromium import BINARY, Page
from support.recordings import make_events
from support.viewer_page import control, expected_pixels, panel_pixels
from support.waiting import poll

from deflare_core.app import notebook
from deflare_core.app.notebook import NotebookError, serve_notebook
from deflare_core.codec import events_to_voxel
from deflare_core.io.recordings import save_events
from deflare_core.system.places import PROJECT_ROOT

SHOTS = PROJECT_ROOT / "reports" / "screenshots"
SIZE = (60, 80)
needs_browser = pytest.mark.skipif(
    BINARY is None or importlib.util.find_spec("voila") is None,
    reason="needs Chromium on the PATH and the package voila",
)


@pytest.fixture
def recordings(tmp_path):
    """A recording of 60 ms, and one that holds every second of its events."""
    before = make_events(num=9_000, sensor_size=SIZE, t_start_us=1_000_000, duration_us=60_000)
    after = before[::2]
    for name, events in (("before", before), ("after", after)):
        save_events(tmp_path / f"{name}.h5", events, source="test", clock_us=(1_000_000, 1_060_000))
    return {"before": before, "after": after}


@pytest.fixture
def address(recordings, tmp_path):
    """Where the app answers that `deflare notebook 05 --app` shows of the two recordings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "deflare_core", "notebook", "05", "--app", "--port", str(port)]
    for name, value in (("recording", "before.h5"), ("output", "after.h5"), ("output_dir", str(tmp_path / "out"))):
        command += ["-p", name, value]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "BROWSER": "true"}
    with (tmp_path / "app.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            yield poll(lambda: re.search(r"http://\S+token=\S+", (tmp_path / "app.log").read_text()), "its address")[0]
        finally:
            process.terminate()
            process.wait(20)


def test_without_voila_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(notebook.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotebookError, match=r"not installed; `pip install voila`"):
        serve_notebook("05", {}, port=8866, reports=tmp_path)


def choose_bin(page: Page, number: int) -> bool:
    """Click on a bin's place on the slider, which moves while the page is still being laid out; whether it is shown."""
    left, top, width, height = page.box(control("bins"))
    page.click(left + width * number / 7, top + height / 2)
    text = page.js(f"document.querySelector('{control('bin-text')}').textContent")
    return text.startswith(f"bin {number} of 0\u20137, {1_000 + number * 2.5:,.1f}")


@pytest.mark.slow
@needs_browser
def test_the_app_shows_the_named_recording_and_follows_the_slider(address, recordings, tmp_path):
    page = Page(tmp_path / "profile", height=1100)
    try:
        page.send("Page.navigate", url=address)
        page.wait("document.querySelectorAll('.voxel-bin-viewer canvas').length === 3")
        poll(lambda: choose_bin(page, 5), "bin 5 on show", tries=100, pause_s=0.5)
        page.wait(f"!document.querySelector('{control('next')}').disabled")
        page.screenshot(SHOTS / "viewer_app.png")
        first = {name: events.window(1_000_000, 1_020_000) for name, events in recordings.items()}
        voxels = {name: events_to_voxel(events, t0_us=1_000_000) for name, events in first.items()}
        limit = float(page.js(f"document.querySelector('{control('limit-text')}').textContent").strip("\u00b1 auto"))
        for title, voxel in zip(("Input", "Output"), voxels.values(), strict=True):
            pixels = panel_pixels(page, title)
            assert np.array_equal(pixels, expected_pixels(voxel[5], pixels.shape[:2], limit=limit)), title
        shown = page.js("document.body.innerText")
        assert "9,000 events in 3 windows" in shown, "The recording that was named is the one on show."
        assert "assert" not in shown, "The app shows no code."
        assert "What this notebook promised" not in shown, "Nor what is only there for a report."
    finally:
        page.close()
