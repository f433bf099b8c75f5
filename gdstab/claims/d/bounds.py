"""Paper D, sections 2, 3, 5 and Appendix G: how far descent strays from the flow, and what is guaranteed for it."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, flow
from gdstab.claims import problems
from gdstab.claims.problems import DESCENT
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import factorisations
from gdstab.theory import flow_bounds as fb


@claim(
    "D.thm2",
    source="Theorem 2",
    expected=Verdict.HOLDS,
    statement="Euler's method is within e^mu (r + int e^-mu delta) of the solution, mu the integral of a bound on "
    "the largest eigenvalue of the symmetric part of the Jacobian.",
)
def fundamental_theorem(key):
    """Linear fields x' = A x, A not symmetric: exact solutions, exact growth and defects; starts that differ."""
    rng = np.random.default_rng(int(jax.random.bits(key)))
    step, num, ratios = 0.01, 300, []
    times = step * np.arange(num + 1)
    for _ in range(200):
        A, start, apart = rng.standard_normal((3, 3)), rng.standard_normal(3), 0.02 * rng.standard_normal(3)
        values, vectors = np.linalg.eig(A)
        weights = np.linalg.solve(vectors, start.astype(complex))
        exact = ((np.exp(values * times[:, None]) * weights) @ vectors.T).real
        points = [start + apart]
        for _ in range(num):
            points.append(points[-1] + step * A @ points[-1])
        defect = step * np.linalg.norm(np.array(points[:-1]) @ A.T @ A.T, axis=1)
        growth = np.full(num, np.linalg.eigvalsh((A + A.T) / 2)[-1])
        bound = fb.euler_bound(times, growth, defect, np.linalg.norm(apart))
        ratios.append((bound / np.linalg.norm(exact - points, axis=1))[1:])
    ratios = np.array(ratios)
    numbers = {
        "fields": len(ratios),
        "least of bound over distance": ratios.min(),
        "its median at the end": float(np.median(ratios[:, -1])),
    }
    return Finding(judge(bool(ratios.min() >= 1 - 1e-9)), numbers)


def _double_well(start, times):
    grown = start**2 * np.exp(2 * times)
    return np.sqrt(grown / (1 - start**2 + grown))


def _farthest(start, step, time):
    """How far descent on (1 - x^2)^2 / 4 gets from the exact flow until the time."""
    x, far = start, 0.0
    for k in range(1, int(time / step) + 1):
        x = x + step * (x - x**3)
        far = max(far, abs(float(x - _double_well(start, k * step))))
    return far


@claim(
    "D.thm3",
    source="Theorem 3, (7)",
    expected=Verdict.CORRECTED,
    statement="With a step below (7) descent stays within epsilon of the flow until the given time.",
)
def theorem_3(_):
    """L = (1 - x^2)^2 / 4 from near the maximum: everything is exact, and printed and corrected step differ."""
    start, radius, time = 1e-3, 0.1, 14.0
    times = np.linspace(0, time, 8001)
    growth = fb.interval_maxima(1 - 3 * np.maximum(_double_well(start, times) - radius, 0.0) ** 2)
    tube = np.linspace(-radius, 1 + radius, 20_001)
    beta, gamma = float(np.abs(3 * tube**2 - 1).max()), float(np.abs(tube**3 - tube).max())
    mu, spread = fb.exponent(times, growth), fb.euler_bound(times, growth, 1.0)[1:]
    printed = float(np.min(radius / (beta * gamma * spread * np.exp(mu[-1] - mu[1:]))))
    corrected = float(fb.max_step(times, growth, beta, gamma, radius))
    far = {name: _farthest(start, 0.99 * step, time) for name, step in (("printed", printed), ("corrected", corrected))}
    numbers = {
        "epsilon": radius,
        "until time": time,
        "step as printed": printed,
        "step as corrected": corrected,
        "farthest from the flow, 0.99 of the printed step": far["printed"],
        "farthest from the flow, 0.99 of the corrected step": far["corrected"],
    }
    note = (
        "The inner integral runs from t' to t, as in the proof; printed it runs to the last time, where m may be very "
        "negative, and the step comes out too large: L = (1 - x^2)^2 / 4 from x = 1e-3."
    )
    return Finding(judge(far["printed"] <= radius, far["corrected"] <= radius), numbers, note)


@claim(
    "D.cor4",
    source="Corollary 4",
    expected=Verdict.HOLDS,
    statement="For a smooth loss the step may be c (eps - r)|m|, c (eps - r) / t, c (eps - r e^(mt)) m / (e^(mt) - 1).",
)
def corollary_4(_):
    """Strong convexity, convexity and none, on losses whose flow is known; starts of descent that are off by r."""
    cases = {
        # second derivative, least eigenvalue, smoothness, loss, gradient, exact flow from 1
        "strongly convex, x^2/2": (1.0, 1.0, lambda x: x**2 / 2, lambda x: x, lambda t: np.exp(-t)),
        "convex, x": (0.0, 1.0, lambda x: x + 20, lambda _: 1.0, lambda t: 1 - t),
        "1 - cos": (-1.0, 1.0, lambda x: 1 - np.cos(x), np.sin, lambda t: 2 * np.arctan(np.tan(0.5) * np.exp(-t))),
    }
    rows = {}
    for name, (least, smoothness, value, slope, exact) in cases.items():
        ratios = []
        for radius, time, apart in ((0.1, 1.0, 0.01), (0.01, 4.0, 0.0), (0.5, 2.0, 0.05)):
            limit = fb.max_step_smooth(smoothness, value(1.0), least, radius, time, apart)
            step = time / (np.floor(time / limit) + 1)
            x, far = 1.0 + apart, 0.0
            for k in range(1, round(time / step) + 1):
                x = x - step * slope(x)
                far = max(far, abs(x - exact(k * step)))
            ratios.append(far / radius)
        rows[name] = {"farthest over epsilon": ratios}
    holds = all(max(row["farthest over epsilon"]) <= 1 for row in rows.values())
    note = "For m < 0 the step need not shrink by r: (eps - r e^(mt)) |m| / (1 - e^(mt)) is larger, and suffices."
    return Finding(judge(holds), rows, note)


@partial(jax.jit, static_argnums=1)
def small_starts(key, depth, norms, alignments):
    """Balanced starts of networks with one output, their products at given angles to the target (1, 0)."""
    products = norms[:, None] * jnp.stack([alignments, jnp.sqrt(1 - alignments**2)], axis=1)
    build = jax.vmap(lambda k, A: factorisations.balanced_factorisation(A[None], (2, *[2] * (depth - 1), 1), key=k))
    return build(jax.random.split(key, len(norms)), products)


@eqx.filter_jit
def flow_times(loss, points, longest, accuracies):
    """When the flow reaches the accuracies, and whether it does."""

    def reach(theta, time, accuracy):
        found = flow.gradient_flow(loss, theta, time, until=lambda z: loss(z) <= accuracy)
        return found.time, found.settled

    return jax.vmap(reach)(points, longest, accuracies)


@claim(
    "D.prop14",
    source="Proposition 14",
    expected=Verdict.HOLDS,
    statement="From a small balanced start flow reaches the accuracy by the time (21); 16 n, 6 sqrt n and (22) bound "
    "the curvature, the gradient and the integral of m around it.",
)
def time_to_convergence(key):
    """Sixty starts of three depths: the real time, and the constants in the tube of one of each."""
    ratios, rows = [], {}
    for depth in (2, 3, 4):
        more, rows[f"depth {depth}: measured, bound"] = kept(_times_and_constants, key, depth)
        ratios.extend(more)
    numbers = {
        "starts": len(ratios),
        "time (21) over real time": dict(
            zip(("least", "median", "largest"), np.quantile(ratios, (0, 0.5, 1)).tolist(), strict=True)
        ),
    } | rows
    inside = all(found <= bound for measured in rows.values() for found, bound in measured.values())
    return Finding(judge(min(ratios) >= 1 and inside), numbers)


def _times_and_constants(key, depth):
    """Of one depth: the times of the proposition over the real ones, and its constants beside those measured."""
    loss = problems.whitened(jnp.array([[1.0, 0.0]]), 0.5)
    cases = [(w, nu, e) for w in (0.05, 0.2) for nu in (1.0, 0.5, 0.0, -0.5, -0.9) for e in (0.1, 1e-3)]
    bars = np.array([fb.flow_time(depth, *case) for case in cases])
    norms, alignments, accuracies = map(jnp.array, zip(*cases, strict=True))
    points = small_starts(key, depth, norms, alignments)
    times, settled = flow_times(loss, points, jnp.asarray(bars), accuracies)
    require(bool(settled.all()), "the flow did not reach the accuracy by the time of the proposition")
    grid, radius = np.linspace(0, 20.0, 41), 1e-3
    path = _path(loss, jax.tree.map(lambda leaf: leaf[4], points), jnp.asarray(grid))
    tube = fb.tube_constants(loss, path, radius, key, 8)
    integral = float(fb.exponent(grid, np.maximum(fb.interval_maxima(tube.growth), 0))[-1])
    return bars / np.asarray(times), {
        "beta": [float(tube.smoothness.max()), fb.flow_constants(depth)[0]],
        "gamma": [float(tube.gradient.max()), fb.flow_constants(depth)[1]],
        "integral of m": [integral, fb.growth_integral(depth, *cases[4][:2], radius, 20.0)],
    }


@eqx.filter_jit
def _path(loss, theta, times):
    return flow.gradient_flow(loss, theta, times[-1], save_at=times).observed


def steps_that_converge(key, depth, norm, alignment, accuracy):
    """The step of Theorem 15, that of Theorem 3 with measured constants, and the largest that converges."""
    loss, point = (
        problems.whitened(jnp.array([[1.0, 0.0]]), 0.5),
        small_starts(key, depth, *jnp.array([[norm], [alignment]])),
    )
    theta, guarantee = jax.tree.map(lambda leaf: leaf[0], point), fb.descent_guarantee(depth, norm, alignment, accuracy)
    times, settled = flow_times(loss, point, jnp.array([1e4]), jnp.array([accuracy / 2]))
    grid, radius = np.linspace(0, float(times[0]), 101), accuracy / (12 * np.sqrt(depth))
    tube = fb.tube_constants(loss, _path(loss, theta, jnp.asarray(grid)), radius, key, 16)
    growth = fb.interval_maxima(tube.growth)
    measured = float(fb.max_step(grid, growth, float(tube.smoothness.max()), float(tube.gradient.max()), radius))
    etas = 10 ** np.arange(-2, 0.5, 0.02)
    ends = ensembles.run(DESCENT, loss, point, etas, StoppingRule(loss_tol=1e-10, max_steps=20_000))
    reached = np.asarray(ends.outcome)[:, 0] == Outcome.CONVERGED
    require(bool(settled.all()) and bool(reached[0]), "descent with a step of 0.01 did not converge")
    last = int(np.argmin(reached)) - 1 if not reached.all() else len(etas) - 1  # every smaller one converges as well
    return {
        "log10 of the step of Theorem 15": guarantee.log10_step,
        "log10 of its iterations": guarantee.log10_iterations,
        "log10 of the step of Theorem 3, measured constants": float(np.log10(measured)),
        "largest step that converges, loss below 1e-10": float(etas[last]),
        "its iterations": int(np.asarray(ends.steps)[last, 0]),
        "log10 of how much larger it is": float(np.log10(etas[last])) - guarantee.log10_step,
    }


@claim(
    "D.thm15",
    source="Theorem 15",
    expected=Verdict.NOT_TESTABLE,
    statement="From a small balanced start descent with a step up to (23) reaches the accuracy in the (24) iterations.",
)
def theorem_15_cannot_be_run(key):
    """The formulas, and descent from the same starts with ordinary steps."""
    rows = {
        f"depth {n}, start {w:g}, cosine {nu:g}": kept(steps_that_converge, key, n, w, nu, 0.1)
        for n, w, nu in ((2, 0.2, 1.0), (2, 0.1, 0.0), (3, 0.1, 0.0), (4, 0.1, 0.0), (3, 0.1, -0.9))
    }
    few = min(row["log10 of its iterations"] for row in rows.values())
    require(few > 15, "a number of iterations that can be run")
    note = (
        f"The least number of iterations here is 1e{few:.0f}, and a step of 1e-17 changes no parameter in double "
        "precision; the formulas are evaluated, as logarithms. In (24) read max{1, (3/2) q} and the floor."
    )
    return Finding(Verdict.NOT_TESTABLE, rows, note)


@claim(
    "D.cor18",
    source="Corollary 18",
    expected=Verdict.NOT_TESTABLE,
    statement="With a random balanced start Theorem 15 applies almost surely.",
)
def corollary_18(key):
    """Starts of Procedure 13, products uniform in a disc: whether the hypotheses hold, and how the steps are spread."""
    num, widths = 2000, (2, 2, 2, 1)
    draw = jax.jit(jax.vmap(lambda k, norm: factorisations.balanced_initialisation(k, widths, norm)))
    points = draw(jax.random.split(key, num), 0.2 * jnp.sqrt(jax.random.uniform(key, (num,), minval=1e-12)))
    products = np.asarray(points[2] @ points[1] @ points[0])[:, 0]
    norms = np.linalg.norm(products, axis=1)
    balanced = float(jnp.max(jax.jit(jax.vmap(fb.unbalancedness))(points)))
    require(balanced < 1e-12, "a start is not balanced")
    cosines = products[:, 0] / norms
    good = (norms > 0) & (norms <= 0.2) & (cosines > -1)
    steps = [fb.descent_guarantee(3, w, nu, 0.1).log10_step for w, nu in zip(norms, cosines, strict=True)]
    numbers = {
        "starts": num,
        "within the hypotheses": int(good.sum()),
        "largest unbalancedness": balanced,
        "log10 of the step: largest, median, least": np.quantile(steps, (1, 0.5, 0)),
    }
    require(bool(good.all()), "a random start is outside the hypotheses")
    return Finding(Verdict.NOT_TESTABLE, numbers, "It is Theorem 15 at a random start: its steps cannot be run.")


@claim(
    "D.thm32",
    source="Theorem 32",
    expected=Verdict.NOT_TESTABLE,
    statement="From a start that is unbalanced by at most (34) descent with a step up to (35) reaches the accuracy.",
)
def theorem_32_cannot_be_run(_):
    """The three formulas at several depths and starts."""
    rows = {}
    for n, norm, nu in ((2, 0.1, 1.0), (2, 0.1, 0.0), (3, 0.1, 0.0), (4, 0.05, -0.5)):
        found = fb.unbalanced_guarantee(n, norm, nu, 0.1)
        rows[f"depth {n}, start {norm:g}, cosine {nu:g}"] = {
            "log10 of the unbalancedness": found.log10_unbalancedness,
            "log10 of the step": found.log10_step,
            "log10 of the iterations": found.log10_iterations,
        }
    require(max(row["log10 of the unbalancedness"] for row in rows.values()) < -25, "a start that can be represented")
    note = (
        "The unbalancedness allowed is below the rounding of any start in double precision, and the steps cannot be "
        "run. In (34) the squared logarithm belongs below the line, as in the proof: printed above, the allowance is "
        "too large by its fourth power."
    )
    return Finding(Verdict.NOT_TESTABLE, rows, note)
