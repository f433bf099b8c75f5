"""Labels of end points on the command line: what `--label` asks for, and what is written and printed of it."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import pdist

from gdstab import basins, ensembles, stability
from gdstab._types import LossFn
from gdstab.studies.tables import columns, number
from gdstab.theory import known

ELSEWHERE = "elsewhere"
"""The label of an end that is at none of the known minima, such as a saddle."""


class ByMinimum(eqx.Module):
    """The label of an end point: the known minimum that it is at, or one more of none of them.

    Parameters
    ----------
    points
        The minima, `[num, dim]`.
    tol
        How far from one an end point may be.
    """

    points: np.ndarray
    tol: float
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, points: np.ndarray, tol: float | None = None):
        between = float(pdist(points).min()) if len(points) > 1 else math.inf
        self.points, self.tol = points, between / 4 if tol is None else tol
        digits = 4 if math.isinf(between) else max(2 - math.floor(math.log10(between)), 2)
        places = [", ".join(f"{round(float(x), digits) + 0.0:.12g}" for x in point) for point in points]
        self.names = (*(f"({place})" for place in places), ELSEWHERE)

    def __call__(self, theta):
        """An integer from 0 to the number of minima.

        >>> ByMinimum(np.array([[-1.0, 0.0], [1.0, 0.0]]))(jnp.array([0.9, 0.0])).tolist()
        1
        """
        squares = jnp.sum(jnp.square(theta[None] - jnp.asarray(self.points, theta.dtype)), axis=-1)
        near = jnp.min(squares) <= jnp.asarray(min(self.tol, 1e150), theta.dtype) ** 2
        return jnp.where(near, jnp.argmin(squares), len(self.points)).astype(jnp.int32)


class ByBranch(eqx.Module):
    r"""The label of an end point where the minima are the hyperbola $xy = a > 0$: its branch, or one more of neither.

    Parameters
    ----------
    target
        The number a.
    tol
        How far from the branch an end point may be, to first order $|xy - a| / |(x, y)|$.
    """

    target: float
    tol: float
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, target: float, tol: float | None = None):
        between = math.sqrt(8 * target)  # of the two vertices
        self.target, self.tol = target, between / 4 if tol is None else tol
        vertex = f"{math.sqrt(target):.4g}"
        self.names = (f"branch through (-{vertex}, -{vertex})", f"branch through ({vertex}, {vertex})", ELSEWHERE)

    def __call__(self, theta):
        """0, 1 or 2.

        >>> [ByBranch(1.0)(jnp.array(end)).tolist() for end in ([-2.0, -0.5], [4.0, 0.25], [0.0, 0.0])]
        [0, 1, 2]
        """
        x, y = theta
        off = jnp.abs(x * y - jnp.asarray(self.target, theta.dtype)) / jnp.hypot(x, y)
        near = off <= jnp.asarray(min(self.tol, 1e30), theta.dtype)
        return jnp.where(near, (x + y > 0).astype(jnp.int32), 2).astype(jnp.int32)


def build_label(options, loss: LossFn, dim: int) -> Callable | basins.Found | None:
    """What `--label` and `--label-tol` ask for.

    Raises
    ------
    ValueError
        If the minima of the loss are not known, or neither isolated points nor a hyperbola.
    """
    if options.label is None:
        if options.label_tol is not None:
            raise ValueError("--label-tol goes with --label found or --label by-minimum: add one of them")
        return None
    if options.label == "found":
        return basins.Found(tol=options.label_tol)
    what = known(loss, np.zeros(dim))
    if what.isolated is not None:
        return ByMinimum(what.isolated, options.label_tol)
    if what.hyperbola is not None:
        return ByBranch(what.hyperbola.target, options.label_tol)
    raise ValueError(
        "--label by-minimum: expected a loss whose minima are known points, or a product of two numbers with a "
        "positive target, got another one; use --label found"
    )


def summarise(attractors: basins.Attractors, loss: LossFn) -> list[dict]:
    """What `summary.json` holds of each: its name, place, period and extent, and the kind of critical point it is."""
    kinds: Sequence[str | None] = [None] * attractors.num
    points = np.flatnonzero((attractors.period == 0) & np.isfinite(attractors.point).all(axis=1))
    if points.size:
        codes, _ = ensembles.map_points(eqx.Partial(stability.classify, loss), attractors.point[points])
        found = dict(zip(points.tolist(), (stability.Kind(int(code)).name.lower() for code in codes), strict=True))
        kinds = [found.get(number) for number in range(attractors.num)]
    return [
        {
            "name": name,
            "point": attractors.point[number],
            "period": attractors.period[number],
            "extent": attractors.extent[number],
            "kind": kinds[number],
            "lanes": attractors.lanes[:, number],
        }
        for number, name in enumerate(attractors.names)
    ]


def table(summary: dict, lanes: int) -> str:
    """The attractors of a map, each with its share of the cells; and with their critical step, if that is known."""
    rows = [("attractor", "what it is", "cells", "share", "median critical step")]
    for place, row in enumerate(summary["attractors"], 1):
        (count,) = row["lanes"]
        step = number(row.get("critical_step"), ".4g")
        rows.append((f"{place}:  {row['name']}", what(row), f"{count:,}", f"{count / lanes:.6f}", step))
    known = any("critical_step" in row for row in summary["attractors"])
    return columns(rows if known else [row[:-1] for row in rows])


def shares_table(summary: dict) -> str:
    """The attractors of a basin measure, and their shares, a line per step size."""
    found, percent = summary["attractors"], f"{100 * summary['confidence']:g} %"
    rows = [("step size", *map(str, range(1, len(found) + 1)))]
    for row in summary["rows"]:
        shares = [entry["share"] for entry in row["labels"]]
        widths = [max(abs(end - entry["share"]) for end in entry["interval"]) for entry in row["labels"]]
        cells = [f"{share:.4f} +- {width:.4f}" if share else "-" for share, width in zip(shares, widths, strict=True)]
        rows.append((f"{row['step_size']:.6g}", *cells))
    lines = [f"{number}:  {row['name']}, {what(row)}" for number, row in enumerate(found, 1)]
    return "\n".join([*lines, f"shares, with their {percent} intervals:", columns(rows)])


def what(row: dict) -> str:
    """The kind of an attractor, in words."""
    return f"cycle of {row['period']}" if row["period"] else (row["kind"] or "-").replace("_", " ")
