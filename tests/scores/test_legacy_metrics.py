import math

import numpy as np
import pytest

from deflare_core.events import Events
from deflare_core.scores.distances import find_nearest
from deflare_core.scores.legacy import cut_pieces, encode_piece, scale_events, score_as_published, score_piece
from deflare_core.scores.metrics import score_voxels

SIZE = (8, 8)
F1 = ("r_f1", "t_f1", "tp_f1")


def events(*rows, size=SIZE):
    return Events.from_array(np.array(rows, np.int64).reshape(-1, 4), size)


def test_equal_streams_score_as_equal():
    one = events((0, 0, 0, 1), (9_000, 3, 4, -1), (25_000, 7, 7, 1))
    scores = score_as_published(one, one)
    perfect = {"mse": 0, "pmse_2": 0, "pmse_4": 0, "r_f1": 1, "t_f1": 1, "tp_f1": 1, "chamfer": 0, "gauss": 0}
    assert scores == perfect


def test_each_stream_starts_at_its_own_first_event():
    truth = events((0, 0, 0, 1), (9_000, 3, 4, -1))
    late = events((7_000, 0, 0, 1), (16_000, 3, 4, -1))
    assert score_as_published(late, truth)["mse"] == 0, "A shift of the whole stream goes unnoticed."


def encode(*rows):
    piece = events(*rows)
    return encode_piece(piece, piece.t.astype(float))


def test_silent_pieces_are_left_out_and_the_rest_moves_up():
    one = events((0, 0, 0, 1), (65_000, 1, 1, 1))
    assert [np.argwhere(piece)[:, 1:].tolist() for piece in cut_pieces(one)] == [[[0, 0]], [[1, 1]]]
    other = events((0, 0, 0, 1), (25_000, 1, 1, 1))
    assert score_as_published(one, other)["r_f1"] == 1, "An event 40 ms too late is paired with the one in its place."
    longer = events((0, 0, 0, 1), (25_000, 1, 1, 1), (45_000, 2, 2, 1))
    assert score_as_published(longer, other)["r_f1"] == 1, "Pieces without a partner do not count."


def test_bins_start_at_the_pieces_first_event():
    voxel = encode((22_400, 0, 0, 1), (24_800, 1, 0, 1), (24_950, 2, 0, -1))
    assert voxel[0, 0].tolist()[:3] == [1, 1, 0], "On the absolute grid 22,400 and 24,800 us are bins 0 and 1."
    assert voxel[1, 0, 2] == -1
    late = encode((0, 0, 0, 1), (20_500, 1, 0, 1))
    assert late[7, 0, 1] == 1, "What is later than the last bin goes into it."


def test_an_event_at_the_very_end_begins_no_piece():
    times = (0, 20_000, 40_000, 60_000, 80_000, 100_000)
    assert len(cut_pieces(events(*((t, 1, 1, 1) for t in times)))) == 5, "The last event is left out."
    assert len(cut_pieces(events(*((t, 1, 1, 1) for t in (*times, 100_001))))) == 6


def test_borders_are_those_of_floating_point_seconds():
    # 0.0075 s - 0.005 s is 0.0024999999999999996 s, so the event 2,500 us after the first falls into its bin.
    (early,) = cut_pieces(events((5_000, 0, 0, 1), (7_500, 1, 0, 1), (10_000, 2, 0, 1)))
    assert np.argwhere(early)[:, [0, 2]].tolist() == [[0, 0], [0, 1], [2, 2]]
    (exact,) = cut_pieces(events((0, 0, 0, 1), (2_500, 1, 0, 1), (5_000, 2, 0, 1)))
    assert np.argwhere(exact)[:, [0, 2]].tolist() == [[0, 0], [1, 1], [2, 2]], "From 0 on, borders are where they are."


def test_of_events_at_one_time_there_are_no_cells_to_score():
    truth = events((0, 0, 0, 1), (9_000, 3, 4, -1))
    for estimate in (events((5, 3, 3, 1)), events((5, 3, 3, 1), (5, 4, 4, 1))):
        scores = score_as_published(estimate, truth)
        assert [scores[name] for name in ("mse", "pmse_2", "pmse_4", *F1)] == [math.inf] * 3 + [0] * 3
        assert scores["chamfer"] < 100, "Distances need no pieces."
    assert score_as_published(truth, events((5, 3, 3, 1)))["mse"] == math.inf, "Either stream may be the one."


def test_where_all_cells_cancel_in_both_nothing_was_found():
    cancelled, empty = encode((0, 1, 1, 1), (10, 1, 1, -1)), np.zeros((8, *SIZE), np.float32)
    assert [score_piece(cancelled, empty)[name] for name in F1] == [0, 0, 0], "The published rule."
    assert [score_voxels(cancelled, empty)[name] for name in F1] == [1, 1, 1], "Ours: they agree."
    one, other = (events((0, 1, 1, 1), (10, 1, 1, -1), (t, 2, 2, 1)) for t in (30_000, 31_000))
    assert score_as_published(one, other)["r_f1"] == 0.5, "Only the second of two pieces holds a cell."


def test_scales_are_those_of_the_whole_stream():
    stream = events((0, 2, 0, -1), (500, 3, 1, 1), (1_000, 5, 4, 1))
    x, y, p, t = scale_events(stream).T
    assert x.tolist() == [0, 33, 99], "A third of the extent is cut to 33; the far end to 99."
    assert y.tolist() == [0, 24, 99], "A quarter is just below 25."
    assert p.tolist() == [0, -27, -27], "2 * 100 wraps around in 8 bits: the polarities are 27 apart."
    assert t == pytest.approx([0, 50, 100], abs=2e-3), "Time is not cut."
    assert scale_events(events((5, 3, 3, 1)))[0].tolist() == [0, 0, 0, 0], "Of one event there is no extent."
    wide = scale_events(events((0, 0, 0, 1), (1, 700, 0, 1), (2, 1000, 0, 1), size=(8, 1280)))
    assert wide[:, 0].tolist() == [0, 4, 34], "70,000 and 100,000 less 65,536, over 1,000."


def test_distances_are_taken_over_the_whole_file_at_once():
    truth = events((0, 0, 0, 1), (100_000, 7, 7, 1))
    late = events((0, 0, 0, 1), (50_000, 7, 7, 1), (100_000, 7, 7, 1))
    scores = score_as_published(late, truth)
    assert scores["chamfer"] == pytest.approx(50 / 3, abs=1e-4), "Half of the file is 50, and one of three is so late."
    assert scores["gauss"] == pytest.approx(1 / 3)
    assert scores["chamfer"] == find_nearest(scale_events(late), scale_events(truth)).mean()


def test_a_polarity_gap_of_27_is_what_a_wrong_polarity_costs():
    truth = events((0, 0, 0, -1), (10, 7, 7, -1), (20, 0, 0, 1), (20_010, 1, 1, 1))
    wrong = events((0, 0, 0, -1), (10, 7, 7, 1), (20, 0, 0, 1), (20_010, 1, 1, 1))
    scores = score_as_published(wrong, truth)
    assert scores["chamfer"] == pytest.approx(27 / 4, rel=1e-6), "One of four."
    assert scores["gauss"] == pytest.approx(1 / 4, rel=1e-6), "27 is as far as can be."
    assert scores["mse"] == 2**2 / (8 * 8 * 8) / 2, "One cell of the first piece is off by 2."
    assert (scores["pmse_2"], scores["pmse_4"]) == (2 / 4**2 / 256 / 2, 2 / 16**2 / 64 / 2), (
        "In a pool of each polarity."
    )
    assert scores["r_f1"] == scores["t_f1"] == (0 + 1) / 2, (
        "Pixel (0, 0) cancels, and a wrong polarity is another cell."
    )
    assert scores["tp_f1"] == 1


def test_without_the_quirks_at_work_legacy_and_strict_agree():
    rng = np.random.default_rng(0)
    streams = []
    for _ in range(2):
        t = np.sort(np.append(0, rng.integers(0, 20_000, 60)))
        streams.append(
            events(*zip(t, rng.integers(0, 8, 61), rng.integers(0, 8, 61), rng.choice([-1, 1], 61), strict=True))
        )
    estimate, truth = streams
    strict = score_voxels(*(encode_piece(stream, stream.t.astype(float)) for stream in streams))
    legacy = score_as_published(estimate, truth)
    assert {name: legacy[name] for name in strict} == strict
    assert score_as_published(events(), truth) == {}, "A recording without events was left out."
