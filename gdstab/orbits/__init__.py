"""One orbit: `rollout` keeps what is observed along it, `settle` runs it to its verdict, `find_cycle` to its cycle."""

from gdstab.orbits.cycles import Cycle, Refined, find_cycle, fold, minimal_period, newton, refine
from gdstab.orbits.single import Settled, aside, escape_from, extent, rollout, settle, settle_from, shifted

__all__ = [
    "Cycle",
    "Refined",
    "Settled",
    "aside",
    "escape_from",
    "extent",
    "find_cycle",
    "fold",
    "minimal_period",
    "newton",
    "refine",
    "rollout",
    "settle",
    "settle_from",
    "shifted",
]
__dir__ = __all__.copy  # nothing else is for users
