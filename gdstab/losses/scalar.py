"""Products of scalars and of vectors fitted to a number: the smallest losses whose minima form a manifold."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gdstab._numerics import as_float, tree_sum
from gdstab._types import Point, Scalar
from gdstab._validate import check_count, check_positive, is_concrete, whole


class ScalarProduct(eqx.Module):
    r"""Product of scalars, $L(w) = c\,(a - w_1 w_2 \cdots w_h)^2$ on $\theta \in \mathbb{R}^h$.

    Paper A uses $c = 1$ in its body and Figure 1, $c = 1/2$ in its Appendix B. The minima are the set
    $w_1 \cdots w_h = a$; for $h = 2$ a hyperbola, stable where $x^2 + y^2 < 1/(c \eta)$ (`gdstab.theory.scalar`).

    Parameters
    ----------
    depth
        Number of factors $h$, at least 1.
    target
        The number $a$; any real.
    scale
        The factor $c > 0$.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = ScalarProduct(depth=2, target=1.0, scale=1.0)
    >>> float(loss(jnp.array([2.0, 1.0]))), float(loss(jnp.array([2.0, 0.5])))
    (1.0, 0.0)
    """

    depth: int = eqx.field(default=2, static=True, converter=whole)
    target: ArrayLike = eqx.field(default=1.0, converter=as_float)
    scale: ArrayLike = eqx.field(default=0.5, converter=as_float)

    def __check_init__(self):
        check_count(self.depth, "depth")
        _check_constants(self.target, self.scale)

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point."""
        residual = self._residual(theta)
        return jnp.asarray(self.scale, theta.dtype) * residual * residual

    def residual(self, theta: Point) -> Float[Array, "1"]:
        """The vector whose zeros are exactly the minima, [1]."""
        return self._residual(theta)[None]

    loss_floor: ClassVar[float] = 0.0
    """The infimum, 0; attained."""

    def minimum(self, dtype=None) -> Point:
        r"""The flattest minimum: all factors of modulus $|a|^{1/h}$, the first one carrying the sign.

        Examples
        --------
        >>> ScalarProduct(depth=2, target=-4.0).minimum().tolist()
        [-2.0, 2.0]
        """
        target = jnp.asarray(self.target, dtype or jnp.result_type(float))
        size = jnp.sqrt(jnp.abs(target)) if self.depth == 2 else jnp.abs(target) ** (1 / self.depth)
        return jnp.full(self.depth, size).at[0].multiply(jnp.sign(target))

    def _residual(self, theta):
        if theta.shape != (self.depth,):
            raise ValueError(f"expected theta of shape ({self.depth},), got {theta.shape}; pass one point, unbatched")
        target = jnp.asarray(self.target, theta.dtype)
        return target - _product(theta)


@jax.custom_jvp
def _product(theta):
    """The product of all entries; not `jnp.prod`, whose gradient scatters."""
    product = theta[0]
    for i in range(1, theta.shape[0]):
        product = product * theta[i]
    return product


@_product.defjvp
def _product_jvp(primals, tangents):
    """The gradient as one vector of cofactors: differentiating `theta[i]` would pad, lane by lane."""
    (theta,), (moved,) = primals, tangents
    if theta.shape[0] == 2:
        return _product(theta), jnp.sum(theta[::-1] * moved)
    others = [jnp.concatenate([theta[:i], theta[i + 1 :]]) for i in range(theta.shape[0])]
    cofactors = jnp.stack([_product(other) for other in others]) if theta.shape[0] > 1 else jnp.ones_like(theta)
    return _product(theta), jnp.sum(cofactors * moved)


class VectorProduct(eqx.Module):
    r"""Inner product of two vectors, $L(u, v) = c\,(a - u \cdot v)^2$ on $\theta = (u, v) \in \mathbb{R}^{2d}$.

    Everything known for $d = 1$ holds with $x^2 + y^2$ read as $|u|^2 + |v|^2$ and $xy$ as $u \cdot v$
    (`gdstab.theory.scalar`; Liang and Montufar, arXiv:2509.25351).

    Parameters
    ----------
    dim
        Length $d$ of each vector; `theta` holds $u$ first, then $v$.
    target, scale
        The numbers $a$ and $c > 0$.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = VectorProduct(dim=2, target=1.0, scale=0.5)
    >>> float(loss(jnp.array([1.0, 2.0, 1.0, 1.0])))
    2.0
    """

    dim: int = eqx.field(static=True, converter=whole)
    target: ArrayLike = eqx.field(default=1.0, converter=as_float)
    scale: ArrayLike = eqx.field(default=0.5, converter=as_float)

    def __check_init__(self):
        check_count(self.dim, "dim")
        _check_constants(self.target, self.scale)

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point."""
        residual = self._residual(theta)
        return jnp.asarray(self.scale, theta.dtype) * residual * residual

    def residual(self, theta: Point) -> Float[Array, "1"]:
        """The vector whose zeros are exactly the minima, [1]."""
        return self._residual(theta)[None]

    loss_floor: ClassVar[float] = 0.0
    """The infimum, 0; attained."""

    def minimum(self, dtype=None) -> Point:
        r"""One of the flattest minima: $u = \pm v$ with $|u|^2 = |a|$, along the first axis.

        Examples
        --------
        >>> VectorProduct(dim=2, target=4.0).minimum().tolist()
        [2.0, 0.0, 2.0, 0.0]
        """
        target = jnp.asarray(self.target, dtype or jnp.result_type(float))
        size = jnp.sqrt(jnp.abs(target))
        point = jnp.zeros(2 * self.dim, target.dtype)
        return point.at[0].set(size * jnp.sign(target)).at[self.dim].set(size)

    def _residual(self, theta):
        if theta.shape != (2 * self.dim,):
            raise ValueError(
                f"expected theta of shape ({2 * self.dim},), got {theta.shape}; u first, then v, unbatched"
            )
        u, v = jnp.split(theta, 2)
        return jnp.asarray(self.target, theta.dtype) - tree_sum(u * v)  # not a dot product, which batches badly


class RegularisedProduct(eqx.Module):
    r"""Product of two scalars with weight decay, $L(x, y) = c\,(a - xy)^2 + \tfrac{\lambda}{2}(x^2 + y^2)$.

    For $0 < \lambda < 2 c |a|$ there are two minima, $x = \pm\sqrt{|a| - \lambda/2c}$, $y = \operatorname{sgn}(a)\,x$,
    and at large step sizes the edge of their basins is fractal; $\lambda = 0$ is `ScalarProduct`, whose basin has a
    smooth edge. From $\lambda = 2 c |a|$ on, 0 is the only minimum.

    Parameters
    ----------
    decay
        The weight $\lambda \ge 0$.
    target, scale
        The numbers $a$ and $c > 0$.

    Examples
    --------
    >>> loss = RegularisedProduct(decay=0.5, target=1.0, scale=0.5)
    >>> at = loss.minimum()
    >>> bool(abs(loss(at) - loss.loss_floor) < 1e-6), loss.loss_floor
    (True, 0.375)
    """

    decay: ArrayLike = eqx.field(default=0.2, converter=as_float)
    target: ArrayLike = eqx.field(default=1.0, converter=as_float)
    scale: ArrayLike = eqx.field(default=0.5, converter=as_float)

    def __check_init__(self):
        _check_constants(self.target, self.scale)
        if is_concrete(self.decay) and not (jnp.shape(self.decay) == () and 0 <= float(self.decay) < math.inf):
            raise ValueError(f"decay: expected one finite number, 0 or more, got {self.decay}; 0 switches it off")

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point."""
        if theta.shape != (2,):
            raise ValueError(f"expected theta of shape (2,), got {theta.shape}; pass one point, unbatched")
        scale, target, decay = (jnp.asarray(c, theta.dtype) for c in (self.scale, self.target, self.decay))
        residual = target - _product(theta)
        return scale * residual * residual + decay / 2 * tree_sum(theta * theta)

    def residual(self, theta: Point) -> Float[Array, "2"]:
        r"""The vector whose zeros are exactly the minima, [2]; its squares add up to $L - \min L$ below $2c|a|$.

        There $L - \min L = \tfrac{\lambda}{2}(x - sy)^2 + c\,(xy - a + s\lambda/2c)^2$ with $s = \operatorname{sgn} a$.
        """
        scale, target, decay = (jnp.asarray(c, theta.dtype) for c in (self.scale, self.target, self.decay))
        sign = jnp.sign(target)
        apart = jnp.sqrt(decay / 2) * (theta[0] - sign * theta[1])
        product = jnp.sqrt(scale) * (_product(theta) - target + sign * decay / (2 * scale))
        return jnp.where(decay < 2 * scale * jnp.abs(target), jnp.stack([apart, product]), theta)

    @property
    def loss_floor(self):
        r"""The infimum: $\lambda |a| - \lambda^2/4c$, and $c a^2$ from $\lambda = 2 c |a|$ on; attained."""
        size = abs(self.target)
        decay = min(self.decay, 2 * self.scale * size)
        return decay * size - decay * decay / (4 * self.scale)

    def minimum(self, dtype=None) -> Point:
        """The minimum with a positive second entry; 0 where that is the only one.

        Examples
        --------
        >>> RegularisedProduct(decay=0.75, target=-1.0).minimum().tolist()
        [-0.5, 0.5]
        """
        target = jnp.asarray(self.target, dtype or jnp.result_type(float))
        size = jnp.sqrt(jnp.maximum(jnp.abs(target) - self.decay / (2 * self.scale), 0))
        return jnp.stack([jnp.sign(target) * size, size])


def _check_constants(target, scale):
    for name, value in (("target", target), ("scale", scale)):
        if is_concrete(value) and jnp.shape(value) != ():
            raise ValueError(f"{name}: expected one number, got shape {jnp.shape(value)}; vmap over losses instead")
    if is_concrete(target) and not math.isfinite(float(target)):
        raise ValueError(f"target: expected a finite number, got {target}; pass the number that the product should be")
    if is_concrete(scale):
        scale = check_positive(scale, "scale")
