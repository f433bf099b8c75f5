"""The continuous side: gradient flow. The only importer of diffrax."""

from gdstab.flow.gradient_flow import Flow as Flow
from gdstab.flow.gradient_flow import gradient_flow as gradient_flow

__all__ = ["Flow", "gradient_flow"]
