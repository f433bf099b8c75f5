"""Random walks that are uniform in the part of a set inside an ellipsoid, and a pilot run that finds the ellipsoids."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from gdstab import ensembles
from gdstab.outcomes import Outcome, StoppingRule

RATIO = 0.25
"""Aimed share of a set inside the next smaller one: each costs about the same, and errors add up slowest near here."""
DIRECT = 0.05
"""Share of an ellipsoid from which on independent points measure it: below, a level of walks costs less."""
ACCEPTANCE = 0.3
"""Aimed share of accepted moves."""
FORGOTTEN = 0.1
"""Correlation of where a walk begins and ends, at which it has moved for long enough."""
ROOM = 2.0
"""Volume of the outermost ellipsoid, in terms of that which holds all walks of the pilot."""
EPOCHS = 200
"""How often the pilot may look whether the set still grows."""


@dataclasses.dataclass
class Orbits:
    """Membership of points, asked of the engine, and what it has cost."""

    rule: Any
    loss: Any
    step_size: np.ndarray
    stopping: StoppingRule
    outcomes: tuple[Outcome, ...]
    centre: np.ndarray
    radius: float | None
    devices: Any
    progress: Any
    orbits: int = 0
    undecided: int = 0

    def __call__(self, points):
        """Whether each point belongs, [n]."""
        inside = np.ones(len(points), bool)
        if self.radius is not None:
            inside = np.linalg.norm(points - self.centre, axis=1) <= self.radius
            points = np.where(inside[:, None], points, self.centre)
        found = ensembles.run(
            self.rule, self.loss, points.astype(self.centre.dtype), self.step_size, self.stopping, keep=(),
            devices=self.devices, progress=self.progress,
        )  # fmt: skip
        self.orbits += len(points)
        belongs = np.isin(found.outcome, self.outcomes)
        self.undecided += int(((found.outcome == Outcome.UNDECIDED) & ~belongs).sum())
        return belongs & inside


class Ellipsoid(NamedTuple):
    """The image of the ball of a radius under `shape`, around `centre`; the shadow of a sphere in dim + 2."""

    centre: np.ndarray
    shape: np.ndarray
    radius: float

    @property
    def log_volume(self):
        """Logarithm of the volume."""
        half = len(self.centre) / 2
        log_ball = half * math.log(math.pi) - math.lgamma(half + 1) + 2 * half * math.log(self.radius)
        return log_ball + float(np.log(np.diag(self.shape)).sum())

    def place(self, sphere):
        """The points under those of the unit sphere, [n, dim + 2]."""
        return self.centre + self.radius * sphere[:, : len(self.centre)] @ self.shape.T

    def norms(self, points):
        """At most `radius` inside."""
        return np.linalg.norm(self.whiten(points), axis=1)

    def at_rim(self, points):
        """Whether points of it are in the outer half, by volume."""
        return self.norms(points) > self.radius * 0.5 ** (1 / len(self.centre))

    def whiten(self, points):
        """Points as the ball has them."""
        return solve_triangular(self.shape, (points - self.centre).T, lower=True).T

    def lift(self, points, rng):
        """Points of the sphere above `points`; where they are above them is uniform."""
        flat = self.whiten(points) / self.radius
        height = np.sqrt(np.maximum(1 - (flat**2).sum(axis=1), 0))
        turn = rng.uniform(0, 2 * np.pi, len(points))
        return np.column_stack([flat, height * np.cos(turn), height * np.sin(turn)])

    def draw(self, num, rng):
        """Uniform points."""
        sphere = rng.standard_normal((num, len(self.centre) + 2))
        return self.place(sphere / np.linalg.norm(sphere, axis=1, keepdims=True))


class Ladder(NamedTuple):
    """What the pilot chose: ellipsoids of one shape, smallest first, and angles of the moves in all but the first."""

    ellipsoids: list[Ellipsoid]
    angles: list[float]


class Walked(NamedTuple):
    """Where walks are after some moves, the largest angle of the last move, and the share of moves accepted."""

    points: np.ndarray
    angle: float
    acceptance: float


def walk(run, ellipsoid, points, angle, moves, rng, *, tune=False, see=None) -> Walked:
    """Move points [chains, dim] that are uniform in the part of the set in an ellipsoid; each move costs one orbit.

    A move turns the point of the sphere above along a random great circle, by up to `angle`, unless it leaves the set:
    symmetric, so the uniform distribution stays. `see(points)` is called after every move; `tune` fits the angle.
    """
    sphere, accepted = ellipsoid.lift(points, rng), []
    for number in range(moves):
        tangent = rng.standard_normal(sphere.shape)
        tangent -= (tangent * sphere).sum(axis=1, keepdims=True) * sphere
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        turn = angle * rng.random((len(sphere), 1))
        proposed = np.cos(turn) * sphere + np.sin(turn) * tangent
        proposed /= np.linalg.norm(proposed, axis=1, keepdims=True)
        stays = run(ellipsoid.place(proposed))
        sphere = np.where(stays[:, None], proposed, sphere)
        accepted.append(stays.mean())
        if tune:  # by less and less, so that it settles
            angle = min(angle * math.exp((accepted[-1] - ACCEPTANCE) * 4 / math.sqrt(1 + number)), math.pi)
        if see is not None:
            see(ellipsoid.place(sphere))
    return Walked(ellipsoid.place(sphere), float(angle), float(np.mean(accepted)))


def first_points(run, chains, rng):
    """Independent uniform points of the set in a ball around the centre of which a twentieth to a half belongs."""
    dim, (low, high) = len(run.centre), (0.0, math.inf)
    start = radius = max(1.0, float(np.linalg.norm(run.centre)))
    found = []
    for _ in range(200):
        ball = Ellipsoid(run.centre.astype(np.float64), np.eye(dim), radius)
        points = ball.draw(chains, rng)
        inside = points[run(points)]
        share = len(inside) / chains
        narrow = high - low <= 1e-3 * low
        if DIRECT <= share <= 0.5 or (narrow and share >= 0.01):
            found.append(inside)
            if sum(map(len, found)) >= chains:
                return np.concatenate(found)[:chains]
            continue
        low, high = (radius, high) if share > 0.5 else (low, radius)
        radius = 2 * radius if math.isinf(high) else high / 2 if low == 0 else math.sqrt(low * high)
        if radius < 2.0**-40 * start:
            break
    raise ValueError(
        f"found no ball around the centre of which at least {DIRECT:.0%} ends in {[o.name for o in run.outcomes]} (at "
        f"radius {radius:.2g} the share is {share:.2g}); move the centre into the set, such as to a stable minimum"
    )


def spread(run, points, moves, rng):
    """Let the walks spread until they fill the set and forget where they were; how many moves that takes, as well."""
    angle, limit, tolerance = 0.5, 64 * moves, math.sqrt(len(run.centre) / len(points))
    size = -math.inf
    for _ in range(EPOCHS):
        begin, shrunk = points, size
        for _ in range(8):
            outer = _enclosing(points, points.mean(axis=0))
            points, angle, _ = walk(run, outer, points, angle, max(moves // 8, 2), rng, tune=True)
        size = float(np.log(np.diag(outer.shape)).sum())
        forgotten = correlation(outer.whiten(begin), outer.whiten(points)) <= FORGOTTEN or moves >= limit
        # The logarithm of the determinant of a covariance has variance 2 dim / chains; half of it is here.
        if forgotten and size <= shrunk + tolerance:
            return points, moves
        moves = moves if forgotten else 2 * moves
    raise ValueError(
        f"the set still grows after {run.orbits} orbits; give a `radius` around the centre, or raise `moves`"
    )


def fit_ladder(run, points, moves, rng):
    """Ellipsoids around the middle of the set, or around the given centre where the middle is a hole."""
    for middle in (points.mean(axis=0), run.centre.astype(np.float64)):
        outer = _enclosing(points, middle)
        ladder, top = _descend(run, outer, points, moves, rng)
        if ladder is not None:
            return ladder, top
    raise ValueError(
        "found no ellipsoid around the centre that the set fills well enough to measure it; move the centre, such as "
        "to a stable minimum"
    )


def _descend(run, outer, points, moves, rng):
    """Shrink an ellipsoid, to a quarter of the set in it each time, until the set fills a good share of it."""
    dim, chains = len(run.centre), len(points)
    ellipsoids, angles, top, angle, fill, fullest = [outer], [], None, 0.5, 0.0, 0.0
    while True:
        inner = ellipsoids[0]
        if np.mean(run(inner.draw(chains, rng))) >= DIRECT:
            return Ladder(ellipsoids, angles), points if top is None else top
        points, angle, _ = walk(run, inner, points, angle, moves // 2, rng, tune=True)
        top = points if top is None else top
        norms = inner.norms(points)
        radius = float(np.quantile(norms, RATIO))
        fill += math.log(RATIO) + dim * math.log(inner.radius / radius)
        fullest = max(fill, fullest)
        if fill < fullest - math.log(1e3):
            return None, None
        angles.insert(0, angle)
        ellipsoids.insert(0, inner._replace(radius=radius))
        points = refill(points, norms <= radius, rng)


def _enclosing(points, middle):
    """An ellipsoid of the shape of the points' second moments about `middle`, all of them inside, and room again.

    Points count as the shape fitted to all others sees them (by the formula of Sherman and Morrison): fresh points of
    the same set are as far out as that, where the points of the fit are not.
    """
    (num, dim), offset = points.shape, points - middle
    unit = Ellipsoid(middle, np.linalg.cholesky(offset.T @ offset * ((dim + 2) / num)), 1.0)
    squares = unit.norms(points) ** 2
    return unit._replace(radius=math.sqrt((squares / (1 - squares * (dim + 2) / num)).max()) * ROOM ** (1 / dim))


def refill(points, kept, rng):
    """As many points, all from those kept, each about equally often."""
    if not kept.any():
        raise ValueError("no walk of a replicate is in the next smaller set; raise `chains` or `moves`")
    return np.resize(rng.permutation(points[kept]), points.shape)


def correlation(begin, end):
    """Correlation of two positions of the same walks, over all coordinates."""
    begin, end = begin - begin.mean(axis=0), end - end.mean(axis=0)
    return float((begin * end).sum() / math.sqrt((begin**2).sum() * (end**2).sum()))
