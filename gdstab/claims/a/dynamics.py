"""Paper A, sections 4.1 and 4.4, appendices A.2, B and C: the map of descent, what is stable, what converges."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, orbits, sampling, stability
from gdstab.claims import problems
from gdstab.claims.problems import (
    DESCENT,
    SCALE,
    WIDTHS,
    decoupled_network,
    image_of_descent,
    singularity,
    small_problem,
    vanishing_path,
)
from gdstab.claims.registry import Finding, Verdict, claim, judge, require
from gdstab.figures import claims as draw
from gdstab.losses import Quadratic, ScalarProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.stability import Stability
from gdstab.theory import linear
from gdstab.theory.factorisations import balanced_factorisation


@claim(
    "A.thm7",
    source="Theorem 7 (Lemma 30, Proposition 31)",
    expected=Verdict.CORRECTED,
    statement="The gradient descent map of a linear network with quadratic loss is non-singular.",
)
def descent_is_non_singular(key):
    """Determinants of the Jacobian at random points for h = 2, 3, and for h = 1 at eta = 1 / (2c)."""
    target, _ = small_problem(key)
    loss, found = problems.whitened(target, SCALE), {}
    for widths in ((2, 2), WIDTHS, (2, 2, 2, 2)):
        shapes = list(zip(widths[1:], widths, strict=False))
        keys = jax.random.split(key, len(shapes))
        points = tuple(jax.random.normal(k, (4000, *shape)) for k, shape in zip(keys, shapes, strict=True))
        found[len(shapes)] = singularity(loss, points, 1 / (2 * SCALE))
        if len(shapes) == 1:
            spread = np.ptp(image_of_descent(loss, points, 1 / (2 * SCALE))[0], axis=0).max()
    numbers = {f"h = {h}": value for h, value in found.items()} | {"h = 1: size of the image of all points": spread}
    deep = [value for h, value in found.items() if h >= 2]
    corrected = all(value["share_singular"] == 0 and not value["constant"] for value in deep)
    note = "Needs h >= 2. With one layer, X X^T = I and eta = 1/(2c) the map sends every point to W*."
    return Finding(judge(not found[1]["singular"] and corrected, corrected and spread < 1e-12), numbers, note)


def _networks(key, activations: dict, step_size: float) -> dict:
    """Singular shares for networks with those activations on generic data."""
    key_inputs, key_targets, key_points = jax.random.split(key, 3)
    inputs, targets = jax.random.normal(key_inputs, (2, 5)), jax.random.normal(key_targets, (1, 5))
    found = {}
    for name, activation in activations.items():
        loss = problems.Shallow(inputs, targets, activation)
        found[name] = singularity(loss, loss.points(key_points, 3000, 2, bias=True), step_size)
    return found


def analytic_networks(key, activations: dict) -> tuple[Verdict, dict]:
    """Networks with analytic activations on generic data, and the one whose bias decouples."""
    found = _networks(key, activations, 0.1)
    loss = decoupled_network()
    points = loss.points(key, 3000, 1, bias=True)
    special, other = (singularity(loss, points, size) for size in (1 / (4 * loss.scale), 0.9 / (4 * loss.scale)))
    images = image_of_descent(loss, points, 1 / (4 * loss.scale))
    numbers = found | {
        "tanh, output bias, inputs +1 and -1, eta = 1/(4c)": special,
        "the same, eta = 0.9/(4c)": other,
        "size of the image of the bias": np.ptp(images[2]),
    }
    corrected = all(value["share_singular"] == 0 for value in (*found.values(), other))
    return judge(corrected and not special["singular"], corrected and np.ptp(images[2]) < 1e-12), numbers


_ANALYTIC_NOTE = (
    "det(I - eta H) must not vanish identically. It does for one linear layer, and for a tanh network with output bias "
    "on symmetric inputs, whose bias has a constant eigenvalue, at eta = 1 over that eigenvalue."
)


@claim(
    "A.rem8",
    source="Remark 8",
    expected=Verdict.CORRECTED,
    statement="The map is non-singular for any network with a real analytic activation, for example a polynomial.",
)
def polynomial_activations(key):
    """Square and cubic activations; the identity is one too."""
    verdict, numbers = analytic_networks(key, {"x^2": jnp.square, "x + x^3": lambda x: x + x**3})
    return Finding(verdict, numbers, _ANALYTIC_NOTE)


@claim(
    "A.prop34",
    source="Proposition 34",
    expected=Verdict.CORRECTED,
    statement="The map of a feed-forward network with analytic activation and analytic l is non-singular.",
)
def analytic_activations(key):
    """Transcendental activations."""
    verdict, numbers = analytic_networks(key, {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "sin": jnp.sin})
    return Finding(verdict, numbers, _ANALYTIC_NOTE)


@claim(
    "A.prop27",
    source="Proposition 27",
    expected=Verdict.NOT_TESTABLE,
    statement="A smooth map whose Jacobian is singular on a null set only pulls null sets back to null sets.",
)
def invertible_almost_everywhere(key):
    """One instance only: how much of a box is mapped to within a distance of the minima, for shrinking distances."""
    loss = ScalarProduct(scale=1.0)
    images = image_of_descent(loss, sampling.box(key, 200_000, ((-2, 2), (-2, 2))), 0.3)
    gap = np.abs(images[:, 0] * images[:, 1] - 1)
    distances = np.array([1e-1, 1e-2, 1e-3])
    shares = np.array([np.mean(gap < distance) for distance in distances])
    numbers = {"distances": distances, "share of the box mapped that close to the minima": shares}
    require(bool((np.diff(shares) < 0).all() and shares[-1] < 0.02), "the preimage of a null set does not look null")
    note = (
        "It speaks of every smooth map and every null set, and measure zero cannot be seen from samples. The printed "
        "proof is complete. (Definition 23 misprints: the volumes must sum to less than delta, not 0.)"
    )
    return Finding(Verdict.NOT_TESTABLE, numbers, note)


@claim(
    "A.thm15",
    source="Theorem 15 (49)",
    expected=Verdict.CORRECTED,
    statement="M_SS is an open part of M; its points off S(G) are stable, and the points of M outside M_SS and S(G) "
    "are unstable.",
)
def stability_of_minima(key):
    """Start next to random minima on both sides of the threshold, and next to one exactly on it."""
    key_target, key_minima, key_starts, key_edge = jax.random.split(key, 4)
    target, loss = small_problem(key_target)
    centres = problems.random_minima(key_minima, target, WIDTHS, 200)
    keys = jax.random.split(key_starts, 2)
    starts = tuple(leaf + 1e-7 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, centres, strict=True))
    step_size = 0.1
    said = ensembles.map_points(partial(stability.lyapunov_stable, loss, step_size=step_size), centres)
    ends = ensembles.run(
        DESCENT, loss, starts, step_size, StoppingRule(loss_tol=None, escape_radius=1e3, max_steps=3000)
    )
    moved = np.sqrt(
        sum(np.sum((np.asarray(a) - b) ** 2, axis=(1, 2)) for a, b in zip(ends.theta, centres, strict=True))
    )
    stays, leaves = moved < 1e-5, (moved > 1e-3) | (ends.outcome == Outcome.DIVERGED)
    agree = bool((stays == (said == Stability.STABLE)).all() and (leaves == (said == Stability.UNSTABLE)).all())
    sizes, excursions = _excursions_at_the_edge(key_edge)
    numbers = {
        "minima sampled": 200,
        "of them stable": int(np.sum(said == Stability.STABLE)),
        "verdict of linearisation and fate agree": agree,
        "lambda_max = 2/eta: initial distances": sizes,
        "lambda_max = 2/eta: farthest excursions in 20000 steps": excursions,
    }
    stable_at_edge = bool((excursions < 10 * sizes).all())
    note = (
        "At lambda_max = 2/eta exactly linearisation decides nothing: minima on xy = 1 are stable. Elsewhere it holds."
    )
    return Finding(judge(agree and not stable_at_edge, agree), numbers, note)


def _excursions_at_the_edge(key):
    """How far orbits go that start close to (x, 1/x), x = 1.3, with eta = 2 / lambda_max there."""
    centre = np.array([1.3, 1 / 1.3])
    loss, step_size = ScalarProduct(scale=0.5), 2 / float(centre @ centre)
    directions = jax.random.normal(key, (100, 2))
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    observe = lambda theta: jnp.sum((theta - centre) ** 2)  # noqa: E731
    run = orbits.rollout(DESCENT, 20_000, observe=observe)
    farthest = lambda theta: jnp.sqrt(jnp.max(run(loss, theta, step_size)[1]))  # noqa: E731
    sizes = np.array([1e-2, 1e-3, 1e-4])
    found = [ensembles.map_points(farthest, centre + size * np.asarray(directions)).max() for size in sizes]
    return sizes, np.array(found)


@lru_cache(maxsize=1)
def transition(num: int = 2000):
    """Fates of points around the flattest minimum of a 2 x 2 problem, for step sizes on both sides of eta_C."""
    key_target, key_starts = jax.random.split(jax.random.key(16))
    target, loss = small_problem(key_target)
    critical = linear.critical_step(np.eye(2), np.asarray(target), WIDTHS, SCALE)
    starts = problems.nearby(key_starts, balanced_factorisation(target, WIDTHS), num, 0.3)
    ratios = np.concatenate(
        [[0.6, 0.7], np.linspace(0.8, 0.96, 5), [0.98, 0.99, 1.01, 1.02], np.linspace(1.04, 1.4, 10)]
    )
    ends = ensembles.run(DESCENT, loss, starts, ratios * critical, StoppingRule(max_steps=20_000))
    converged = np.sum(ends.outcome == Outcome.CONVERGED, axis=1)
    diverged = np.sum((ends.outcome == Outcome.DIVERGED) | (ends.outcome == Outcome.NONFINITE), axis=1)
    counts = {"converged": converged, "bounded, not converged": num - converged - diverged, "diverged": diverged}
    shares = {name: [problems.share(int(hits), num) for hits in values] for name, values in counts.items()}
    path = vanishing_path(key_target, 3 * np.ones(ratios.size))
    return critical, ratios, shares, path[:, 1] * ratios * critical


def transition_figure():
    """Shares with intervals, and an eigenvalue of M_WS below."""
    _, ratios, shares, weak = transition()
    bars = {name: np.array([[s["share"], *s["interval"]] for s in rows]) for name, rows in shares.items()}
    return draw.draw_transition(ratios, bars, weak)


@claim(
    "A.thm20",
    source="Theorem 20",
    expected=Verdict.HOLDS,
    statement="For an orthogonal map followed by a translation, A conjugates the descent maps of L o A and of L.",
)
def invariance_under_isometries(key):
    """Compare A o G_(L o A) and G_L o A at random points of a loss without symmetry."""
    key_O, key_v, key_B, key_x = jax.random.split(key, 4)
    O, v, B = jax.random.orthogonal(key_O, 5), jax.random.normal(key_v, (5,)), jax.random.normal(key_B, (7, 5))  # noqa: E741
    x = jax.random.normal(key_x, (100, 5))
    loss = lambda x: jnp.sum(jnp.sin(B @ x)) + 0.25 * jnp.sum(x**4)  # noqa: E731
    move = lambda x: O @ x + v  # noqa: E731
    left = jax.vmap(move)(image_of_descent(lambda x: loss(move(x)), x, 0.1))
    right = image_of_descent(loss, np.asarray(jax.vmap(move)(x)), 0.1)
    error = float(np.abs(left - right).max())
    note = "Equation (14), first line, misprints A o G_(L o A) o A^(-1) as A o G_L o A(A^(-1))."
    return Finding(judge(error < 1e-12 * float(np.abs(right).max())), {"largest difference": error}, note)


@claim(
    "A.rem21",
    source="Remark 21",
    expected=Verdict.CORRECTED,
    statement="For L = x^T A x + c with eigenvalues a_1 >= ... >= a_n > 0, descent diverges if eta > 2/a_n, and "
    "otherwise converges or becomes periodic.",
)
def quadratic_threshold(key):
    """Fates on both sides of 1/a_1 and of 2/a_n."""
    largest, least = 1.0, 0.1
    loss = Quadratic(2 * jnp.diag(jnp.array([largest, 0.4, least])))
    step_sizes = np.array([0.5, 0.95, 1.0, 1.05, 2.0, 10.0, 19.0, 21.0])
    rule = StoppingRule(max_steps=5000, max_period=2)
    ends = ensembles.run(DESCENT, loss, sampling.gaussian(key, 200, 3), step_sizes, rule)
    names = [sorted({Outcome(int(code)).name.lower() for code in row}) for row in ends.outcome]
    diverges = np.array([row == ["diverged"] for row in names])
    numbers = {"1/a_1": 1 / largest, "2/a_n": 2 / least, "step sizes": step_sizes, "fates": names}
    note = "The threshold is 1/a_1, with the largest eigenvalue (the Hessian is 2A): at it the orbit has period 2."
    printed = bool((diverges == (step_sizes > 2 / least)).all())
    corrected = bool((diverges == (step_sizes > 1 / largest)).all()) and names[2] == ["cycling"]
    return Finding(judge(printed, corrected), numbers, note)
