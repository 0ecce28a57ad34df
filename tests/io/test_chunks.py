"""Chunks that are compressed outside HDF5: the same that its filter would store, in the order in which they came."""

import h5py
import numpy as np
import pytest
from support.recordings import make_events, same_events

from deflare_core.io.chunks import CHUNK_EVENTS, Compressor, GrowingDataset
from deflare_core.io.reading import RecordingError
from deflare_core.io.recordings import open_recording, save_events

EVENTS = make_events(num=3_000, t_start_us=7_200_000_000, duration_us=90_000)
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


def test_a_changed_bit_is_found_wherever_it_is(tmp_path):
    save_events(tmp_path / "a.h5", EVENTS, source="test", clock_us=(7_200_000_000, 7_200_100_000))
    data = (tmp_path / "a.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        chunks = [file[f"events/{name}"].id.get_chunk_info(0) for name in ("t", "x", "y", "p", "ms_to_idx")]
    bits = [(chunk.byte_offset + k * chunk.size // 5, k) for chunk in chunks for k in range(5)]
    places = [(7_200_000_000).to_bytes(8, "little"), (7_200_100_000).to_bytes(8, "little")]
    bits += [(data.index(place) + k, k) for place in places for k in range(8)]
    assert data.count(places[0]) == 2, "The start of the clock and the offset."
    bits += [(data.rindex(places[0]) + k, k) for k in range(8)]
    for at, bit in bits:
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        (tmp_path / "b.h5").write_bytes(changed)
        with pytest.raises(RecordingError, match=r"b\.h5: .*; copy or record it again"):
            load_everything(tmp_path / "b.h5")
    assert same_events(load_everything(tmp_path / "a.h5"), EVENTS)


def load_everything(path):
    with open_recording(path) as recording:
        recording.window(*recording.clock_us)
        return recording.load()


def test_a_file_does_not_depend_on_the_time_that_compression_takes(tmp_path):
    one, other = (write(tmp_path / f"{k}.h5", COLUMNS, 30_000).read_bytes() for k in range(2))
    assert one == other, "The same appends give the same file."


def test_texts_of_any_length_come_back(tmp_path):
    texts = np.array(["a", "lamp", "a longer word"], dtype=h5py.string_dtype())
    with h5py.File(write(tmp_path / "a.h5", {"cause": texts}, 2)) as file:
        assert file["cause"].asstr()[:].tolist() == texts.tolist()
