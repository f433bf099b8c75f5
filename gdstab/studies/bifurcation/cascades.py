"""What is known exactly of the orbits of `gdstab bifurcation`, and the period doublings that are found there."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import bifurcation, figures, theory
from gdstab._types import LossFn
from gdstab.orbits import find_cycle
from gdstab.studies import building
from gdstab.studies.bifurcation import Bifurcation
from gdstab.studies.building import under_descent
from gdstab.studies.options import parse_range
from gdstab.theory import symmetric_line
from gdstab.updates import UpdateRule

_MOST_ATTRACTORS, _APART = 8, 0.01  # looked at for cascades of their own; further apart than this share of their reach
_ZOOMED = 400  # step sizes and bins of the closer look


def on_symmetric_line(options: Bifurcation, loss: LossFn | None = None) -> theory.Product | None:
    """The numbers of the loss where it is descent on the line x = y of c (a - xy)^2, a > 0; much of it is known."""
    if options.line != "diagonal":
        return None
    return under_descent(options, building.build_loss(options.loss)[0] if loss is None else loss)


def exact(options: Bifurcation, loss: LossFn | None = None) -> dict | None:
    """What `theory.symmetric_line` says, in step sizes; None where nothing is known."""
    product = on_symmetric_line(options, loss)
    if product is None:
        return None
    per_step = product.reduced(1.0)
    return {
        "doublings": [symmetric_line.PERIOD_TWO / per_step, symmetric_line.PERIOD_FOUR / per_step],
        "accumulation": symmetric_line.ACCUMULATION / per_step,
        "crisis": symmetric_line.CRISIS / per_step,
        "last_bounded": symmetric_line.LAST_BOUNDED / per_step,
    }


def closed_forms(options: Bifurcation, loss: LossFn | None = None) -> list[figures.ClosedForm]:
    """Fixed point and orbit of period 2 of the symmetric line, as they are observed."""
    product = on_symmetric_line(options, loss)
    if product is None or options.observe == "loss":
        return []
    unit = math.sqrt(product.target) * (1 if options.observe == "first" else math.sqrt(2))
    return figures.closed_forms(parse_range(options.step_sizes), product.reduced(1.0), unit)


def climb(
    rule: UpdateRule, loss: LossFn, diagram: bifurcation.OrbitDiagram, options: Bifurcation
) -> tuple[bifurcation.Cascade | None, str]:
    """The period doublings of the cycle that most orbits have at the smallest step size where they have any.

    With the reason why there are no more, or none.
    """
    rows = np.flatnonzero(diagram.common_period > 0)
    if not options.doublings or not rows.size:
        return None, "no orbit was found to settle on a cycle" if options.doublings else "not asked for"
    row = rows[0]
    lane = int(np.argmax(diagram.period[row] == diagram.common_period[row]))
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf[row, lane]), diagram.state)
    low, high = float(diagram.step_sizes[row]), float(diagram.step_sizes[-1])
    try:
        cascade = bifurcation.doublings(rule, loss, state, low, high, options.doublings, max_period=options.max_period)
    except ValueError as error:
        return None, str(error)
    return cascade, cascade.ended


def others(rule, loss, diagram, first: bifurcation.Cascade | None, options: Bifurcation) -> list[bifurcation.Cascade]:
    """Cascades of further attractors at the smallest step size with cycles, where they double elsewhere than the first.

    Those of mirror images are the same. Cycles in a continuum are left out: each of its points doubles at its own step.
    """
    rows = np.flatnonzero(diagram.common_period > 0)
    if first is None or not first.flips or not rows.size:
        return []
    row, known = int(rows[0]), [first]
    low, high = float(diagram.step_sizes[row]), float(diagram.step_sizes[-1])
    settled = np.flatnonzero(diagram.period[row] > 0)
    for lane in _apart(diagram.state, row, settled):
        state = jax.tree.map(lambda leaf, lane=lane: jnp.asarray(leaf[row, lane]), diagram.state)
        try:
            cycle = find_cycle(rule, loss, state, low, options.max_period)
            if int(cycle.neutral):
                continue
            once = bifurcation.doublings(rule, loss, state, low, high, 1, max_period=options.max_period)
            new = all(_differs(once, cascade) for cascade in known)
            if once.flips and new:
                count = options.doublings
                known.append(bifurcation.doublings(rule, loss, state, low, high, count, max_period=options.max_period))
        except ValueError:
            continue
    return known[1:]


def _apart(state, row: int, lanes: np.ndarray) -> list[int]:
    """A few lanes whose states are far from each other, compared with how far they all reach."""
    leaves = [np.asarray(leaf)[row, lanes] for leaf in jax.tree.leaves(state) if np.issubdtype(leaf.dtype, np.floating)]
    points = np.concatenate([leaf.reshape(len(lanes), -1) for leaf in leaves], axis=1)
    reach = np.linalg.norm(np.ptp(points, axis=0)) if len(lanes) else 0.0
    chosen: list[int] = []
    for number, point in enumerate(points):
        gaps = [np.linalg.norm(point - points[other]) for other in chosen]
        if reach > 0 and len(chosen) < _MOST_ATTRACTORS and min(gaps, default=np.inf) > _APART * reach:
            chosen.append(number)
    return [int(lanes[number]) for number in chosen]


def _differs(one: bifurcation.Cascade, other: bifurcation.Cascade) -> bool:
    return not (one.flips and math.isclose(one.flips[0].step_size, other.flips[0].step_size, rel_tol=1e-6))


def zoom(
    look: Callable, diagram: bifurcation.OrbitDiagram, cascade: bifurcation.Cascade | None, starts: np.ndarray
) -> bifurcation.OrbitDiagram | None:
    """The cascade from its third doubling on, around the uppermost of the points that double there.

    None where there are fewer than three doublings, or the diagram does not see the cycle before the third.
    """
    if cascade is None or len(cascade.flips) < 3:
        return None
    flip, end = cascade.flips[2], cascade.accumulation
    rows = np.flatnonzero((diagram.step_sizes < flip.step_size) & (diagram.common_period == flip.period))
    if not (rows.size and end > flip.step_size):
        return None
    places = np.flatnonzero(diagram.counts[rows[-1]] > diagram.counts[rows[-1]].sum() / (4 * flip.period))
    upper = places[np.diff(places).argmax() + 1 :] if places.size > 1 else places
    low, high = diagram.edges[upper[0]], diagram.edges[upper[-1] + 1]
    width, height = end - flip.step_size, high - low
    step_sizes = np.linspace(flip.step_size - 0.4 * width, end + 0.9 * width, _ZOOMED).astype(diagram.step_sizes.dtype)
    return look(step_sizes, starts, bins=_ZOOMED, value_range=(low - 0.5 * height, high + 0.5 * height))
