"""Codec speed on one core against its peers, in one run: events/s, ratios, and the physical limit.

Run with `make benchmark`; peers that are not installed are left out and named. To have them all:
`.venv/bin/pip install tonic evlib`. The table goes to `reports/codec_speed.md`.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.events import Events
from deflare_core.io.recordings import load_events

SIZE, BINS, DURATION_US = (480, 640), 8, 100_000


def make_recording(num_events: int, seed: int) -> Events:
    """A recording of 100 ms with events at random: the hardest case for the caches."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, DURATION_US, num_events))
    return Events.from_columns(
        t,
        rng.integers(0, SIZE[1], num_events),
        rng.integers(0, SIZE[0], num_events),
        rng.choice([-1, 1], num_events),
        SIZE,
    )


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median duration of a piece of work after one warm-up."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def encoders(events: Events) -> dict[str, Callable[[], object]]:
    """Ways to make a signed voxel of the whole recording; each peer is given the events in its own form."""
    out = np.empty((BINS, *SIZE), np.float32)
    t, x, y, p = events.t, events.x.astype(np.int64), events.y.astype(np.int64), events.p
    flat = np.empty(BINS * SIZE[0] * SIZE[1], np.int16)

    def bincount() -> object:
        cell = ((t * BINS // DURATION_US) * SIZE[0] + y) * SIZE[1] + x
        return np.bincount(cell, p, BINS * SIZE[0] * SIZE[1]).astype(np.float32)

    def add_at() -> object:
        flat.fill(0)
        np.add.at(flat, ((t * BINS // DURATION_US) * SIZE[0] + y) * SIZE[1] + x, p)
        return flat

    return {
        "ours": lambda: events_to_voxel(events, BINS, None, DURATION_US, t0_us=0),
        "ours, reused buffer": lambda: events_to_voxel(events, BINS, None, DURATION_US, t0_us=0, out=out),
        "numpy bincount": bincount,
        "numpy add.at int16": add_at,
        "limit: clear the output": lambda: out.fill(0),
    } | peer_encoders(events)


def peer_encoders(events: Events) -> dict[str, Callable[[], object]]:
    """The encoders of the peer packages that are installed."""
    found: dict[str, Callable[[], object]] = {}
    tonic = installed("tonic.functional")
    if tonic:
        structured = events.to_structured().astype([("x", int), ("y", int), ("t", int), ("p", int)])
        structured["p"] = structured["p"] > 0
        size = (SIZE[1], SIZE[0], 2)
        found["tonic to_frame"] = lambda: tonic.to_frame_numpy(structured, size, n_time_bins=BINS)
        found["tonic to_voxel_grid"] = lambda: tonic.to_voxel_grid_numpy(structured.copy(), size, n_time_bins=BINS)
    evlib, polars = installed("evlib.representations"), installed("polars")
    if evlib and polars:
        columns = {"t": events.t, "x": events.x, "y": events.y, "polarity": events.p}
        frame = polars.DataFrame(columns | {"t": polars.Series(events.t).cast(polars.Duration("us"))})
        shape = {"n_time_bins": BINS, "height": SIZE[0], "width": SIZE[1]}
        found["evlib"] = lambda: evlib.densify_voxel_grid(evlib.create_voxel_grid(frame, **shape), **shape)
    return found


def decoders(events: Events) -> dict[str, Callable[[], object]]:
    """Ways to draw sorted events from the recording's voxel."""
    voxel = events_to_voxel(events, BINS, None, DURATION_US, t0_us=0)
    span = DURATION_US // BINS

    def numpy_radix() -> object:
        counts = np.rint(voxel).astype(np.int32).ravel()
        cells = np.flatnonzero(counts)
        cells = np.repeat(cells, np.abs(counts[cells]))
        b, pixel = np.divmod(cells, SIZE[0] * SIZE[1])
        t = b * span + np.random.default_rng(0).integers(0, span, len(cells))
        order = np.argsort(t.astype(np.uint32), kind="stable")
        y, x = np.divmod(pixel[order], SIZE[1])
        return t[order], x.astype(np.uint16), y.astype(np.uint16), np.sign(counts[cells[order]]).astype(np.int8)

    def python_loop() -> object:
        rng, rows = np.random.default_rng(0), []
        for b, y, x in zip(*np.nonzero(voxel[:, :60]), strict=True):
            count = round(float(voxel[b, y, x]))
            rows += [(b * span + u, x, y, np.sign(count)) for u in rng.uniform(0, span, abs(count))]
        return sorted(rows)

    return {
        "ours": lambda: voxel_to_events(voxel, DURATION_US, t0_us=0, seed=0),
        "numpy repeat and argsort": numpy_radix,
        "Python loop over cells (an eighth of the rows)": python_loop,
    }


def installed(name: str) -> Any:
    """The module, or None when its package is not installed or does not import here."""
    # Peers import torchvision, which is broken beside a CPU build of torch; none of what is measured needs it.
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        print(f"{name.split('.')[0]} is left out: {error}")
        return None


def table(title: str, work: dict[str, Callable[[], object]], num_events: dict[str, float], repeats: int) -> str:
    """A Markdown table of rates and of ratios to ours, all measured in this run."""
    rates = {}
    for name, run in work.items():
        try:
            rates[name] = num_events.get(name, num_events[""]) / median_seconds(run, repeats) / 1e6
        except Exception as error:
            print(f"{name} failed: {error}")
    rows = [f"| {name} | {rate:.1f} | {rates['ours'] / rate:.1f} |" for name, rate in rates.items()]
    return "\n".join([f"| {title} | million events/s | ours is faster by |", "|---|---|---|", *rows]) + "\n"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recording", type=Path, help="measure on this recording's first 100 ms instead")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.recording:
        events = load_events(options.recording)
        events = Events.from_columns(events.t - events.t[0], events.x, events.y, events.p, SIZE).window(0, DURATION_US)
    else:
        events = make_recording(1_000_000, seed=0)
    voxel = np.abs(events_to_voxel(events, BINS, None, DURATION_US, t0_us=0))
    shares = {"": voxel.sum(), "Python loop over cells (an eighth of the rows)": voxel[:, :60].sum()}
    conditions = f"{len(events):,} events, {SIZE[1]}x{SIZE[0]}, {BINS} bins, one thread, median of {options.repeats}."
    text = f"# Codec speed\n\n{conditions}\n\n"
    text += table("events -> voxel", encoders(events), {"": len(events)}, options.repeats) + "\n"
    text += table("voxel -> events", decoders(events), shares, options.repeats)
    path = Path("reports/codec_speed.md")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
