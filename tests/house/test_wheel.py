"""The package as a user installs it: built, unpacked into an empty folder, and used from elsewhere."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.recordings import make_events

import deflare_core
from deflare_core.io.recordings import load_events, save_events
from deflare_core.system.places import PROJECT_ROOT

USES = """
import sys
from pathlib import Path
import deflare_core
from deflare_core.app.commands import main
from deflare_core.app.view_server import HERE
from deflare_core.show.viewer import VoxelBinViewer

assert Path(deflare_core.__file__).parent == Path(sys.argv[1], "deflare_core"), "It is the installed package that runs."
assert "render" in str(VoxelBinViewer._esm) and str(VoxelBinViewer._css), "The viewer has its script and its style."
assert all((HERE / name).exists() for name in ("view.html", "view.js")), "The viewer has its page."
assert main(["infer", "--input", "in.h5", "--output", "out.h5", "--device", "cpu"]) == 0
assert main(["doctor"]) == 0
"""
"""What a user does first; in one process, since importing torch takes longest."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, made from a copy of what it packs, so that no build is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "deflare_core", "data_simu"):
        (folder / name).symlink_to(PROJECT_ROOT / name)
    build = "from setuptools.build_meta import build_wheel; import sys; sys.stdout.write(build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "dist" / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the wheel's content and nothing else, as pip would unpack it."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def packed_files() -> set[str]:
    """The files of the two packages that the code needs to run."""
    folders = [Path(deflare_core.__file__).parent, PROJECT_ROOT / "data_simu"]
    kinds = ("*.py", "*.js", "*.css", "pretrained/*", "app/README.md")
    found = [path for folder in folders for kind in kinds for path in folder.rglob(kind) if path.is_file()]
    return {path.relative_to(PROJECT_ROOT).as_posix() for path in found}


def test_every_file_of_every_wing_is_in_the_wheel(installed):
    missing = sorted(name for name in packed_files() if not (installed / name).is_file())
    assert not missing, f"The wheel lacks {missing}; see packages and package-data in pyproject.toml."


@pytest.mark.slow
def test_an_installed_package_deflares_a_recording_shows_it_and_is_sound(installed, tmp_path):
    save_events(tmp_path / "in.h5", make_events(num=500, duration_us=40_000), source="test")
    command = [sys.executable, "-c", USES, str(installed)]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 windows" in done.stdout
    assert "FAIL" not in done.stdout
    assert len(load_events(tmp_path / "out.h5")) <= 500, "The pretrained network was installed with the package."
