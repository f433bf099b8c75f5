r"""What intervals of several designs share: a normal one that never collapses, and the gamma limits of a count.

Where only a few samples fall near the edge of a set, the variance that they show can be zero by chance. Let one sample
count for at most $a$ in the estimate, and let $D$ rare independent events of that size be seen; their number has
mean $\mu$ and variance $\mu$. The interval $D \pm z \sqrt{D + z^2}$ contains $\mu$ with 94.6 % or more for every $\mu$
(at 95 %), which $D \pm z \sqrt D$ does not (at $D = 0$ it is a point). So $z^2 a^2$ is added to every estimated
variance: nothing to speak of where much varies, and the score bound $z^2 a$ where nothing did.
"""

from typing import Any

import numpy as np
from scipy import special

from gdstab.estimators.intervals import Estimate, Interval


def widened_normal(value, variance, a, confidence: float, method: str) -> Estimate:
    """The normal interval, its variance widened by what one sample may count, `a`, times z, squared."""
    z = special.ndtri((1 + confidence) / 2)
    half = z * np.sqrt(variance + (z * a) ** 2)
    return estimate(value, value - half, value + half, variance, method)


def estimate(value, low, high, variance, method: str) -> Estimate:
    """An estimate of a share, its interval cut at 0 and 1."""
    value = np.asarray(value)
    return Estimate(
        value, np.maximum(low, 0.0), np.minimum(high, 1.0), np.asarray(np.sqrt(variance)), np.full(value.shape, method)
    )


def gamma_interval(total, square, a, confidence: float) -> Interval:
    """Gamma quantiles with the mean and variance of a weighted count; the upper ones as if one more had been seen."""
    tail = (1 - confidence) / 2
    safe, safe2 = np.where(total > 0, total, 1.0), np.where(total > 0, square, 1.0)
    low = special.gammaincinv(safe**2 / safe2, tail) * safe2 / safe
    more, more2 = total + a, square + a**2
    return np.where(total > 0, low, 0.0), special.gammainccinv(more**2 / more2, tail) * more2 / more


def choose(mask, yes: Estimate, no: Estimate) -> Estimate:
    """The first where `mask` is true, the second elsewhere."""
    return Estimate(*(np.where(mask, a, b) for a, b in zip(yes, no, strict=True)))


def brief(value: Any) -> str:
    """What came, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
