"""Paper C, section 3: piecewise polynomial risks, phase retrieval, matrix recovery, networks."""

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, losses
from gdstab.claims import problems
from gdstab.claims.c.general import AT_SADDLE, COLLAPSE_ROWS, Case, cases, collapse, collapses, ends
from gdstab.claims.problems import DESCENT, singularity
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.outcomes import StoppingRule
from gdstab.theory import strata
from gdstab.theory.factorisations import balanced_factorisation


def strictness(loss, chosen) -> float:
    """The largest, over critical points that are no minima, of the least eigenvalue of the Hessian."""
    floor = float(loss.loss_floor)
    points = [loss.critical_point(each) for each in chosen]
    saddles = [point for point in points if float(loss(point)) > floor + AT_SADDLE]
    slopes = [float(jnp.linalg.norm(jax.grad(loss)(point))) for point in saddles]
    require(bool(saddles) and max(slopes) < 1e-10, "these are no critical points")
    return max(float(jnp.linalg.eigvalsh(jax.hessian(loss)(point))[0]) for point in saddles)


@claim(
    "C.sec3",
    source="Section 3",
    expected=Verdict.HOLDS,
    statement="For a piecewise polynomial empirical risk det(I - gamma Hessian) is non-zero almost everywhere for "
    "almost every gamma, so that descent avoids its strict saddles; also with a regulariser or the l1 risk.",
)
def piecewise_polynomial_risks(key, num: int = 4000):
    """Singular Jacobians at random points, for generic step sizes and for the reciprocal of a constant eigenvalue."""
    smooth = losses.PhaseRetrieval.random(key, 2, 6)
    rough = losses.PhaseRetrieval.random(key, 2, 6, norm="l1")
    decayed = losses.RegularisedProduct(0.1)
    points = jax.random.normal(key, (num, 2))
    rows = {
        name: [singularity(loss, points, size)["share_singular"] for size in (0.1, 0.37)]
        for name, loss in {"l2": smooth, "l1": rough, "with weight decay": decayed}.items()
    }
    values = problems.spectra(rough, points)
    largest = values.max()
    special = singularity(rough, points, 1 / largest)["share_singular"]
    numbers = {
        "share of singular Jacobians, two step sizes": rows,
        "l1: Hessians that occur among the points": len(np.unique(values.round(9), axis=0)),
        "l1: step size 1 / largest eigenvalue, share of singular Jacobians": [1 / largest, special],
        COLLAPSE_ROWS: collapse(key),
    }
    require(0 < special < 1, "the exceptional step size is not exceptional")
    generic = all(share == 0 for row in rows.values() for share in row)
    note = (
        "Every gamma would be false: the l1 risk of phase retrieval is quadratic on each of finitely many pieces, and "
        "each positive eigenvalue there gives a step size at which the map is singular on a whole piece."
    )
    return Finding(judge(generic and collapses(numbers[COLLAPSE_ROWS])), numbers, note)


@claim(
    "C.sec3.1",
    source="Section 3.1",
    expected=Verdict.HOLDS,
    statement="Phase retrieval: descent on the l2 risk avoids its strict saddles, and the subgradient method for the "
    "l1 risk is descent almost everywhere.",
)
def phase_retrieval(key, num: int = 4000):
    """Strict saddles in the population; random starts; the l1 risk near its one critical point in U, the origin."""
    population = cases()["phase retrieval, population"]
    least = strictness(population.loss, [(1,), ()])
    found = ends(population, key, num)
    rough = losses.PhaseRetrieval.random(key, 2, 12, norm="l1")
    points = jax.random.normal(key, (num, 2))
    seen = np.asarray(points @ rough.inputs.T)
    slopes = np.sign(seen**2 - np.asarray(rough.values)) * 2 * seen @ np.asarray(rough.inputs) * float(rough.scale)
    gap = np.abs(ensembles.map_points(jax.grad(rough), points) - slopes).max()
    stopping = StoppingRule(loss_tol=None, max_steps=2000)
    last = ensembles.run(DESCENT, rough, points, 0.01, stopping).theta
    closest = float(np.linalg.norm(last, axis=1).min())
    origin = np.asarray(rough.origin_spectrum())
    numbers = {
        "least eigenvalue at critical points that are no minima, at most": least,
        "descents on the population risk": found,
        "l1: distance of jax.grad from the subgradient of [14], at most": gap,
        "l1: Hessian at the origin": origin,
        "l1: least distance from the origin after 2000 steps": closest,
    }
    require(float(origin.min()) < 0, "the origin is no strict saddle")
    note = (
        "Read: for almost every step size. With a constant step the l1 risk does not settle but hovers about a minimum."
    )
    holds = least < 0 and found["at a saddle"]["share"] == 0 and gap < 1e-12 and closest > 0.1
    return Finding(judge(holds), numbers, note)


@claim(
    "C.sec3.2",
    source="Section 3.2",
    expected=Verdict.HOLDS,
    statement="Matrix recovery with factors V U^T: descent avoids the strict saddles of the risk.",
)
def matrix_recovery(key, num: int = 4000):
    """Strictness of every critical point of a factorisation and of the origin in recovery; random starts."""
    chosen = [(), (0,), (1,), (2,), (0, 2), (1, 2)]
    factored = losses.MatrixFactorisation(jnp.diag(jnp.array([3.0, 2.0, 1.0])), 2)
    symmetric = losses.MatrixFactorisation(jnp.diag(jnp.array([3.0, 2.0, 1.0])), 2, symmetric=True)
    recovery = losses.MatrixRecovery.random(key, (2, 2), 16, rank=1)
    least = {
        "V U^T": strictness(factored, chosen),
        "U U^T": strictness(symmetric, chosen),
        "recovery, the origin": float(recovery.origin_spectrum()[0]),
    }
    systems = {"V U^T": Case(factored, 0.05, dim=12), "recovery": Case(recovery, 0.1, dim=4)}
    found = {name: kept(ends, case, key, num, of=(name, key, num)) for name, case in systems.items()}
    numbers = {"least eigenvalue at critical points that are no minima, at most": least, "descents": found}
    holds = max(least.values()) < -1e-3 and all(row["at a saddle"]["share"] == 0 for row in found.values())
    note = "Read: p(U, V, X_i) = <X_i, V U^T>, for the printed V U^T X_i a matrix; and almost every step size."
    return Finding(judge(holds), numbers, note)


@claim(
    "C.sec3.3",
    source="Section 3.3, with the introduction",
    expected=Verdict.CORRECTED,
    statement="All saddles are strict for shallow networks with quadratic activation and for deep linear networks.",
)
def strict_in_special_cases(key):
    """Every critical point of a quadratic network and of linear ones with one hidden layer; saddles of deeper ones."""
    del key
    quadratic = losses.QuadraticNetwork.population(jnp.array([1.0, 0.3, 0.2, 0.8]), neurons=2)
    least = {"quadratic activation, 2 neurons": strictness(quadratic, [(), (0,), (1,)])}
    target = jnp.diag(jnp.array([3.0, 1.7]))
    shallow, shapes = problems.whitened(target, 0.5), (2, 2, 2)
    for fitted in ((), (0,), (1,)):
        theta = balanced_factorisation(target, shapes, fitted=fitted)
        least[f"linear, one hidden layer, fitted {fitted}"] = float(
            problems.spectra(shallow, jax.tree.map(lambda leaf: leaf[None], theta))[0, 0]
        )
    deep = {}
    for fitted in (0, 1):
        theta = strata.nonstrict_saddle(target, (2, 2, 2, 2), fitted)
        slope = problems.norm(jax.grad(shallow)(theta))
        require(slope < 1e-12 and float(shallow(theta)) > 0.1, "this is no saddle")
        deep[f"rank {fitted}"] = float(problems.spectra(shallow, jax.tree.map(lambda leaf: leaf[None], theta))[0, 0])
    numbers = {"least eigenvalue at saddles": least, "the same with two hidden layers": deep}
    strict = max(least.values()) < -1e-3
    note = (
        "For linear networks it is true with one hidden layer, and false with more (Kawaguchi, [28], says so): the "
        "origin, and points of every lower rank, are saddles without negative eigenvalue. See B.prop4."
    )
    return Finding(judge(strict and max(deep.values()) < -1e-10, strict), numbers, note)
