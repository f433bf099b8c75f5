"""Paper A, sections 3.1, 4.2 and 4.3: the best map, the manifold of minima, and the Hessian on it."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gdstab import curvature, ensembles, minima, updates
from gdstab.claims import problems
from gdstab.claims.problems import DEEP_WIDTHS, SCALE, SINGULAR_VALUES, WIDTHS, small_problem, vanishing_path
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.figures import claims as draw
from gdstab.losses import LinearNetwork
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import counterexamples, linear
from gdstab.theory.factorisations import balanced_factorisation


@claim(
    "A.prop2",
    source="Proposition 2, with the W_0 printed before it",
    expected=Verdict.CORRECTED,
    statement="If the singular values of W_0 = Y X^T (X X^T)^(-1/2) are distinct and positive, the loss on matrices of "
    "rank r has one global minimum, the truncated singular value decomposition of W_0.",
)
def truncation_is_optimal(key):
    """Truncate for data that are not whitened, and hold it against reduced-rank regression and against descent."""
    key_inputs, key_targets, key_starts = jax.random.split(key, 3)
    inputs = jnp.array([1.0, 0.5, 0.25])[:, None] * jax.random.normal(key_inputs, (3, 8)) / np.sqrt(8)
    targets = jax.random.normal(key_targets, (3, 8))
    best = linear.reduced_rank_map(inputs, targets, 1)
    starts = tuple(
        jax.random.normal(k, (200, *s)) for k, s in zip(jax.random.split(key_starts), [(1, 3), (3, 1)], strict=True)
    )
    loss = LinearNetwork(inputs, targets, SCALE)
    ends = ensembles.run(
        updates.gradient_descent(), loss, starts, 0.02, StoppingRule(loss_tol=None, grad_tol=1e-9, max_steps=50_000)
    )
    least = float(jnp.sum((targets - best @ inputs) ** 2))
    X, Y = np.asarray(inputs), np.asarray(targets)
    values, vectors = np.linalg.eigh(X @ X.T)
    printed = Y @ X.T @ vectors @ np.diag(values**-0.5) @ vectors.T
    excess_printed = float(np.sum((Y - np.asarray(linear.truncate(jnp.asarray(printed), 1)) @ X) ** 2)) - least
    excess = float(counterexamples.truncation_excess(inputs, targets, 1))
    orthonormal = jnp.asarray(np.linalg.qr(X.T)[0].T)
    whitened_excess = float(counterexamples.truncation_excess(orthonormal, targets, 1))
    numbers = {
        "least loss of rank 1": least,
        "excess of the printed W_0, truncated": excess_printed,
        "excess of the least-squares map, truncated": excess,
        "excess for whitened data": whitened_excess,
        "least loss that descent reached": ends.loss.min(),
    }
    corrected = abs(whitened_excess) < 1e-10 and abs(ends.loss.min() - least) < 1e-8 * least
    note = (
        "Needs whitened data (X X^T = I). In general the minimum is reduced-rank regression, "
        "[Y X^T (X X^T)^(-1/2)]_r (X X^T)^(-1/2), and W_0 = Y X^T (X X^T)^(-1)."
    )
    return Finding(judge(min(excess, excess_printed) < 1e-8 * least, corrected), numbers, note)


@lru_cache(maxsize=1)
def _measured(num: int = 4):
    """Predicted and measured (n_-, n_0, n_+) and dimension at random minima of every architecture."""
    rows = []
    for number, widths in enumerate(problems.ARCHITECTURES):
        inertia, dimensions = kept(_at_minima, number, widths, num)
        rows.append({
            "widths": widths,
            "dimension": linear.manifold_dimension(widths),
            "measured dimension": dimensions,
            "inertia": linear.minimum_inertia(widths),
            "measured inertia": inertia,
        })  # fmt: skip
    return rows


def _at_minima(number: int, widths: tuple[int, ...], num: int) -> tuple[list, list]:
    """Which inertia, and which dimensions, some minima have."""
    key_target, key_points = jax.random.split(jax.random.key(number))
    target = problems.teacher(key_target, widths)
    loss, points = problems.whitened(target, SCALE), problems.random_minima(key_points, target, widths, num)
    inertia, ranks = ensembles.map_points(partial(_inertia_and_rank, loss), points)
    parameters = linear.num_parameters(widths)
    dimensions = sorted({parameters - int(rank) for rank in ranks})
    return sorted({tuple(row) for row in np.stack(inertia, axis=-1).tolist()}), dimensions


def _inertia_and_rank(loss, theta):
    """Signs of the Hessian's eigenvalues, and the rank of the residual's Jacobian."""
    flat, unravel = ravel_pytree(theta)
    J = jax.jacrev(lambda x: loss.residual(unravel(x)))(flat)
    return curvature.inertia(loss, theta), jnp.linalg.matrix_rank(J, rtol=1e-10)


def _crossing():
    """A minimum for a target of rank 1 in a network of width 2, where two sheets of M meet."""
    loss, theta = problems.whitened(jnp.diag(jnp.array([1.0, 0.0])), SCALE), (jnp.diag(jnp.array([1.0, 0.0])),) * 2
    ahead = (jnp.zeros((2, 2)), jnp.diag(jnp.array([0.0, 1.0])))
    aside = ahead[::-1]
    both = jax.tree.map(jnp.add, ahead, aside)
    moved = lambda way, t: jax.tree.map(lambda a, b: a + t * b, theta, way)  # noqa: E731
    return loss, theta, [float(jnp.linalg.norm(loss.residual(moved(way, 0.1)))) for way in (ahead, aside, both)]


@claim(
    "A.thm9",
    source="Theorem 9 (38)",
    expected=Verdict.CORRECTED,
    statement="M is a smooth manifold of dimension d_theta - r (d_i + d_o - r).",
)
def minima_are_a_manifold(key):
    """Compare with the rank of the residual's Jacobian at random minima, and look at a target of deficient rank."""
    del key
    rows = _measured()
    agree = all(row["measured dimension"] == [row["dimension"]] for row in rows)
    loss, theta, off = _crossing()
    at_crossing = minima.dimension(loss, theta)
    numbers = {
        "architectures": [{k: row[k] for k in ("widths", "dimension", "measured dimension")} for row in rows],
        "rank 1 target, widths (2, 2, 2): predicted dimension": linear.manifold_dimension(WIDTHS),
        "rank 1 target: tangent dimension at a minimum": at_crossing,
        "rank 1 target: residual along two tangents and along their sum": off,
    }
    note = (
        "Needs rank W* >= r, which full-rank inputs do not give (the main text says they do; the appendix assumes it). "
        "For a target of rank 1 two lines through one minimum lie in M and no curve does along their sum: M is no "
        "manifold there."
    )
    printed = at_crossing == linear.manifold_dimension(WIDTHS) and max(off) < 1e-12
    require(max(off[:2]) < 1e-12, "the two lines do not lie in M")
    return Finding(judge(printed and agree, agree), numbers, note)


@claim(
    "A.thm10",
    source="Theorem 10 (Proposition 39)",
    expected=Verdict.CORRECTED,
    statement="At a minimum the Hessian has dim M_r positive, dim M zero and no negative eigenvalues.",
)
def inertia_at_minima(key):
    """Count the signs of exact spectra at random minima, filling and non-filling, and at a target of deficient rank."""
    del key
    rows = _measured()
    agree = all(row["measured inertia"] == [row["inertia"]] for row in rows)
    loss, theta, _ = _crossing()
    found = tuple(int(count) for count in curvature.inertia(loss, theta))
    numbers = {
        "architectures": [{k: row[k] for k in ("widths", "inertia", "measured inertia")} for row in rows],
        "rank 1 target, widths (2, 2, 2): predicted": linear.minimum_inertia(WIDTHS),
        "rank 1 target: measured": found,
    }
    note = (
        "Needs rank W* >= r, as Theorem 9 does. It holds for non-filling networks too, though the printed proof does "
        "not: the second term of the Hessian does not vanish there."
    )
    return Finding(judge(agree and found == linear.minimum_inertia(WIDTHS), agree), numbers, note)


def invisible_line(key, distances):
    """Along the line of minima: norm, least and largest positive eigenvalue."""
    target, loss = small_problem(key)
    rows = []
    for distance in distances:
        theta = counterexamples.invisible_line(target, DEEP_WIDTHS, float(distance))
        values = problems.positive_spectrum(loss, theta)
        require(problems.distance_off(loss, theta) < 1e-12, f"the line leaves M at distance {distance:g}")
        rows.append((problems.norm(theta), values[0], values[-1]))
    return np.array(rows)


@claim(
    "A.thm12",
    source="Theorem 12 (47)",
    expected=Verdict.FAILS,
    statement="Every non-zero Hessian eigenvalue is a proper function on M.",
)
def every_eigenvalue_is_proper(key):
    """Walk to infinity on M while the least positive eigenvalue falls to zero."""
    path = vanishing_path(key, np.geomspace(1, 1e4, 17))
    slope = np.polyfit(np.log(path[-8:, 0]), np.log(path[-8:, 1]), 1)[0]
    line = invisible_line(key, [0.0, 1e3])
    numbers = {
        "norm of theta along the path": path[[0, -1], 0],
        "least positive eigenvalue there": path[[0, -1], 1],
        "exponent in the norm": slope,
        "h = 3: norm along a line of minima": line[:, 0],
        "h = 3: largest eigenvalue there": line[:, 2],
    }
    note = (
        "diag(t, 1/t) passed from the first layer to the last keeps the product: with it the least positive "
        "eigenvalue falls like t^(-2) at unbounded minima. For h = 3 with two wide hidden layers even the largest one "
        "is constant along a line. Proper are lambda_max for h = 2 and for square layers with invertible W*."
    )
    proper = not (path[-1, 0] > 1e3 and path[-1, 1] < 1e-5) and not np.ptp(line[:, 2]) < 1e-9 * line[0, 2]
    return Finding(judge(proper), numbers, note, partial(draw.draw_vanishing_path, path))


@claim(
    "A.cor13",
    source="Corollary 13",
    expected=Verdict.FAILS,
    statement="For each non-zero eigenvalue lambda_i there is eta_i such that for all eta > eta_i no minimum has "
    "lambda_i <= 1/eta.",
)
def curvature_has_a_floor(key):
    """For every step size tried, find a minimum with a smaller positive eigenvalue."""
    step_sizes = np.array([1.0, 1e2, 1e4, 1e6])
    total = 2 * SCALE * sum(SINGULAR_VALUES)
    path = vanishing_path(key, np.sqrt(2 * total * step_sizes))
    numbers = {
        "step sizes": step_sizes,
        "1 / eta": 1 / step_sizes,
        "least positive eigenvalue at a minimum": path[:, 1],
    }
    note = (
        "False for the smallest, as Theorem 12 is (2/eta is meant). The largest has the floor 2 c h sigma_max^(2-2/h)."
    )
    return Finding(judge(bool((path[:, 1] > 1 / step_sizes).any())), numbers, note)


@claim(
    "A.contrib3",
    source="Section 1.1, item 3",
    expected=Verdict.FAILS,
    statement="The stable minima form a bounded subset of parameter space.",
)
def stable_minima_are_bounded(key):
    """Follow a line of minima with constant spectrum, and run descent next to its far end."""
    key_target, key_starts = jax.random.split(key)
    distances = np.linspace(0, 1e3, 21)
    line = invisible_line(key_target, distances)
    target, loss = small_problem(key_target)
    far = counterexamples.invisible_line(target, DEEP_WIDTHS, distances[-1])
    starts = problems.nearby(key_starts, far, 400, 1e-4)
    ends = ensembles.run(updates.gradient_descent(), loss, starts, 1 / line[0, 2], StoppingRule(loss_tol=1e-20))
    norms = np.sqrt(sum(np.sum(leaf**2, axis=(1, 2)) for leaf in ends.theta))
    numbers = {
        "widths": DEEP_WIDTHS,
        "farthest norm": line[-1, 0],
        "relative spread of lambda_max": np.ptp(line[:, 2]) / line[0, 2],
        "descent converges there": problems.share(int(np.sum(ends.outcome == Outcome.CONVERGED)), 400),
        "least norm where it ended": norms.min(),
    }
    unbounded = np.ptp(line[:, 2]) < 1e-9 * line[0, 2] and bool((ends.outcome == Outcome.CONVERGED).all())
    note = (
        "False for h >= 3: two hidden layers in a row, both wider than the rank, hide an entry. True for one hidden "
        "layer, where lambda_max is proper."
    )
    bounded = not (unbounded and norms.min() > 999)
    return Finding(judge(bounded), numbers, note, partial(draw.draw_invisible_line, distances, line))


@claim(
    "A.def14",
    source="Definition 14",
    expected=Verdict.CORRECTED,
    statement="M_SS is where lambda_max < 2/eta, M_WS is where lambda_min < 2 eta.",
)
def stable_sets(key):
    """Evaluate both sets, as printed and as meant, on random minima."""
    key_target, key_points = jax.random.split(key)
    target, loss = small_problem(key_target)
    values = problems.spectra(loss, problems.random_minima(key_points, target, WIDTHS, 1000))
    positive = values[:, -4:]
    step_sizes = np.array([0.05, 0.2, 0.5, 2.0])
    shares = [(np.mean(positive[:, -1] < 2 / eta), np.mean(positive[:, 0] < 2 / eta)) for eta in step_sizes]
    printed = [np.mean(values[:, 0] < 2 * eta) for eta in step_sizes]
    numbers = {
        "step sizes": step_sizes,
        "share of minima in M_SS": [s for s, _ in shares],
        "share in M_WS, smallest positive eigenvalue, 2/eta": [w for _, w in shares],
        "share in M_WS as printed": printed,
        "largest |lambda_min| over lambda_max": np.max(np.abs(values[:, 0]) / values[:, -1]),
    }
    nested = all(s <= w for s, w in shares) and shares[0][1] > shares[-1][1]
    as_meant = bool(np.allclose(printed, [w for _, w in shares]))
    note = "Read 2/eta, and the smallest non-zero eigenvalue: lambda_min = 0 on M, so that M_WS as printed is all of M."
    return Finding(judge(as_meant, nested), numbers, note)


@claim(
    "A.cor17",
    source="Corollary 17",
    expected=Verdict.FAILS,
    statement="There are eta_E >= eta_C > 0 with M_SS non-empty for eta < eta_C and M_WS empty for eta > eta_E.",
)
def critical_step_sizes(key):
    """Find eta_C by minimising lambda_max over M, and a minimum of M_WS for every step size tried."""
    key_target, *keys = jax.random.split(key, 4)
    target, loss = small_problem(key_target)
    starts = [problems.random_minima(k, target, WIDTHS, 1) for k in keys]
    flattest = minima.flattest(loss, [jax.tree.map(lambda leaf: leaf[0], theta) for theta in starts])
    exact = 2 / linear.critical_step(np.eye(2), np.asarray(target), WIDTHS, SCALE)
    balanced = float(curvature.sharpness(loss, balanced_factorisation(target, WIDTHS)))
    step_sizes = np.array([0.5, 1.0, 1.01, 10.0, 1e3, 1e6]) * 2 / exact
    path = vanishing_path(key_target, np.sqrt(4 * sum(SINGULAR_VALUES) * step_sizes + 1))
    numbers = {
        "eta_C": 2 / exact,
        "flattest minimum found, against 2 c h sigma_max^(2-2/h)": [flattest.sharpness, exact],
        "relative error": flattest.sharpness / exact - 1,
        "step sizes": step_sizes,
        "least positive eigenvalue at a minimum, times eta": path[:, 1] * step_sizes,
    }
    require(abs(balanced / exact - 1) < 1e-9, "the balanced minimum is not as flat as the formula says")
    require(
        abs(flattest.sharpness / exact - 1) < 1e-6, "minimisation does not reach the formula for the flattest minimum"
    )
    note = (
        "eta_C exists, 2 over the flattest minimum's sharpness, and eta_E does not: M_WS (as meant) is non-empty for "
        "every step size. It is not needed: above eta_C every minimum has a multiplier below -1."
    )
    return Finding(judge(bool((path[:, 1] * step_sizes >= 2).any())), numbers, note)


@claim(
    "A.appA1",
    source="Appendix A.1, before equation (11)",
    expected=Verdict.CORRECTED,
    statement="X X^T = R D R^T with the x_i as columns of R and D = diag(|x_i|^2), so that a rotation and a "
    "translation bring the loss to the form vec(W)^T (D (x) I) vec(W) + c'.",
)
def diagonal_form_of_the_loss(key):
    """Compare both sides, and the spectrum of the quadratic form with D and with the eigenvalues of X X^T."""
    key_inputs, key_targets = jax.random.split(key)
    X = np.asarray(jax.random.normal(key_inputs, (3, 3)))
    loss = LinearNetwork(jnp.asarray(X), jax.random.normal(key_targets, (2, 3)), SCALE)
    squares = np.sum(X**2, axis=0)
    gram = X @ X.T
    form = np.asarray(curvature.eigenvalues(loss, (jnp.zeros((2, 3)),))) / (2 * SCALE)
    by_data = np.sort(np.repeat(squares, 2))
    by_eigenvalues = np.repeat(np.linalg.eigvalsh(gram), 2)
    numbers = {
        "relative error of R D R^T": np.linalg.norm(X @ np.diag(squares) @ X.T - gram) / np.linalg.norm(gram),
        "spectrum of the form": form,
        "printed": by_data,
        "eigenvalues of X X^T, each twice": by_eigenvalues,
    }
    note = "R must hold the eigenvectors of X X^T and D its eigenvalues; the x_i are eigenvectors only if orthogonal."
    printed = bool(np.allclose(form, by_data) and np.allclose(X @ np.diag(squares) @ X.T, gram))
    return Finding(judge(printed, bool(np.allclose(form, by_eigenvalues))), numbers, note)
