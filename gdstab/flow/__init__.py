"""The continuous side: gradient flow, its second-order correction, and how far descent strays. Imports diffrax."""

from gdstab.flow.deviation import Deviation, ModifiedLoss, deviation
from gdstab.flow.gradient_flow import Flow, gradient_flow, gradient_flows, settled
from gdstab.flow.method import AdamsBashforth2
from gdstab.flow.separation import Exceedance, first_exceedance
from gdstab.flow.status import FlowStatus, diagnose

__all__ = [
    "AdamsBashforth2",
    "Deviation",
    "Exceedance",
    "Flow",
    "FlowStatus",
    "ModifiedLoss",
    "deviation",
    "diagnose",
    "first_exceedance",
    "gradient_flow",
    "gradient_flows",
    "settled",
]
__dir__ = __all__.copy  # nothing else is for users
