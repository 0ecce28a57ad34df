"""Predictions: what a method makes of a recording, kept on disk so that it is computed once and scored at leisure.

A prediction is found again by everything that decides it: the method with its weights, settings and kind of device,
the package's sources, how the data are cut, and the recording's own content. Nothing that was computed from something
else is ever taken for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deflare_core.checkpoint import find_checkpoint, load_model
from deflare_core.codec import events_to_voxel
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.decision_level import rule_of
from deflare_core.deflaring.stream import applied, encoded, run_network, signed
from deflare_core.events import Events
from deflare_core.io.pairs import RecordingPair
from deflare_core.io.recordings import RecordingError, open_recording, save_events
from deflare_core.model import VoxelNetwork
from deflare_core.scores.metrics import FLARE, mse
from deflare_core.streams.baselines import about, baseline_named
from deflare_core.system.revision import hash_file, hash_sources
from deflare_core.windows import window_seed


class Prediction(NamedTuple):
    """Events that a method gave, and its mean loss per window before rounding, where it has one."""

    events: Events
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """A way to deflare the recordings of a data set.

    Parameters
    ----------
    name : what tables call it.
    key : digest of everything besides the data and the sources that decides what it gives.
    predict : the prediction for a pair of a data set; only an oracle looks at more than the input.
    about : what it is, for reports.
    model : its network, where it has one.
    """

    name: str
    key: str
    predict: Callable[[EventVoxelDataset, RecordingPair], Prediction]
    about: str = ""
    model: VoxelNetwork | None = None


def network_method(model: VoxelNetwork, key: str, seed: int = 0, name: str = "network", origin: str = "") -> Method:
    """A trained network with the event-faithful decode; `key` stands for its weights, `origin` says where from."""

    def predict(data: EventVoxelDataset, pair: RecordingPair) -> Prediction:
        parts, losses = [], []
        for t0_us, noisy, clean in data.events(pair, model.config.context):
            raw = encoded(model, noisy, t0_us, data.window_us, data.num_bins)
            truth = events_to_voxel(clean, data.num_bins, None, data.window_us, t0_us=t0_us)
            output = run_network(model, raw)
            parts.append(applied(model, (t0_us, noisy, window_seed(seed, t0_us)), raw, output, data.window_us))
            losses.append(mse(signed(output), truth))
        return Prediction(Events.concatenate([part.events for part in parts]), float(np.mean(losses)))

    described = f"{model.config.name}, feature maps {list(model.config.f_maps)}{origin and f', {origin}'}"
    # A GPU multiplies in 16 bits, so it gives other events than a processor.
    device = next(model.parameters()).device.type
    return Method(name, _digest(key, seed, device, *rule_of(model.config.level)), predict, described, model)


def checkpoint_method(path: str | Path, device: str = "auto", seed: int = 0, name: str = "network") -> Method:
    """The network of a checkpoint, or of a run folder's best one."""
    folder = find_checkpoint(path)
    weights = [hash_file(folder / file) for file in ("model.safetensors", "config.json")]
    return network_method(
        load_model(folder, device), _digest(*weights), seed, name, origin=str(folder.with_name(folder.resolve().name))
    )


def baseline_method(name: str, seed: int = 0) -> Method:
    """A method of `baselines`, by name.

    Raises
    ------
    ValueError
        When there is none of that name.
    """
    baseline = baseline_named(name)

    def predict(data: EventVoxelDataset, pair: RecordingPair) -> Prediction:
        windows = [(t0_us, noisy) for t0_us, noisy, _ in data.events(pair)]
        clock_us = (windows[0][0], windows[-1][0] + data.window_us)
        return Prediction(baseline(Events.concatenate([events for _, events in windows]), clock_us, seed))

    return Method(name, _digest(name, seed), predict, about(name))


def oracle_method() -> Method:
    """The input without the events that flare caused, which no method that removes events can beat by much."""
    described = "the input without the events that flare caused, by the causes in simulated recordings"
    return Method("oracle", _digest("oracle"), _without_flare, described)


def predicted(method: Method, data: EventVoxelDataset, pair: RecordingPair, cache: Path | None) -> Prediction:
    """The prediction of a method for a pair, from the folder `cache` where it lies there already."""
    if cache is None:
        return method.predict(data, pair)
    path = prediction_path(cache, method, pair)
    key = prediction_key(method, data, pair)
    found = stored_prediction(path, key)
    if found is None:
        found = method.predict(data, pair)
        attributes: dict[str, Any] = {"prediction_key": key, "loss": json.dumps(found.loss)}
        save_events(path, found.events, source=f"{method.name} of {pair.noisy.name}", attributes=attributes)
    return found


def prediction_path(cache: Path, method: Method, pair: RecordingPair) -> Path:
    """Where the prediction of a method for a pair lies."""
    return cache / f"{method.name}-{method.key}" / f"{pair.name}.h5"


def prediction_key(method: Method, data: EventVoxelDataset, pair: RecordingPair) -> str:
    """A digest of all that decides a prediction and its loss."""
    cut = data.window_us, data.num_bins, len(data.starts_us(pair))
    return _digest(method.key, hash_sources(), *cut, hash_file(pair.noisy), hash_file(pair.clean))


def _without_flare(data: EventVoxelDataset, pair: RecordingPair) -> Prediction:
    parts = []
    for t0_us, noisy, _ in data.events(pair):
        labels = data.provenance(pair, t0_us)
        if labels is None:
            raise RecordingError(
                f"{pair.noisy}: carries no causes (column `label`), which the oracle needs; leave it out."
            )
        parts.append(noisy[labels != FLARE])
    return Prediction(Events.concatenate(parts))


def stored_prediction(path: Path, key: str) -> Prediction | None:
    """The prediction in a file, if it is the one that the key stands for."""
    if not path.exists():
        return None
    with open_recording(path) as recording:
        if recording.attributes.get("prediction_key") != key:
            return None
        return Prediction(recording.load(), json.loads(str(recording.attributes["loss"])))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
