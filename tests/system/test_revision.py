"""Digests of files, read once in a process while they stay as they are."""

import hashlib
import os

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
