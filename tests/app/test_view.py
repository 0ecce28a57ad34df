"""`deflare view`: a page for one user, over a socket; in a browser its pixels are those of the recording's events."""

import asyncio
import json
import re
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image
from support.chromium import BINARY, Page
from support.recordings import make_events
from support.viewer_page import choice, control, expected_pixels, panel_pixels
from support.waiting import poll
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.netutil import bind_sockets
from tornado.websocket import websocket_connect

from deflare_core.app.commands import main
from deflare_core.app.view_server import MOST_TABS, list_folder, make_application, open_viewer
from deflare_core.codec import events_to_voxel
from deflare_core.events import Events
from deflare_core.io.reading import AS_STATED
from deflare_core.io.recordings import Recording, save_events
from deflare_core.show.stretches import merge_bins
from deflare_core.system.errors import DeflareError
from deflare_core.system.places import PROJECT_ROOT

SIZE = (60, 80)
START_US = 7_000_000
TOKEN = "of-a-test"
SHOTS = PROJECT_ROOT / "reports" / "screenshots"


@pytest.fixture
def files(tmp_path):
    """A recording of 60 ms, and one that holds every second of its events."""
    events = make_events(num=9_000, sensor_size=SIZE, t_start_us=START_US, duration_us=60_000)
    for name, part in (("before", events), ("after", events[::2])):
        save_events(tmp_path / f"{name}.h5", part, source="test", clock_us=(START_US, START_US + 60_000))
    return [tmp_path / "before.h5", tmp_path / "after.h5"]


def talk(files, conversation):
    """What a conversation with a server of the files returns, in this process."""

    async def serve():
        (socket,) = bind_sockets(0, "127.0.0.1")
        port = socket.getsockname()[1]
        server = HTTPServer(make_application(files, AS_STATED, port, TOKEN))
        server.add_sockets([socket])
        try:
            return await conversation(f"127.0.0.1:{port}")
        finally:
            server.stop()

    return asyncio.run(serve())


async def status(url, **headers):
    try:
        return (await AsyncHTTPClient().fetch(HTTPRequest(url, headers=headers))).code
    except HTTPClientError as error:
        return error.code


async def connect(host, **headers):
    given = HTTPHeaders({"Cookie": f"deflare-{host.split(':')[1]}={TOKEN}", **headers})
    return await websocket_connect(HTTPRequest(f"ws://{host}/socket", headers=given))


async def hear(tab, kind):
    """The next message of a kind; buffers and others on the way are passed over."""
    while True:
        said = await tab.read_message()
        assert said is not None, f"The tab was closed before it said '{kind}'."
        if isinstance(said, str) and json.loads(said)["kind"] == kind:
            return json.loads(said)


def test_only_who_knows_the_token_and_asks_this_machine_by_name_is_answered(files):
    async def ask(host):
        page, port = f"http://{host}/", host.split(":")[1]
        assert await status(page) == 403, "Without the token nothing is shown."
        assert await status(f"{page}?token=other") == 403
        assert await status(f"{page}viewer.js") == 403
        assert await status(f"{page}?token={TOKEN}", Host="evil.example") == 403, "A name that was made to point here."
        assert await status(f"{page}etc/passwd", Cookie=f"deflare-{port}={TOKEN}") == 404
        answer = await AsyncHTTPClient().fetch(f"{page}?token={TOKEN}")
        assert "HttpOnly" in answer.headers["Set-Cookie"]
        assert "SameSite=Strict" in answer.headers["Set-Cookie"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        for headers in ({"Cookie": ""}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            with pytest.raises(HTTPClientError, match="403"):
                await connect(host, **headers)

    talk(files, ask)


def test_a_tab_sets_traits_and_hears_what_follows_of_them(files):
    async def ask(host):
        tab = await connect(host, Origin=f"http://{host}")
        shown = await hear(tab, "shown")
        assert shown["state"]["t0_us"] == START_US
        assert shown["state"]["num_windows"] == 3
        await tab.write_message(json.dumps({"send": {"kind": "window please"}}))
        window = (await hear(tab, "custom"))["content"]
        assert [panel["title"] for panel in window["panels"]] == ["Input", "Output", "Removed"]
        rates = (await hear(tab, "custom"))["content"]
        assert sum(rates["events"]) == 9_000
        assert sum(rates["removed"]) == 4_500
        await tab.write_message(json.dumps({"set": {"span": "stretch", "stretch_ms": 30, "index": 1}}))
        heard = [(await hear(tab, "state"))["state"] for _ in range(2)]
        assert {"num_windows": 2} in heard
        await hear(tab, "done")
        await tab.write_message(json.dumps({"set": {"index": 99, "limit": -1, "t0_us": 5}}))
        assert (await hear(tab, "state"))["state"] == {"index": 1}, "What cannot be is taken back."
        assert (await hear(tab, "state"))["state"] == {"limit": None}
        await hear(tab, "done")

    talk(files, ask)


def test_tabs_are_apart_and_the_oldest_makes_room(files, tmp_path):
    (tmp_path / "wrong.h5").write_text("no recording")

    async def ask(host):
        first, second = await connect(host), await connect(host)
        for tab in (first, second):
            await hear(tab, "shown")
        await first.write_message(json.dumps({"open": [str(tmp_path / "wrong.h5"), "", ""]}))
        assert "wrong.h5" in (await hear(first, "refused"))["why"]
        await first.write_message(json.dumps({"open": [str(files[1]), "", ""]}))
        assert (await hear(first, "shown"))["files"]["input"] == str(files[1])
        await second.write_message(json.dumps({"set": {"index": 2}}))
        assert (await hear(second, "custom"))["content"]["index"] == 2, "It shows what it did, as if it were alone."
        others = [await connect(host) for _ in range(MOST_TABS - 1)]
        for tab in others:
            await hear(tab, "shown")
        while (said := await first.read_message()) is not None:
            assert said, "Only the oldest tab ends."

    talk(files, ask)


def test_a_file_that_breaks_while_it_is_shown_costs_a_line(files):
    async def ask(host):
        tab = await connect(host)
        await hear(tab, "shown")
        with h5py.File(files[0], "a") as file:
            del file["events/x"]
        await tab.write_message(json.dumps({"open": [str(files[0]), "", ""]}))
        assert "before.h5" in (await hear(tab, "refused"))["why"]
        await tab.write_message(json.dumps({"set": {"polarity": "negative"}}))
        await hear(tab, "done")

    talk(files[1:], ask)


@pytest.mark.parametrize("backwards", ["before", "after", "target"])
def test_the_times_of_each_recording_are_gone_through_once_and_are_in_order(files, monkeypatch, backwards):
    names, read, go_through = [*files, files[0].with_stem("target")], [], Recording._ordered_times
    names[2].write_bytes(files[0].read_bytes())
    monkeypatch.setattr(Recording, "_ordered_times", lambda self: read.append(self.path.stem) or go_through(self))
    with ExitStack() as stack:
        open_viewer(names, AS_STATED, stack)
    assert sorted(read) == ["after", "before", "target"]
    with h5py.File(files[0].with_stem(backwards), "a") as file:
        file["events/t"][2_000] = 0
    with ExitStack() as stack, pytest.raises(DeflareError, match=f"{backwards}.h5: Time must not go backwards"):
        open_viewer(names, AS_STATED, stack)


def test_a_recording_that_begins_with_silence_is_shown_where_it_does_not(tmp_path):
    events = make_events(num=900, sensor_size=SIZE, t_start_us=START_US + 500_000, duration_us=20_000)
    save_events(tmp_path / "late.h5", events, source="test", clock_us=(START_US, START_US + 600_000))
    with ExitStack() as stack:
        viewer = open_viewer([tmp_path / "late.h5"], AS_STATED, stack)
        assert viewer.start_us <= START_US + 500_000 < viewer.start_us + viewer.window_us


def test_a_folder_lists_what_can_be_opened(files, tmp_path):
    (tmp_path / "notes.md").write_text("no recording")
    (tmp_path / "deeper").mkdir()
    found = list_folder(str(tmp_path))
    assert (found["folders"], found["files"]) == (["deeper"], ["after.h5", "before.h5"])
    assert "No such file" in list_folder(str(tmp_path / "gone"))["why"]


def test_a_port_that_is_taken_is_said_in_a_line(files, capsys):
    (socket,) = bind_sockets(0, "127.0.0.1")
    with socket:
        assert main(["view", str(files[0]), "--no-browser", "--port", str(socket.getsockname()[1])]) == 1
    assert "in use" in capsys.readouterr().err


# ---- in a browser ----------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(BINARY is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")


def sparse_and_its_output():
    """A second at 640x480 with 100 events a millisecond, more of them in 600 to 620 ms; the output lacks a corner."""
    rng = np.random.default_rng(4)
    t = np.sort(np.concatenate([rng.integers(0, 1_000_000, 100_000), rng.integers(600_000, 620_000, 6_000)]))
    pixels = rng.integers(0, 640, len(t)), rng.integers(0, 480, len(t))
    events = Events.from_columns(t + START_US, *pixels, rng.choice([-1, 1], len(t)), (480, 640))
    labels = np.where((events.x < 320) & (events.y < 240), 2, 0).astype(np.uint8)
    return events, events[labels == 0], labels


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A page on which `deflare view` shows the sparse recording, its output, and the events of both."""
    folder = tmp_path_factory.mktemp("view")
    events, output, labels = sparse_and_its_output()
    clock_us = (START_US, START_US + 1_000_000)
    save_events(folder / "in.h5", events, source="test", clock_us=clock_us, columns={"label": labels})
    save_events(folder / "out.h5", output, source="test", clock_us=clock_us)
    command = [sys.executable, "-u", "-m", "deflare_core", "view", "in.h5", "out.h5", "--no-browser"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    said = folder / "log"
    address = poll(lambda: re.search(r"http://\S+", said.read_text()), "the address")[0]
    page = Page(folder / "profile", 1440, 1000)
    page.send("Page.navigate", url=address)
    try:
        page.wait("document.querySelectorAll('.voxel-bin-viewer canvas').length === 3")
        yield SimpleNamespace(page=page, events=events, output=output, said=said, process=process, address=address)
    finally:
        page.close()
        process.terminate()
        process.wait(20)


@pytest.fixture
def fresh(shown):
    """The page as it is when it is opened."""
    shown.page.js("document.querySelector('main').replaceChildren(); globalThis.beforeReload = true")
    shown.page.send("Page.reload")
    shown.page.wait(
        "!globalThis.beforeReload && document.querySelectorAll('.voxel-bin-viewer canvas').length === 3"
        f" && document.querySelector('{control('bin-text')}').textContent"
    )
    yield shown
    assert not shown.page.errors, "No script failed."


def text(page, name):
    return page.js(f"document.querySelector('{control(name)}').textContent")


def wait_for(page, words):
    """Wait until the page says that this bin, window or stretch is on show."""
    page.wait(f"document.querySelector('{control('bin-text')}').textContent === '{words}'")


def notes(page, title):
    """A panel's title with what stands next to it."""
    return page.js(f"document.querySelector('canvas[data-panel={title}]').closest('figure').innerText")


def removed_events(shown):
    return shown.events[(shown.events.x < 320) & (shown.events.y < 240)]


def whole(events, start_us, length_us):
    """The picture of all events of a stretch, `(H, W)`."""
    part = events.window(start_us, start_us + length_us)
    return merge_bins(events_to_voxel(part, 8, None, length_us, t0_us=start_us))[0]


def assert_shows(shown, start_us, length_us):
    """Every pixel of all three panels comes to be that of the stretch, at the limit that is said."""
    panels = {"Input": shown.events, "Output": shown.output, "Removed": removed_events(shown)}
    pictures = {title: whole(events, start_us, length_us) for title, events in panels.items()}

    def is_right():
        pixels = {title: panel_pixels(shown.page, title) for title in pictures}
        limit = float(text(shown.page, "limit-text").strip("\u00b1 auto"))
        return all(
            np.array_equal(pixels[title], expected_pixels(picture, pixels[title].shape[:2], limit=limit))
            for title, picture in pictures.items()
        )

    poll(is_right, f"the pixels of {length_us} us from {start_us} us on", tries=50, pause_s=0.1)


def press(page, *keys):
    for key in keys:
        page.key(key)


@pytest.mark.slow
@needs_browser
def test_it_begins_with_enough_of_a_sparse_recording_to_see_something(fresh):
    assert text(fresh.page, "bin-text") == "7,000.0\u20137,050.0 ms", "50 ms, at the time of the recording's own clock."
    pixels = panel_pixels(fresh.page, "Input")
    seen = (pixels.min(axis=2) < 80).mean()
    assert seen > 0.01, "A hundredth of the panel is coloured, and no colour is pale."
    assert (pixels.max(axis=2)[pixels.min(axis=2) < 80] > 180).mean() > 0.9, "Nor nearly black."
    assert_shows(fresh, START_US, 50_000)
    fresh.page.screenshot(SHOTS / "view_sparse.png")


@pytest.mark.slow
@needs_browser
def test_keys_switch_bin_window_and_stretch_before_anything_was_clicked(fresh):
    press(fresh.page, "2", "ArrowRight")
    wait_for(fresh.page, "7,020.0\u20137,040.0 ms")
    assert_shows(fresh, START_US + 20_000, 20_000)
    press(fresh.page, "1", "ArrowRight")
    wait_for(fresh.page, "bin 1 of 0\u20137, 7,022.5\u20137,025.0 ms")
    assert_shows(fresh, START_US + 22_500, 2_500)


@pytest.mark.slow
@needs_browser
def test_removed_events_are_counted_and_have_their_own_signs(fresh):
    part = removed_events(fresh).window(START_US, START_US + 50_000)
    share = 100 * len(part) / len(fresh.events.window(START_US, START_US + 50_000))
    said = notes(fresh.page, "Removed")
    assert f"{share:.1f} % of the input" in said
    assert f"+{(part.p > 0).sum():,}" in said
    assert f"\u2212{(part.p < 0).sum():,}" in said


@pytest.mark.slow
@needs_browser
def test_jumps_and_the_strip_go_where_they_say(fresh):
    press(fresh.page, "2", "e")
    wait_for(fresh.page, "7,600.0\u20137,620.0 ms")
    assert_shows(fresh, START_US + 600_000, 20_000)
    left, top, width, height = fresh.page.box(control("strip"))
    fresh.page.click(left + width * 0.25, top + height / 2)
    wait_for(fresh.page, "7,240.0\u20137,260.0 ms")
    press(fresh.page, "r")
    wait_for(fresh.page, "7,600.0\u20137,620.0 ms")


@pytest.mark.slow
@needs_browser
def test_playing_goes_on_to_the_next_windows(fresh):
    press(fresh.page, "1", "End", "Home", " ")
    fresh.page.wait(f"document.querySelector('{control('window-number')}').value === '1'")
    press(fresh.page, " ", "2", " ")
    fresh.page.wait(f"Number(document.querySelector('{control('window-number')}').value) > 4")
    press(fresh.page, " ")


@pytest.mark.slow
@needs_browser
def test_a_panel_alone_and_input_and_output_in_turns(fresh):
    small = fresh.page.js("document.querySelector('canvas[data-panel=Removed]').width")
    fresh.page.js(
        "document.querySelector('canvas[data-panel=Removed]').closest('figure').querySelector('button').click()"
    )
    fresh.page.wait(f"document.querySelector('canvas[data-panel=Removed]').width > {small} * 1.5")
    assert fresh.page.js("[...document.querySelectorAll('figure')].filter((f) => !f.hidden).length") == 1
    in_sight = "[...document.querySelectorAll('figure')].find((f) => !f.hidden).querySelector('canvas').dataset.panel"
    press(fresh.page, "m", "b")
    for title in ("Input", "Output", "Input"):
        fresh.page.wait(f"{in_sight} === '{title}'")


@pytest.mark.slow
@needs_browser
def test_a_window_is_saved_as_a_picture_and_as_a_film_of_its_bins(fresh, tmp_path):
    fresh.page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    press(fresh.page, "2", "ArrowRight")
    wait_for(fresh.page, "7,020.0\u20137,040.0 ms")
    press(fresh.page, "s", "g")
    poll((tmp_path / "voxel_window1.gif").exists, "the film")
    with Image.open(tmp_path / "voxel_window1.gif") as film:
        assert film.n_frames == 8
        for b in range(8):
            film.seek(b)
            shown = (np.asarray(film.convert("RGB")) < 250).any(axis=2)[24:-24, :640]
            start_us = START_US + 20_000 + 2_500 * b
            assert np.array_equal(shown, whole(fresh.events, start_us, 2_500) != 0), "The input's panel, cell by cell."
    poll((tmp_path / "voxel_window1.png").exists, "the picture")
    fresh.page.wait(f"!document.querySelector('{control('film')}').disabled")


@pytest.mark.slow
@needs_browser
def test_causes_have_their_colours_and_a_fixed_limit_stays(fresh):
    press(fresh.page, "c")
    fresh.page.wait(f"document.querySelector('{control('cause-legend')}').innerText.includes('flare')")
    colours = {tuple(colour) for colour in panel_pixels(fresh.page, "Removed").reshape(-1, 3).tolist()}
    assert colours == {(255, 255, 255), (0x94, 0x40, 0xB8)}, "What was removed is flare, and all of it is purple."
    colours = {tuple(colour) for colour in panel_pixels(fresh.page, "Output").reshape(-1, 3).tolist()}
    assert colours == {(255, 255, 255), (0x6B, 0x6B, 0x6B)}, "What stayed is background: it is found in the input."
    press(fresh.page, "c", "f")
    fresh.page.wait(f"document.querySelector('{control('fix')}').getAttribute('aria-pressed') === 'true'")
    left, top, width, height = fresh.page.box(control("contrast"))
    limits = []
    for place in (0.1, 0.9):
        before = text(fresh.page, "limit-text")
        fresh.page.click(left + width * place, top + height / 2)
        fresh.page.wait(f"document.querySelector('{control('limit-text')}').textContent !== {json.dumps(before)}")
        limits.append(float(text(fresh.page, "limit-text").lstrip("\u00b1")))
    assert limits[0] > 1 > limits[1], "From a limit of one it goes both ways."


@pytest.mark.slow
@needs_browser
def test_a_time_surface_fades_with_age(fresh):
    press(fresh.page, "m", "t")
    fresh.page.wait(f"document.querySelector('{control('unit')}').textContent.startsWith('latest event')")
    pixels = panel_pixels(fresh.page, "Input").reshape(-1, 3)
    shades = np.unique(pixels[pixels[:, 0] > pixels[:, 2] + 20], axis=0)
    assert len(shades) > 20, "Red in many shades: old events are pale, fresh ones are not."


@pytest.mark.slow
@needs_browser
def test_the_marker_of_a_pixel_stays_where_it_is_when_the_theme_changes(fresh):
    box = "(b => [b.left, b.top, b.width].map(Math.round))(document.querySelector('.chosen').getBoundingClientRect())"
    left, top, width, height = fresh.page.box(".voxel-bin-viewer canvas")
    fresh.page.click(left + width * 0.7, top + height * 0.6)
    fresh.page.wait("document.querySelector('.chosen:not([hidden])')?.offsetWidth > 0")
    before = fresh.page.js(box)
    for theme in ("dark", "light"):
        fresh.page.js("document.querySelector('main').style.display = 'none'")
        media = [{"name": "prefers-color-scheme", "value": theme}]
        fresh.page.send("Emulation.setEmulatedMedia", features=media)
        fresh.page.js("document.querySelector('main').style.display = ''")
        assert fresh.page.js(box) == before
    assert abs(before[0] + before[2] / 2 - left - width * 0.7) < 3


@pytest.mark.slow
@needs_browser
def test_nothing_is_cut_off_in_either_theme_and_width(fresh):
    for width in (1440, 800):
        for theme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": theme}]
            fresh.page.send("Emulation.setEmulatedMedia", features=media)
            size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
            fresh.page.send("Emulation.setDeviceMetricsOverride", **size)
            fresh.page.wait(f"innerWidth === {width} && document.querySelector('.voxel-bin-viewer canvas').width > 200")
            fresh.page.screenshot(SHOTS / f"view_{theme}_{width}.png")
            assert fresh.page.js("document.documentElement.scrollWidth") <= width, "Nothing reaches over the edge."
            parts = "[...document.querySelectorAll('.voxel-bin-viewer button, output')]"
            cut = f"{parts}.filter((part) => part.scrollWidth > part.clientWidth + 2)"
            assert fresh.page.js(f"{cut}.map((b) => b.textContent)") == []
    fresh.page.send("Emulation.setDeviceMetricsOverride", width=1440, height=1000, deviceScaleFactor=1, mobile=False)


@pytest.mark.slow
@needs_browser
def test_files_are_picked_in_the_page_and_wrong_ones_refused_there(fresh, tmp_path):
    page = fresh.page
    dense = make_events(num=400_000, sensor_size=(480, 640), t_start_us=START_US, duration_us=40_000)
    save_events(tmp_path / "dense.h5", dense, source="test", clock_us=(START_US, START_US + 40_000))
    (tmp_path / "wrong.h5").write_text("no recording")
    page.js("document.querySelector('#open').click()")
    for name, value in (("input", tmp_path / "wrong.h5"), ("output", ""), ("target", "")):
        page.js(f"document.querySelector('input[name={name}]').value = {json.dumps(str(value))}")
    page.js("document.querySelector('#show').click()")
    page.wait("document.querySelector('#why').textContent.includes('wrong.h5')")
    page.js(f"document.querySelector('input[name=input]').value = {json.dumps(str(tmp_path / 'dense.h5'))}")
    page.js("document.querySelector('#show').click()")
    page.wait("document.querySelectorAll('.voxel-bin-viewer canvas').length === 1")
    page.wait(f"document.querySelector('{control('bin-text')}').textContent.startsWith('bin 0')")
    voxel = events_to_voxel(dense.window(START_US, START_US + 20_000), t0_us=START_US)
    pixels, limit = panel_pixels(page, "Input"), float(text(page, "limit-text").strip("\u00b1 auto"))
    assert np.array_equal(pixels, expected_pixels(voxel[0], pixels.shape[:2], limit=limit)), "Dense: bin by bin."
    assert page.js(f"document.querySelector('{choice('span', 'bin')}').getAttribute('aria-pressed')") == "true"
    page.screenshot(SHOTS / "view_dense.png")


@pytest.mark.slow
@needs_browser
def test_a_second_tab_works_and_the_console_holds_only_the_address(shown, tmp_path):
    second = Page(tmp_path / "profile", 1440, 1000)
    try:
        second.send("Page.navigate", url=shown.address)
        second.wait("document.querySelectorAll('.voxel-bin-viewer canvas').length === 3")
    finally:
        second.close()
    lines = shown.said.read_text().strip().splitlines()
    assert len(lines) == 3, f"Only what to open: {lines}"
