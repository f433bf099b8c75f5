r"""How far descent strays from gradient flow: bounds by the curvature around the flow, and what they need.

Source: [D] Elkabetz and Cohen, *Continuous vs. discrete optimization of deep neural networks*, sections 2, 3, 5 and
Appendix G.
"""

from gdstab.theory.flow_bounds.balance import balanced_distance, balanced_nearby, nearest_balanced, unbalancedness
from gdstab.theory.flow_bounds.deep_linear import (
    Guarantee,
    descent_guarantee,
    flow_constants,
    flow_time,
    growth_integral,
    unbalanced_guarantee,
)
from gdstab.theory.flow_bounds.euler import descent_bound, euler_bound, exponent, max_step, max_step_smooth
from gdstab.theory.flow_bounds.tube import TubeConstants, interval_maxima, tube_constants

__all__ = [
    "Guarantee",
    "TubeConstants",
    "balanced_distance",
    "balanced_nearby",
    "descent_bound",
    "descent_guarantee",
    "euler_bound",
    "exponent",
    "flow_constants",
    "flow_time",
    "growth_integral",
    "interval_maxima",
    "max_step",
    "max_step_smooth",
    "nearest_balanced",
    "tube_constants",
    "unbalanced_guarantee",
    "unbalancedness",
]
