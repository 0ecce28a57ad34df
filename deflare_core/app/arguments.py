"""The arguments of every command, as a table, and the parser made of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deflare_core import __version__
from deflare_core.system.settings import value_of

Argument = tuple[tuple[str, ...], dict[str, Any]]
"""What `ArgumentParser.add_argument` takes."""


def argument(*names: str, **settings: Any) -> Argument:
    """An argument of a command."""
    return names, settings


def path(name: str, help: str, **settings: Any) -> Argument:
    """An argument that is a path."""
    return argument(name, type=Path, help=help, **settings)


def config(name: str) -> Argument:
    """The configuration file of a command."""
    return path("--config", "default: %(default)s", default=f"configs/{name}.yaml")


def debugged(what: str) -> list[Argument]:
    """Options for pictures of what goes through a stage."""
    return [
        argument("--debug", action="store_true", help=what),
        path("--debug-dir", "folder of the pictures; default: %(default)s", default="reports/debug_output"),
    ]


OVERRIDES = argument(
    "overrides",
    nargs="*",
    metavar="key=value",
    help="settings that replace those of the file, such as trainer.max_steps=10",
)
READING = [
    argument("--sensor-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="where the file does not say"),
    argument(
        "--polarity",
        choices=("strict", "lenient"),
        default="strict",
        help="lenient: 1 is positive, all else negative",
    ),
    argument("--time-unit", choices=("s", "ms", "us"), help="of text that does not declare it"),
]
"""Options for recordings that do not say enough about themselves."""
PICTURES = argument("--debug", action="store_true", help="pictures under reports/debug_output")

ARGUMENTS: dict[str, list[Argument]] = {
    "simulate": [
        config("simu_config"),
        path("--output-dir", "default: %(default)s", default="data_simu/physics_method"),
        argument("--workers", type=int, help="processes; default: one per processor"),
        OVERRIDES,
    ],
    "verify": [
        path("noisy_dir", "folder of recordings with flare"),
        path("clean_dir", "folder of their clean partners"),
        path("--manifest", "also compare with the test recordings of this manifest"),
        *READING,
    ],
    "encode": [path("input", "recording"), path("output", "voxel file (.npy or .pt)"), *READING, PICTURES],
    "decode": [
        path("input", "voxel file (.npy or .pt)"),
        path("output", "recording (.h5)"),
        argument("--t0-us", type=int, default=0, help="start of the first window, us; default: 0"),
        argument("--seed", type=int, default=0, help="seed of the event times; default: 0"),
        PICTURES,
    ],
    "convert": [
        path("input", "recording of any format"),
        path("output", "file to write: .h5, .npz, .npy or .csv"),
        *READING,
    ],
    "train": [
        config("train_config"),
        argument("--resume", action="store_true", help="go on from the last checkpoint"),
        *debugged("only pictures of what the first two steps work on; the run's folder stays as it is"),
        OVERRIDES,
    ],
    "curves": [
        path("run_dir", "folder of a run, such as runs/train", metavar="RUN_DIR"),
        argument("--detailed", action="store_true", help="also the gradient's norm and the step's duration"),
    ],
    "evaluate": [
        config("test_config"),
        *debugged("also pictures of every fifth window, by the last method"),
        OVERRIDES,
    ],
    "roc": [
        config("test_config"),
        argument("--kept", type=float, default=0.95, help="share of other events to keep; default: %(default)s"),
        argument("--set-level", action="store_true", help="write the level found into the checkpoint"),
        OVERRIDES,
    ],
    "compare": [config("test_config"), OVERRIDES],
    "ablate": [config("ablation_config"), OVERRIDES],
    "import-weights": [
        path("input", "published weights, such as checkpoint.pth"),
        path("output_dir", "folder for the checkpoint, such as runs/published"),
    ],
    "infer": [
        path("--input", "recording with flare, or a folder of them", required=True),
        path("--output", "deflared recording to write (.h5), or the folder", required=True),
        path("--config", "such as configs/inference_config.yaml"),
        argument("--method", help="network (default), or a baseline: baf, efr, pfd-a, pfd-b"),
        *READING,
        OVERRIDES,
    ],
    "video": [
        path("files", "BEFORE [AFTER] OUT.mp4", nargs="+", metavar="FILE"),
        argument("--frame-us", type=int, default=2000, help="recorded time in a frame; default: %(default)s"),
        *READING,
    ],
    "sheet": [path("files", "BEFORE [AFTER] OUT.png", nargs="+", metavar="FILE"), *READING],
    "benchmark": [
        argument("--device", default="auto", help="auto, cpu or cuda; default: %(default)s"),
        path("--output-dir", "default: reports/<date>_benchmark"),
    ],
    "notebook": [
        argument("name", help="number, name or path of a notebook, such as 00"),
        argument(
            *("-p", "--parameter"),
            nargs=2,
            action="append",
            default=[],
            metavar=("NAME", "VALUE"),
            help="set a parameter",
        ),
        argument("--app", action="store_true", help="show it in a browser without its code; for 05, the viewer"),
        argument("--port", type=int, default=8866, help="of the app, on this machine; default: %(default)s"),
    ],
    "doctor": [],
}
"""What each command takes."""


def make_parser(functions: Iterable[Callable[[argparse.Namespace], int | None]]) -> argparse.ArgumentParser:
    """The parser of the whole command line; each command is named and described like the function that runs it."""
    parser = argparse.ArgumentParser("deflare", description="Remove lens flare from event-camera recordings.")
    parser.add_argument("--version", action="version", version=f"deflare {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for function in functions:
        name, about = function.__name__.replace("_", "-"), str(function.__doc__)
        command = commands.add_parser(name, help=about.splitlines()[0], description=about)
        command.set_defaults(run=function)
        for names, settings in ARGUMENTS[name]:
            command.add_argument(*names, **settings)
    return parser


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command, with its overrides wherever they stand among them."""
    options, rest = parser.parse_known_args(arguments)
    words = [*getattr(options, "overrides", []), *rest]
    strange = [text for text in words if text.startswith("-") or "=" not in text]
    if strange or (rest and not hasattr(options, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(strange or rest)}; a setting is written key=value")
    if rest:
        options.overrides = words
    return options


def parsed(name: str, text: str) -> Any:
    """The value of a parameter on the command line, read as YAML, where 1e-3 is a number too."""
    value = value_of(name, text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
