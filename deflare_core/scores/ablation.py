"""Ablation: variants of one training configuration, each with several seeds and the same budget, scored alike.

Each variant is a list of settings that replace those of the base, so a variant is never a copy of code. A run that is
complete is not repeated: called again, the command goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from deflare_core.checkpoint import (
    compare_settings,
    describe_changes,
    find_checkpoint,
    load_model,
    read_checkpoint,
    set_level,
)
from deflare_core.config import AblationConfig, TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.method import BaselineMethod, Method, OracleMethod
from deflare_core.inference import load_method
from deflare_core.loop.run import TrainingError
from deflare_core.scores.evaluation import Evaluation, begin_scores, collect_scores, find_interval
from deflare_core.scores.roc import measure_roc
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.markdown import markdown_table
from deflare_core.system.settings import load_config
from deflare_core.system.workers import worker_processes
from deflare_core.training import fit

SCORES = (
    *("mse", "pmse_2", "r_f1", "t_f1", "tp_f1", "chamfer_both", "count_ratio"),
    *("flare_removed", "background_kept", "light_kept", "invented"),
)
REFERENCES = ("input", "oracle")
DONE = "done"
"""A file of this name stands in the folder of a run that is complete, its level chosen."""


def run_ablation(config: AblationConfig, progress: bool = True) -> str:
    """The table of all variants, in Markdown, after training and scoring what was not yet; also in `ablation.md`."""
    data = EventVoxelDataset.from_config(config.data)
    cache = config.output_dir / "predictions"
    methods: dict[str, list[Method]] = {"": [BaselineMethod("input"), OracleMethod()]}
    areas: dict[str, list[float]] = {}
    with worker_processes(config.workers) as submit:
        begun = {"": list(begin_scores(methods[""], data, cache, False, submit))}
        for name, settings in config.variants.items():
            checkpoints = [train_variant(config, name, settings, seed, progress) for seed in config.seeds]
            methods[name] = [load_method(f"seed_{path.parent.name}={path}") for path in checkpoints]
            begun[name] = list(begin_scores(methods[name], data, cache / name, False, submit))
            areas[name] = [measure_roc(load_model(path), data).area for path in checkpoints]
        found = {
            name: collect_scores(methods[name], tqdm(results, name or "references", disable=not progress))
            for name, results in begun.items()
        }
    text = tabulate_variants(found, areas)
    with complete_or_absent(config.output_dir / "ablation.md") as path:
        path.write_text(text + "\n")
    return text


def train_variant(config: AblationConfig, name: str, settings: tuple[str, ...], seed: int, progress: bool) -> Path:
    """The last checkpoint of a variant's run with a seed, at the level that the configuration chooses.

    Raises
    ------
    TrainingError
        When the run was stopped before its last step, or is complete but of other settings.
    """
    folder = config.runs_dir / name / str(seed)
    last_settings = f"trainer.seed={seed}", f"trainer.output_dir={folder}"
    run = load_config(TrainConfig, config.base, [*config.settings, *settings, *last_settings])
    if (folder / DONE).exists():
        last = find_checkpoint(folder, "last")
        if changed := compare_settings(read_checkpoint(last), run):
            raise TrainingError(
                f"{folder}: holds a run of other settings ({describe_changes(changed)}); delete it to train it again."
            )
        return last
    checkpoint = fit(run, resume=True, progress=progress)
    if read_checkpoint(checkpoint).step < run.trainer.max_steps:
        raise TrainingError(f"{folder}: the run was stopped; call the same command again to go on.")
    if config.kept and config.level_data:
        roc = measure_roc(load_model(checkpoint, run.trainer.device), EventVoxelDataset.from_config(config.level_data))
        set_level(checkpoint, roc.level_at(config.kept))
    (folder / DONE).touch()
    return checkpoint


def tabulate_variants(found: dict[str, Evaluation], areas: dict[str, list[float]]) -> str:
    """A row for each reference and variant: the mean over seeds and recordings, with its interval over recordings.

    The references' evaluation is found by the name "", that of a variant has a method for each seed; areas are those
    under each seed's ROC curve.
    """
    rows = [[name, *(_cell([found[""].scores[name]], score) for score in SCORES), ""] for name in REFERENCES]
    for name, by_seed in areas.items():
        seeds, spread = list(found[name].scores.values()), f"[{min(by_seed):.3f}, {max(by_seed):.3f}]"
        rows.append([name, *(_cell(seeds, score) for score in SCORES), f"{np.mean(by_seed):.3f} {spread}"])
    return markdown_table(["variant", *SCORES, "area under ROC, of seeds"], rows)


def _cell(seeds: list[dict[str, dict[str, float]]], name: str) -> str:
    """A score averaged over seeds for each recording that has it, then over recordings."""
    recordings = [recording for recording, row in seeds[0].items() if name in row]
    if not recordings:
        return ""
    values = np.array([np.mean([seed[recording][name] for seed in seeds]) for recording in recordings])
    low, high = find_interval(values, seed=0)
    return f"{values.mean():.4f} [{low:.3f}, {high:.3f}]"
