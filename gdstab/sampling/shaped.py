"""Sources of pytrees: points that are drawn as vectors, in the shape of the parameters."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from gdstab._shapes import Shape
from gdstab._types import Theta


class ShapedSource(eqx.Module):
    """What a source of vectors draws, as pytrees: made by `shaped`. Point i is point i of the source."""

    source: Any
    shape: Shape = eqx.field(static=True)

    def __call__(self, indices: Int[Array, " points"], group: Any = 0) -> Any:
        """The points number `group * 4096 + indices`, `[points, ...]` leaf by leaf."""
        return self.shape.split(self.source(indices, group))

    @property
    def num_points(self) -> int:
        """As the source."""
        return self.source.num_points

    @property
    def parts(self) -> int:
        """As the source, if it says so."""
        return self.source.parts

    @property
    def design(self) -> str:
        """As the source, if it says so."""
        return self.source.design

    @property
    def take(self) -> Any:
        """Points of any numbers, on the host, if the source has them."""
        take = self.source.take
        return lambda numbers: self.shape.split(take(numbers))

    @property
    def tables(self) -> Any:
        """As the source, if that is a grid."""
        return self.source.tables

    @property
    def cells(self) -> Any:
        """As the source, if that is a grid."""
        return self.source.cells

    @property
    def to_grid(self) -> Any:
        """As the source, if that is a grid."""
        return self.source.to_grid


def shaped(source: Any, like: Theta) -> ShapedSource:
    """The points of a source in the shape of `like`: a pytree, an array of any number of axes, a single number.

    Entries are taken in the order of `jax.flatten_util.ravel_pytree(like)`, so that a grid, a box, a ball or a Sobol
    set of as many dimensions serves any parameters.

    Raises
    ------
    ValueError
        If the source draws vectors of another length.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from gdstab.sampling import RandomSource
    >>> source = shaped(RandomSource.box(jax.random.key(0), 100, ((-1, 1),) * 3), {"w": jnp.ones((1, 2)), "b": 0.0})
    >>> source(jnp.arange(5))["w"].shape
    (5, 1, 2)
    """
    shape = Shape(like)
    drawn = eqx.filter_eval_shape(source, jnp.arange(1)).shape
    if drawn != (1, shape.dim):
        raise ValueError(
            f"expected a source of vectors with the {shape.dim} entries of theta, got {drawn[1:]}; draw so many"
        )
    return ShapedSource(source, shape)
