"""Compiled functions: what is kept on disk belongs to the sources that it was made from."""

from deflare_core.kernels import numba_cache as compiled


def test_the_cache_of_other_sources_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.numba_config, "CACHE_DIR", "")
    old = tmp_path / "compiled-0123"
    old.mkdir()
    compiled.use_own_cache(tmp_path)
    assert not old.exists()
    expected = tmp_path / f"compiled-{compiled.loops_digest()}"
    assert str(expected) == compiled.numba_config.CACHE_DIR


def test_the_digest_follows_the_sources(tmp_path, monkeypatch):
    loops = tmp_path / "loops.py"
    monkeypatch.setattr(compiled, "_PACKAGES", (tmp_path,))
    digests = []
    for text in ("kernel = compiled()", "kernel = compiled(fastmath=True)", "nothing"):
        loops.write_text(text)
        digests.append(compiled.loops_digest())
    assert len(set(digests)) == 3
    (tmp_path / "other.py").write_text("no loops here")
    assert compiled.loops_digest() == digests[-1], "Files without inner loops do not matter."
