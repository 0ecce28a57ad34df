"""Lone lamps: they have no flare, are as large as they say, and a table says what a method keeps of them."""

import numpy as np
import pytest

from data_simu.config import SimulationConfig
from data_simu.simulation import render_scene
from data_simu.tools.lone_lamps import draw_lone_lamps, hang_lamp, list_lone_lamps, measure_kept, write_kept
from deflare_core.events import FLARE, LIGHT
from deflare_core.inference import load_method

SMALL = SimulationConfig(sensor_size=(120, 160), duration_us=40_000)


def test_their_names_differ():
    names = [lamp.name for lamp in list_lone_lamps()]
    assert len(set(names)) == len(names) == 24


@pytest.mark.parametrize("number", [5, 6, 15])
def test_they_are_as_large_as_they_say(number):
    lamp = list_lone_lamps()[number]
    lit = render_scene(hang_lamp(lamp, 0), (480, 640), 0)[1]
    straight = 4 * (lamp.half_length - lamp.half_width) * lamp.half_width
    expected = np.pi * lamp.half_width**2 + straight
    assert (lit > lit.max() / 2).sum() == pytest.approx(expected, rel=0.03)


def test_no_method_has_anything_to_remove_from_them(capsys):
    lamps = [list_lone_lamps()[number] for number in (6, 11)]
    recordings = list(draw_lone_lamps(lamps, SMALL))
    for name, (_, label) in recordings:
        assert FLARE not in label, name
        assert (label == LIGHT).sum() > 100, name
    kept = list(measure_kept(load_method("input"), recordings))
    assert [(row.light, row.background) for row in kept] == [(1, 1), (1, 1)]
    write_kept(kept)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in shown] == ["lamp", *(lamp.name for lamp in lamps), "least, mean"]
    assert "100.0%" in shown[-1]
