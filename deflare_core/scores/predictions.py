"""Predictions: what a method makes of a recording, kept on disk so that it is computed once and scored at leisure.

A prediction is found again by everything that decides it: the method with its weights, settings and kind of device,
the package's sources, how the data are cut, and the recording's own content. Nothing that was computed from something
else is ever taken for it. Windows go the way that they go when a file is deflared, so both give the same events.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deflare_core.codec import encode_window, merge_polarities
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.method import Method
from deflare_core.events import Events
from deflare_core.io.pairs import RecordingPair
from deflare_core.io.recordings import RecordingError, open_recording, save_events
from deflare_core.scores.metrics import mse
from deflare_core.system.errors import DeflareError
from deflare_core.system.input_files import check_input
from deflare_core.system.revision import hash_file, hash_sources


class Prediction(NamedTuple):
    """Events that a method gave, and its mean loss per window before rounding, where it has one."""

    events: Events
    loss: float | None = None


def predict(method: Method, data: EventVoxelDataset, pair: RecordingPair) -> Prediction:
    """What a method makes of the input of a pair; a RecordingError if a file cannot be read, or not be deflared."""
    reach = method.reach or 0
    deflared = method.deflare(data.read_input(pair, reach, seed=0), data.cut, skip=reach)
    parts, losses = [], []
    try:
        for window, part in zip(data.windows(pair), deflared):  # noqa: B905 - neighbours may follow the last window
            parts.append(part.events)
            if part.output is not None:
                truth = encode_window(window.clean, window.t0_us, data.cut)[0]
                losses.append(mse(merge_polarities(part.output.cpu().numpy()), truth))
    except RecordingError:
        raise
    except DeflareError as error:
        raise RecordingError(f"{pair.noisy}: {error}") from error
    return Prediction(Events.concatenate(parts), float(np.mean(losses)) if losses else None)


def load_or_predict(method: Method, data: EventVoxelDataset, pair: RecordingPair, cache: Path | None) -> Prediction:
    """The prediction of a method for a pair, from the folder `cache` where it is there already."""
    if cache is None:
        return predict(method, data, pair)
    path, key = prediction_path(cache, method, pair), prediction_key(method, data, pair)
    found = find_stored(path, key)
    if found is None:
        found = predict(method, data, pair)
        attributes: dict[str, Any] = {"prediction_key": key, "loss": json.dumps(found.loss)}
        save_events(path, found.events, source=f"{method.name} of {pair.noisy.name}", attributes=attributes)
    return found


def prediction_path(cache: Path, method: Method, pair: RecordingPair) -> Path:
    """Where the prediction of a method for a pair is kept."""
    return cache / f"{method.name}-{method.key}" / f"{pair.name}.h5"


def prediction_key(method: Method, data: EventVoxelDataset, pair: RecordingPair) -> str:
    """A digest of all that decides a prediction and its loss."""
    for path in (pair.noisy, pair.clean):
        check_input(path, RecordingError)
    files = hash_file(pair.noisy), hash_file(pair.clean)
    parts = [method.key, hash_sources(), *data.cut, asdict(data.reading), len(data.starts_us(pair)), *files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def find_stored(path: Path, key: str) -> Prediction | None:
    """The prediction in a file, if it is the one that the key stands for."""
    if not path.exists():
        return None
    with open_recording(path) as recording:
        if recording.attributes.get("prediction_key") != key:
            return None
        return Prediction(recording.load(), json.loads(str(recording.attributes["loss"])))
