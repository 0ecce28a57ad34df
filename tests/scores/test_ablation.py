"""Variants of a training configuration, trained with several seeds and scored alike."""

import pytest
import yaml

from deflare_core.checkpoint import find_checkpoint, read_checkpoint
from deflare_core.config import AblationConfig
from deflare_core.loop.run import TrainingError
from deflare_core.scores.ablation import DONE, run_ablation, tabulate_variants, train_variant
from deflare_core.scores.evaluation import Evaluation
from deflare_core.system.settings import make_config


@pytest.fixture
def config(pair_folders, tmp_path) -> AblationConfig:
    folders = {"noisy_dir": str(pair_folders[0]), "clean_dir": str(pair_folders[1]), "num_windows": 1}
    base = {
        "model": {"f_maps": [8, 16], "num_levels": 2, "polarity": "split", "residual": "gate"},
        "data": folders,
        "validation": folders,
        "trainer": {"max_steps": 2, "loss": "kept", "num_workers": 0, "device": "cpu"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    settings = {
        "base": tmp_path / "base.yaml",
        "variants": {"gate": [], "free": ["model.residual=free", "trainer.loss=mse"]},
        "seeds": [0, 1],
        "kept": 0.9,
        "level_data": folders,
        "data": folders,
        "runs_dir": tmp_path / "runs",
        "output_dir": tmp_path / "report",
    }
    return make_config(AblationConfig, settings)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_every_variant_is_trained_scored_and_told(config, workers):
    config = config.model_copy(update={"workers": workers})
    text = run_ablation(config, progress=False)
    assert (config.output_dir / "ablation.md").read_text() == text + "\n"
    first_cells = [line.split(" | ")[0] for line in text.splitlines()]
    assert first_cells == ["| variant", "| ---", "| input", "| oracle", "| gate", "| free"]
    for variant in config.variants:
        for seed in config.seeds:
            run = read_checkpoint(find_checkpoint(config.runs_dir / variant / str(seed), "last"))
            assert (run.step, run.training["trainer"]["seed"]) == (2, seed)
            assert run.model.level != 0.5, "The level was chosen."


def test_a_complete_run_is_not_repeated(config, monkeypatch):
    train_variant(config, "gate", (), 0, progress=False)
    monkeypatch.setattr("deflare_core.scores.ablation.fit", lambda *_, **__: pytest.fail("The run was trained again."))
    assert train_variant(config, "gate", (), 0, progress=False).name == "checkpoint_epoch_0000_iter_000002"


def test_a_complete_run_of_other_settings_is_not_taken_for_the_variant(config):
    train_variant(config, "gate", (), 0, progress=False)
    with pytest.raises(TrainingError, match=r"other settings \(optimizer\.learning_rate: 0\.\d+ -> 0\.5\); delete it"):
        train_variant(config, "gate", ("optimizer.learning_rate=0.5",), 0, progress=False)


def test_a_run_that_was_killed_after_its_level_was_chosen_goes_on(config):
    folder = train_variant(config, "gate", (), 0, progress=False).parent
    (folder / DONE).unlink()
    assert train_variant(config, "gate", (), 0, progress=False).parent == folder
    assert (folder / DONE).exists()


def test_scores_are_means_over_seeds_and_recordings():
    reference = Evaluation({name: {"a": {"mse": 1.0}} for name in ("input", "oracle")})
    seeds = Evaluation(
        {"seed_0": {"a": {"mse": 1.0}, "b": {"mse": 2.0}}, "seed_1": {"a": {"mse": 3.0}, "b": {"mse": 2.0}}}
    )
    table = tabulate_variants({"": reference, "x": seeds}, {"x": [0.8, 0.9]})
    assert "| x | 2.0000 [2.000, 2.000] |" in table
    assert table.endswith("| 0.850 [0.800, 0.900] |")
