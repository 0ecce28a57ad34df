"""Compiled functions: what is kept on disk belongs to the sources that it was made from."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from support.processes import Started
from support.waiting import poll

from deflare_core.kernels import numba_cache as compiled
from deflare_core.system.errors import DeflareError


def test_the_cache_of_other_sources_is_removed(tmp_path):
    old = tmp_path / "compiled-0123"
    old.mkdir()
    assert compiled.choose_cache(tmp_path) == tmp_path / f"compiled-{compiled.hash_loops()}"
    assert not old.exists()


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A package that cannot be written, the place where the user's cache would be, and a folder for temporary files."""
    (tmp_path / "deflare_core").touch()
    monkeypatch.setattr(compiled, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(compiled.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path


def test_a_read_only_package_keeps_compiled_code_in_the_users_cache(read_only, caplog):
    assert compiled.find_cache() == read_only / "user" / "deflare" / compiled.name_cache()
    assert caplog.messages == [], "It lasts, so there is nothing to say."
    os.environ[compiled.CACHE_VARIABLE] = str(read_only / "named")
    assert compiled.find_cache() == read_only / "named" / compiled.name_cache()


def test_without_a_home_compiled_code_is_kept_for_a_while(read_only, monkeypatch, caplog):
    (read_only / "user").touch()
    monkeypatch.setattr(compiled, "_temporary", [])
    monkeypatch.setenv(compiled.CACHE_VARIABLE, "")
    folder = compiled.find_cache()
    assert folder.parent.parent == read_only
    assert os.environ[compiled.CACHE_VARIABLE] == str(folder.parent), "Processes that this one starts share it."
    assert compiled.find_cache() == folder
    (line,) = caplog.messages
    assert "user/deflare cannot be written; set NUMBA_CACHE_DIR to a folder" in line


def test_what_was_compiled_before_is_copied_from_a_read_only_package(read_only, monkeypatch):
    (read_only / "there").mkdir()
    (read_only / "there" / "code").touch()
    monkeypatch.setattr(compiled, "_temporary", [])
    monkeypatch.setenv(compiled.CACHE_VARIABLE, "")
    folder = compiled.make_temporary_cache(read_only / "there", Path("nowhere"))
    assert (folder / "code").exists()


def test_without_any_folder_nothing_is_kept(read_only, monkeypatch, caplog):
    (read_only / "user").touch()
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(read_only / "user"))
    assert compiled.find_cache() is None
    assert "no temporary folder can be written" in caplog.messages[0]


def test_where_nothing_is_kept_no_other_events_are_simulated(monkeypatch):
    monkeypatch.delenv(compiled.COMPILES, raising=False)
    monkeypatch.setattr(compiled.load_numba().config, "CACHE_DIR", "")
    with pytest.raises(DeflareError, match="one seed would give other events than elsewhere; make room"):
        compiled.compiled_before.__wrapped__("data_simu.tools.warm_up")


def compile_in(folder):
    os.environ[compiled.CACHE_VARIABLE] = str(folder)
    for cached in (compiled.load_numba, compiled.compiled_before):
        cached.cache_clear()
    compiled.compiled_before("data_simu.tools.warm_up")


@pytest.mark.slow
def test_the_process_that_compiles_ends_with_the_one_that_was_killed(tmp_path):
    run = Started(compile_in, tmp_path / "cache", folder=tmp_path / "streams")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    run.wait_for(lambda: list((tmp_path / "cache").rglob("*.nbi")))
    (compiling,) = children.read_text().split()
    run.send(signal.SIGKILL)
    run.wait()
    poll(lambda: not Path("/proc", compiling, "exe").exists(), "the end of the process that compiles")


def test_the_digest_follows_the_sources(tmp_path, monkeypatch):
    loops = tmp_path / "loops.py"
    monkeypatch.setattr(compiled, "PACKAGES", (tmp_path,))
    digests = []
    for text in ("kernel = compiled()", "kernel = compiled(fastmath=True)", "nothing"):
        loops.write_text(text)
        digests.append(compiled.hash_loops())
    assert len(set(digests)) == 3
    (tmp_path / "other.py").write_text("no loops here")
    assert compiled.hash_loops() == digests[-1], "Files without inner loops do not matter."


def test_the_digest_sees_the_wings_of_both_packages(tmp_path, monkeypatch):
    folders = [tmp_path / package.name for package in compiled.PACKAGES]
    for package, folder in zip(compiled.PACKAGES, folders, strict=True):
        shutil.copytree(package, folder, ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    monkeypatch.setattr(compiled, "PACKAGES", folders)
    before = compiled.hash_loops()
    for path in (folders[0] / "kernels" / "codec_loops.py", folders[1] / "sensor" / "firing.py"):
        path.write_text(path.read_text() + "\n# changed\n")
        after = compiled.hash_loops()
        assert after != before, f"Machine code of {path.name} would pass as current."
        before = after


@compiled.CompiledLater
def double(value):
    return 2 * value


@compiled.compiled()
def double_twice(value):
    return double(double(value))


def test_a_function_that_is_compiled_later_is_called_from_python_and_from_machine_code():
    assert double(3) == 6
    assert double_twice(3) == 12
    assert double.__name__ == "double"
    assert double.machine_code.signatures, "It ran as machine code."
