"""Revision: digests of files and of sources, and versions of packages."""

import hashlib
import os
import shutil

from deflare_core.system import revision
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.revision import hash_file


def test_a_digest_is_that_of_the_bytes_and_follows_a_change(tmp_path):
    path = tmp_path / "a"
    for content in (b"one", b"another"):
        path.write_bytes(content)
        assert hash_file(path) == hashlib.sha256(content).hexdigest(), "A file of another size is read again."
    os.utime(path, ns=(0, 0))
    hash_file(path)
    path.write_bytes(b"changed")
    assert hash_file(path) == hashlib.sha256(b"changed").hexdigest(), (
        "A file of the same size changed later is read again."
    )


def test_a_file_that_has_not_changed_is_read_once(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    stated, before = path.stat(), hash_file(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(stated.st_atime_ns, stated.st_mtime_ns))
    assert hash_file(path) == before, "Path, size and time of change stand for the bytes."


def test_a_package_that_is_on_the_path_only_has_an_unknown_version(monkeypatch):
    monkeypatch.setattr(revision, "PACKAGES", ("numpy", "deflare-that-nobody-installed"))
    versions = revision.list_versions()
    assert versions["deflare-that-nobody-installed"] == "unknown", "A run must not die of it at its first checkpoint."
    assert versions["numpy"] != "unknown"


def test_the_digest_of_sources_follows_what_decides_a_result(tmp_path):
    package = tmp_path / "deflare_core"
    shutil.copytree(PROJECT_ROOT / "deflare_core", package, ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    find = revision.hash_sources.__wrapped__
    before = find(package)
    assert before == find(PROJECT_ROOT / "deflare_core"), "It is of the sources, wherever they are."
    for name in ("show/viewer.py", "app/commands.py"):
        (package / name).write_text("changed")
        assert find(package) == before, f"{name} decides no event and no score."
    for name in ("codec.py", "kernels/codec_loops.py", "streams/filters.py", "scores/metrics.py"):
        (package / name).write_text("changed")
        after = find(package)
        assert after != before, f"{name} decides what comes out."
        before = after
