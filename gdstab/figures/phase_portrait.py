"""The phase portrait of descent in a plane of parameter space: where one update goes, on the level sets of the loss."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator

from gdstab._validate import check_box, check_count, check_positive
from gdstab.ensembles import map_points
from gdstab.figures import style
from gdstab.updates import UpdateRule, gradient_descent

_MARKS = {"minimum": ("o", "black"), "saddle": ("X", "white"), "maximum": ("^", "white")}


def draw_phase_portrait(
    loss: Callable, box, *, rule: UpdateRule | None = None, step_size: float = 1.0, plane=None, resolution: int = 60,
    points: Mapping[str, np.ndarray] | None = None, ax: Axes | None = None, figure: FigureBase | None = None,
    title: str | None = None,
) -> FigureBase:  # fmt: skip
    r"""Streamlines of one update $G(\theta) - \theta$ in the plane, with contours of the loss.

    For gradient descent (the default) that is the field $-\eta \nabla L$. In a plane through more than two dimensions
    the update is projected onto the plane.

    Parameters
    ----------
    loss
        Function of one point, [D].
    box
        `((low, high), (low, high))` in the coordinates of the plane.
    rule, step_size
        What makes an update, from its own initial state at each point.
    plane
        `(origin [D], directions [2, D])`, the directions independent; needed unless D is 2.
    resolution
        Points along each axis.
    points
        Points to mark in coordinates of the plane, [n, 2], by their kind: `minimum`, `saddle`, `maximum`.
    ax, figure
        The axes, or else the figure or `SubFigure`, to draw on; a new figure if neither is given.

    Returns
    -------
    The figure that was drawn on.

    Raises
    ------
    ValueError
        For a box, a plane or points that are none, a kind of points that is unknown.
    """
    sides = check_box(box, 2)
    side, step_size = check_count(resolution, "resolution", least=2), check_positive(step_size, "step_size")
    for kind in points or {}:
        if kind not in _MARKS:
            raise ValueError(f"expected points of kind {', '.join(_MARKS)}, got {kind!r}; name one of these")
    if ax is not None and figure is not None:
        raise ValueError("expected axes or a figure to draw on, got both; pass one of them")
    x, y = (np.linspace(low, high, side) for low, high in sides)
    value, field = _field(loss, rule or gradient_descent(), step_size, plane, x, y)
    with style.style():
        axes = ax if ax is not None else style.new_figure(4.4, 4.2, figure).add_subplot()
        _draw_levels(axes, x, y, value)
        axes.streamplot(x, y, *field, color="#0072b2", linewidth=0.7, arrowsize=0.8, density=1.1)
        for kind, places in (points or {}).items():
            marker, colour = _MARKS[kind]
            axes.plot(*np.reshape(places, (-1, 2)).T, linestyle="none", marker=marker, color=colour, label=kind,
                      markeredgecolor="black", markersize=6, zorder=4)  # fmt: skip
        if points:
            axes.legend(loc="upper right", frameon=True)
        names = ("x0", "x1") if plane is None else ("u1", "u2")
        axes.set(xlim=sides[0], ylim=sides[1], xlabel=style.axis_name(names[0]), ylabel=style.axis_name(names[1]))
        axes.set(aspect="equal", title=title or "")
    return axes.figure


def _field(loss, rule, step_size, plane, x, y):
    """The loss [m, n] and both coordinates of the update [2, m, n] at the points (x [n], y [m]) of the plane."""
    origin, directions = (np.zeros(2), np.eye(2)) if plane is None else map(np.asarray, plane)
    if origin.ndim != 1 or directions.shape != (2, origin.size) or np.linalg.matrix_rank(directions) < 2:
        raise ValueError(
            "expected a plane (origin [D], directions [2, D]) with independent directions, got shapes "
            f"{origin.shape} and {directions.shape}; give two directions that differ"
        )
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    points = jnp.asarray(origin + places @ directions, jnp.result_type(float))
    inverse = jnp.asarray(np.linalg.pinv(directions), points.dtype)  # [D, 2]: coordinates in the plane
    eta = jnp.asarray(step_size, points.dtype)

    def at(theta):
        moved = rule.theta(rule.step(loss, rule.init(theta, eta), eta))
        return loss(theta), jnp.matmul(moved - theta, inverse, precision=jax.lax.Precision.HIGHEST)

    value, update = map(np.asarray, map_points(at, points))
    shape = (len(y), len(x))
    return value.reshape(shape), np.ma.masked_invalid(update.T.reshape(2, *shape))


def _draw_levels(axes: Axes, x, y, value) -> None:
    """Level sets of the excess over the smallest value in the picture, evenly on a logarithmic scale."""
    excess = np.ma.masked_invalid(value - np.nanmin(np.where(np.isfinite(value), value, np.inf)))
    high = excess.max()
    if high > 0:
        levels = LogLocator(subs=(1.0, 3.0)).tick_values(1e-4 * high, high)
        axes.contour(x, y, excess, levels=levels, colors="#bbbbbb", linewidths=0.6, zorder=1)
