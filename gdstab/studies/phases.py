"""The phases that a study goes through, told to whoever looks on.

A study takes `progress(lanes decided, updates applied)`; where that has a method `phase(name)`, it is told what begins.
"""

from collections.abc import Callable
from typing import NamedTuple

SAVING = "result and figures"
"""The last phase of every study."""


class Phase(NamedTuple):
    """What is known of a phase beforehand."""

    weight: float = 1.0
    """Its share of the time, in whatever unit the study counts in; a guess."""
    lanes: int = 0
    """Orbits or other pieces of work that it counts; 0 if it counts none, or nobody knows."""


def enter(progress: Callable | None, name: str) -> None:
    """Say that a phase begins; to nobody where there is nobody, or where only lanes are counted.

    >>> class Told:
    ...     phase = print
    >>> enter(Told, "balls around the saddle"), enter(None, "figures")
    balls around the saddle
    (None, None)
    """
    told = getattr(progress, "phase", None)
    if told is not None:
        told(name)


def count(progress: Callable | None, lanes: int = 1, updates: int = 0) -> None:
    """Count what has been done."""
    if progress is not None:
        progress(lanes, updates)
