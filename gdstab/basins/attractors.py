"""What attractors are: how they are asked for, and what is said of them."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int32, Int64

from gdstab._datasets import recorded
from gdstab._results import strings
from gdstab._validate import check_count, check_positive
from gdstab.basins.ends import Ends

_SHOWN = 3  # coordinates in a name
_WIDE = 4  # in cells: what is called a set, and no point


@dataclasses.dataclass(frozen=True)
class Found:
    r"""Labels that are found: end points in cells that touch belong to one attractor.

    Parameters
    ----------
    tol
        Side of a cell, in units of the parameters. Points closer than `tol` in every parameter have one label; points
        of one label are linked by others with gaps below 2 `tol`. So a manifold of minima is one attractor where its
        end points are dense at that resolution, and minima closer than that are not told apart. By default a 64th of
        the longest side of what the initial points fill.
    symmetries
        Of the loss: functions of one `theta` to another, each of which maps attractors to attractors. What they map to
        each other has one label.
    reach
        How far, in units of `tol`, an attractor may lie from where it was at the last step size.
    most
        Labels; what has fewer lanes than the most frequent ones is taken together as one more, "others".

    Examples
    --------
    >>> Found(tol=-1.0)
    Traceback (most recent call last):
    ValueError: tol: expected a positive finite number, got -1.0; pass one above zero
    """

    tol: float | None = None
    symmetries: tuple[Callable, ...] = ()
    reach: float = 4.0
    most: int = 64

    def __post_init__(self):
        if self.tol is not None:
            check_positive(self.tol, "tol")
        check_positive(self.reach, "reach")
        check_count(self.most, "most")


@recorded(
    {"period": "attractor", "extent": "attractor", "cells": "attractor", "point": ("attractor", "coordinate"),
     "lanes": ("step", "attractor")},
    coords={"attractor": "names"}, attrs=("tol",),
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class Attractors:
    """What orbits ended on: a label for each, from 0 on."""

    point: Float[np.ndarray, "labels dim"]
    """One end point of each: of its cell with most lanes the first, coordinate by coordinate. Pytrees are raveled."""
    period: Int32[np.ndarray, " labels"]
    """0 of points; of a cycle its number of points, the one on display being the least along a fixed direction."""
    lanes: Int64[np.ndarray, "steps labels"]
    """That ended on it, for every step size."""
    extent: Float[np.ndarray, " labels"]
    """Longest side of the box that holds an end point of each of its cells: small of a point, not so of a manifold."""
    cells: Int64[np.ndarray, " labels"]
    """That it occupies, all step sizes together."""
    tol: float
    """Side of a cell; nan where a function gave the labels."""
    names: tuple[str, ...]
    """Of the labels: their places, or what was said."""

    @property
    def num(self) -> int:
        """How many there are."""
        return len(self.period)

    def arrays(self) -> dict[str, tuple]:
        """Variables of an `xarray.Dataset`, over step sizes, labels and coordinates."""
        said = {
            "label_lanes": (("step_size", "attractor"), self.lanes, "lanes that ended on it"),
            "label_point": (("attractor", "coordinate"), self.point, "an end point of it"),
            "label_period": ("attractor", self.period, "points of the cycle; 0 of a point"),
            "label_extent": ("attractor", self.extent, "longest side of the box that holds it"),
            "label_cells": ("attractor", self.cells, f"cells of side {self.tol:g} that it occupies"),
        }
        return {name: (dims, values, {"long_name": words}) for name, (dims, values, words) in said.items()}

    def onto(self, dataset, label: tuple):
        """A dataset with the variable `label`, `(dims, values, attrs)`, and what its numbers stand for."""
        more = dataset.assign({"label": label, **self.arrays()}).assign_attrs(label_tol=self.tol)
        return more.assign_coords(attractor=strings(self.names))

    @classmethod
    def from_xarray(cls, dataset) -> "Attractors | None":
        """What `onto` wrote, or `arrays` with names as the coordinate `attractor`; None where there is nothing."""
        if "label_point" not in dataset:
            return None
        names = "point", "period", "lanes", "extent", "cells"
        arrays = {name: dataset[f"label_{name}"].values for name in names}
        said = tuple(map(str, dataset["attractor"].values))
        return cls(**arrays, tol=float(dataset.attrs["label_tol"]), names=said)


def describe(
    ends: Ends, label: np.ndarray, steps: int, tol: float, names: Sequence[str] = (), others: bool = False
) -> Attractors:
    """The attractors whose labels, from 0 on, cells have; the first ones have names, if any, or the last is a rest."""
    num = max(int(label.max(initial=-1)) + 1, len(names))
    lanes = np.zeros((steps, num), np.int64)
    np.add.at(lanes, (ends.row, label), ends.lanes)
    point = np.full((num, ends.point.shape[1]), np.nan, ends.point.dtype)
    period, extent, cells = np.zeros(num, np.int32), np.zeros(num), np.bincount(label, minlength=num)
    there = np.flatnonzero(cells)
    if there.size:
        heaviest = heaviest_of(label, ends.lanes, num)[there]
        point[there], period[there] = ends.point[heaviest], ends.period[heaviest]
        ends_of = np.full((2, steps, *point.shape), -np.inf)
        for sign, most in zip((1, -1), ends_of, strict=True):
            np.maximum.at(most, (ends.row, label), sign * ends.point.astype(float))
        extent = np.where(np.isfinite(ends_of).all(axis=0), ends_of.sum(axis=0), 0).max(axis=(0, 2), initial=0)
    said = [*names, *(name_of(point[i], int(period[i]), float(extent[i]), tol) for i in range(len(names), num))]
    if others:
        said[-1], point[-1], period[-1] = "others", np.nan, 0
    return Attractors(point, period, lanes, extent, cells, tol, tuple(said))


def name_of(point: Float[np.ndarray, " dim"], period: int, extent: float, tol: float) -> str:
    """What an attractor is called: where it is, to the digits that `tol` resolves.

    >>> name_of(np.array([3.0, 1e-9]), 0, 0.0, 0.1), name_of(np.array([0.5, 2.0]), 2, 0.0, 0.1)
    ('(3, 0)', 'cycle of 2 at (0.5, 2)')
    """
    if np.isnan(point).all():
        return "nowhere"
    digits = 3 if math.isnan(tol) else min(max(1 - math.floor(math.log10(tol)), 0), 12)
    shown = [f"{round(float(x), digits) + 0.0:.12g}" for x in point[:_SHOWN]]
    place = f"({', '.join(shown)}{', ...' if len(point) > _SHOWN else ''})"
    if period:
        return f"cycle of {period} at {place}"
    return f"set through {place}" if extent > _WIDE * tol else place


def heaviest_of(group: np.ndarray, lanes: np.ndarray, num: int) -> Int64[np.ndarray, " num"]:
    """The member with most lanes of each group that has some, the first of equals."""
    order = np.lexsort((np.arange(len(group)), -lanes, group))
    return order[np.minimum(np.searchsorted(group[order], np.arange(num)), len(order) - 1)]
