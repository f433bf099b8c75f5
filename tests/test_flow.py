"""Gradient flow against exact solutions and conserved quantities."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import losses
from gdstab._numerics import sum_squares
from gdstab.flow import FlowStatus, diagnose, gradient_flow, gradient_flows, settled
from gdstab.theory import factorisations

FINE = {"rtol": 1e-12, "atol": 1e-13}


@pytest.mark.parametrize("solver", [None, pytest.param(diffrax.Kvaerno5(), marks=pytest.mark.slow)])
def test_a_quadratic_is_followed_exactly(solver):
    curvatures, start = jnp.array([0.5, 3.0]), jnp.array([1.0, -2.0])
    times = np.array([0.0, 0.3, 1.0, 2.0])
    found = gradient_flow(
        losses.Quadratic(jnp.diag(curvatures)), start, 2.0, rtol=1e-10, atol=1e-12, save_at=times, solver=solver
    )
    exact = np.asarray(start) * np.exp(-times[:, None] * np.asarray(curvatures))
    np.testing.assert_allclose(found.observed, exact, atol=1e-8)
    np.testing.assert_allclose(found.theta, exact[-1], atol=1e-8)
    assert bool(found.successful)
    assert not bool(found.settled)
    assert float(found.time) == 2.0


@pytest.mark.slow
def test_a_stiff_flow_is_diagnosed_and_the_implicit_solver_takes_it():
    loss, times = losses.Quadratic(jnp.diag(jnp.array([1e5, 1.0]))), np.array([0.0, 0.3, 1.0, 2.0])
    explicit = gradient_flow(loss, jnp.ones(2), 2.0, max_steps=400, save_at=times)
    assert FlowStatus(int(explicit.status)) == FlowStatus.STALLED
    assert "Kvaerno5" in diagnose(loss, explicit)
    assert np.isfinite(explicit.theta).all()
    implicit = gradient_flow(loss, jnp.ones(2), 2.0, save_at=times, solver=diffrax.Kvaerno5())
    assert bool(implicit.successful)
    assert int(implicit.num_steps) < 400
    np.testing.assert_allclose(implicit.theta, [0.0, np.exp(-2.0)], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 3])
def test_balancedness_is_conserved(depth, key):
    widths = (4, *[3] * (depth - 1), 2)
    keys = jax.random.split(key, depth + 1)
    loss = losses.LinearNetwork(jnp.eye(4), jax.random.normal(keys[0], (2, 4)))
    theta = tuple(0.7 * jax.random.normal(k, (b, a)) for k, a, b in zip(keys[1:], widths[:-1], widths[1:], strict=True))
    found = gradient_flow(loss, theta, 10.0, **FINE)
    before, after = factorisations.balancedness(theta), factorisations.balancedness(found.theta)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    assert float(loss(found.theta)) < 0.5 * float(loss(theta))


def test_the_product_of_scalars_keeps_the_difference_of_squares_and_its_limit():
    x, y = 1.5, 0.2
    end = gradient_flow(losses.ScalarProduct(), jnp.array([x, y]), 60.0, **FINE).theta
    np.testing.assert_allclose(end[0] ** 2 - end[1] ** 2, x**2 - y**2, atol=1e-10)
    np.testing.assert_allclose(end[0] * end[1], 1.0, atol=1e-10)


@pytest.mark.slow
def test_it_stops_where_the_gradient_is_small_and_holds_what_follows():
    loss = losses.Quadratic(jnp.eye(2))

    def at_rest(theta):
        return sum_squares(jax.grad(loss)(theta)) < 1e-6

    found = gradient_flow(loss, jnp.ones(2), 100.0, save_at=np.linspace(0, 100, 11), until=at_rest, observe=loss)
    assert bool(found.settled)
    assert 6.0 < float(found.time) < 12.0
    assert float(found.observed[-1]) == float(loss(found.theta))
    assert np.isfinite(found.observed).all()


@pytest.mark.parametrize("solver", [None, pytest.param(diffrax.Kvaerno5(), marks=pytest.mark.slow)])
def test_the_interpolant_is_the_flow_at_any_time(solver):
    curvatures, start = jnp.array([0.5, 3.0]), {"a": jnp.array([1.0, -2.0])}
    loss = lambda tree: losses.Quadratic(jnp.diag(curvatures))(tree["a"])  # noqa: E731
    found = gradient_flow(loss, start, 2.0, rtol=1e-9, atol=1e-11, solver=solver, dense=True, max_steps=400)
    times = np.array([[0.0, 0.123, 1.0], [1.77, 2.0, 5.0]])
    exact = np.array([1.0, -2.0]) * np.exp(-np.minimum(times, 2.0)[..., None] * np.asarray(curvatures))
    np.testing.assert_allclose(found.at(times)["a"], exact, atol=1e-7)
    np.testing.assert_allclose(found.at(2.0)["a"], found.theta["a"], atol=1e-15)


@pytest.mark.slow
def test_interpolants_of_many_flows_and_of_one_that_settles():
    starts = jnp.array([[1.0], [1e-7], [3.0]])
    loss = losses.Quadratic(jnp.eye(1))
    flows = gradient_flows(loss, starts, 30.0, dense=True, max_steps=200, until=settled(loss, 1e-6))
    assert flows.settled.all()
    path = jax.vmap(lambda flow: flow.at(jnp.array([0.5, 2.0, 30.0])))(flows)
    np.testing.assert_allclose(path[::2, :2, 0], np.asarray(starts[::2]) * np.exp([-0.5, -2.0]), atol=1e-7)
    np.testing.assert_allclose(path[:, 2], flows.theta, atol=1e-15)
    np.testing.assert_array_equal(path[1], np.full((3, 1), 1e-7))  # settled before its first step
    with pytest.raises(ValueError, match="dense=True"):
        gradient_flow(loss, starts[0], 1.0).at(0.5)


@pytest.mark.slow
def test_constant_steps_are_of_second_order():
    loss = losses.Quadratic(jnp.diag(jnp.array([0.5, 3.0])))
    flows = [gradient_flow(loss, jnp.ones(2), 1.0, step=step) for step in (0.1, 0.05, 0.025)]
    assert [int(flow.num_steps) for flow in flows] == [10, 20, 40]
    errors = [float(jnp.abs(flow.theta - jnp.exp(jnp.array([-0.5, -3.0]))).max()) for flow in flows]
    assert 3.5 < errors[0] / errors[1] < 6
    assert 3.7 < errors[1] / errors[2] < 5
    single = gradient_flow(loss, jnp.ones(2, jnp.float32), 1.0, step=0.1)
    assert single.theta.dtype == jnp.float32
    np.testing.assert_allclose(single.theta, flows[0].theta, rtol=1e-5)


@pytest.mark.slow
def test_constant_steps_are_those_of_adams_and_bashforth():
    """Against the recurrence by hand, and between the steps the parabola that has both slopes."""
    loss = losses.ScalarProduct()
    flow = gradient_flow(loss, jnp.array([1.5, 0.5]), 0.5, step=0.1, dense=True, max_steps=5)
    slope = lambda theta: -np.asarray(jax.grad(loss)(jnp.asarray(theta)))  # noqa: E731
    path = [np.array([1.5, 0.5])]
    slopes = [slope(path[0] - 0.1 * slope(path[0]))]
    for _ in range(5):
        slopes.append(slope(path[-1]))
        path.append(path[-1] + 0.1 * (1.5 * slopes[-1] - 0.5 * slopes[-2]))
    np.testing.assert_allclose(flow.theta, path[-1], rtol=1e-13)
    np.testing.assert_allclose(flow.at(0.1 * np.arange(6)), path, rtol=1e-13)
    between = path[2] + 0.03 * slopes[3] + 0.03**2 / 0.2 * (slopes[3] - slopes[2])
    np.testing.assert_allclose(flow.at(0.23), between, rtol=1e-13)


def test_constant_steps_cross_kinks_at_once():
    """The slope is 1 above zero and 3 below: the flow is known, and its error at most the jump times half a step."""
    loss = lambda x: jnp.sum(jnp.where(x > 0, x, 3 * x))  # noqa: E731
    starts = jnp.linspace(0.2, 0.9, 50)
    exact = np.where(starts < 1, -3 * (1 - starts), 0)
    for step in (0.1, 0.01):
        flow = gradient_flow(loss, starts, 1.0, step=step)
        assert int(flow.num_steps) == round(1 / step)
        error = np.asarray(flow.theta) - exact
        assert 0.3 * step < np.abs(error).max() <= 1.001 * step
        assert abs(error.mean()) < 0.2 * step  # without bias


@pytest.mark.slow
def test_running_out_of_steps_is_data():
    found = gradient_flow(losses.Quadratic(jnp.eye(2)), jnp.ones(2), 100.0, max_steps=3)
    assert not bool(found.successful)
    assert np.isfinite(found.theta).all()


@pytest.mark.slow
def test_single_precision_stays_single():
    flow = gradient_flow(losses.ScalarProduct(), jnp.array([1.0, 0.3], jnp.float32), 1.0, rtol=1e-4, atol=1e-6)
    assert flow.theta.dtype == jnp.float32


@pytest.mark.slow
def test_jit_vmap_and_trees():
    loss = losses.ScalarProduct()

    def flow(theta):
        return gradient_flow(lambda tree: loss(jnp.stack([tree["x"], tree["y"]])), theta, 1.0).theta

    starts = {"x": jnp.array([1.0, 0.3]), "y": jnp.array([0.2, 2.0])}
    batch, alone = jax.jit(jax.vmap(flow))(starts), jax.jit(flow)
    for i in range(2):
        one = alone(jax.tree.map(lambda leaf, i=i: leaf[i], starts))
        np.testing.assert_allclose(batch["x"][i], one["x"], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": -1.0}, "time"),
        ({"rtol": 0.0}, "rtol"),
        ({"step": -0.1}, "step"),
        ({"save_at": np.array([0.5, 2.0])}, "save_at"),
        ({"save_at": np.array([0.5, 0.2])}, "save_at"),
        ({"theta0": jnp.ones(3)}, "shape"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(**({"loss": losses.ScalarProduct(), "theta0": jnp.ones(2), "time": 1.0} | change))
