"""Videos: recordings side by side in slow motion, written as H.264 in mp4 and readable by every browser.

The encoder is PyAV (`av`): half as large as `imageio-ffmpeg`, it encodes in this process and raises its errors.
A pixel shows its latest event within the frame: a sum would leave a pixel that flickers as white as one that is still.
Events are painted into brightness and colour planes (YUV 4:2:0) directly: the usual conversion from RGB averages the
colour of each 2 x 2 pixels, and a lone event on white would turn out black.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path

import av
import matplotlib
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from deflare_core.events import Events, SensorSize
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.io.recordings import Recording, find_span_us, open_together
from deflare_core.show.figures import NEGATIVE, NEUTRAL, POSITIVE
from deflare_core.show.room import FILM, TAKE_A_PART, check_room
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import LONGEST_SIDE
from deflare_core.windows import Clock

WHITE = "#ffffff"
GROUND = "#e8e8e8"
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
"""The font that matplotlib brings: the one of the figures, and the same on every machine."""
MIN_PANEL_WIDTH = 480
MOST_SCALE = 60
"""How many times as wide a panel is as its sensor at most: each time costs another pass through the events."""
SMALLEST_FONT = 8
READ_US = 100_000
# Dense frames of two 640 x 480 panels take 17 ms on two cores, against 27 ms with x264's next slower preset.
ENCODER_OPTIONS = {"preset": "superfast", "crf": "23"}
LONGEST_H, USUAL_H = 10, 1
"""Hours that a film lasts at most, and those of the one that is advised instead."""


@dataclass(frozen=True)
class Video:
    """What was written: file, number of frames, height and width in pixels, and how many times slower it plays."""

    path: Path
    num_frames: int
    height: int
    width: int
    slowdown: float

    def __str__(self) -> str:
        size, speed = f"{self.width}x{self.height}", describe_speed(self.slowdown)
        return f"{self.path.name}: {self.num_frames} frames, {size}, {speed}"


def write_video(
    recordings: Mapping[str, Path | Recording],
    target: str | Path,
    *,
    frame_us: int = 2000,
    frames_per_s: int = 25,
    t_start_us: int | None = None,
    t_end_us: int | None = None,
    reading: Reading = AS_STATED,
) -> Video:
    """The mp4 that was written: one panel per named recording, red for positive and blue for negative events on white.

    Each frame shows the time at which it starts, in ms of the recording's own clock, and how much slower than the
    scene it plays. Sensors less than 480 pixels wide are enlarged by a whole factor. Memory holds 100 ms of each
    recording at a time, or one frame where that is longer.

    Parameters
    ----------
    recordings : open recordings or paths by the title of their panel, left to right, all of one sensor size.
    target : the file to make, ending in .mp4; it is written complete or not at all.
    frame_us : length of the recording that one frame shows, microseconds; the last frame may show less.
    frames_per_s : frames played in a second.
    t_start_us, t_end_us : the span to show, microseconds; None takes the start or end of the recordings.
    reading : what recordings given by path do not say themselves.

    Raises
    ------
    DeflareError
        For no recordings, sensors that differ, an empty span, a length or rate below 1, another file type, or a film
        that is too long, too large or does not fit into memory.
    """
    target = Path(target)
    _check_arguments(target, frame_us, frames_per_s)
    with open_together(recordings, reading) as opened:
        start, end = find_span_us(opened, t_start_us, t_end_us)
        slowdown = 1e6 / (frame_us * frames_per_s)
        caption = f"{frame_us / 1e3:g} ms a frame, {describe_speed(slowdown)}"
        sheet = Sheet(list(opened), next(iter(opened.values())).sensor_size, caption)
        num_frames = -(-(end - start) // frame_us)
        _check_length(num_frames, frames_per_s, end - start)
        pieces = _cut_pieces(start, end, frame_us)
        _check_size(sheet.size, opened, pieces)
        frames = (sheet.frame(panels, t_us) for t_us, panels in _slices(opened, pieces, frame_us))
        with complete_or_absent(target) as temporary:
            _encode(tqdm(frames, "video", num_frames, unit="frame"), temporary, sheet.size, frames_per_s)
    return Video(target, num_frames, *sheet.size, slowdown)


def read_poster(path: str | Path) -> bytes:
    """A PNG of the middle frame of a film: what is seen of it before it plays."""
    with av.open(str(path)) as film:
        middle = film.streams.video[0].frames // 2
        frame = next(frame for number, frame in enumerate(film.decode(video=0)) if number >= middle)
    picture = io.BytesIO()
    frame.to_image().save(picture, "PNG", optimize=True)
    return picture.getvalue()


def _check_length(num_frames: int, frames_per_s: int, span_us: int) -> None:
    """Raise a DeflareError if a film would last longer than anybody looks at it: an hour at 2 ms a frame lasts 20."""
    hours = num_frames / frames_per_s / 3600
    if hours > LONGEST_H:
        advised_us = -(-span_us // (USUAL_H * 3600 * frames_per_s))
        raise DeflareError(
            f"The film would last {hours:,.0f} hours ({num_frames:,} frames); show more in each, as in "
            f"--frame-us {advised_us}, or film a shorter span."
        )


def _check_size(size: tuple[int, int], recordings: Mapping[str, Recording], pieces_us: Sequence[Clock]) -> None:
    """Raise a DeflareError if a film would be larger than H.264 or the memory allows."""
    advice = ("film one recording alone, " if len(recordings) > 1 else "") + f"or {TAKE_A_PART}"
    if max(size) > LONGEST_SIDE:
        raise DeflareError(
            f"The film would be {size[0]:,} pixels high and {size[1]:,} wide, and H.264 has at most {LONGEST_SIDE:,}; "
            f"{advice.removeprefix('or ')}."
        )
    check_room(FILM, size, recordings.values(), pieces_us, f"show less in a frame (--frame-us), {advice}")


class Sheet:
    """The paper on which frames are painted: titles above the panels, time and caption below, drawn once."""

    def __init__(self, names: Sequence[str], sensor_size: SensorSize, caption: str) -> None:
        height, width = sensor_size
        self._scale = min(-(-MIN_PANEL_WIDTH // width), MOST_SCALE)
        self._panel = (height * self._scale, width * self._scale)
        font_size = max(self._panel[1] // 30, SMALLEST_FONT)
        self._font = ImageFont.truetype(FONT, font_size)
        self._strip, self._gap = 2 * font_size, font_size // 2
        # H.264 halves the colours' resolution: sizes must be even, and panels start at even pixels to look alike.
        self._lefts = [k * _even(self._panel[1] + self._gap) for k in range(len(names))]
        self.size = _even(self._panel[0] + 2 * self._strip), _even(self._lefts[-1] + self._panel[1])
        self._names, self._caption = names, caption

    @cached_property
    def _blank(self) -> np.ndarray:
        return to_yuv(self._draw_blank())

    def frame(self, panels: Sequence[Events], t_us: int) -> np.ndarray:
        """The planes of what each panel shows from `t_us` on, uint8 `(1.5 height, width)`, as `to_yuv` lays them."""
        planes = self._blank.copy()
        for left, events in zip(self._lefts, panels, strict=True):
            paint(planes, events, self._scale, self._strip, left)
        # Brightness alone: the ground's colour planes are neutral and serve the text as well.
        time = Image.new("L", (self._panel[1] // 2, self._strip), _yuv(GROUND)[0])
        place, ink = (self._gap, self._strip // 2), _yuv(NEUTRAL)[0]
        ImageDraw.Draw(time).text(place, f"{t_us / 1e3:,.3f} ms", ink, self._font, anchor="lm")
        planes[self.size[0] - self._strip : self.size[0], : time.width] = time
        return planes

    def _draw_blank(self) -> Image.Image:
        height, width = self.size
        image = Image.new("RGB", (width, height), GROUND)
        draw = ImageDraw.Draw(image)
        for left, name in zip(self._lefts, self._names, strict=True):
            image.paste(WHITE, (left, self._strip, left + self._panel[1], self._strip + self._panel[0]))
            draw.text((left + self._panel[1] // 2, self._strip // 2), name, NEUTRAL, self._font, anchor="mm")
        draw.text((width - self._gap, height - self._strip // 2), self._caption, NEUTRAL, self._font, anchor="rm")
        return image


def paint(planes: np.ndarray, events: Events, scale: int, top: int, left: int) -> None:
    """Colour the pixels of a panel by their latest events, in place; pixels without events stay as they are.

    The planes are uint8 `(1.5 height, width)`, as `to_yuv` lays them out. A pixel of the sensor is `scale` pixels wide.
    """
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    # Flat indices: numpy writes by them more than twice as fast as by rows and columns.
    brightness = planes.reshape(-1)
    blue, red = planes[height:].reshape(2, height // 2 * (width // 2))
    palette = np.array([_yuv(NEGATIVE), _yuv(WHITE), _yuv(POSITIVE)], np.uint8)
    colours = np.take(palette.T, events.p + 1, axis=1)
    y, x = top + scale * events.y.astype(np.intp), left + scale * events.x.astype(np.intp)
    for dy, dx in np.ndindex(scale, scale):
        cell = (y + dy) // 2 * (width // 2) + (x + dx) // 2
        brightness[(y + dy) * width + x + dx], blue[cell], red[cell] = colours


def to_yuv(image: Image.Image) -> np.ndarray:
    """The planes of an RGB image of even size, uint8 `(1.5 height, width)`: brightness above, blue and red below.

        y y y y      brightness has a value for each pixel,
        y y y y
        b b r r      blue and red one for each 2 x 2 pixels; each plane is flattened into rows of the full width

    They are those of BT.709 in video range, which every player knows.
    """
    frame = av.VideoFrame.from_image(image).reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
    return frame.to_ndarray()


def describe_speed(slowdown: float) -> str:
    """How a video plays against the scene: "20x slower", "2x faster" or "real time"."""
    if slowdown == 1:
        return "real time"
    return f"{slowdown:.3g}x slower" if slowdown > 1 else f"{1 / slowdown:.3g}x faster"


def _check_arguments(target: Path, frame_us: int, frames_per_s: int) -> None:
    if target.suffix != ".mp4":
        raise DeflareError(f"The video's name must end in .mp4; received {target}.")
    for name, value in {"frame_us": frame_us, "frames_per_s": frames_per_s}.items():
        if value < 1:
            raise DeflareError(f"{name} must be at least 1; received {value}.")


def _cut_pieces(start_us: int, end_us: int, frame_us: int) -> list[Clock]:
    """Start and end of what is read at once: one frame or many."""
    # Finding a window in a compressed file costs more than reading the few events of a frame, so many are read.
    read_us = max(1, READ_US // frame_us) * frame_us
    return [(first_us, min(first_us + read_us, end_us)) for first_us in range(start_us, end_us, read_us)]


def _slices(
    recordings: Mapping[str, Recording], pieces_us: Iterable[Clock], frame_us: int
) -> Iterator[tuple[int, list[Events]]]:
    """The start of each frame and its events in each recording."""
    for first_us, last_us in pieces_us:
        held = [recording.window(first_us, last_us) for recording in recordings.values()]
        for t_us in range(first_us, last_us, frame_us):
            yield t_us, [events.window(t_us, min(t_us + frame_us, last_us)) for events in held]


def _encode(frames: Iterable[np.ndarray], path: Path, size: tuple[int, int], frames_per_s: int) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_s), options=ENCODER_OPTIONS)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        # Players guess the colour matrix of an untagged video from its height, and so would shift some.
        stream.colorspace = stream.color_primaries = stream.color_trc = Colorspace.ITU709
        for planes in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


@cache
def _yuv(colour: str) -> tuple[int, ...]:
    brightness, (blue, red) = to_yuv(Image.new("RGB", (2, 2), colour))[[0, 2]].tolist()
    return brightness[0], blue, red


def _even(length: int) -> int:
    return length + length % 2
