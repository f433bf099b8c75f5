r"""Where descent on $L = c\,(a - u \cdot v)^2$ goes past the critical step: bounded orbits collapse onto $u = v$.

Let $k = 2 c \eta$, $K = k a$, $r = a - u \cdot v$, and $E$ the trapping energy of `theory.scalar`. For $0 < K < 2$ the
quotient $V = |u - v|^K / |E|$ never grows:

$$\frac{V'}{V} = \frac{|1 + t|^K}{1 + K t + t^2} \le 1, \qquad t = -k r, \quad\text{with equality only for } t = 0,$$

because $u - v$ is multiplied by $1 - k r$ and $E$ by $1 - k^2 r\, u \cdot v = 1 + K t + t^2$. Proof of the inequality,
with $s = |1 + t|$: for $K \le 1$ it is Bernoulli's where $t \ge -1$, and $s^K \le 1 + s$ elsewhere. Let $1 < K < 2$. If
$t > 0$, the second derivative of $1 + K t + t^2 - (1 + t)^K$ is at least $2 - K(K - 1) > 0$, its value and slope at 0
are 0. If $t < 0$, the difference is $s^2 - s^K + (2 - K)(1 \mp s)$, the upper sign for $t \ge -1$; for $s \ge 1$ it is
positive, and for $s < 1$ the mean value theorem gives $s^K - s^2 = s^K (1 - s^{2-K}) \le (2 - K)\, s\, (1 - s)$.

Hence, for $1 < K < 2$, an orbit in the ellipse $E < 0$ has one of two fates. If $V$ does not tend to 0, then
$t \to 0$, so $r \to 0$; but $r' = r\,(1 - k S - k^2 r\, u \cdot v)$ with $k S \ge 2 k\, u \cdot v \to 2 K > 2$ drives
small $r$ away from 0, so $r = 0$ after finitely many steps: the orbit lands on a minimum, which happens on a null set
only. From every other point, $V \to 0$; as $|E|$ is bounded in the ellipse, $|u - v| \to 0$. What is left is the cubic
map of `theory.symmetric_line`. Along its orbits the mean of $\ln (E'/E)$ is 0, so the exponent across the line is the
mean of $\ln (V'/V)$ over $K$: negative for every invariant measure in the ellipse but those on minima.
"""

import numpy as np

from gdstab import _arguments as arguments
from gdstab._validate import check_positive
from gdstab.theory import scalar

_STEPS_WATCHED = 200
"""Steps along which the largest factor is sought."""


@arguments.closed_form(
    theta=arguments.points, step_size=arguments.positive, target=arguments.positive, scale=arguments.positive
)
def potential(theta, step_size, target: float = 1.0, scale: float = 0.5):
    r"""$V = |u - v|^K / |E|$ at flat points `[..., 2 d]`, which no step of descent makes larger for $0 < K < 2$.

    Examples
    --------
    >>> print(f"{potential(np.array([0.5, 1.0]), 0.75, scale=1.0):.6f}")
    0.530330
    """
    theta = np.asarray(theta)
    half = theta.shape[-1] // 2
    across = np.sqrt(np.sum((theta[..., :half] - theta[..., half:]) ** 2, axis=-1))
    energy = np.abs(scalar.trapping_energy(theta, step_size, target, scale))
    return across ** _reduced(step_size, target, scale) / energy


@arguments.closed_form(
    theta=arguments.points, step_size=arguments.positive, target=arguments.positive, scale=arguments.positive
)
def potential_factor(theta, step_size, target: float = 1.0, scale: float = 0.5):
    r"""The factor $|1 + t|^K / (1 + K t + t^2)$ of $V$ in one step: below 1 except on the minima, for $0 < K < 2$.

    Examples
    --------
    >>> print(f"{potential_factor(np.array([0.5, 1.0]), 0.75, scale=1.0):.6f}")
    0.285714
    """
    _, across, _ = scalar.diagonal_multipliers(theta, step_size, target, scale)
    energy = scalar.energy_factor(theta, step_size, target, scale)
    return np.abs(across) ** _reduced(step_size, target, scale) / energy


@arguments.closed_form(
    points=arguments.points, step_size=arguments.positive, target=arguments.positive, scale=arguments.positive
)
def largest_factor(points, step_size: float, target: float = 1.0, scale: float = 0.5) -> float:
    """The largest factor by which $V$ changes in a step of orbits in the trapping ellipse, from points `[points, 2]`.

    It is at most 1, up to rounding, whatever the points; 0 if none of them is in the ellipse.

    Examples
    --------
    >>> 0.99 < largest_factor(np.random.default_rng(0).uniform(-1, 1, (100, 2)), 0.75, scale=1.0) <= 1
    True
    """
    points = np.asarray(points, np.float64)
    points = points[scalar.trapping_energy(points, step_size, target, scale) < 0]
    largest, k = 0.0, 2 * scale * step_size
    for _ in range(_STEPS_WATCHED if len(points) else 0):
        largest = max(largest, float(np.max(potential_factor(points, step_size, target, scale))))
        pull = k * (target - points[:, :1] * points[:, 1:])
        points = points + pull * points[:, ::-1]
    return largest


def _reduced(step_size, target, scale) -> float:
    return (
        2 * check_positive(scale, "scale") * check_positive(step_size, "step_size") * check_positive(target, "target")
    )
