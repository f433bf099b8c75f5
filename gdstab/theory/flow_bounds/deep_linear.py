r"""Linear networks of one output from balanced and nearly balanced starts: times, step sizes, numbers of iterations.

$L = \frac12 \lVert W_n \cdots W_1 - \Lambda \rVert_F^2 + \mathrm{const}$ with one output and
$\lVert \Lambda \rVert_F = 1$. `depth` is n, `norm` is $\lVert W_{n:1} \rVert_F$ at the start, `alignment` is the cosine
$\nu$ between $W_{n:1}$ and $\Lambda$ there, `accuracy` is the excess of the loss that is asked for.

The steps of Theorems 15 and 32 are about $10^{-18}$ and smaller, with up to $10^{40}$ iterations and more: they are
given as logarithms to base 10, and no computer runs them.

Source: [D] Elkabetz and Cohen, section 5 and Appendix G.
"""

import math
from typing import NamedTuple

from gdstab import _arguments as arguments
from gdstab._validate import check_count, check_positive


class Guarantee(NamedTuple):
    """What suffices for descent to reach the accuracy, as logarithms to base 10."""

    log10_step: float
    """The largest step size that is allowed."""
    log10_iterations: float
    """The number of iterations at that step size; at one that is smaller they grow in proportion."""
    log10_unbalancedness: float = -math.inf
    """The largest unbalancedness magnitude that is allowed at the start."""


@arguments.closed_form(norm=arguments.single, alignment=arguments.single)
def flow_time(depth: int, norm: float, alignment: float, accuracy: float) -> float:
    r"""A time at which gradient flow from a balanced start has reached the accuracy ([D] Proposition 14, (21)).

    $$\bar t = \frac{2n \, \max\{1, \frac32 q\}^n}{\lVert W \rVert}
      \ln \frac{15 n \max\{1, q\}}{\lVert W \rVert \min\{1, 2 \bar\epsilon\}}, \quad q = \frac{1 - \nu}{1 + \nu}$$

    Needs $0 < \lVert W \rVert \le 0.2$ and $\nu > -1$.

    Raises
    ------
    ValueError
        If the start is not as the proposition needs it.

    Examples
    --------
    >>> round(flow_time(3, 0.1, 1.0, 0.01), 3)
    601.276
    """
    n, q = _check(depth, norm, alignment, accuracy, 0.2)
    logarithm = math.log(15 * n * max(1.0, q) / (norm * min(1.0, 2 * accuracy)))
    return _power(2 * n * logarithm / norm, max(1.0, 1.5 * q), n)


def flow_constants(depth: int) -> tuple[float, float]:
    r"""$\beta = 16 n$ and $\gamma = 6 \sqrt n$ in any tube of radius at most $1/(2n)$ ([D] Proposition 14).

    >>> flow_constants(4)
    (64.0, 12.0)
    """
    n = check_count(depth, "depth", least=2)
    return 16.0 * n, 6.0 * math.sqrt(n)


@arguments.closed_form(norm=arguments.single, alignment=arguments.single, radius=arguments.single)
def growth_integral(depth: int, norm: float, alignment: float, radius: float, time: float) -> float:
    r"""A bound on $\int_0^t m$ in the tube of radius $\epsilon \le 1/(2n)$ around the flow ([D] Proposition 14, (22)).

    $$\frac{15 n^3 \max\{1, \frac32 q\}^n \, t \epsilon}{\lVert W \rVert}
      + \ln \frac{n^2 (e^2 \max\{1, q\})^{5(n-1)/2}}{\lVert W \rVert^2}$$

    Examples
    --------
    >>> round(growth_integral(2, 0.1, 1.0, 1e-6, 10.0), 3)
    11.003
    """
    n, q = _check(depth, norm, alignment, 1.0, 0.2)
    time = check_positive(time, "time")
    if not 0 < radius <= 1 / (2 * n):
        raise ValueError(f"radius: expected at most 1 / (2 n) = {1 / (2 * n):g}, got {radius}; take a thinner tube")
    drift = _power(15 * n**3 * time * radius / norm, max(1.0, 1.5 * q), n)
    return drift + 2 * math.log(n / norm) + 2.5 * (n - 1) * (2 + math.log(max(1.0, q)))


@arguments.closed_form(norm=arguments.single, alignment=arguments.single)
def descent_guarantee(depth: int, norm: float, alignment: float, accuracy: float) -> Guarantee:
    r"""Step size and iterations that suffice from a balanced start ([D] Theorem 15, (23) and (24), corrected).

    $$\eta = \frac{\lVert W \rVert^5 \min\{1, \tilde\epsilon\}}
      {n^{17/2} e^{7n+6} \max\{1, q\}^{(11n-5)/2}}
      \Big( \ln \frac{15 n \max\{1, q\}}{\lVert W \rVert \min\{1, \tilde\epsilon\}} \Big)^{-2},
      \quad k = \lfloor \bar t / \eta + 1 \rfloor,$$

    $\bar t$ being `flow_time` at half the accuracy. In (24) read $\max\{1, \frac32 q\}$ for $\max\{1, \frac32, q\}$,
    and the floor for the ceiling. With a random balanced start it is Corollary 18, which holds almost surely: take
    `norm` and `alignment` of the start that was drawn.

    Examples
    --------
    >>> descent_guarantee(3, 0.1, 0.0, 0.1)._asdict()["log10_step"] < -23
    True
    """
    n, q = _check(depth, norm, alignment, accuracy, 0.2)
    accuracy, q = min(1.0, accuracy), max(1.0, q)
    logarithm = math.log(15 * n * q / (norm * accuracy))
    step = _log10((norm, 5), (accuracy, 1), (n, -8.5), (math.e, -(7 * n + 6)), (q, -(11 * n - 5) / 2), (logarithm, -2))
    time = math.log10(2 * n * logarithm / norm) + n * math.log10(max(1.0, 1.5 * _obstacle(alignment)))
    return Guarantee(step, _add_one(time - step))


@arguments.closed_form(norm=arguments.single, alignment=arguments.single)
def unbalanced_guarantee(depth: int, norm: float, alignment: float, accuracy: float) -> Guarantee:
    r"""Unbalancedness, step size and iterations that suffice ([D] Theorem 32, (34) to (36), corrected).

    With $p = \max\{3, (3 - \nu)/(1 + \nu)\}$ and
    $l = \ln(23 n p / (\lVert W \rVert \min\{1, \tilde\epsilon\}))$:

    $$\hat\epsilon = \frac{\lVert W \rVert^8 \min\{1, \tilde\epsilon^2\}}{n^{15} e^{12n+6} p^{9n-5} \, l^2}, \quad
      \eta = \frac{\lVert W \rVert^5 \min\{1, \tilde\epsilon\}}{n^{17/2} e^{7n+10} p^{(11n-5)/2} \, l^2}, \quad
      k \le \frac{3 n (\frac32 p)^n}{\lVert W \rVert \eta} \, l + 1.$$

    In (34) $l^2$ belongs below the line, as in the proof; printed, it is above. Needs
    $0 < \lVert W \rVert \le 0.1$ and hidden widths equal to the input's.

    Examples
    --------
    >>> found = unbalanced_guarantee(2, 0.1, 0.0, 0.1)
    >>> found.log10_unbalancedness < found.log10_step < -20
    True
    """
    n, _ = _check(depth, norm, alignment, accuracy, 0.1)
    accuracy, p = min(1.0, accuracy), max(3.0, (3 - alignment) / (1 + alignment))
    logarithm = math.log(23 * n * p / (norm * accuracy))
    unbalancedness = _log10(
        (norm, 8), (accuracy, 2), (n, -15), (math.e, -(12 * n + 6)), (p, -(9 * n - 5)), (logarithm, -2)
    )
    step = _log10((norm, 5), (accuracy, 1), (n, -8.5), (math.e, -(7 * n + 10)), (p, -(11 * n - 5) / 2), (logarithm, -2))
    time = math.log10(3 * n * logarithm / norm) + n * math.log10(1.5 * p)
    return Guarantee(step, _add_one(time - step), unbalancedness)


def _check(depth, norm, alignment, accuracy, largest):
    """The depth, and how far the start points away from the target: q = (1 - nu) / (1 + nu)."""
    accuracy = check_positive(accuracy, "accuracy")
    if not 0 < norm <= largest:
        raise ValueError(f"norm: expected one above 0 and at most {largest}, got {norm}; start smaller")
    if not -1 < alignment <= 1:
        raise ValueError(
            f"alignment: expected a cosine above -1, got {alignment}; a start opposite to the target runs into the "
            "saddle at the origin, and every other start will do"
        )
    return check_count(depth, "depth", least=2), _obstacle(alignment)


def _obstacle(alignment):
    return (1 - alignment) / (1 + alignment)


def _log10(*powers):
    """Of a product of powers, given as pairs of base and exponent."""
    return sum(exponent * math.log10(base) for base, exponent in powers)


def _power(factor, base, n):
    """Factor * base^n, inf where that overflows."""
    logarithm = math.log(factor) + n * math.log(base) if factor > 0 else -math.inf
    return math.exp(logarithm) if logarithm < 709 else math.inf


def _add_one(log10):
    return log10 + math.log1p(10**-log10) / math.log(10) if log10 > 0 else math.log10(10**log10 + 1)
