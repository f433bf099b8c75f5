"""What is known exactly of the orbits of `gdstab bifurcation`, and what is drawn beside them."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import bifurcation, figures
from gdstab.orbits import find_cycle
from gdstab.studies import options as opt
from gdstab.studies.options import Bifurcation
from gdstab.theory import symmetric_line

_MOST_ATTRACTORS, _APART = 8, 0.01  # looked at for cascades of their own; further apart than this share of their reach


def on_symmetric_line(options: Bifurcation) -> bool:
    """Whether it is descent on the line x = y of c (a - xy)^2, a > 0, of which much is known exactly."""
    loss = options.loss
    line = isinstance(loss, opt.Scalar) and loss.depth == 2 and loss.target > 0 and options.line == "diagonal"
    return line and options.rule == "descent" and options.weight_decay == 0


def exact(options: Bifurcation) -> dict | None:
    """What `theory.symmetric_line` says, in step sizes; None where nothing is known."""
    if not on_symmetric_line(options):
        return None
    per_step = 2 * options.loss.scale * options.loss.target
    return {
        "doublings": [symmetric_line.PERIOD_TWO / per_step, symmetric_line.PERIOD_FOUR / per_step],
        "accumulation": symmetric_line.ACCUMULATION / per_step,
        "crisis": symmetric_line.CRISIS / per_step,
        "last_bounded": symmetric_line.LAST_BOUNDED / per_step,
    }


def closed_forms(options: Bifurcation) -> list[figures.ClosedForm]:
    """Fixed point and orbit of period 2 of the symmetric line, as they are observed."""
    if not on_symmetric_line(options) or options.observe == "loss":
        return []
    target, per_step = options.loss.target, 2 * options.loss.scale * options.loss.target
    factor = math.sqrt(target) * (1 if options.observe == "first" else math.sqrt(2))
    ends = opt.parse_range(options.step_sizes)
    k = per_step * np.linspace(ends[0], ends[-1], 801)
    fixed = np.full((k.size, 1), factor)
    stable = np.abs(symmetric_line.fixed_point_multipliers(k)[0]) < 1
    curves = [figures.ClosedForm("minimum", k / per_step, fixed, stable)]
    k = k[k > symmetric_line.PERIOD_TWO]
    if k.size:
        orbit = factor * np.array([symmetric_line.period_two(number) for number in k]) / np.sqrt(k)[:, None]
        stable = np.abs(symmetric_line.period_two_multipliers(k)[0]) < 1
        curves.append(figures.ClosedForm("period 2", k / per_step, orbit, stable))
    return curves


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


def marks(options: Bifurcation, summary: dict) -> figures.Marks:
    """What is drawn beside the orbits."""
    plane = isinstance(options.loss, opt.Scalar) and options.loss.depth == 2
    labels = {"first": r"$\theta_0$", "norm": r"$\|\theta\|$", "loss": r"$L(\theta)$"}
    labels["diagonal"] = r"$(x + y)/\sqrt{2}$" if plane else r"$\sum_i \theta_i / \sqrt{n}$"
    known = plane and options.loss.target > 0
    return figures.Marks(
        observed=labels[options.observe],
        doublings=sorted(
            zip(
                summary["doublings"] + [step for other in summary["others"] for step in other["doublings"]],
                summary["periods"] + [period for other in summary["others"] for period in other["periods"]],
                strict=True,
            )
        ),
        accumulation=summary["accumulation"],
        last_bounded=summary["last_bounded"],
        curves=closed_forms(options),
        per_step=2 * options.loss.scale * options.loss.target if known else None,
        number=r"$k = 2 c \eta$" if known and options.loss.target == 1 else r"$2 c a \eta$",
    )
