"""Optimisers that are evaluated elsewhere than they move: schedule-free averages, slow parameters of lookahead."""

import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import gdstab as gd

CURVATURES = np.array([1.0, 3.0])
B1 = 0.8
FREE = gd.from_optax(functools.partial(contrib.schedule_free_sgd, b1=B1), autonomous=False)
AHEAD = gd.from_optax(lambda s: optax.lookahead(optax.sgd(s), 3, 0.5))
POINTS = np.array([[1.0, -2.0], [0.3, 0.5], [2.0, 1.0]])


def bowl(theta):
    return jnp.sum(jnp.asarray(CURVATURES, theta.dtype) * theta**2) / 2


def free_path(point, eta, num):
    """x of the recursion of Defazio et al. (2024), with equal weights."""
    x, z, path = point.copy(), point.copy(), [point]
    for t in range(1, num + 1):
        y = (1 - B1) * z + B1 * x
        z = z - eta * CURVATURES * y
        x = x + (z - x) / t
        path.append(x)
    return np.array(path)


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_schedule_free_is_judged_at_its_averages(dtype):
    """Verdict, loss and end points are those of x, in every lane and by itself; y would be late."""
    tol, eta = 1e-3, 0.3
    stopping = gd.StoppingRule(loss_tol=tol, max_steps=400)
    rtol = 400 * np.finfo(dtype).eps
    points = np.tile(POINTS, (200, 1)).astype(dtype)  # more than a block
    found = gd.run(FREE, bowl, points, eta, stopping)
    np.testing.assert_array_equal(found.theta[-3:], found.theta[:3])
    for lane, point in enumerate(POINTS):
        path = free_path(point, eta, 400)
        values = (CURVATURES * path**2).sum(1) / 2
        first = np.flatnonzero(values <= tol)[0]
        assert (found.outcome[lane], found.steps[lane]) == (gd.Outcome.CONVERGED, first)
        np.testing.assert_allclose(found.theta[lane], path[first], rtol=rtol, atol=rtol)
        np.testing.assert_allclose(found.loss[lane], values[first], rtol=10 * rtol)
    if dtype == np.float64:
        return
    one = gd.settle(FREE, bowl, jnp.asarray(POINTS[0], dtype), eta, stopping)
    assert int(one.steps) == found.steps[0]


def test_lookahead_is_judged_at_its_slow_parameters():
    """A round of three steps moves them by 1 - a + a (1 - eta h)^3; in between they stand still."""
    eta, stopping = 0.4, gd.StoppingRule(loss_tol=None, max_steps=7)
    factor = 0.5 + 0.5 * (1 - eta * CURVATURES) ** 3
    found = gd.run(AHEAD, bowl, POINTS, eta, stopping)
    np.testing.assert_allclose(found.theta, POINTS * factor**2, rtol=1e-13)
    path = gd.rollout(AHEAD, bowl, jnp.asarray(POINTS[0]), eta, 7)
    np.testing.assert_allclose(path, POINTS[0] * factor ** (np.arange(8)[:, None] // 3), rtol=1e-13)


@pytest.mark.slow
def test_lookahead_is_a_map_by_rounds():
    state = AHEAD.init(jnp.zeros(2), 0.4)
    found = np.sort(np.abs(gd.stability.multipliers(AHEAD, bowl, state, 0.4)))[::-1]
    exact = np.sort(np.abs(0.5 + 0.5 * (1 - 0.4 * CURVATURES) ** 3))[::-1]
    np.testing.assert_allclose(found, [*exact, 0, 0], atol=1e-12)


def test_what_cannot_be_evaluated_is_refused():
    inner = gd.from_optax(lambda s: optax.chain(optax.clip(1.0), optax.lookahead(optax.sgd(s), 3, 0.5)))
    with pytest.raises(ValueError, match=r"expected optax.lookahead as the outermost transformation, got one inside"):
        inner.init(jnp.zeros(2), 0.1)
    with pytest.raises(ValueError, match="got one with a schedule"):
        gd.from_optax(contrib.schedule_free_sgd).init(jnp.zeros(2), 0.1)
