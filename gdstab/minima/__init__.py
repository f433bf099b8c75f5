r"""The set of global minima $M = \{\theta : r(\theta) = 0\}$ as a manifold.

Every function takes a loss that says `residual(theta)`, an array (or a tree of arrays) that vanishes exactly on M;
another residual can be passed as an argument. All work on one point; what handles samples takes a `map`
(`gdstab.ensembles.map_points` for many points, one after another by default).
"""

from gdstab.minima.curves import Curve, stable_length, stable_part, trace_curve
from gdstab.minima.flatness import Flattest, flattest
from gdstab.minima.manifold import Projection, dimension, normal_space, project, sample, tangent_space

__all__ = [
    "Curve",
    "Flattest",
    "Projection",
    "dimension",
    "flattest",
    "normal_space",
    "project",
    "sample",
    "stable_length",
    "stable_part",
    "tangent_space",
    "trace_curve",
]
__dir__ = __all__.copy  # nothing else is for users
