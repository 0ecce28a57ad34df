"""Evaluation: methods over a whole data set, recording by recording; first what they predict, then how that scores.

Scores of a recording are means over its windows, those of a method means over recordings, with intervals from drawing
recordings again. A recording that cannot be read does not stop the others; it is named at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deflare_core.codec import encode_window, merge_polarities
from deflare_core.config import TestConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.method import BaselineMethod, Method, NetworkMethod
from deflare_core.events import CAUSES, FLARE, Events
from deflare_core.inference import load_method
from deflare_core.io.pairs import RecordingPair
from deflare_core.io.recordings import RecordingError
from deflare_core.model import VoxelNetwork
from deflare_core.scores.distances import measure_distances, score_distances
from deflare_core.scores.legacy import score_as_published
from deflare_core.scores.metrics import PEAK_EVENTS, mse, psnr, score_voxels
from deflare_core.scores.predictions import (
    Prediction,
    find_stored,
    load_or_predict,
    predict,
    prediction_key,
    prediction_path,
)
from deflare_core.streams.baselines import BASELINES
from deflare_core.streams.matching import find_matched
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.documents import read_json
from deflare_core.system.errors import DeflareError
from deflare_core.system.workers import Submit, delay_items, hold_error, hold_result, worker_processes
from deflare_core.windows import Cut

Scores = dict[str, float]
Interval = tuple[float, float]
Scoring = tuple[str, list["Future[Scores]"]]
"""The name of a recording, and each method's scores of it, which may be under way."""
SCORES_VERSION = 3
"""Raised whenever a score's definition changes, so that scores kept on disk are not mixed with others."""
NEAR_PIXELS = 2
"""Rows and columns from a flare's event within which others are near it."""
NUM_RESAMPLES, CONFIDENCE = 2_000, 0.95


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores by method and recording, `scores["network"]["composed_00003"]["mse"]`, and what went wrong, by name."""

    scores: dict[str, dict[str, Scores]]
    failures: dict[str, str] = field(default_factory=dict)

    def names(self, method: str) -> list[str]:
        """The names of a method's scores."""
        return list(dict.fromkeys(name for row in self.scores[method].values() for name in row))

    def values(self, method: str, name: str) -> np.ndarray:
        """A score of every recording that has it."""
        return np.array([row[name] for row in self.scores[method].values() if name in row])

    def mean(self, method: str) -> Scores:
        """The mean of every score over the recordings, by name; recordings without a score do not count in it."""
        return {name: float(self.values(method, name).mean()) for name in self.names(method)}

    def intervals(self, method: str, seed: int = 0) -> dict[str, Interval]:
        """The bootstrap 95 % interval of every mean, by name."""
        return {name: find_interval(self.values(method, name), seed) for name in self.names(method)}

    def summary(self) -> dict[str, Scores]:
        """The mean scores of every method, and the PSNR of its mean MSE where that is not 0."""
        means = {method: self.mean(method) for method in self.scores}
        for scores in means.values():
            if scores.get("mse"):
                scores["psnr_db"] = psnr(scores["mse"], PEAK_EVENTS)
        return means

    def difference(self, method: str, other: str, name: str) -> tuple[float, Interval] | None:
        """The mean of a score of one method minus that of another, recording by recording, and its 95 % interval.

        None where no recording has the score of both.
        """
        rows, others = self.scores[method], self.scores[other]
        pairs = [(rows[key][name], others[key][name]) for key in rows if name in rows[key] and name in others[key]]
        if not pairs:
            return None
        differences = -np.diff(pairs)[:, 0]
        return float(differences.mean()), find_interval(differences, 0)

    def comparisons(self) -> list[tuple[str, str]]:
        """The methods to compare, two by two: each with the untouched input, and the first network with each other.

        A network is a method that has a `loss`.
        """
        first, *others = [name for name in self.scores if "loss" in self.names(name)] or [""]
        inputs = [(name, "input") for name in self.scores if name != "input"] if "input" in self.scores else []
        return inputs + [(first, other) for other in others]

    def rank(self, method: str, name: str = "mse", reference: str = "input") -> list[str]:
        """The recordings in the order of how much the method lowers a score of the reference, most first.

        Where the reference was not scored, they are in the order of the score itself, lowest first.
        """
        before = self.scores.get(reference, {})
        gains = {
            recording: (before[recording][name] if before else 0.0) - row[name]
            for recording, row in self.scores[method].items()
        }
        return sorted(gains, key=lambda recording: -gains[recording])


def evaluate(model: VoxelNetwork, data: EventVoxelDataset, *, progress: bool = True) -> Evaluation:
    """Scores of the untouched input and of a network for every recording of the data set; see `score_recording`.

    Raises
    ------
    RecordingError
        When a recording cannot be read.
    """
    found = evaluate_methods([BaselineMethod("input"), NetworkMethod(model)], data, progress=progress)
    if found.failures:
        raise RecordingError(next(iter(found.failures.values())))
    return found


def load_methods(config: TestConfig) -> list[Method]:
    """The methods that a configuration names; see `load_method` for errors."""
    cut = Cut(config.data.window_us, config.data.num_bins)
    return [load_method(name, config.checkpoint, device=config.device, cut=cut) for name in config.methods]


def list_methods(data: EventVoxelDataset) -> tuple[str, ...]:
    """Names of everything that a network is compared with, and of the network.

    The oracle is among them only where every recording that can be read carries causes, as simulated ones do.
    """
    known = all(_has_causes(data, pair) for pair in data.pairs)
    return (*BASELINES, *(["oracle"] if known else []), "network")


def evaluate_methods(
    methods: Sequence[Method],
    data: EventVoxelDataset,
    *,
    cache: Path | None = None,
    legacy: bool = False,
    workers: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Scores of every method for every recording; recordings that fail for one are left out for all.

    Parameters
    ----------
    methods : the methods.
    data : the pairs.
    cache : folder where predictions and their scores are kept and looked for; none keeps nothing.
    legacy : also score as published numbers were computed, by names that begin with `legacy_`.
    workers : processes that score while this one predicts; 0 does both here.
    progress : show a progress bar.
    """
    with worker_processes(workers) as submit:
        begun = delay_items(begin_scores(methods, data, cache, legacy, submit), workers)
        return collect_scores(methods, tqdm(begun, total=len(data.pairs), unit="recording", disable=not progress))


def begin_scores(
    methods: Sequence[Method], data: EventVoxelDataset, cache: Path | None, legacy: bool, submit: Submit
) -> Iterator[Scoring]:
    """The name of every recording, and the scores of all methods, which are under way; see `evaluate_methods`."""
    for pair in data.pairs:
        try:
            yield pair.name, [begin_scoring(method, data, pair, cache, legacy, submit) for method in methods]
        except RecordingError as error:
            yield pair.name, [hold_error(error)]


def collect_scores(methods: Sequence[Method], begun: Iterable[Scoring]) -> Evaluation:
    """The evaluation of methods whose scores are under way, once they are there."""
    scores: dict[str, dict[str, Scores]] = {method.name: {} for method in methods}
    failures: dict[str, str] = {}
    for name, results in begun:
        try:
            rows = [result.result() for result in results]
        except RecordingError as error:
            failures[name] = str(error)
            continue
        for method, row in zip(methods, rows, strict=True):
            scores[method.name][name] = row
    return Evaluation(scores, failures)


def begin_scoring(
    method: Method, data: EventVoxelDataset, pair: RecordingPair, cache: Path | None, legacy: bool, submit: Submit
) -> Future[Scores]:
    """The scores of a method for a pair, from the folder `cache` where it has them."""
    if cache is None:
        return submit(score_recording, predict(method, data, pair), data, pair, legacy)
    path = prediction_path(cache, method, pair).with_suffix(".json")
    key = [prediction_key(method, data, pair), SCORES_VERSION, legacy]
    stored = read_scores(path, key)
    if stored is not None:
        return hold_result(stored)
    load_or_predict(method, data, pair, cache)
    return submit(score_stored, path, key, data, pair, legacy)


def read_scores(path: Path, key: list[Any]) -> Scores | None:
    """The scores in a file, if they are those that the key stands for; damaged ones are computed again."""
    with suppress(DeflareError, KeyError, TypeError):
        stored = read_json(path, DeflareError)
        return stored["scores"] if stored["key"] == key else None
    return None


def score_stored(path: Path, key: list[Any], data: EventVoxelDataset, pair: RecordingPair, legacy: bool) -> Scores:
    """The scores of the prediction stored next to `path`, where they are written with the key to know them by."""
    prediction = find_stored(path.with_suffix(".h5"), key[0])
    if prediction is None:
        raise RecordingError(f"{path.with_suffix('.h5')}: was removed or replaced before it was scored; start again.")
    scores = score_recording(prediction, data, pair, legacy)
    with complete_or_absent(path) as temporary:
        temporary.write_text(json.dumps({"key": key, "scores": scores}) + "\n")
    return scores


def score_recording(prediction: Prediction, data: EventVoxelDataset, pair: RecordingPair, legacy: bool) -> Scores:
    """The scores of one recording: means over its windows, counts and shares over all its events.

    `loss` is a network's mean squared error before rounding; all other scores are of the predicted events.
    `count_ratio` is their number over the target's, `invented` the share of them that were not recorded, and where
    recordings carry causes, `flare_removed` and the `_kept` shares count input events.
    """
    windows, rows = list(data.windows(pair)), []
    for window in windows:
        estimate = prediction.events.window(window.t0_us, window.t0_us + data.cut.window_us)
        made, given, wanted = (
            encode_window(e, window.t0_us, data.cut, 2) for e in (estimate, window.noisy, window.clean)
        )
        distances = measure_distances(estimate, window.clean, window.t0_us, data.cut.window_us)
        scores = score_voxels(merge_polarities(made), merge_polarities(wanted))
        rows.append(scores | {"mse_least": find_least_mse(given, wanted)} | score_distances(distances))
    noisy, clean = (Events.concatenate([getattr(w, name) for w in windows]) for name in ("noisy", "clean"))
    causes = [window.causes for window in windows if window.causes is not None]
    near = [mark_near_flare(window.noisy, window.causes) for window in windows if window.causes is not None]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    loss = {} if prediction.loss is None else {"loss": prediction.loss}
    published = {f"legacy_{k}": v for k, v in score_as_published(prediction.events, clean).items()} if legacy else {}
    return loss | means | score_events(prediction.events, noisy, clean, causes, near) | published


def score_events(
    estimate: Events, noisy: Events, clean: Events, causes: list[np.ndarray], near: list[np.ndarray]
) -> Scores:
    """The number of events over the target's, the share that is invented, and shares of input events by cause.

    A cause without events has no share. `causes` are uint8, of all events of the input or of none; `near` are bool, of
    the same events, whether they are near flare.
    """
    kept = find_matched(estimate, noisy)
    invented = (len(estimate) - int(kept.sum())) / max(len(estimate), 1)
    scores = {"count_ratio": len(estimate) / max(len(clean), 1), "invented": invented}
    if not causes:
        return scores
    cause_of = np.concatenate(causes)
    chosen = {f"{name}_kept": cause_of == cause for cause, name in CAUSES.items()}
    chosen["near_kept"] = chosen["background_kept"] & np.concatenate(near)
    shares = {name: float(kept[which].mean()) for name, which in chosen.items() if which.any()}
    removed = {"flare_removed": 1 - shares.pop("flare_kept")} if "flare_kept" in shares else {}
    return scores | removed | shares


def mark_near_flare(events: Events, causes: np.ndarray) -> np.ndarray:
    """Which of N events have one of flare within `NEAR_PIXELS` rows and columns, bool `(N,)`; causes uint8 `(N,)`."""
    from scipy.ndimage import maximum_filter

    flare = np.zeros(events.sensor_size, np.uint8)
    of_flare = causes == FLARE
    flare[events.y[of_flare], events.x[of_flare]] = 1
    return maximum_filter(flare, 2 * NEAR_PIXELS + 1)[events.y, events.x].astype(np.bool_)


def find_least_mse(noisy: np.ndarray, clean: np.ndarray) -> float:
    """The least MSE that removing events can reach: where each cell keeps as many as the target has, or all.

    Both are counts by polarity, float32 `(2, bins, H, W)`, of the input and of the target.
    """
    return mse(*(merge_polarities(voxel) for voxel in (np.minimum(noisy, clean), clean)))


def find_interval(values: np.ndarray, seed: int) -> Interval:
    """The interval that holds 95 % of the means of recordings drawn again with replacement; values `(N,)`.

    Of one recording, or of scores that are not all finite, it is the mean itself.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return float(values.mean()), float(values.mean())
    from scipy.stats import bootstrap  # It takes a second to import.

    settings = {"n_resamples": NUM_RESAMPLES, "confidence_level": CONFIDENCE, "method": "percentile"}
    found = bootstrap((values,), np.mean, rng=np.random.default_rng(seed), **settings).confidence_interval
    return float(found.low), float(found.high)


def _has_causes(data: EventVoxelDataset, pair: RecordingPair) -> bool:
    """Whether the input of a pair carries causes; one that cannot be read is named when it is scored."""
    try:
        with data.open(pair.noisy) as recording:
            return "label" in recording.extra_columns
    except RecordingError:
        return True
