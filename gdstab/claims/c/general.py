"""Paper C, sections 1 and 2: centre-stable manifolds of maps that need not be invertible, and saddles avoided."""

from functools import lru_cache, partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import boundaries, ensembles, figures, losses, stability
from gdstab.claims import problems
from gdstab.claims.problems import DESCENT, image_of_descent, singularity
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import relu

COLLAPSE = 0.25
"""The step size at which descent on `Collapsing` maps half of its box to a line."""
BOX = 8.0
AT_SADDLE = 1e-6
"""A loss this far above the floor where the gradient has vanished: the orbit ended at a saddle."""


class Collapsing(eqx.Module):
    r"""$x^2/2 + l(|y|)$, piecewise quadratic with Lipschitz gradient: $l' = -y$ up to 1, $y/\gamma_0$ from 4 on.

    0 is a strict saddle, and at the step size $\gamma_0$ = `COLLAPSE` all points with $|y| \ge 4$ move to $y = 0$, its
    stable manifold. The minima are at $|y| = 20/17$.
    """

    loss_floor: float = -1 / 2 - 3 / 34

    def __call__(self, theta):
        """The loss at one point."""
        x, y = theta[0], jnp.abs(theta[1])
        rise = (4 / COLLAPSE + 1) / 3
        bridge = -0.5 - (y - 1) + rise / 2 * (y - 1) ** 2
        outside = -0.5 - 3 + rise / 2 * 9 + (y**2 - 16) / (2 * COLLAPSE)
        return x**2 / 2 + jnp.where(y <= 1, -(y**2) / 2, jnp.where(y <= 4, bridge, outside))


def bent(theta):
    """A saddle at 0 whose stable manifold is curved."""
    return (theta[0] ** 2 - theta[1] ** 2) / 2 + theta[0] ** 2 * theta[1]


def one_sided(theta):
    """0 is a saddle without a negative eigenvalue, and descent from y > 0 tends to it."""
    return theta[0] ** 2 / 2 + theta[1] ** 3 / 3


class Case(NamedTuple):
    """A loss with strict saddles, a step size, and the number of parameters."""

    loss: object
    step_size: float
    dim: int = 2


@lru_cache(maxsize=1)
def cases() -> dict[str, Case]:
    """Losses whose gradient is not globally Lipschitz."""
    matrix = losses.MatrixFactorisation(jnp.diag(jnp.array([2.0, 1.0])), 1)
    phase = losses.PhaseRetrieval.population(jnp.array([0.6, 0.8]))
    return {
        "(1 - xy)^2": Case(losses.ScalarProduct(scale=1.0), 0.1),
        "V U^T = diag(2, 1), rank 1": Case(matrix, 0.1, dim=4),
        "phase retrieval, population": Case(phase, 0.02),
    }


def ends(case: Case, key, num: int) -> dict:
    """How many descents from normal starts end at a minimum, at a saddle, or not at all."""
    points = jax.random.normal(key, (num, case.dim))
    stopping = StoppingRule(loss_tol=None, grad_tol=1e-9, max_steps=20_000)
    found = ensembles.run(DESCENT, case.loss, points, case.step_size, stopping, keep=("loss",))
    settled = found.outcome == Outcome.CONVERGED
    high = found.loss - float(case.loss.loss_floor) > AT_SADDLE
    return {
        "at a saddle": problems.share(int(np.sum(settled & high)), num),
        "at a minimum": int(np.sum(settled & ~high)),
        "not settled": int(np.sum(~settled)),
    }


def collapse(key, num: int = 4000) -> dict:
    """The loss that collapses: share ending at its saddle and share of singular Jacobians, at and off that step."""
    points = BOX * jax.random.uniform(key, (num, 2), minval=-1.0)
    rows = {}
    for ratio in (1.0, 1.001, 0.9):
        stopping = StoppingRule(loss_tol=None, grad_tol=1e-9, max_steps=5000)
        found = ensembles.run(DESCENT, Collapsing(), points, ratio * COLLAPSE, stopping)
        at_saddle = (found.outcome == Outcome.CONVERGED) & (np.linalg.norm(found.theta, axis=1) < 1e-6)
        rows[ratio] = problems.share(int(at_saddle.sum()), num) | {
            "singular Jacobians": singularity(Collapsing(), points, ratio * COLLAPSE)["share_singular"],
            "of them with |y| >= 4": float(np.mean(np.abs(points[:, 1]) >= 4)),
            "undecided": int(np.sum(found.outcome == Outcome.UNDECIDED)),
        }
    return rows


def collapses(rows: dict) -> bool:
    """Whether half of the box ends at the saddle where the map is singular there, and nothing elsewhere."""
    at, *off = rows.values()
    half = at["share"] == at["of them with |y| >= 4"] == at["singular Jacobians"] > 0.4
    return half and all(row["share"] == 0 == row["singular Jacobians"] for row in off)


COLLAPSE_ROWS = "descent on the loss that collapses, by step size over 1/4"


@claim(
    "C.thm1.1",
    source="Theorem 1.1",
    expected=Verdict.HOLDS,
    statement="If f is C^1 with locally Lipschitz Jacobian on an open set, non-degenerate on an open set of full "
    "measure, the points whose orbits converge to fixed points with symmetric f' and an eigenvalue |mu| > 1 form a "
    "null set.",
)
def saddles_are_avoided(key, num: int = 20_000):
    """Descents from random starts on losses with strict saddles; and the same where f' is degenerate on an open set."""
    keys = dict(zip(cases(), jax.random.split(key, len(cases())), strict=True))
    found = {name: kept(ends, case, keys[name], num, of=(name, keys[name], num)) for name, case in cases().items()}
    rows = collapse(key)
    require(collapses(rows), "the example that shows what the hypothesis is for does not collapse as it must")
    require(all(row["at a minimum"] > num / 2 for row in found.values()), "too few descents come to rest")
    numbers = found | {COLLAPSE_ROWS: rows}
    note = (
        "It is proved; samples only bound the share. That f' is non-degenerate almost everywhere cannot be dropped: at "
        "one step size descent on a piecewise quadratic loss maps half of a box to the stable manifold of a strict "
        "saddle. (Its Jacobian jumps on two lines, a null set.)"
    )
    return Finding(judge(all(row["at a saddle"]["share"] == 0 for row in found.values())), numbers, note)


@lru_cache(maxsize=4)
def neighbourhood(name: str, resolution: int = 9) -> boundaries.Neighbourhood:
    """Around a saddle: curved; with a singular Jacobian; of a network, where the saddles are a manifold."""
    matrix = cases()["V U^T = diag(2, 1), rank 1"].loss
    network = losses.ShallowReLU(2, target=(0.0, 4.0))
    asleep = jnp.asarray(relu.critical_point(("semi-active", "inactive"), target=(0.0, 4.0)))
    chosen = {
        "x^2/2 - y^2/2 + x^2 y": (bent, jnp.zeros(2), 0.1),
        "V U^T = diag(2, 1), multiplier 0": (matrix, matrix.critical_point((1,)), 1 / 3),
        "ReLU, 2 neurons, semi-active": (network, asleep, 0.2),
    }
    return boundaries.saddle_neighbourhood(*chosen[name], resolution=resolution)


NEIGHBOURHOODS = ("x^2/2 - y^2/2 + x^2 y", "V U^T = diag(2, 1), multiplier 0", "ReLU, 2 neurons, semi-active")


def steepness(found: boundaries.Neighbourhood) -> float:
    """The largest slope of the graph between neighbouring points of its grid."""
    dim, points = found.manifold.dim, found.surface.points
    rises = [np.diff(points, axis=axis) for axis in range(points.ndim - 1)]
    return max(
        float((np.linalg.norm(r[..., dim:], axis=-1) / np.linalg.norm(r[..., :dim], axis=-1)).max()) for r in rises
    )


def radius_of_the_proof(manifold: stability.CentreStable) -> float:
    r"""Where the remainder of `bent`, Lipschitz with $4 \eta r / \sqrt3$, has the constant of the proof."""
    omega = float(manifold.mu) ** -0.5
    return (1 - omega) / (24 * 2**0.5 * omega) * 3**0.5 / (4 * float(manifold.step.step_size))


@claim(
    "C.thm2.2",
    source="Theorem 2.2",
    expected=Verdict.HOLDS,
    statement="If the remainder of f at a fixed point z is eps-Lipschitz near z for every eps, and f'(z) is "
    "diagonalisable over R with an eigenvalue |mu| > 1, all points whose orbits stay near z lie on the graph of a "
    "Lipschitz map from the centre-stable to the unstable space.",
)
def graphs(key, names=NEIGHBOURHOODS):
    """Graphs by the contraction of the proof at three saddles; orbits on them stay, and those beside them leave."""
    del key
    found = {name: neighbourhood(name) for name in names}
    rows = {
        name: {
            "multipliers": np.asarray(each.manifold.multipliers).real,
            "radius": float(each.manifold.radius),
            "contraction, largest": each.surface.factor,
            "off the graph after one update, at most": each.surface.residual,
            "slope of the graph, at most": steepness(each),
            "escape time per log(1/distance), over 1/log(mu)": each.leaving.ratio,
            "orbits beside it that did not leave": int(np.sum(each.leaving.escape < 0)),
        }
        for name, each in found.items()
    }
    manifold = found[names[0]].manifold
    proof = radius_of_the_proof(manifold)
    small = eqx.tree_at(lambda tree: tree.radius, manifold, jnp.asarray(proof))
    factors = ensembles.map_points(small.evaluate, jnp.linspace(-proof / 2, proof / 2, 9)[:, None]).factor
    numbers = rows | {
        f"{names[0]}: radius and contraction as in the proof": [proof, float(factors.max())],
        f"{names[0]}: radius with a contraction of 1/2 over that": float(manifold.radius) / proof,
    }
    holds = factors.max() <= 0.5 and all(
        row["off the graph after one update, at most"] < 1e-12
        and row["slope of the graph, at most"] < 2
        and not row["orbits beside it that did not leave"]
        and np.abs(row["escape time per log(1/distance), over 1/log(mu)"] - 1).max() < 0.02
        for row in rows.values()
    )
    note = (
        "It is proved, with slope at most 2; the last display of section 6.3 lacks the factor |x - y|. The graph may "
        "hold points that do not stay. With centre directions mu is that of the point where the orbit ends."
    )
    return Finding(judge(bool(holds)), numbers, note, partial(figures.draw_centre_stable, found[names[-1]]))


def onto_the_saddle(step_size: float, num: int) -> np.ndarray:
    r"""Points of $xy = 1 + 1/k$, $k = 2 \eta$, which descent on $(1 - xy)^2$ moves to the antidiagonal in one step."""
    apart = np.linspace(-2.5, 2.5, num)
    product = 1 + 1 / (2 * step_size)
    y = -apart / 2 + np.sqrt(apart**2 / 4 + product)
    return np.stack([y + apart, y], axis=1)


def closest_approach(loss, points, step_size: float, steps: int = 150) -> np.ndarray:
    """The least distance from 0 along every orbit."""

    @jax.jit
    def follow(points):
        def advance(x, _):
            return jax.vmap(DESCENT.step, in_axes=(None, 0, None))(loss, x, step_size), jnp.linalg.norm(x, axis=1)

        return jax.lax.scan(advance, points, length=steps)[1].min(axis=0)

    return np.asarray(follow(jnp.asarray(points)))


@claim(
    "C.cor2.3",
    source="Corollary 2.3",
    expected=Verdict.HOLDS,
    statement="Under the hypotheses of Theorem 2.2 the points whose orbits converge to such fixed points lie in the "
    "union of all preimages of one null set W.",
)
def preimages_of_graphs(key, num: int = 64):
    """Stable sets beyond the local graph: a hyperbola that maps onto it, and half of a box where f' is degenerate."""
    loss, step_size = cases()["(1 - xy)^2"].loss, 0.1
    points = onto_the_saddle(step_size, num)
    off = np.abs(points.sum(axis=1)).min()
    images = image_of_descent(loss, jnp.asarray(points), step_size)
    manifold = stability.centre_stable(DESCENT, loss, jnp.zeros(2), step_size, radius=6.0)
    height = np.abs(ensembles.map_points(lambda x: manifold.height_above(x)[0], jnp.asarray(images)))
    near_saddle = closest_approach(loss, points, step_size)
    beside = closest_approach(loss, points + 1e-2 * np.array([1.0, 1.0]), step_size)
    outside = BOX * jax.random.uniform(key, (num, 2), minval=0.5)
    line = image_of_descent(Collapsing(), outside, COLLAPSE)[:, 1]
    numbers = {
        "(1 - xy)^2, points of xy = 1 + 1/k": num,
        "least |x + y| before, largest distance from the graph after one step": [off, height.max()],
        "largest closest approach to the saddle": near_saddle.max(),
        "the same for points moved by 0.014, least": beside.min(),
        "loss that collapses: largest |y| after one step from half of the box": np.abs(line).max(),
    }
    holds = off > 1 and height.max() < 1e-12 and near_saddle.max() < 1e-6 and beside.min() > 1e-3
    note = (
        "It is proved. W is the union of the graphs; that its preimages are null as well needs Lemma 2.4: for the loss "
        "that collapses they have positive measure, and the corollary is true all the same."
    )
    return Finding(judge(bool(holds and not line.any())), numbers, note)


@claim(
    "C.lem2.4",
    source="Lemma 2.4",
    expected=Verdict.NOT_TESTABLE,
    statement="If f is C^1 with non-degenerate Jacobian on an open set of full measure, preimages of null sets are "
    "null sets.",
)
def preimages_of_null_sets(key, num: int = 400_000):
    """How much of a box is mapped to within a distance of a line, for shrinking distances."""
    points = BOX * jax.random.uniform(key, (num, 2), minval=-1.0)
    widths = np.array([1e-1, 1e-2, 1e-3])
    regular = np.abs(image_of_descent(cases()["(1 - xy)^2"].loss, points, 0.1).sum(axis=1))
    singular = np.abs(image_of_descent(Collapsing(), points, COLLAPSE)[:, 1])
    shares = {
        "(1 - xy)^2, distance from x = -y": np.array([np.mean(regular < width) for width in widths]),
        "loss that collapses, distance from y = 0": np.array([np.mean(singular < width) for width in widths]),
    }
    numbers = {"distances": widths, **shares}
    regular, singular = shares.values()
    require(bool((regular[1:] < 0.2 * regular[:-1]).all()), "the preimage of a null set does not look null")
    require(singular[-1] > 0.49, "the example that shows what the hypothesis is for does not collapse as it must")
    note = (
        "It speaks of every such map and every null set, and measure zero cannot be seen from samples. The printed "
        "proof is complete. Where f' is degenerate on an open set it fails: half of a box goes to a line."
    )
    return Finding(Verdict.NOT_TESTABLE, numbers, note)


def remainder_slopes(case: Case, saddle, key, radii: np.ndarray, num: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """For balls around a saddle: the steepest the remainder of the map was seen, and L r of the printed proof."""
    J = np.asarray(stability.jacobian(DESCENT, case.loss, saddle, case.step_size))
    directions = np.array(jax.random.normal(key, (2 * num, case.dim)))
    directions *= np.linspace(0.05, 1, 2 * num)[:, None] / np.linalg.norm(directions, axis=1, keepdims=True)
    jacobians = eqx.filter_jit(jax.vmap(jax.jacfwd(partial(DESCENT.step, case.loss, step_size=case.step_size))))
    seen, bound = [], []
    for radius in radii:
        x = np.asarray(saddle) + radius * directions
        rest = image_of_descent(case.loss, jnp.asarray(x), case.step_size) - np.asarray(saddle)
        rest = rest - (x - np.asarray(saddle)) @ J.T
        first, second = np.split(np.arange(2 * num), 2)
        apart = np.linalg.norm(x[first] - x[second], axis=1)
        seen.append(np.max(np.linalg.norm(rest[first] - rest[second], axis=1) / apart))
        slopes = np.asarray(jacobians(jnp.asarray(x)))
        change = np.linalg.norm(slopes[first] - slopes[second], ord=2, axis=(1, 2))
        bound.append(radius * np.max(change / apart))
    return np.array(seen), np.array(bound)


@claim(
    "C.prop2.5",
    source="Proposition 2.5",
    expected=Verdict.HOLDS,
    statement="If f is C^1 with locally Lipschitz Jacobian on an open set of full measure, non-degenerate on another, "
    "the points whose orbits converge to fixed points with symmetric f' and an eigenvalue |mu| > 1 form a null set.",
)
def assumption_is_met(key, num: int = 4000):
    """|R(x) - R(y)| <= L r |x - y| of its proof, at saddles; and what fails when a hypothesis is dropped."""
    radii = np.array([0.3, 0.1, 0.03, 0.01])
    rows, bounded = {}, True
    for name, case in cases().items():
        saddle = getattr(case.loss, "critical_point", lambda _: jnp.zeros(2))((1,))
        seen, bound = remainder_slopes(case, saddle, key, radii)
        least = float(np.linalg.eigvalsh(jax.hessian(case.loss)(saddle))[0])
        rows[name] = {"least eigenvalue": least, "steepest remainder": seen, "L r": bound}
        bounded &= bool(least < -1e-3 and (seen <= bound).all())
    points = jax.random.uniform(key, (num, 2), minval=jnp.array([-1.0, 0.0]), maxval=jnp.array([1.0, 1.0]))
    stopping = StoppingRule(loss_tol=None, grad_tol=1e-6, max_steps=20_000)
    weak = ensembles.run(DESCENT, one_sided, points, 0.5, stopping, keep=())
    share = problems.share(int(np.sum(weak.outcome == Outcome.CONVERGED)), num)
    numbers = {
        "radii": radii,
        **rows,
        "no eigenvalue |mu| > 1, x^2/2 + y^3/3: points with 0 < y < 1 that tend to the saddle": share,
        "f' degenerate on an open set: " + COLLAPSE_ROWS: collapse(key),
    }
    require(share["share"] == 1, "descent does not tend to the saddle without negative eigenvalue")
    note = (
        "Theorem 1.1 in other words. Continuity of f' at the fixed points would do: the remainder is then Lipschitz "
        "with a constant that tends to 0, all that Assumption 2.1 asks. Neither other hypothesis can be dropped."
    )
    return Finding(judge(bounded), numbers, note)
