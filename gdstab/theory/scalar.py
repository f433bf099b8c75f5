r"""Two parameters and their vector form: exact statements on descent for $L = c\,(a - u \cdot v)^2$, $a > 0$.

Throughout $k = 2 c \eta$, $S = |u|^2 + |v|^2$, $z = u \cdot v$, $r = a - z$. Points are flat, $u$ first, on the last
axis: [..., 2 d]; with $d = 1$ they are $(x, y)$. Functions of points take NumPy and JAX arrays alike. One step maps
$u \to u + k r v$, $v \to v + k r u$, from which the identities follow by a line of algebra each.
The loss is that of paper A, Figure 1 ($c = 1$) and Appendix B ($c = 1/2$), and of Liang and Montufar, arXiv:2509.25351.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from gdstab import _arguments as arguments
from gdstab._validate import check_box, check_count, check_positive
from gdstab.theory._clipping import arc_length, ellipse_area, hyperbola_length


class TrappingEllipse(NamedTuple):
    """The region E < 0 for d = 1, centred at the origin, with axes along the two diagonals."""

    along: float  # semi-axis along (1, 1), the longer one
    across: float  # semi-axis along (1, -1)
    area: float


class StableMinima(NamedTuple):
    """The minima with multiplier inside the unit circle, |u|^2 + |v|^2 < bound; for d = 1 two arcs of x y = a."""

    bound: float  # 1 / (c step_size)
    low: float  # the arc in the first quadrant has low < x < high; nan where it is empty
    high: float
    length: float  # of both arcs, inside the box where one is given


@arguments.closed_form()
def critical_step(target: float = 1.0, scale: float = 0.5) -> float:
    r"""The step size $\eta_C = 1 / (2 c a)$ above which every minimum is unstable.

    At a minimum the sharpness is $2 c S \ge 4 c a$, with equality for $u = v$, and the threshold is 2 over it (paper A,
    Appendix B). At the target 0 it is infinite: near the origin minima are as flat as one wishes.

    Examples
    --------
    >>> critical_step(target=1.0, scale=1.0)
    0.5
    """
    reduced = 2.0 * check_positive(scale, "scale") * _at_least_zero(target, "target")
    return 1.0 / reduced if reduced > 0 else math.inf


@arguments.closed_form(theta=arguments.points, step_size=arguments.real, scale=arguments.positive)
def local_rate(theta, step_size, scale: float = 0.5):
    r"""The factor $|1 - \eta \lambda|$, $\lambda = 2 c S$, by which distance shrinks per step near the minimum `theta`.

    $\lambda$ is the only non-zero eigenvalue of the Hessian at a minimum (paper A, Appendix B).

    Examples
    --------
    >>> import numpy as np
    >>> float(local_rate(np.array([1.0, 1.0]), 0.375, scale=1.0))
    0.5
    """
    squares, _ = _invariants(theta)
    return abs(1 - step_size * (2 * scale * squares))


@arguments.closed_form(
    theta=arguments.points, step_size=arguments.positive, target=arguments.real, scale=arguments.positive
)
def trapping_energy(theta, step_size, target: float = 1.0, scale: float = 0.5):
    r"""The energy $E = S + k a (a - z) - 4/k$, whose sign never changes for $0 < k a < 2$.

    Where $E < 0$ the orbit is bounded, and for $k a < 1$ it converges to a minimum from almost every point; where
    $E > 0$ it diverges for almost every point (found numerically, not proved). Compare the basin of Liang and
    Montufar, arXiv:2509.25351.

    Examples
    --------
    >>> import numpy as np
    >>> float(trapping_energy(np.array([1.0, 1.0]), 0.5, scale=1.0))
    -2.0
    """
    squares, inner = _invariants(theta)
    k = 2 * scale * step_size
    return squares + k * target * (target - inner) - 4 / k


@arguments.closed_form(
    theta=arguments.points, step_size=arguments.real, target=arguments.real, scale=arguments.positive
)
def energy_factor(theta, step_size, target: float = 1.0, scale: float = 0.5):
    r"""The factor of the exact law $E(\theta') = E(\theta)\,(1 - k^2 (a - z) z)$ for one step of descent.

    Since $(a - z) z \le a^2 / 4$ it is positive for $k a < 2$: that is why the sign of $E$ is kept.

    Examples
    --------
    >>> import numpy as np
    >>> float(energy_factor(np.array([0.5, 1.0]), 0.5, scale=1.0))
    0.75
    """
    _, inner = _invariants(theta)
    k = 2 * scale * step_size
    return 1 - k * k * (target - inner) * inner


@arguments.closed_form(
    theta=arguments.points, step_size=arguments.real, target=arguments.real, scale=arguments.positive
)
def diagonal_multipliers(theta, step_size, target: float = 1.0, scale: float = 0.5):
    r"""Exact multipliers of $u + v$, $u - v$ and $|u|^2 - |v|^2$ in one step: $1 + k r$, $1 - k r$, $1 - k^2 r^2$.

    Gradient flow conserves $|u|^2 - |v|^2$; descent shrinks it wherever $|k r| < \sqrt 2$.

    Examples
    --------
    >>> import numpy as np
    >>> [float(factor) for factor in diagonal_multipliers(np.array([0.5, 1.0]), 0.5, scale=1.0)]
    [1.5, 0.5, 0.75]
    """
    _, inner = _invariants(theta)
    pull = 2 * scale * step_size * (target - inner)
    return 1 + pull, 1 - pull, 1 - pull * pull


@arguments.closed_form(theta=arguments.points, target=arguments.real, scale=arguments.positive)
def largest_converging_step(theta, target: float = 1.0, scale: float = 0.5):
    r"""The largest step size from which `theta` converges to a minimum (almost every point), one per point.

    In $k$ it is $\min(1/|a|,\ 8 / (S + \sqrt{S^2 + 16 a (a - z)}))$: the smaller of the critical step and the root of
    $E = 0$. The radicand is at least $(S - 4|a|)^2$ because $|z| \le S/2$ (compare Liang and Montufar,
    arXiv:2509.25351). A target $a < 0$ is $|a|$ after $v \to -v$. At $a = 0$ the critical step is infinite and
    $4/S$ is left, infinite at the origin, which is a minimum then.

    Examples
    --------
    >>> import numpy as np
    >>> largest_converging_step(np.array([[1.0, 1.0], [2.0, -2.0]]), scale=1.0).tolist()
    [0.5, 0.2]
    """
    squares, inner = _invariants(theta)
    xp = squares.__array_namespace__()
    radicand = squares * squares + 16 * target * (target - inner)
    extent = squares + xp.sqrt(xp.maximum(radicand, 0 * radicand))
    nowhere = extent == 0  # nothing moves: the target 0, at the origin
    escape = xp.where(nowhere, math.inf, 8 / xp.where(nowhere, 1.0, extent))
    return xp.minimum(escape, xp.zeros_like(squares) + _inverse_size(target)) / (2 * scale)


@arguments.closed_form(undefined=True)
def trapping_ellipse(step_size: float, target: float = 1.0, scale: float = 0.5) -> TrappingEllipse:
    r"""The ellipse $E < 0$: semi-axes $\sqrt{2 (2 \pm k a) / k}$, area $2 \pi \sqrt{4 - k^2 a^2} / k$.

    For $k a \ge 2$ nothing is trapped: the area is 0 and the axes are NaN.

    Examples
    --------
    >>> ellipse = trapping_ellipse(0.5, target=1.0, scale=1.0)
    >>> round(ellipse.along, 6), round(ellipse.across, 6), round(ellipse.area, 6)
    (2.44949, 1.414214, 10.882796)
    """
    k, reduced = _reduced(step_size, target, scale)
    if reduced >= 2:
        return TrappingEllipse(math.nan, math.nan, 0.0)
    along, across = math.sqrt(2 * (2 + reduced) / k), math.sqrt(2 * (2 - reduced) / k)
    return TrappingEllipse(along, across, math.pi * along * across)


@arguments.closed_form()
def ellipse_curve(step_size: float, target: float = 1.0, scale: float = 0.5, num: int = 400) -> np.ndarray:
    """Points on the edge of the trapping ellipse, closed, [num, 2]; empty where nothing is trapped.

    Examples
    --------
    >>> ellipse_curve(0.5, scale=1.0, num=5).shape
    (5, 2)
    """
    ellipse = trapping_ellipse(step_size, target, scale)
    if ellipse.area == 0:
        return np.empty((0, 2))
    angle = np.linspace(0, 2 * np.pi, check_count(num, "num", least=2))
    p, q = ellipse.along * np.cos(angle), ellipse.across * np.sin(angle)
    return np.stack([p + q, p - q], axis=-1) / math.sqrt(2)


@arguments.closed_form()
def trapping_area(step_size: float, target: float = 1.0, scale: float = 0.5, box: Any = None) -> float:
    """Exact area of the trapping ellipse, or of its part inside a box ((x0, x1), (y0, y1)); 0 where k a >= 2.

    Relative to the box it is exact to rounding, however small the box.

    Examples
    --------
    >>> round(trapping_area(0.5, scale=1.0, box=((0.0, 9.0), (-9.0, 9.0))), 6)
    5.441398
    """
    ellipse = trapping_ellipse(step_size, target, scale)
    if box is None or ellipse.area == 0:
        return ellipse.area
    return ellipse_area(2 * scale * step_size, target, (ellipse.along, ellipse.across), check_box(box, 2))


@arguments.closed_form()
def basin_area(step_size: float, target: float = 1.0, scale: float = 0.5, box: Any = None) -> float:
    """Exact area of the points that converge to a minimum: the trapping area for k a <= 1, and 0 beyond.

    Above the critical step what is trapped (`trapping_area`) stays bounded and does not converge.

    Examples
    --------
    >>> basin_area(0.3, scale=1.0) == trapping_area(0.3, scale=1.0), basin_area(0.6, scale=1.0)
    (True, 0.0)
    """
    _, reduced = _reduced(step_size, target, scale)
    return trapping_area(step_size, target, scale, box) if reduced <= 1 else 0.0


@arguments.closed_form()
def ellipsoid_volume(dim: int, step_size: float, target: float = 1.0, scale: float = 0.5) -> float:
    r"""Volume of $E < 0$ in $\mathbb{R}^{2d}$: $(\pi^d / d!)\,(4/k)^d\,(1 - k^2 a^2 / 4)^{d/2}$; 0 where $k a \ge 2$.

    Examples
    --------
    >>> abs(ellipsoid_volume(1, 0.3, scale=1.0) - trapping_area(0.3, scale=1.0)) < 1e-12
    True
    """
    d = check_count(dim, "dim")
    k, reduced = _reduced(step_size, target, scale)
    if reduced >= 2:
        return 0.0
    return math.exp(d * math.log(4 * math.pi / k) - math.lgamma(d + 1) + d / 2 * math.log1p(-(reduced**2) / 4))


@arguments.closed_form(undefined=True)
def stable_minima(step_size: float, target: float = 1.0, scale: float = 0.5, box: Any = None) -> StableMinima:
    r"""The stable minima: $|u|^2 + |v|^2 < 1 / (c \eta)$ on $u \cdot v = a$, none at or above the critical step.

    For $d = 1$ they are $x^2$ between $(B \pm \sqrt{B^2 - 4 a^2}) / 2$ with $B = 1 / (c \eta)$, and their mirror image
    (paper A, Appendix B).

    Examples
    --------
    >>> arc = stable_minima(0.4, target=1.0, scale=1.0)
    >>> arc.bound, round(arc.low, 6), round(arc.high, 6), round(arc.length, 6)
    (2.5, 0.707107, 1.414214, 2.038162)
    """
    k, reduced = _reduced(step_size, target, scale)
    if reduced >= 1:
        return StableMinima(2 / k, math.nan, math.nan, 0.0)
    root = math.sqrt((1 - reduced) * (1 + reduced))
    high = math.sqrt((1 + root) / k)
    low = target / high
    if box is None:
        span = math.log1p((root + (1 - reduced)) / reduced)  # of log x, exact where the arc is short
        return StableMinima(2 / k, low, high, 2 * arc_length(target, -span / 2, span))
    return StableMinima(2 / k, low, high, hyperbola_length(target, low, high, check_box(box, 2)))


@arguments.closed_form()
def minima_length(box: Any, target: float = 1.0) -> float:
    """Length of the hyperbola of minima x y = target inside a box ((x0, x1), (y0, y1)), both branches.

    Examples
    --------
    >>> round(minima_length(((0.5, 2.0), (0.0, 9.0))), 6)
    2.264181
    """
    return hyperbola_length(check_positive(target, "target"), 0.0, math.inf, check_box(box, 2))


def _invariants(theta):
    """`S` and `z` of flat points [..., 2 d]."""
    theta = theta if hasattr(theta, "__array_namespace__") else np.asarray(theta, float)
    if theta.ndim == 0 or theta.shape[-1] == 0 or theta.shape[-1] % 2:
        raise ValueError(f"expected points [..., 2 d] u first, got shape {theta.shape}; check the last axis")
    half = theta.shape[-1] // 2
    u, v = theta[..., :half], theta[..., half:]
    return (u * u + v * v).sum(-1), (u * v).sum(-1)


def _inverse_size(target):
    """$1 / |a|$, infinite at 0."""
    if isinstance(target, int | float):
        return 1 / abs(target) if target else math.inf
    xp = target.__array_namespace__()
    return xp.where(target == 0, math.inf, 1 / xp.where(target == 0, 1.0, abs(target)))


def _at_least_zero(value, name):
    return 0.0 if isinstance(value, int | float) and value == 0 else check_positive(value, name)


def _reduced(step_size, target, scale):
    """`k` and `k a`, checked."""
    k = 2 * check_positive(scale, "scale") * check_positive(step_size, "step_size")
    return k, k * check_positive(target, "target")
