"""Labels of lanes: where each orbit ended, by a function of the end point or by attractors that are found."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int, Int32

from gdstab import ensembles
from gdstab._contract import entry
from gdstab._datasets import LANES, recorded
from gdstab._types import LossFn
from gdstab._validate import check_positive
from gdstab.basins.attractors import Attractors, Found, describe
from gdstab.basins.ends import Ends, add, cells_of, gather
from gdstab.basins.grouping import attractors_of
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import UpdateRule

LARGEST = 6000
"""Label that a function may give, as in `boundaries`."""
_SIDE = 64  # cells along the longest side of what the initial points fill, if nothing is said
_MOST_NUMBERS = 2**27  # that the cells of an ensemble may take together
FEW = 4096
"""Initial points, of which the extent is taken."""


@dataclasses.dataclass
class Labeller:
    """Takes down where the lanes of one ensemble end, tile by tile, and names the places once all are in.

    Parameters
    ----------
    rule, loss, stopping
        Of the ensemble.
    label
        `Found(...)`; or a function of one end point that gives an integer from 0 on, asked of converged orbits only.
        Its attribute `names`, if it has one, holds the names of the labels.
    one
        Shapes and dtypes of one point.
    few
        `few() -> points`: some of the initial ones, for the side of the cells where `Found` does not say it.
    """

    rule: UpdateRule
    loss: LossFn
    stopping: StoppingRule
    label: Callable | Found
    one: Any
    few: Callable | None = None

    def __post_init__(self):
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.one)
        flat, self._unravel = ravel_pytree(zeros)
        self.dim, self._dtype = flat.size, flat.dtype
        self.found = isinstance(self.label, Found)
        if not (self.found or callable(self.label)):
            raise ValueError(f"label: expected a function of one end point or Found(), got {self.label!r}; pass either")
        symmetries = self.label.symmetries if self.found else ()
        self._symmetries = tuple(_Image(symmetry, self._unravel) for symmetry in symmetries)
        self._with_cycles = self.found and self.stopping.max_period is not None
        self.tol = self._side() if self.found else float("nan")
        self.keep = ("theta", "state") if self._with_cycles else ("theta",)

    def _side(self) -> float:
        if self.label.tol is not None or self.few is None:
            return check_positive(self.label.tol, "tol")
        extent = max((float(np.ptp(leaf, axis=0).max(initial=0)) for leaf in jax.tree.leaves(self.few())), default=0.0)
        if not extent > 0:
            raise ValueError("tol: initial points that are all equal have no extent to take it from; pass Found(tol)")
        return extent / _SIDE

    def __call__(
        self, outcome, theta, state, period, step_sizes, *, row=0, part=None
    ) -> tuple[Ends, Int32[np.ndarray, " lanes"]]:
        """The cells that some lanes ended in, all with one `row`, and in which of these each is; -1 in none.

        `step_sizes` is one number, or one for each lane.
        """
        cycling = (outcome == Outcome.CYCLING) if self._with_cycles else np.zeros(len(outcome), bool)
        lanes = np.flatnonzero(cycling | (outcome == Outcome.CONVERGED))
        place = np.full(len(outcome), -1, np.int32)
        if not lanes.size:
            return self.nowhere(), place
        points = _raveled(theta, lanes, self._dtype)
        inner = np.flatnonzero(cycling[lanes])
        if inner.size:
            points[inner] = self._lowest(state, period, step_sizes, lanes[inner])
        key = cells_of(points, self.tol) if self.found else self._named(theta, lanes)
        ends, place[lanes] = gather(
            key,
            points,
            kind=outcome[lanes],
            period=np.where(cycling[lanes], period[lanes], 0),
            row=np.full(lanes.size, row, np.int64),
            part=None if part is None else part[lanes],
        )
        return ends, place

    def nowhere(self) -> Ends:
        """No cell at all."""
        return Ends.nowhere(self.dim if self.found else 1, self.dim, self._dtype)

    def _named(self, theta, lanes) -> Int[np.ndarray, "lanes 1"]:
        given = np.asarray(ensembles.map_points(self.label, jax.tree.map(lambda leaf: leaf[lanes], theta)))
        wrong = (given < 0) | (given > LARGEST)
        if given.ndim != 1 or given.dtype.kind not in "biu" or wrong.any():
            first = given[wrong].ravel()[0] if wrong.any() else given.ravel()[0]
            raise ValueError(
                f"expected a label that returns one integer from 0 to {LARGEST} for a point, got {given.dtype} of "
                f"shape {given.shape[1:]} with values such as {first}; number what it tells apart"
            )
        return given.astype(np.int64)[:, None]

    def _lowest(self, state, period, step_sizes, lanes) -> Float[np.ndarray, "lanes dim"]:
        """The points that stand for cycles, see `_Lowest`."""
        sizes = np.asarray(step_sizes, self._dtype)
        sizes = np.full(lanes.size, sizes) if sizes.ndim == 0 else sizes[lanes]
        there = jax.tree.map(lambda leaf: leaf[lanes], state)
        lowest = _Lowest(self.rule, self.loss, self._symmetries, self.stopping.max_period)
        return ensembles.map_points(lowest, (there, sizes, period[lanes].astype(np.int32)))

    def finish(self, ends: Ends, step_sizes: np.ndarray) -> tuple[Attractors, Int32[np.ndarray, " cells"]]:
        """The attractors, and the label of each cell."""
        if not self.found:
            label = ends.key[:, 0].astype(np.int32)
            return describe(ends, label, len(step_sizes), self.tol, getattr(self.label, "names", ())), label
        asked = self.label
        images = self._images if self._symmetries else None
        return attractors_of(ends, self.tol, step_sizes, images=images, reach=asked.reach, most=asked.most)

    def _images(self, points: Float[np.ndarray, "m dim"]) -> Sequence[np.ndarray]:
        return [ensembles.map_points(image, points) for image in self._symmetries]

    def labels(self, parts: Sequence[tuple[Ends, np.ndarray]]) -> tuple[Int32[np.ndarray, " lanes"], Attractors]:
        """The labels of all lanes, from the cells and places that calls have given for parts of them."""
        tables, places = zip(*parts, strict=True)
        total, cells = self.add(tables)
        found, of_cell = self.finish(total, np.ones(1))
        return np.concatenate(list(map(spread(of_cell), cells, places))), found

    def add(self, tables: Sequence[Ends]) -> tuple[Ends, list[np.ndarray]]:
        """As `ends.add`, where the sum is not too large to be kept.

        Raises
        ------
        ValueError
            If the ends lie in so many cells that grouping them by distance says nothing.
        """
        total, places = add(tables)
        if total.key.size + total.point.size > _MOST_NUMBERS:
            raise ValueError(
                f"the end points lie in {len(total.row):,} cells of side {self.tol:.3g}: raise the tol of `Found`, or "
                "label them by a function of the end point"
            )
        return total, places


@recorded({"label": LANES}, codes={"label": "names"})
class Labels(eqx.Module):
    """The labels of an ensemble, and what they stand for."""

    label: Int32[np.ndarray, "*lanes"]
    """Of each lane, in the shape of the ensemble; -1 of those that ended nowhere: their outcome says how."""
    attractors: Attractors = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the labels, from 0 on."""
        return self.attractors.names


@entry(host=True)
def label_ends(
    rule: UpdateRule, loss: LossFn, result: ensembles.EnsembleResult, label: Callable | Found, stopping: StoppingRule
) -> Labels:
    """Where the lanes of `ensembles.run` ended.

    Parameters
    ----------
    rule, loss, stopping
        Those of the run.
    result
        With its end points; with `keep=("theta", "state")` if cycles were looked for and are to be found.
    label
        `Found(tol)`; or a function of one end point that gives an integer from 0 on, such as
        `lambda theta: (theta[0] > 0).astype(int)`, asked of converged orbits only.

    Raises
    ------
    ValueError
        If the end points were not kept, or `Found` has no `tol`.

    Examples
    --------
    >>> from gdstab.updates import gradient_descent
    >>> well = lambda theta: (theta[0] ** 2 - 1) ** 2
    >>> stop = StoppingRule()
    >>> ran = ensembles.run(gradient_descent(), well, np.array([[-0.5], [0.5], [0.7], [9.0]]), 0.1, stop)
    >>> found = label_ends(gradient_descent(), well, ran, Found(0.1), stop)
    >>> found.label.tolist(), found.attractors.names
    ([0, 1, 1, -1], ('(-1)', '(1)'))
    """
    if result.theta is None:
        raise ValueError('expected a result with its end points, got one without; run it with keep=("theta",)')
    if isinstance(label, Found) and label.tol is None:
        raise ValueError("tol: expected the side of a cell, got none, which a result does not say; pass Found(tol)")
    shape, axes = result.outcome.shape, result.outcome.ndim
    sizes = np.asarray(result.step_sizes)
    rows = shape[0] if axes == 2 else 1
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype), result.theta)
    labeller = Labeller(rule, loss, stopping, label, one)
    if "state" in labeller.keep and result.state is None:
        raise ValueError('expected a result with states, for its cycles; run it with keep=("theta", "state")')

    def lanes_of(tree, row):
        return jax.tree.map(lambda leaf: leaf.reshape(rows, -1, *leaf.shape[axes:])[row], tree)

    tables, places = [], []
    for row in range(rows):
        size = sizes.reshape(-1)[row] if axes == 2 or sizes.ndim == 0 else sizes
        arrays = [lanes_of(tree, row) for tree in (result.outcome, result.theta, result.state, result.period)]
        ends, place = labeller(*arrays, size, row=row)
        tables.append(ends)
        places.append(place)
    total, of_table = labeller.add(tables)
    found, of_cell = labeller.finish(total, sizes.reshape(-1) if axes == 2 else np.ones(1))
    return Labels(np.stack(list(map(spread(of_cell), of_table, places))).reshape(shape), found)


def spread(of_cell: Int32[np.ndarray, " cells"]) -> Callable:
    """From the labels of all cells, and the cells of a table among them, to the labels of its lanes; -1 stays."""

    def labels(cells: np.ndarray, place: np.ndarray) -> np.ndarray:
        return np.append(of_cell[cells], np.int32(-1))[place]

    return labels


def _raveled(theta, lanes, dtype) -> Float[np.ndarray, "lanes dim"]:
    """The parameters of some lanes, in the order of `ravel_pytree`."""
    leaves = [np.asarray(leaf)[lanes].reshape(len(lanes), -1) for leaf in jax.tree.leaves(theta)]
    return np.concatenate(leaves, axis=1).astype(dtype)


class _Image(eqx.Module):
    """A symmetry, of raveled parameters."""

    symmetry: Callable
    unravel: Callable = eqx.field(static=True)

    def __call__(self, point):
        return ravel_pytree(self.symmetry(self.unravel(point)))[0]


class _Lowest(eqx.Module):
    """From one state of a cycle, its period and step size to the point that stands for it.

    That is the lowest one along a direction which no symmetry singles out; with symmetries that of the lowest cycle
    that they lead to, downhill from each to the next.
    """

    rule: UpdateRule
    loss: LossFn
    images: tuple[_Image, ...]
    max_period: int = eqx.field(static=True)

    def __call__(self, lane):
        state, step_size, period = lane

        def go_on(state, _):
            return self.rule.step(self.loss, state, step_size), ravel_pytree(self.rule.theta(state))[0]

        _, points = jax.lax.scan(go_on, state, None, self.max_period)
        direction = jnp.cos(jnp.arange(1.0, points.shape[1] + 1)).astype(points.dtype)

        def heights(points):
            rows = jnp.sum(points * direction[None], axis=1)
            return jnp.where(jnp.arange(self.max_period, dtype=jnp.int32) < period, rows, jnp.inf)

        for image in self.images * len(self.images):  # as in bubble sort, if they are exchanges of neighbours
            there = jax.vmap(image)(points)
            points = jnp.where(jnp.min(heights(there)) < jnp.min(heights(points)), there, points)
        return points[jnp.argmin(heights(points))]
