import numpy as np
import pytest
from matplotlib.colors import to_hex

from deflare_core.scores.residuals import CELL_KINDS
from deflare_core.show.residual_figures import SPENT_COLOURS, draw_residual_shares, draw_residuals


def test_cells_are_counted_by_wanted_and_given_value():
    wanted = np.array([[[0, 0, -2, 1]]], float)
    figure = draw_residuals(wanted, {"none": 0 * wanted, "wild": np.array([[[0, 0, -2, 9.0]]])}, limit=2)
    none, wild = (axes.collections[0].get_array() for axes in figure.axes[:2])
    edges = np.arange(-2.25, 2.5, 0.5)
    zero, minus_two, one = (np.searchsorted(edges, value, side="right") - 1 for value in (0, -2, 1))
    assert none.sum() == wild.sum() == 4, "Every cell is in the picture."
    assert none.shape == (9, 9)
    assert none[zero, zero] == 2, "Rows are the given value, columns the wanted one."
    assert none[zero, minus_two] == none[zero, one] == 1
    assert wild[minus_two, minus_two] == 1
    assert wild[-1, one] == 1, "9 lies beyond and is drawn at the edge."
    assert [axes.get_title() for axes in figure.axes[:2]] == ["none", "wild"]
    assert list(figure.axes[0].lines[0].get_xdata()) == list(figure.axes[0].lines[0].get_ydata()), "Perfection."


def test_bars_show_where_it_is_spent():
    half = dict(zip(CELL_KINDS, (0.5, 0, 0.25, 0.05, 0.2), strict=True))
    figure = draw_residual_shares({"wanted": half, "identity": dict.fromkeys(CELL_KINDS, np.nan)})
    axes = figure.axes[0]
    bars = {container.get_label(): container.patches for container in axes.containers}
    assert [bars[kind][0].get_width() for kind in CELL_KINDS] == pytest.approx([50, 0, 25, 5, 20])
    assert [bars[kind][0].get_x() for kind in CELL_KINDS] == pytest.approx([0, 50, 50, 75, 80])
    assert all(bars[kind][1].get_width() == 0 for kind in CELL_KINDS)
    assert {kind: to_hex(patches[0].get_facecolor()) for kind, patches in bars.items()} == SPENT_COLOURS
    assert "no residual" in {text.get_text() for text in axes.texts}
