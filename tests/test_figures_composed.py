"""Figures stand beside each other in one, and the phase portrait shows the field of a loss."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from gdstab import figures
from gdstab.figures import style
from gdstab.figures.phase_portrait import _field
from gdstab.updates import gradient_descent

BOX = ((-2.0, 2.0), (-1.0, 1.0))


def bowl(theta):
    return 0.5 * (theta[0] ** 2 + 4 * theta[1] ** 2)


def test_every_figure_can_be_drawn_on_a_given_one():
    for name in figures.__all__:
        if name.startswith("draw_"):
            given = inspect.signature(getattr(figures, name)).parameters["figure"]
            assert given.kind is given.KEYWORD_ONLY, name
            assert given.default is None, name


def test_four_kinds_of_figures_in_one():
    whole = Figure(figsize=(9, 8), layout="compressed")
    parts = whole.subfigures(2, 2).ravel()
    path = np.array([[0.0, 0.5], [0.5, 0.2]])
    step = np.array([0.1, 0.2])
    shares = figures.Shares(step, step, np.stack([step, step], 1), 0 * step, 0 * step, 0.95, step * np.nan, None, None)
    edge = np.full((2, 2), 0.3)
    none = np.zeros((2, 2), bool)
    drawn = [
        figures.draw_trajectories([figures.Panel(0.4, BOX, [path])], figure=parts[0]),
        figures.draw_basin(shares, figure=parts[1]),
        figures.draw_critical_map(figures.CriticalMap(edge, none, none, BOX, ("x0", "x1"), None), figure=parts[2]),
        figures.draw_phase_portrait(bowl, BOX, resolution=8, figure=parts[3]),
    ]
    assert all(one is part for one, part in zip(drawn, parts, strict=True))
    assert parts[0].axes[0].get_title() == r"$\eta = 0.4$"
    assert parts[1].axes[0].get_ylabel() == "share of the initial points"
    assert len(parts[2].axes[0].images) == 1
    assert len(parts[3].axes[0].collections) == 2  # level sets, streamlines
    assert len(whole.axes) == 5  # one of them a colour bar


def test_the_field_is_that_of_the_loss_and_of_its_plane():
    x, y = np.linspace(-2, 2, 3), np.linspace(-1, 1, 2)
    value, field = _field(bowl, gradient_descent(), 0.5, None, x, y)
    np.testing.assert_allclose(field, -0.5 * np.stack([*np.meshgrid(x, 4 * y)]), atol=1e-6)
    assert value[0, 0] == 4.0
    turned = (np.ones(3), np.array([[0.0, 0.0, 2.0], [0.0, 1.0, 0.0]]))  # theta = (1, 1 + v, 1 + 2 u)
    _, field = _field(lambda theta: 0.5 * jnp.sum(theta**2), gradient_descent(), 0.5, turned, x, y)
    u, v = np.meshgrid(x, y)
    np.testing.assert_allclose(field, -0.5 * np.stack([u + 0.5, v + 1.0]), atol=1e-6)


def test_points_are_marked_on_given_axes():
    axes = Figure().add_subplot()
    figure = figures.draw_phase_portrait(bowl, BOX, resolution=8, points={"minimum": np.zeros((1, 2))}, ax=axes)
    assert figure is axes.figure
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["minimum"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"points": {"hill": np.zeros((0, 2))}}, "expected points of kind"),
        ({"plane": (np.zeros(3), np.ones((2, 3)))}, "independent directions"),
    ],
)
def test_what_cannot_be_drawn_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        figures.draw_phase_portrait(bowl, BOX, resolution=8, **more)


def test_what_is_no_figure_is_refused():
    with pytest.raises(ValueError, match="expected a matplotlib Figure or SubFigure"):
        style.new_figure(1.0, 1.0, Figure().add_subplot())
