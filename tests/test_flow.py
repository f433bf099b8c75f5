"""Gradient flow against exact solutions and conserved quantities."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import losses
from gdstab._numerics import sum_squares
from gdstab.flow import FlowStatus, diagnose, gradient_flow
from gdstab.theory import factorisations

FINE = {"rtol": 1e-12, "atol": 1e-13}


@pytest.mark.parametrize("solver", [None, diffrax.Kvaerno5()])
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


def test_a_stiff_flow_is_diagnosed_and_the_implicit_solver_takes_it():
    loss, times = losses.Quadratic(jnp.diag(jnp.array([1e5, 1.0]))), np.array([0.0, 0.3, 1.0, 2.0])
    explicit = gradient_flow(loss, jnp.ones(2), 2.0, max_steps=400, save_at=times)
    assert FlowStatus(int(explicit.status)) == FlowStatus.STALLED
    assert "Kvaerno5" in diagnose(loss, explicit)
    implicit = gradient_flow(loss, jnp.ones(2), 2.0, save_at=times, solver=diffrax.Kvaerno5())
    assert bool(implicit.successful)
    assert int(implicit.num_steps) < 400
    np.testing.assert_allclose(implicit.theta, [0.0, np.exp(-2.0)], atol=1e-6)


@pytest.mark.parametrize("depth", [2, pytest.param(3, marks=pytest.mark.slow)])
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


def test_it_stops_where_the_gradient_is_small_and_holds_what_follows():
    loss = losses.Quadratic(jnp.eye(2))

    def at_rest(theta):
        return sum_squares(jax.grad(loss)(theta)) < 1e-6

    found = gradient_flow(loss, jnp.ones(2), 100.0, save_at=np.linspace(0, 100, 11), until=at_rest, observe=loss)
    assert bool(found.settled)
    assert 6.0 < float(found.time) < 12.0
    assert float(found.observed[-1]) == float(loss(found.theta))
    assert np.isfinite(found.observed).all()


def test_running_out_of_steps_is_data():
    found = gradient_flow(losses.Quadratic(jnp.eye(2)), jnp.ones(2), 100.0, max_steps=3)
    assert not bool(found.successful)
    assert np.isfinite(found.theta).all()


def test_jit_vmap_dtype_and_trees():
    loss = losses.ScalarProduct()

    def flow(theta):
        return gradient_flow(lambda tree: loss(jnp.stack([tree["x"], tree["y"]])), theta, 1.0).theta

    starts = {"x": jnp.array([1.0, 0.3]), "y": jnp.array([0.2, 2.0])}
    batch = jax.jit(jax.vmap(flow))(starts)
    for i in range(2):
        one = flow(jax.tree.map(lambda leaf, i=i: leaf[i], starts))
        np.testing.assert_allclose(batch["x"][i], one["x"], rtol=1e-6)
    single = gradient_flow(loss, jnp.array([1.0, 0.3], jnp.float32), 1.0, rtol=1e-4, atol=1e-6)
    assert single.theta.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": -1.0}, "time"),
        ({"rtol": 0.0}, "rtol"),
        ({"save_at": np.array([0.5, 2.0])}, "save_at"),
        ({"save_at": np.array([0.5, 0.2])}, "save_at"),
        ({"theta0": jnp.ones(3)}, "shape"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(**({"loss": losses.ScalarProduct(), "theta0": jnp.ones(2), "time": 1.0} | change))
