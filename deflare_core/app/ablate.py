"""The command that runs an ablation; in a file of its own, since what it configures takes long to import."""

from __future__ import annotations

from typing import Annotated

from deflare_core.scores.ablation import AblationConfig, run_ablation


def ablate(config: Annotated[AblationConfig, "configs/ablation_config.yaml"]) -> None:
    """Print the table of an ablation."""
    print(run_ablation(config))
