"""Paper A, Theorem 16 (57): how much of a box converges to a minimum, for step sizes on both sides of the critical one.

Where Theorem 16 looks around one minimum, this counts a whole box of initial points, for several losses.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import basins, ensembles, estimators, orbits, sampling, stability, theory
from gdstab._types import LossFn
from gdstab.claims import problems
from gdstab.claims.problems import DESCENT
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.figures import style
from gdstab.losses import RegularisedProduct, ScalarProduct, VectorProduct
from gdstab.losses.pullback import Pullback, Unravel
from gdstab.outcomes import StoppingRule
from gdstab.theory import counterexamples, scalar

RATIOS = 0.5, 0.8, 0.95, 0.99, 1.01, 1.05, 1.2
"""Step sizes over the critical one. Up to 1.2 what is bounded beyond it ends in a cycle, so that nothing is open."""
POINTS = 2**14
STOPPING = StoppingRule(loss_tol=1e-20, grad_tol=1e-12, escape_radius=1e3, max_steps=30_000, max_period=8)
"""Tight, because an orbit that does not converge still passes by the minima: see `passing_by`."""
CHAOTIC = 1.4
"""Of eta_C: for (1 - xy)^2 beyond 1.3, where the cascade of period doublings ends."""


class Case(NamedTuple):
    """A loss, and the box [-reach, reach]^n of its initial points."""

    make: Callable[[], LossFn]
    dim: int
    reach: float
    colour: str
    marker: str

    @property
    def loss(self) -> LossFn:
        """The loss; its arrays are made when it is asked for."""
        return self.make()


TEACHER = np.random.default_rng(0).standard_normal((2, 2)) / np.sqrt(2)


def flat_network() -> Pullback:
    """The network 2-2-2 on unit vectors, as a loss of eight numbers."""
    return Pullback(problems.whitened(jnp.asarray(TEACHER), 0.5), Unravel.of(((2, 2), (2, 2))))


CASES = {
    "xy": Case(ScalarProduct, 2, 2.0, "#0072b2", "o"),
    "xyz": Case(partial(ScalarProduct, 3), 3, 2.0, "#d55e00", "s"),
    "u.v in R^2": Case(partial(VectorProduct, 2), 4, 1.5, "#009e73", "^"),
    "linear network 2-2-2": Case(flat_network, 8, 1.0, "#cc79a7", "D"),
    "xy with weight decay": Case(RegularisedProduct, 2, 2.0, "#555555", "v"),
}
"""The last one is a contrast: its minima are two points, and no curve."""


class Row(NamedTuple):
    """What became of the points at one step size."""

    ratio: float
    step_size: float
    samples: int
    minima: int
    """Orbits that converged to a minimum."""
    undecided: int
    """Orbits without a verdict, and ends whose Hessian does not decide."""
    elsewhere: dict[str, int]
    """All others: saddles, cycles, divergence."""
    exact: float | None

    @property
    def share(self) -> float:
        """Of the box, undecided counted out."""
        return self.minima / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """Of Clopper and Pearson at 95 %, its lower end with the undecided counted out, its upper with them in."""
        bounds = estimators.undecided_bounds(self.minima, self.undecided, self.samples)
        return float(bounds.low), float(bounds.high)

    @property
    def at_most(self) -> float | None:
        """Where nothing converged and everything is decided: the upper bound at 95 % by the rule of three."""
        return float(estimators.rule_of_three(self.samples)[1]) if self.minima == self.undecided == 0 else None


class Table(NamedTuple):
    """One loss at all step sizes."""

    critical: float
    rows: tuple[Row, ...]


def critical_step(loss: LossFn) -> float:
    """From the flattest minimum in closed form, or, where the minima are points, from the Hessian at one of them."""
    exact = theory.known(loss).critical_step
    return float(stability.threshold(loss, loss.minimum())) if exact is None else exact


@lru_cache(maxsize=8)
def table(name: str, num: int = POINTS) -> Table:
    """Count where the points of the box end, the same points for all step sizes."""
    case = CASES[name]
    loss, box = case.loss, ((-case.reach, case.reach),) * case.dim
    critical, found = kept(_counted, name, num)
    exact = partial(theory.known(loss).exact_share, box=box)
    rows = []
    for ratio, row in zip(RATIOS, found, strict=True):
        others = {k: row["counts"][k] for k in ("cycling", "diverged", "nonfinite")}
        rows.append(Row(
            ratio, row["step_size"], num, row["kinds"]["minimum"],
            row["counts"]["undecided"] + row["kinds"]["degenerate"],
            others | {"saddle": row["kinds"]["strict_saddle"]},
            exact(row["step_size"]),
        ))  # fmt: skip
    return Table(critical, tuple(rows))


def _counted(name: str, num: int) -> tuple[float, list[dict]]:
    case = CASES[name]
    loss, critical = case.loss, critical_step(case.loss)
    source = sampling.RandomSource.box(jax.random.key(57), num, ((-case.reach, case.reach),) * case.dim)
    found = basins.measure(
        DESCENT, loss, critical * np.array(RATIOS), source,
        stopping=STOPPING, classify=stability.classify, kinds=stability.Kind,
    )  # fmt: skip
    return critical, found.rows()


def dichotomy(rows) -> bool:
    """Whether a share above zero, for sure, converges at every step size below the critical one, and none above it."""
    below = [row.interval[0] > 0.01 for row in rows if row.ratio < 1]
    above = [row.minima == 0 and row.undecided <= 1e-3 * row.samples for row in rows if row.ratio > 1]
    return all(below) and all(above) and bool(below) and bool(above)


def fits_theory(rows) -> bool:
    """Whether counts are within 4.5 standard errors of the exact share, one point allowed for; where it is known."""
    known = [row for row in rows if row.exact is not None]
    slack = [4.5 * (row.exact * (1 - row.exact) / row.samples) ** 0.5 + 1 / row.samples for row in known]
    reach = [row.undecided / row.samples for row in known]
    return all(
        -wide <= row.exact - row.share <= wide + more for row, wide, more in zip(known, slack, reach, strict=True)
    )


def as_numbers(name: str, found: Table) -> dict:
    """The rows of the report."""
    rows = found.rows
    numbers = {
        "eta_C": found.critical,
        "share of the box": [row.share for row in rows],
        "95 % intervals, undecided counted in": [row.interval for row in rows],
        "at most, where none converges (rule of three)": [row.at_most for row in rows],
        "undecided": [row.undecided for row in rows],
        "cycling": [row.elsewhere["cycling"] for row in rows],
    }
    if all(row.exact is not None for row in rows):
        numbers["exact share"] = [row.exact for row in rows]
    return {f"{name}: {key}": value for key, value in numbers.items()}


def passing_by(num: int = 2000, num_steps: int = 2000) -> dict[float, float]:
    """The share of chaotic orbits of (1/2)(1 - xy)^2 whose loss falls below some tolerance on the way."""
    loss, step_size = ScalarProduct(), CHAOTIC * scalar.critical_step()
    points = sampling.box(jax.random.key(57), num, ((-2, 2), (-2, 2)))
    inside = points[np.asarray(scalar.trapping_energy(points, step_size)) < 0]
    run = orbits.rollout(DESCENT, num_steps, observe=loss)
    least = ensembles.map_points(lambda theta: jnp.min(run(loss, theta, jnp.asarray(step_size))[1]), inside)
    return {tol: float(np.mean(least <= tol)) for tol in (1e-4, 1e-6, 1e-8, 1e-10, STOPPING.loss_tol)}


def weak_eigenvalue(stretch: float = 5.0) -> float:
    """The least positive Hessian eigenvalue at a minimum of the network 2-2-2, far out on a path where it vanishes."""
    network = CASES["linear network 2-2-2"].loss.loss
    theta = counterexamples.vanishing_eigenvalue_path(network.targets, (2, 2, 2), stretch)
    return float(problems.positive_spectrum(network, theta)[0])


def distance_at_the_edge(num_steps: int) -> float:
    r"""How far the farthest orbit of (1/2)(1 - xy)^2 with $\eta = \eta_C$ is from (1, 1) and (-1, -1) in the end."""
    points = sampling.box(jax.random.key(57), 2000, ((-1.7, 1.7), (-1.7, 1.7)))
    inside = points[np.asarray(scalar.trapping_energy(points, 1.0)) < 0]
    stopping = StoppingRule(loss_tol=None, max_steps=num_steps)
    ends = ensembles.run(DESCENT, ScalarProduct(), inside, scalar.critical_step(), stopping).theta
    return float(np.minimum(np.linalg.norm(ends - 1, axis=1), np.linalg.norm(ends + 1, axis=1)).max())


@claim(
    "A.thm16",
    source="Theorem 16 (57)",
    expected=Verdict.CORRECTED,
    statement="If M_SS is not empty, the set C of points that converge to a minimum has non-zero measure; if M_WS is "
    "empty, C has measure zero.",
)
def measure_of_the_converging_set(key, num: int = POINTS, names=tuple(CASES)):
    """The share of a box that converges to a minimum, around eta_C; and two parameters exactly at eta_C."""
    del key
    tables = {name: table(name, num) for name in names}
    passes = passing_by()
    distance = [distance_at_the_edge(num_steps) for num_steps in (1000, 100_000)]
    numbers = {"eta / eta_C": RATIOS, "points in each box": num}
    for name, found in tables.items():
        numbers |= as_numbers(name, found)
    numbers["xy, chaotic: share of orbits whose loss falls below a tolerance in 2000 steps"] = passes
    numbers["xy at eta_C, M_WS empty: farthest from (1, 1) or (-1, -1) after 10^3 and 10^5 steps"] = distance
    require(all(fits_theory(found.rows) for found in tables.values()), "a share is not the exact one")
    require(passes[STOPPING.loss_tol] == 0, "orbits that do not converge meet the tolerance")
    corrected = all(dichotomy(found.rows) for found in tables.values())
    converges_at_edge = distance[1] < 0.2 * distance[0] and distance[1] < 0.01
    note = (
        "What decides is eta_C, at which the flattest minimum loses its stability: just below it a large share of the "
        "box converges to minima, just above it no point does, and what is bounded ends in cycles. The second half "
        "needs lambda > 2/eta strictly: for xy at eta_C M_WS is empty, and a whole ellipse converges. That C is null "
        "cannot be seen from samples; they bound its share. A chaotic orbit passes the minima as close as one likes: "
        "a loose tolerance would count it as converged, and this one is 1e-20."
    )
    return Finding(judge(corrected and not converges_at_edge, corrected), numbers, note, partial(draw, tables))


def draw(tables: dict[str, Table]):
    """Shares against eta / eta_C, linear above and logarithmic below, where zero is its upper bound."""
    with style.style():
        figure = style.new_figure(5.2, 4.6)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
        for name, found in tables.items():
            case = CASES[name]
            some = [row for row in found.rows if row.minima]
            ratio, share = (np.array([getattr(row, field) for row in some]) for field in ("ratio", "share"))
            low, high = np.array([row.interval for row in some]).reshape(-1, 2).T
            look = {"color": case.colour, "marker": case.marker, "markersize": 3.8, "linewidth": 1.0}
            for axes in (top, bottom):
                axes.fill_between(ratio, low, high, color=case.colour, alpha=0.3, linewidth=0)
                axes.plot(ratio, share, label=_mathematics(name), **look)
            none = [row.ratio for row in found.rows if not row.minima]
            top.plot(none, np.zeros(len(none)), **look)
        _draw_bounds(bottom, [row for found in tables.values() for row in found.rows if not row.minima])
        top.set(ylabel="share of the box that\nconverges to a minimum", ylim=(-0.04, 1.04))
        bottom.set(yscale="log", xlabel=r"step size over the critical one, $\eta / \eta_C$", ylabel="the same share")
        bottom.set_ylim(top=2.0)
        for axes in (top, bottom):
            axes.axvline(1.0, color="black", linewidth=0.8, linestyle="--", zorder=0)
        top.legend(loc="lower left")
    return figure


def _draw_bounds(axes, rows) -> None:
    """The upper ends of the intervals where no point converged: the largest of all losses."""
    highest = {}
    for row in rows:
        highest[row.ratio] = max(highest.get(row.ratio, 0.0), row.interval[1])
    axes.plot(
        list(highest), list(highest.values()), "v", color="black", markerfacecolor="white", markersize=5,
        label="no point converges: upper end of the 95 % interval",
    )  # fmt: skip
    axes.legend(*(entries[-1:] for entries in axes.get_legend_handles_labels()), loc="lower left")


def _mathematics(name: str) -> str:
    return {"xy": "$xy$", "xyz": "$xyz$", "u.v in R^2": r"$u \cdot v$ in $\mathbb{R}^2$"}.get(
        name, name.replace("xy", "$xy$")
    )
