"""Verdict, count and end point of a lane, to the last bit, whatever the block, the tile, the devices and the others."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import ensembles, losses, sampling
from gdstab._numerics import matmul, tree_sum
from gdstab.ensembles import _tuning
from gdstab.outcomes import StoppingRule
from gdstab.updates import gradient_descent

pytestmark = pytest.mark.optimised

LANES = 512


def catalogue(dtype):
    """Losses `name: (loss, draw(lanes) -> starts, step size)`: one or more of each family, in one precision."""
    rng, key = np.random.default_rng(7), jax.random.key(2)

    def draw(*shape):
        return np.asarray(rng.standard_normal(shape), dtype)

    def flat(dim, scale=1.0):
        return lambda lanes: np.asarray(scale, dtype) * draw(lanes, dim)

    def weights(*shapes):
        return lambda lanes: tuple(np.asarray(0.4, dtype) * draw(lanes, *shape) for shape in shapes)

    square = draw(5, 5)
    square = square @ square.T
    return {
        "scalar": (losses.ScalarProduct(2), flat(2), 0.4),
        "scalar, deep": (losses.ScalarProduct(9), flat(9), 0.02),
        "vector": (losses.VectorProduct(12), flat(24), 0.05),
        "regularised": (losses.RegularisedProduct(), flat(2), 0.5),
        "quadratic": (losses.Quadratic(square), flat(5), 0.05),
        "rosenbrock": (losses.Rosenbrock(), flat(5, 0.5), 0.0008),
        "himmelblau": (losses.Himmelblau(), flat(2), 0.02),
        "double well": (losses.DoubleWell(), flat(12), 0.6),
        "linear": (losses.LinearNetwork(draw(4, 8), draw(4, 8)), weights((4, 4), (4, 4)), 0.06),
        "linear, deep": (losses.LinearNetwork(draw(3, 8), draw(2, 8)), weights((5, 3), (3, 5), (2, 3)), 0.03),
        "factorisation": (losses.MatrixFactorisation(draw(4, 3), 2), flat(14), 0.05),
        "factorisation, l1": (losses.MatrixFactorisation(draw(4, 3), 2, norm="l1"), flat(14), 0.02),
        "symmetric": (losses.MatrixFactorisation(square[:4, :4], 2, symmetric=True), flat(8), 0.02),
        "recovery": (losses.MatrixRecovery.random(key, (3, 4), 25, rank=2), flat(14), 0.05),
        "recovery, dense": (losses.MatrixRecovery.random(key, (3, 4), 25), flat(12), 0.3),
        "quadratic network": (losses.QuadraticNetwork.random(key, 4, 20, neurons=3), flat(12), 0.03),
        "quadratic, large": (losses.Quadratic(np.diag(np.linspace(0.5, 2, 20).astype(dtype))), flat(20), 0.3),
        "linear, wide": (losses.LinearNetwork(draw(3, 8), draw(2, 8)), weights((20, 3), (2, 20)), 0.03),
        "relu": (losses.ShallowReLU(3), flat(10), 0.3),
        "phase retrieval": (losses.PhaseRetrieval.random(key, 4, 20, norm="l1"), flat(4), 0.03),
    }


def ends(case, block, lanes=LANES, steps=32, **options):
    loss, starts, step_size = case
    stopping = StoppingRule(loss_tol=1e-3, grad_tol=1e-4, escape_radius=1e3, max_steps=steps)
    return ensembles.run(gradient_descent(), loss, starts, step_size, stopping, block=block, **options)


def assert_same(one, other):
    """Bit for bit, nan being nan."""
    for name in ("outcome", "steps", "loss", "theta"):
        for a, b in zip(*(jax.tree.leaves(getattr(found, name)) for found in (one, other)), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


FAST = {("linear", "float32"), ("scalar", "float64")}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if (name, dtype) in FAST else pytest.mark.slow)
        for name in catalogue("float32")
        for dtype in ("float32", "float64")
    ],
)
def test_lanes_of_our_losses_do_not_depend_on_the_block(name, dtype):
    loss, draw, step_size = catalogue(dtype)[name]
    case = loss, draw(LANES), step_size
    blocks = (32, 512) if (name, dtype) in FAST else (None, 16, 32, 64, 128, 512)
    first, *others = (ends(case, block) for block in blocks)
    assert len(np.unique(first.steps)) > 1 or name in {"rosenbrock", "factorisation, l1"}
    for other in others:
        assert_same(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_counts_of_long_orbits_do_not_depend_on_block_or_tile(dtype):
    """Thousands of counts and some verdicts differed in single precision while sums went by the shape of the block."""
    rng = np.random.default_rng(0)
    inputs, targets = (jnp.asarray(rng.standard_normal((4, 8)), dtype) for _ in range(2))
    starts = tuple((0.4 * rng.standard_normal((4000, 4, 4))).astype(dtype) for _ in range(2))
    stopping = StoppingRule(loss_tol=1e-9, escape_radius=1e4, max_steps=700)
    arguments = gradient_descent(), losses.LinearNetwork(inputs, targets, 0.5), starts, 0.06, stopping
    whole = ensembles.run(*arguments)
    for block in (64, 512):
        assert_same(whole, ensembles.run(*arguments, block=block))
    tiles = list(ensembles.iter_run(*arguments, tile=1300))
    np.testing.assert_array_equal(np.concatenate([tile.steps for tile in tiles]), whole.steps)
    assert_same(ensembles.run(*arguments[:2], tuple(w[:50] for w in starts), *arguments[3:]), _head(whole, 50))


def _head(result, lanes):
    fields = {name: jax.tree.map(lambda leaf: leaf[:lanes], getattr(result, name)) for name in ("theta", "loss")}
    return type("Head", (), {"outcome": result.outcome[:lanes], "steps": result.steps[:lanes], **fields})


@pytest.mark.parametrize("bytes_per_lane", [8, 16, 128, 512, 10**5])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_default_block_is_a_constant_of_the_state(platform, bytes_per_lane):
    found = {
        _tuning.choose(platform, lanes, bytes_per_lane, devices, None).block
        for lanes in (1, 20, 700, 10**4, 10**7)
        for devices in (1, 2, 8)
    }
    assert len(found) == 1
    for lanes in (1, 700, 10**7):
        tuning = _tuning.choose(platform, lanes, bytes_per_lane, 2, 48)
        assert (tuning.block, tuning.chunk % 48, tuning.later % 48) == (48, 0, 0)


DEVICES = """
import jax, numpy as np, gdstab as gd
loss = gd.losses.LinearNetwork(np.eye(4, 8, dtype=np.float32), np.ones((4, 8), np.float32))
starts = tuple(np.random.default_rng(0).standard_normal((700, 4, 4)).astype(np.float32) * 0.4 for _ in range(2))
stopping = gd.StoppingRule(loss_tol=1e-6, grad_tol=1e-4, max_steps=200)
few, all_ = (gd.run(gd.gradient_descent(), loss, starts, 0.06, stopping, devices=d) for d in (jax.devices()[:1], None))
for one, other in zip(jax.tree.leaves((few.outcome, few.steps, few.theta)),
                      jax.tree.leaves((all_.outcome, all_.steps, all_.theta)), strict=True):
    np.testing.assert_array_equal(one, other)
print(len(jax.devices()), "equal")
"""


@pytest.mark.slow
def test_devices_change_nothing():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", DEVICES], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "4 equal", done.stderr


@pytest.mark.parametrize("cap", [*(pytest.param(cap, marks=pytest.mark.slow) for cap in (31, 33, 129)), 1001])
def test_block_tile_and_updates_per_test_change_nothing(cap, monkeypatch):
    """Bitwise: outcome, count and end point, also where the cap is no multiple of the updates per test."""
    points = sampling.grid(((-4, 4), (-4, 4)), (40, 40))
    stopping = StoppingRule(loss_tol=1e-12, grad_tol=1e-10, max_steps=cap, max_period=8)
    rule, loss = gradient_descent(), losses.ScalarProduct(scale=1.0)
    base = ensembles.run(rule, loss, points, 0.55, stopping)
    assert len(np.unique(base.outcome)) >= 3
    assert base.steps.max() == cap or cap > 1000
    results, choose = [], _tuning.choose
    often = 8 if cap in {31, 129} else 2  # unrolled: 8 of them compile for long
    monkeypatch.setattr("gdstab.ensembles.choose", lambda *args: choose(*args)._replace(updates_per_test=often))
    results.append(ensembles.run(rule, loss, points, 0.55, stopping))
    parts = ensembles.iter_run(rule, loss, points, 0.55, stopping, keep=("theta",), tile=777, block=48)
    joined = [
        np.concatenate(arrays) for arrays in zip(*((t.outcome, t.steps, t.period, t.theta) for t in parts), strict=True)
    ]
    results.append(SimpleNamespace(**dict(zip(("outcome", "steps", "period", "theta"), joined, strict=True))))
    for other in results:
        np.testing.assert_array_equal(other.outcome, base.outcome)
        np.testing.assert_array_equal(other.steps, base.steps)
        np.testing.assert_array_equal(other.period, base.period)
        np.testing.assert_array_equal(other.theta, base.theta)


@pytest.mark.parametrize("shape", [(1,), (7, 2), (0, 2)])
def test_a_tree_sum_is_a_sum_of_halves(shape, rng):
    values = rng.normal(size=shape)

    def halves(rows):
        rows = list(rows)
        while len(rows) > 1:
            half = len(rows) // 2
            rows = [a + b for a, b in zip(rows[:half], rows[half : 2 * half], strict=True)] + rows[2 * half :]
        return rows[0] if rows else np.zeros(shape[1:])

    for axis in range(len(shape)):
        found = tree_sum(jnp.moveaxis(jnp.asarray(values), 0, axis), axis)
        np.testing.assert_array_equal(found, halves(values))
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(tree_sum(x)))(values), np.ones(shape))


@pytest.mark.parametrize("columns", [16, 19])
def test_gradients_of_products_with_many_columns(columns, rng):
    a, b, weight = (jnp.asarray(rng.normal(size=shape)) for shape in ((3, 5), (5, columns), (3, columns)))
    by_a, by_b = jax.jit(jax.grad(lambda a, b: jnp.sum(weight * matmul(a, b)), (0, 1)))(a, b)
    np.testing.assert_allclose(by_a, weight @ b.T, rtol=1e-13)
    np.testing.assert_allclose(by_b, a.T @ weight, rtol=1e-13)
    moved = jax.jit(lambda a, b: jax.jvp(lambda b: matmul(a, b), (b,), (2 * b,))[1])(a, b)
    np.testing.assert_allclose(moved, 2 * a @ b, rtol=1e-13)
