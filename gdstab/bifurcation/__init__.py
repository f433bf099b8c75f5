"""Cycles over the step size: their branches, where these bifurcate, and what is born there.

`orbit_diagram` shows where orbits end, `hysteresis` whether it matters where they come from, `last_bounded` up to where
there are bounded ones. `follow` and `sweep` continue one cycle, `doublings` climbs the cascade of doubled periods,
`flip_form` says what a flip gives birth to.
"""

from gdstab.bifurcation.bounded import LastBounded, last_bounded
from gdstab.bifurcation.cascade import Cascade, Followed, doubled, doublings, explore
from gdstab.bifurcation.continuation import Branch, cycle_points, follow, sweep
from gdstab.bifurcation.diagrams import OrbitDiagram, orbit_diagram
from gdstab.bifurcation.hysteresis import Hysteresis, hysteresis
from gdstab.bifurcation.normal_forms import FlipForm, flip_form, predicted_amplitude
from gdstab.bifurcation.points import Bifurcation, Kind

__all__ = [
    "Bifurcation",
    "Branch",
    "Cascade",
    "FlipForm",
    "Followed",
    "Hysteresis",
    "Kind",
    "LastBounded",
    "OrbitDiagram",
    "cycle_points",
    "doubled",
    "doublings",
    "explore",
    "flip_form",
    "follow",
    "hysteresis",
    "last_bounded",
    "orbit_diagram",
    "predicted_amplitude",
    "sweep",
]
__dir__ = __all__.copy  # nothing else is for users
