"""Basins on a grid: where descent ends from every cell of a plane, how large each basin is, and how surely."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from functools import partial

import jax
import numpy as np
from jaxtyping import Int8, Int32, Int64

from gdstab import ensembles
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._numerics import independent
from gdstab._results import origin as origin_of
from gdstab._shapes import Shape
from gdstab._types import LossFn, Theta
from gdstab._validate import check_box, check_dtype, check_resolution, check_step_sizes
from gdstab.basins.attractors import Attractors, Found
from gdstab.basins.kinds import classify_ends
from gdstab.basins.labels import FEW, Labeller
from gdstab.basins.patches import Patch, Room, patch_of
from gdstab.basins.pictures import Picture
from gdstab.outcomes import Outcome, StoppingRule, names
from gdstab.sampling import GridSource, ShapedSource, shaped
from gdstab.updates import UpdateRule


@dataclasses.dataclass(frozen=True, eq=False)
class Heatmap(Picture):
    """Verdict and number of updates for every cell of a plane; the first axis of the arrays is the first of the box."""

    outcome: Int8[np.ndarray, "n0 n1"]
    """An `Outcome` per cell, that of its centre."""
    steps: Int32[np.ndarray, "n0 n1"]
    """Updates until the verdict."""
    above_floor: Int64[np.ndarray, " some"]
    """Numbers of the cells that converged while the loss was not at a floor that it declares: see `refine`."""
    source: GridSource | ShapedSource
    """The centres by number: `source(numbers)` gives initial points, `source.cells(numbers)` places in the arrays."""
    step_size: float
    box: tuple[tuple[float, float], tuple[float, float]]
    axes: tuple[str, str]
    """Names of the two axes, such as `x0` and `x1`."""
    lane_steps: int
    compile_seconds: float
    run_seconds: float
    label: Int32[np.ndarray, "n0 n1"] | None = None
    """Where the orbit of each cell ended, as `attractors` numbers it, -1 of nowhere; None if nobody asked."""
    attractors: Attractors | None = None
    origin: dict | None = None
    """Rule, loss, stopping rule, dtype and versions, in words: attributes of `to_xarray`."""
    outcomes: tuple[str, ...] = names()

    @property
    def area_bracket(self) -> tuple[float, float]:
        """Area of the cells whose eight neighbours converged too, and of all that converged or touch one that did.

        It brackets the basin's area if its edge only runs through cells whose neighbourhood holds two verdicts: the
        grid resolves it. Cells on the rim have the neighbours inside the box only; undecided is not converged.
        """
        converged = self.outcome == Outcome.CONVERGED
        inner = ~_spread(~converged)
        cell = float(np.prod(self.cell_sides))
        return int(inner.sum()) * cell, int(_spread(converged).sum()) * cell

    def to_xarray(self):
        """The result as an `xarray.Dataset` on the two axes, with the meaning of the codes in the attributes."""
        above = np.zeros(self.outcome.size, bool)
        above[self.above_floor] = True
        name = {"long_name": "converged by the gradient, loss not at a declared floor"}
        data = {
            "steps": (self.axes, self.steps, {"long_name": "updates until the verdict"}),
            "above_floor": (self.axes, self.source.to_grid(above), name),
        }
        dataset = self._dataset(data)
        if self.attractors is None:
            return dataset
        name = {"long_name": "attractor that the orbit ended on; -1 of none"}
        return self.attractors.onto(dataset, (self.axes, self.label, name))

    @classmethod
    def from_xarray(cls, dataset, *, box, plane=None, dim: int | None = None) -> "Heatmap":
        """The heatmap that `to_xarray` wrote, with the box and the plane that it was asked for."""
        axes = tuple(map(str, dataset["outcome"].dims))
        outcome, steps, above = (dataset[name].values for name in ("outcome", "steps", "above_floor"))
        origin, directions, _ = parse_plane(plane, dim)
        source = GridSource(box, outcome.shape, origin, directions, dataset[axes[0]].dtype, compact=True)
        above = np.flatnonzero(above.ravel()[source.cells(np.arange(above.size))])
        return cls(
            outcome, steps, above, source, box=box, axes=axes, **cls._numbers_of(dataset),
            label=dataset["label"].values if "label" in dataset else None, attractors=Attractors.from_xarray(dataset),
            outcomes=tuple(dataset["outcome"].attrs["flag_meanings"].split()),
        )  # fmt: skip


@entry(host=True)
def heatmap(
    rule: UpdateRule,
    loss: LossFn,
    step_size,
    *,
    box,
    resolution,
    stopping: StoppingRule,
    plane=None,
    dim: int | None = None,
    like: Theta | None = None,
    dtype=None,
    label: Callable | Found | None = None,
    block: int | None = None,
    tile: int = ensembles.TILE,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
    finished: Iterable[Patch] = (),
    on_patch: Callable[[Patch], None] | None = None,
) -> Heatmap:
    """Run one orbit from the centre of every cell of a rectangle in a plane of parameter space.

    Parameters
    ----------
    rule, loss, step_size, stopping
        As in `ensembles.run`, with a single step size; the loss takes one vector `[dim]`, or what `like` says.
    box, resolution
        `((low, high), (low, high))` and the number of cells along each axis.
    plane
        Two indices of parameters, the others being 0, or `(point, first, second)`: the plane through a point of
        `[dim]` along two directions, whose coefficients are the coordinates of the box. By default the first two
        parameters. Points and directions may be pytrees, and are then what the loss takes.
    dim
        Number of parameters; by default those that the plane names, and 2 at least.
    like
        A point of the shape that the loss takes, where that is no vector and the plane does not say it: a pytree whose
        entries are numbered in the order of `jax.flatten_util.ravel_pytree`.
    dtype
        Of the parameters; by default that of `like`, or the widest that JAX has enabled.
    label
        Where orbits end, beside how: `Found()`, or a function of one end point; see `measure`.
    block, tile, devices, progress
        As in `ensembles.iter_run`; they never change a verdict.
    finished, on_patch
        Patches of an earlier run, in order from cell 0 on, that need not be run again; and what to call with every
        new patch. Where that is asked for, patches are as long as takes some seconds, and `tile` cells at the most.

    Raises
    ------
    ValueError
        If the box is empty, a resolution is not positive, the step size is no positive number, or the plane is none.

    Examples
    --------
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: (1 - theta[0] * theta[1]) ** 2
    >>> result = heatmap(
    ...     gradient_descent(), loss, 0.3, box=((-4, 4), (-4, 4)), resolution=(20, 20),
    ...     stopping=StoppingRule(grad_tol=1e-10),
    ... )
    >>> result.counts["converged"], result.counts["diverged"], result.cells
    (122, 278, 400)
    """
    begin = time.perf_counter()
    sides = tuple(tuple(side) for side in check_box(box, 2).tolist())
    shape = check_resolution(resolution, 2)
    plane, dim, like, dtype = flat_plane(plane, dim, like, dtype)
    dtype = check_dtype(dtype)
    step_size = _one_step_size(step_size, dtype)
    origin, directions, axes = parse_plane(plane, dim)
    source = GridSource(sides, shape, origin, directions, dtype, compact=True)
    source = source if like is None else shaped(source, like)
    labeller = None if label is None else _labeller(rule, loss, stopping, label, source)
    room = Room(shape[0] * shape[1], finished, labelled=label is not None)
    keep = ("loss", *(() if labeller is None else labeller.keep))
    pace = ensembles.Pace(tile, first=tile if on_patch is None else ensembles.FIRST)
    parts = ensembles.iter_run(
        rule, loss, source, step_size, stopping, keep=keep, block=block, tile=tile, devices=devices,
        progress=progress, spans=pace.spans(room.filled, source.num_points),
    )  # fmt: skip
    look = partial(patch_of, loss, stopping.loss_tol, step_size, labeller)
    compile_seconds = room.fill(parts, look, on_patch, pace)
    label, attractors = (None, None) if labeller is None else room.labels(labeller)
    return Heatmap(
        outcome=source.to_grid(room.outcome),
        steps=source.to_grid(room.steps),
        above_floor=np.concatenate([np.zeros(0, np.int64), *room.above_floor]),
        source=source,
        step_size=step_size,
        box=sides,
        axes=axes,
        lane_steps=room.lane_steps,
        compile_seconds=compile_seconds,
        run_seconds=time.perf_counter() - begin - compile_seconds,
        label=None if label is None else source.to_grid(label),
        attractors=attractors,
        origin=origin_of(rule, loss, stopping, dtype=dtype),
        outcomes=names(stopping),
    )


@recorded({"kind": "some", "cells": "some", "inertia": ("some", "sign")}, coords={"sign": "signs"}, attrs=("counts",))
@dataclasses.dataclass(frozen=True, eq=False)
class Kinds:
    """What the converged cells converged to: numbers of cells, and the verdict of those that needed a Hessian."""

    counts: dict[str, int]
    """Converged cells per kind: minimum, strict_saddle, degenerate."""
    cells: Int64[np.ndarray, " some"]
    """Flat indices of the cells that were classified by their Hessian."""
    kind: Int8[np.ndarray, " some"]
    inertia: Int32[np.ndarray, "some 3"]
    """Numbers of negative, zero and positive eigenvalues."""
    signs = ("negative", "zero", "positive")


@entry(host=True)
def refine(
    rule: UpdateRule,
    loss: LossFn,
    result: Heatmap,
    *,
    stopping: StoppingRule,
    classify: Callable,
    kinds: Iterable,
) -> Kinds:
    """Tell converged cells apart by the inertia of the Hessian where their orbits ended.

    A cell whose loss is within `loss_tol` of a floor that it declares is a minimum; only the others
    (`result.above_floor`) are run again, to the same end, and given to
    `classify(loss, theta) -> (kind, (n_minus, n_zero, n_plus))`, such as
    `stability.classify`. `kinds` is its enumeration, whose lower-case names are the keys of the counts.
    """
    names = {int(kind): kind.name.lower() for kind in kinds}
    cells = result.above_floor
    step_sizes = np.full(cells.size, result.step_size)
    kind, inertia = classify_ends(
        rule, loss, lambda rows: result.source.take(cells[rows]), step_sizes, stopping=stopping, classify=classify
    )
    counts = dict.fromkeys(names.values(), 0)
    counts["minimum"] += result.counts["converged"] - cells.size
    for value, number in zip(*np.unique(kind, return_counts=True), strict=True):
        counts[names[int(value)]] += int(number)
    return Kinds(counts, result.source.cells(cells), kind, inertia)


def _labeller(rule, loss, stopping, label, source) -> Labeller:
    few = source.take(np.unique(np.linspace(0, source.num_points - 1, FEW).astype(np.int64)))
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), few)
    return Labeller(rule, loss, stopping, label, one, lambda: few)


def _one_step_size(step_size, dtype) -> float:
    if np.ndim(step_size) != 0:
        raise ValueError(
            f"expected one step size, got shape {np.shape(step_size)}; draw one heatmap for each, or use "
            "ensembles.run, which takes a vector of them"
        )
    return float(check_step_sizes(step_size, dtype))


def flat_plane(plane, dim: int | None, like: Theta | None, dtype) -> tuple:
    """Plane, number of parameters, their shape and dtype, where points of the plane are pytrees: all raveled.

    >>> flat_plane(({"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}), None, None, "float32")[:2]
    ((array([0., 1.]), array([1., 0.]), array([0., 1.])), 2)
    """
    parts = tuple(plane) if plane is not None and len(plane) == 3 else ()
    if like is None and parts and jax.tree.structure(parts[0]) != jax.tree.structure(0) and not _numbers(parts[0]):
        like = parts[0]
    if like is None:
        return plane, dim, None, dtype
    shape = Shape(like)
    parts = tuple(part if _numbers(part) else shape.join(part, "plane") for part in parts)
    dtype = shape.dtype if dtype is None else dtype
    return parts or plane, shape.dim, like, dtype


def _numbers(part) -> bool:
    """Whether it is a vector already: an array, or a list of numbers."""
    return hasattr(part, "ndim") or (
        isinstance(part, list | tuple) and all(np.ndim(x) == 0 and not isinstance(x, dict) for x in part)
    )


def parse_plane(plane, dim: int | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Origin `[dim]`, two directions `[2, dim]`, and the names of the two axes; see `heatmap`.

    >>> parse_plane((2, 0))[1].tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    plane = (0, 1) if plane is None else tuple(plane)
    if len(plane) == 3:
        point, *directions = (np.asarray(part, np.float64) for part in plane)
        size = len(point) if dim is None else dim
        directions = np.stack(directions) if len({part.shape for part in directions}) == 1 else np.zeros((2, 0))
        usable = point.shape == (size,) and directions.shape == (2, size) and independent(directions)
        if not (usable and np.isfinite(point).all() and np.isfinite(directions).all()):
            raise ValueError(
                f"a plane is (point, first, second), three vectors of {size} finite numbers with the directions "
                f"linearly independent, but got {plane}"
            )
        return point, directions, ("s0", "s1")
    if len(plane) != 2 or any(np.ndim(i) or i != int(i) or i < 0 for i in plane) or plane[0] == plane[1]:
        raise ValueError(f"a plane is two different indices of parameters, or (point, first, second), but got {plane}")
    i, j = (int(index) for index in plane)
    size = max(i, j, 1) + 1 if dim is None else dim
    if max(i, j) >= size:
        raise ValueError(f"the plane names parameter {max(i, j)}, but there are {size}: use indices 0 to {size - 1}")
    return np.zeros(size), np.eye(size)[[i, j]], (f"x{i}", f"x{j}")


def _spread(cells):
    """The cells and their neighbours, up to eight."""
    wide = np.pad(cells, 1)
    rows = wide[:-2] | wide[1:-1] | wide[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
