"""A committee: two networks judge every event, since what one of them takes for flare the other knows as a lamp.

Each gate gives the change of the logit with which a cell's events are kept (`model.removed_share`). Where a member sees
no flare it changes nothing, and it cannot outvote the other for ever:

    change = s_1 clamp(change_1, LEAST_CHANGE, 0) + s_2 clamp(change_2, LEAST_CHANGE, 0)

Before training all changes are 0, so the residual rule holds for a committee as for each of its members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from deflare_core.model import TrueResidualUNet3D, VoxelNetwork
from deflare_core.system.errors import DeflareError

LEAST_CHANGE = -8.6
"""A gate that is surer than that keeps less than a hundredth of a cell's events; how much less says nothing more."""
MOST_SHARE = 10
SHARED = ("residual", "polarity", "context", "num_bins")
"""Settings that all members have in common: what they see, and what their outputs mean."""


class Committee(TrueResidualUNet3D):
    """A gate whose backbone is the weighted sum of its members' backbones; its level is the first one's.

    Parameters
    ----------
    members : gates that see the same windows.
    shares : how much each member's change counts.

    Raises
    ------
    DeflareError
        When members are no 2-D gates, see different things, or have no shares above 0.
    """

    shares: torch.Tensor

    def __init__(self, members: Sequence[VoxelNetwork], shares: Sequence[float]) -> None:
        nn.Module.__init__(self)  # The backbones are those of the members.
        check_members(members, shares)
        first = members[0]
        self.config, self.channels, self.inputs, self.is_flat = first.config, first.channels, first.inputs, True
        self.members: Any = nn.ModuleList(members)
        self.register_buffer("shares", torch.tensor(shares))

    def run_backbone(self, voxel: torch.Tensor) -> torch.Tensor:
        """The change of the logit `(N, C, bins, H, W)` that the members agree on, at most 0."""
        changes = [member.run_backbone(voxel).clamp(LEAST_CHANGE, 0) for member in self.members]
        return torch.stack([share * change for share, change in zip(self.shares, changes, strict=True)]).sum(0)


def check_members(members: Sequence[VoxelNetwork], shares: Sequence[float]) -> None:
    """Raise a DeflareError unless all are 2-D gates that see the same, and each has a share of the judgement."""
    settings = [{name: getattr(member.config, name) for name in SHARED} for member in members]
    for member, own in zip(members, settings, strict=True):
        if own["residual"] != "gate" or not member.is_flat:
            raise DeflareError("A committee is of 2-D networks with model.residual=gate, whose changes add up.")
        if odd := [name for name in SHARED if own[name] != settings[0][name]]:
            what = ", ".join(f"{name}={settings[0][name]} and {own[name]}" for name in odd)
            raise DeflareError(f"The networks of a committee see the same windows; these have {what}.")
    if len(shares) != len(members) or not all(0 < share <= MOST_SHARE for share in shares):
        raise DeflareError(f"{len(members)} networks judge with a share above 0 each; received {list(shares)}.")
