r"""A heatmap held against the exact basin of $L = c\,(a - xy)^2$: the sign of $E$ never changes along an orbit.

For $0 < k a < 1$, $k = 2 c \eta$, almost every point with $E < 0$ converges to a minimum; for $1 < k a < 2$ it stays
bounded and converges to none; points with $E > 0$ diverge. See `theory.scalar`.
"""

import numpy as np

from gdstab.basins import Heatmap, Kinds
from gdstab.outcomes import Outcome
from gdstab.stability import Kind
from gdstab.theory import scalar

UNKNOWN = dict.fromkeys(
    ("exact_area", "exact_share", "trapped_area", "contradictions", "contradictions_beyond_one_diagonal")
)
"""What is reported where no closed form is known."""


def compare(result: Heatmap, kinds: Kinds, target: float, scale: float) -> dict:
    """Exact areas, and the number of cells whose verdict contradicts the sign of $E$ at their centre.

    Undecided cells contradict nothing: they have no verdict. A cell can be wrong by rounding where an orbit passes
    close to the boundary, so those further than one cell diagonal from it are counted apart: there must be none.
    """
    reduced = 2 * scale * target * result.step_size
    exact = scalar.basin_area(result.step_size, target, scale, result.box)
    whole = float(np.prod([high - low for low, high in result.box]))
    found = UNKNOWN | {"exact_area": exact, "exact_share": exact / whole}
    if reduced >= 2:
        return found
    points = contradictions(result, kinds, target, scale)
    diagonal = float(np.hypot(*result.cell_sides))
    ellipse = scalar.trapping_ellipse(result.step_size, target, scale)
    distance = distance_to_ellipse(points @ np.array([[1, 1], [1, -1]]) / np.sqrt(2), ellipse.along, ellipse.across)
    return found | {
        "trapped_area": scalar.trapping_area(result.step_size, target, scale, result.box),
        "contradictions": len(points),
        "contradictions_beyond_one_diagonal": int((distance > diagonal).sum()),
    }


def contradictions(result: Heatmap, kinds: Kinds, target: float, scale: float) -> np.ndarray:
    """Centres `[some, 2]` of the cells whose verdict contradicts the theory.

    A centre that lies on the minima itself stays there whatever the step size: it has measure zero and does not count.
    """
    below_critical = 2 * scale * target * result.step_size <= 1
    started_there = (result.outcome == Outcome.CONVERGED) & (result.steps == 0)
    verdicts = np.where(started_there, Outcome.UNDECIDED, result.outcome)
    minimum = verdicts == Outcome.CONVERGED
    minimum.ravel()[kinds.cells[kinds.kind != Kind.MINIMUM]] = False
    x, y = result.centres
    found = []
    for i, (verdict, at_minimum) in enumerate(zip(verdicts, minimum, strict=True)):
        row = np.stack([np.full_like(y, x[i]), y], axis=-1)
        energy = scalar.trapping_energy(row, result.step_size, target, scale)
        gone = (verdict == Outcome.DIVERGED) | (verdict == Outcome.NONFINITE)
        stays = (verdict == Outcome.CONVERGED) | (verdict == Outcome.CYCLING)
        against = gone | (verdict == Outcome.CYCLING) if below_critical else gone | at_minimum
        found.append(row[((energy < 0) & against) | ((energy > 0) & stays)])
    return np.concatenate(found)


def distance_to_ellipse(points: np.ndarray, along: float, across: float) -> np.ndarray:
    r"""Distance of points `[n, 2]` to the curve $(u/p)^2 + (v/q)^2 = 1$ with $p =$ `along`, at least $q =$ `across`.

    The nearest point is $(p^2 u / (s + p^2 - q^2),\; q^2 v / s)$, where $s$ is the largest root of a decreasing
    function, found by bisection (D. Eberly, *Distance from a point to an ellipse*, 2013).

    Examples
    --------
    >>> distance_to_ellipse(np.array([[3.0, 0.0], [0.0, 0.0], [0.0, -2.0]]), 2.0, 1.0).round(12).tolist()
    [1.0, 1.0, 1.0]
    """
    u, v = np.abs(np.asarray(points, np.float64)).reshape(-1, 2).T
    v = np.maximum(v, 1e-13 * across)  # on the long axis itself the root is a limit
    stretch = along**2 - across**2
    low, high = across * v, np.hypot(along * u, across * v)
    for _ in range(150):
        middle = (low + high) / 2
        outside = (along * u / (middle + stretch)) ** 2 + (across * v / middle) ** 2 > 1
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    return np.hypot(u - along**2 * u / (high + stretch), v - across**2 * v / high)
