"""What is minimised: callable pytrees, written for one point; any plain function of `theta` serves as well."""

from gdstab.losses.factorization import MatrixFactorisation, MatrixRecovery
from gdstab.losses.linear import LinearNetwork
from gdstab.losses.network_models import ConvolutionalNetwork, FullyConnected
from gdstab.losses.networks import NetworkRisk
from gdstab.losses.quadratic_networks import PhaseRetrieval, QuadraticNetwork
from gdstab.losses.relu import ShallowReLU
from gdstab.losses.relu_target import PiecewiseLinear, Polynomial
from gdstab.losses.scalar import RegularisedProduct, ScalarProduct, VectorProduct
from gdstab.losses.testbeds import DoubleWell, Himmelblau, Quadratic, Rosenbrock
from gdstab.losses.worst_case import WorstCase

__all__ = [
    "ConvolutionalNetwork",
    "DoubleWell",
    "FullyConnected",
    "Himmelblau",
    "LinearNetwork",
    "MatrixFactorisation",
    "MatrixRecovery",
    "NetworkRisk",
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
    "WorstCase",
]
__dir__ = __all__.copy  # nothing else is for users
