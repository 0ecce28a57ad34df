"""Where the remaining error sits: an evaluation's recordings grouped by what the simulator drew for them.

Recordings are put into groups by kind (scene, flicker) or into thirds by amount (flare, radiance, speed, scattered
light), as the manifest of a simulated data set states them (see `manifest.py`), and every group is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from deflare_core.io.manifest import Entry, read_manifest
from deflare_core.scores.evaluation import Evaluation
from deflare_core.scores.metrics import HEADLINES
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.markdown import markdown_table

THIRDS = ("least", "middle", "most")


def _lamps(entry: Entry) -> list[Entry]:
    return entry["plan"]["scene"]["lamps"]


KINDS: dict[str, Callable[[Entry], str]] = {
    "scene": lambda entry: entry["plan"]["scene"]["family"],
    "flicker": lambda entry: "+".join(sorted({lamp["flicker"] for lamp in _lamps(entry)})) or "no lamp",
}
AMOUNTS: dict[str, Callable[[Entry], float]] = {
    "share of flare": lambda entry: entry["input_events"]["flare"] / max(sum(entry["input_events"].values()), 1),
    "brightest lamp": lambda entry: max((lamp["radiance"] for lamp in _lamps(entry)), default=0),
    "speed": lambda entry: entry["plan"]["scene"]["speed_m_s"],
    "light scattered": lambda entry: entry["plan"]["lens"]["scatter"] + entry["plan"]["lens"]["veil"],
}


def write_breakdown(evaluation: Evaluation, method: str, noisy_dir: Path, path: Path) -> None:
    """Write the breakdown of a method's scores over the recordings of a simulated folder; of others, nothing."""
    manifest = noisy_dir.parent / "manifest.json"
    if manifest.exists():
        split = "test" if noisy_dir.name.endswith("_test") else "train"
        table = tabulate_groups(evaluation, method, read_manifest(manifest, split))
        with complete_or_absent(path) as temporary:
            temporary.write_text(f"# Where the error of {method} sits\n\n{table}\n")


def group_recordings(plans: dict[str, Entry]) -> dict[str, dict[str, list[str]]]:
    """The names of the recordings in each group, by what they are grouped by and by group."""
    groups: dict[str, dict[str, list[str]]] = {}
    for title, kind in KINDS.items():
        for name, entry in plans.items():
            groups.setdefault(title, {}).setdefault(kind(entry), []).append(name)
    for title, amount in AMOUNTS.items():
        ordered = sorted(plans, key=lambda name: amount(plans[name]))
        parts = np.array_split(np.array(ordered, object), len(THIRDS))
        groups[title] = {third: list(part) for third, part in zip(THIRDS, parts, strict=True) if len(part)}
    return groups


def tabulate_groups(
    evaluation: Evaluation, method: str, plans: dict[str, Entry], scores: Sequence[str] = HEADLINES
) -> str:
    """A method's mean scores in every group, in Markdown; recordings that were not scored do not count."""
    scored = evaluation.scores[method]
    known = {name: entry for name, entry in plans.items() if name in scored}
    rows = [["all", "", str(len(known)), *_means(scored, list(known), scores)]]
    for title, groups in group_recordings(known).items():
        rows += [
            [title, group, str(len(names)), *_means(scored, names, scores)] for group, names in sorted(groups.items())
        ]
    return markdown_table(["grouped by", "group", "recordings", *scores], rows)


def _means(scored: dict[str, dict[str, float]], names: list[str], scores: Sequence[str]) -> list[str]:
    """The mean of each score over the named recordings that have it."""
    found = [[scored[name][score] for name in names if score in scored[name]] for score in scores]
    return [f"{np.mean(values):.3f}" if values else "" for values in found]
