r"""The ladder of losses at critical points against an affine target, and the thresholds below which none is left.

A critical point without degenerate neurons that is no global minimum has the loss
$f'^2 (\beta - \alpha)^3 / (12 (n+1)^4)$ for an even $n \le N$, the number of its breakpoints ([C] Proposition 4.5).
"""

from typing import Any

import numpy as np

from gdstab import _arguments as arguments
from gdstab._validate import check_count
from gdstab.theory.relu.neurons import UNIT, check_affine, check_interval

ZERO_LEVEL = -1
"""`match_levels`: the loss is that of a global minimum."""
NO_LEVEL = -2
"""`match_levels`: the loss lies on no level; most likely descent had not converged."""


@arguments.closed_form()
def level(kinks: int, *, interval: Any = UNIT, target: Any = UNIT) -> float:
    r"""$f'^2 (\beta - \alpha)^3 / (12 (n+1)^4)$, n = `kinks` even; n = 0 is the best constant.

    Examples
    --------
    >>> round(1 / level(2))  # 12 * 3**4
    972
    """
    if check_count(kinks, "kinks", least=0) % 2:
        raise ValueError(f"kinks: expected an even number of breakpoints, got {kinks}; levels are n = 0, 2, 4, ...")
    alpha, beta = check_interval(interval)
    _, slope = check_affine(target)
    return slope**2 * (beta - alpha) ** 3 / (12 * (kinks + 1) ** 4)


@arguments.closed_form()
def levels(neurons: int, *, interval: Any = UNIT, target: Any = UNIT) -> dict[int, float]:
    """The level of every n = 0, 2, 4, ... <= N, from the highest down; a global minimum (0) is not among them.

    Examples
    --------
    >>> {kinks: round(1 / loss) for kinks, loss in levels(5).items()}
    {0: 12, 2: 972, 4: 7500}
    """
    neurons = check_count(neurons, "neurons")
    return {kinks: level(kinks, interval=interval, target=target) for kinks in range(0, neurons + 1, 2)}


@arguments.closed_form()
def threshold(neurons: int, *, interval: Any = UNIT, target: Any = UNIT) -> float:
    r"""A limiting loss below this is zero, for almost all step sizes and starts ([C] Theorem 1.2).

    $f'^2 (\beta - \alpha)^3 / (12 (N-1)^4)$ for even N. For odd N, which the theorem leaves out, the lowest level,
    $f'^2 (\beta - \alpha)^3 / (12 N^4)$: below it Proposition 4.5 (iv) leaves only global minima, whichever neurons are
    degenerate. If the limit has no degenerate neuron, `level(0)` is a threshold for every N (Proposition 4.8 (i)).

    Examples
    --------
    >>> [round(1 / threshold(neurons) / 12) for neurons in (1, 2, 3, 4)]
    [1, 1, 81, 81]
    """
    neurons = check_count(neurons, "neurons")
    return level(neurons - 1 if neurons % 2 else neurons - 2, interval=interval, target=target)


@arguments.closed_form(rtol=arguments.single)
def match_levels(
    losses: Any, neurons: int, *, interval: Any = UNIT, target: Any = UNIT, rtol: float = 1e-6
) -> np.ndarray:
    r"""The n whose level a loss lies on, to a relative `rtol`; else `ZERO_LEVEL` or `NO_LEVEL`. Shape of `losses`.

    Zero means at most `rtol` times the lowest level. A loss that is not finite lies on no level.

    Examples
    --------
    >>> match_levels([1 / 12, 1 / 972, 1 / 500, 1e-20], neurons=3).tolist()
    [0, 2, -2, -1]
    """
    if not 0 <= rtol < 1:
        raise ValueError(f"expected rtol in [0, 1), got {rtol}; two levels differ by more than a factor of 2")
    losses = np.asarray(losses, np.float64)
    ladder = levels(neurons, interval=interval, target=target)
    matched = np.where(np.abs(losses) <= rtol * min(ladder.values()), ZERO_LEVEL, NO_LEVEL)
    for kinks, loss in ladder.items():
        matched = np.where(np.abs(losses - loss) <= rtol * loss, kinks, matched)
    return np.asarray(matched)


@arguments.closed_form(x=arguments.real)
def realisation_at_level(kinks: int, x: Any, *, interval: Any = UNIT, target: Any = UNIT) -> np.ndarray:
    r"""The function that every critical point of a level realises, at x in $[\alpha, \beta]$ ([C] Prop. 4.5 (iv)).

    $f(x) - (-1)^i \frac{f'}{n+1} (x - \alpha - (i + \tfrac12) h)$ on
    $[\alpha + i h, \alpha + (i+1) h]$, $h = (\beta - \alpha) / (n+1)$: a zigzag about f, of mean f on each piece.

    Examples
    --------
    >>> realisation_at_level(0, [0.0, 1.0]).tolist()
    [0.5, 0.5]
    """
    level(kinks, interval=interval, target=target)  # refuses what is no level
    alpha, beta = check_interval(interval)
    offset, slope = check_affine(target)
    x = np.asarray(x, np.float64)
    if np.any((x < alpha) | (x > beta)):
        raise ValueError(f"expected points in [{alpha}, {beta}], got some outside; the formula ends there")
    h = (beta - alpha) / (kinks + 1)
    i = np.clip(np.floor((x - alpha) / h), 0, kinks)
    return np.asarray(offset + slope * x - (-1) ** i * slope / (kinks + 1) * (x - alpha - (i + 0.5) * h))
