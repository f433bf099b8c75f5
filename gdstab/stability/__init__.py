r"""Stability of an update rule at a point: multipliers of its map, thresholds, kinds of critical point, det(I - eta H).

Everything is linearisation, written for one point. `extend`, `multipliers`, `threshold_of` take any update rule as an
argument, whose state may hold momentum: the Jacobian of the whole map is not symmetric then, and `transient_growth`
says what that does. The rest is about plain gradient descent, $G(\theta) = \theta - \eta \nabla L(\theta)$ with
$DG = I - \eta \nabla^2 L$.
"""

from gdstab.stability.centre_stable import CentreStable, OnGraph, centre_stable
from gdstab.stability.fixed_points import FixedPoint, extend, fixed_point
from gdstab.stability.growth import TransientGrowth, kreiss_bound, numerical_radius, numerical_range, transient_growth
from gdstab.stability.implicit import critical_point
from gdstab.stability.kinds import Classification, Kind, Stability, center_stable_dimension, classify, lyapunov_stable
from gdstab.stability.maps import Splitting, jacobian, multipliers, spectral_radius, splitting
from gdstab.stability.singular import Determinant, NonSingularity, jacobian_determinant, non_singularity, singular_set
from gdstab.stability.thresholds import Crossing, preconditioned_sharpness, threshold, threshold_from, threshold_of

__all__ = [
    "CentreStable",
    "Classification",
    "Crossing",
    "Determinant",
    "FixedPoint",
    "Kind",
    "NonSingularity",
    "OnGraph",
    "Splitting",
    "Stability",
    "TransientGrowth",
    "center_stable_dimension",
    "centre_stable",
    "classify",
    "critical_point",
    "extend",
    "fixed_point",
    "jacobian",
    "jacobian_determinant",
    "kreiss_bound",
    "lyapunov_stable",
    "multipliers",
    "non_singularity",
    "numerical_radius",
    "numerical_range",
    "preconditioned_sharpness",
    "singular_set",
    "spectral_radius",
    "splitting",
    "threshold",
    "threshold_from",
    "threshold_of",
    "transient_growth",
]
__dir__ = __all__.copy  # nothing else is for users
