"""What can be asked of each study: frozen dataclasses without JAX or NumPy, so that a parser is built in no time.

The names are those of the Python interface, and a test holds that they stay so. The text under each field is its help
on the command line.
"""

import dataclasses
import math

from gdstab.studies.options.basin import Basin
from gdstab.studies.options.bifurcation import Bifurcation
from gdstab.studies.options.boundary import Boundary
from gdstab.studies.options.checking import check
from gdstab.studies.options.critical_map import CriticalMap
from gdstab.studies.options.curvature import Critical, Spectrum
from gdstab.studies.options.cycle import Cycle
from gdstab.studies.options.escape import Escape
from gdstab.studies.options.flow import Flow
from gdstab.studies.options.losses import (
    Custom,
    Doublewell,
    Factorisation,
    Himmelblau,
    Linear,
    Loss,
    Network,
    Phase,
    Quadnet,
    Quadratic,
    Recovery,
    Regularised,
    Relu,
    Rosenbrock,
    Scalar,
    Vector,
    Worstcase,
)
from gdstab.studies.options.lyapunov import Lyapunov
from gdstab.studies.options.multipliers import Multipliers
from gdstab.studies.options.overfitting import Overfitting
from gdstab.studies.options.parsing import Box, Interval, parse_range
from gdstab.studies.options.planes import Heatmap, Orbit
from gdstab.studies.options.updates import RuleName, Update
from gdstab.studies.options.words import describe

__all__ = [
    "STUDIES",
    "Basin",
    "Bifurcation",
    "Boundary",
    "Box",
    "Critical",
    "CriticalMap",
    "Custom",
    "Cycle",
    "Doublewell",
    "Escape",
    "Factorisation",
    "Flow",
    "Heatmap",
    "Himmelblau",
    "Interval",
    "Linear",
    "Loss",
    "Lyapunov",
    "Multipliers",
    "Network",
    "Orbit",
    "Overfitting",
    "Phase",
    "Quadnet",
    "Quadratic",
    "Recovery",
    "Regularised",
    "Relu",
    "Rosenbrock",
    "RuleName",
    "Scalar",
    "Spectrum",
    "Update",
    "Vector",
    "Worstcase",
    "check",
    "configuration",
    "describe",
    "parse_range",
]

STUDIES = {
    "heatmap": Heatmap,
    "orbit": Orbit,
    "critical": Critical,
    "critical-map": CriticalMap,
    "spectrum": Spectrum,
    "overfitting": Overfitting,
    "escape": Escape,
    "flow": Flow,
    "basin": Basin,
    "boundary": Boundary,
    "multipliers": Multipliers,
    "bifurcation": Bifurcation,
    "cycle": Cycle,
    "lyapunov": Lyapunov,
}
_NOT_IDENTITY = {"out", "overwrite", "resume"}  # where a result lies is no part of what it is


def configuration(options) -> dict:
    """All that decides a run's result, as plain JSON values.

    >>> configuration(Heatmap())["loss"]
    {'name': 'scalar', 'depth': 2, 'target': 1.0, 'scale': 1.0}
    """
    fields = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_IDENTITY}
    if "loss" in fields:
        fields["loss"] = {"name": type(options.loss).__name__.lower(), **fields["loss"]}
    return {"study": type(options).__name__.lower(), **_plain(fields)}


def _plain(value):
    """Tuples and arrays as lists, as JSON reads them back; numbers JSON does not know as words."""
    if hasattr(value, "tolist"):  # of NumPy
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
