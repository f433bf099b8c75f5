"""Independent random points: boxes, balls, normal ones, and the layers of networks."""

import math
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gdstab._compiling import jit
from gdstab._shapes import Shape
from gdstab._types import Theta
from gdstab._validate import check_box, check_count, check_dtype, check_positive, whole
from gdstab.sampling import draws, networks
from gdstab.sampling.shaped import shaped
from gdstab.sampling.sources import Points

VECTOR = 16
"""Points are made in multiples of this: no compiler then treats a rest unlike the others."""


def box(key: Array, num: int, box: Any, *, dtype: Any = None) -> Points:
    """Uniform points in a box, [num, dim].

    Examples
    --------
    >>> import jax
    >>> box(jax.random.key(0), 3, ((0, 1), (2, 3))).shape
    (3, 2)
    """
    return _all_points(RandomSource.box(key, num, box, dtype=dtype))


def gaussian(key: Array, num: int, dim: int, scale: float = 1.0, *, dtype: Any = None) -> Points:
    """Normal points with independent entries of standard deviation `scale`, [num, dim].

    Examples
    --------
    >>> import jax
    >>> gaussian(jax.random.key(0), 3, 2, scale=0.1).shape
    (3, 2)
    """
    return _all_points(RandomSource.gaussian(key, num, dim, scale, dtype=dtype))


def ball(key: Array, num: int, dim: int, radius: float = 1.0, *, dtype: Any = None) -> Points:
    """Uniform points in a ball around the origin, [num, dim].

    Examples
    --------
    >>> import jax
    >>> ball(jax.random.key(0), 3, 2, radius=2.0).shape
    (3, 2)
    """
    return _all_points(RandomSource.ball(key, num, dim, radius, dtype=dtype))


class RandomSource(eqx.Module):
    """Random points by number; made by `RandomSource.box`, `.gaussian`, `.ball`, `.xavier` or `.balanced`.

    Raises
    ------
    ValueError
        By any of these: if the key is not one of JAX's Threefry keys, or an argument is out of its range.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> source = RandomSource.gaussian(jax.random.key(0), 10**12, dim=2)
    >>> source(jnp.arange(4), group=10**7).shape
    (4, 2)
    """

    key: Array
    low: Float[Array, " dim"]  # added to the draws
    size: Float[Array, " dim"]  # multiplies them; draws that are normal have variance 1/2
    kind: str = eqx.field(static=True)
    num_points: int = eqx.field(static=True, converter=whole)
    widths: tuple[int, ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        draws.check_key(self.key)
        check_count(self.num_points, "num")
        entries = networks.num_normals(self.widths) if self.kind == "balanced" else len(self.low) + 2
        if entries > 2**20:
            raise ValueError(f"expected at most 2^20 random numbers per point, got {entries}; lower the dimension")

    @classmethod
    def box(cls, key: Array, num: int, box: Any, *, dtype: Any = None, like: Theta | None = None):
        """Uniform in a box ((low, high), ...); of pytrees `like` the one given, for which one pair stands for all."""
        if like is not None:
            dtype, dim = dtype or Shape(like).dtype, Shape(like).dim
            box = np.tile(np.asarray(box, float), (dim, 1)) if np.shape(box) == (2,) else box
            return shaped(cls.box(key, num, box, dtype=dtype), like)
        sides, dtype = check_box(box), check_dtype(dtype)
        low, size = sides[:, 0].astype(dtype), (sides[:, 1] - sides[:, 0]).astype(dtype)
        return cls(key, jnp.asarray(low), jnp.asarray(size), "box", num)

    @classmethod
    def gaussian(cls, key: Array, num: int, dim=None, scale=1.0, *, dtype: Any = None, like: Theta | None = None):
        """Normal, independent entries of standard deviation `scale`, `[dim]` or `like` a pytree."""
        if like is not None:
            return shaped(cls.gaussian(key, num, Shape(like).dim, scale, dtype=dtype or Shape(like).dtype), like)
        return cls(key, *_isotropic(dim, check_positive(scale, "scale") * math.sqrt(2), dtype), "gaussian", num)

    @classmethod
    def ball(cls, key: Array, num: int, dim=None, radius=1.0, *, dtype: Any = None, like: Theta | None = None):
        """Uniform in the ball of a radius around the origin, of `[dim]` or of pytrees `like` the one given."""
        if like is not None:
            return shaped(cls.ball(key, num, Shape(like).dim, radius, dtype=dtype or Shape(like).dtype), like)
        return cls(key, *_isotropic(dim, check_positive(radius, "radius"), dtype), "ball", num)

    @classmethod
    def xavier(cls, key: Array, num: int, widths: Any, *, uniform: bool = True, dtype: Any = None) -> "RandomSource":
        r"""Layers $W_1, \ldots, W_h$ with independent entries of variance $2 / (n_{j-1} + n_j)$, one after the other.

        $W_j$ is [widths[j], widths[j - 1]], row by row. Entries are uniform in $\pm\sqrt{6 / (n_{j-1} + n_j)}$, or
        normal (Glorot and Bengio 2010, eq. 16).

        >>> import jax, jax.numpy as jnp
        >>> RandomSource.xavier(jax.random.key(0), 9, (2, 3, 1))(jnp.arange(9)).shape
        (9, 9)
        """
        deviations, dtype = networks.glorot_deviations(networks.check_widths(widths)), check_dtype(dtype)
        if uniform:
            reach = (np.sqrt(3) * deviations).astype(dtype)
            return cls(key, jnp.asarray(-reach), jnp.asarray(2 * reach), "box", num)
        deviations = jnp.asarray((np.sqrt(2) * deviations).astype(dtype))
        return cls(key, jnp.zeros_like(deviations), deviations, "gaussian", num)

    @classmethod
    def balanced(cls, key: Array, num: int, widths: Any, scale: float = 1.0, *, dtype: Any = None) -> "RandomSource":
        r"""Layers with $W_{j+1}^T W_{j+1} = W_j W_j^T$, whose product is a normal matrix, or the part of it of rank r.

        The product is $[A]_r$, with independent entries of A of standard deviation `scale`, and r the least width: A
        itself where no hidden layer is narrower than both ends. Given the product, the factors are uniform over all
        that are balanced: see `networks.balanced_layers`. Order as in `xavier`.

        >>> import jax, jax.numpy as jnp
        >>> first, second = RandomSource.balanced(jax.random.key(0), 1, (1, 2, 1))(jnp.arange(1)).reshape(2, 2)
        >>> bool(jnp.allclose(jnp.abs(first), jnp.abs(second)))
        True
        """
        widths = networks.check_widths(widths)
        dim = sum(a * b for a, b in pairwise(widths))
        # All layers scale alike: every one contributes the root of the product's scale.
        root = (check_positive(scale, "scale") * math.sqrt(2)) ** (1 / (len(widths) - 1))
        return cls(key, *_isotropic(dim, root, dtype), "balanced", num, widths)

    def __call__(self, indices: Int[Array, " points"], group: Any = 0) -> Points:
        """The points number `group * 4096 + indices`, in any order; one group for all, or one for each."""
        num = len(indices)
        rest = (0, -num % VECTOR)
        indices = jnp.pad(indices, rest, mode="edge")
        group = jnp.pad(group, rest, mode="edge") if jnp.ndim(group) else group
        keys, dim, dtype = draws.group_keys(self.key, indices, group), len(self.low), self.low.dtype
        if self.kind == "box":
            drawn = draws.uniforms(keys, indices, dim, dtype)
        elif self.kind == "gaussian":
            drawn = draws.half_normals(keys, indices, dim, dtype)
        elif self.kind == "ball":
            # On the sphere two dimensions up, all but two coordinates are uniform in the ball (Harman and Lacko 2010).
            drawn = draws.half_normals(keys, indices, dim + 2, dtype)
            zero = self._zero(drawn)  # it makes the compiler round alike in every shape: see `networks`
            drawn = draws.store(drawn, zero)
            length = jnp.sqrt(draws.total(drawn * drawn + zero))[None] + zero
            drawn = drawn[:dim] / length + zero
        else:
            normals = draws.half_normals(keys, indices, networks.num_normals(self.widths), dtype)
            zero = self._zero(normals)
            drawn = networks.balanced_layers(draws.store(normals, zero), self.widths, zero)
        return self.low[None, :] + self.size[None, :] * drawn[:, :num].astype(dtype).T

    def _zero(self, drawn):
        return self.low[0].astype(drawn.dtype)


def _all_points(source):
    return _made(source, source.num_points)


@jit
def _made(source, num):
    return source(jnp.arange(num))


def _isotropic(dim, size, dtype):
    shape, dtype = (check_count(dim, "dim"),), check_dtype(dtype)
    return jnp.zeros(shape, dtype), jnp.full(shape, size, dtype)
