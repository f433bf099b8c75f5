"""How one step is taken: gradient descent, and any deterministic optax optimiser, as discrete dynamical systems."""

from gdstab.updates.catalogue import NAMES, named, named_family
from gdstab.updates.optimisers import from_optax
from gdstab.updates.rules import UpdateRule, gradient_descent
from gdstab.updates.variants import from_family, frozen, second_moment

__all__ = [
    "NAMES",
    "UpdateRule",
    "from_family",
    "from_optax",
    "frozen",
    "gradient_descent",
    "named",
    "named_family",
    "second_moment",
]
