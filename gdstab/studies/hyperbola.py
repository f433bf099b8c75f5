"""Plain descent on c (a - xy)^2, a > 0, of which most is known."""

from typing import Any

from gdstab import theory
from gdstab._types import LossFn


def under_descent(options: Any, loss: LossFn) -> theory.Product | None:
    """The numbers of the loss where it is such a product, and the rule is descent without weight decay."""
    return theory.known(loss).hyperbola if options.rule == "descent" and not options.weight_decay else None
