"""Videos and contact sheets: what is written is decoded again and looked at pixel by pixel."""

import io
import re

import av
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.recordings import make_events

from deflare_core.app.commands import main
from deflare_core.events import Events
from deflare_core.io.convert import convert
from deflare_core.io.recordings import RecordingError, open_recording, save_events
from deflare_core.show.contact_sheet import draw_contact_sheet, spread_windows_us
from deflare_core.show.video import describe_speed, read_poster, write_video
from deflare_core.system import limits

SIZE = (120, 160)  # enlarged three times: panels of 480 x 360 under a strip of 32 pixels
STRIP, SCALE, NEXT_PANEL = 32, 3, 488
RED, BLUE, WHITE = (193, 39, 45), (31, 95, 168), (255, 255, 255)


def block(t_us, x, y, p, size=20) -> tuple:
    """Columns of one event in each pixel of a square whose upper left corner is x, y."""
    rows, columns = np.mgrid[y : y + size, x : x + size]
    return np.full(size * size, t_us), columns.ravel(), rows.ravel(), np.full(size * size, p)


def save_blocks(path, *blocks, sensor_size=SIZE, clock_us=(0, 10_000)):
    """A recording of blocks in the order of time."""
    columns = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    save_events(path, Events.from_columns(*columns, sensor_size), source="test", clock_us=clock_us)
    return path


def decoded(path) -> np.ndarray:
    """All frames of a video, `(frames, height, width, 3)`."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def colour_at(frame, x, y, panel=0) -> np.ndarray:
    """The mean colour in the middle of the 20 x 20 block of sensor pixels at x, y."""
    top, left = STRIP + SCALE * (y + 4), panel * NEXT_PANEL + SCALE * (x + 4)
    return frame[top : top + SCALE * 12, left : left + SCALE * 12].mean(axis=(0, 1))


@pytest.fixture
def pair(tmp_path):
    """Before: a positive block in frame 0 and a negative one in frame 3 of 2 ms; after: the negative one alone."""
    positive, negative = block(1000, 20, 40, 1), block(7000, 100, 80, -1)
    before = save_blocks(tmp_path / "before.h5", positive, negative)
    return {"before": before, "after": save_blocks(tmp_path / "after.h5", negative)}


def test_number_and_size_of_frames(pair, tmp_path):
    video = write_video(pair, tmp_path / "out.mp4", frame_us=3000)
    frames = decoded(tmp_path / "out.mp4")
    assert len(frames) == video.num_frames == 4, "10 ms in frames of 3 ms are four, the last one cut short."
    assert frames.shape[1:3] == (video.height, video.width) == (424, 968), "Two panels of 480 x 360, strips and a gap."


def test_encoding_is_what_browsers_play(pair, tmp_path):
    write_video(pair, tmp_path / "out.mp4", frames_per_s=50)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 50, "The video plays at the rate asked for."


def test_events_are_red_and_blue_in_their_own_frame_and_panel(pair, tmp_path):
    write_video(pair, tmp_path / "out.mp4", frame_us=2000)
    frames = decoded(tmp_path / "out.mp4")
    assert np.allclose(colour_at(frames[0], 20, 40), RED, atol=12), "Positive events are red."
    assert np.allclose(colour_at(frames[3], 100, 80), BLUE, atol=12), "Negative events are blue."
    assert np.allclose(colour_at(frames[3], 100, 80, panel=1), BLUE, atol=12), "The second panel shows the second file."
    for frame, x, y, panel in ((0, 20, 40, 1), (1, 20, 40, 0), (0, 100, 80, 0), (3, 20, 40, 0)):
        colour = colour_at(frames[frame], x, y, panel)
        assert np.allclose(colour, WHITE, atol=6), f"No event is in frame {frame}, panel {panel} at {x}, {y}."


def test_all_outside_the_blocks_is_white(pair, tmp_path):
    write_video(pair, tmp_path / "out.mp4", frame_us=2000)
    panel = decoded(tmp_path / "out.mp4")[0][STRIP : STRIP + 360, :480].astype(int)
    panel[SCALE * 40 - 8 : SCALE * 60 + 8, SCALE * 20 - 8 : SCALE * 40 + 8] = 255
    assert panel.min() >= 243, "Pixels without events stay white but for what compression does to them."


def test_a_lone_event_keeps_its_colour_on_a_sensor_that_is_not_enlarged(tmp_path):
    events = save_blocks(tmp_path / "a.h5", block(0, 101, 51, 1, 1), block(0, 300, 51, -1, 1), sensor_size=(100, 480))
    write_video({"a": events}, tmp_path / "out.mp4", t_end_us=2000)
    frame = decoded(tmp_path / "out.mp4")[0].astype(int)
    red, blue = frame[STRIP + 51, 101], frame[STRIP + 51, 300]
    assert red[0] > red[2] + 60, f"One positive event is red, not grey: {red}."
    assert blue[2] > blue[0] + 60, f"One negative event is blue, not grey: {blue}."


def test_the_latest_event_of_a_pixel_counts(tmp_path):
    events = save_blocks(tmp_path / "a.h5", block(100, 20, 40, 1), block(200, 20, 40, -1))
    write_video({"a": events}, tmp_path / "out.mp4")
    assert np.allclose(colour_at(decoded(tmp_path / "out.mp4")[0], 20, 40), BLUE, atol=12), "The later event is shown."


def test_same_events_look_the_same_in_every_panel(tmp_path):
    path = tmp_path / "a.h5"
    save_events(path, make_events(num=2000, sensor_size=(60, 481)), source="test")
    write_video({"before": path, "after": path}, tmp_path / "out.mp4", frame_us=20_000)
    frame = decoded(tmp_path / "out.mp4")[0].astype(int)
    difference = np.abs(frame[32:92, :481] - frame[32:92, 490:971])
    assert difference.mean() < 8, "Nothing but compression tells two panels of one recording apart."


def test_the_timecode_changes_and_the_titles_stay(pair, tmp_path):
    write_video(pair, tmp_path / "out.mp4", t_start_us=1_000_000, t_end_us=1_006_000)
    frames = decoded(tmp_path / "out.mp4").astype(int)
    time, title = frames[:, -STRIP:, :200], frames[:, :STRIP]
    assert np.abs(time[0] - time[2]).max() > 60, "The time in the first and third frames differs."
    assert np.abs(title[0] - title[2]).max() < 20, "The titles do not move."
    assert title[0].min() < 120, "Titles are written in dark grey."


def test_what_is_read_at_once_does_not_show(tmp_path):
    events = save_blocks(
        tmp_path / "a.h5", block(99_000, 20, 40, 1), block(100_000, 100, 80, -1), clock_us=(0, 200_000)
    )
    write_video({"a": events}, tmp_path / "out.mp4", frame_us=30_000)
    frames = decoded(tmp_path / "out.mp4")
    assert len(frames) == 7, "200 ms in frames of 30 ms are seven."
    assert np.allclose(colour_at(frames[3], 20, 40), RED, atol=12), "The fourth frame shows 90 to 120 ms."
    assert np.allclose(colour_at(frames[3], 100, 80), BLUE, atol=12), "The fourth frame shows 90 to 120 ms."


def test_open_recordings_are_taken_and_left_open(pair, tmp_path):
    with open_recording(pair["before"]) as recording:
        video = write_video({"before": recording}, tmp_path / "out.mp4")
        assert len(recording.window(0, 2000)) == 400, "A recording that came open is still open."
    assert video.width == 480, "One recording makes one panel."


def test_a_write_that_fails_leaves_the_former_file(pair, tmp_path):
    with h5py.File(pair["after"], "r+") as file:
        file["events/p"][-1] = 7
    target = tmp_path / "video" / "out.mp4"
    target.parent.mkdir()
    target.write_text("former")
    with pytest.raises(RecordingError, match=r"after\.h5"):
        write_video(pair, target)
    assert [path.name for path in target.parent.iterdir()] == ["out.mp4"], "No partial file is left."
    assert target.read_text() == "former", "What stood there is untouched."


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"frame_us": 0}, "frame_us.* 0"),
        ({"frame_us": -5}, "frame_us.* -5"),
        ({"frames_per_s": 0}, "frames_per_s.* 0"),
        ({"t_start_us": 5000, "t_end_us": 5000}, r"\[5000, 5000\)"),
        ({"t_start_us": 20_000}, r"\[20000, 10000\)"),
    ],
)
def test_bad_settings_are_named(pair, tmp_path, settings, named):
    with pytest.raises(ValueError, match=named):
        write_video(pair, tmp_path / "out.mp4", **settings)
    assert not (tmp_path / "out.mp4").exists(), "Nothing is written."


def test_bad_recordings_and_targets_are_named(pair, tmp_path):
    other = save_blocks(tmp_path / "other.h5", block(0, 0, 0, 1), sensor_size=(60, 80))
    with pytest.raises(ValueError, match="none"):
        write_video({}, tmp_path / "out.mp4")
    with pytest.raises(ValueError, match=r"'before': \(120, 160\), 'other': \(60, 80\)"):
        write_video({"before": pair["before"], "other": other}, tmp_path / "out.mp4")
    with pytest.raises(ValueError, match=r"after\.h5"):
        write_video({"before": pair["before"]}, pair["after"])


@pytest.mark.parametrize(
    "command", ["video IN OUT.mp4", "sheet IN OUT.png", "pictures IN --output-dir OUT", "view IN --no-browser"]
)
def test_a_frame_that_does_not_fit_into_memory_is_refused_before_anything_is_drawn(
    tmp_path, monkeypatch, capsys, command
):
    path = save_blocks(tmp_path / "a.h5", block(0, 0, 0, 1), sensor_size=(2_048, 2_048))
    (tmp_path / "group").mkdir()
    for name, num_bytes in {"max": 2_000_000_000, "current": 1_950_000_000}.items():
        (tmp_path / "group" / f"memory.{name}").write_text(f"{num_bytes}\n")
    monkeypatch.setattr(limits, "CONTROL_GROUPS", tmp_path / "group")
    places = {"IN": str(path), "OUT": str(tmp_path / "out")}
    assert main(re.sub("IN|OUT", lambda match: places[match[0]], command).split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"a\.h5: to show 400 events at once on 2,\d{3} x 2,048 pixels would take at least 0\.[1-9] GB", line
    )
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5", "group"}, "Nothing is written."


def test_how_slow_is_said_in_words():
    assert [describe_speed(slowdown) for slowdown in (25, 1, 0.5)] == ["25x slower", "real time", "2x faster"]


def test_slowdown_is_playing_time_over_recorded_time(pair, tmp_path):
    video = write_video(pair, tmp_path / "out.mp4", frame_us=1600, frames_per_s=25)
    assert video.slowdown == 25, "1.6 ms are shown for 40 ms."
    assert str(video) == "out.mp4: 7 frames, 968x424, 25x slower"


def test_what_a_file_does_not_state_is_said_on_the_command_line(pair, tmp_path):
    convert(pair["before"], tmp_path / "a.npy", progress=False)
    sized = ["--sensor-size", "120", "160"]
    assert main(["video", str(tmp_path / "a.npy"), str(pair["after"]), str(tmp_path / "a.mp4"), *sized]) == 0
    assert main(["sheet", str(tmp_path / "a.npy"), str(tmp_path / "a.png"), *sized]) == 0
    assert len(decoded(tmp_path / "a.mp4")) == 5, "10 ms in frames of 2 ms are five."
    assert main(["sheet", str(tmp_path / "a.npy"), str(tmp_path / "b.png")]) == 1, "Without it the command says so."
    assert not (tmp_path / "b.png").exists()


def test_contact_sheet_has_a_panel_for_each_recording_and_window_and_for_what_was_removed(pair):
    figure = draw_contact_sheet({"input": pair["before"], "output": pair["after"]}, num=2)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 6, "Two recordings and what is in one only, at two times, are six panels."
    assert [axes.get_title() for axes in panels] == ["0.0 to 5.0 ms", "5.0 to 10.0 ms", "", "", "", ""]
    assert [axes.get_ylabel() for axes in panels] == ["input", "", "output", "", "removed", ""]
    counts = [axes.texts[0].get_text() for axes in panels]
    assert counts == ["400", "400", "0", "400", "400", "0"], "Each panel tells its events."
    assert np.array_equal(panels[0].images[0].get_array(), panels[4].images[0].get_array())


def test_contact_sheet_sums_blocks_of_a_large_sensor(tmp_path):
    path = save_blocks(tmp_path / "a.h5", block(0, 0, 0, 1, 4), sensor_size=(301, 401))
    picture = draw_contact_sheet({"a": path}, num=1).axes[0].images[0].get_array()
    assert picture.shape == (101, 134), "Blocks of 3 x 3 pixels keep a panel under 200."
    assert picture[:3, :3].tolist() == [[9, 3, 0], [3, 1, 0], [0, 0, 0]], "Blocks hold the sum of their events."


@pytest.mark.parametrize(("num", "named"), [(0, "received 0"), (-1, "received -1")])
def test_contact_sheet_needs_a_window(pair, num, named):
    with pytest.raises(ValueError, match=named):
        draw_contact_sheet(pair, num=num)


def test_contact_sheet_windows_by_hand():
    assert spread_windows_us(0, 100_000, 2) == [(15_000, 35_000), (65_000, 85_000)], "20 ms in the middle of each half."
    assert spread_windows_us(7, 17, 2) == [(7, 12), (12, 17)], "A short recording is divided."


@given(st.integers(0, 10**12), st.integers(16, 10**8), st.integers(1, 16))
def test_contact_sheet_windows_stay_apart_and_inside(start, duration, num):
    edges = np.array(spread_windows_us(start, start + duration, num)).ravel()
    assert (np.diff(edges) >= 0).all(), "Windows follow each other."
    assert start <= edges[0], "No window starts before the recording."
    assert edges[-1] <= start + duration, "No window ends after the recording."


def test_the_poster_of_a_film_is_its_middle_frame(pair, tmp_path):
    path = write_video({"input": pair["before"]}, tmp_path / "film.mp4", frame_us=1000).path
    poster = np.asarray(Image.open(io.BytesIO(read_poster(path))))
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert np.array_equal(poster, frames[len(frames) // 2])
