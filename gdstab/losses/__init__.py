"""What is minimised: callable pytrees, written for one point; any plain function of `theta` serves as well."""

from gdstab.losses.linear import LinearNetwork
from gdstab.losses.scalar import RegularisedProduct, ScalarProduct, VectorProduct
from gdstab.losses.testbeds import DoubleWell, Himmelblau, Quadratic, Rosenbrock

__all__ = [
    "DoubleWell",
    "Himmelblau",
    "LinearNetwork",
    "Quadratic",
    "RegularisedProduct",
    "Rosenbrock",
    "ScalarProduct",
    "VectorProduct",
]
