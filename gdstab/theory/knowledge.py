r"""What is known of a loss beforehand: which closed forms of this package apply to it, with its numbers filled in."""

import dataclasses
import functools
import math
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import integrate, stats

from gdstab._types import LossFn, Theta
from gdstab._validate import check_positive
from gdstab.losses.linear import LinearNetwork
from gdstab.losses.pullback import Identity, Pullback, Unravel
from gdstab.losses.relu import ShallowReLU
from gdstab.losses.relu_target import Polynomial
from gdstab.losses.scalar import ScalarProduct, VectorProduct
from gdstab.losses.testbeds import DoubleWell, Himmelblau, Quadratic, Rosenbrock
from gdstab.theory import linear, relu, scalar


@dataclasses.dataclass(frozen=True)
class Product:
    r"""The loss is $c\,(a - u \cdot v)^2$ with $a > 0$ on $\theta = (u, v)$: `theory.scalar` knows all of it."""

    dim: int
    """Length of u and of v; 1 for two scalars."""
    target: float
    """The number a."""
    scale: float
    """The number c."""

    def reduced(self, step_size):
        r"""$K = k a = 2 c a \eta$, the number that decides what descent with this step size does."""
        return 2 * self.scale * self.target * step_size


@dataclasses.dataclass(frozen=True)
class Known:
    """What theory says of one loss; None where it says nothing."""

    flattest: float | None = None
    """The least sharpness of all minima, an infimum where it is 0."""
    widths: tuple[int, ...] | None = None
    """Of the linear network that the loss is one of, from inputs to outputs."""
    product: Product | None = None
    """The numbers of a product of two scalars or vectors with a positive target."""
    levels: dict[int, float] | None = None
    """The loss at critical points by the number of their breakpoints (ReLU networks against a line, paper C)."""
    minimum: np.ndarray | None = dataclasses.field(default=None, compare=False)
    """The flattest minimum, or the only one."""
    isolated: np.ndarray | None = dataclasses.field(default=None, compare=False)
    """All global minima, `[num, dim]`, where they are points apart from each other."""

    @property
    def hyperbola(self) -> Product | None:
        r"""The numbers of $c\,(a - xy)^2$, a > 0, whose minima are a hyperbola: a product of two scalars."""
        return self.product if self.product is not None and self.product.dim == 1 else None

    @property
    def critical_step(self) -> float | None:
        r"""$\eta_C = 2 / \lambda_{min}$, above which no minimum is stable; None, too, where minima are ever flatter."""
        return 2 / self.flattest if self.flattest else None

    def minima(self, box: Any, step_size: float, num: int = 500) -> tuple[list, list] | None:
        """The curves of minima across a box in the plane, and their stable parts, as polylines `[num, 2]`.

        None but for a product of two scalars, whose minima are both branches of a hyperbola.
        """
        if self.hyperbola is None:
            return None
        target, scale = self.hyperbola.target, self.hyperbola.scale
        reach = max(abs(end) for side in box for end in side)
        stable = scalar.stable_minima(step_size, target, scale)
        arcs = []
        for low, high in ((target / reach, reach), (stable.low, stable.high)):
            x = np.geomspace(low, high, num) if low < high else np.empty(0)
            branch = np.stack([x, target / x], axis=-1)
            arcs.append([branch, -branch] if len(branch) else [])
        return arcs[0], arcs[1]

    def exact_share(
        self, step_size: float, *, box: Any = None, radius: float | None = None, spread: float | None = None
    ) -> float | None:
        r"""The share of initial points from which descent converges to a minimum, by a closed form or one integral.

        Of points that are uniform in `box` (a pair of ends for every parameter) or in the ball of `radius`, both of
        which must contain the basin but for two scalars, or normal with the deviation `spread`. None where it is not
        known; that is, but for products with a target $a > 0$.
        """
        given = [name for name, what in (("box", box), ("radius", radius), ("spread", spread)) if what is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of box, radius and spread, got {given or 'none'}; say where points start")
        if self.product is None:
            return None
        dim, target, scale = self.product.dim, self.product.target, self.product.scale
        curvature = 2 * scale * step_size  # k
        if curvature * target > 1:
            return 0.0
        if spread is not None:
            return _gaussian_share(dim, curvature, target, spread)
        basin = scalar.ellipsoid_volume(dim, step_size, target, scale)
        if radius is not None:
            inside = 2 * (2 + curvature * target) / curvature <= radius**2
            return basin / ball_volume(2 * dim, radius) if inside else None
        whole = math.prod(high - low for low, high in box)
        if dim == 1:
            return scalar.basin_area(step_size, target, scale, box) / whole
        reach = 2 / math.sqrt(curvature)  # of the ellipsoid along every axis
        return basin / whole if all(low <= -reach and high >= reach for low, high in box) else None


def ball_volume(dim: int, radius: float) -> float:
    """Volume of a ball.

    >>> round(ball_volume(3, 1.0), 6)
    4.18879
    """
    return math.exp(dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)) * check_positive(radius, "radius") ** dim


def known(loss: LossFn, theta: Theta = None) -> Known:
    r"""All that the closed forms of this package say of a loss.

    A loss that nobody knows has a `Known` whose entries are None. A `losses.Pullback` to one vector is known by the
    loss inside.

    Parameters
    ----------
    loss
        Any loss.
    theta
        A point, for losses that read their sizes off it, such as `LinearNetwork`; its values do not matter.

    Examples
    --------
    >>> from gdstab.losses import Himmelblau, ScalarProduct
    >>> known(ScalarProduct(target=1.0, scale=1.0)).critical_step, known(Himmelblau()).critical_step
    (0.5, None)
    >>> round(known(ScalarProduct(scale=1.0)).exact_share(0.3, box=((-4, 4), (-4, 4))), 6)
    0.312176
    """
    return _known(loss, theta)


@functools.singledispatch
def _known(loss, theta) -> Known:
    """Of a loss that nobody has said anything about."""
    del loss, theta
    return Known()


@_known.register
def _(loss: Pullback, theta) -> Known:
    if isinstance(loss.map, Unravel):
        inner = tuple(np.zeros(shape) for shape in loss.map.shapes)
        return known(loss.loss, loss.map.structure.unflatten(inner))
    return known(loss.loss, theta) if isinstance(loss.map, Identity) else Known()


@_known.register
def _(loss: ScalarProduct, theta) -> Known:
    del theta
    target, scale = float(loss.target), float(loss.scale)
    product = Product(1, target, scale) if loss.depth == 2 and target > 0 else None
    flattest = linear.flattest_sharpness(abs(target), loss.depth, scale)
    return Known(flattest, (1,) * (loss.depth + 1), product, minimum=np.asarray(loss.minimum()))


@_known.register
def _(loss: VectorProduct, theta) -> Known:
    del theta
    target, scale = float(loss.target), float(loss.scale)
    product = Product(loss.dim, target, scale) if target > 0 else None
    return Known(linear.flattest_sharpness(abs(target), 2, scale), (1, loss.dim, 1), product)


@_known.register
def _(loss: LinearNetwork, theta) -> Known:
    if theta is None:
        return Known()
    widths = (loss.inputs.shape[0], *(layer.shape[0] for layer in theta))
    try:
        return Known(linear.flattest_sharpness_of(loss.inputs, loss.targets, widths, float(loss.scale)), widths)
    except ValueError:  # no closed form for these data
        return Known(widths=widths)


@_known.register
def _(loss: Quadratic, theta) -> Known:
    del theta
    values = np.linalg.eigvalsh(np.asarray(loss.matrix, float))
    minimum = np.asarray(loss.minimum())
    alone = minimum[None] if values[0] > 0 else None
    return Known(float(values[-1]), minimum=minimum, isolated=alone) if values[0] >= 0 else Known()


@_known.register
def _(loss: Himmelblau, theta) -> Known:
    del theta
    return Known(isolated=loss.minima())


@_known.register
def _(loss: DoubleWell, theta) -> Known:
    if theta is None:
        return Known()
    minimum = np.asarray(loss.minimum(len(theta)))
    return Known(isolated=np.stack([-minimum, minimum]))


@_known.register
def _(loss: Rosenbrock, theta) -> Known:
    return Known() if theta is None else Known(isolated=np.asarray(loss.minimum(len(theta)))[None])


@_known.register
def _(loss: ShallowReLU, theta) -> Known:
    del theta
    if not isinstance(loss.target, Polynomial):
        return Known()
    try:
        return Known(levels=relu.levels(loss.neurons, interval=loss.interval, target=loss.target.coefficients))
    except ValueError:  # no line, or a constant
        return Known()


def _gaussian_share(dim: int, curvature: float, target: float, spread: float) -> float:
    r"""$P(|p|^2/A^2 + |q|^2/B^2 < 1)$ with $p = (u + v)/\sqrt 2$ and $q = (u - v)/\sqrt 2$ normal in $\mathbb{R}^d$."""
    along, across = (math.sqrt(2 * (2 + sign * curvature * target) / curvature) / spread for sign in (1, -1))

    def density(size):
        return stats.chi.pdf(size, dim) * stats.chi2.cdf((1 - (size / along) ** 2) * across**2, dim)

    end = min(along, stats.chi.isf(1e-18, dim))
    ends = np.linspace(0, end, 5)
    return float(sum(integrate.quad(density, low, high, epsabs=1e-14, epsrel=1e-11)[0] for low, high in pairwise(ends)))
