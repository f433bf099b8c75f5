"""Descent beside gradient flow: exact solutions, orders in the step size, conserved quantities, failures as data."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gdstab import data, losses
from gdstab.ensembles import map_points
from gdstab.flow import (
    FlowStatus,
    ModifiedLoss,
    deviation,
    diagnose,
    first_exceedance,
    gradient_flow,
    gradient_flows,
    settled,
)
from gdstab.flow.deviation import plan
from gdstab.theory import relu

PRODUCT = losses.ScalarProduct(scale=1.0)
SIZES = 0.01 / 2.0 ** np.arange(5)
UNRELATED = np.array([0.01, 0.0077, 0.0051, 0.0023, 0.0011])
C = 1.5**2 - 0.2**2


def beside(sizes=SIZES, time=1.0, tol=1e-11):
    """Descent on the scalar product with five step sizes; everything that can be recorded where they are SIZES."""
    full = {"modified": True, "estimate_error": True} if sizes is not UNRELATED else {}
    return deviation(
        PRODUCT, jnp.array([1.5, 0.2]), sizes, time, points=10, observe=itself, rtol=tol, atol=tol / 100, **full
    )


def itself(theta):
    return theta


@pytest.fixture(scope="module")
def halvings():
    return beside()


@pytest.mark.slow
def test_orders_one_and_two_in_the_step_size(halvings):
    for distance, order in ((halvings.distance, 1), (halvings.modified_distance, 2)):
        slope = np.polyfit(np.log(SIZES), np.log(np.max(distance, axis=1)), 1)[0]
        assert abs(slope - order) < 0.05 * order


def on_the_invariant(times):
    """x = sqrt(c) cosh(u), y = sqrt(c) sinh(u) keep x^2 - y^2 = c; u by another solver."""
    rate = lambda _, u: 2 * (1 - 0.5 * C * np.sinh(2 * u))  # noqa: E731
    found = solve_ivp(rate, (0, 1.0), [np.arctanh(0.2 / 1.5)], dense_output=True, method="DOP853", rtol=1e-12, atol=0)
    u = found.sol(np.ravel(times))[0].reshape(np.shape(times))
    return np.sqrt(C) * np.stack([np.cosh(u), np.sinh(u)], axis=-1)


@pytest.mark.parametrize(
    "sizes", [SIZES, pytest.param(UNRELATED, marks=pytest.mark.slow)], ids=["dividing", "unrelated"]
)
def test_the_scalar_product_against_its_solution_and_the_tolerance_halved(sizes):
    found = beside(sizes)
    exact = on_the_invariant(found.times)
    np.testing.assert_allclose(found.flow_observed, exact, atol=1e-8)
    np.testing.assert_allclose(found.distance, np.linalg.norm(np.asarray(found.observed) - exact, axis=-1), atol=1e-8)
    if sizes is SIZES:
        assert 0 < float(jnp.max(found.flow_error)) < 1e-8
    x, y = np.moveaxis(np.asarray(found.flow_observed), -1, 0)
    np.testing.assert_allclose(x**2 - y**2, C, atol=1e-8)
    loose, tight = (beside(sizes, tol=tol).distance[:, 1:] for tol in (1e-8, 0.5e-8))
    assert float(jnp.max(jnp.abs(loose - tight) / tight)) < 0.01


@pytest.mark.slow
def test_the_error_of_the_flow_is_seen_whatever_its_steps():
    """Of constant steps, longer than a window or not; and of tolerances so loose that one step fills each window."""
    for settings, most in (({"step": 0.02}, 1e-2), ({"step": 1.0}, 0.1), ({"rtol": 0.1, "atol": 0.1}, 1e-3)):
        found = deviation(
            parabola, jnp.ones(1), [0.1, 0.05], 2.0, points=20, estimate_error=True, observe=itself, **settings
        )
        error = np.abs(found.flow_observed[0, 1:, 0] - np.exp(-found.times[0, 1:]))
        assert (found.flow_error[0, 1:] > 0.7 * error).all()
        assert (found.flow_error[0, 1:] < most).all()


@pytest.mark.slow
def test_halving_the_steps_on_a_network_with_kinks_changes_little():
    """Less than 1 % of the deviation, which the error that is reported is above."""
    images = data.subset(data.normalised(data.digits()), 40)
    network = losses.FullyConnected.xavier(jax.random.key(0), (64, 12, 10), "relu")
    risk = losses.NetworkRisk(network, images.inputs, images.labels)
    start = jax.tree.map(lambda leaf: leaf.astype("float64"), risk.theta0)
    steps = 0.05 / np.array([1, 2])
    coarse, fine = (
        deviation(risk, start, steps, 2.0, points=20, estimate_error=True, step=0.05 / cuts) for cuts in (64, 128)
    )
    change = np.abs(coarse.distance - fine.distance).max(axis=1)
    assert (change < 0.01 * coarse.distance.max(axis=1)).all()
    assert (change <= 1.01 * fine.flow_error.max()).all()  # the other flow of `fine` is that of `coarse`
    np.testing.assert_allclose(fine.distance_error, np.abs(coarse.distance - fine.distance), atol=1e-12)
    assert 0 < fine.flow_error.max() < 0.01 * fine.distance[0].max()


def test_a_descent_that_overflows_is_infinitely_far():
    found = beside(400 * SIZES, time=200.0, tol=1e-8)
    assert np.isinf(found.distance[0, -1])
    assert np.isfinite(found.distance[-1]).all()
    assert int(found.status) == FlowStatus.FINISHED


@pytest.mark.slow
def test_a_quadratic_deviates_as_powers_and_exponentials_say(rng):
    """On a tree, for many starts in one call."""
    curvatures, start = np.array([0.5, 3.0]), rng.normal(size=(3, 2))
    loss = lambda tree: 0.25 * tree["slow"] ** 2 + 1.5 * tree["fast"] ** 2  # noqa: E731
    starts = {"slow": jnp.asarray(start[:, 0]), "fast": jnp.asarray(start[:, 1])}
    sizes = np.array([0.1, 0.05])
    found = deviation(loss, starts, sizes, 2.0, points=7, map_points=map_points, rtol=1e-11, atol=1e-13)
    k, eta, start = found.updates[0][..., None], sizes[:, None, None], start[:, None, None]
    assert found.distance.shape == (3, 2, 8)
    descent = start * (1 - eta * curvatures) ** k
    flow = start * np.exp(-k * eta * curvatures)
    norm = partial(np.linalg.norm, axis=-1)
    np.testing.assert_allclose(found.times[0], k[..., 0] * sizes[:, None], rtol=1e-14)
    np.testing.assert_allclose(found.distance, norm(descent - flow), atol=1e-9)
    np.testing.assert_allclose(found.travelled, norm(descent - start), atol=1e-13)
    np.testing.assert_allclose(found.distance_to_finest, norm(descent - descent[:, 1:]), atol=1e-13)
    np.testing.assert_allclose(found.loss, 0.5 * np.sum(curvatures * descent**2, axis=-1), atol=1e-13)
    np.testing.assert_allclose(found.flow_loss, 0.5 * np.sum(curvatures * flow**2, axis=-1), atol=1e-9)
    np.testing.assert_allclose(found.theta["fast"], descent[:, :, -1, 1], atol=1e-13)


@pytest.mark.slow
def test_the_relu_invariant_is_conserved_across_kinks():
    loss, w = losses.ShallowReLU(2), jnp.array([1.1, -0.8])
    theta = jnp.concatenate([w, -w * jnp.array([0.2, 0.6]), jnp.array([0.9, -0.7]), jnp.ones(1)])
    found = gradient_flow(loss, theta, 3.0, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(relu.invariants(found.theta), relu.invariants(theta), atol=1e-8)
    assert float(loss(found.theta)) < 0.5 * float(loss(theta))


@pytest.mark.slow
def test_the_smallest_step_size_that_strays():
    """On one axis the largest deviation is that of Euler's method from the exponential."""
    find = partial(first_exceedance, parabola, jnp.ones(1), time=1.0, between=(1e-3, 1.0))
    found = find(0.02)

    def largest(eta):
        k = np.arange(int(1.0 / eta * (1 + 1e-12)) + 1)
        return np.max(np.abs((1 - eta) ** k - np.exp(-k * eta)))

    ratio = found.deviation / [largest(eta) for eta in found.step_sizes]
    assert (ratio > 0.97).all()
    assert (ratio < 1 + 1e-5).all()
    assert (ratio[found.step_sizes >= 1.0 / 100] > 1 - 1e-5).all()  # every update is seen
    assert largest(found.below) < 0.02 < 1.03 * largest(found.step_size)
    assert found.below < found.step_size < found.below * 1.001
    assert find(5.0)[:2] == (np.inf, 1.0)
    assert tuple(np.round(find(1e-6)[:2], 12)) == (1e-3, 0.0)


@pytest.mark.parametrize(
    ("time", "high"),
    [pytest.param(10.0, 10.0, marks=pytest.mark.slow), pytest.param(20.0, 5.0, marks=pytest.mark.slow)],
)
def test_the_search_sees_what_steps_do_long_before_the_end(time, high):
    """Beyond t = 1 the deviation falls again: step sizes near the time must be looked at between their updates."""
    found = first_exceedance(parabola, jnp.ones(1), 0.02, time, between=(1e-3, high), precision=1e-17)
    k = np.arange(1, 2000)[:, None]
    eta = np.array([found.below, found.step_size])
    early, late = np.abs((1 - eta) ** k - np.exp(-k * eta)).max(axis=0)
    assert early <= 0.02 * (1 + 1e-7)
    assert late >= 0.02 * (1 - 1e-7)
    assert found.step_size < found.below * (1 + 1e-12)  # as far as numbers go
    contracting = found.step_sizes < 1  # above few updates fit, at times one more and at times one less
    assert (np.diff(found.deviation[contracting]) > -1e-7).all()


def test_settings_that_are_no_use_for_a_search():
    with pytest.raises(ValueError, match="got map_points, times"):
        first_exceedance(parabola, jnp.ones(1), 0.1, 1.0, between=(0.1, 0.5), times=[1.0], map_points=map_points)


def parabola(x):
    return 0.5 * jnp.sum(x**2)


class Power(eqx.Module):
    """c x^p, or c |x|^p: losses without floor, with an edge of their domain, or with a kink."""

    factor: jax.Array
    power: jax.Array
    even: jax.Array

    def __call__(self, x):
        return jnp.sum(self.factor * jnp.where(self.even, jnp.abs(x), x) ** self.power)


POWERS = [  # factor, power, even, start, what becomes of the flow, and words of the diagnosis
    (-1 / 3, 3.0, False, 1.0, FlowStatus.ESCAPED, "shorter time"),
    (-1.0, 10.0, False, 1.0, FlowStatus.ESCAPED, "shorter time"),  # seen by the clock: it is at 71 when time stands
    (2.0, 0.5, False, 0.5, FlowStatus.NONFINITE, "domain"),
    (1.0, 1.0, True, 0.5, FlowStatus.STALLED, "kink"),
    (0.5, 2.0, False, jnp.inf, FlowStatus.NONFINITE, "domain"),
    (0.5, 2.0, False, 1e7, FlowStatus.ESCAPED, "norm 1e+07: it starts there"),
    (0.5, 2.0, False, 1.0, FlowStatus.SETTLED, "until"),
    (-1 / 3, 3.0, False, 0.25, FlowStatus.FINISHED, "has come"),
]


@pytest.mark.slow
def test_how_flows_stop_is_told_apart():
    rows = [jnp.array(column) for column in list(zip(*POWERS, strict=True))[:4]]

    @jax.jit
    @jax.vmap
    def flows(factor, power, even, start):
        loss = Power(factor, power, even)
        resting = lambda x: settled(loss, 0.2)(x) & (power == 2.0)  # noqa: E731
        return gradient_flow(loss, start[None], 2.0, max_steps=3000, until=resting)

    found = flows(*rows)
    assert [FlowStatus(int(status)) for status in found.status] == [row[4] for row in POWERS]
    np.testing.assert_allclose(found.time[0], 1.0, atol=1e-5)
    for i, row in enumerate(POWERS):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        assert row[5] in diagnose(Power(*(column[i] for column in rows[:3])), one)


def test_constant_steps_that_are_too_long_are_no_escape_to_infinity():
    steep = lambda x: 50 * jnp.sum(x**2)  # noqa: E731
    assert "shorten `step`" in diagnose(steep, gradient_flow(steep, jnp.ones(1), 10.0, step=0.1))


@pytest.mark.slow
def test_what_leaves_the_ball_is_no_escape_to_infinity():
    """A flow that slows down on its way to a minimum outside."""
    far = lambda x: 0.5 * jnp.sum((x - 10) ** 2)  # noqa: E731
    said = diagnose(far, gradient_flow(far, jnp.ones(1), 10.0, escape_radius=5.0))
    assert said.startswith("ESCAPED")
    assert "slows down" in said
    assert "raise that" in said


def test_times_that_are_none():
    for time in (jnp.nan, jnp.inf, -1.0, np.ones(2)):
        with pytest.raises(ValueError, match="time: expected"):
            gradient_flow(parabola, jnp.ones(1), time)
        with pytest.raises(ValueError, match="time: expected"):
            gradient_flows(parabola, jnp.ones((2, 1)), time)
    for save_at in ([0.5, 3.0], [0.5, 0.2]):
        with pytest.raises(ValueError, match="save_at"):
            gradient_flows(parabola, jnp.ones((2, 1)), 1.0, save_at=np.array(save_at))


def test_leaves_of_two_dtypes_are_refused():
    mixed = {"a": jnp.ones(1, jnp.float32), "b": jnp.ones(1)}
    loss = lambda tree: jnp.sum(tree["a"].astype(float) ** 2) + jnp.sum(tree["b"] ** 2)  # noqa: E731
    for follow in (lambda: gradient_flow(loss, mixed, 1.0), lambda: deviation(loss, mixed, 0.1, 1.0)):
        with pytest.raises(ValueError, match="one dtype, got float32, float64"):
            follow()


def test_a_batch_of_flows_keeps_its_members_fates():
    starts = jnp.array([[1.0], [-1.0], [0.25]])
    flows = gradient_flows(cubic, starts, 2.0, map_points=map_points)
    assert [FlowStatus(int(status)).name for status in flows.status] == ["ESCAPED", "FINISHED", "FINISHED"]
    np.testing.assert_array_equal(flows.successful, [False, True, True])
    np.testing.assert_allclose(flows.theta[1:, 0], [-1 / 3, 0.5], rtol=1e-6)


def cubic(x):
    return -jnp.sum(x**3) / 3


@pytest.mark.slow
def test_what_a_stopped_flow_cannot_say_is_nan():
    found = deviation(cubic, jnp.ones(1), [0.1, 0.5], 2.0, points=4)
    assert int(found.status) == FlowStatus.ESCAPED
    np.testing.assert_array_equal(np.isnan(found.distance), [[False, False, True, True, True]] * 2)


@pytest.mark.slow
def test_a_search_along_a_flow_that_stops_is_refused():
    with pytest.raises(ValueError, match="ESCAPED"):
        first_exceedance(cubic, jnp.ones(1), 0.1, 2.0, between=(0.1, 0.5), scan=2, points=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": 0.05}, "time"),
        ({"times": [0.1, 0.15]}, "apart"),
        ({"times": [0.5, 1.5]}, "up to 1"),
        ({"step_sizes": [0.1, -0.1]}, "positive"),
        ({"points": 0}, "points"),
        ({"rtol": 0.0}, "rtol"),
        ({"theta0": jnp.ones(3)}, "shape"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        deviation(**({"loss": PRODUCT, "theta0": jnp.ones(2), "step_sizes": [0.1], "time": 1.0} | change))


@pytest.mark.parametrize("between", [(0.5, 0.1), (0.1, 5.0), (0.0, 0.1)])
def test_bad_searches(between):
    with pytest.raises(ValueError, match="between"):
        first_exceedance(parabola, jnp.ones(2), 0.1, 1.0, between=between)


def test_the_modified_loss_of_a_quadratic_is_one_with_the_rates_of_the_formula():
    """Its flow decays at lambda + eta lambda^2 / 2, the beginning of -log(1 - eta lambda) / eta."""
    H, eta, theta = jnp.diag(jnp.array([0.5, 3.0])), 0.1, jnp.array([1.0, -2.0])
    expected = (H + eta / 2 * H @ H) @ theta
    found = jax.jit(jax.grad(ModifiedLoss(losses.Quadratic(H), eta)))(theta)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_times_are_chosen_on_the_host():
    assert plan(np.array([0.3, 0.1, 0.06]), 1.0, 100).common
    assert not plan(np.array([0.3, 0.14]), 1.0, 100).common
    single = plan(np.array([0.1, 0.1 / 3], np.float32), 100.0, 10)
    assert single.common
    np.testing.assert_array_equal(single.updates[:, 1], 3 * single.updates[:, 0])
    padded = plan(np.array([0.5, 0.1]), 1.0, 5, pad=True)
    assert padded.ends.tolist() == [0.0, 0.0, 0.0, 0.0, 0.5, 1.0]
