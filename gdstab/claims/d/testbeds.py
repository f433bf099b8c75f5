"""Paper D, Appendix B: an objective over which descent needs exponentially small steps to follow the flow."""

from fractions import Fraction
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Polynomial, polynomial

from gdstab import ensembles, figures, sampling, updates
from gdstab.claims import problems
from gdstab.claims.registry import Finding, Verdict, claim, judge, require
from gdstab.flow import separation
from gdstab.losses import WorstCase
from gdstab.losses.worst_case import tabulate
from gdstab.outcomes import StoppingRule


def _printed_pieces(a: Fraction, cut: Fraction, second_cut: Fraction, width: Fraction):
    """Eq. (25) and (26) to the right of the top: polynomials in z, and where each ends."""
    z, third, fourth = Polynomial([Fraction(0), Fraction(1)]), Fraction(2, 3), Fraction(1, 4)

    def foot(end):
        s = z - end
        return a * (third + end) * s**3 - a * (fourth + end / 2) * s**4

    top = a * (cut + 1) ** 2 / 2 - Fraction(5, 12) * a - a * cut / 2
    hill = top - a / 2 * z**2
    middle = a * (width / 2 - Fraction(7, 48) * width**2)
    second_top = a * (second_cut + 1) ** 2 / 2 + a / 12 - a * second_cut / 2 - middle
    outer = second_top - a / 2 + middle - a / 2 * z**2
    nothing = 0 * z
    first = [(hill, cut), (hill + foot(cut), cut + 1), (nothing, None)]
    second = [
        (second_top - a / 4 * (z - (width / 2 - 1)) ** 2, 1 - width),
        (outer - a / (12 * width) * (z - 1) ** 3, Fraction(1)),
        (outer, second_cut),
        (outer + foot(second_cut), second_cut + 1),
        (nothing, None),
    ]
    return (first, Fraction(0)), (second, width / 2 - 1)


def _largest_jump(pieces, top: Fraction) -> Fraction:
    """Of the value and of two derivatives where pieces meet, exactly; at the top only the slope can break."""

    def derivative(piece, order, z):
        return polynomial.polyval(z, polynomial.polyder(piece.coef, order))  # the methods would turn to floats

    jumps = [abs(derivative(pieces[0][0], 1, top))]
    for (left, end), (right, _) in pairwise(pieces):
        jumps += [abs(derivative(left, order, end) - derivative(right, order, end)) for order in range(3)]
    require(all(isinstance(jump, Fraction | int) for jump in jumps), "the fractions were rounded")
    return max(jumps)


@claim(
    "D.appB",
    source="Appendix B, eq. (25) to (27)",
    expected=Verdict.HOLDS,
    statement="phi and phi-bar are twice continuously differentiable, non-negative and smooth with least curvature -a, "
    "so that -a is the least eigenvalue of the Hessian of f over all space.",
)
def the_hills(key):
    """Exact fractions where the pieces meet; curvatures on a grid; the Hessian at random points and along the flow."""
    constants = [(Fraction(2), Fraction(3), Fraction(1, 10)), (Fraction(1, 3), Fraction(500), Fraction(9, 10))]
    narrowest = Fraction(3, 10**6)  # e^-12 / 2 and e^30 by fractions near them: the pieces meet for any
    jumps = []
    for a, b, accuracy in constants:
        width = min(narrowest, accuracy / (2 * b))
        jumps += [_largest_jump(*each) for each in _printed_pieces(a, b * 10**13 + 1, b + 1, width)]
    rows = []
    for loss in (WorstCase(2.0, 3, 0.1), WorstCase(0.5, 40, 0.1)):
        hills, a = tabulate(loss), loss.curvature
        rows.append({
            "a": a, "b": loss.extent, "least value": hills.value.min(),
            "least curvatures over a": hills.curvature.min(axis=1) / a,
            "largest over a": hills.curvature.max(axis=1) / a, "smoothness over a": loss.smoothness / a,
        })  # fmt: skip
    box = ((-1.2 * loss.cut, 1.2 * loss.cut), (-50.0, 50.0), (-3.0, 3.0))
    anywhere = problems.spectra(loss, sampling.box(key, 2000, box))[:, 0] / loss.curvature
    along = loss.flow(loss.start(), np.linspace(0, loss.arrivals(loss.start()).end, 50))
    on_the_way = problems.spectra(loss, jnp.asarray(along))[:, 0] / loss.curvature
    numbers = {
        "largest jump of a value, slope or curvature, exact": float(max(jumps)),
        "hills": rows,
        "least eigenvalue over a at 2000 points": anywhere.min(),
        "along the flow, least and largest": [on_the_way.min(), on_the_way.max()],
    }
    holds = (
        max(jumps) == 0
        and all(row["least value"] >= 0 for row in rows)
        and all(np.allclose(row["least curvatures over a"], -1, rtol=1e-9) for row in rows)
        and all(max(row["largest over a"]) <= row["smoothness over a"] * (1 + 1e-9) for row in rows)
        and abs(anywhere.min() + 1) < 1e-9
        and np.allclose(on_the_way, -1, rtol=1e-9)
    )
    note = (
        "Smooth, but with beta = 1.5 a (b e^30 + 1) nearly: Corollary 4, which takes beta over all space, permits "
        "steps many orders of magnitude below those that come close (D.prop20)."
    )
    return Finding(judge(holds), numbers, note)


def _starts(key, num: int) -> np.ndarray:
    """Random starts that Proposition 20 admits."""
    shares = np.asarray(jax.random.uniform(key, (num, 3), minval=0.01, maxval=0.99))
    return np.stack([0.5 + shares[:, 0] / 2, np.exp(-12) * (1 + shares[:, 1]) / 2 - 1, 2 + shares[:, 2]], axis=1)


def _critical_steps(loss: WorstCase, times: np.ndarray) -> np.ndarray:
    """The largest step size with which the line of the iterates passes within epsilon of the flow, at each time.

    Orbits of many step sizes are stopped in the isotropic region, where the direction of the iterates stays as it is.
    """
    start, arrivals = loss.start(), loss.arrivals(loss.start())
    radius = start[0] * np.exp(loss.curvature * arrivals.isotropic) * 20
    step_sizes = np.geomspace(2e-5, 0.02, 40) / loss.curvature
    stopping = StoppingRule(loss_tol=None, escape_radius=float(radius), max_steps=10_000_000)
    ends = ensembles.run(updates.gradient_descent(), loss, jnp.asarray(start)[None], step_sizes, stopping)
    rays = np.asarray(ends.theta).reshape(-1, 3)[:, :2]
    require(bool((rays[:, 1] < loss.second_cut).all() and (rays[:, 1] > 1).all()), "orbits ended in another region")
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    points = loss.flow(start, times)
    off = np.abs(np.outer(points[:, 1], rays[:, 0]) - np.outer(points[:, 0], rays[:, 1]))
    require(bool((np.diff(off, axis=1) > 0).all()), "the distance does not grow with the step size")
    return np.exp([np.interp(np.log(loss.accuracy), np.log(row), np.log(step_sizes)) for row in off])


@claim(
    "D.prop20",
    source="Proposition 20",
    expected=Verdict.HOLDS,
    statement="Over f of (27), for starts and times in the ranges given, descent with eta >= 10^14 e^(-a t) epsilon / "
    "a has no iterate within epsilon of theta(t), the flow's point at time t.",
)
def exponential_separation(key):
    """Distances to all iterates at random starts; the exponent of the distance; the largest step that comes close."""
    least, cases, exponents = np.inf, 0, ([], [])
    settings = [(0.5, 500, 0.1), (1.0, 800, 0.1), (4.0, 100, 0.01)]
    for k, (a, b, accuracy) in zip(jax.random.split(key, len(settings)), settings, strict=True):
        loss = WorstCase(a, b, accuracy)
        for start in _starts(k, 2):
            lowest = loss.excluded_step(loss.window(start)[1])
            step_sizes = np.array([1.01, 1.2, 1.0]) * np.array([lowest, lowest, max(lowest, 1 / (6 * a))])
            found = separation.separate(loss, step_sizes, separation.follow(loss, step_sizes, start))
            inside = (found.times >= found.window[0]) & (found.times <= found.window[1])
            excluded = inside[None] & (step_sizes[:, None] >= loss.excluded_step(found.times)[None])
            require(bool(excluded.any(axis=1).all()), "no time at which the step is excluded")
            require(bool((found.off[:, inside] >= found.printed[:, inside]).all()), "below the bound of the proof")
            least = min(least, float(np.minimum(found.nearest, found.off)[excluded].min() / accuracy))
            cases += int(excluded.sum())
            exponents[0].append(found.exponents / a)
            logs = np.log(found.nearest[:, inside]).T
            exponents[1].append(np.polyfit(found.times[inside], logs, 1)[0] / a)
    loss = WorstCase(1.0, 500, 0.1)
    times = np.linspace(*loss.window(loss.start()), 9)
    enough, excluded = _critical_steps(loss, times), loss.excluded_step(times)
    slope = float(np.polyfit(times, np.log(enough), 1)[0])
    error = separation.flow_error(loss)
    require(error < 1e-8, "the closed form of the flow is not what the solver finds")
    numbers = {
        "pairs of a step size and a time that it speaks of": cases,
        "least distance over epsilon": least,
        "exponent over a, of the distance to the line of the iterates": [np.min(exponents[0]), np.max(exponents[0])],
        "of the distance to the nearest iterate": [np.min(exponents[1]), np.max(exponents[1])],
        "flow in closed form against the solver": error,
        "times": times,
        "largest step that comes within epsilon of theta(t)": enough,
        "its exponent, against -a = -1": slope,
        "10^14 e^(-a t) epsilon / a over it": [float((excluded / enough).min()), float((excluded / enough).max())],
        "step that Corollary 4 permits at the last time": _corollary_4(loss, times[-1]),
        "step above which the third coordinate diverges": 1 / (6 * loss.curvature),
    }
    step_sizes = np.array([0.1, 0.01, 0.001])
    shown = separation.separate(loss, step_sizes, separation.follow(loss, step_sizes))._asdict()
    shown = figures.Separation(
        curvature=float(loss.curvature), extent=float(loss.extent), accuracy=float(loss.accuracy), **shown
    )
    holds = least > 1 and np.allclose(exponents[0], 1, rtol=1e-6) and np.allclose(exponents[1], 1, atol=0.1)
    holds = holds and abs(slope + 1) < 0.02
    note = (
        "The distance is taken to the ray on which the iterates lie in the isotropic region, which no choice of k "
        "undercuts; it is about 6.7 a eta e^(a (t - t_1)). The nearest iterate is much farther, as the steps of the "
        "first coordinate are many times longer, unless one happens to fall on the flow's."
    )
    return Finding(judge(holds), numbers, note, partial(figures.draw_separation, shown))


def _corollary_4(loss: WorstCase, time: float) -> float:
    """The step size that its third case permits, with the smoothness over all space and a start in common."""
    beta, a, accuracy = loss.smoothness, loss.curvature, loss.accuracy
    height = float(loss(jnp.asarray(loss.start())))
    return accuracy * a / ((np.sqrt(2 * beta**3 * height) + beta**2 * accuracy) * np.expm1(a * time))
