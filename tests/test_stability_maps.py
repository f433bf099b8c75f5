"""Multipliers, fixed points and thresholds of whole update maps, against closed forms; transient growth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from conftest import assert_close

from gdstab import stability, updates
from gdstab.losses import LinearNetwork, ScalarProduct
from gdstab.theory import optimisers

CURVATURES = np.array([3.0, 1.0, 0.5])
NU = np.array([4.0, 0.25, 1.0])
slow = pytest.mark.slow
BETA, DECAY, EPS = 0.8, 0.3, 1e-3


def bowl(theta):
    """Not diagonal, so that preconditioning does not commute with it."""
    turn = jnp.asarray(scipy.linalg.expm(np.array([[0, 1, -0.5], [-1, 0, 0.3], [0.5, -0.3, 0]])), theta.dtype)
    turned = jnp.matmul(turn, theta, precision="highest")
    return 0.5 * jnp.sum(jnp.asarray(CURVATURES, theta.dtype) * turned**2)


multipliers = jax.jit(stability.multipliers, static_argnums=(0, 1))
HESSIAN = np.asarray(jax.hessian(bowl)(jnp.zeros(3)))


def saddle(theta):
    return theta[0] ** 2 - theta[1] ** 2


def rule_and_curvatures(name, decay=0.0):
    """A rule (at a frozen second moment where it has one), and the curvatures it sees at the minimum of `bowl`."""
    rule = updates.named(name, beta=BETA, beta2=0.9, eps=EPS, weight_decay=decay)
    if name not in optimisers.ADAPTIVE:
        return rule, CURVATURES
    scale = np.sqrt(NU + EPS) if name == "adagrad" else np.sqrt(NU) + EPS
    seen = scipy.linalg.eigh(HESSIAN, np.diag(scale), eigvals_only=True)  # of P^-1 H: another path than the package's
    return updates.frozen(rule, jnp.asarray(NU)), seen


LATER = {"adam", "adamw", "rmsprop", "nesterov"}  # looked at below as well


@pytest.mark.parametrize("name", [pytest.param(x, marks=slow if x in LATER else ()) for x in optimisers.KNOWN])
def test_thresholds_and_multipliers_against_closed_forms(name):
    rule, seen = rule_and_curvatures(name)
    expected = float(optimisers.threshold(name, seen.max(), beta=BETA))
    found = stability.threshold_of(rule, bowl, jnp.zeros(3), 0.01 * expected, 1.7 * expected)
    assert found.step_size == pytest.approx(expected, rel=1e-9)
    assert found.multiplier == pytest.approx(-1, abs=1e-6)
    assert 0 < found.width < 1e-9 * expected
    state = stability.extend(rule, bowl, jnp.zeros(3), 0.4 * expected)
    modes = optimisers.multipliers(name, 0.4 * expected, seen, beta=BETA).ravel()
    values = np.asarray(multipliers(rule, bowl, state, 0.4 * expected))
    np.testing.assert_allclose(np.sort_complex(values.round(9)), np.sort_complex(modes.round(9)), atol=1e-8)


@pytest.mark.parametrize(
    "name", [pytest.param("descent", marks=slow), "heavy-ball", pytest.param("nesterov", marks=slow)]
)
def test_weight_decay_shifts_the_curvature(name):
    rule, seen = rule_and_curvatures(name, DECAY)
    expected = float(optimisers.threshold(name, seen.max(), beta=BETA, weight_decay=DECAY))
    assert expected < optimisers.threshold(name, seen.max(), beta=BETA)
    assert stability.threshold_of(rule, bowl, jnp.zeros(3), 0.1, 4.0).step_size == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_decay_of_adamw_is_its_own():
    """It acts apart from the preconditioner, so that the modes are those of the preconditioned Hessian."""
    rule, seen = rule_and_curvatures("adamw", DECAY)
    expected = float(optimisers.threshold("adamw", seen.max(), beta=BETA, weight_decay=DECAY))
    found = stability.threshold_of(rule, bowl, jnp.zeros(3), 0.1, 20.0)
    assert found.step_size == pytest.approx(expected, rel=1e-9)
    modes = optimisers.multipliers("adamw", 0.4 * expected, seen, beta=BETA, weight_decay=DECAY).ravel()
    values = np.asarray(
        multipliers(rule, bowl, stability.extend(rule, bowl, jnp.zeros(3), 0.4 * expected), 0.4 * expected)
    )
    np.testing.assert_allclose(np.sort_complex(values.round(9)), np.sort_complex(modes.round(9)), atol=1e-8)


@pytest.mark.slow
def test_decay_in_the_gradient_is_preconditioned_too():
    rule, _ = rule_and_curvatures("adam", DECAY)
    seen = scipy.linalg.eigh(HESSIAN + DECAY * np.eye(3), np.diag(np.sqrt(NU) + EPS), eigvals_only=True)
    expected = float(optimisers.threshold("adam", seen.max(), beta=BETA))
    found = stability.threshold_of(rule, bowl, jnp.zeros(3), 0.1, 20.0)
    assert found.step_size == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_thresholds_along_the_manifold_of_the_scalar_product():
    """xy = 2: sharpness 2c (x^2 + y^2), a multiplier 1 along the manifold at every step size."""
    loss = ScalarProduct(depth=2, target=2.0, scale=0.5)
    for name in ("heavy-ball", "nesterov"):
        rule = updates.named(name, beta=BETA)
        for x in (0.5, 1.0, np.sqrt(2.0), 3.0):
            expected = float(optimisers.threshold(name, x**2 + 4 / x**2, beta=BETA))
            found = stability.threshold_of(rule, loss, jnp.array([x, 2 / x]), 0.1 * expected, 2 * expected)
            assert found.step_size == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_adam_on_the_product_sees_the_preconditioned_hessian():
    loss, theta = ScalarProduct(depth=2, target=2.0, scale=0.5), jnp.array([4.0, 0.5])
    nu = jnp.array([0.01, 1.0])
    rule = updates.frozen(updates.named("adam"), nu)
    sharpness = jax.jit(stability.preconditioned_sharpness)(loss, theta, jnp.sqrt(nu) + 1e-8)
    assert_close(sharpness, 0.25 / 0.1 + 16.0)  # the gradient is (y, x) times the residual: rank one
    found = stability.threshold_of(rule, loss, theta, 0.1, 10.0)
    assert found.step_size == pytest.approx(float(optimisers.threshold("adam", float(sharpness))), rel=1e-7)


def test_what_crosses_is_said():
    """Nesterov with weight on a saddle-free bowl flips; a rotation leaves the circle off the real axis."""

    def step(loss, state, step_size):
        x, y = state
        g = jax.grad(loss)(jnp.stack([x, y]))
        return x - step_size * (0.1 * g[0] - g[1]), y - step_size * (0.1 * g[1] + g[0])

    spiral = updates.UpdateRule(lambda theta, _: (theta[0], theta[1]), step, jnp.stack, True)
    found = stability.threshold_of(spiral, lambda t: 0.5 * jnp.sum(t**2), jnp.zeros(2), 0.01, 1.0)
    # |1 - eta (0.1 + i)|^2 = 1
    assert found.step_size == pytest.approx(0.2 / 1.01, rel=1e-9)
    assert abs(found.multiplier.imag) > 0.1
    assert abs(found.multiplier) == pytest.approx(1, abs=1e-9)


def test_no_threshold_where_nothing_is_steep():
    rule = updates.gradient_descent()
    assert stability.threshold_of(rule, bowl, jnp.zeros(3), 0.01, 0.1).step_size == np.inf


@pytest.mark.parametrize("name", ["heavy-ball", pytest.param("adam", marks=slow)])
def test_threshold_in_single_precision(name):
    rule, seen = rule_and_curvatures(name)
    expected = float(optimisers.threshold(name, seen.max(), beta=BETA))
    found = stability.threshold_of(rule, bowl, jnp.zeros(3, jnp.float32), 0.1 * expected, 2 * expected)
    assert found.step_size == pytest.approx(expected, rel=1e-3)


def test_extended_state_rests_and_counters_are_at_their_limit():
    rule, theta = rule_and_curvatures("adam")[0], jnp.zeros(3)
    state = stability.extend(rule, bowl, theta, 0.1)
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(3,), (3,)]  # parameters and momentum, nothing else
    moved = jax.jit(rule.step, static_argnums=0)(bowl, state, 0.1)
    jax.tree.map(assert_close, moved, state)
    # The whole state of RMSprop with epsilon under the root is smooth at nu = 0: its own multipliers are those of nu.
    whole = updates.from_optax(lambda s: optax.rmsprop(s, decay=0.9, eps=1.0))
    state = stability.extend(whole, bowl, theta, 0.1)
    values = multipliers(whole, bowl, state, 0.1)
    expected = np.concatenate([1 - 0.1 * CURVATURES, [0.9] * 3])
    np.testing.assert_allclose(np.sort(values.real), np.sort(expected), atol=1e-9)


def test_bias_correction_at_its_limit_is_that_of_a_long_orbit():
    """At frozen nu the steps of Adam after thousands of updates are those of the frozen map."""
    theta, nu, eta = jnp.array([1.0, -2.0, 0.5]), jnp.asarray(NU), 0.05
    plain, frozen = updates.named("adam", beta2=0.9), updates.frozen(updates.named("adam", beta2=0.9), nu)
    limit = jax.jit(lambda state: frozen.step(bowl, state, eta))
    state, memory = frozen.init(theta, eta), plain.init(theta, eta)[1]
    gradient = jax.grad(bowl)(theta)
    before = (nu - 0.1 * gradient**2) / 0.9  # so that the update of nu ends at nu
    late = memory[0]._replace(count=jnp.asarray(5000, memory[0].count.dtype), nu=before)
    expected = jax.jit(plain.step, static_argnums=0)(bowl, (theta, (late, *memory[1:])), eta)
    found = limit(state)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-13)
    np.testing.assert_allclose(found[1][0].mu, expected[1][0].mu, rtol=1e-13)


@pytest.mark.slow
def test_fixed_points_with_weight_decay():
    loss = ScalarProduct(depth=2, target=2.0, scale=0.5)
    rule = updates.named("heavy-ball", beta=0.5, weight_decay=DECAY)
    found = stability.fixed_point(rule, loss, jnp.array([1.5, 1.2]), 0.1)
    # xy = a - w on the symmetric line, for (a - xy) x = w x
    assert_close(found.theta, np.sqrt(2.0 - DECAY) * np.ones(2), factor=1e-4)
    assert found.residual < 1e-12
    with pytest.raises(ValueError, match="weight decay moves it"):
        stability.extend(rule, loss, jnp.full(2, np.sqrt(2.0)), 0.1)
    top = np.linalg.eigvalsh(jax.hessian(loss)(found.theta))[-1]
    crossing = stability.threshold_of(rule, loss, found.theta, 0.1, 3.0, state=found.state)
    expected = optimisers.threshold("heavy-ball", top, beta=0.5, weight_decay=DECAY)
    assert crossing.step_size == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.slow
def test_fixed_point_on_a_manifold_and_of_adamw():
    loss = ScalarProduct(depth=2, target=2.0, scale=0.5)
    found = stability.fixed_point(updates.named("nesterov"), loss, jnp.array([2.0, 0.5]), 0.1)
    assert_close(jnp.prod(found.theta), 2.0, factor=1e-5)
    rule = updates.frozen(updates.named("adamw", weight_decay=0.1), jnp.array([4.0, 9.0]))
    found = stability.fixed_point(rule, loss, jnp.array([1.4, 1.4]), 0.05)
    slope = np.asarray(jax.grad(loss)(found.theta)) / (np.array([2.0, 3.0]) + 1e-8)
    np.testing.assert_allclose(slope + 0.1 * np.asarray(found.theta), 0, atol=1e-10)
    assert abs(float(found.theta[0])) > 0.1


@pytest.mark.slow
def test_networks_as_trees():
    loss = LinearNetwork(jnp.eye(2), jnp.diag(jnp.array([2.0, 0.5])), scale=0.5)
    balanced = (jnp.diag(jnp.sqrt(jnp.array([2.0, 0.5]))),) * 2
    found = stability.threshold_of(updates.named("heavy-ball", beta=0.5), loss, balanced, 0.05, 2.0)
    assert found.step_size == pytest.approx(3.0 / 4.0, rel=1e-8)  # 2 (1 + beta) / (2 c h sigma_max)


@pytest.mark.parametrize("name", ["sign", "lion"])
def test_rules_that_jump_are_refused(name):
    with pytest.raises(ValueError, match="jumps or has a kink"):
        stability.extend(updates.named(name), bowl, jnp.zeros(3), 0.1)


@pytest.mark.slow
def test_what_has_no_fixed_point_or_derivative_is_refused():
    with pytest.raises(ValueError, match=r"updates\.frozen"):
        stability.extend(updates.named("adam"), bowl, jnp.zeros(3), 0.1)
    with pytest.raises(ValueError, match=r"updates\.frozen"):
        stability.extend(updates.named("rmsprop"), bowl, jnp.zeros(3), 0.1)
    to_rounding = jnp.array([1.6, 0.625])  # the gradient is not quite zero here
    with pytest.raises(ValueError, match=r"updates\.frozen"):
        stability.extend(updates.named("adam"), ScalarProduct(), to_rounding, 0.1)
    with pytest.raises(ValueError, match="Normalised descent"):
        stability.extend(updates.named("normalised"), bowl, jnp.zeros(3), 0.1)
    with pytest.raises(ValueError, match="moves by"):
        stability.extend(updates.named("heavy-ball"), bowl, jnp.ones(3), 0.1)
    with pytest.raises(ValueError, match="finite parameters"):
        stability.extend(updates.gradient_descent(), bowl, jnp.full(3, jnp.nan), 0.1)
    scheduled = updates.from_optax(lambda s: optax.sgd(lambda count: s / (1 + count)), autonomous=False)
    for study in (stability.extend, stability.fixed_point):
        with pytest.raises(ValueError, match="schedule"):
            study(scheduled, bowl, jnp.zeros(3), 0.1)
    with pytest.raises(ValueError, match="schedule"):
        stability.multipliers(scheduled, bowl, scheduled.init(jnp.zeros(3), 0.1), 0.1)
    with pytest.raises(ValueError, match="schedule"):
        stability.threshold_of(scheduled, bowl, jnp.zeros(3), 0.1, 1.0)
    with pytest.raises(ValueError, match="no fixed point"):
        stability.fixed_point(updates.gradient_descent(), lambda t: t[0], jnp.zeros(1), 0.1)


def test_kinks_are_refused_and_steep_curvature_is_not():
    with pytest.raises(ValueError, match="kink"):
        stability.extend(
            updates.gradient_descent(), lambda t: jnp.sum(jnp.where(t > 0, 1.0, 2.0) * t**2), jnp.zeros(2), 0.1
        )
    steep = updates.gradient_descent()
    assert stability.extend(steep, lambda t: 1e8 * jnp.sum(t**2) + jnp.sum(t**4), jnp.zeros(2), 0.1).shape == (2,)


def test_bad_arguments_are_refused():
    rule = updates.gradient_descent()
    with pytest.raises(ValueError, match="stable at step size"):
        stability.threshold_of(rule, saddle, jnp.zeros(2), 0.1, 1.0)
    with pytest.raises(ValueError, match="stable at step size"):
        stability.threshold_of(rule, bowl, jnp.zeros(3), 1.0, 2.0)
    with pytest.raises(ValueError, match="low < high"):
        stability.threshold_of(rule, bowl, jnp.zeros(3), 1.0, 1.0)
    with pytest.raises(ValueError, match="step_size"):
        stability.extend(rule, bowl, jnp.zeros(3), -0.1)
    with pytest.raises(ValueError, match="extreme_eigenvalues"):
        stability.multipliers(rule, bowl, jnp.zeros(600), 0.1)
    with pytest.raises(ValueError, match="at most 2 "):
        stability.multipliers(rule, bowl, jnp.zeros(3), 0.1, dense_limit=2)


def test_transient_growth_against_powers(rng):
    matrix = np.triu(rng.normal(size=(5, 5)))
    matrix[np.diag_indices(5)] = [0.9, 0.8, -0.7, 0.5, 0.1]
    norms = [np.linalg.norm(np.linalg.matrix_power(matrix, k), 2) for k in range(400)]
    found = stability.transient_growth(matrix)
    assert found.complete
    assert (found.peak, found.power) == (pytest.approx(max(norms)), int(np.argmax(norms)))
    np.testing.assert_allclose(found.norms, norms[: len(found.norms)], rtol=1e-10)
    some = stability.transient_growth(matrix, entries=2)
    blocks = [np.linalg.norm(np.linalg.matrix_power(matrix, k)[:2, :2], 2) for k in range(400)]
    assert (some.peak, some.power) == (pytest.approx(max(blocks)), int(np.argmax(blocks)))
    assert stability.kreiss_bound(matrix) <= found.peak <= np.e * 5 * stability.kreiss_bound(matrix, radii=200)
    assert not stability.transient_growth(2 * np.eye(2), max_power=10).complete
    assert stability.transient_growth(2 * np.eye(2), max_power=2000).peak == np.inf


@pytest.mark.slow
def test_growth_of_momentum_is_transient():
    """Just below the threshold every multiplier is inside, and yet a disturbance grows several times first."""
    rule = updates.named("heavy-ball", beta=0.95)
    state = stability.extend(rule, bowl, jnp.zeros(3), 0.9)
    matrix = stability.jacobian(rule, bowl, state, 0.9)
    assert stability.spectral_radius(rule, bowl, state, 0.9) < 1
    found = stability.transient_growth(matrix, entries=3)
    assert found.complete
    assert found.peak > 1.2
    # A normal map has none.
    assert stability.transient_growth(np.diag([0.9, -0.99])).peak == 1


def test_numerical_range_of_a_jordan_block_is_a_disc():
    """Of order n: the disc of radius cos(pi / (n + 1)) about the eigenvalue (Haagerup and de la Harpe 1992)."""
    n = 4
    block = np.eye(n, k=1) + 0.3 * np.eye(n)
    edge = stability.numerical_range(block, angles=60)
    np.testing.assert_allclose(np.abs(edge - 0.3), np.cos(np.pi / (n + 1)), rtol=1e-12)
    np.testing.assert_allclose(np.angle(edge - 0.3) % (2 * np.pi), 2 * np.pi * np.arange(60) / 60, atol=1e-6)
    assert stability.numerical_radius(block) == pytest.approx(0.3 + np.cos(np.pi / (n + 1)), rel=1e-12)


@pytest.mark.parametrize(("size", "turn"), [(1.05, 3.1), (1.0001, 1.5), (1 + 1e-6, -1.3)])
def test_numerical_radius_is_the_maximum_over_all_directions(size, turn):
    # The best of few directions is near the smaller entry, about which a search stays; the other is the farthest.
    matrix = np.diag([np.exp(0.01j), size * np.exp(1j * turn)])
    for angles in (3, 4, 180):
        assert stability.numerical_radius(matrix, angles=angles) == pytest.approx(size, rel=1e-8)


def test_numerical_radius_between_half_the_norm_and_the_norm(rng):
    for _ in range(3):
        matrix = rng.normal(size=(6, 6))
        norm, radius = np.linalg.norm(matrix, 2), stability.numerical_radius(matrix)
        assert norm / 2 <= radius <= norm
        assert radius >= np.abs(np.linalg.eigvals(matrix)).max()
        vectors = rng.normal(size=(200, 6)) + 1j * rng.normal(size=(200, 6))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        assert np.abs(np.einsum("ki,ij,kj->k", vectors.conj(), matrix, vectors)).max() <= radius
    assert stability.numerical_radius(np.diag([2.0, -3.0])) == pytest.approx(3)


def test_growth_refuses_what_is_no_matrix():
    for study in (
        stability.transient_growth, stability.kreiss_bound, stability.numerical_range, stability.numerical_radius,
    ):  # fmt: skip
        with pytest.raises(ValueError, match="square"):
            study(np.ones((2, 3)))
        with pytest.raises(ValueError, match="finite"):
            study(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="outside the unit circle"):
        stability.kreiss_bound(2 * np.eye(2))
    with pytest.raises(ValueError, match="entries"):
        stability.transient_growth(np.eye(2), entries=3)
    with pytest.raises(ValueError, match="max_power"):
        stability.transient_growth(np.eye(2), max_power=0)
