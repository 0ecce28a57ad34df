"""The viewer's Python side: what it sends, what it refuses, and the picture where there is no front end."""

import base64
import io

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from traitlets import TraitError

from deflare_core.events import Events
from deflare_core.show.figures import make_palette
from deflare_core.show.viewer import VoxelBinViewer, find_default_limit, make_panels, pack_window

SHAPE = (8, 12, 16)


def counts(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, SHAPE).astype(np.float32)


def noisy(seed: int = 0) -> np.ndarray:
    return counts(seed) + np.random.default_rng(seed).normal(0, 0.1, SHAPE).astype(np.float32)


def unpacked(packed: dict, buffer: bytes) -> np.ndarray:
    """The cells in a buffer, all of them or, behind their places, those that are not zero."""
    dtype, filled = np.dtype(packed["dtype"]), packed["filled"]
    if filled is None:
        return np.frombuffer(buffer, dtype)
    cells = np.zeros(11 * SHAPE[1] * SHAPE[2], dtype)
    cells[np.frombuffer(buffer, "<u4", filled)] = np.frombuffer(buffer, dtype, filled, 4 * filled)
    return cells


def decoded(header: dict, buffers: list[bytes]) -> dict[str, np.ndarray]:
    """The bins that the front end makes of a message, by what is in its header alone."""
    bins, height, width = header["shape"]
    return {
        panel["title"]: unpacked(panel["cells"], buffer).astype(np.float32).reshape(-1, height, width)[:bins]
        for panel, buffer in zip(header["panels"], buffers, strict=True)
    }


def sent(viewer: VoxelBinViewer) -> list[tuple[dict, list[bytes]]]:
    """The list to which the viewer's messages are written from now on, instead of to a browser."""
    messages = []
    viewer.send = lambda content, buffers=None: messages.append((content, buffers))
    return messages


def test_whole_counts_travel_as_int8_and_come_back_exactly():
    header, buffers = pack_window(make_panels(counts()))
    assert header["shape"] == [8, 12, 16]
    assert header["panels"][0]["cells"] == {"dtype": "int8", "filled": None}
    assert len(buffers[0]) == 11 * 12 * 16, "Eight bins, and three pictures of all of them."
    assert np.array_equal(decoded(header, buffers)["Input"], counts())


@pytest.mark.parametrize(
    ("extra", "dtype"), [(0.5, "float32"), (128.0, "int16"), (-40_000.0, "float32"), (3e38, "float32")]
)
def test_what_int8_cannot_hold_travels_in_a_larger_type_and_comes_back_exactly(extra, dtype):
    voxel = counts()
    voxel[3, 4, 5] = extra
    header, buffers = pack_window(make_panels(voxel))
    assert header["panels"][0]["cells"]["dtype"] == dtype
    assert np.array_equal(decoded(header, buffers)["Input"], voxel)


@pytest.mark.parametrize("edge", [-128.0, 127.0])
def test_the_ends_of_int8_are_used(edge):
    voxel = np.full(SHAPE, edge, np.float32)
    header, buffers = pack_window(make_panels(voxel[:1]))
    assert header["panels"][0]["cells"]["dtype"] == "int8"
    assert np.array_equal(decoded(header, buffers)["Input"], voxel[:1])


def test_the_front_end_gets_every_voxel_once_it_asks():
    viewer = VoxelBinViewer(counts(0), counts(1), noisy(2))
    messages = sent(viewer)
    viewer._handle_custom_msg({"kind": "window please"}, [])
    [(content, buffers)] = messages
    assert content["kind"] == "window"
    assert content["index"] == 0
    received = decoded(content, buffers)
    assert list(received) == ["Input", "Target", "Output", "Removed"]
    for title, voxel in viewer.panels.items():
        assert np.array_equal(received[title], voxel), f"{title} arrives as it is."


def test_voxels_are_not_part_of_the_saved_state():
    state = VoxelBinViewer(np.zeros((8, 480, 640)), output=np.zeros((8, 480, 640))).get_state()
    assert not any(isinstance(value, bytes | memoryview | np.ndarray) for value in state.values())
    assert len(repr(state)) < 100_000


@pytest.mark.parametrize(
    "same",
    [
        counts().astype(np.float64),
        counts().astype(np.int8),
        counts()[None],
        torch.from_numpy(counts()),
        torch.from_numpy(counts())[None, None].double().requires_grad_(),
        np.asfortranarray(counts()),
    ],
)
def test_arrays_and_tensors_of_any_layout_are_the_same_voxel(same):
    assert np.array_equal(VoxelBinViewer(same).voxels["Input"], counts())


def test_what_was_removed_has_the_input_s_signs_and_needs_an_output():
    assert list(VoxelBinViewer(counts(), counts(1)).panels) == ["Input", "Target"]
    before, after = np.zeros((2, 1, 1, 6), np.float32)
    before[..., :5], after[..., :6] = [3, -3, 3, -3, 2], [1, -1, 4, 1, 2, 5]
    panels = VoxelBinViewer(before, None, after).panels
    assert list(panels) == ["Input", "Output", "Removed"]
    assert panels["Removed"].ravel().tolist() == [2, -2, 0, -3, 0, 0], "What was added is not removed."


def test_unfit_voxels_are_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"Input must be a voxel .* received shape \(12, 16\)"):
        VoxelBinViewer(np.zeros((12, 16)))
    with pytest.raises(ValueError, match=r"received shape \(2, 8, 12, 16\)"):
        VoxelBinViewer(np.zeros((2, *SHAPE)))
    with pytest.raises(ValueError, match=r"one shape .*'Target': \(8, 12, 15\)"):
        VoxelBinViewer(counts(), counts()[:, :, :15])
    broken = counts()
    broken[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"Output holds 1 cells .* \(bin, y, x\) = \(1, 2, 3\)"):
        VoxelBinViewer(counts(), output=broken)


def test_controls_refuse_values_outside_their_range():
    viewer = VoxelBinViewer(counts())
    with pytest.raises(ValueError, match="Bins are numbered 0 to 7; received bin_index 8"):
        viewer.bin_index = 8
    with pytest.raises(ValueError, match="Windows are numbered 0 to 0; received index 1"):
        viewer.index = 1
    with pytest.raises(ValueError, match=r"positive number of events per cell; received 0\.0"):
        viewer.limit = 0.0
    with pytest.raises(TraitError, match="polarity"):
        viewer.polarity = "red"
    assert (viewer.bin_index, viewer.index, viewer.polarity) == (0, 0, "both")


def test_controls_link_with_ordinary_widgets():
    viewer, slider = VoxelBinViewer(counts()), ipywidgets.IntSlider(max=7)
    ipywidgets.link((viewer, "bin_index"), (slider, "value"))
    slider.value = 5
    assert viewer.bin_index == 5
    ipywidgets.jslink((viewer, "bin_index"), (slider, "value"))


def test_limit_ignores_empty_cells_faint_noise_and_the_few_strongest():
    voxel = np.zeros((8, 100, 100), np.float32)
    assert find_default_limit([voxel]) == 1
    voxel[0, :40] = 3
    voxel[1, 0, :10] = -50
    faint = np.full_like(voxel, 0.4)
    assert find_default_limit([voxel, faint]) == 3


def test_stepping_loads_the_window_and_keeps_bin_and_limit():
    viewer = VoxelBinViewer.of_windows(lambda k: (counts(k), counts(k + 10)), num_windows=3, index=1)
    viewer.bin_index, viewer.limit = 6, 2.5
    messages = sent(viewer)
    viewer.index = 2
    assert np.array_equal(viewer.voxels["Target"], counts(12))
    assert [content["index"] for content, _ in messages] == [2]
    assert (viewer.bin_index, viewer.limit) == (6, 2.5)


def test_a_window_with_fewer_bins_moves_the_bin_inside():
    viewer = VoxelBinViewer(counts())
    viewer.bin_index = 7
    viewer.show(counts()[:4])
    assert viewer.bin_index == 3


def test_recordings_are_cut_on_the_given_clock():
    t0_us = 1_000_000
    events = Events.from_array(np.array([[t0_us + 2_500, 3, 1, 1], [t0_us + 20_000, 5, 2, -1]]), (12, 16))
    viewer = VoxelBinViewer.of_recordings(events, t0_us=t0_us, num_windows=2, span="window")
    assert np.argwhere(viewer.voxels["Input"]).tolist() == [[1, 1, 3]]
    viewer.index = 1
    assert np.argwhere(viewer.voxels["Input"]).tolist() == [[0, 2, 5]]
    assert viewer.voxels["Input"].sum() == -1


def test_figure_draws_the_asked_bin_of_every_panel_with_shared_limits():
    viewer = VoxelBinViewer(counts(0), counts(1), noisy(2))
    viewer.limit = 2.0
    figure = viewer.figure(bin_index=4)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    for image, voxel in zip(images, viewer.panels.values(), strict=True):
        assert np.array_equal(image.get_array(), voxel[4])
        assert image.get_clim() == (-2.0, 2.0)
    assert "bin 4: 10.0 to 12.5 ms" in figure.get_suptitle()
    with pytest.raises(ValueError, match="received bin_index 8"):
        viewer.figure(bin_index=8)


def test_figure_follows_polarity_and_zoom():
    viewer = VoxelBinViewer(counts())
    viewer.polarity, viewer.view = "negative", [2.0, 3.0, 10.0, 9.0]
    axes = viewer.figure().axes[0]
    assert np.array_equal(axes.images[0].get_array(), np.minimum(counts()[0], 0))
    assert (axes.get_xlim(), axes.get_ylim()) == ((1.5, 9.5), (8.5, 2.5))


def test_a_place_without_front_end_gets_a_picture():
    bundle, _ = VoxelBinViewer(counts())._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 6


def test_a_film_shows_every_bin_in_the_viewer_s_colours():
    viewer = VoxelBinViewer(counts(0), output=counts(1))
    viewer.limit, viewer.view = 2.0, [2.0, 3.0, 10.0, 9.0]
    film = Image.open(io.BytesIO(viewer.film()))
    assert film.n_frames == 8, "A frame for each bin."
    scale = 320 // 8
    for b in (0, 5):
        film.seek(b)
        panel = np.asarray(film.convert("RGB"))[24:-24, : 8 * scale][scale // 2 :: scale, scale // 2 :: scale]
        levels = np.floor(127.5 + 127 * np.clip(counts(0)[b, 3:9, 2:10] / 2.0, -1, 1)).astype(int)
        assert np.array_equal(panel, make_palette(2.0)[levels]), "The zoom's cells, each in its own colour."


def test_a_stretch_is_filmed_in_frames_that_hold_all_its_events():
    events = Events.from_array(np.array([[70_000 + 10_000 * k, k, 0, 1] for k in range(10)]), (12, 16))
    viewer = VoxelBinViewer.of_recordings(events, t0_us=0, num_windows=10, span="stretch")
    viewer.stretch_ms = 200.0
    film = Image.open(io.BytesIO(viewer.film()))
    assert film.n_frames == 80, "2.5 ms a frame."
    red = np.zeros(16, int)
    for k in range(80):
        film.seek(k)
        row = np.asarray(film.convert("RGB"))[24 + 10, 10::20]
        red += row[:, 2] < 200
    assert red.tolist() == [1] * 10 + [0] * 6, "Each event lights its pixel in one frame."
