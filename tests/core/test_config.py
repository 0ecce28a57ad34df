import tomllib
from pathlib import Path

import pytest
import yaml

from data_simu import SimulationConfig
from deflare_core.config import (
    AblationConfig,
    DataConfig,
    InferenceConfig,
    SimulatedDataConfig,
    TestConfig,
    TrainConfig,
    TrainerConfig,
)
from deflare_core.io.reading import Reading
from deflare_core.system.places import PRETRAINED, PROJECT_ROOT
from deflare_core.system.settings import ConfigError, StrictModel, list_set, load_config, make_config

FOLDERS = {"noisy_dir": "a", "clean_dir": "b"}
MINIMAL = {"data": FOLDERS, "validation": FOLDERS}
CONFIGS = sorted((PROJECT_ROOT / "configs").glob("*.yaml"))
SCHEMAS = {
    "simu_config": SimulationConfig,
    "train_config": TrainConfig,
    "test_config": TestConfig,
    "inference_config": InferenceConfig,
    "ablation_config": AblationConfig,
    "held_out_config": SimulatedDataConfig,
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_loads_and_says_how_to_use_it(path: Path):
    schema = next(cls for name, cls in SCHEMAS.items() if name in path.name)
    load_config(schema, path)
    head = path.read_text().split("\n\n")[0]
    assert head.startswith("#"), "It starts with a comment."
    assert "deflare " in head, "The comment gives the command."


def test_without_a_checkpoint_the_test_configuration_scores_the_pretrained_network():
    config = load_config(TestConfig, PROJECT_ROOT / "configs" / "test_config.yaml")
    assert config.checkpoint == PRETRAINED, "The card of the network promises it."


@pytest.mark.parametrize("path", [path for path in CONFIGS if "_train_" in path.name or path.stem == "train_config"])
def test_a_shipped_training_does_not_validate_on_test_pairs(path: Path):
    validation = load_config(TrainConfig, path).validation
    if isinstance(validation, DataConfig):
        tested = [d for d in (validation.noisy_dir, validation.clean_dir) if d.name.endswith("_test")]
        assert not tested, "The best checkpoint is chosen by validation; scored on the same pairs it would look better."


def test_every_variant_of_the_shipped_ablation_is_a_training_configuration():
    ablation = load_config(AblationConfig, PROJECT_ROOT / "configs" / "ablation_config.yaml")
    for name, settings in ablation.variants.items():
        load_config(TrainConfig, PROJECT_ROOT / ablation.base, [*ablation.settings, *settings])
        assert "/" not in name, "A variant's name is a folder's."


def test_the_named_configurations_are_there():
    names = {path.name for path in CONFIGS}
    assert {f"{kind}.yaml" for kind in SCHEMAS} <= names


@pytest.mark.parametrize("cls", [TrainConfig, TestConfig, InferenceConfig])
def test_every_field_is_documented(cls: type[StrictModel]):
    pending = [cls]
    while pending:
        model = pending.pop()
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no documentation."
            if isinstance(field.annotation, type) and issubclass(field.annotation, StrictModel):
                pending.append(field.annotation)


def test_overrides_are_dotted_and_typed():
    overrides = ["trainer.max_steps=10", "optimizer.learning_rate=1e-3", "model.f_maps=[8,16]", "model.num_levels=2"]
    config = make_config(TrainConfig, MINIMAL, overrides)
    assert config.trainer.max_steps == 10
    assert config.optimizer.learning_rate == 1e-3, "1e-3 is a number, although YAML reads it as text."
    assert config.model.f_maps == (8, 16)
    assert "trainer" not in MINIMAL, "The settings passed in are not modified."


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_step=10"], r"unknown key 'trainer.max_step'; did you mean 'trainer.max_steps'\?"),
        (["trainer.max_steps=many"], r"'trainer.max_steps': .* \(received 'many'\)"),
        (["trainer.max_steps=0"], "greater than 0"),
        (["trainer.max_steps"], "written key=value"),
        (["optimizer.name=SGD"], "'Adam' or 'AdamW'"),
        (["trainer=5"], "'trainer'"),
        (["trainer.max_steps.x=5"], "max_steps"),
        (["model.num_groups=0"], "'model.num_groups': .*greater than 0"),
        (["model.layer_order=xyz"], "'model.layer_order': x, y, z: no such layers; .* gbcrledD"),
        (["model.layer_order=gr"], "an order has c"),
        (["model.layer_order=''"], "an order has c"),
        (["model.layer_order=gcgr"], "no letter twice"),
        (["model.layer_order=rcg"], "does not begin with r"),
        (["trainer.crop_size=[0, 0]"], "'trainer.crop_size.0': .*greater than 0"),
        (["data.noisy_dri=x"], r"configuration: unknown key 'data.noisy_dri'; did you mean 'data.noisy_dir'\?$"),
        (["data.num_bins=0"], r"configuration: 'data.num_bins': .*greater than 0 \(received 0\)$"),
        (["data={simulation: s, split: x}"], "configuration: 'data.split': .*'train' or 'test' .received 'x'.$"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_config(TrainConfig, MINIMAL, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["20240501", "null", "on", "1e5", "#1", "rec #2", "~", "2024-05-01", "a: b"])
def test_paths_are_taken_as_they_are_written(text):
    assert make_config(InferenceConfig, {}, [f"checkpoint={text}"]).checkpoint == Path(text)
    config = make_config(TrainConfig, MINIMAL, [f"data.noisy_dir={text}", f"trainer.output_dir={text}"])
    assert config.data.noisy_dir == config.trainer.output_dir == Path(text)


def test_quotes_around_a_path_are_taken_off_and_null_is_none_where_none_is_meant():
    assert make_config(InferenceConfig, {}, ["checkpoint='my run'"]).checkpoint == Path("my run")
    config = make_config(TrainConfig, MINIMAL, ["trainer.start_from=null", "data.stream=0"])
    assert config.trainer.start_from is None
    assert config.data.reading == Reading(stream="0")


def test_a_seed_of_inference_below_0_is_refused():
    with pytest.raises(ConfigError, match=r"'seed': .*greater than or equal to 0"):
        make_config(InferenceConfig, {}, ["seed=-1"])


def test_a_missing_key_and_bad_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="the key 'validation' is missing"):
        make_config(TrainConfig, {"data": FOLDERS})
    with pytest.raises(ConfigError, match="no such file"):
        load_config(TrainConfig, tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(TrainConfig, tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigError, match="must hold key: value settings; found list"):
        load_config(TrainConfig, tmp_path / "list.yaml")


def test_the_conda_environment_installs_what_make_setup_installs():
    environment = yaml.safe_load((PROJECT_ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[test]"]
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt --editable '.[$(EXTRAS)]'" in makefile
    assert "EXTRAS := test" in makefile
    requires = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    assert requires == ">=" + python.removeprefix("python=")


def test_every_dependency_is_pinned():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    lines = (PROJECT_ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    extras = project["optional-dependencies"]
    needed = {r for names in ("test", "dev") for r in extras[names] if not r.startswith("deflare[")}
    for requirement in [*project["dependencies"], *sorted(needed)]:
        name = requirement.split(">")[0].split("[")[0].lower().replace("_", "-")
        assert name in pinned, f"{name} has no pinned version in constraints.txt."


def test_the_settings_that_are_not_as_by_default_are_listed():
    data = {"noisy_dir": "a", "clean_dir": "b"}
    settings = {"data": data, "validation": data, "trainer": {"max_steps": 4, "batch_size": 1}}
    found = list_set(make_config(TrainConfig, settings))
    assert found["trainer.max_steps"] == (4, TrainerConfig().max_steps)
    assert found["data.noisy_dir"] == (Path("a"), None), "What must be set has no default."
    assert "trainer.batch_size" not in found
