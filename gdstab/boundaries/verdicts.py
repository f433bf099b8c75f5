"""Which class a point belongs to: how its orbit ends, and where if a label says so; the same program for any number."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int16, Int32

from gdstab import ensembles
from gdstab._shapes import Shape
from gdstab._types import LossFn, Theta
from gdstab._validate import check_count, check_step_sizes, shapes_of
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import UpdateRule

BATCH = 2**16
"""Points of one call of the engine. Fewer cost no more than they are, and compile nothing new."""

LABEL_STEP = len(Outcome)
"""What one label more adds to a class."""

LARGEST_LABEL = 6000
"""Labels are kept in 16 bits, together with the outcome."""


class Classifier:
    r"""Points to classes `[n]`, 16-bit integers: outcome + 5 label, the label being 0 without `label`.

    Points are an array `[n, dim]`, or what `like` says.

    Algorithms that ask for a few more points again and again would compile anew for each number of them. This one
    keeps the shapes fixed, and counts what it has run.

    Parameters
    ----------
    rule, loss, step_size, stopping
        As in `ensembles.run`, with a single step size.
    label
        Where a converged orbit ended, as an integer from 0 on: a JAX function of one point, such as
        `lambda theta: (theta[0] > 0).astype(int)`. It is asked of converged orbits only; all others have label 0.
    like
        A point of the shape that the loss takes, where that is no vector: points may then be given flat or as pytrees.
    batch
        Points of one call; it changes the speed, never a class.
    devices, progress
        As in `ensembles.run`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> well = lambda theta: (theta[0] ** 2 - 1) ** 2
    >>> side = lambda theta: (theta[0] > 0).astype(int)
    >>> classes = Classifier(gradient_descent(), well, 0.1, StoppingRule(), label=side)
    >>> found = classes(jnp.array([[-0.5], [0.5], [9.0]]))
    >>> [Outcome(code).name for code in outcome_of(found)], label_of(found).tolist(), classes.lanes
    (['CONVERGED', 'CONVERGED', 'DIVERGED'], [0, 1, 0], 3)
    """

    def __init__(
        self,
        rule: UpdateRule,
        loss: LossFn,
        step_size,
        stopping: StoppingRule,
        *,
        label: Callable | None = None,
        like: Theta | None = None,
        batch: int = BATCH,
        devices=None,
        progress: Callable[[int, int], None] | None = None,
    ):
        if np.ndim(step_size) != 0:
            raise ValueError(f"expected one step size, got shape {np.shape(step_size)}; classify for each of them")
        check_step_sizes(step_size)
        if stopping.until:
            raise ValueError(
                "stopping: expected the five verdicts, from which classes are numbered, got some of one's own; leave "
                "out `until`, or tell them apart by `basins.heatmap`"
            )
        self.rule, self.loss, self.step_size, self.stopping = rule, loss, step_size, stopping
        self.label, self.batch = label, check_count(batch, "batch")
        self.shape = None if like is None else Shape(like)
        self.devices, self.progress = devices, progress
        self.lanes = 0  # orbits run so far
        self.lane_steps = 0
        self.compile_seconds = 0.0

    def __call__(self, points: Any) -> Int16[np.ndarray, " points"]:
        """The class of every point; nothing is run for no points."""
        return self.with_steps(points)[0]

    def with_steps(self, points: Any) -> tuple[Int16[np.ndarray, " points"], Int32[np.ndarray, " points"]]:
        """As a call, and the numbers of updates until the verdicts."""
        if self.shape is not None and getattr(points, "ndim", 0) != 2:
            points = self.shape.join(points, "points")
        if len(jax.tree.leaves(points)) != 1 or np.ndim(points) != 2:
            raise ValueError(
                f"expected points [n, dim], got {shapes_of(points)}; add or ravel axes, or pass `like`, one point"
            )
        points = np.asarray(points)
        num = len(points)
        if num == 0:
            return np.zeros(0, np.int16), np.zeros(0, np.int32)
        parts = ensembles.iter_run(
            self.rule, self.loss, self._split(_at_least(points, self.batch)), self.step_size, self.stopping,
            keep=() if self.label is None else ("theta",), tile=self.batch, devices=self.devices,
            progress=self.progress,
            spans=[(start, min(start + self.batch, num)) for start in range(0, num, self.batch)],
        )  # fmt: skip
        classes, steps = [], []
        for part in parts:
            self.lane_steps += part.lane_steps
            self.compile_seconds += part.compile_seconds
            classes.append(part.outcome.astype(np.int16) + self._labels(part))
            steps.append(part.steps)
        self.lanes += num
        return np.concatenate(classes), np.concatenate(steps)

    def _split(self, points: np.ndarray):
        return points if self.shape is None else self.shape.split(points)

    def _labels(self, part: ensembles.Tile) -> Int16[np.ndarray, " points"]:
        """5 label of the lanes that converged, 0 of the others."""
        labels = np.zeros(len(part.outcome), np.int16)
        converged = part.outcome == Outcome.CONVERGED
        if self.label is None or not converged.any():
            return labels
        ends = jax.tree.map(lambda leaf: _at_least(leaf[converged], self.batch), part.theta)
        given = ensembles.map_points(self.label, ends)
        given = np.asarray(given)[: int(converged.sum())]
        wrong = ~((given >= 0) & (given <= LARGEST_LABEL))
        if given.ndim != 1 or given.dtype.kind not in "biu" or wrong.any():
            first = given[wrong].ravel()[0] if wrong.any() else given.ravel()[0]
            raise ValueError(
                f"expected a label that returns one integer from 0 to {LARGEST_LABEL} for a point, got "
                f"{given.dtype} of shape {given.shape[1:]} with values such as {first}; number what it tells apart"
            )
        labels[converged] = LABEL_STEP * given.astype(np.int16)
        return labels


def outcome_of(classes: np.ndarray) -> np.ndarray:
    """The `Outcome` codes of classes, int8."""
    return (classes % LABEL_STEP).astype(np.int8)


def label_of(classes: np.ndarray) -> np.ndarray:
    """The labels of classes, int16; 0 unless converged."""
    return (classes // LABEL_STEP).astype(np.int16)


def _at_least(points: np.ndarray, length: int) -> np.ndarray:
    """The points, with copies of the first behind them up to a length: only their number matters."""
    if len(points) >= length:
        return points
    return np.concatenate([points, np.broadcast_to(points[:1], (length - len(points), *points.shape[1:]))])
