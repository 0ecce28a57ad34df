"""The command line as a user meets it: each case runs the installed program in a process of its own or in this one."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.recordings import make_events, same_events

from deflare_core.app import doctor
from deflare_core.app.arguments import find_parameters, list_examples
from deflare_core.app.commands import COMMANDS, main
from deflare_core.app.notebook import parameter_value
from deflare_core.checkpoint import load_pretrained
from deflare_core.codec import events_to_voxel
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import load_events, save_events
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.settings import list_groups, list_settings

HEAVY = {"torch", "numba", "matplotlib", "scipy", "IPython"}


@pytest.fixture
def recording(tmp_path):
    events = make_events(num=4_000, t_start_us=7_000_000_000, duration_us=100_000)
    save_events(tmp_path / "in.h5", events, source="test")
    return tmp_path / "in.h5"


def run(*arguments) -> int:
    return main([str(a) for a in arguments])


def test_the_program_is_installed_under_both_names():
    for program in ([str(Path(sys.executable).with_name("deflare"))], [sys.executable, "-m", "deflare_core"]):
        done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("deflare 0.")


@pytest.mark.parametrize("suffix", ["npy", "pt", "NPY"])
def test_encode_decode_encode_gives_the_voxel_back(recording, tmp_path, suffix, capsys):
    voxel_file, decoded, again = (tmp_path / name for name in (f"v.{suffix}", "decoded.h5", f"again.{suffix}"))
    assert run("encode", recording, voxel_file) == 0
    assert "(5, 8, 12, 16)" in capsys.readouterr().out
    assert run("decode", voxel_file, decoded, "--t0-us", 7_000_000_000, "--seed", 3) == 0
    assert run("encode", decoded, again) == 0
    read = (lambda p: torch.load(p, weights_only=True).numpy()) if suffix == "pt" else np.load
    first, second = read(voxel_file), read(again)
    assert np.array_equal(first, second), "L1, L2 and maximum error are 0."
    events = load_events(recording)
    window = events.window(7_000_020_000, 7_000_040_000)
    assert np.array_equal(first[1], events_to_voxel(window, t0_us=7_000_020_000))


def test_debug_pictures_of_encoding_and_decoding(recording, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("encode", recording, "v.npy", "--debug") == 0
    assert "Pictures in reports/debug_output/encode_v" in capsys.readouterr().out
    assert run("decode", "v.npy", "d.h5", "--debug") == 0
    pictures = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "reports").rglob("*.png"))
    assert pictures == [
        f"reports/debug_output/{folder}/{name}_{kind}.png"
        for folder, name in (("decode_d", "output"), ("encode_v", "input"))
        for kind in ("events_2d", "events_3d", "voxel_bins")
    ]


def test_the_same_command_twice_gives_byte_identical_events(recording, tmp_path):
    run("encode", recording, tmp_path / "v.npy")
    for name in ("a.h5", "b.h5"):
        run("decode", tmp_path / "v.npy", tmp_path / name, "--seed", 7)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_inferring_without_a_checkpoint_takes_the_pretrained_network(recording, tmp_path):
    assert run("infer", "--input", recording, "--output", tmp_path / "out.h5", "device=cpu") == 0
    summary = deflare_recording(load_pretrained("cpu"), recording, tmp_path / "expected.h5", progress=False)
    assert summary.num_in == 4_000
    assert same_events(load_events(tmp_path / "expected.h5"), load_events(tmp_path / "out.h5"))


def test_train_evaluate_and_infer_from_the_command_line(pair_folders, recording, tmp_path, capsys):
    noisy, clean = pair_folders
    config = tmp_path / "train_config.yaml"
    config.write_text(
        f"model: {{f_maps: [8, 16], num_levels: 2}}\n"
        f"data: &pairs {{noisy_dir: {noisy}, clean_dir: {clean}}}\nvalidation: *pairs\n"
        f"trainer: {{output_dir: {tmp_path / 'run'}, max_steps: 2, num_workers: 0, device: cpu}}\n"
    )
    assert run("train", "--config", config, "trainer.max_steps=3") == 0
    assert "checkpoint_epoch_0000_iter_000003" in capsys.readouterr().out
    test_config = tmp_path / "test_config.yaml"
    test_config.write_text(
        f"checkpoint: {tmp_path / 'run'}\ndata: {{noisy_dir: {noisy}, clean_dir: {clean}}}\n"
        f"output_dir: {tmp_path / 'scores'}\ndevice: cpu\n"
    )
    assert run("evaluate", "--config", test_config) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert any(line.startswith("| network |") for line in table)
    assert len({len(line) for line in table[:4]}) == 1, "The columns are even in the terminal."
    assert run("infer", "--input", recording, "--output", tmp_path / "out.h5", f"checkpoint={tmp_path / 'run'}") == 0
    assert "5 windows" in capsys.readouterr().out


def test_verify_reports_and_fails(pair_folders, capsys):
    assert run("verify", *pair_folders) == 0
    said = capsys.readouterr().out
    assert "pairs 3, files 6, orphans 0" in said
    assert "all is well" in said
    next(pair_folders[1].iterdir()).unlink()
    assert run("verify", *pair_folders) == 1
    told = capsys.readouterr()
    assert "has no partner" in told.err
    assert "all is well" not in told.out


def test_pairs_that_do_not_state_their_sensor_verify_with_it(pair_folders, capsys):
    for path in [path for folder in pair_folders for path in folder.iterdir()]:
        with h5py.File(path, "a") as file:
            del file["events"].attrs["height"], file["events"].attrs["width"]
    assert run("verify", *pair_folders) == 1
    assert "--sensor-size" in capsys.readouterr().err, "The error names the option that helps."
    assert run("verify", *pair_folders, "--sensor-size", "12", "16") == 0
    assert "unreadable 0, sensors 16x12" in capsys.readouterr().out


def test_the_doctor_finds_a_working_installation(capsys):
    assert run("doctor") == 0
    assert "FAIL" not in capsys.readouterr().out


def test_the_doctor_imports_every_package_that_is_needed():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    packages = {re.match(r"[\w-]+", text)[0] for text in project["dependencies"]}
    modules = {name.split(".")[0] for name in doctor.MODULES}
    renamed = {"pillow": "PIL", "pyyaml": "yaml", "pydantic-settings": "pydantic_settings"}
    assert {renamed.get(name, name) for name in packages} == modules - {"data_simu"}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("[8, 16]", [8, 16]), ("true", True), ("none.h5", "none.h5"), ("5", 5)]
)
def test_parameters_keep_their_types(text, value):
    assert parameter_value("name", text) == value


@pytest.mark.parametrize("words", ["evaluate nonsense", "roc [--kepd 0.9]", "infer --input a --output b a=1 flags"])
def test_a_word_that_is_no_setting_is_refused_before_any_file_is_read(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    error = capsys.readouterr().err.splitlines()[-1]
    assert "unrecognized arguments: " in error, "The error names the words."
    assert "a setting is written key=value" in error, "The error says how a setting is written."


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_names_every_setting_with_its_default_and_meaning(command, capsys):
    parameters = find_parameters(command.load())
    with pytest.raises(SystemExit, match="0"):
        main([command.name, "--help"])
    shown = capsys.readouterr().out
    expected = (
        {f"--{key}": field for key, field in list_settings(parameters.config).items()} if parameters.config else {}
    )
    for name, field in parameters.options.model_fields.items():
        kebab = name.replace("_", "-")
        expected[kebab.upper() if kebab.upper() in parameters.positionals else f"--{kebab}"] = field
    for name, field in expected.items():
        assert list_groups(field) or re.search(rf"^  {name}\b", shown, re.MULTILINE), f"The help does not name {name}."
        assert " ".join(str(field.description).split()) in " ".join(shown.split()), f"{name} has no meaning."
    examples = [line.strip() for line in shown.split("examples:\n")[1].splitlines()]
    assert examples == list_examples(f"deflare {command.name}"), "It ends with the examples of the README."
    assert examples, "There is one, which a shell takes."
    assert not any("[--" in line for line in examples)


def test_any_window_is_pictured_before_and_after(recording, tmp_path, capsys):
    run("infer", "-i", recording, "-o", tmp_path / "out.h5", "--method", "empty")
    capsys.readouterr()
    assert run("pictures", recording, tmp_path / "out.h5", "--window", 1, "--output-dir", tmp_path / "shown") == 0
    shown = {path.name for path in (tmp_path / "shown").iterdir()}
    kinds = ("events_2d", "events_3d", "voxel_bins")
    assert shown == {f"window_1_{name}_{kind}.png" for name in ("before", "after") for kind in kinds}
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} == shown, "It says where they are."
    assert run("pictures", recording, "--output-dir", tmp_path / "middle") == 0
    assert (tmp_path / "middle" / "window_2_before_events_2d.png").exists(), "Of five windows the middle one."
    events, begin = load_events(recording), 7_000_000_000
    less = events[(events.t < begin + 60_000) | (events.t >= begin + 80_000)]
    save_events(tmp_path / "less.h5", less, source="test", clock_us=(begin, begin + 100_000))
    assert run("pictures", recording, tmp_path / "less.h5", "--output-dir", tmp_path / "most") == 0
    assert (tmp_path / "most" / "window_3_after_events_2d.png").exists(), "Where most was removed, a picture shows it."


def test_a_setting_is_an_option_as_well_as_key_value(recording, tmp_path):
    for name, settings in {"word": ["method=empty", "flags=true"], "option": ["--method", "empty", "--flags"]}.items():
        assert run("infer", "--input", recording, "--output", tmp_path / name / "out.h5", *settings) == 0
    assert (tmp_path / "word/out.h5").read_bytes() == (tmp_path / "option/out.h5").read_bytes()


def test_a_list_and_a_setting_of_a_union_are_options(capsys, tmp_path):
    config = PROJECT_ROOT / "configs" / "train_config.yaml"
    words = ["--model.f_maps", "[8, 16]", "--data.noisy_dir", "nowhere", f"trainer.output_dir={tmp_path / 'run'}"]
    assert run("train", "--config", config, *words) == 1
    assert "f_maps [8, 16] has 2 entries" in capsys.readouterr().err, "The option's value was read as a list."
    assert run("train", "--config", config, *words, "--model.num_levels", "2") == 1
    assert "nowhere" in capsys.readouterr().err


def test_an_unknown_option_is_refused_with_the_nearest(capsys):
    for words, nearest in (
        ("train --trainer.max_step 10", "--trainer.max_steps"),
        ("train --data.noisy_dri x", "--data.noisy_dir"),
        ("convert a.h5 b.h5 --polarty lenient", "--polarity"),
        ("infer --inptu a.h5", "--input"),
        ("--vresion", "--version"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(words.split())
        assert f"did you mean {nearest}?" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("word", "hint"), [("infre", "did you mean infer?"), ("evalute", "did you mean evaluate?")])
def test_an_unknown_command_is_refused_with_the_nearest(word, hint, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([word, "--help"])
    assert f"there is no command '{word}'; {hint}" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit, match="2"):
        main(["xyz"])
    assert "choose from simulate, verify" in capsys.readouterr().err.splitlines()[-1], "None is near."


def test_help_on_all_commands_imports_no_heavy_package():
    for command, unwanted in (
        (["--help"], {"torch", "numba", "matplotlib", "numpy", "pydantic"}),
        *(([name, "--help"], HEAVY) for name in ("infer", "simulate", "ablate")),
    ):
        code = f"import sys; sys.argv[1:] = {command}; import runpy\ntry: runpy.run_module('deflare_core', "
        code += "run_name='__main__')\nfinally: print(*sys.modules, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not unwanted & set(done.stderr.split()), f"deflare {' '.join(command)} imports too much."


def test_a_programming_error_keeps_its_traceback(recording, tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        np.zeros(3).reshape(2)

    monkeypatch.setattr("deflare_core.io.convert.convert", broken)
    with pytest.raises(ValueError, match="cannot reshape"):
        run("convert", recording, tmp_path / "out.npz")


def test_a_recording_is_converted_and_pictured(tmp_path):
    events = make_events(num=2_000, duration_us=100_000)
    save_events(tmp_path / "in.h5", events, source="test")
    assert main(["convert", str(tmp_path / "in.h5"), str(tmp_path / "out.npz")]) == 0
    assert same_events(load_events(tmp_path / "out.npz"), events)
    assert main(["sheet", str(tmp_path / "in.h5"), str(tmp_path / "out.npz"), str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert run("sheet", tmp_path / "in.h5", tmp_path / "out.npz", "-o", tmp_path / "named.png") == 0
    assert (tmp_path / "named.png").read_bytes() == (tmp_path / "sheet.png").read_bytes(), "-o names the same file."
    assert main(["infer", "--method", "pfd-b", "--input", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"in.h5", "out.npz.h5"}, (
        "A folder's recordings of any format."
    )
