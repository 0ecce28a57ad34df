"""Parts and mirror images of batches."""

import torch

from deflare_core.config import TrainerConfig
from deflare_core.loop.augmentation import augment_batch, crop_batch


def test_a_crop_is_one_part_of_all_voxels_drawn_for_each_step():
    frame = torch.arange(12.0 * 16).reshape(12, 16).expand(1, 1, 8, 12, 16)
    seen = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        seen.append(crop_batch({"raw": frame, "label": -frame}, (6, 8)))
    for crop in seen:
        assert crop["raw"].shape == (1, 1, 8, 6, 8)
        assert torch.equal(crop["raw"], -crop["label"]), "Input and target are cut alike."
    assert torch.equal(seen[0]["raw"], seen[1]["raw"])
    assert not torch.equal(seen[0]["raw"], seen[2]["raw"])
    assert crop_batch({"raw": frame}, (20, 8))["raw"].shape[-2:] == (12, 8), "A frame that is not larger stays whole."


def test_mirrored_batches_are_all_four_ways_round():
    frame = torch.arange(6.0).reshape(1, 1, 1, 2, 3)
    ways = [frame, frame.flip(-1), frame.flip(-2), frame.flip(-1, -2)]
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        batch = augment_batch({"raw": frame, "label": 2 * frame}, TrainerConfig(mirror=True))
        seen |= {k for k, way in enumerate(ways) if torch.equal(batch["raw"], way)}
        assert torch.equal(2 * batch["raw"], batch["label"]), "Input and target are mirrored alike."
    assert seen == {0, 1, 2, 3}
    assert torch.equal(augment_batch({"raw": frame}, TrainerConfig())["raw"], frame)
