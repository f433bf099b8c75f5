r"""The worst case of paper D: a loss over which descent leaves the flow unless its step is exponentially small."""

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gdstab._numerics import as_float
from gdstab._types import Point, Scalar
from gdstab._validate import check_positive, is_concrete

Numbers: TypeAlias = Sequence[float] | np.ndarray | Array


class Arrivals(NamedTuple):
    """When the second coordinate of the flow enters each region (Definitions 69, 74, 79 of paper D)."""

    transition: float
    """$t_{1 - \\bar\\rho}$: the curvature begins to turn from -a/2 to -a"""
    isotropic: float
    """$t_1$: it is -a in both coordinates"""
    end: float
    """$t_{\\bar z_c}$: the cut point"""


class WorstCase(eqx.Module):
    r"""Eq. (27) of paper D, Appendix B: $f(q) = \varphi(q_1) + \bar\varphi(q_2) + 6 a q_3^2$, on $d \ge 3$ numbers.

    Two hills, cut off where they would become negative: $\varphi$ has curvature $-a$ out to the cut point
    $z_c = b e^{30} + 1$, $\bar\varphi$ has $-a/2$ for $|q_2 - (\bar\rho/2 - 1)| < 2 - 3\bar\rho/2$ and $-a$ from there
    to $\bar z_c = b + 1$; further entries of $q$ have no effect. $f$ is twice continuously differentiable, its infimum
    is 0 and its least curvature $-a$, everywhere on the way of the flow from `start()`. Descent and flow come into the
    isotropic region, where both hills have curvature $-a$, at angles that differ in proportion to the step size, and
    the distance grows like $e^{at}$ from there: Proposition 20.

    Numbers reach $b e^{30}$ beside a width $\bar\rho \le e^{-12}/2$, so that float64 is needed, and float32 is refused.
    In float64 *gradients* are as good as in any loss; the value is known to rounding of $\varphi(0) \approx a z_c^2/2$,
    and the last piece of $\varphi$, of width 1 at $z_c$, is resolved for $b$ up to about 800 (no orbit of
    Proposition 20 comes there).

    Parameters
    ----------
    curvature
        The number $a > 0$.
    extent
        The number $b \ge 3$, how far the hills reach.
    accuracy
        The number $\epsilon \in (0, 1)$, the distance that counts as close; the width of the transition is
        $\bar\rho = \min(e^{-12}/2, \epsilon/2b)$.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> jax.grad(WorstCase(curvature=2.0))(jnp.array([0.5, 1.5, 1.0])).tolist()
    [-1.0, -3.0, 24.0]
    """

    curvature: ArrayLike = eqx.field(default=1.0, converter=as_float)
    extent: ArrayLike = eqx.field(default=3.0, converter=as_float)
    accuracy: ArrayLike = eqx.field(default=0.1, converter=as_float)

    def __check_init__(self):
        if is_concrete(self.curvature):
            check_positive(self.curvature, "curvature")
        if is_concrete(self.extent) and not check_positive(self.extent, "extent") >= 3:
            raise ValueError(f"extent: expected b of at least 3, got {self.extent}; raise it")
        if is_concrete(self.accuracy) and not check_positive(self.accuracy, "accuracy") < 1:
            raise ValueError(f"accuracy: expected a distance below 1, got {self.accuracy}; lower it")

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point, in float64."""
        if theta.ndim != 1 or theta.size < 3:
            raise ValueError(f"expected theta with at least 3 entries, got shape {theta.shape}; pass one point")
        bowl = 6 * jnp.asarray(self.curvature, theta.dtype) * theta[2] * theta[2]
        return self.phi(theta[0]) + self.phi_bar(theta[1]) + bowl

    loss_floor: ClassVar[float] = 0.0
    """The infimum, 0; attained beyond the cut points where $q_3 = 0$."""

    @property
    def cut(self) -> ArrayLike:
        """Where the first hill ends, $z_c = b e^{30} + 1$."""
        return self.extent * math.exp(30) + 1

    @property
    def second_cut(self) -> ArrayLike:
        r"""Where the second hill ends, $\bar z_c = b + 1$."""
        return self.extent + 1

    @property
    def width(self) -> Scalar:
        r"""The width of the transition, $\bar\rho = \min(e^{-12}/2, \epsilon/2b)$."""
        return jnp.minimum(math.exp(-12) / 2, jnp.asarray(self.accuracy / (2 * self.extent)))

    @property
    def smoothness(self) -> float:
        r"""The largest curvature, $\beta = \max(12 a, a (c - 1)^2 / 4c)$ with $c = 6 z_c + 3$: about $1.5\,a z_c$."""
        slope = 6 * float(self.cut) + 3
        return float(self.curvature) * max(12.0, (slope - 1) ** 2 / (4 * slope))

    def phi(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The first hill $\varphi$ of eq. (25), elementwise."""
        self._check_dtype(z)
        return self._constant(z, self.curvature) * _hill(z, self._constant(z, self.cut))

    def phi_bar(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The second hill $\bar\varphi$ of eq. (26), elementwise; symmetric about $\bar\rho/2 - 1$."""
        self._check_dtype(z)
        width, cut = self._constant(z, self.width), self._constant(z, self.second_cut)
        centre = width / 2 - 1
        right = jnp.where(z < centre, 2 * centre - z, z)
        bend = jnp.maximum(1 - right, 0)
        outer = _hill(right, cut) + bend * bend * bend / (12 * width)
        top = (cut * cut + cut + 1 - width) / 2 + 1 / 12 + 7 * width * width / 48
        # Written with the distance from the centre: a difference of larger terms would lose a start next to it.
        inner = top - (right - centre) * (right - centre) / 4
        return self._constant(z, self.curvature) * jnp.where(right < 1 - width, inner, outer)

    def start(self, dim: int = 3) -> np.ndarray:
        """A point that Proposition 20 admits, in the middle of the ranges of its first two entries, [dim]."""
        return np.array([0.75, 0.75 * math.exp(-12) - 1, 2.5, *[0.0] * (dim - 3)])

    def arrivals(self, start: Numbers) -> Arrivals:
        r"""When the flow enters the regions, exactly: Lemmas 70 and 80, and for the transition (bounds: Lemma 75)

        $$a (t_1 - t_{1 - \bar\rho}) = \frac{4 \bar\rho}{w} \left(\arctan\frac{2 \bar\rho}{w}
        - \arctan\frac{\bar\rho}{w}\right), \quad w = 2 \sqrt{\bar\rho (1 - \bar\rho)}.$$

        Raises
        ------
        ValueError
            If the start is not in the region where the curvatures are $-a$ and $-a/2$, to the right of both tops, or
            if the first coordinate comes to its cut point before the second one.
        """
        a, width = float(self.curvature), float(self.width)
        first, ahead = self._ahead(start)
        transition = 2 / a * math.log((2 - 1.5 * width) / ahead)
        scale = 2 * math.sqrt(width * (1 - width))
        lapse = 4 * width / scale * (math.atan(2 * width / scale) - math.atan(width / scale))
        isotropic = transition + lapse / a
        end = isotropic + math.log(self.second_cut) / a
        if first * math.exp(a * end) > self.cut:
            raise ValueError(
                f"expected a start from which the second coordinate comes to its cut point first, got {start}; lower "
                "its first entry or raise the second"
            )
        return Arrivals(transition, isotropic, end)

    def flow(self, start: Numbers, times: Numbers) -> np.ndarray:
        r"""Gradient flow in closed form, [times, dim], up to `arrivals(start).end`; on the host.

        The first entry is $q_1 e^{at}$ (Lemma 68), the third $q_3 e^{-12at}$; the second grows from the top of its hill
        like $e^{at/2}$ (Lemma 70), solves eq. (80) in the transition,
        $1 - \bar q = 2 \bar\rho - w \tan(\arctan(\bar\rho/w) + a w (t - t_{1 - \bar\rho}) / 4\bar\rho)$, and is
        $e^{a (t - t_1)}$ from there (Lemma 80).

        Examples
        --------
        >>> loss = WorstCase()
        >>> arrivals = loss.arrivals(loss.start())
        >>> loss.flow(loss.start(), [0.0, arrivals.isotropic, arrivals.end])[:, 1].round(6).tolist()
        [-0.999995, 1.0, 4.0]
        """
        arrivals, times = self.arrivals(start), np.asarray(times)
        # The end itself, rounded to the precision of the times, is no time beyond it.
        slack = max(1e-12, float(np.finfo(times.dtype).eps) if np.issubdtype(times.dtype, np.floating) else 0.0)
        times = times.astype(float)
        if times.ndim != 1 or not ((times >= 0) & (times <= arrivals.end * (1 + slack))).all():
            raise ValueError(f"times: expected a vector of times from 0 to {arrivals.end:g}, got {times}; clip them")
        a, width = float(self.curvature), float(self.width)
        _, ahead = self._ahead(start)
        scale = 2 * math.sqrt(width * (1 - width))
        since = np.clip(times - arrivals.transition, 0, arrivals.isotropic - arrivals.transition)
        phase = math.atan(width / scale) + a * scale * since / (4 * width)
        second = np.select(
            [times < arrivals.transition, times < arrivals.isotropic],
            [ahead * np.exp(a * times / 2) + (width / 2 - 1), 1 - 2 * width + scale * np.tan(phase)],
            np.exp(a * (times - arrivals.isotropic)),
        )
        path = np.repeat(np.asarray(start, float)[None], times.size, axis=0)
        path[:, 0] *= np.exp(a * times)
        path[:, 1] = second
        path[:, 2] *= np.exp(-12 * a * times)
        return path

    def window(self, start: Numbers) -> tuple[float, float]:
        r"""First and last time $\tilde t$ of which Proposition 20 speaks; the flow is in the isotropic region then."""
        a, width = float(self.curvature), float(self.width)
        begin = 2 * math.log((2 - 1.5 * width) / self._ahead(start)[1])
        last = math.log((1 + width / 4) / (1 - 3 * width / 4)) + math.log(self.extent)
        return (begin + math.log(2 / (1 - width))) / a, (begin + last) / a

    def excluded_step(self, time: float | Numbers) -> float | np.ndarray:
        r"""The step size $10^{14} e^{-a \tilde t} \epsilon / a$ of Proposition 20.

        With it, or with a larger one, descent never comes $\epsilon$-close to $\theta(\tilde t)$.
        """
        return 1e14 * self.accuracy / self.curvature * np.exp(-self.curvature * np.asarray(time, float))

    def _ahead(self, start) -> tuple[float, float]:
        """The first entry of the start, and how far the second is from the top of its hill."""
        start, width = np.asarray(start, float), float(self.width)
        if start.ndim != 1 or start.size < 3 or not (start[0] > 0 and width / 2 - 1 < start[1] < 1 - width):
            raise ValueError(
                f"start: expected at least 3 numbers, the first above 0 and the second from {width / 2 - 1:.9g} to "
                f"{1 - width:.9g}, got {start.tolist()}; `start()` gives one"
            )
        return float(start[0]), float(start[1] - (width / 2 - 1))

    def _constant(self, z, value):
        return jnp.asarray(value, z.dtype)

    def _check_dtype(self, z):
        if z.dtype != jnp.float64:
            raise ValueError(
                f"expected float64, got {z.dtype}: the hills reach to b e^30 and turn within e^-12 / 2; enable 64 bits "
                "in JAX (JAX_ENABLE_X64=1) and pass float64"
            )


def _hill(z, cut):
    r"""$(c^2 - z^2 + c)/2 + 1/12$ up to the cut point $c$, to 0 within a distance of 1; of eq. (25), over $a$.

    With $u = c + 1 - |z|$ the last piece is $u^3 (1/3 + c - (1/4 + c/2) u)$.
    """
    beyond = jnp.clip(cut + 1 - jnp.abs(z), 0, 1)
    foot = beyond * beyond * beyond * (1 / 3 + cut - (1 / 4 + cut / 2) * beyond)
    return jnp.where(jnp.abs(z) <= cut, (cut * cut - z * z + cut) / 2 + 1 / 12, foot)


class Hills(NamedTuple):
    """Both functions on a grid, with their first two derivatives."""

    z: np.ndarray  # [2, points]
    value: np.ndarray  # [2, points]
    slope: np.ndarray
    curvature: np.ndarray


def tabulate(loss: WorstCase, points: int = 601) -> Hills:
    """Both hills from one end to the other and a bit beyond, every piece with some points."""
    width, reach = float(loss.width), loss.second_cut
    shares = np.linspace(-1.15, 1.15, points)
    first = np.concatenate([shares * loss.cut, loss.cut + np.linspace(-1, 2, 200)])
    pieces = [1 - width * np.linspace(0, 1, 100), reach + np.linspace(0, 1, 100)]
    second = np.concatenate([np.linspace(-reach - 3.5, reach + 1.5, points), *pieces])
    z = np.stack([np.sort(first), np.sort(second)])

    @jax.jit
    def derivatives(z):
        rows = zip((loss.phi, loss.phi_bar), z, strict=True)
        return [[jax.vmap(f)(x) for f in (hill, jax.grad(hill), jax.grad(jax.grad(hill)))] for hill, x in rows]

    return Hills(z, *np.asarray(derivatives(jnp.asarray(z))).swapaxes(0, 1))
