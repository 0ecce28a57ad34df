import numpy as np
import pytest
import torch

from deflare_core.events import Events
from deflare_core.scores import ablation
from deflare_core.scores.metrics import HEADLINES, SCORES, find_score, mse, pmse, psnr, r_f1, score_voxels, t_f1, tp_f1
from deflare_core.scores.published import PUBLISHED
from deflare_core.streams.matching import find_matched
from deflare_core.system.places import PROJECT_ROOT


def voxel(**cells):
    """A voxel of 2 bins, 2 rows and 4 columns with the given cells, named bin_row_column as in b0_0_1."""
    out = np.zeros((2, 2, 4), np.float32)
    for name, value in cells.items():
        b, y, x = (int(part.strip("b")) for part in name.split("_"))
        out[b, y, x] = value
    return out


def test_mean_squared_error_by_hand():
    assert mse(voxel(b0_0_0=3), voxel(b0_0_0=1, b1_1_3=-2)) == (2**2 + 2**2) / 16


def test_pooled_error_by_hand():
    estimate, truth = voxel(b0_0_0=2), voxel(b0_1_1=2)
    assert mse(estimate, truth) == 8 / 16
    assert pmse(estimate, truth, 2) == 0, "Within one 2 x 2 pool the place does not matter."
    truth = voxel(b0_1_1=-2)
    assert pmse(estimate, truth, 2) == (0.5**2 + 0.5**2) / (2 * 2 * 1 * 2), "But polarity does."
    large = np.zeros((1, 4, 8), np.float32)
    large[0, 0, 0], large[0, 3, 3], large[0, 1, 6] = 2, 3, -1
    over_pools = ((5 / 16) ** 2 + (1 / 16) ** 2) / (2 * 1 * 1 * 2)
    assert pmse(large, 0 * large, 4) == over_pools, "Of two 4 x 4 pools one holds +5, the other -1."
    odd = np.zeros((1, 3, 3), np.float32)
    odd[0, 2, 2] = 5
    assert pmse(odd, 0 * odd, 2) == 0, "A row and column that fill no pool do not count."


def test_f1_scores_by_hand():
    estimate = voxel(b0_0_0=1, b0_0_1=1, b1_0_2=-1)
    truth = voxel(b0_0_0=4, b1_0_1=1, b1_0_2=1)
    assert r_f1(estimate, truth) == 2 * 1 / 6, "Only the first cell agrees in bin and polarity."
    assert t_f1(estimate, truth) == 2 * 2 / 6, "Summed over bins, the second agrees too."
    assert tp_f1(estimate, truth) == 1, "Summed over polarities, all do."


def test_scores_of_equal_empty_and_unequal_voxels():
    one = np.zeros((2, 4, 4), np.float32)
    one[0, 0, 0] = 1
    same = score_voxels(one, one)
    assert same == {"mse": 0, "pmse_2": 0, "pmse_4": 0, "r_f1": 1, "t_f1": 1, "tp_f1": 1}
    assert r_f1(voxel(), voxel()) == 1
    assert r_f1(voxel(), voxel(b0_0_0=1)) == 0
    with pytest.raises(ValueError, match="must have one shape"):
        score_voxels(voxel(), voxel()[:1])


def test_cancelling_polarities_still_count_when_summed_over_bins():
    estimate = voxel(b0_0_0=1, b1_0_0=-1)
    assert tp_f1(estimate, voxel(b0_0_0=1)) == 1


def test_psnr_states_its_range():
    error = mse(voxel(b0_0_0=4), voxel())
    assert psnr(error, 8.0) == pytest.approx(10 * np.log10(64)), "MSE is 16 / 16."
    assert psnr(0.0, 1.0) == np.inf


def test_matched_events_by_hand():
    rows = [[0, 0, 0, 1], [5, 1, 0, 1], [5, 1, 0, 1], [5, 2, 0, -1], [9, 0, 1, 1]]
    recorded = Events.from_array(np.array(rows), (2, 4))
    estimate = Events.from_array(np.array([[5, 1, 0, 1], [5, 2, 0, 1], [9, 0, 1, 1], [9, 1, 1, 1]]), (2, 4))
    found = find_matched(estimate, recorded)
    assert found.tolist() == [False, True, False, False, True], "Of two equal events one is in the estimate."
    assert len(estimate) - found.sum() == 2, "One of wrong polarity and one elsewhere are its own."
    assert find_matched(recorded, recorded).all()
    assert not find_matched(Events.empty((2, 4)), recorded).any()


def test_tensors_score_like_arrays():
    rng = np.random.default_rng(0)
    estimate, truth = (rng.poisson(0.4, (8, 13, 17)) - rng.poisson(0.4, (8, 13, 17)) for _ in range(2))
    arrays = score_voxels(estimate.astype(np.float32), truth.astype(np.float32))
    tensors = score_voxels(*(torch.from_numpy(v.astype(np.float32)) for v in (estimate, truth)))
    assert tensors == pytest.approx(arrays, rel=1e-12)


def test_a_score_says_what_it_is_and_which_way_is_better():
    names = [score.name for table in SCORES.values() for score in table]
    assert len(set(names)) == len(names), "Each score stands in one row."
    assert find_score("r_f1").label == "R-F1\nhigher is better"
    assert find_score("psnr_db").label == "PSNR, dB\nhigher is better"
    assert (find_score("legacy_mse").head, find_score("count_ratio").head) == ("mse ↓", "count_ratio")
    assert all(find_score(name) for name in (*HEADLINES, *PUBLISHED, *ablation.SCORES)), "Whatever is shown has a row."
    with pytest.raises(KeyError):
        find_score("r_f2")


def test_the_table_of_the_readme_is_headed_by_titles_of_scores():
    head = next(line for line in (PROJECT_ROOT / "README.md").read_text().splitlines() if "| R-F1 |" in line)
    named = [cell.strip() for cell in head.strip("|").split("|")[1:]]
    titles = {score.title for table in SCORES.values() for score in table}
    assert set(named) <= titles, f"README.md and figures call a score the same; {set(named) - titles} have no row."
