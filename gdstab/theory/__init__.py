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
from gdstab.theory.knowledge import Known as Known
from gdstab.theory.knowledge import Product as Product
from gdstab.theory.knowledge import known as known

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
