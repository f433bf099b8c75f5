r"""Shallow ReLU networks against polynomial targets: types of neurons, critical points, loss levels, invariants.

Source: [C] Cheridito, Jentzen and Rossmannek, *Gradient descent provably escapes saddle points in the training of
shallow ReLU networks*.
"""

from gdstab.theory.relu.critical import CriticalType, classify, escape_direction, is_critical
from gdstab.theory.relu.levels import NO_LEVEL, ZERO_LEVEL, level, levels, match_levels, realisation_at_level, threshold
from gdstab.theory.relu.neurons import (
    NeuronType,
    breakpoints,
    invariants,
    invariants_step,
    is_flat,
    join_parameters,
    leaky_reduction,
    neuron_types,
    realise,
    split_parameters,
)
from gdstab.theory.relu.points import ROLES, critical_point, global_minimum
from gdstab.theory.relu.risk import gradient, modified_hessian, risk, risk_and_steepness

__all__ = [
    "NO_LEVEL",
    "ROLES",
    "ZERO_LEVEL",
    "CriticalType",
    "NeuronType",
    "breakpoints",
    "classify",
    "critical_point",
    "escape_direction",
    "global_minimum",
    "gradient",
    "invariants",
    "invariants_step",
    "is_critical",
    "is_flat",
    "join_parameters",
    "leaky_reduction",
    "level",
    "levels",
    "match_levels",
    "modified_hessian",
    "neuron_types",
    "realisation_at_level",
    "realise",
    "risk",
    "risk_and_steepness",
    "split_parameters",
    "threshold",
]
