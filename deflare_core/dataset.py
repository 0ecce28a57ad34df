"""The data set: windows of paired recordings as voxels, and the verification of its folders.

A pair is two files of one name in two folders; the endings `_bg_flare` and `_bg_light` do not count, and tell the two
apart where both lie in one folder. Both files share one clock, the one that they declare, and are cut into the whole
windows that it holds. If neither declares one, it runs from the whole window in which the earlier of the two first
events lies to the border of windows nearest to the later of the two last ones. Nothing is filled with zeros: a missing
partner, an unreadable file or events outside the clock are an error with the file's name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from deflare_core.codec import encode_window
from deflare_core.config import DataConfig
from deflare_core.events import NUM_BINS, WINDOW_US, Events, SensorSize
from deflare_core.io.pairs import RecordingPair, check_differ, check_spans, find_clock_us, find_pairs, find_sensor_size
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.io.recordings import Recording, open_recording, read_windows
from deflare_core.kernels.event_tensors import join_channels
from deflare_core.windows import Cut, Window, neighbour_offsets


class PairedWindow(NamedTuple):
    """One window of a pair: its start, the events of both recordings, and what caused those of the input.

    Parameters
    ----------
    t0_us : absolute microseconds.
    noisy, clean : events of the input and of the target.
    causes : uint8, for each event of the input, a key of `events.CAUSES`; None where the recording does not say.
    """

    t0_us: int
    noisy: Events
    clean: Events
    causes: NDArray[np.uint8] | None


class EventVoxelDataset(Dataset):
    """Windows of paired recordings: `dataset[i]` is `{"raw": (1, bins, H, W), "label": (1, bins, H, W)}`, float32.

    Samples are the windows of the first pair, then those of the second, pairs sorted by name. Files are opened for
    each sample, in the process that needs it, so that no handle is shared between workers; their clocks are read once,
    when the number of samples is first asked for.

    Parameters
    ----------
    noisy_events_dir : folder of recordings with flare.
    clean_events_dir : folder of the same recordings without.
    sensor_size : (height, width) that every file must have; none takes that of `reading`, or of the first file.
    segment_duration_us : length of a window in microseconds.
    num_bins : time bins of a window.
    num_segments : windows taken from each pair's start, at most what its clock holds; none: all of them.
    ids : recordings to take, by the number in their name; none: all.
    split_polarity : give `(2, bins, H, W)` instead, the numbers of positive and of negative events.
    context : windows before and after each that its input also holds, as further channels (`neighbour_offsets`).
    reading : what the files do not say themselves.

    Raises
    ------
    RecordingError
        When a folder is missing or empty, or a recording is missing or lacks its partner.
    """

    def __init__(
        self,
        noisy_events_dir: str | Path,
        clean_events_dir: str | Path,
        sensor_size: SensorSize | None = None,
        segment_duration_us: int = WINDOW_US,
        num_bins: int = NUM_BINS,
        num_segments: int | None = None,
        ids: tuple[int, ...] = (),
        split_polarity: bool = False,
        context: int = 0,
        reading: Reading = AS_STATED,
    ) -> None:
        self.channels, self.context = 2 if split_polarity else 1, context
        self.pairs = find_pairs(noisy_events_dir, clean_events_dir, ids)
        self.cut = Cut(segment_duration_us, num_bins)
        self.num_windows = num_segments
        self.sensor_size = sensor_size or reading.sensor_size or find_sensor_size(self.pairs, reading)
        self.reading = replace(reading, sensor_size=self.sensor_size)

    @classmethod
    def from_config(cls, config: DataConfig, split_polarity: bool = False, context: int = 0) -> EventVoxelDataset:
        """The data set that a configuration describes."""
        folders, cut = (config.noisy_dir, config.clean_dir), (config.window_us, config.num_bins)
        chosen = config.num_windows, config.ids
        return cls(*folders, config.sensor_size, *cut, *chosen, split_polarity, context, config.reading)

    def __len__(self) -> int:
        return self._first_samples[-1]

    def place(self, index: int) -> tuple[RecordingPair, int]:
        """The pair of a sample, and which of its windows the sample is."""
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index} of {len(self)}.")
        number = bisect_right(self._first_samples, index) - 1
        return self.pairs[number], index - self._first_samples[number]

    def window_name(self, index: int) -> str:
        """The file and window of a sample, for messages: `data/noisy/composed_00003_bg_flare.h5[2]`."""
        pair, k = self.place(index)
        return f"{pair.noisy}[{k}]"

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Input voxel `(inputs, bins, H, W)` and target voxel `(C, bins, H, W)` of one window, float32."""
        pair, k = self.place(index)
        with self.open(pair.noisy) as noisy, self.open(pair.clean) as clean:
            t0_us = self._starts_us(noisy, clean)[k]
            starts = [t0_us + offset * self.cut.window_us for offset in neighbour_offsets(self.context)]
            raw = join_channels([self._encode(noisy, start_us) for start_us in starts])
            return {"raw": raw, "label": self._encode(clean, t0_us)}

    def starts_us(self, pair: RecordingPair) -> range:
        """The start of each window of a pair: at least one, even where its clock is shorter than that.

        Raises
        ------
        RecordingError
            When a file cannot be read, is empty, or spans another time than its partner.
        """
        with self.open(pair.noisy) as noisy, self.open(pair.clean) as clean:
            check_spans(noisy, clean)
            return self._starts_us(noisy, clean)

    def windows(self, pair: RecordingPair) -> Iterator[PairedWindow]:
        """Every window of a pair, in order."""
        with self.open(pair.noisy) as noisy, self.open(pair.clean) as clean:
            for window in read_windows(noisy, self._starts_us(noisy, clean), self.cut.window_us, seed=0):
                target = clean.window(window.t0_us, window.t0_us + self.cut.window_us)
                yield PairedWindow(window.t0_us, window.events, target, window.causes)

    def check_pairs(self) -> None:
        """Raise a RecordingError if the two files of a pair hold the same events by mistake, as `check_differ` does."""
        for pair in self.pairs:
            with self.open(pair.noisy) as noisy, self.open(pair.clean) as clean:
                check_differ(noisy, clean)

    def read_input(
        self, pair: RecordingPair, reach: int = 0, seed: int = 0, part: slice = slice(None)
    ) -> Iterator[Window]:
        """The input's windows, or a part of them, with as many before and after these as a method can reach."""
        starts, margin_us = self.starts_us(pair)[part], reach * self.cut.window_us
        with self.open(pair.noisy) as noisy:
            around = range(starts.start - margin_us, starts.stop + margin_us, starts.step)
            yield from read_windows(noisy, around, self.cut.window_us, seed)

    def open(self, path: Path) -> Recording:
        """A recording of the data set, open."""
        return open_recording(path, self.reading)

    def _encode(self, recording: Recording, t0_us: int) -> torch.Tensor:
        events = recording.window(t0_us, t0_us + self.cut.window_us)
        return torch.from_numpy(encode_window(events, t0_us, self.cut, self.channels))

    @cached_property
    def _first_samples(self) -> list[int]:
        """The number of each pair's first sample, and at the end the number of all samples."""
        return [0, *accumulate(len(self.starts_us(pair)) for pair in self.pairs)]

    def _starts_us(self, noisy: Recording, clean: Recording) -> range:
        start_us, end_us = find_clock_us(noisy, clean, self.cut.window_us, self.num_windows)
        held = max(1, (end_us - start_us) // self.cut.window_us)
        num_windows = min(held, self.num_windows or held)
        return range(start_us, start_us + num_windows * self.cut.window_us, self.cut.window_us)
