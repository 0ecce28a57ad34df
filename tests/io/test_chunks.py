"""Chunks that are compressed outside HDF5: the same that its filter would store, in the order in which they came."""

import h5py
import numpy as np
import pytest

from deflare_core.io.chunks import CHUNK_EVENTS, Compressor, GrowingDataset

RNG = np.random.default_rng(0)
COLUMNS = {
    "t": np.sort(RNG.integers(0, 10**6, 2 * CHUNK_EVENTS + 3)),
    "x": RNG.integers(0, 640, CHUNK_EVENTS).astype(np.uint16),
    "y": RNG.integers(0, 480, CHUNK_EVENTS - 1).astype(">u2"),
    "incompressible": RNG.integers(0, 2**63, CHUNK_EVENTS + 1),
    "flag": RNG.random(5) < 0.5,
    "empty": np.empty(0, np.float32),
}


def write(path, columns, piece):
    with h5py.File(path, "w") as file, Compressor() as compressor:
        datasets = {name: GrowingDataset(file, name, values.dtype, compressor) for name, values in columns.items()}
        for name, values in columns.items():
            for first in range(0, len(values), piece):
                datasets[name].append(values[first : first + piece])
            datasets[name].finish()
        compressor.write_all_but(0)
    return path


@pytest.mark.parametrize("piece", [1000, CHUNK_EVENTS, 10**6])
def test_chunks_are_those_that_the_filter_of_hdf5_would_store(tmp_path, piece):
    with h5py.File(write(tmp_path / "a.h5", COLUMNS, piece)) as file, h5py.File(tmp_path / "b.h5", "w") as usual:
        for name, values in COLUMNS.items():
            assert np.array_equal(file[name], values), f"{name} comes back."
            assert file[name].dtype == values.dtype, f"{name} keeps its type."
            like = file[name].id
            new = h5py.h5d.create(usual.id, name.encode(), like.get_type(), like.get_space(), like.get_create_plist())
            twin = h5py.Dataset(new)
            twin[:] = values
            for first in range(0, len(values), CHUNK_EVENTS):
                assert file[name].id.read_direct_chunk((first,)) == twin.id.read_direct_chunk((first,)), (
                    f"{name} from {first} on is compressed as HDF5 would."
                )


def test_a_file_does_not_depend_on_the_time_that_compression_takes(tmp_path):
    one, other = (write(tmp_path / f"{k}.h5", COLUMNS, 30_000).read_bytes() for k in range(2))
    assert one == other, "The same appends give the same file."


def test_texts_of_any_length_come_back(tmp_path):
    texts = np.array(["a", "lamp", "a longer word"], dtype=h5py.string_dtype())
    with h5py.File(write(tmp_path / "a.h5", {"cause": texts}, 2)) as file:
        assert file["cause"].asstr()[:].tolist() == texts.tolist()
