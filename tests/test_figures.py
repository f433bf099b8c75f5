"""Figures are drawn without a display, from small results, and say what they must."""

import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gdstab import basins, figures
from gdstab.figures import style
from gdstab.outcomes import Outcome
from gdstab.sampling import GridSource

BOX = ((-2.0, 2.0), (-1.0, 1.0))


def result(outcome):
    outcome = np.asarray(outcome, np.int8)
    return basins.Heatmap(
        outcome=outcome, steps=np.arange(outcome.size, dtype=np.int32).reshape(outcome.shape),
        above_floor=np.zeros(0, np.int64), source=GridSource(BOX, outcome.shape), step_size=0.3, box=BOX,
        axes=("x0", "x1"), lane_steps=0, compile_seconds=0.0, run_seconds=0.0,
    )  # fmt: skip


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def test_every_verdict_has_its_own_colour_and_entry(tmp_path):
    figure = figures.draw_heatmap(result([[0, 1, 2], [3, 4, 1]]))
    assert legend(figure) == ["diverges", "cycle", "undecided", "not finite"]
    image = figure.axes[0].images[0]
    assert image.get_extent() == [-2.0, 2.0, -1.0, 1.0]
    assert image.origin == "lower"
    picture = np.asarray(image.get_array())
    assert picture.shape == (3, 2, 3)  # rows are the second axis of the box
    for (column, row), verdict in {(0, 2): Outcome.CYCLING, (1, 0): Outcome.DIVERGED}.items():
        np.testing.assert_array_equal(
            picture[row, column], np.round(255 * np.array(to_rgb(style.OUTCOME_COLOURS[verdict])))
        )
    for path in figures.save(figure, tmp_path):
        assert path.stat().st_size > 5000


def test_colours_survive_a_grey_print():
    """Neighbouring verdicts differ by 8 % or more in lightness from each other."""
    lightness = sorted(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)) for colour in style.OUTCOME_COLOURS.values())
    assert np.diff(lightness).min() > 0.08


def test_axes_labels_and_overlays_can_be_left_out():
    line = np.array([[0.5, 1.0], [1.0, 0.5]])
    full = figures.draw_heatmap(result([[1, 3]]), figures.Overlay([line], [line], [line]))
    assert legend(full) == ["minima", "stable minima", "trapping ellipse (exact)", "diverges"]
    assert full.axes[0].get_xlabel() == "$x_{0}$"
    assert full.axes[0].get_aspect() == 1
    assert full.axes[1].get_ylabel() == "updates until convergence"
    bare = figures.draw_heatmap(result([[1, 3]]), figures.Overlay([line]))
    assert legend(bare) == ["minima", "diverges"]


@pytest.mark.parametrize("outcome", [[[3, 3]], [[1, 1]]])
def test_extreme_heatmaps_are_drawn(outcome, tmp_path):
    figures.save(figures.draw_heatmap(result(outcome)), tmp_path)


def test_trajectories(tmp_path):
    path = np.array([[0.0, 0.5], [0.5, 0.2], [np.inf, np.nan]])
    x = np.linspace(-2, 2, 5)
    panels = [
        figures.Panel(0.4, BOX, [path[:2]], background=(x, x, x[:, None] ** 2 + x**2)),
        figures.Panel(1.1, BOX, [path], attractors=[path[:1]]),
    ]
    figure = figures.draw_trajectories(panels)
    assert [axes.get_title() for axes in figure.axes] == [r"(a) $\eta = 0.4$", r"(b) $\eta = 1.1$"]
    assert legend(figure) == ["initial point", "updates", "attracting cycle"]
    figures.save(figure, tmp_path, "orbits")
    assert (tmp_path / "orbits.pdf").exists()


def test_no_global_state():
    assert "matplotlib.pyplot" not in sys.modules


def test_a_figure_is_saved_into_a_directory_that_is_not_there(tmp_path):
    paths = figures.save(style.new_figure(1.0, 1.0), tmp_path / "a" / "b c", "mine.v2")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["a/b c/mine.v2.png", "a/b c/mine.v2.pdf"]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    assert paths[1].read_bytes()[:4] == b"%PDF"
