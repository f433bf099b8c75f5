"""What is minimised: callable pytrees, written for one point; any plain function of `theta` serves as well."""

from gdstab.losses.factorization import MatrixFactorisation, MatrixRecovery
from gdstab.losses.linear import LinearNetwork
from gdstab.losses.quadratic_networks import PhaseRetrieval, QuadraticNetwork
from gdstab.losses.relu import ShallowReLU
from gdstab.losses.relu_target import PiecewiseLinear, Polynomial
from gdstab.losses.scalar import RegularisedProduct, ScalarProduct, VectorProduct
from gdstab.losses.testbeds import DoubleWell, Himmelblau, Quadratic, Rosenbrock

__all__ = [
    "DoubleWell",
    "Himmelblau",
    "LinearNetwork",
    "MatrixFactorisation",
    "MatrixRecovery",
    "PhaseRetrieval",
    "PiecewiseLinear",
    "Polynomial",
    "Quadratic",
    "QuadraticNetwork",
    "RegularisedProduct",
    "Rosenbrock",
    "ScalarProduct",
    "ShallowReLU",
    "VectorProduct",
]
