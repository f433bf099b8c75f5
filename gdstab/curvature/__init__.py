r"""Curvature of a loss at one point: exact Hessians, Hessian-vector products, spectra, extreme eigenvalues.

Everything is pure, takes one point `theta` (any pytree of floating-point arrays with $n$ entries in all), follows its
dtype, and can be jitted and vmapped; batches belong to `ensembles.map_points`. Products of matrices run at the highest
precision, because a TF32 product can move an eigenvalue across a stability threshold.
"""

from gdstab.curvature.exact import (
    Inertia,
    count_signs,
    eigenvalues,
    flatten,
    hessian,
    hvp,
    inertia,
    inertia_of_matrix,
    matrix_eigenvalues,
)
from gdstab.curvature.extremes import DENSE_LIMIT, Eigenpair, Extremes, extreme_eigenvalues, lanczos, sharpness
from gdstab.curvature.operators import (
    Operator,
    block,
    empirical_fisher,
    fisher,
    gauss_newton,
    hessian_operator,
    ntk,
)
from gdstab.curvature.pairs import Eigenpairs, operator_eigenpairs, top_eigenpairs
from gdstab.curvature.stochastic import Estimate, SpectralDensity, spectral_density, trace

__all__ = [
    "DENSE_LIMIT",
    "Eigenpair",
    "Eigenpairs",
    "Estimate",
    "Extremes",
    "Inertia",
    "Operator",
    "SpectralDensity",
    "block",
    "count_signs",
    "eigenvalues",
    "empirical_fisher",
    "extreme_eigenvalues",
    "fisher",
    "flatten",
    "gauss_newton",
    "hessian",
    "hessian_operator",
    "hvp",
    "inertia",
    "inertia_of_matrix",
    "lanczos",
    "matrix_eigenvalues",
    "ntk",
    "operator_eigenpairs",
    "sharpness",
    "spectral_density",
    "top_eigenpairs",
    "trace",
]
__dir__ = __all__.copy  # nothing else is for users
