"""Past the threshold: paper A's last question, what goes on in a forward-invariant set beyond the critical step.

For the product of two scalars or vectors it is answered with numbers; `theory.collapse` has the proof.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import bifurcation, ensembles, figures, orbits, sampling
from gdstab.basins import collapse
from gdstab.claims.problems import DESCENT
from gdstab.claims.registry import Finding, Verdict, claim, judge, require
from gdstab.figures import style
from gdstab.losses import ScalarProduct, VectorProduct
from gdstab.outcomes import StoppingRule
from gdstab.theory import scalar, symmetric_line

PLANE = ScalarProduct(scale=1.0)
"""(1 - xy)^2, for which k is twice the step size."""
REDUCED = (1.05, 1.15, 1.22, 1.26, 1.29, 1.35, 1.45, 1.55, 1.65, 1.75, 1.85, 1.95)
"""Values of k between the critical step and the end of bounded orbits."""


def line_loss(position):
    """On this loss descent with step size k is the map of the symmetric line, X -> (1 + k) X - X^3, in x = X/sqrt k."""
    return (1 - position * position) ** 2 / 4


@lru_cache(maxsize=4)
def evidence(reduced: tuple[float, ...] = REDUCED, starts: int = 1000, num_steps: int = 4000) -> list[dict]:
    """A row for every k: what the orbits of random points do, where they are in the end, exponents on the line."""
    return collapse.table(DESCENT, PLANE, np.array(reduced) / 2, starts=starts, num_steps=num_steps)


def farthest_apart(dim: int, k: float, num: int = 1000, num_steps: int = 4000) -> tuple[float, int]:
    """The largest |u - v| in the end over orbits of (1 - u.v)^2 that begin in the trapping ellipsoid; their number."""
    points = np.random.default_rng(dim).uniform(-1, 1, (num, 2 * dim)) / np.sqrt(dim)
    inside = points[scalar.trapping_energy(points, k / 2, scale=1.0) < 0]
    stopping = StoppingRule(loss_tol=None, max_steps=num_steps)
    ends = ensembles.run(DESCENT, VectorProduct(dim=dim, scale=1.0), inside, k / 2, stopping).theta
    return float(np.linalg.norm(ends[:, :dim] - ends[:, dim:], axis=1).max()), len(inside)


def all_collapse(rows: list[dict]) -> bool:
    """Whether all bounded orbits, and there are some, end on x = y, and the line attracts at every k for sure."""
    return all(
        row["bounded"] == row["moving"] == row["collapsed"] > 0
        and row["across"][2] < 0
        and row["largest_factor"] <= 1 + 1e-12
        and row["against"] == 0
        for row in rows
    ) and bool(rows)


@claim(
    "A.attractors",
    source="Section 5, last question, second half",
    expected=Verdict.OPEN,
    statement="How do the attractors in a forward-invariant set look like, and what kind of asymptotic dynamics takes "
    "place inside them?",
)
def attractors_past_the_threshold(key, starts: int = 1000, num_steps: int = 4000, reduced: tuple = REDUCED):
    """Bounded orbits of (1 - xy)^2 for 1 < k < 2 by what they do, and how surely they end on x = y."""
    del key
    rows = evidence(reduced, starts, num_steps)
    require(all_collapse(rows), "some bounded orbit did not end on the line, or the line does not attract")
    kinds = [name for name in rows[0]["shares"] if any(row["counts"][name] for row in rows)]
    vectors = {f"d = {dim}, k = {k}": farthest_apart(dim, k) for dim, k in ((2, 1.2), (3, 1.5), (5, 1.8))}
    numbers = {
        "k": reduced,
        "starts": starts,
        "bounded": [row["bounded"] for row in rows],
        **{
            f"share of the bounded that is {name}, 95 % interval": [
                [row["shares"][name]["low"], row["shares"][name]["high"]] for row in rows
            ]
            for name in kinds
        },
        "periods": [row["periods"] for row in rows],
        "bounded orbits on x = y in the end": [row["collapsed"] for row in rows],
        "share of them, 95 % interval": [row["collapsed_share"] for row in rows],
        "largest |x - y| in the end": max(row["largest_distance"] for row in rows),
        "exponent across the line, 95 % interval": [row["across"] for row in rows],
        "exponent along the line, 95 % interval": [row["along"] for row in rows],
        "largest factor of V in a step": max(row["largest_factor"] for row in rows),
        "orbits whose fate is not the sign of E": sum(row["against"] for row in rows),
        "vectors: largest |u - v| in the end, and orbits": vectors,
    }
    require(all(apart < 1e-6 for apart, _ in vectors.values()), "some orbit of vectors did not end on u = v")
    note = (
        "For c (a - xy)^2 and 1 < k = 2 c a eta < 2 every bounded orbit ends on x = y (almost every one, as "
        "theory.collapse proves by V = |x - y|^k / |E|, which never grows), and for c (a - u.v)^2 on u = v. There it "
        "is drawn to a cycle of period 2, 4, 8, ... up to k = 1.3023, and beyond to chaos, or to a cycle in a window. "
        "The line attracts at every k, be its orbits chaotic or not: the interval of the exponent across is below 0. "
        "Open for other networks."
    )
    return Finding(Verdict.OPEN, numbers, note, partial(draw_attractors, rows))


@claim(
    "A.cascade",
    source="Section 5, last question, on the symmetric line",
    expected=Verdict.HOLDS,
    statement="On x = y of (1 - xy)^2 descent doubles its period at k = 1 and k = sqrt 5 - 1, without end up to k = "
    "1.30228 at Feigenbaum's ratio, and bounded orbits end at k = 2, where their Lyapunov exponent is ln 3.",
)
def cascade_on_the_symmetric_line(key, count: int = 7, starts: int = 64, num_steps: int = 20_000):
    """Doublings by continuation on the line and in the plane, the orbit of period 2, the end, the exponent there."""
    del key
    cascade = bifurcation.doublings(DESCENT, line_loss, jnp.array(0.9), 0.8, 2.0, count)
    plane = bifurcation.doublings(DESCENT, PLANE, jnp.array([0.9, 0.9]), 0.4, 1.0, 3)
    exact = np.array([symmetric_line.PERIOD_TWO, symmetric_line.PERIOD_FOUR])
    orbit = max(period_two_error(k) for k in (1.05, 1.15, 1.3, 1.6))
    points = sampling.box(jax.random.key(0), 64, ((0.1, 1.2),))[:, 0]
    end = bifurcation.last_bounded(DESCENT, line_loss, points, 1.5, 3.0)
    last = collapse.line(DESCENT, PLANE, [symmetric_line.LAST_BOUNDED / 2], starts=starts, num_steps=num_steps)
    exponent, half = float(last.along[0]), float(last.along_half[0])
    numbers = {
        "doublings, in k": cascade.step_sizes,
        "of the period": cascade.periods,
        "the first two from their closed form": np.abs(cascade.step_sizes[:2] - exact),
        "in the plane, from those on the line": np.abs(2 * plane.step_sizes - cascade.step_sizes[:3]),
        "ratios of gaps": cascade.ratios,
        "accumulation": cascade.accumulation,
        "orbit of period 2 and its multipliers, from their closed form": orbit,
        "last bounded k, bracket": [end.low, end.high],
        "exponent at k = 2, half its 95 % interval, ln 3": [exponent, half, symmetric_line.LAST_EXPONENT],
    }
    holds = (
        len(cascade.flips) == count
        and np.abs(cascade.step_sizes[:2] - exact).max() < 1e-8
        and np.abs(2 * plane.step_sizes - cascade.step_sizes[:3]).max() < 1e-8
        and abs(cascade.accumulation - symmetric_line.ACCUMULATION) < 1e-4
        and abs(cascade.ratios[-1] - symmetric_line.FEIGENBAUM) < 0.03
        and orbit < 1e-10
        and abs(end.low - symmetric_line.LAST_BOUNDED) < 1e-4
        and abs(exponent - symmetric_line.LAST_EXPONENT) < min(3 * half, 1e-3)
    )
    note = (
        "The first two by closed form: the fixed point has the multiplier 1 - 2k, the orbit of period 2 the multiplier "
        "9 - 2 (1 + k)^2. At k = 2 the map is the Chebyshev cubic, 2 cos p -> -2 cos 3p."
    )
    return Finding(judge(holds), numbers, note, partial(draw_cascade, cascade))


def period_two_error(k: float) -> float:
    """How far the orbit of period 2 in the plane, and its multipliers, are from their closed form."""
    low, high = symmetric_line.period_two(k)
    cycle = orbits.refine(DESCENT, PLANE, jnp.full(2, low / np.sqrt(k) + 1e-3), k / 2, 2)
    require(bool(cycle.converged), f"no orbit of period 2 at k = {k}")
    points = np.sort(np.asarray(cycle.theta), axis=0) * np.sqrt(k) - np.array([[low], [high]])
    values = np.sort(np.asarray(cycle.multipliers).real) - np.sort(symmetric_line.period_two_multipliers(k))
    return float(max(np.abs(points).max(), np.abs(values).max()))


_KINDS = (
    ("converged", "#009e73", "", "at a minimum"),
    ("periodic", "#f0e442", "///", "bounded, a cycle on $x = y$"),
    ("quasi_periodic", "#56b4e9", "...", "bounded, quasi-periodic"),
    ("chaotic", "#d55e00", "", "bounded, chaotic on $x = y$"),
    ("undecided", "#d9d9d9", "xxx", "bounded, undecided"),
)


def draw_attractors(rows: list[dict], fine: int = 800):
    """Exponents along and across the line on top, below them what the bounded orbits do, against k."""
    k = np.array([row["reduced"] for row in rows])
    dense = np.linspace(1.005, 1.995, fine)
    curves = collapse.line(DESCENT, PLANE, dense / 2, starts=8, num_steps=4000)
    with style.style():
        figure = style.new_figure(5.6, 4.6)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.25, 1))
        top.axhline(0, color="#888888", linewidth=0.8)
        for name, colour, marker, label in (
            ("along", "#0072b2", "o", "along $x = y$"),
            ("across", "#d55e00", "s", "across it"),
        ):
            value, low, high = np.array([row[name] for row in rows]).T
            top.plot(dense, getattr(curves, name), color=colour, linewidth=0.5, alpha=0.7)
            look = {"color": colour, "markeredgecolor": "black", "markersize": 4, "capsize": 2, "label": label}
            top.errorbar(k, value, (value - low, high - value), fmt=marker, **look)
        top.set(ylabel="Lyapunov exponent\nwith 95 % interval", ylim=(-1.6, 1.25))
        _draw_shares(bottom, k, rows)
        for axes, label in ((top, "end of the doublings"), (bottom, None)):
            axes.axvline(
                symmetric_line.ACCUMULATION, color="black", linewidth=0.8, linestyle="--", zorder=0, label=label
            )
        top.legend(loc="lower right", ncols=3)
        bottom.set(xlabel=r"$k = 2 c\, a\, \eta$", ylabel="share of the\nrandom points", ylim=(0, 1), xlim=(1, 2))
        bottom.legend(loc="upper right")
    return figure


def _draw_shares(axes, k: np.ndarray, rows: list[dict]) -> None:
    """Bars of the bounded orbits by regime, and the share of the ellipse in the square of the random points."""
    base, gaps = np.zeros(len(k)), np.diff(k)
    width = 0.8 * np.minimum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0]))
    for name, colour, hatch, label in _KINDS:
        share = np.array([row["counts"][name] / sum(row["counts"].values()) for row in rows])
        if share.any():
            look = {"color": colour, "hatch": hatch, "edgecolor": "black", "linewidth": 0.4, "label": label}
            axes.bar(k, share, width, base, **look)
        base = base + share
    ellipse = scalar.trapping_ellipse(k.min() / 2, scale=1.0)
    square = 2 * (ellipse.along**2 + ellipse.across**2)
    dense = np.linspace(k.min(), 2, 200)
    inside = [scalar.trapping_area(number / 2, scale=1.0) / square for number in dense]
    axes.plot(dense, inside, color="black", linewidth=1.0, label="trapping ellipse, exact")


def draw_cascade(cascade: bifurcation.Cascade, steps: int = 600, starts: int = 64):
    """The orbit diagram of (1 - xy)^2 on x = y, with the doublings found by continuation."""
    row = np.arange(steps)
    step_sizes = (0.45 * row[::-1] + 0.9995 * row) / (steps - 1)
    points = np.repeat(sampling.box(jax.random.key(1), starts, ((0.1, 1.2),)), 2, axis=1)
    seen = bifurcation.orbit_diagram(
        DESCENT, PLANE, step_sizes, points, transient=2000, kept=128, max_period=32, bins=600,
        value_range=(-1.5, 1.5), escape_radius=1e3,
    )  # fmt: skip
    doublings = list(zip((cascade.step_sizes / 2).tolist(), cascade.periods.tolist(), strict=True))
    marks = figures.Marks(
        "$x = y$", doublings, cascade.accumulation / 2, None, figures.closed_forms(step_sizes, 2.0), 2.0, "$k$"
    )
    return figures.draw_bifurcation(seen, marks)
