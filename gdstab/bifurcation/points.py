"""Where cycles change: functions that change sign at a bifurcation, and their zeros along a branch."""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from gdstab.bifurcation._system import Point, System

_FAR = 3.0  # where the functions that change sign are cut off


class Kind(enum.Enum):
    """What happens to a cycle at a bifurcation of codimension one."""

    FLIP = "flip"  # a multiplier passes -1: the period doubles
    FOLD = "fold"  # a multiplier passes 1 and the branch turns back: two cycles meet
    BRANCH = "branch"  # a multiplier passes 1 and the branch goes on: another one crosses it
    NEIMARK_SACKER = "neimark-sacker"  # a complex pair passes the unit circle: an invariant curve


class Bifurcation(NamedTuple):
    """A bifurcation point of a branch."""

    kind: Kind
    step_size: float
    state: Any
    period: int
    multipliers: np.ndarray  # [n], complex, largest modulus first
    birth: bool = False
    """Whether this is the flip that the branch was born in, by a cycle of half the period, to which `state` and
    `multipliers` belong."""
    scale: float = 0.0
    """The size of the states along the branch, where that is not the size of this one."""


def kept(multipliers: np.ndarray, neutral: int) -> np.ndarray:
    """The multipliers without the `neutral` ones nearest to 1."""
    return multipliers[np.argsort(np.abs(multipliers - 1), kind="stable")[neutral:]]


def is_stable(multipliers: np.ndarray, neutral: int) -> bool:
    """Whether all but the neutral ones are inside the unit circle."""
    return bool((np.abs(kept(multipliers, neutral)) < 1).all())


def flip_test(point: Point, neutral: int) -> float:
    r"""$\pm\min|\mu + 1|$, negative where an odd number of real multipliers is below -1."""
    values = kept(point.multipliers, neutral)
    return _signed(np.abs(values + 1), int((_real(values) & (values.real < -1)).sum()))


def unit_test(point: Point, neutral: int) -> float:
    r"""$\pm\min|\mu - 1|$, negative where an odd number of real multipliers is above 1."""
    values = kept(point.multipliers, neutral)
    return _signed(np.abs(values - 1), int((_real(values) & (values.real > 1)).sum()))


def circle_test(point: Point, neutral: int) -> float:
    r"""$\pm\min\big||\mu| - 1\big|$ over complex pairs, negative where an odd number of them is outside."""
    values = kept(point.multipliers, neutral)
    modulus = np.abs(values[~_real(values) & (values.imag > 0)])
    return _signed(np.abs(modulus - 1), int((modulus > 1).sum()))


def turning_test(point: Point, neutral: int) -> float:
    """How fast the step size grows along the branch."""
    del neutral
    return float(point.tangent[-1])


def find_between(system: System, a: Point, b: Point, neutral: int, *, fixed: bool = False) -> list[tuple[Kind, Point]]:
    """The bifurcations between two neighbouring points of a branch, in order.

    Of an even number of zeros of one kind between them none is seen. With `fixed` the branch is parametrised by the
    step size, and cannot turn.
    """
    turns = not fixed and turning_test(a, neutral) * turning_test(b, neutral) < 0
    tests = {Kind.FLIP: flip_test, Kind.FOLD if turns else Kind.BRANCH: turning_test if turns else unit_test}
    tests[Kind.NEIMARK_SACKER] = circle_test
    found = []
    for kind, test in tests.items():
        if test(a, neutral) * test(b, neutral) < 0:
            share, point = _zero(system, a, b, lambda p, test=test: test(p, neutral), fixed)
            # A pair of complex multipliers that becomes real changes signs too, by a jump.
            if point is not None and abs(test(point, neutral)) < 1e-3:
                found.append((share, kind, point))
    return [(kind, point) for _, kind, point in sorted(found, key=lambda item: item[0])]


def _zero(system: System, a: Point, b: Point, test: Callable, fixed: bool) -> tuple[float, Point | None]:
    """The point between two where a test vanishes, to rounding."""
    ends = {0.0: test(a), 1.0: test(b)}

    def value(share):
        if share in ends:
            return ends[share]
        point = system.between(a, b, share, fixed=fixed)
        if point is None:
            raise _NotThere
        return test(point)

    eps = float(np.finfo(system.dtype).eps)
    try:
        share = brentq(value, 0.0, 1.0, xtol=eps, rtol=max(4 * np.finfo(float).eps, eps), maxiter=100, disp=False)
    except _NotThere:
        return 0.0, None
    return share, system.between(a, b, share, fixed=fixed)


class _NotThere(Exception):
    """The curve could not be followed between two points."""


def _real(values: np.ndarray) -> np.ndarray:
    return values.imag == 0  # exact: the eigenvalues of a real matrix are real or come in pairs


def _signed(distances: np.ndarray, count: int) -> float:
    return (-1) ** count * float(distances.min(initial=_FAR))
