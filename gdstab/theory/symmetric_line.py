r"""Descent on the line x = y of $L = c\,(1 - xy)^2$: the cubic map $X \mapsto (1 + k) X - X^3$, $k = 2 c \eta$.

In $X = \sqrt k\, x$ the line is invariant and the map on it depends on $k$ alone; for other targets $a > 0$ read
$k a$ for $k$. It doubles its period without end, turns chaotic, and at $k = 2$, the end of bounded orbits, it is the
Chebyshev cubic: $X = 2 \cos \phi$ moves by $\phi \mapsto 3 \phi + \pi$.
"""

import math

import numpy as np

from gdstab import _arguments as arguments
from gdstab._validate import check_positive

PERIOD_TWO = 1.0
"""Where the fixed point of the symmetric line doubles, in $k a$: its multiplier $1 - 2 k a$ is -1."""
PERIOD_FOUR = math.sqrt(5.0) - 1.0
"""Where its orbit of period 2 doubles: the multiplier $9 - 2 (1 + k a)^2$ is -1."""
ACCUMULATION = 1.3022834627
"""Where the doublings accumulate and chaos begins; the limit of the flips of periods 1, 2, 4, ... (no closed form)."""
CRISIS = 1.5 * math.sqrt(3.0) - 1.0
"""Where the largest value of the symmetric map reaches its largest zero, so that both signs of $x$ mix."""
LAST_BOUNDED = 2.0
"""Where bounded orbits end."""
LAST_EXPONENT = math.log(3.0)
"""The Lyapunov exponent there: the angle of the Chebyshev cubic is multiplied by 3 in every step."""
FEIGENBAUM = 4.669201609102990
"""The ratio that the gaps between doublings tend to, in every map of one quadratic maximum (Feigenbaum 1978)."""


@arguments.closed_form(position=arguments.real, k=arguments.real)
def step(position, k):
    r"""One step of descent on the line, $X \mapsto (1 + k) X - X^3$ with $X = \sqrt k\, x$.

    Examples
    --------
    >>> step(0.5, 0.75)
    0.75
    """
    return (1 + k) * position - position * position * position


@arguments.closed_form(k=arguments.real)
def fixed_point_multipliers(k):
    r"""Multipliers of the fixed point $X = \sqrt k$: $1 - 2k$ along the line, and 1 across it, along the minima.

    Examples
    --------
    >>> fixed_point_multipliers(1.0)
    (-1.0, 1.0)
    """
    return 1 - 2 * k, 1 + 0 * k


@arguments.closed_form()
def period_two(k: float) -> tuple[float, float]:
    r"""The orbit of period 2 around the fixed point, $X Y = 1$ and $X^2 + Y^2 = 1 + k$, for $k > 1$.

    Examples
    --------
    >>> [round(point, 6) for point in period_two(1.25)]
    [0.780776, 1.280776]
    """
    if check_positive(k, "k") <= 1:
        raise ValueError(f"expected k > 1, got {k}: the orbit of period 2 is born at k = 1; raise the step size")
    total, gap = math.sqrt(3 + k), math.sqrt(k - 1)
    return 2 / (total + gap), (total + gap) / 2


@arguments.closed_form(k=arguments.real)
def period_two_multipliers(k):
    r"""Multipliers of the orbit of period 2: $9 - 2 (1 + k)^2$ along the line, and $3 - 2k$ across it.

    Across the line, $x - y$ is multiplied by $1 - k r$ in a step and $x + y$ by $1 + k r$, $r = 1 - x y$. The latter
    factors multiply to 1 over the orbit, hence the former to $1 + 2 k^2 r_1 r_2$, and $k^2 r_1 r_2 = 1 - k$. So the
    orbit attracts in the plane wherever it does on the line.

    Examples
    --------
    >>> period_two_multipliers(1.0)
    (1.0, 1.0)
    """
    return 9 - 2 * (1 + k) * (1 + k), 3 - 2 * k


@arguments.closed_form()
def largest_exponent(k: float) -> float | None:
    r"""The largest Lyapunov exponent where it is known: 0 up to 1, then that of the orbit of period 2; ln 3 at 2.

    Below $k = 1$ orbits converge to a minimum, and nothing moves along the minima. The orbit of period 2 has the
    multipliers $9 - 2(1 + k)^2$ along the line and $3 - 2k$ across, over two steps. At $k = 2$ only the line is left.

    Examples
    --------
    >>> largest_exponent(0.8), round(largest_exponent(1.1), 6), largest_exponent(1.5), round(largest_exponent(2.0), 6)
    (0.0, -0.111572, None, 1.098612)
    """
    if k <= 1:
        return 0.0
    if k >= PERIOD_FOUR:
        return LAST_EXPONENT if k == LAST_BOUNDED else None
    return float(0.5 * np.log(max(map(abs, period_two_multipliers(k)))))
