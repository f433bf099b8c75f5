"""What must come out: closed forms and bounds, each citing its statement, without simulation."""

from gdstab.theory import (
    catapult,
    collapse,
    counterexamples,
    factorisations,
    flow_bounds,
    hessian_bounds,
    linear,
    optimisers,
    relu,
    scalar,
    strata,
    symmetric_line,
)
from gdstab.theory.knowledge import Known, Product, known

__all__ = [
    "Known",
    "Product",
    "catapult",
    "collapse",
    "counterexamples",
    "factorisations",
    "flow_bounds",
    "hessian_bounds",
    "known",
    "linear",
    "optimisers",
    "relu",
    "scalar",
    "strata",
    "symmetric_line",
]
__dir__ = __all__.copy  # nothing else is for users
