"""The commands that score methods: evaluate, compare and roc."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from pydantic import Field

from deflare_core.config import TestConfig
from deflare_core.system.errors import DeflareError
from deflare_core.system.markdown import align_tables
from deflare_core.system.places import PRETRAINED
from deflare_core.system.unfinished import dated_folder

Settings = Annotated[TestConfig, "configs/test_config.yaml"]


def evaluate(
    config: Settings,
    debug: Annotated[bool, Field(description="also pictures of every fifth window, by the last method")] = False,
    debug_dir: Annotated[Path, Field(description="folder of the pictures")] = Path("reports/debug_output"),
) -> int:
    """Score methods, and return 1 if a recording failed."""
    return score(config, config.output_dir, "Evaluation", debug_dir if debug else None)


def compare(config: Settings) -> int:
    """Score every method, also as published, and return 1 if a recording failed."""
    from deflare_core.dataset import EventVoxelDataset
    from deflare_core.scores.evaluation import list_methods

    if "methods" not in config.model_fields_set:
        config = config.model_copy(update={"methods": list_methods(EventVoxelDataset.from_config(config.data))})
    return score(config.model_copy(update={"legacy": True}), None, "Comparison")


def score(config: TestConfig, folder: Path | None, title: str, debug_dir: Path | None = None) -> int:
    """Print the scores that a configuration asks for, and return 1 if a recording failed; they also make a report.

    Without a folder for the report it gets one of its own.
    """
    from deflare_core.dataset import EventVoxelDataset
    from deflare_core.scores.breakdown import write_breakdown
    from deflare_core.scores.evaluation import evaluate_methods, load_methods
    from deflare_core.show.debug import write_debug_windows
    from deflare_core.show.report import tabulate_scores, write_report
    from deflare_core.show.run_index import list_report

    data, methods = EventVoxelDataset.from_config(config.data), load_methods(config)
    cache = config.output_dir / "predictions"
    result = evaluate_methods(methods, data, cache=cache, legacy=config.legacy, workers=config.workers)
    for name, message in result.failures.items():
        print(f"deflare: error: {name} was not scored: {message}", file=sys.stderr)
    if len(result.failures) == len(data.pairs):
        return 1
    with nullcontext(folder) if folder else dated_folder(Path("reports"), title.lower()) as folder:
        page, last = write_report(result, methods, data, cache, folder, title), methods[-1]
        write_breakdown(result, last.name, config.data.noisy_dir, folder / "breakdown.md")
    list_report(folder)
    print(align_tables(tabulate_scores(result)) + f"\nReport in {page}")
    if debug_dir:
        pictured = write_debug_windows(data, last, cache, debug_dir, result.scores[last.name])
        print(f"Pictures of {len(pictured)} windows in {debug_dir}")
    return 1 if result.failures else 0


def roc(
    config: Settings,
    kept: Annotated[float, Field(gt=0, lt=1, description="share of other events to keep")] = 0.95,
    set_level: Annotated[bool, Field(description="write the level found into the checkpoint")] = False,
) -> None:
    """Draw the curve of a checkpoint, and let it decide by it if asked."""
    from deflare_core import checkpoint
    from deflare_core.dataset import EventVoxelDataset
    from deflare_core.scores.roc import measure_roc
    from deflare_core.show.figures import draw_roc, save_figure

    if set_level and config.checkpoint == PRETRAINED:
        raise DeflareError(f"{PRETRAINED}: --set-level would change the package's own network; name checkpoint=FOLDER.")
    model = checkpoint.load_model(config.checkpoint, config.device)
    found = measure_roc(model, EventVoxelDataset.from_config(config.data))
    level = found.level_at(kept)
    removed = f"{found.removed_at(kept):.1%} of flare removed where {kept:.0%} are kept"
    print(f"area {found.area:.4f}; {removed}, level {level}")
    print(f"{save_figure(draw_roc(found, kept), config.output_dir / 'roc.png')}")
    if set_level:
        checkpoint.set_level(checkpoint.find_checkpoint(config.checkpoint), level)
