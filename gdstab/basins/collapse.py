r"""Past the critical step of $L = c\,(a - xy)^2$: do bounded orbits collapse onto the line $x = y$, and what is there?

The answer is yes, by `theory.collapse`; here it is measured, three times over: where the orbits of random points are
in the end, whether the quotient $V$ of the proof ever grows, and how fast a distance from the line shrinks along the
orbits on it. The rule is descent and the loss that product, with the numbers `target` and `scale`.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy import special

from gdstab import ensembles, estimators, lyapunov
from gdstab._types import LossFn
from gdstab.basins.refined import BOUNDED, Regime, Regimes, regimes
from gdstab.outcomes import StoppingRule, anchor_stride
from gdstab.theory import collapse, scalar
from gdstab.updates import UpdateRule

_REACH = 0.999
"""Starts on the line lie within this share of the trapping ellipse."""

_NEAR = 1e-6
"""A distance from the line below this share of 1 + the norm counts as collapsed."""

_PERIOD = 64
"""The longest cycle that is looked for."""


class Line(NamedTuple):
    """Exponents on the symmetric line, `[steps]` each, with intervals over independent starts."""

    along: np.ndarray
    along_half: np.ndarray  # half the width of the interval
    across: np.ndarray
    across_half: np.ndarray
    sum_half: np.ndarray  # the mean of ln |1 + k r|, which is 0: how far the averages are from their limits
    starts: np.ndarray  # orbits that stayed on the line and in the ellipse to the end


def line(
    rule: UpdateRule, loss: LossFn, step_sizes, *, starts: int = 64, num_steps: int = 20_000, seed: int = 0,
    confidence: float = 0.95, dtype=np.float64,
) -> Line:  # fmt: skip
    r"""Exponents along and across $x = y$: means of $\ln |1 + k r - 2 k x^2|$ and $\ln |1 - k r|$, $r = a - x^2$.

    Starts are uniform on the part of the line inside the trapping ellipse, $|X| < \sqrt{2 + K}$ in $X = \sqrt k\, x$,
    $K = k a$. The intervals are Student's over the starts, which are independent, whatever each orbit remembers.

    At $K = 2$ the ellipse is the segment $|X| < 2$ of the line itself, the map on it the Chebyshev cubic
    $2 \cos \phi \mapsto -2 \cos 3 \phi$. Its end points are a cycle that repels at rate 9 per step. An orbit reaches or
    passes them by rounding only, from within about $10^{-8}$ of $|X| = 1$, about once in $10^8$ steps; one that passes
    leaves for infinity and is not counted.

    Examples
    --------
    >>> from gdstab import losses, updates
    >>> rule, loss = updates.gradient_descent(), losses.ScalarProduct(scale=1.0)
    >>> found = line(rule, loss, [0.55, 1.0], starts=8, num_steps=4000)
    >>> found.along.round(2).tolist(), found.across.round(2).tolist()
    ([-0.86, 1.1], [-0.11, -0.0])
    """
    step_sizes, target, scale = np.asarray(step_sizes, dtype), float(loss.target), float(loss.scale)
    reduced = 2 * scale * target * step_sizes
    if not ((reduced > 0) & (reduced <= 2)).all():
        raise ValueError(
            f"expected step sizes with 0 < 2 c a eta <= 2, where orbits on the line are bounded, got {step_sizes}; "
            f"end at {1 / (scale * target):g}"
        )
    reach = _REACH * np.sqrt((2 + reduced) / reduced * target)
    share = np.random.default_rng(seed).uniform(-1, 1, (len(step_sizes), starts))
    x = (reach[:, None] * share).astype(dtype).ravel()
    follow = _OnLine(loss, rule, num_steps)
    points = np.stack([x, x], axis=-1), np.repeat(step_sizes, starts)
    value, last = ensembles.map_points(follow, points)
    value = value.reshape(len(step_sizes), starts, 3)
    good = np.isfinite(value).all(axis=2) & (np.abs(last).max(axis=1).reshape(value.shape[:2]) <= reach[:, None] * 1.01)
    mean, half = _student(value, good, confidence)
    return Line(mean[:, 0], half[:, 0], mean[:, 1], half[:, 1], np.abs(mean[:, 2]) + half[:, 2], good.sum(axis=1))


class _OnLine(eqx.Module):
    """Means of the three logarithms along one orbit, and its last point."""

    loss: LossFn
    rule: UpdateRule = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)

    def __call__(self, start):
        theta, step_size = start
        found = lyapunov.average(self.rule, self.loss, theta, step_size, self.num_steps, _logarithms)
        return found.value, found.state


def _logarithms(loss, theta, step_size):
    k = 2 * jnp.asarray(loss.scale, theta.dtype) * step_size
    pull = k * (jnp.asarray(loss.target, theta.dtype) - theta[0] * theta[1])
    return jnp.log(jnp.abs(jnp.stack([1 + pull - 2 * k * theta[0] * theta[0], 1 - pull, 1 + pull])))


def _student(value: np.ndarray, good: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the good of `[steps, starts, what]`, and half the width of its interval; NaN below two of them."""
    number = np.maximum(good.sum(axis=1), 2)[:, None]
    weights = good[:, :, None]
    safe = np.where(weights, value, 0)
    mean = safe.sum(axis=1) / number
    squares = (weights * (safe - mean[:, None]) ** 2).sum(axis=1)
    half = special.stdtrit(number - 1, (1 + confidence) / 2) * np.sqrt(squares / (number - 1) / number)
    few = good.sum(axis=1)[:, None] < 2
    return np.where(few, np.nan, mean), np.where(few, np.nan, half)


def collapsed(found: Regimes, confidence: float = 0.95) -> list[dict]:
    """Per step size: bounded orbits that did not converge, and how many of them ended on x = y."""
    rows = []
    for regime, theta in zip(found.regime, found.theta, strict=True):
        moving = np.isin(regime, [kind for kind in BOUNDED if kind != Regime.CONVERGED])
        ends = theta[moving]
        distance = np.abs(ends[:, 0] - ends[:, 1])
        hits, total = int((distance <= _NEAR * (1 + np.linalg.norm(ends, axis=1))).sum()), int(moving.sum())
        share = estimators.plain(hits, total, confidence) if total else None
        rows.append({
            "moving": total,
            "collapsed": hits,
            "collapsed_share": None if share is None else [float(share.low), float(share.high)],
            "largest_distance": float(distance.max()) if total else None,
        })  # fmt: skip
    return rows


def table(
    rule: UpdateRule, loss: LossFn, step_sizes, *, starts: int = 400, num_steps: int = 4000, seed: int = 0,
    confidence: float = 0.95, progress: Callable[[int, int], None] | None = None,
) -> list[dict]:  # fmt: skip
    r"""All the evidence, a row per step size: regimes of bounded orbits, how many collapsed, exponents, the quotient.

    Random points are uniform in the smallest square around the trapping ellipse of the smallest step size. `against`
    counts orbits whose fate contradicts the sign of $E$: bounded though $E > 0$, or gone though $E < 0$.

    Examples
    --------
    >>> from gdstab import losses, updates
    >>> rule, loss = updates.gradient_descent(), losses.ScalarProduct(scale=1.0)
    >>> row = table(rule, loss, [0.7], starts=40, num_steps=2000)[0]
    >>> row["shares"]["chaotic"]["value"], row["collapsed"] == row["moving"], row["across"][1] < 0
    (1.0, True, True)
    """
    step_sizes, target, scale = np.asarray(step_sizes, np.float64), float(loss.target), float(loss.scale)
    ellipse = scalar.trapping_ellipse(float(step_sizes.min()), target, scale)
    reach = float(np.hypot(ellipse.along, ellipse.across) / np.sqrt(2))
    points = np.random.default_rng(seed).uniform(-reach, reach, (starts, 2))
    max_steps = max(num_steps, 3 * anchor_stride(_PERIOD))
    stopping = StoppingRule(loss_tol=None, grad_tol=1e-10, max_steps=max_steps, max_period=_PERIOD)
    found = regimes(rule, loss, points, step_sizes, stopping=stopping, num_steps=num_steps, progress=progress)
    rows = [row | extra for row, extra in zip(found.rows(confidence), collapsed(found, confidence), strict=True)]
    on_line = line(rule, loss, step_sizes, num_steps=num_steps, seed=seed, confidence=confidence)
    for i, (row, eta) in enumerate(zip(rows, step_sizes.tolist(), strict=True)):
        row.update(line_row(on_line, i), reduced=2 * scale * target * eta)
        row["largest_factor"] = collapse.largest_factor(points, eta, target, scale)
        bounded = np.isin(found.regime[i], BOUNDED)
        row["against"] = int((bounded != (scalar.trapping_energy(points, eta, target, scale) < 0)).sum())
    return rows


def line_row(on_line: Line, i: int) -> dict:
    """The exponents on the line at one step size, as intervals around their estimates: value, low end, high end."""
    return {
        name: [float(value), float(value - half), float(value + half)]
        for name, value, half in (
            ("along", on_line.along[i], on_line.along_half[i]),
            ("across", on_line.across[i], on_line.across_half[i]),
        )
    } | {"line_starts": int(on_line.starts[i]), "identity_off": float(on_line.sum_half[i])}
