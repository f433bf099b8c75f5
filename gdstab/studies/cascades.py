"""What is known exactly of the orbits of `gdstab bifurcation`, and what is drawn beside them."""

import math

import numpy as np

from gdstab import figures
from gdstab.studies import options as opt
from gdstab.studies.options import Bifurcation
from gdstab.theory import symmetric_line


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


def marks(options: Bifurcation, summary: dict) -> figures.Marks:
    """What is drawn beside the orbits."""
    plane = isinstance(options.loss, opt.Scalar) and options.loss.depth == 2
    labels = {"first": r"$\theta_0$", "norm": r"$\|\theta\|$", "loss": r"$L(\theta)$"}
    labels["diagonal"] = r"$(x + y)/\sqrt{2}$" if plane else r"$\sum_i \theta_i / \sqrt{n}$"
    known = plane and options.loss.target > 0
    return figures.Marks(
        observed=labels[options.observe],
        doublings=list(zip(summary["doublings"], summary["periods"], strict=True)),
        accumulation=summary["accumulation"],
        last_bounded=summary["last_bounded"],
        curves=closed_forms(options),
        per_step=2 * options.loss.scale * options.loss.target if known else None,
        number=r"$k = 2 c \eta$" if known and options.loss.target == 1 else r"$2 c a \eta$",
    )
