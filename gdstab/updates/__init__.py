r"""How one step is taken: gradient descent, optax optimisers, stochastic rules, as discrete dynamical systems.

`gradient_descent()` is the map $\theta \mapsto \theta - \eta \nabla L(\theta)$; `from_optax(optax.adam)` wraps the
function that builds an optimiser, which is given the step size in every step; `named("heavy-ball", beta=0.9)` is for
those who choose by name. A rule of one's own is an `UpdateRule` of three functions: its docstring is the contract, and
`gdstab.testing.check_rule(rule, loss, theta)` tries it.
"""

from gdstab.updates.catalogue import NAMES, named, named_family
from gdstab.updates.optimisers import from_optax
from gdstab.updates.rules import UpdateRule, gradient_descent
from gdstab.updates.stochastic import averaged, label_noise, langevin, sgd, with_noise
from gdstab.updates.variants import from_family, frozen, second_moment

__all__ = [
    "NAMES",
    "UpdateRule",
    "averaged",
    "from_family",
    "from_optax",
    "frozen",
    "gradient_descent",
    "label_noise",
    "langevin",
    "named",
    "named_family",
    "second_moment",
    "sgd",
    "with_noise",
]
__dir__ = __all__.copy  # nothing else is for users
