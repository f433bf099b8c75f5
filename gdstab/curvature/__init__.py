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
from gdstab.curvature.stochastic import Estimate, SpectralDensity, spectral_density, trace

__all__ = [
    "DENSE_LIMIT",
    "Eigenpair",
    "Estimate",
    "Extremes",
    "Inertia",
    "SpectralDensity",
    "count_signs",
    "eigenvalues",
    "extreme_eigenvalues",
    "flatten",
    "hessian",
    "hvp",
    "inertia",
    "inertia_of_matrix",
    "lanczos",
    "matrix_eigenvalues",
    "sharpness",
    "spectral_density",
    "trace",
]
