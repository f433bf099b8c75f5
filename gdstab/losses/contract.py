"""What a loss may say beside its value. Any callable of one point is a loss; what else it says makes more possible.

It is pure, takes one `theta` (any pytree of floating-point arrays, of one dtype), and returns a real scalar of that
dtype. It may close over arrays and be called by many threads. `gdstab.testing.check_loss(loss, theta)` tries all of
this, and what the members of `Informed` promise.
"""

from typing import Any, Protocol, runtime_checkable

from gdstab._types import Scalar, Theta


@runtime_checkable
class Loss(Protocol):
    """A loss: a scalar at one point. It may say more, in the members of `Informed`, each by itself.

    Ours are `equinox.Module`s whose constants are arrays, which the engine traces, so that a sweep over a target
    compiles once; a plain function is compiled anew for each function object.

    Examples
    --------
    >>> isinstance(lambda theta: theta @ theta, Loss)
    True
    """

    def __call__(self, theta: Theta) -> Scalar:
        """The value at one point, of the dtype of the parameters."""


class Informed(Loss, Protocol):
    """All that a loss may say. No part of the package asks for more than one of these at a time."""

    loss_floor: Any
    """Its infimum, a number or an array; -inf if there is none. Without it 0 is assumed by the stopping rule, and an
    end with a vanishing curvature is not called a minimum. A value below it is an error, never a verdict."""

    lanes_together: int
    """The least number of lanes in a block of the engine on a CPU, where fewer are slow."""

    def residual(self, theta: Theta) -> Any:
        """An array that is zero exactly on the set of global minima: what `minima` projects and traces with."""

    def on_lanes(self, theta: Theta) -> Any:
        """The value at many points, the lanes on a trailing axis of every leaf, `[lanes]`: products of small matrices
        run several times faster so than under `vmap`, which puts lanes to the front.
        """

    def one_block(self, theta: Theta) -> bool:
        """Whether the last bits of its values depend on how many lanes are run side by side, as those of large
        products do; the engine then keeps to one block, so that verdicts do not depend on it.
        """
