"""Groups of recordings by what the simulator drew for them, and their scores."""

from data_simu import SimulationConfig, write_dataset
from deflare_core.app.commands import main
from deflare_core.io.manifest import read_manifest
from deflare_core.scores.breakdown import group_recordings, tabulate_groups
from deflare_core.scores.evaluation import Evaluation

KINDS = {"noisy": "flare", "clean": "light"}


def plan(family: str, flickers: list[str], flare: int, speed: float) -> dict:
    lamps = [{"flicker": flicker, "radiance": 10.0 * flare} for flicker in flickers]
    return {
        "split": "test",
        "files": [f"x/composed_{flare:05d}_bg_flare.h5"],
        "input_events": {"background": 100 - flare, "light": 0, "flare": flare, "noise": 0},
        "plan": {
            "scene": {"family": family, "speed_m_s": speed, "lamps": lamps},
            "lens": {"scatter": 0.01, "veil": 0.02},
        },
    }


PLANS = {
    "a": plan("room", ["pwm", "pwm"], 0, 1),
    "b": plan("room", ["mains", "constant"], 50, 2),
    "c": plan("street", [], 90, 3),
}
SCORES = {"network": {name: {"mse": value} for name, value in zip("abc", (1.0, 2.0, 6.0), strict=True)}}


def test_recordings_are_grouped_by_kind_and_in_thirds_by_amount():
    groups = group_recordings(PLANS)
    assert groups["scene"] == {"room": ["a", "b"], "street": ["c"]}
    assert groups["flicker"] == {"pwm": ["a"], "constant+mains": ["b"], "no lamp": ["c"]}
    assert groups["share of flare"] == {"least": ["a"], "middle": ["b"], "most": ["c"]}


def test_each_group_has_its_mean():
    table = tabulate_groups(Evaluation(SCORES), "network", PLANS, ["mse", "r_f1"])
    assert "| all |  | 3 | 3.000 |  |" in table
    assert "| scene | room | 2 | 1.500 |  |" in table
    fewer = Evaluation({"network": {"a": {"mse": 1.0}}})
    assert "| all |  | 1 | 1.000 |" in tabulate_groups(fewer, "network", PLANS, ["mse"]), "Only what was scored counts."


def test_the_plans_are_those_of_a_simulated_data_set(tmp_path):
    write_dataset(SimulationConfig(sensor_size=(24, 32), num_train=3, num_test=2), tmp_path, workers=1, progress=False)
    plans = read_manifest(tmp_path / "manifest.json")
    assert list(plans) == ["composed_00000", "composed_00001"], "Training recordings are left out."
    assert set(group_recordings(plans)) >= {"scene", "flicker", "speed"}
    for suffix, count in (("_test", 2), ("", 3)):
        parts = {kind: tmp_path / f"background_with_{name}_events{suffix}" for kind, name in KINDS.items()}
        folders = [f"data.{kind}_dir={folder}" for kind, folder in parts.items()]
        settings = [*folders, f"output_dir={tmp_path / 'report'}", "methods=[input]", "data.num_windows=1"]
        assert main(["evaluate", *settings]) == 0
        assert f"| all |  | {count} |" in (tmp_path / "report" / "breakdown.md").read_text(), "Its own split's."
