"""Where descent leaves the flow: from which step size on it strays too far; how they part on a known hill."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gdstab import orbits
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._types import LossFn, Theta
from gdstab._validate import check_count, check_positive
from gdstab.flow.deviation import deviation
from gdstab.flow.gradient_flow import gradient_flow
from gdstab.flow.status import FlowStatus
from gdstab.updates import gradient_descent


@recorded({"deviation": "step_size"}, coords={"step_size": "step_sizes"}, attrs=("step_size", "below", "monotone"))
class Exceedance(NamedTuple):
    """Where a threshold of the deviation is crossed; nothing is proved about step sizes between those tried."""

    step_size: float
    """The smallest step size tried whose deviation exceeds the threshold; inf if none does."""
    below: float
    """The largest tried below it, which stays within; 0 if all exceed."""
    step_sizes: np.ndarray
    """All that were tried, ascending."""
    deviation: np.ndarray
    """The largest deviation of each over the recorded times, inf where descent overflowed."""
    monotone: bool
    """Whether those ascend: then there is one crossing as far as they can tell."""


@entry
def first_exceedance(
    loss: LossFn,
    theta0: Theta,
    epsilon: ArrayLike,
    time: ArrayLike,
    *,
    between: tuple[float, float],
    scan: int = 16,
    precision: float = 1e-3,
    points: int = 100,
    **settings,
) -> Exceedance:
    r"""Find the smallest step size at which $\max_k \|\theta_k - \theta(k\eta)\|$ up to a time exceeds `epsilon`.

    The deviation need not grow with the step size. So `scan` step sizes, evenly apart on a log scale, are tried, then
    as many inside the interval below the first that exceeds, and so on until that interval is short. What is found is
    the smallest that exceeds among all tried. Nothing of the flow is stored, so that large networks fit.

    The maximum is over the updates that are recorded: up to `time / points` the last before each of `points` times,
    evenly apart, and the flow is solved once for all step sizes of a round; above, every update or `points` of them,
    and the flow is solved for each. It can fall where a step more no longer fits into the time.

    Parameters
    ----------
    between
        The step sizes to search, (lowest, highest); the highest at most `time`.
    scan
        Step sizes of one round.
    precision
        Width of the last interval, relative.
    points, settings
        Of `deviation`; but one start, and no `times`.

    Raises
    ------
    ValueError
        If the interval or a number is not positive, the flow does not reach `time`, or a setting has no use here.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> found = first_exceedance(lambda x: 0.5 * jnp.sum(x**2), jnp.ones(1), 0.02, 1.0, between=(1e-3, 1.0))
    >>> 0.09 < found.below < found.step_size < 0.12
    True
    """
    low, high = (check_positive(side, "between") for side in between)
    time = check_positive(time, "time")
    if not low < high <= time:
        raise ValueError(f"between: expected low < high <= time = {time:g}, got {between}; narrow it")
    epsilon, precision = check_positive(epsilon, "epsilon"), check_positive(precision, "precision")
    scan, points = check_count(scan, "scan", least=2), check_count(points, "points")
    useless = sorted({"times", "map_points", "pad", "modified", "estimate_error", "observe"} & set(settings))
    if useless:
        raise ValueError(f"expected settings of the flow's solver, got {', '.join(useless)}; call `deviation` for that")
    tried: dict[float, float] = {}
    candidates = np.geomspace(low, high, scan)
    while candidates.size:
        tried |= _largest(loss, theta0, candidates, time, points, settings)
        above = min((size for size, value in tried.items() if value > epsilon), default=math.inf)
        below = max((size for size in tried if size < above), default=0.0)
        if above == math.inf or below == 0 or above <= below * (1 + precision):
            break
        candidates = np.setdiff1d(np.geomspace(below, above, scan + 2)[1:-1], list(tried))
    sizes = np.array(sorted(tried))
    values = np.array([tried[size] for size in sizes])
    return Exceedance(above, below, sizes, values, bool((np.diff(values) >= 0).all()))


def _largest(loss, theta0, candidates, time, points, settings):
    """The largest deviation of each step size, at times that depend on no other one."""
    few = candidates < time / points * (1 - 1e-6)  # clear of the rounding of times
    rounds = [(np.array([size]), None) for size in candidates[~few]]
    if few.any():
        padding = np.full((~few).sum(), candidates[few][-1])  # as many as all, so that it compiles once
        rounds.append((np.concatenate([candidates[few], padding]), np.linspace(0, time, points + 1)[1:]))
    found = {}
    for sizes, times in rounds:
        ways = deviation(loss, theta0, sizes, time, points=points, times=times, pad=True, **settings)
        _check_arrival(ways, time)
        found |= zip(sizes.tolist(), np.asarray(ways.distance.max(axis=1)).tolist(), strict=True)
    return found


def _check_arrival(ways, time):
    if int(ways.status) != FlowStatus.FINISHED:
        raise ValueError(
            f"the flow stopped at time {float(ways.time):g} of {time:g}: {FlowStatus(int(ways.status)).name}; "
            "shorten the time, or see `diagnose(loss, gradient_flow(loss, theta0, time))`"
        )


class Separation(NamedTuple):
    """How descent parts from the flow on a hill, for several step sizes."""

    step_sizes: np.ndarray
    times: np.ndarray
    window: tuple[float, float]  # of Proposition 20
    nearest: np.ndarray  # [steps, times], from theta(t) to the nearest iterate
    off: np.ndarray  # [steps, times], from theta(t) to the line on which the iterates lie
    printed: np.ndarray  # [steps, times], the lower bound of the proof
    exponents: np.ndarray  # fitted to `off`


def follow(loss: LossFn, step_sizes: np.ndarray, start=None) -> np.ndarray:
    """Descent on `losses.WorstCase`, by default from its start, until all have passed its end, [steps, iterates, 3]."""
    start = loss.start() if start is None else start
    end = loss.arrivals(start).end
    num_steps = math.ceil(1.25 * end / step_sizes.min()) + 10
    walk = jax.jit(jax.vmap(orbits.rollout(gradient_descent(), num_steps), (None, None, 0)))
    path = np.asarray(walk(loss, jnp.asarray(start), jnp.asarray(step_sizes))[1])
    return np.concatenate([np.broadcast_to(start, (len(step_sizes), 1, 3)), path], axis=1)


def separate(loss: LossFn, step_sizes: np.ndarray, paths: np.ndarray, num: int = 1200) -> Separation:
    r"""Distances between the flow at times of its isotropic part and descent; the exponent at which they grow.

    In the isotropic region the iterates lie on one ray from the origin of the first two coordinates; the distance from
    it, $|q_1 \bar q_k - \bar q q_k| / \|(q_k, \bar q_k)\|$, bounds that from every iterate below, and keeps its digits
    where the first coordinate is $10^{15}$.
    """
    start = paths[0, 0]
    arrivals = loss.arrivals(start)
    times = np.linspace(arrivals.isotropic, arrivals.end, num)
    points = loss.flow(start, times)
    nearest, off, exponents = [], [], []
    inside = slice(*np.searchsorted(times, loss.window(start)))
    for path in paths:
        nearest.append([_distance(path, point) for point in points])
        entry = path[np.argmax(path[:, 1] >= 1), :2]
        off.append(np.abs(entry[0] * points[:, 1] - entry[1] * points[:, 0]) / np.linalg.norm(entry))
        exponents.append(np.polyfit(times[inside], np.log(off[-1][inside]), 1)[0])
    a = float(loss.curvature)
    printed = 1e-14 * a * step_sizes[:, None] * np.exp(a * times)
    ways = map(np.array, (nearest, off, printed, exponents))
    return Separation(step_sizes, times, loss.window(start), *ways)


def _distance(path: np.ndarray, point: np.ndarray) -> float:
    """From a point to the nearest iterate, whose first coordinates ascend: only those as close in it can be nearer."""
    first = path[:, 0]
    here = min(np.searchsorted(first, point[0]), len(path) - 1)
    reach = np.linalg.norm(path[here] - point)
    low, high = np.searchsorted(first, [point[0] - reach, point[0] + reach])
    return float(np.linalg.norm(path[low : high + 1] - point, axis=1).min())


def flow_error(loss: LossFn) -> float:
    """Largest relative difference of the closed form and the solver, the second entry counted from the top."""
    times = np.linspace(0, loss.arrivals(loss.start()).end, 25)
    settings = {"rtol": 1e-12, "atol": 1e-14, "save_at": times, "escape_radius": float(loss.cut)}
    found = gradient_flow(loss, jnp.asarray(loss.start()), times[-1], **settings)
    top = np.array([0.0, float(loss.width) / 2 - 1])
    exact = loss.flow(loss.start(), times)[:, :2] - top
    return float(np.abs((np.asarray(found.observed)[:, :2] - top) / exact - 1).max())
