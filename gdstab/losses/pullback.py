"""A loss in other coordinates, of which nothing is lost that the change of coordinates allows to keep."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab._types import Theta

_ANYWHERE = ("loss_floor", "residual", "one_block", "lanes_together")
_ON_LANES = "on_lanes"


class Pullback(eqx.Module):
    r"""The loss $L \circ \phi$: `loss` of what `map` makes of the parameters.

    What the loss says beside its value (`losses.contract`) the pullback says too, exactly where the loss does:
    `residual` and `one_block` of the mapped parameters, `loss_floor` and `lanes_together` as they are. `on_lanes` is
    there if the map says by an attribute `on_lanes = True` that it takes lanes on a trailing axis.

    Parameters
    ----------
    loss
        Any loss, of the parameters that `map` returns.
    map
        From the new parameters to those of `loss`. It must be onto for `loss_floor` to stay the infimum; else give it.
    floor
        The infimum, in place of what `loss` declares.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.losses import ScalarProduct
    >>> polar = Pullback(ScalarProduct(), lambda s: s[0] * jnp.stack([jnp.cos(s[1]), jnp.sin(s[1])]))
    >>> float(polar(jnp.array([2**0.5, jnp.pi / 4])).round(12)), polar.loss_floor, hasattr(polar, "on_lanes")
    (0.0, 0.0, False)
    """

    loss: Callable
    map: Callable
    floor: Any = None

    def __call__(self, theta: Theta):
        """The value at one point; whatever the loss returns: `check_loss` says what is wrong with it."""
        return self.loss(self.map(theta))

    def __getattr__(self, name: str):
        """What the loss says beside its value, where the map allows it."""
        if name == "loss_floor" and self.floor is not None:
            return self.floor
        if name in _ANYWHERE or (name == _ON_LANES and getattr(self.map, _ON_LANES, False)):
            found = getattr(self.loss, name)
            return _Mapped(self, name) if callable(found) else found
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


class _Mapped(eqx.Module):
    """A method of the loss inside a pullback, of the parameters of the pullback; equal for equal pullbacks."""

    pullback: Pullback
    name: str = eqx.field(static=True)

    def __call__(self, theta: Theta):
        return getattr(self.pullback.loss, self.name)(self.pullback.map(theta))


class Identity(eqx.Module):
    """The parameters as they are: for a loss whose infimum is told by somebody else."""

    on_lanes = True

    def __call__(self, theta: Theta) -> Theta:
        """The parameters."""
        return theta


class First(eqx.Module):
    """The first of a pair: for a loss beside whose parameters something else goes along."""

    on_lanes = True

    def __call__(self, pair: tuple) -> Theta:
        """The parameters."""
        return pair[0]


class Unravel(eqx.Module):
    """From one vector, which holds all entries one after the other, to a pytree of arrays; lanes stay behind them.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> [leaf.shape for leaf in Unravel.of(((2, 3), (1, 2)))(jnp.arange(8.0))]
    [(2, 3), (1, 2)]
    """

    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)
    on_lanes = True

    @classmethod
    def of(cls, shapes: Iterable[Sequence[int]]) -> "Unravel":
        """To a tuple of arrays of these shapes."""
        shapes = tuple(tuple(shape) for shape in shapes)
        return cls(shapes, jax.tree.structure((0,) * len(shapes)))

    @classmethod
    def like(cls, theta: Theta) -> "Unravel":
        """To a pytree like this one, of arrays or of their shapes."""
        leaves, structure = jax.tree.flatten(theta)
        return cls(tuple(tuple(leaf.shape) for leaf in leaves), structure)

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    def __call__(self, theta) -> Theta:
        """The pytree."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1].tolist()
        parts = zip(jnp.split(theta, ends), self.shapes, strict=True)  # the gradient of one split is one concatenation
        return jax.tree.unflatten(self.structure, [part.reshape(*shape, *theta.shape[1:]) for part, shape in parts])
