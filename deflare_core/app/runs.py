"""The commands on runs of training: train, ablate, curves, combine and import-weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from deflare_core.config import AblationConfig, TrainConfig
from deflare_core.system.markdown import align_tables

Share = Annotated[float, Field(gt=0, le=10)]


def train(
    config: Annotated[TrainConfig, "configs/train_config.yaml"],
    resume: Annotated[bool, Field(description="go on from the last checkpoint")] = False,
    debug: Annotated[
        bool,
        Field(description="only pictures of what the first two steps work on; the run's folder stays as it is"),
    ] = False,
    debug_dir: Annotated[Path, Field(description="folder of the pictures")] = Path("reports/debug_output"),
) -> int:
    """Train a network, and return 130 if a signal stopped it before its last step."""
    from deflare_core.checkpoint import read_checkpoint
    from deflare_core.system.processes import is_first_process
    from deflare_core.training import fit

    if debug:
        from deflare_core.show.debug import debug_training  # It imports matplotlib, which training does without.

        for path in debug_training(config, debug_dir, resume=resume):
            if is_first_process():
                print((path / "debug_summary.txt").read_text() + f"Pictures in {path}\n")
        return 0
    last = fit(config, resume=resume)
    if is_first_process():
        print(f"{last}")
    return 0 if read_checkpoint(last).step >= config.trainer.max_steps else 130


def ablate(config: Annotated[AblationConfig, "configs/ablation_config.yaml"]) -> None:
    """Print the table of an ablation."""
    from deflare_core.scores.ablation import run_ablation

    print(align_tables(run_ablation(config)))


def curves(
    run_dir: Annotated[Path, Field(description="folder of a run, such as runs/train")],
    detailed: Annotated[bool, Field(description="also the gradient's norm and the step's duration")] = False,
) -> None:
    """Draw the training curves of a run, and print the picture's path."""
    from deflare_core.show.curves import write_curves

    print(f"{write_curves(run_dir, detailed)}")


def combine(
    first: Annotated[Path, Field(description="checkpoint or run folder; the level is this one's")],
    second: Annotated[Path, Field(description="checkpoint or run folder of a gate that sees the same windows")],
    output_dir: Annotated[Path, Field(description="folder of the checkpoint to make")],
    shares: Annotated[
        tuple[Share, Share],
        Field(
            description="how much the judgement of each counts",
            json_schema_extra={"nargs": 2, "metavar": "FIRST SECOND"},
        ),
    ] = (0.5, 0.5),
) -> None:
    """Make a checkpoint of two networks that judge every event together, and print its path."""
    from deflare_core.app.combine import combine_checkpoints

    print(f"{combine_checkpoints(first, second, shares, output_dir)}")


def import_weights(
    input: Annotated[Path, Field(description="published weights, such as checkpoint.pth")],
    output_dir: Annotated[Path, Field(description="folder for the checkpoint, such as runs/published")],
) -> None:
    """Make a checkpoint from published weights, and print its path."""
    from deflare_core.app.import_weights import import_checkpoint

    print(f"{import_checkpoint(input, output_dir)}")
