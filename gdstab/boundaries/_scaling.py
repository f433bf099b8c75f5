"""A power law through shares that were counted at several scales on the same samples: where it holds, how surely."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

LEAST_SCALES = 4
"""Scales that a line is fitted to, at the least."""


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
