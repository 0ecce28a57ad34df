"""The viewer in a real browser: JupyterLab runs a notebook, hands move the controls, and every pixel is checked."""

import json
import os
import re
import statistics

import nbformat
import numpy as np
import pytest
from PIL import Image
from support.chromium import BINARY, NOTEBOOK, Lab, Page
from support.viewer_page import choice, control, expected_pixels, panel_pixels
from support.waiting import poll

from deflare_core.system.places import PROJECT_ROOT

pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")

SHAPE = (8, 480, 640)
SHOTS = PROJECT_ROOT / "reports" / "screenshots"
CELL = """
import numpy as np
from deflare_core.show.viewer import VoxelBinViewer
viewer = VoxelBinViewer.of_windows(lambda k: np.load("windows.npy", mmap_mode="r")[k], num_windows=2)
viewer
"""
PANELS = ("Input", "Target", "Output", "Removed")


def synthetic_windows() -> np.ndarray:
    """Two windows of (input, target, output): sparse noise, and a solid block whose column is the bin."""
    rng = np.random.default_rng(7)
    windows = rng.poisson(0.01, (2, 3, *SHAPE)).astype(np.float32) - rng.poisson(0.01, (2, 3, *SHAPE))
    for k, sign in enumerate((1, -1)):
        for b in range(8):
            windows[k, :, b, 160:320, 80 * b : 80 * (b + 1)] = 5 * sign
    windows[:, 2] += rng.normal(0, 0.2, SHAPE)
    return windows.astype(np.float32)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return synthetic_windows()


@pytest.fixture(scope="module")
def lab(tmp_path_factory, windows):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    np.save(lab.folder / "windows.npy", windows)
    nbformat.write(notebook_of(CELL), lab.folder / "viewer.ipynb")
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory, lab):
    page = Page(tmp_path_factory.mktemp("chromium") / "profile")
    try:
        lab.wait()
        page.open_and_run(lab, "viewer.ipynb")
        page.wait("document.querySelectorAll('.voxel-bin-viewer canvas').length === 4")
        SHOTS.mkdir(parents=True, exist_ok=True)
        yield page
    finally:
        page.close()


@pytest.fixture(autouse=True)
def fresh(page):
    """Every test starts from the same state, set from Python, and ends without an error in the page's scripts."""
    in_kernel(
        page,
        "viewer.index, viewer.bin_index, viewer.polarity, viewer.limit = 0, 0, 'both', 3.0\n"
        "viewer.view, viewer.pixel, viewer.playing, viewer.span = [], [], False, 'bin'\n"
        "viewer.maximised, viewer.blinking = '', False",
    )
    yield
    assert not page.errors


def notebook_of(*cells: str) -> nbformat.NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells], metadata={"kernelspec": kernel}
    )


def in_kernel(page: Page, code: str) -> None:
    """Runs code in the notebook's kernel, and waits until the browser has drawn what it changed."""
    execute = f"{NOTEBOOK}.sessionContext.session.kernel.requestExecute({{code: {json.dumps(code)}}})"
    assert page.js(f"{execute}.done.then((reply) => reply.content.status)") == "ok"
    page.js("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn(null))))")


def kernel_says(lab: Lab, page: Page, expression: str):
    answer = lab.folder / "answer.json"
    in_kernel(page, f"import json, pathlib; pathlib.Path('answer.json').write_text(json.dumps({expression}))")
    return json.loads(answer.read_text())


def wait_for_kernel(lab: Lab, page: Page, expression: str, value) -> None:
    """Wait until the kernel says so: a widget sends its next state only when the kernel is done with the one before."""
    poll(lambda: kernel_says(lab, page, expression) == value, f"The kernel's {expression} is {value}", tries=100)


def voxels_of(window: np.ndarray) -> dict[str, np.ndarray]:
    before, _, after = window
    removed = np.clip(before - after, np.minimum(before, 0), np.maximum(before, 0))
    return dict(zip(PANELS, (*window, removed), strict=True))


def wrong_pixels(page: Page, window: np.ndarray, b: int, clip=(-np.inf, np.inf), **drawn) -> dict[str, float]:
    """The share of pixels that are not those of bin `b` of the window, for each panel where there are any."""
    wrong = {}
    for title, voxel in voxels_of(window).items():
        pixels = panel_pixels(page, title)
        expected = expected_pixels(np.clip(voxel[b], *clip), pixels.shape[:2], **drawn)
        wrong[title] = float((pixels != expected).any(axis=2).mean())
    return {title: share for title, share in wrong.items() if share}


def assert_shows(page: Page, window: np.ndarray, b: int, **drawn) -> None:
    """Every pixel of all four panels comes to be that of bin `b` of the window."""
    poll(lambda: not wrong_pixels(page, window, b, **drawn), f"the pixels of bin {b}", tries=50, pause_s=0.1)


def text(page: Page, name: str) -> str:
    return page.js(f"document.querySelector('{control(name)}').innerText")


def centre(page: Page, selector: str) -> tuple[float, float]:
    left, top, width, height = page.box(selector)
    return left + width / 2, top + height / 2


def cell_at(page: Page, title: str, x: int, y: int) -> tuple[float, float]:
    """Where a cell of the whole sensor is in the window, in CSS pixels."""
    left, top, width, height = page.box(f".voxel-bin-viewer canvas[data-panel={title}]")
    return left + (x + 0.5) / SHAPE[2] * width, top + (y + 0.5) / SHAPE[1] * height


def test_moving_the_slider_shows_the_right_bin_in_every_panel(lab, page, windows):
    assert_shows(page, windows[0], 0)
    page.screenshot(SHOTS / "viewer_bin0.png")
    left, top, width, height = page.box(control("bins"))
    page.click(left + width * 5 / 7, top + height / 2)
    page.wait(f"document.querySelector('{control('bin-text')}').textContent.startsWith('bin 5 of 0\u20137, 12.5')")
    assert_shows(page, windows[0], 5)
    wait_for_kernel(lab, page, "viewer.bin_index", 5)
    page.screenshot(SHOTS / "viewer_bin5.png")


@pytest.mark.slow
def test_a_bin_set_in_python_is_drawn(page, windows):
    in_kernel(page, "viewer.bin_index = 6")
    page.wait(f"document.querySelector('{control('bins')}').value === '6'")
    assert_shows(page, windows[0], 6)


HAND = """
(() => {
  const root = document.querySelector(".voxel-bin-viewer");
  const [slider, canvas] = [root.querySelector(".bins"), root.querySelector("canvas")];
  const shown = (bin) => {
    const at = Math.round(((bin + 0.5) * canvas.width) / 8);
    const [red, , blue] = canvas.getContext("2d").getImageData(at, canvas.height / 2, 1, 1).data;
    return red - blue > 60;
  };
  let moved = 0;
  globalThis.times = [];
  slider.addEventListener("pointermove", (event) => (moved = event.timeStamp));
  slider.addEventListener("input", () => {
    const [bin, hand, heard] = [slider.valueAsNumber, moved, performance.now()];
    const drawn = () => (shown(bin) ? times.push([hand, heard].map((from) => performance.now() - from)) : look());
    const look = () => requestAnimationFrame(() => setTimeout(drawn));
    look();
  }, true);
})()
"""
"""Notes how long each bin took from the hand's move, and from the slider's event, until a frame shows its block."""


@pytest.mark.slow
def test_slider_to_pixels_is_far_below_a_blink(page, record_property):
    """A hand drags the slider. The browser itself tells the slider of a move only when its next frame begins."""
    left, top, width, height = page.box(control("bins"))
    xs = [left + 8 + (width - 16) * (i * 3 % 8) / 7 for i in range(49)]
    page.js(HAND)
    page.mouse("Pressed", xs[0], top + height / 2, button="left", clickCount=1)
    for i, x in enumerate(xs[1:], 1):
        page.mouse("Moved", x, top + height / 2, button="left", buttons=1)
        page.wait(f"times.length === {i}")
    page.mouse("Released", xs[-1], top + height / 2, button="left", clickCount=1)
    measured = {"load": os.getloadavg()[0]}
    for name, times in zip(("from_the_hand", "from_the_event"), zip(*page.js("times"), strict=True), strict=True):
        measured[f"{name}_median_ms"] = round(statistics.median(times), 1)
        measured[f"{name}_95_percent_ms"] = round(sorted(times)[int(0.95 * len(times))], 1)
    for name, value in measured.items():
        record_property(name, value)
    (SHOTS / "slider_to_pixels_ms.json").write_text(json.dumps(measured))
    assert measured["from_the_hand_median_ms"] < 500


@pytest.mark.slow
def test_keys_step_and_play_and_stay_out_of_jupyterlab(lab, page, windows):
    cells = f"{NOTEBOOK}.content.widgets.length"
    page.click(*centre(page, control("title")))
    page.js(f"document.querySelector('{control('panels')}').closest('.voxel-bin-viewer').focus()")
    before = page.js(cells)
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "x", "a", "d", "d"):
        page.key(key)
    page.wait(f"document.querySelector('{control('bins')}').value === '2'")
    assert_shows(page, windows[0], 2)
    assert page.js(cells) == before
    page.key(" ")
    page.wait(f"document.querySelector('{control('bins')}').value !== '2'")
    page.key(" ")
    wait_for_kernel(lab, page, "viewer.playing", False)


@pytest.mark.slow
def test_keys_work_under_the_pointer_before_anything_was_clicked(page, windows):
    cells = f"{NOTEBOOK}.content.widgets.length"
    before = page.js(cells)
    page.js(f"document.activeElement.blur(); {NOTEBOOK}.content.activate()")
    page.mouse("Moved", *cell_at(page, "Input", 320, 240))
    page.key("ArrowRight")
    page.wait(f"document.querySelector('{control('bins')}').value === '1'")
    assert_shows(page, windows[0], 1)
    page.key("b")
    page.wait(f"{cells} === {before + 1}")  # Letters stay the notebook's.
    page.js("jupyterapp.commands.execute('notebook:delete-cell').then(() => null)")
    page.wait(f"{cells} === {before}")


@pytest.mark.slow
def test_the_keys_would_otherwise_act_on_the_notebook(page):
    """The control of the test above: with the notebook focused, `b` does insert a cell."""
    cells = f"{NOTEBOOK}.content.widgets.length"
    before = page.js(cells)
    page.js(f"document.activeElement.blur(); {NOTEBOOK}.content.activate()")
    page.key("b")
    page.wait(f"{cells} === {before + 1}")
    page.js("jupyterapp.commands.execute('notebook:delete-cell').then(() => null)")
    page.wait(f"{cells} === {before}")


@pytest.mark.slow
def test_hover_reads_the_cell_of_every_panel(page, windows):
    in_kernel(page, "viewer.bin_index = 3")
    page.mouse("Moved", *cell_at(page, "Target", 280, 200))
    page.wait(f"document.querySelector('{control('readout')}').innerText.startsWith('bin 3, x ')")
    shown = text(page, "readout")
    x, y = (int(shown.split(f"{name} ")[1].split()[0].rstrip(",")) for name in ("x", "y"))
    assert abs(x - 280) <= 2
    assert abs(y - 200) <= 2
    for title, voxel in voxels_of(windows[0]).items():
        value = voxel[3, y, x]
        number = f"{abs(value):.0f}" if value == round(value) else f"{abs(value):.2f}"
        assert f"{title} {'+' if value > 0 else chr(0x2212) if value < 0 else ''}{number}" in shown


@pytest.mark.slow
def test_click_shows_the_time_course_of_the_pixel(lab, page, windows):
    page.click(*cell_at(page, "Input", 100, 240))
    page.wait(f"document.querySelectorAll('{control('plot')} rect title').length === 32")
    x, y = kernel_says(lab, page, "viewer.pixel")
    bars = page.js(f"[...document.querySelectorAll('{control('plot')} rect title')].map((t) => t.textContent)")
    heights = {bar.split(":")[0]: bar.split(": ")[1] for bar in bars}
    assert heights["Input, bin 1"] == "+5"
    assert float(heights["Target, bin 6"].replace("\u2212", "-")) == windows[0, 1, 6, y, x]
    page.screenshot(SHOTS / "viewer_time_course.png")
    page.click(*centre(page, control("close")))
    page.wait(f"document.querySelector('{control('course')}').hidden")


@pytest.mark.slow
def test_zoom_and_pan_are_linked_and_exact(lab, page, windows):
    spot = cell_at(page, "Output", 330, 240)
    page.click(*spot)
    for _ in range(8):
        page.mouse("Wheel", *spot, deltaX=0, deltaY=-60)
    page.wait(f"document.querySelector('{control('extent')}').innerText.includes('zoom 6.8')")
    in_kernel(page, "viewer.bin_index = 4")
    view = kernel_says(lab, page, "viewer.view")
    assert_shows(page, windows[0], 4, view=view)
    page.screenshot(SHOTS / "viewer_zoomed.png")
    page.mouse("Pressed", *spot, button="left", clickCount=1)
    page.mouse("Moved", spot[0] - 60, spot[1] + 30, button="left", buttons=1)
    page.mouse("Released", spot[0] - 60, spot[1] + 30, button="left", clickCount=1)
    panned = poll(lambda: (now := kernel_says(lab, page, "viewer.view")) != view and now, "another view", tries=100)
    assert panned[0] > view[0]
    assert panned[1] < view[1]
    assert_shows(page, windows[0], 4, view=panned)
    page.click(*centre(page, control("reset")))
    page.wait(f"document.querySelector('{control('extent')}').innerText === '640 \u00d7 480 pixels'")
    assert_shows(page, windows[0], 4)


@pytest.mark.slow
def test_without_a_click_the_wheel_scrolls_the_page(lab, page):
    page.js("document.activeElement.blur()")
    spot = cell_at(page, "Input", 320, 240)
    page.mouse("Wheel", *spot, deltaX=0, deltaY=60)
    wait_for_kernel(lab, page, "viewer.view", [])


@pytest.mark.slow
def test_polarity_and_contrast_change_the_pixels(lab, page, windows):
    page.click(*centre(page, choice("polarity", "negative")))
    page.wait(f"document.querySelector('{choice('polarity', 'negative')}').getAttribute('aria-pressed') === 'true'")
    assert_shows(page, windows[0], 0, clip=(-np.inf, 0))
    left, top, width, height = page.box(control("contrast"))
    page.click(left + width * 0.75, top + height / 2)
    limit = poll(lambda: (now := kernel_says(lab, page, "viewer.limit")) != 3.0 and now, "another limit", tries=100)
    assert_shows(page, windows[0], 0, clip=(-np.inf, 0), limit=limit)


@pytest.mark.slow
def test_stepping_to_the_next_window_swaps_the_voxels(lab, page, windows):
    page.click(*centre(page, control("next")))
    page.wait(f"document.querySelector('{control('window-number')}').value === '1'")
    assert_shows(page, windows[1], 0)
    number = f"document.querySelector('{control('window-number')}')"
    page.js(f"{number}.focus(); {number}.select()")
    page.key("0")
    page.key("b")
    page.js(f"{number}.blur()")
    assert_shows(page, windows[0], 0)
    wait_for_kernel(lab, page, "viewer.index", 0)


@pytest.mark.slow
def test_the_view_is_saved_as_a_picture(page, tmp_path, windows):
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    in_kernel(page, "viewer.bin_index = 2")
    page.click(*centre(page, control("save")))
    path = tmp_path / "voxel_window0_bin2.png"
    poll(path.exists, "the download")
    picture = np.asarray(Image.open(path).convert("RGB"))
    panel = panel_pixels(page, "Input")
    height, width = panel.shape[:2]
    inner = (slice(2, height - 2), slice(2, width - 2))
    assert np.array_equal(picture[50 : 50 + height, 14 : 14 + width][inner], panel[inner])
    (SHOTS / "viewer_saved.png").write_bytes(path.read_bytes())


@pytest.mark.slow
def test_dark_theme_and_narrow_window_stay_legible(page, windows):
    def set_theme(name: str) -> None:
        page.js(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: '{name}'}}).then(() => null)")
        page.wait("!document.querySelector('#jupyterlab-splash')")

    set_theme("JupyterLab Dark")
    page.wait("document.body.dataset.jpThemeLight === 'false'")
    page.click(*cell_at(page, "Input", 100, 240))
    page.screenshot(SHOTS / "viewer_dark.png")
    colour = "getComputedStyle(document.querySelector('.voxel-bin-viewer')).color"
    assert min(int(part) for part in re.findall(r"\d+", page.js(colour))[:3]) > 200
    page.send("Emulation.setDeviceMetricsOverride", width=820, height=1000, deviceScaleFactor=2, mobile=False)
    page.wait("document.querySelector('.voxel-bin-viewer canvas').width > 500")
    assert_shows(page, windows[0], 0)
    page.screenshot(SHOTS / "viewer_narrow.png")
    page.send("Emulation.setDeviceMetricsOverride", width=1500, height=1000, deviceScaleFactor=1, mobile=False)
    set_theme("JupyterLab Light")
    page.wait("document.body.dataset.jpThemeLight === 'true'")


@pytest.mark.slow
def test_after_a_reload_of_the_page_the_same_bin_is_drawn(page, windows):
    in_kernel(page, "viewer.bin_index = 5")
    page.js("jupyterapp.commands.execute('docmanager:save').then(() => null)")
    page.js("globalThis.beforeReload = true")
    page.send("Page.reload")
    page.wait("!globalThis.beforeReload && document.querySelectorAll('.voxel-bin-viewer canvas').length === 4")
    page.wait(f"document.querySelector('{control('bins')}').value === '5'")
    assert_shows(page, windows[0], 5)


@pytest.mark.slow
def test_notebook_05_runs_and_its_viewer_follows_the_slider(lab, page):
    notebook = nbformat.read(PROJECT_ROOT / "notebooks" / "05_voxel_viewer.ipynb", as_version=4)
    notebook.cells[1].source += f"\noutput_dir = {str(lab.folder / 'output')!r}"
    nbformat.write(notebook, lab.folder / "05.ipynb")
    page.open_and_run(lab, "05.ipynb")
    page.wait("document.querySelectorAll('.voxel-bin-viewer canvas').length === 4")
    in_kernel(page, "viewer.span = 'bin'")
    page.js(
        f"(s => {{ s.value = 5; s.dispatchEvent(new Event('input')); }})(document.querySelector('{control('bins')}'))"
    )
    in_kernel(page, f"import numpy; numpy.save({str(lab.folder / 'shown.npy')!r}, list(viewer.voxels.values()))")
    in_kernel(page, "viewer.limit, viewer.span = 2.0, 'bin'")
    for title, voxel in zip(PANELS, np.load(lab.folder / "shown.npy"), strict=False):
        pixels = panel_pixels(page, title)
        assert np.array_equal(pixels, expected_pixels(voxel[5], pixels.shape[:2], limit=2.0))
    page.screenshot(SHOTS / "notebook_05.png")
    box = "document.querySelector('.voxel-bin-viewer').getBoundingClientRect()"
    page.wait(f"0 < {box}.top && {box}.bottom < 1000")  # Run all ends with the viewer in sight.
    assert page.js("document.querySelectorAll('[data-mime-type=\"application/vnd.jupyter.stderr\"]').length") == 0
