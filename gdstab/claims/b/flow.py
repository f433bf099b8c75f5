"""Paper B, section 2: gradient flow of linear networks, what it conserves, and where it goes."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, flow
from gdstab._numerics import sum_squares
from gdstab.claims import problems
from gdstab.claims.b.landscape import reduced_target
from gdstab.claims.problems import DESCENT
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.figures import claims as draw
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory.factorisations import balancedness, balancedness_step, convergence_rate

WIDTHS = (3, 4, 3, 2)


def starts(key, widths, num, spread):
    """Gaussian weights, leaves [num, ...]."""
    shapes = list(zip(widths[1:], widths, strict=False))
    return tuple(
        spread * jax.random.normal(k, (num, *s))
        for k, s in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
    )


@eqx.filter_jit
def flows(loss, points, time, **settings):
    """Gradient flow from many points."""
    return jax.vmap(lambda theta: flow.gradient_flow(loss, theta, time, **settings))(points)


def _far(C, like):
    """Largest Frobenius distance over the matrices, for every point or time."""
    return np.max(
        [np.linalg.norm(np.asarray(a) - np.asarray(b), axis=(-2, -1)) for a, b in zip(C, like, strict=True)], axis=0
    )


@claim(
    "B.lem2.3",
    source="Lemma 2.3",
    expected=Verdict.HOLDS,
    statement="Gradient flow conserves C_j = W_(j+1)^T W_(j+1) - W_j W_j^T for every hidden layer.",
)
def balancedness_is_conserved(key):
    """Follow the flow at tight tolerances; and hold descent against its exact one-step law."""
    loss = problems.whitened(reduced_target(WIDTHS)[0], 0.5)
    points = starts(key, WIDTHS, 8, 0.7)
    before = jax.vmap(balancedness)(points)
    times = jnp.linspace(0.5, 5.0, 10)
    found = flows(loss, points, 5.0, rtol=1e-12, atol=1e-13, save_at=times, observe=balancedness)
    drift = float(_far(found.observed, [C[:, None] for C in before]).max())
    require(bool(found.successful.all()), "the solver gave up")
    moved = ensembles.run(DESCENT, loss, points, 0.05, StoppingRule(loss_tol=None, max_steps=1)).theta
    after = jax.vmap(balancedness)(jax.tree.map(jnp.asarray, moved))
    law = jax.vmap(lambda theta: balancedness_step(loss, theta, 0.05))(points)
    one_step = float(_far(jax.tree.map(jnp.subtract, after, before), law).max())
    step_sizes = 0.01 / 2.0 ** np.arange(5)
    ends = [
        ensembles.run(DESCENT, loss, points, eta, StoppingRule(loss_tol=None, max_steps=round(2 / eta))).theta
        for eta in step_sizes
    ]
    drifts = np.array([_far(jax.vmap(balancedness)(jax.tree.map(jnp.asarray, end)), before).max() for end in ends])
    slope = float(np.polyfit(np.log(step_sizes), np.log(drifts), 1)[0])
    numbers = {
        "largest drift of the flow until t = 5": drift,
        "error of the one-step law of descent": one_step,
        "step sizes": step_sizes,
        "drift of descent until t = 2": drifts,
        "log-log slope": slope,
    }
    require(one_step < 1e-13, "the one-step law eta^2 (G^T G - G G^T) fails")
    require(abs(slope - 1) < 0.05, "the drift of descent is not proportional to the step size")
    note = "One step of descent changes C_j by exactly eta^2 (G_(j+1)^T G_(j+1) - G_j G_j^T), so it drifts like eta t."
    return Finding(judge(drift < 1e-10), numbers, note, partial(draw.draw_drift, step_sizes, drifts, slope))


@claim(
    "B.prop1",
    source="Proposition 1",
    expected=Verdict.HOLDS,
    statement="Every trajectory of gradient flow converges to a critical point.",
)
def flow_converges(key):
    """Follow the flow for a long time, from starts of several sizes."""
    loss = problems.whitened(reduced_target(WIDTHS)[0], 0.5)
    parts = [starts(k, WIDTHS, 8, s) for k, s in zip(jax.random.split(key, 3), (0.1, 0.5, 1.5), strict=True)]
    points = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    found = flows(loss, points, 100.0, rtol=1e-9, atol=1e-11)
    slopes = ensembles.map_points(lambda theta: jnp.sqrt(sum_squares(jax.grad(loss)(theta))), found.theta)
    norms = [
        np.sqrt(sum(np.sum(np.asarray(leaf) ** 2, axis=(1, 2)) for leaf in tree)) for tree in (points, found.theta)
    ]
    growth = float(np.max(norms[1] / (1 + norms[0])))
    numbers = {
        "starts": 24,
        "largest gradient at t = 100": slopes.max(),
        "largest |theta(end)| / (1 + |theta(0)|)": growth,
    }
    note = "It is proved; a sample can only agree. The loss has degree 2 (H + 1), not (H + 1)^2 as printed before it."
    return Finding(judge(bool(slopes.max() < 1e-5) and growth < 10), numbers, note)


@claim(
    "B.prop2",
    source="Proposition 2",
    expected=Verdict.CORRECTED,
    statement="If d_1 >= ... >= d_y and every C_j has d_(j+1) positive eigenvalues, the flow converges to a global "
    "minimum at a rate equal to the product of the d_(j+1)-smallest eigenvalues of the C_j.",
)
def exponential_rate(key):
    """Decay of |M| against the printed rate and against the product of the d_(j+1)-th largest eigenvalues."""
    widths = (2, 2, 2)
    target = jnp.diag(jnp.array([1.0, 0.5]))
    loss, keys = problems.whitened(target, 0.5), jax.random.split(key, 16)
    points = [(0.05 * jax.random.normal(k, (2, 2)), problems.with_singular_values(k, (2, 2), (2.0, 0.5))) for k in keys]
    times = jnp.linspace(0.25, 6.0, 24)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    error = lambda theta: jnp.linalg.norm(target - theta[1] @ theta[0])  # noqa: E731
    found = flows(loss, stacked, 6.0, rtol=1e-9, atol=1e-11, save_at=times, observe=error)
    initial = np.array([float(error(point)) for point in points])[:, None]
    lower = np.array([convergence_rate(point, 0.5) for point in points])[:, None]
    printed = np.array([float(jnp.linalg.eigvalsh(balancedness(point)[0])[widths[-1] - 1]) for point in points])[
        :, None
    ]
    decay = -np.log(np.asarray(found.observed) / initial) / np.asarray(times)
    numbers = {
        "starts": len(points),
        "alpha, d_(j+1)-th largest": [lower.min(), lower.max()],
        "rate as printed, d_(j+1)-th smallest": [printed.min(), printed.max()],
        "least and largest mean rate observed": [decay.min(), decay.max()],
        "least ratio of observed rate and alpha": float((decay / lower).min()),
    }
    note = (
        "alpha is the product of the d_(j+1)-th *largest* eigenvalues, and a lower bound: |M(t)| <= exp(-alpha t) "
        "|M(0)|, the loss at twice that."
    )
    require(float(lower.min()) > 0, "the hypothesis does not hold at the starts")
    as_printed = bool(np.allclose(decay[:, -1:], printed, rtol=0.05))
    return Finding(judge(as_printed, bool((decay >= lower * (1 - 1e-6)).all())), numbers, note)


@claim(
    "B.rem4",
    source="Remark 4",
    expected=Verdict.CORRECTED,
    statement="lambda_(d_l - d_(l+1) + 1)(C_l) >= lambda_min(W_(l+1) W_(l+1)^T) - lambda_min(W_l W_l^T).",
)
def bound_on_balancedness(key):
    """Both sides at random pairs of layers, with the least and with the largest eigenvalue subtracted."""
    below, above = starts(key, (3, 3, 2), 2000, 1.0)
    C = np.einsum("nij,nik->njk", above, above) - np.einsum("nij,nkj->nik", below, below)
    left = np.linalg.eigvalsh(C)[:, 3 - 2]
    upper = np.linalg.eigvalsh(np.einsum("nij,nkj->nik", above, above))[:, 0]
    lower = np.linalg.eigvalsh(np.einsum("nij,nkj->nik", below, below))
    violations = [int(np.sum(left < upper - lower[:, i] - 1e-12)) for i in (0, -1)]
    numbers = {
        "pairs": 2000,
        "violations as printed": violations[0],
        "violations with lambda_max subtracted": violations[1],
    }
    note = (
        "Subtract lambda_max(W_l W_l^T): with lambda_min Weyl's inequality points the other way. The conclusion "
        "stands, W_(l+1) can be chosen large enough."
    )
    return Finding(judge(violations[0] == 0, violations[1] == 0), numbers, note)


@claim(
    "B.conj",
    source="Conjecture 1 (OVF)",
    expected=Verdict.OPEN,
    statement="From almost every initial condition the flow converges to a global minimum.",
)
def overfitting_conjecture(key, num: int = 2000):
    """Descent with a small step from random starts, for one, two and three hidden layers."""
    networks = zip(jax.random.split(key, 3), ((3, 3, 2), (3, 3, 3, 2), (3, 3, 3, 3, 2)), strict=True)
    rows = {f"H = {len(widths) - 2}": kept(_converging, k, widths, num) for k, widths in networks}
    require(
        all(row["share"] + row["not decided"] / num == 1 for row in rows.values()), "orbits diverged: lower the step"
    )
    note = (
        "Proved for H = 1; for more hidden layers there are saddles without negative eigenvalue, and no start of these "
        "ended in one. Orbits that are not decided were still on their way when the budget ended."
    )
    return Finding(Verdict.OPEN, rows, note)


def _converging(key, widths: tuple[int, ...], num: int, step_size: float = 0.01) -> dict:
    loss = problems.whitened(reduced_target(widths)[0], 0.5)
    stopping = StoppingRule(loss_tol=1e-8, max_steps=50_000)
    ends = ensembles.run(DESCENT, loss, starts(key, widths, num, 0.6), step_size, stopping, keep=("loss",))
    return problems.share(int(np.sum(ends.outcome == Outcome.CONVERGED)), num) | {
        "not decided": int(np.sum(ends.outcome == Outcome.UNDECIDED)),
        "longest, in time": float(ends.steps.max() * step_size),
    }
