"""One cycle: Newton's method on the p-fold map, multipliers, stability, and how a cycle is found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab import orbits
from gdstab.losses import ScalarProduct
from gdstab.orbits import find_cycle, fold, minimal_period, newton, refine
from gdstab.theory import symmetric_line
from gdstab.updates import UpdateRule, from_optax, gradient_descent

RULE = gradient_descent()
PLANE = ScalarProduct(2, 1.0, 1.0)  # k is twice the step size


def line(x):
    """Its descent is the symmetric line with k for the step size, in X / sqrt(k)."""
    return (1 - x * x) ** 2 / 4


def quadratic_family(loss, x, step_size):
    """A map with a fixed point, in place of an update: x^2 - eta."""
    del loss
    return x * x - step_size


def heavy_ball(step_size):
    return optax.sgd(step_size, momentum=0.3)


def adam(step_size):
    return optax.adam(step_size, b1=0.3, b2=0.9)


@pytest.fixture(scope="module")
def on_the_line():
    return jax.jit(lambda x, k: refine(RULE, line, x, k, 2))


@pytest.mark.parametrize("k", [1.0001, 1.1, 1.3, 1.9])
def test_period_two_against_its_closed_form(on_the_line, k):
    exact = np.array(symmetric_line.period_two(k))
    cycle = on_the_line(jnp.array(exact[0] / np.sqrt(k) + 1e-3 * np.sqrt(k - 1)), k)
    assert cycle.converged
    np.testing.assert_allclose(cycle.theta * np.sqrt(k), exact, rtol=1e-12)
    assert complex(cycle.multipliers[0]) == pytest.approx(symmetric_line.period_two_multipliers(k)[0], abs=1e-10)
    assert bool(cycle.stable) == (k < symmetric_line.PERIOD_FOUR)


@pytest.mark.parametrize("k", [1.1, pytest.param(1.6, marks=pytest.mark.slow)])
def test_period_two_in_the_plane(k):
    """It is isolated there: both multipliers differ from 1."""
    exact = np.array(symmetric_line.period_two(k)) / np.sqrt(k)
    cycle = refine(RULE, PLANE, jnp.array([exact[0] + 1e-3, exact[0] - 2e-3]), k / 2, 2)
    assert cycle.converged
    assert int(cycle.neutral) == 0
    np.testing.assert_allclose(cycle.theta, np.stack([exact, exact], axis=1), rtol=1e-11)
    along, across = symmetric_line.period_two_multipliers(k)
    np.testing.assert_allclose(np.sort(cycle.multipliers.real), np.sort([along, across]), atol=1e-10)


def test_a_manifold_of_fixed_points_is_reached_at_about_the_nearest_one():
    start = jnp.array([1.5, 0.8])
    cycle = refine(RULE, PLANE, start, 0.2, 1)
    x, y = np.asarray(cycle.theta[0])
    assert cycle.converged
    assert x * y == pytest.approx(1, abs=1e-14)
    assert np.hypot(x - 1.5, y - 0.8) < 0.15
    assert int(cycle.neutral) == 1
    np.testing.assert_allclose(np.sort(cycle.multipliers.real), np.sort([1, 1 - 0.4 * (x * x + y * y)]), atol=1e-12)
    assert bool(cycle.stable) == (0.4 * (x * x + y * y) < 2)
    sharp = refine(RULE, PLANE, jnp.array([4.0, 0.26]), 0.2, 1)
    assert sharp.converged
    assert not sharp.stable


@pytest.mark.slow
def test_newton_with_a_free_step_size_moves_orthogonally_to_the_branch():
    k, exact = 1.2, np.array(symmetric_line.period_two(1.2)) / np.sqrt(1.2)
    found = newton(RULE, line, jnp.array(exact[0] + 1e-3), k + 1e-3, 2, weight=1.0)
    assert found.converged
    now = float(found.step_size)
    assert abs(now - k) > 1e-5
    assert float(found.state) * np.sqrt(now) == pytest.approx(symmetric_line.period_two(now)[0], rel=1e-12)
    ahead, behind = (symmetric_line.period_two(now + h)[0] / np.sqrt(now + h) for h in (1e-6, -1e-6))
    along = (ahead - behind) / 2e-6
    moved = np.array([float(found.state) - exact[0] - 1e-3, now - k - 1e-3])
    assert abs(moved @ [along, 1]) < 2e-2 * np.linalg.norm(moved) * np.hypot(along, 1)


def test_linearisation_against_differences():
    h, x, eta = 1e-6, jnp.array([1.2, 0.9]), 0.55
    found = newton(RULE, PLANE, x, eta, 3)
    step = fold(RULE, 3).step
    columns = [
        (step(PLANE, found.state + h * e, eta) - step(PLANE, found.state - h * e, eta)) / (2 * h) for e in jnp.eye(2)
    ]
    np.testing.assert_allclose(found.jacobian, np.stack(columns, axis=1), atol=1e-7)
    by_eta = (step(PLANE, found.state, eta + h) - step(PLANE, found.state, eta - h)) / (2 * h)
    np.testing.assert_allclose(found.sensitivity, by_eta, atol=1e-7)


def test_momentum_is_part_of_the_cycle():
    rule = from_optax(heavy_ball)
    cycle = find_cycle(rule, line, rule.init(jnp.array(0.7), 1.4), 1.4)
    assert cycle.period == 2
    assert cycle.multipliers.shape == (2,)
    velocity = np.asarray(jax.tree.leaves(cycle.states[1])[0])
    theta = np.asarray(cycle.theta)
    np.testing.assert_allclose(theta[::-1], theta - 1.4 * velocity[::-1], atol=1e-12)
    gradient = theta**3 - theta
    np.testing.assert_allclose(velocity[::-1], gradient + 0.3 * velocity, atol=1e-12)
    np.testing.assert_allclose(np.prod(np.asarray(cycle.multipliers)), 0.3**2, rtol=1e-9)  # det of one step is beta


@pytest.mark.slow
def test_counters_are_held_fixed():
    """And where they are large, the bias of Adam is corrected: its cycle is that of the rule as it is."""
    rule = from_optax(adam)
    cycle = find_cycle(rule, line, rule.init(jnp.array(0.9), 0.3), 0.3, 4)
    assert cycle.period == 2
    assert cycle.stable
    (count,) = [leaf for leaf in jax.tree.leaves(cycle.states[1]) if leaf.dtype == jnp.int32]
    assert count[0] == count[1] > 100
    state = jax.tree.map(lambda leaf: leaf[0], cycle.states)
    for theta in cycle.theta:
        assert float(rule.theta(state)) == pytest.approx(float(theta), abs=1e-13)
        state = rule.step(line, state, 0.3)


@pytest.mark.parametrize(("k", "period"), [(0.8, 1), (1.1, 2), (1.26, 4), (1.295, 8)])
def test_find_cycle_on_the_line(k, period):
    cycle = find_cycle(RULE, line, jnp.array(0.6), k, 8)
    assert (cycle.period, minimal_period(cycle)) == (period, period)
    assert cycle.stable
    assert cycle.radius == jnp.abs(cycle.multipliers[0])
    moved = symmetric_line.step(np.asarray(cycle.theta) * np.sqrt(k), k) / np.sqrt(k)
    np.testing.assert_allclose(moved, np.roll(cycle.theta, -1), atol=1e-13)


def test_least_period():
    fixed = refine(RULE, line, jnp.array(1.01), 0.8, 4)
    assert minimal_period(fixed) == 1
    two = refine(RULE, line, jnp.array(symmetric_line.period_two(1.2)[0] / np.sqrt(1.2)), 1.2, 4)
    assert minimal_period(two) == 2
    np.testing.assert_allclose(two.multipliers.real, symmetric_line.period_two_multipliers(1.2)[0] ** 2, atol=1e-10)


def test_single_precision(on_the_line):
    cycle = on_the_line(jnp.array(0.72, jnp.float32), 1.2)
    assert cycle.converged
    assert cycle.theta.dtype == jnp.float32
    np.testing.assert_allclose(cycle.theta * np.float32(np.sqrt(1.2)), symmetric_line.period_two(1.2), rtol=1e-6)


def test_a_fixed_point_where_the_gradient_does_not_vanish():
    """As under decoupled weight decay."""
    rule = UpdateRule(lambda theta, _: theta, quadratic_family, lambda x: x)
    cycle = find_cycle(rule, line, jnp.array(0.1), 0.3, 4, max_steps=1000)
    assert cycle.period == 1
    assert float(cycle.theta[0]) == pytest.approx(0.5 - np.sqrt(0.25 + 0.3), abs=1e-14)


def test_settle_from_goes_on_where_settle_was():
    rule, stopping = from_optax(heavy_ball), orbits.single.StoppingRule(max_steps=40, loss_tol=None)
    half = orbits.single.StoppingRule(max_steps=20, loss_tol=None)
    whole = orbits.settle(rule, line, jnp.array(0.6), 0.4, stopping)
    part = orbits.settle(rule, line, jnp.array(0.6), 0.4, half)
    rest = orbits.settle_from(rule, line, part.state, 0.4, half)
    np.testing.assert_array_equal(whole.theta, rest.theta)


def test_bad_input():
    schedule = from_optax(lambda s: optax.sgd(lambda count: s / (1 + count)), autonomous=False)
    for call in (
        lambda: find_cycle(schedule, line, schedule.init(jnp.array(0.6), 0.5), 0.5),
        lambda: refine(schedule, line, schedule.init(jnp.array(0.6), 0.5), 0.5, 1),
    ):
        with pytest.raises(ValueError, match="changes from step to step"):
            call()
    for period in (0, -1):
        with pytest.raises(ValueError, match="max_period: expected an integer"):
            find_cycle(RULE, line, jnp.array(0.6), 1.1, period)
        with pytest.raises(ValueError, match="period: expected an integer"):
            refine(RULE, line, jnp.array(0.6), 1.1, period)
    with pytest.raises(ValueError, match="positive finite step sizes"):
        find_cycle(RULE, line, jnp.array(0.6), -1.0)


@pytest.mark.parametrize(("start", "k", "verdict"), [(0.6, 1.9, "undecided"), (3.0, 1.9, "diverged")])
def test_no_cycle_within_the_budget(start, k, verdict):
    with pytest.raises(ValueError, match=f"cycle of period up to 8 within 2000 steps.*{verdict}"):
        find_cycle(RULE, line, jnp.array(start), k, 8, max_steps=2000)


def test_a_cycle_that_is_not_there_is_not_confirmed():
    """The two fixed points of x^2 - eta meet at eta = -1/4."""
    rule = UpdateRule(lambda theta, _: theta, quadratic_family, lambda x: x)
    found = jax.jit(lambda eta: refine(rule, line, jnp.array(0.3), eta, 1))
    assert not found(-0.3).converged
    assert found(-0.2).converged
