"""The search behind `critical_step`, for one batch of points: a scan of step sizes, then the bisection."""

from typing import NamedTuple

import equinox as eqx
import numpy as np

from gdstab import ensembles
from gdstab._numerics import magnitude
from gdstab.outcomes import Outcome, StoppingRule

FRACTIONS = np.array([0.5, 0.75, 0.25])
"""Where a bracket is tested: in the middle, and where an undecided test is repeated; on a logarithmic scale."""


class Bracket(NamedTuple):
    """Arrays over the points of a part, which the bisection narrows in place."""

    low: np.ndarray
    high: np.ndarray
    outcome: np.ndarray
    interval: np.ndarray


class Trial:
    """Whether some points converge, each with a step size of its own; always the same program, and it counts."""

    def __init__(self, rule, loss, points, stopping, size, good, devices, progress, shape=None):
        self.shape = shape  # of one point, where that is no vector; points are flat here
        self.rule, self.loss, self.points, self.stopping = rule, loss, points, stopping
        self.size, self.good, self.devices, self.progress = size, good, devices, progress
        self.lanes, self.lane_steps, self.compile_seconds = 0, 0, 0.0

    def __call__(self, rows: np.ndarray, step_sizes: np.ndarray, stopping: StoppingRule | None = None) -> np.ndarray:
        """The outcomes, int8."""
        return self.tile(rows, step_sizes, stopping or self.stopping).outcome

    def tile(self, rows: np.ndarray, step_sizes: np.ndarray, stopping: StoppingRule, keep=()) -> ensembles.Tile:
        """How they end, with what is to be kept of it."""
        repeated = np.zeros(self.size, np.int64)  # only some lanes run; the number of points fixes the shapes
        repeated[: len(rows)] = np.arange(len(rows))
        (tile,) = ensembles.iter_run(
            self.rule, self.loss, self.starts(rows[repeated]), step_sizes[repeated], stopping,
            product=False, keep=keep, tile=self.size, devices=self.devices, spans=[(0, len(rows))],
        )  # fmt: skip
        self.lanes += len(rows)
        self.lane_steps += tile.lane_steps
        self.compile_seconds += tile.compile_seconds
        if self.progress is not None:
            self.progress(len(rows), tile.lane_steps)
        return tile

    def starts(self, rows: np.ndarray):
        """Some of the points, as the loss takes them."""
        return self.points[rows] if self.shape is None else self.shape.split(self.points[rows])

    def converges(self, outcome):
        """Whether outcomes are among those asked for."""
        return np.isin(outcome, self.good)

    def fails(self, outcome):
        """Whether outcomes are decided otherwise."""
        return ~self.converges(outcome) & (outcome != Outcome.UNDECIDED)


def nudge_critical(trial: Trial, step_size, nudge: float) -> np.ndarray:
    """Move the points that are critical, in a direction that no symmetry singles out; which they are."""
    everything = np.arange(len(trial.points))
    begin = eqx.tree_at(lambda rule: rule.max_steps, trial.stopping, 0)
    rest = trial(everything, np.full(len(everything), step_size), begin) == Outcome.CONVERGED
    if not nudge or not rest.any():
        return np.zeros(len(everything), bool)
    direction = 1 / np.arange(1, trial.points.shape[1] + 1)
    points = trial.points[rest]
    trial.points = trial.points.copy()
    units = np.array([[magnitude(size)] for size in np.abs(points).max(axis=1)])
    trial.points[rest] += (nudge * (units + np.abs(points)) * direction).astype(points.dtype)
    return rest


def scan_ladder(trial: Trial, ladder: np.ndarray) -> Bracket:
    """Run every point with every step size of the ladder, and bracket the end of the converging ones."""
    everything = np.arange(len(trial.points))
    found = np.stack([trial(everything, np.full(len(everything), step_size)) for step_size in ladder])
    number = np.arange(len(ladder))[:, None]
    converges, fails = trial.converges(found), trial.fails(found)
    top = np.where(converges, number, -1).max(axis=0)  # -1: none
    first_failure = np.where(fails, number, len(ladder)).min(axis=0)
    interval = first_failure > top
    # Above the last that converges: the first failure if there is one, else the first that is undecided.
    above = np.where(fails & (number > top), number, len(ladder)).min(axis=0)
    above = np.where(above == len(ladder), np.minimum(top + 1, len(ladder)), above)
    below = np.where(converges & (number < first_failure), number, -1).max(axis=0)
    infinite, zero = ladder.dtype.type(np.inf), ladder.dtype.type(0)
    outcome = np.concatenate([found, np.full((1, len(everything)), Outcome.UNDECIDED, np.int8)])
    return Bracket(
        low=np.append(ladder, zero)[below],
        high=np.append(ladder, infinite)[above],
        outcome=outcome[above, everything],
        interval=interval,
    )


def bisect(trial: Trial, bracket: Bracket, rtol: float, undecided_rtol: float) -> None:
    """Narrow every bracket with two ends, unless its converging step sizes are no interval."""
    low, high, outcome, interval = bracket
    tries = np.zeros(len(low), np.int64)  # undecided tests in a row
    unsure = np.full(len(low), np.inf, low.dtype)  # the smallest of them
    usable = np.flatnonzero(interval & (low > 0) & np.isfinite(high))
    while True:
        slow = outcome[usable] == Outcome.UNDECIDED
        width = np.where(slow, undecided_rtol, rtol)
        rows = usable = usable[high[usable] - low[usable] > width * low[usable]]
        if not rows.size:
            return
        ratio = high[rows].astype(np.float64) / low[rows]
        step_sizes = (low[rows] * ratio ** FRACTIONS[tries[rows]]).astype(low.dtype)
        found = trial(rows, step_sizes)
        converges, fails = trial.converges(found), trial.fails(found)
        low[rows[converges]] = step_sizes[converges]
        high[rows[fails]], outcome[rows[fails]] = step_sizes[fails], found[fails]
        unknown = ~converges & ~fails
        unsure[rows[unknown]] = np.minimum(unsure[rows[unknown]], step_sizes[unknown])
        third = rows[unknown & (tries[rows] == len(FRACTIONS) - 1)]
        high[third], outcome[third] = unsure[third], Outcome.UNDECIDED
        tries[rows] = np.where(unknown, tries[rows] + 1, 0) % len(FRACTIONS)
        unsure[rows[tries[rows] == 0]] = np.inf
