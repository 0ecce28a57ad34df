"""Run commands in ten environments, in one process and in two, and print where their bytes are the same.

    PYTHONPATH=tests:. python tests/campaigns/environments.py [ENVIRONMENT ...]

Commands begin in copies of one folder at one place, with a new interpreter for each environment. `README.md` has the
last table.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from support.commands_at_work import SENSOR, WORKS, digest, digest_log
from support.killing import prepare

from deflare_core.system.places import PROJECT_ROOT

COMMANDS = {
    "infer": ("infer", "infer -i ROOT/in -o ROOT/out checkpoint=ROOT/run device=cpu"),
    "convert": ("convert", f"convert ROOT/in.csv ROOT/out.h5 --sensor-size {SENSOR[0]} {SENSOR[1]}"),
    "simulate": ("simulate", "simulate --config ROOT/simu.yaml --output-dir ROOT/data --workers WORKERS"),
    "train": (
        "train",
        "train --config ROOT/train.yaml data.noisy_dir=ROOT/noisy data.clean_dir=ROOT/clean "
        "validation.noisy_dir=ROOT/noisy validation.clean_dir=ROOT/clean trainer.output_dir=ROOT/run "
        "trainer.accumulate_steps=2",
    ),
}
"""The row of `WORKS` that says how a command's input is made, and its words."""
READ_ONLY = f"mount --bind {PROJECT_ROOT} {PROJECT_ROOT} && mount -o remount,bind,ro {PROJECT_ROOT} && exec"
NOWHERE = "/proc/nowhere"
ALL = "import sys; from deflare_core.app.commands import main; sys.exit(any(main(w.split()) for w in sys.argv[1:]))"
"""A program that runs several commands: most of the time of one is its start."""


class Environment(NamedTuple):
    """What is different from the usual: variables to set or, as None, to take away, where it runs, how it starts."""

    variables: dict[str, str | None]
    place: str = "."
    is_read_only: bool = False
    processes: int = 1


USUAL = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONPATH": str(PROJECT_ROOT),
}
ENVIRONMENTS = {
    "usual": Environment({}),
    "two threads": Environment({"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}),
    "another hash seed": Environment({"PYTHONHASHSEED": "12345"}),
    "locale C, ASCII": Environment({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "locale de_DE": Environment({"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}),
    "zone of Kathmandu": Environment({"TZ": "Asia/Kathmandu"}),
    "another folder to work in": Environment({}, place="else where"),
    "TMPDIR elsewhere": Environment({"TMPDIR": "TEMPORARY"}),
    "no HOME": Environment({"HOME": None}),
    "no folder for compiled code": Environment({"NUMBA_CACHE_DIR": NOWHERE}),
    "installation read-only, no HOME": Environment({"HOME": None, "XDG_CACHE_HOME": NOWHERE}, is_read_only=True),
    "two processes": Environment({}, processes=2),
}


def run_commands(environment: Environment, folder: Path) -> dict[str, dict[str, str]]:
    """What each command writes in an environment: a digest of each file by its path."""
    place, temporary = prepare(folder / "work"), prepare(folder / "temporary")
    for name, (work, _) in COMMANDS.items():
        shutil.copytree(folder / work, place / name)
    (place / environment.place).mkdir(exist_ok=True)
    variables = {k: v and v.replace("TEMPORARY", str(temporary)) for k, v in environment.variables.items()}
    given = {name: value for name, value in (os.environ | USUAL | variables).items() if value is not None}
    for words in launch(environment, place):
        done = subprocess.run(
            words, cwd=place / environment.place, env=given, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr[-2_000:]
    assert not list(temporary.iterdir()), "Nothing temporary is left."
    return {name: digests(place / name) for name in COMMANDS}


def launch(environment: Environment, place: Path) -> list[list[str]]:
    """The words of the programs that run the commands: one interpreter for all, or `torchrun` for those that share."""
    filled = {
        name: words.replace("ROOT", str(place / name)).replace("WORKERS", str(environment.processes))
        for name, (_, words) in COMMANDS.items()
    }
    shared = ("infer", "train") if environment.processes > 1 else ()
    alone = [words for name, words in filled.items() if name not in shared]
    programs = [[sys.executable, "-c", ALL, *alone]]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={environment.processes}"]
    programs += [[sys.executable, *launcher, "-m", "deflare_core", *filled[name].split()] for name in shared]
    if environment.is_read_only:
        prefix = ["unshare", "--mount", "--map-root-user", "sh", "-c", f'{READ_ONLY} "$0" "$@"']
        return [[*prefix, *words] for words in programs]
    return programs


def digests(folder: Path) -> dict[str, str]:
    """A digest of each file, of a log without its seconds; a checkpoint's description holds names of folders."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name != "config.json":
            found[str(path.relative_to(folder))] = (digest_log if path.suffix == ".jsonl" else digest)(path)
    return found


def describe(found: dict[str, str], usual: dict[str, str]) -> str:
    """A table's cell."""
    other = [name for name in found.keys() | usual.keys() if found.get(name) != usual.get(name)]
    return f"{len(other)} of {len(usual)} files differ" if other else "same"


def run_campaign() -> int:
    """Print the table, and return 1 if a command failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environments", nargs="*", metavar="ENVIRONMENT", help=", ".join(ENVIRONMENTS))
    chosen = parser.parse_args().environments or [name for name in ENVIRONMENTS if name != "usual"]
    usual: dict[str, dict[str, str]] = {}
    sys.stdout.write(f"| environment | {' | '.join(COMMANDS)} |\n|{'---|' * (len(COMMANDS) + 1)}\n")
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        folder = Path(name)
        for work, _ in COMMANDS.values():
            WORKS[work].make(prepare(folder / work))
        for environment in ["usual", *chosen]:
            try:
                found = run_commands(ENVIRONMENTS[environment], folder)
                usual = usual or found
                cells = [describe(found[name], usual[name]) for name in COMMANDS]
            except (AssertionError, subprocess.TimeoutExpired) as error:
                cells = [f"failed: {str(error)[-900:]}"]
            sys.stdout.write(f"| {environment} | {' | '.join(cells)} |\n")
            sys.stdout.flush()
        shutil.rmtree(folder / "work", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_campaign())
