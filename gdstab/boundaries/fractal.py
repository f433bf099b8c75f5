"""How rough a basin boundary is: uncertainty exponent and dimension, from the verdicts of random pairs of points.

The exponent is that of a power law through shares that were counted at several scales on the same samples.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import stats

from gdstab import sampling
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._types import LossFn, Theta
from gdstab._validate import check_box, check_count, check_dtype
from gdstab.basins import flat_plane, parse_plane
from gdstab.boundaries.verdicts import Classifier, outcome_of
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import UpdateRule

LEAST_HITS = 30
"""Pairs that must disagree at a scale before its share is used: its logarithm is then nearly normal."""
LEAST_SCALES = 4
"""Scales that a line is fitted to, at the least."""
ROUNDINGS = 32
"""Distances below this many roundings of the largest coordinate are set by the floating-point grid."""


@recorded(
    dict.fromkeys(("share", "hits", "undecided", "used", "precision_limited"), "scale"),
    coords={"scale": "scales"},
    attrs=("exponent", "interval", "amplitude", "p_value", "samples", "saturation", "rounding_share", "lane_steps"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class UncertaintyExponent:
    r"""The fitted law $f = A \varepsilon^\alpha$ and all it was fitted to; nan where no range of scales could be."""

    exponent: float
    interval: tuple[float, float]
    amplitude: float
    """The factor A."""
    p_value: float
    """Of the chi-square test of the line on the range used."""
    scales: Float[np.ndarray, " scales"]
    """Distances, falling."""
    hits: Int[np.ndarray, " scales"]
    """Samples whose class is another one at that distance."""
    undecided: Float[np.ndarray, " scales"]
    """Share of the pairs with an undecided orbit."""
    used: Bool[np.ndarray, " scales"]
    """Scales that the line was fitted to."""
    precision_limited: Bool[np.ndarray, " scales"]
    """Scales whose hits are set by the rounding of numbers, not by the boundary; never used."""
    samples: int
    saturation: float
    """What the share tends to at large distances: two independent points differ so often."""
    rounding_share: float
    """Share of the samples whose class changes if every step is off by one rounding."""
    axes: int
    """Dimension of the box."""
    lane_steps: int
    """Updates applied, all orbits together."""

    @property
    def share(self) -> Float[np.ndarray, " scales"]:
        """Share of the samples whose class is another one at that distance."""
        return self.hits / self.samples

    @property
    def dimension(self) -> float:
        """Of the boundary: that of the box minus the exponent."""
        return self.axes - self.exponent

    @property
    def dimension_interval(self) -> tuple[float, float]:
        """That of the exponent, turned round."""
        return self.axes - self.interval[1], self.axes - self.interval[0]

    @property
    def fractal(self) -> bool:
        """Whether the exponent is below 1 for sure."""
        return self.interval[1] < 1


@entry(host=True)
def uncertainty_exponent(
    rule: UpdateRule,
    loss: LossFn,
    step_size,
    *,
    box,
    stopping: StoppingRule,
    key: Array,
    scales=None,
    samples: int = 2**16,
    label: Callable | None = None,
    plane=None,
    dim: int | None = None,
    like: Theta | None = None,
    dtype=None,
    wiggle: float = 0.02,
    significance: float = 0.05,
    resamples: int = 2000,
    confidence: float = 0.95,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
) -> UncertaintyExponent:
    r"""Uncertainty exponent of the basin boundary in a box, from pairs of points (McDonald et al., Physica D 17, 1985).

    The share $f(\varepsilon)$ of uniform points whose class differs from that of the point at distance $\varepsilon$
    in a random direction goes as $\varepsilon^\alpha$ for small $\varepsilon$, and the boundary has the dimension
    $D - \alpha$ in a box of $D$ axes: $\alpha = 1$ for a smooth one, less for a fractal. Points and directions are the
    same at all scales.

    A scale may be used if it has 30 hits, if its share is at most a quarter of that at infinite distance, and if
    roundings do not set it: it is at least 32 roundings of the largest coordinate, and has twice the hits that come of
    pushing every step of the orbits by one rounding. Of the ranges of neighbouring scales, four at least, that a line
    in $(\ln \varepsilon, \ln f)$ fits by chi-square, the longest is used; of equally long ones, the one that fits best.
    The fit weighs by the covariance of the shares, binomial and between scales, which the common samples give; the
    interval is a bootstrap over whole samples on that range, and takes the range as given.

    Parameters
    ----------
    rule, loss, step_size, stopping
        As in `ensembles.run`, with a single step size. Tolerances must be so tight that an orbit which only passes by
        a minimum does not stop there (that makes false basins, of the tolerance's width), and so loose that roundings
        do not keep orbits from meeting them: see that `undecided` is far below `share`.
    box, plane, dim, like, dtype
        One (low, high) per parameter; with a plane, or a larger `dim`, two as in `basins.heatmap`.
    key
        For points, directions and bootstrap.
    scales
        At least four distances; by default the shortest side times $2^{-3}, 2^{-4}, \ldots, 2^{-18}$.
    label
        As in `Classifier`, to tell minima apart. By default a class is an outcome, of which UNDECIDED is one.
    wiggle
        Standard deviation of $\ln f$ around the line that is allowed for, and propagated, at every scale besides the
        statistical one: the law is asymptotic, and on self-similar sets it holds up to periodic factors.
    significance
        Ranges whose line is rejected at this level are not taken.

    Raises
    ------
    ValueError
        If the box holds no point, the scales are not positive, finite, different and at least four, the step size is
        not one positive number, or the label no integer.

    Examples
    --------
    >>> from gdstab.updates import gradient_descent
    >>> found = uncertainty_exponent(
    ...     gradient_descent(), lambda theta: (1 - theta[0] * theta[1]) ** 2, 0.3, box=((-4, 4), (-4, 4)),
    ...     stopping=StoppingRule(loss_tol=1e-10), key=jax.random.key(0), samples=2**14,
    ... )
    >>> found.interval[0] < 1 < found.interval[1], found.fractal
    (True, False)
    """
    dtype, samples, sides = check_dtype(dtype), check_count(samples, "samples"), check_box(box)
    resamples, scales = check_count(resamples, "resamples"), _check_scales(scales, sides, dtype)
    if not (0 < confidence < 1 and 0 <= significance < 1 and 0 <= wiggle < np.inf):
        raise ValueError(
            "expected confidence and significance between 0 and 1 and a wiggle of at least 0, got "
            f"{confidence}, {significance}, {wiggle}; 0.95, 0.05 and 0.02 are usual"
        )
    key_points, key_directions, key_bootstrap = jax.random.split(key, 3)
    plane, dim, like, _ = flat_plane(plane, dim, like, dtype)
    points, directions = _pairs(key_points, key_directions, samples, sides, plane, dim, dtype)
    build = functools.partial(
        Classifier,
        loss=loss,
        step_size=step_size,
        stopping=stopping,
        label=label,
        like=like,
        devices=devices,
        progress=progress,
    )
    plain, dithered = build(rule), build(rule._replace(step=functools.partial(_step_dithered, rule)))
    base = plain(points)
    counts, undecided = _count(plain, base, points, directions, scales)
    noise = _flipped(base, dithered(points))
    limited = _precision_limited(counts.hits, noise, scales, points)
    saturation = float(1 - np.sum((np.unique(base, return_counts=True)[1] / samples) ** 2))
    usable = (counts.hits >= LEAST_HITS) & (counts.hits <= saturation / 4 * samples) & ~limited
    line = fit(counts, scales, usable, wiggle, significance)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key_bootstrap, (4,), np.uint32)))
    return UncertaintyExponent(
        exponent=line.slope, interval=bootstrap(counts, line, wiggle, resamples, confidence, rng),
        amplitude=float(np.exp(line.level)), p_value=line.p_value, scales=scales, hits=counts.hits, undecided=undecided,
        used=line.used, precision_limited=limited, samples=samples, saturation=saturation,
        rounding_share=noise / samples, axes=len(sides), lane_steps=plain.lane_steps + dithered.lane_steps,
    )  # fmt: skip


class Counts(NamedTuple):
    """Which scales each sample hits: the different patterns of hits, and how many samples show each of them."""

    patterns: np.ndarray  # [patterns, scales], 0 or 1
    times: np.ndarray  # [patterns]

    @classmethod
    def of(cls, codes: np.ndarray, scales: int) -> "Counts":
        """From one integer per sample, whose bit i says whether scale i was hit."""
        found, times = np.unique(codes, return_counts=True)
        return cls((found[:, None] >> np.arange(scales)) & 1, times)

    @property
    def samples(self) -> int:
        """How many there are."""
        return int(self.times.sum())

    @property
    def hits(self) -> np.ndarray:
        """Samples that hit, per scale."""
        return self.times @ self.patterns


class Line(NamedTuple):
    """The line `ln share = level + slope * ln scale`, nan where no range of scales allows one."""

    slope: float
    level: float
    p_value: float
    used: np.ndarray
    weights: np.ndarray  # the slope is their product with the logarithms of the shares used


def fit(counts: Counts, scales, usable, wiggle: float, significance: float) -> Line:
    """Fit the longest run of usable scales on which chi-square does not reject a line; of equal ones, the best fit."""
    none = Line(math.nan, math.nan, math.nan, np.zeros(len(scales), bool), np.zeros(0))
    for length in range(int(usable.sum()), LEAST_SCALES - 1, -1):
        starts = [i for i in range(len(scales) - length + 1) if usable[i : i + length].all()]
        lines = [_fit_range(counts, scales, slice(i, i + length), wiggle) for i in starts]
        best = max(lines, key=lambda line: line.p_value, default=none)
        if best.p_value > significance:
            return best
    return none


def _fit_range(counts: Counts, scales, part: slice, wiggle: float) -> Line:
    """Generalised least squares: shares at different scales come from the same samples, and are correlated."""
    patterns, size = counts.patterns[:, part], counts.samples
    joint = (patterns * counts.times[:, None]).T @ patterns / size
    share = np.diag(joint)
    covariance = (joint / np.outer(share, share) - 1) / size + wiggle**2 * np.eye(len(share))
    design = np.stack([np.ones(len(share)), np.log(scales[part])], axis=1)
    logs = np.log(share)
    whitened = np.linalg.solve(covariance, design)
    weights = np.linalg.solve(design.T @ whitened, whitened.T)
    level, slope = weights @ logs
    rest = logs - design @ (level, slope)
    p_value = stats.chi2.sf(rest @ np.linalg.solve(covariance, rest), len(share) - 2)
    used = np.zeros(len(scales), bool)
    used[part] = True
    return Line(float(slope), float(level), float(p_value), used, weights[1])


def bootstrap(counts: Counts, line: Line, wiggle: float, resamples: int, confidence: float, rng) -> tuple[float, float]:
    """Percentiles of the slope over resampled samples, with the allowed wiggle added at every scale."""
    if not line.used.any():
        return math.nan, math.nan
    codes = counts.patterns[:, line.used] @ (1 << np.arange(line.used.sum()))
    codes, group = np.unique(codes, return_inverse=True)
    times = np.bincount(group, counts.times)
    patterns = (codes[:, None] >> np.arange(line.used.sum())) & 1
    # Samples of one pattern are interchangeable: resampling them all is one multinomial draw of their numbers.
    batches = np.diff(np.r_[0:resamples:100, resamples])
    chances = times / times.sum()
    hits = np.concatenate([rng.multinomial(counts.samples, chances, size=size) @ patterns for size in batches])
    logs = np.log(np.maximum(hits, 0.5) / counts.samples) + wiggle * rng.standard_normal(hits.shape)
    low, high = np.quantile(logs @ line.weights, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _count(classify: Classifier, base, points, directions, scales) -> tuple[Counts, np.ndarray]:
    """Which scales each sample hits, and the share of undecided pairs per scale; one call for each, of one shape."""
    codes, undecided = np.zeros(len(points), np.int64), np.zeros(len(scales))
    for number, scale in enumerate(scales.astype(points.dtype)):
        moved = classify(points + scale * directions)
        codes |= (moved != base).astype(np.int64) << number
        undecided[number] = np.mean(_undecided(moved) | _undecided(base))
    return Counts.of(codes, len(scales)), undecided


def _check_scales(scales, sides, dtype) -> np.ndarray:
    """Distances, falling; at most 62 of them, so that one integer per sample says which were hit."""
    if scales is None:
        return np.diff(sides).min() * 0.5 ** np.arange(3, 19)
    given = np.asarray(scales, np.float64)
    smallest = float(jnp.finfo(dtype).tiny)
    if given.ndim != 1 or not LEAST_SCALES <= given.size <= 62:
        raise ValueError(
            f"expected a vector of {LEAST_SCALES} to 62 scales, got shape {given.shape}; say np.geomspace(1e-6, 1, 20)"
        )
    if not (np.isfinite(given).all() and (given >= smallest).all() and np.unique(given).size == given.size):
        raise ValueError(
            f"expected different, positive, finite scales, got {given.tolist()}; remove or mend the wrong ones"
        )
    return np.sort(given)[::-1]


def _pairs(key_points, key_directions, samples, sides, plane, dim, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Uniform points of the box and unit vectors, both [samples, dim] and in its coordinates mapped to parameters."""
    points = np.asarray(sampling.box(key_points, samples, sides, dtype=dtype))
    normal = np.asarray(sampling.gaussian(key_directions, samples, len(sides), dtype=dtype))
    units = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    if plane is None and dim in (None, len(sides)):
        return points, units
    check_box(sides, 2)
    origin, frame, _ = parse_plane(plane, dim)
    return origin.astype(dtype) + points @ frame.astype(dtype), units @ frame.astype(dtype)


def _undecided(classes) -> np.ndarray:
    return outcome_of(classes) == Outcome.UNDECIDED


def _step_dithered(rule, loss, state, step_size):
    """A step of the rule, every number of its state one rounding too large."""

    def push(leaf):
        return leaf * (1 + jnp.finfo(leaf.dtype).eps) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(push, rule.step(loss, state, step_size))


def _flipped(base, dithered) -> int:
    """Labels that roundings change. An orbit that the dither only keeps from settling says nothing of where it goes."""
    unsettled = np.isin(outcome_of(base), (Outcome.CONVERGED, Outcome.CYCLING)) & _undecided(dithered)
    return int(np.sum((dithered != base) & ~unsettled))


def _precision_limited(hits, noise: int, scales, points) -> np.ndarray:
    """Scales at which roundings decide: of the partner's coordinates, or of the orbits; and all smaller ones."""
    resolution = ROUNDINGS * float(np.finfo(points.dtype).eps) * float(np.abs(points).max())
    return np.logical_or.accumulate((scales < resolution) | (hits < 2 * noise))
