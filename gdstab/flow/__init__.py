"""The continuous side: gradient flow, its second-order correction, and how far descent strays. Imports diffrax."""

from gdstab.flow.deviation import Deviation as Deviation
from gdstab.flow.deviation import ModifiedLoss as ModifiedLoss
from gdstab.flow.deviation import deviation as deviation
from gdstab.flow.exceedance import Exceedance as Exceedance
from gdstab.flow.exceedance import first_exceedance as first_exceedance
from gdstab.flow.gradient_flow import Flow as Flow
from gdstab.flow.gradient_flow import gradient_flow as gradient_flow
from gdstab.flow.gradient_flow import gradient_flows as gradient_flows
from gdstab.flow.gradient_flow import settled as settled
from gdstab.flow.multistep import AdamsBashforth2 as AdamsBashforth2
from gdstab.flow.status import FlowStatus as FlowStatus
from gdstab.flow.status import diagnose as diagnose

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
