"""Compiled functions: what is kept on disk belongs to the sources that it was made from."""

import shutil

from deflare_core.kernels import numba_cache as compiled


def test_the_cache_of_other_sources_is_removed(tmp_path):
    old = tmp_path / "compiled-0123"
    old.mkdir()
    assert compiled.choose_cache(tmp_path) == tmp_path / f"compiled-{compiled.hash_loops()}"
    assert not old.exists()


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
