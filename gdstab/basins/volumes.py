r"""Volumes of basins in many dimensions, where their share of any box or ball underflows: nested ellipsoids.

Ellipsoids $E_0 \subset \dots \subset E_m$ of one shape and centre cut the basin $K$, which $E_m$ holds. $K$ fills a
good share $p_0$ of $E_0$, which independent points measure; each $p_i = |K \cap E_{i-1}| / |K \cap E_i|$, about 1/4, is
a share as well, measured on random walks that are uniform in $K \cap E_i$ (multilevel splitting: Kahn and Harris 1951;
subset simulation: Au and Beck 2001, Prob. Eng. Mech. 16; volumes by nested bodies: Dyer, Frieze and Kannan 1991, J. ACM
38). With $|E_0|$ known,

$$\log |K| = \log |E_0| + \log p_0 - \sum_{i=1}^m \log p_i.$$

A basin that is nearly an ellipsoid needs no walk ($m = 0$).
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import stdtrit

from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._types import LossFn
from gdstab._validate import check_count, check_positive, check_step_sizes, shapes_of
from gdstab.basins.walks import Orbits, correlation, first_points, fit_ladder, refill, spread, walk
from gdstab.estimators import clopper_pearson_interval
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import UpdateRule


@recorded(
    {"radii": "ellipsoid", "shares": "ellipsoid", "acceptance": "move", "memory": "move", "drift": "move",
     "centre": "coordinate", "shape": ("coordinate", "ball_coordinate")},
    attrs=("log_volume", "standard_error", "log_interval", "confidence", "rim", "replicates", "undecided", "orbits"),
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """An estimate of the volume of a set of initial points; logarithms throughout, because volumes overflow too."""

    log_volume: float
    standard_error: float
    """Of `log_volume`: the relative standard error of the volume."""
    log_interval: tuple[float, float]
    confidence: float
    centre: np.ndarray
    """Of the ellipsoids, `[dim]`."""
    radii: np.ndarray
    """Of the ellipsoids, smallest first, in units of their shape, `[m + 1]`."""
    shape: np.ndarray
    """Lower triangular, `[dim, dim]`: an ellipsoid is the image of a ball, `centre + radius * shape @ ball`."""
    shares: np.ndarray
    """The share of the smallest ellipsoid that belongs, then that of each set inside the next smaller, `[m + 1]`."""
    acceptance: np.ndarray
    """Share of the moves accepted, `[m]`."""
    memory: np.ndarray
    """Correlation of where the walks of a level begin and where they end, `[m]`: 1 if they did not move."""
    drift: np.ndarray
    """Share in the second half of the moves less that in the first, in standard errors, `[m]`."""
    rim: float
    """Share of the set in the outer half, by volume, of the outermost ellipsoid: near 0 unless more lies beyond."""
    replicates: int
    """Groups of walks that never meet, from which the error comes."""
    undecided: float
    """Share of the orbits that the budget ended, where those do not belong."""
    orbits: int
    """How many orbits were run, the pilot included."""

    @property
    def volume(self) -> float:
        """The volume itself; inf or 0 where float64 cannot hold it."""
        return float(np.exp(self.log_volume))

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the volume, at `confidence`."""
        low, high = np.exp(self.log_interval)
        return float(low), float(high)

    @property
    def troubles(self) -> list[str]:
        """What speaks against the estimate, in words; empty if nothing does."""
        limit = stdtrit(self.replicates - 1, 1 - 1e-4)
        found = {
            "few moves are accepted: the set is thin for the walk; raise `moves`": (self.acceptance < 0.05).any(),
            "walks end near where they began: the set is long, or in several pieces of which each walk sees one; "
            "raise `moves`, or start from another centre": (self.memory > 0.5).any(),
            "shares drift: the walks have not forgotten where they began; raise `moves`": (
                np.abs(self.drift) > limit
            ).any(),
            "the set goes on up to the rim of the outermost ellipsoid, and may beyond; raise `chains`": self.rim > 0.01,
            "the standard error of the logarithm exceeds 1/2: raise `chains` or `moves`": self.standard_error > 0.5,
            "more than 1 % of the orbits are undecided, and count as outside; raise `max_steps`": self.undecided > 0.01,
        }
        return [text for text, wrong in found.items() if wrong]


@entry(host=True)
def volume(
    rule: UpdateRule,
    loss: LossFn,
    step_size,
    centre,
    *,
    stopping: StoppingRule,
    key,
    outcomes: Iterable[Outcome] = (Outcome.CONVERGED,),
    radius: float | None = None,
    chains: int = 4096,
    moves: int = 64,
    replicates: int = 16,
    confidence: float = 0.95,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
) -> Volume:
    r"""Volume of the set $K$ of initial points around `centre` whose orbits end in one of `outcomes`.

    A pilot run spreads `chains` walks over $K$, fits the shape of the ellipsoids to them, and fixes the ellipsoids and
    the lengths of the moves. A second run of the same walks, with nothing left to choose, gives the estimate: so the
    choice does not bias it. Walks move along great circles of the sphere in two dimensions more, of which the uniform
    distribution in an ellipsoid is the shadow (Archimedes); every move costs one orbit, and all walks move together in
    one call of the engine.

    The error comes from `replicates` groups of walks that never meet: the jackknife over the groups gives the estimate
    and its standard error, Student's t the interval. Where one ellipsoid does, the points are independent, and the
    interval is that of Clopper and Pearson.

    What it needs: the walks must reach all of $K$ from around `centre`. A piece they cannot reach is not counted, and
    nothing can tell; corners and narrow necks take many moves. Nearly convex sets are the easy case. What lies
    outside the outermost ellipsoid, twice as large as what holds all walks of the pilot, is cut off: a few parts
    in `chains` at most (80 dimensions, 1024 walks: 0.1 to 0.3 %). See `Volume.troubles` for what can be detected.

    Parameters
    ----------
    rule, loss, step_size, stopping, devices, progress
        As in `ensembles.run`, with a loss of one vector `[dim]` and a single step size.
    centre
        A point `[dim]`, some ball around which belongs to $K$, or a twentieth of it; a stable minimum, say. Its
        dtype is that of the orbits.
    key
        A JAX key, `jax.random.key(0)`.
    outcomes
        The verdicts that belong to $K$. Beyond the critical step `(CONVERGED, CYCLING, UNDECIDED)` is what is bounded.
    radius
        Count only points at most this far from `centre`; for sets without bound.
    chains
        Walks, and the number of orbits in a call: a multiple of `replicates`, at least 64 for each and 16 for each
        parameter.
    moves
        Moves of each walk for each ellipsoid, at least; the pilot doubles them until a walk forgets where it began,
        six times at most. The error falls like $1 / \sqrt{\text{moves} \cdot \text{chains}}$.

    Raises
    ------
    ValueError
        If no small ball around `centre` belongs to $K$, or an argument is out of range.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> well = lambda theta: jnp.sum(theta**2 / 2 + theta**4 / 4)  # step 1/2: to 0 from the cube |theta_i| < sqrt(3)
    >>> estimate = volume(
    ...     gradient_descent(), well, 0.5, jnp.zeros(3), stopping=StoppingRule(), key=jax.random.key(0), chains=1024
    ... )
    >>> exact = (2 * 3**0.5) ** 3
    >>> abs(estimate.log_volume - math.log(exact)) < 4 * estimate.standard_error, estimate.standard_error < 0.02
    (True, True)
    """
    centre = _check_centre(centre)
    _check_numbers(chains, moves, replicates, confidence, len(centre))
    if radius is not None:
        radius = check_positive(radius, "radius")
    step_size = np.asarray(check_step_sizes(step_size, centre.dtype))
    if step_size.ndim:
        raise ValueError(f"expected one step size, got shape {step_size.shape}; estimate one volume for each")
    outcomes = tuple(Outcome(verdict) for verdict in outcomes)
    if not outcomes:
        raise ValueError("expected at least one verdict in `outcomes`, got none; pass (Outcome.CONVERGED,), say")
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), np.uint32)))
    run = Orbits(rule, loss, step_size, stopping, outcomes, centre, radius, devices, progress)
    points, enough = spread(run, first_points(run, chains, rng), moves, rng)
    ladder, points = fit_ladder(run, points, enough, rng)
    return _estimate(run, ladder, points, moves, enough, replicates, confidence, rng)


def _estimate(run, ladder, points, draws, moves, replicates, confidence, rng):
    """The second run: nothing is chosen here."""
    (ellipsoids, angles), chains = ladder, len(points)
    levels = []
    if angles:  # forget, twice over, what the ellipsoids were fitted to
        points = walk(run, ellipsoids[-1], points, angles[-1], 2 * moves, rng).points
    for outer, inner, angle in zip(ellipsoids[:0:-1], ellipsoids[-2::-1], angles[::-1], strict=True):
        level, points = _measure_level(run, outer, inner, points, angle, moves, replicates, rng)
        levels.insert(0, level)
    direct, rim = _measure_innermost(run, ellipsoids[0], draws, chains, rng)
    shares = np.stack([direct.reshape(replicates, -1).mean(axis=1), *(level.shares for level in levels)])
    log_volume, error, interval = _summary(ellipsoids[0].log_volume, shares, draws * chains, confidence)
    return Volume(
        log_volume=log_volume,
        standard_error=error,
        log_interval=interval,
        confidence=confidence,
        centre=ellipsoids[0].centre,
        radii=np.array([ellipsoid.radius for ellipsoid in ellipsoids]),
        shape=ellipsoids[0].shape,
        shares=shares.mean(axis=1),
        acceptance=np.array([level.acceptance for level in levels]),
        memory=np.array([level.memory for level in levels]),
        drift=np.array([level.drift for level in levels]),
        rim=levels[-1].rim if levels else rim,
        replicates=replicates,
        undecided=run.undecided / run.orbits,
        orbits=run.orbits,
    )


class _Level(NamedTuple):
    shares: np.ndarray  # [replicates]
    acceptance: float
    memory: float
    drift: float
    rim: float


def _measure_innermost(run, ellipsoid, draws, chains, rng):
    """Share of the ellipsoid that belongs, by independent points [chains], and how many of those are at the rim."""
    hits, at_rim = np.zeros(chains), 0
    for _ in range(draws):
        points = ellipsoid.draw(chains, rng)
        inside = run(points)
        hits += inside
        at_rim += int(ellipsoid.at_rim(points[inside]).sum())
    return hits / draws, at_rim / max(hits.sum(), 1)


def _measure_level(run, outer, inner, points, angle, moves, replicates, rng):
    """The share of the set in one ellipsoid inside the next smaller, and walks that begin there, group by group."""
    inside, at_rim = [], []

    def see(seen):
        inside.append(inner.norms(seen) <= inner.radius)
        at_rim.append(outer.at_rim(seen).mean())

    end, _, acceptance = walk(run, outer, points, angle, moves, rng, see=see)
    inside = np.stack(inside).reshape(moves, replicates, -1)
    counted = inside.mean(axis=2)
    half = counted[moves // 2 :].mean(axis=0) - counted[: moves // 2].mean(axis=0)
    spread_of_half = half.std(ddof=1) / math.sqrt(replicates)
    level = _Level(
        shares=counted.mean(axis=0),
        acceptance=acceptance,
        memory=correlation(outer.whiten(points), outer.whiten(end)),
        drift=float(half.mean() / spread_of_half) if spread_of_half else 0.0,
        rim=float(np.mean(at_rim)),
    )
    groups = zip(end.reshape(replicates, -1, end.shape[1]), inside[-1], strict=True)
    return level, np.concatenate([refill(group, kept, rng) for group, kept in groups])


def _summary(log_ellipsoid, shares, draws, confidence):
    """Logarithm of the volume, its standard error and interval, from shares [m + 1, replicates]."""
    if len(shares) == 1:
        share = float(shares.mean())
        low, high = clopper_pearson_interval(round(share * draws), draws, confidence)
        error = math.sqrt((1 - share) / (share * draws))
        return log_ellipsoid + math.log(share), error, tuple(log_ellipsoid + float(np.log(end)) for end in (low, high))
    replicates = shares.shape[1]
    sums = np.column_stack([shares.sum(axis=1), shares.sum(axis=1, keepdims=True) - shares])  # all, and all but one
    logs = np.log(sums / np.r_[replicates, np.full(replicates, replicates - 1)])
    logs = logs[0] - logs[1:].sum(axis=0)
    log_volume = log_ellipsoid + replicates * logs[0] - (replicates - 1) * logs[1:].mean()
    error = math.sqrt((replicates - 1) / replicates * ((logs[1:] - logs[1:].mean()) ** 2).sum())
    half = float(stdtrit(replicates - 1, (1 + confidence) / 2)) * error
    return log_volume, error, (log_volume - half, log_volume + half)


def _check_centre(centre):
    if jax.tree.structure(centre) != jax.tree.structure(0) and not isinstance(centre, list | tuple):
        raise ValueError(
            f"expected a centre [dim] of floats, got {shapes_of(centre)}; ravel it, and take the loss as "
            "losses.pullback.Pullback(loss, unravel)"
        )
    centre = np.asarray(centre, None if hasattr(centre, "dtype") else jax.dtypes.canonicalize_dtype(float))
    centre = centre.astype(centre.dtype.newbyteorder("="), copy=False)
    if centre.ndim != 1 or not centre.size or not np.issubdtype(centre.dtype, np.floating):
        raise ValueError(f"expected a centre [dim] of floats, got {centre.dtype} of shape {centre.shape}; ravel it")
    if not np.isfinite(centre).all():
        raise ValueError("expected a finite centre, got inf or nan; pass a point of the set")
    return centre


def _check_numbers(chains, moves, replicates, confidence, dim):
    moves = check_count(moves, "moves", least=4)
    replicates = check_count(replicates, "replicates", least=4)
    chains = check_count(chains, "chains")
    if chains % replicates or chains < max(64 * replicates, 16 * dim):
        raise ValueError(
            f"chains: expected a multiple of {replicates} replicates, at least 64 for each and 16 for each of {dim} "
            f"parameters, got {chains}; pass {replicates * max(64, -(-16 * dim // replicates))} or more"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}; pass 0.95, say")
