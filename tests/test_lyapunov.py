"""Lyapunov exponents against closed forms, determinants, multipliers and a second way of computing them."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from gdstab import _compiling, lyapunov
from gdstab.losses import DoubleWell, Quadratic, ScalarProduct
from gdstab.theory import symmetric_line
from gdstab.updates import UpdateRule, from_optax, gradient_descent, named

WELL = DoubleWell()  # one parameter: in X = sqrt(eta) x its descent is the cubic map with k = eta
PRODUCT = ScalarProduct(scale=1.0)
DESCENT = gradient_descent()


def henon_step(_, state, step_size):
    """The map of Henon (1976), the step size being its parameter a."""
    return jnp.stack([1 - step_size * state[0] * state[0] + state[1], 0.3 * state[0]])


HENON = UpdateRule(lambda theta, _: theta, henon_step, lambda state: state)


def nothing(theta):
    return jnp.sum(theta)


def test_the_end_of_bounded_orbits_has_the_exponent_ln_3():
    found = lyapunov.largest(DESCENT, WELL, jnp.array([0.3]), 2.0, 100_000)
    error = float(found.standard_error)
    assert abs(float(found.value) - symmetric_line.LAST_EXPONENT) < 5 * error
    assert error < 3e-4
    assert abs(float(found.value) - np.log(3)) < 5e-4
    assert abs(float(found.state[0])) * np.sqrt(2) < 2


def test_both_exponents_in_the_plane_at_that_end():
    """Across the line the factor is sin 3 phi / sin phi, whose logarithm has mean 0."""
    found = lyapunov.spectrum(DESCENT, PRODUCT, jnp.array([0.3, 0.3]), 1.0, 50_000)
    np.testing.assert_allclose(found.value, [np.log(3), 0], atol=5e-4)
    assert float(found.state[0]) == float(found.state[1])


@pytest.mark.parametrize("k", [1.1, 1.15, 1.2])
def test_exponents_of_the_orbit_of_period_two(k):
    found = lyapunov.spectrum(DESCENT, PRODUCT, jnp.array([0.7, 0.9]), k / 2, 6000, transient=4000)
    exact = np.log(np.abs(symmetric_line.period_two_multipliers(k))) / 2
    np.testing.assert_allclose(found.value, np.sort(exact)[::-1], atol=1e-9)
    top = lyapunov.largest(DESCENT, PRODUCT, jnp.array([0.7, 0.9]), k / 2, 6000, transient=4000)
    np.testing.assert_allclose(top.value, exact.max(), atol=1e-9)


@pytest.mark.parametrize(
    ("curvatures", "dtype"),
    [
        ((1.0,), np.float32),
        ((1.0, 3.5), np.float64),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ((1.0,), np.float64),
                ((1.0, 3.5), np.float32),
                ((0.5, 1.0, 2.0, 3.5, 5.0), np.float32),
                ((0.5, 1.0, 2.0, 3.5, 5.0), np.float64),
            )
        ),
    ],
)
def test_quadratics(curvatures, dtype):
    loss = Quadratic(jnp.diag(jnp.asarray(curvatures, dtype)))
    found = lyapunov.spectrum(DESCENT, loss, jnp.ones(len(curvatures), dtype), 0.3, 400, transient=80)
    exact = np.sort(np.log(np.abs(1 - 0.3 * np.array(curvatures))))[::-1]
    assert found.value.dtype == found.standard_error.dtype == dtype
    np.testing.assert_allclose(found.value, exact, atol=2e-6 if dtype == np.float32 else 1e-7)
    assert (np.asarray(found.standard_error) < 1e-5).all()
    few = lyapunov.spectrum(DESCENT, loss, jnp.ones(len(curvatures), dtype), 0.3, 400, transient=80, num=1)
    np.testing.assert_allclose(few.value, exact[:1], atol=1e-4)


def test_the_map_of_henon():
    """0.41922 and ln 0.3 minus that (Sprott 2003); their sum is the constant determinant."""
    found = lyapunov.spectrum(HENON, nothing, jnp.array([0.1, 0.1]), 1.4, 60_000)
    assert abs(float(found.value[0]) - 0.41922) < 5 * float(found.standard_error[0])
    assert float(found.standard_error[0]) < 3e-3
    np.testing.assert_allclose(found.value.sum(), np.log(0.3), atol=1e-12)


@pytest.mark.parametrize(("beta", "step_size"), [(0.3, 0.75), pytest.param(0.5, 0.8, marks=pytest.mark.slow)])
def test_heavy_ball_contracts_volume_by_beta(beta, step_size):
    """The determinant of its map is beta per parameter, whatever the loss: here four exponents, by LAPACK."""
    rule = named("heavy-ball", beta=beta)
    state = rule.init(jnp.array([0.9, 1.0]), step_size)
    found = lyapunov.spectrum(rule, PRODUCT, state, step_size, 2000)
    assert found.value.shape == (4,)
    np.testing.assert_allclose(found.value.sum(), 2 * np.log(beta), atol=1e-9)
    assert (np.diff(found.value) < 1e-2).all()
    top = lyapunov.largest(rule, PRODUCT, state, step_size, 2000)
    assert abs(float(top.value - found.value[0])) < 3 * float(top.standard_error) + 0.01


def test_the_sum_is_the_mean_of_the_determinant():
    """By an orbit in NumPy and its own Hessians."""
    theta = np.array([0.5, 0.8])
    found = lyapunov.spectrum(DESCENT, PRODUCT, jnp.asarray(theta), 0.8, 1000, transient=200)
    logs = []
    for _ in range(1000):
        x, y = theta
        hessian = np.array([[2 * y * y, 4 * x * y - 2], [4 * x * y - 2, 2 * x * x]])
        logs.append(np.log(abs(np.linalg.det(np.eye(2) - 0.8 * hessian))))
        theta = theta + 1.6 * (1 - x * y) * theta[::-1]
    first = 1000 - 32 * found.block_length
    # The orbits part after some 60 steps, but both settle on the same line with the same statistics.
    assert abs(np.mean(logs[first:]) - float(found.value.sum())) < 5 * float(np.max(found.standard_error))


def test_a_short_orbit_against_fifty_digits():
    """The product of derivatives of the cubic map, by mpmath."""
    found = lyapunov.largest(DESCENT, WELL, jnp.array([0.3]), 1.9, 64, transient=0)
    with mpmath.workdps(50):
        x, total = mpmath.mpf(0.3), mpmath.mpf(0)
        for _ in range(16):  # far beyond, the rounded orbit is another one
            total += mpmath.log(abs(1 + mpmath.mpf(1.9) * (1 - 3 * x * x)))
            x += mpmath.mpf(1.9) * x * (1 - x * x)
    np.testing.assert_allclose(float(found.running[7]), float(total / 16), rtol=1e-9)


def test_the_average_of_a_known_multiplier_is_the_exponent():
    def along(loss, theta, step_size):
        return jnp.log(jnp.abs(1 - step_size * jax.hessian(loss)(theta)[0, 0]))

    seen = lyapunov.average(DESCENT, WELL, jnp.array([0.3]), 1.5, 2000, along)
    found = lyapunov.largest(DESCENT, WELL, jnp.array([0.3]), 1.5, 2000)
    np.testing.assert_allclose(seen.value, found.value, rtol=1e-12)
    np.testing.assert_allclose(seen.running, found.running, rtol=1e-12)
    assert seen.running.shape == (lyapunov.BLOCKS,)
    np.testing.assert_allclose(seen.running[-1], seen.value, rtol=1e-12)


def test_standard_errors_are_of_the_right_size():
    """Over independent orbits, the scatter of the exponents is what each of them says of itself."""

    def one(x):
        found = lyapunov.largest(DESCENT, WELL, x[None], 1.5, 4000)
        return found.value, found.standard_error

    value, error = jax.jit(jax.vmap(one))(jnp.asarray(np.random.default_rng(0).uniform(0.2, 1.2, 200)))
    scatter, typical = float(jnp.std(value)), float(jnp.sqrt(jnp.mean(error**2)))
    assert 0.5 < scatter / typical < 1.3
    assert float(jnp.mean(jnp.abs(value - jnp.mean(value)) < 3 * error)) > 0.97


def test_one_map_without_memory_has_errors_that_shrink_like_a_root():
    errors = [
        float(lyapunov.largest(DESCENT, WELL, jnp.array([0.3]), 1.5, n, transient=100).standard_error)
        for n in (4100, 64_100)
    ]
    assert 2 < errors[0] / errors[1] < 8


def test_a_tangent_in_an_invariant_subspace_stays_there():
    loss = Quadratic(jnp.diag(jnp.array([1.0, 3.0])))
    found = lyapunov.largest(DESCENT, loss, jnp.ones(2), 0.5, 200, tangent=jnp.array([0.0, 2.0]))
    np.testing.assert_allclose(found.value, np.log(0.5), atol=1e-12)


@pytest.mark.slow
def test_large_states_take_the_largest_exponent_only():
    curvatures = np.linspace(0.5, 3.0, 257)
    theta = np.ones(257)

    def loss(theta):
        return 0.5 * jnp.sum(curvatures * theta * theta)

    found = lyapunov.largest(DESCENT, loss, theta, 0.9, 2000, transient=1600)
    np.testing.assert_allclose(found.value, np.log(0.9 * 3 - 1), atol=1e-6)
    with pytest.raises(ValueError, match=r"256.*`largest`"):
        lyapunov.spectrum(DESCENT, loss, theta, 0.9, 2000)
    assert lyapunov.spectrum(DESCENT, loss, theta, 0.9, 200, num=2).value.shape == (2,)


def test_counters_have_no_tangent():
    rule = from_optax(optax.adam)
    state = rule.init(jnp.array([0.3, 0.4]), 0.1)
    found = lyapunov.spectrum(rule, PRODUCT, state, 0.1, 300)
    assert found.value.shape == (6,)
    assert int(found.state[1][0].count) == 300


def test_what_collapses_and_what_leaves():
    """A step of exactly 1 / curvature, an orbit that goes to infinity: no error bar, and no NaN where there is none."""
    flat = lyapunov.spectrum(DESCENT, Quadratic(jnp.diag(jnp.array([1.0, 2.0]))), jnp.ones(2), 0.5, 100)
    np.testing.assert_array_equal(np.isneginf(flat.value), [False, True])
    np.testing.assert_array_equal(flat.standard_error[1], np.inf)
    gone = lyapunov.largest(DESCENT, PRODUCT, jnp.array([3.0, 3.0]), 1.0, 100)
    assert not np.isfinite(gone.value)
    assert np.isinf(gone.standard_error)


def test_trees_of_parameters():
    def loss(theta):
        return 0.5 * (jnp.sum(theta["a"] ** 2) + 3 * jnp.sum(theta["b"] ** 2))

    theta = {"a": jnp.ones(2), "b": jnp.ones((1, 2))}
    found = lyapunov.spectrum(DESCENT, loss, theta, 0.5, 200)
    np.testing.assert_allclose(found.value, np.full(4, np.log(0.5)), atol=1e-10)
    np.testing.assert_allclose(lyapunov.largest(DESCENT, loss, theta, 0.5, 200).value, np.log(0.5), atol=1e-10)


def test_sweeping_floats_of_a_loss_compiles_once():
    before = set(_compiling._ENTRIES)
    for target in (1.0, 1.1, 1.2):
        lyapunov.largest(DESCENT, ScalarProduct(target=target), jnp.array([0.3, 0.4]), 0.7 / target, 111)
    (new,) = set(_compiling._ENTRIES) - before
    assert _compiling._ENTRIES[new].known["jit"]._cache_size() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 20}, "at least 2 steps in each of 32 blocks"),
        ({"num_steps": 0}, "num_steps"),
        ({"transient": 100}, "transient below the 100 steps"),
        ({"transient": -1}, "at least 0"),
        ({"blocks": 4}, "blocks"),
        ({"num": 3}, "at most 2 exponents"),
        ({"num": 0}, "num"),
        ({"state": jnp.arange(3)}, "floating-point"),
        ({"rule": from_optax(lambda s: optax.sgd(lambda count: s / (1 + count)), autonomous=False)}, "schedule"),
    ],
)
def test_bad_input(change, message):
    asked = {"rule": DESCENT, "loss": PRODUCT, "state": jnp.ones(2), "step_size": 0.3, "num_steps": 100} | change
    with pytest.raises(ValueError, match=message):
        lyapunov.spectrum(**asked)
