r"""A heatmap, what it converged to, and how it agrees with the exact basin of $L = c\,(a - xy)^2$.

The sign of $E$ never changes along an orbit. For $0 < k a < 1$, $k = 2 c \eta$, almost every point with $E < 0$
converges to a minimum; for $1 < k a < 2$ it stays bounded and converges to none; points with $E > 0$ diverge. See
`theory.scalar`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gdstab import basins, stability, theory, updates
from gdstab._types import LossFn
from gdstab._validate import check_step_sizes
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.studies import building, labels
from gdstab.studies.heatmap import Heatmap
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.tables import picked
from gdstab.studies.work import Needs, Work
from gdstab.theory import scalar

UNKNOWN = dict.fromkeys(
    ("exact_area", "exact_share", "trapped_area", "contradictions", "contradictions_beyond_one_diagonal")
)
"""What is reported where no closed form is known."""
_BYTES_PER_CELL = 2 * (1 + 4)  # verdict and count, in the parts and in the result
_BYTES_PER_LABEL = 2 * 4


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    dim: int
    plane: Any
    stopping: StoppingRule
    label: Callable | basins.Found | None
    needs: Needs


def prepare(options: Heatmap) -> Setting:
    """Build and check everything."""
    (loss, dim, dtype), stopping = building.problem(options), building.build_stopping(options)
    plane = building.build_plane(options.plane, dim)
    # This is checked again where it is used; here so that a mistake leaves no directory behind.
    check_step_sizes(options.step_size, dtype)
    basins.parse_plane(plane, dim)
    cells, label = math.prod(options.resolution), labels.build_label(options, loss, dim)
    more = 0 if label is None else _BYTES_PER_LABEL
    needs = Needs({"resolution": (16 + more) * cells}, cells * (_BYTES_PER_CELL + more))
    return Setting(loss, dim, plane, stopping, label, needs)


def phases(options: Heatmap) -> dict[str, Phase]:
    """What a run goes through."""
    cells = math.prod(max(side, 0) for side in options.resolution)
    return {"orbits": Phase(10, cells), "kinds of critical points": Phase(1), SAVING: Phase(2)}


def measure(options: Heatmap, setting: Setting, work: Work):
    """Run every cell; then tell apart what the converged ones converged to."""
    rule, dtype = updates.gradient_descent(), np.dtype(f"float{options.precision}")
    finished, keep = work.parts(basins.Patch.from_arrays)
    work.enter("orbits")
    result = basins.heatmap(
        rule, setting.loss, options.step_size, box=options.box, resolution=options.resolution,
        stopping=setting.stopping, plane=setting.plane, dim=setting.dim, dtype=dtype, label=setting.label,
        progress=work.progress, finished=finished, on_patch=lambda patch: keep(patch.arrays()),
    )  # fmt: skip
    work.enter("kinds of critical points")
    kinds = basins.refine(
        rule, setting.loss, result, stopping=setting.stopping, classify=stability.classify, kinds=stability.Kind
    )
    summary = summarise(result, kinds, hyperbola_in(options, setting.loss))
    if result.attractors is not None:
        summary["attractors"] = labels.summarise(result.attractors, setting.loss)
    return result.to_xarray(), summary


def hyperbola_in(options, loss: LossFn) -> theory.Product | None:
    """The numbers of c (a - xy)^2, a > 0, whose basin has a closed form, where a plane shows its two parameters."""
    both = options.plane in {(), (0, 1), (1, 0)}  # the loss is symmetric in its parameters
    return theory.known(loss).hyperbola if both else None


def summarise(result: basins.Heatmap, kinds: basins.Kinds, product: theory.Product | None) -> dict:
    """What `summary.json` holds."""
    known = UNKNOWN if product is None else compare(result, kinds, product.target, product.scale)
    return {
        **picked(result, "cells", "counts", "fractions", "area", "area_bracket"),
        "kinds": kinds.counts,
        "theory": known,
        **picked(result, "lane_steps", "compile_seconds", "run_seconds"),
    }


def compare(result: basins.Heatmap, kinds: basins.Kinds, target: float, scale: float) -> dict:
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


def contradictions(result: basins.Heatmap, kinds: basins.Kinds, target: float, scale: float) -> np.ndarray:
    """Centres `[some, 2]` of the cells whose verdict contradicts the theory.

    A centre that lies on the minima itself stays there whatever the step size: it has measure zero and does not count.
    """
    below_critical = 2 * scale * target * result.step_size <= 1
    started_there = (result.outcome == Outcome.CONVERGED) & (result.steps == 0)
    verdicts = np.where(started_there, Outcome.UNDECIDED, result.outcome)
    minimum = verdicts == Outcome.CONVERGED
    minimum.ravel()[kinds.cells[kinds.kind != stability.Kind.MINIMUM]] = False
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
