import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gdstab._numerics import matmul, sum_squares, tolerance
from gdstab.losses import (
    DoubleWell,
    Himmelblau,
    LinearNetwork,
    Quadratic,
    RegularisedProduct,
    Rosenbrock,
    ScalarProduct,
    VectorProduct,
)
from tests.conftest import assert_close

RNG = np.random.default_rng(3)
SMALL = LinearNetwork(RNG.normal(size=(4, 6)), RNG.normal(size=(4, 6)))
KNOWN = [  # loss, theta at a minimum, sharpness there (all by hand)
    (ScalarProduct(2, 1.0, 1.0), jnp.array([1.0, 1.0]), 4.0),
    (ScalarProduct(2, 2.0, 0.5), jnp.array([4.0, 0.5]), 16.25),
    (ScalarProduct(3, 8.0, 0.5), jnp.array([2.0, 2.0, 2.0]), 48.0),
    (VectorProduct(2, 1.0, 1.0), jnp.array([1.0, 2.0, 1.0, 0.0]), 12.0),
    (RegularisedProduct(0.75, -1.0, 0.5), jnp.array([-0.5, 0.5]), 1.5),
    (LinearNetwork(jnp.eye(2), jnp.diag(jnp.array([4.0, 1.0]))), (jnp.diag(jnp.array([2.0, 1.0])),) * 2, 8.0),
    (Quadratic(jnp.diag(jnp.array([3.0, 5.0])), jnp.array([1.0, 2.0])), jnp.array([1.0, 2.0]), 5.0),
    (Rosenbrock(), jnp.ones(2), 501 + np.sqrt(250601)),
    (Himmelblau(), jnp.array([3.0, 2.0]), 54 + 20 * np.sqrt(2.0)),
    (DoubleWell(), jnp.array([1.0, 0.0]), 2.0),
]
IDS = [f"{type(row[0]).__name__}-{i}" for i, row in enumerate(KNOWN)]


@eqx.filter_jit
def look(loss, theta):
    """Value, gradient, residual and Hessian; compiled once for all tests."""
    flat, unravel = ravel_pytree(theta)
    hessian = jax.hessian(lambda point: loss(unravel(point)))(flat)
    return loss(theta), jax.grad(loss)(theta), loss.residual(theta), hessian


def cast(theta, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), theta)


@pytest.mark.parametrize(("loss", "theta", "sharpness"), KNOWN, ids=IDS)
def test_known_minima(loss, theta, sharpness):
    value, gradient, residual, hessian = look(loss, theta)
    assert_close(value, float(loss.loss_floor))
    assert_close(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)), 0.0)
    assert_close(np.sum(np.square(residual)), 0.0)
    assert_close(np.linalg.eigvalsh(hessian)[-1], float(sharpness))


@pytest.mark.parametrize(("loss", "theta", "sharpness"), KNOWN, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_follows_theta(loss, theta, sharpness, dtype):
    theta = cast(theta, dtype)
    (value, gradient), residual = jax.eval_shape(lambda at: (jax.value_and_grad(loss)(at), loss.residual(at)), theta)
    assert value.dtype == dtype
    assert value.shape == ()
    assert residual.dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype(dtype)}


@pytest.mark.parametrize(("loss", "theta", "sharpness"), KNOWN, ids=IDS)
def test_residual_vanishes_only_at_minima(loss, theta, sharpness, key):
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(key, leaf.shape), theta)
    value, _, residual, _ = look(loss, moved)
    assert np.sum(np.square(residual)) > 1e-6
    assert float(value) > 1e-6


@pytest.mark.parametrize(("loss", "theta", "sharpness"), KNOWN, ids=IDS)
def test_gradient_is_lean(loss, theta, sharpness):
    graph = str(jax.make_jaxpr(jax.grad(loss))(theta))
    for costly in ("gather", "scatter", "dot_general", "cumprod"):
        assert costly not in graph


@pytest.mark.parametrize("loss", [row[0] for row in KNOWN if hasattr(row[0], "minimum")])
def test_minimum_is_one(loss):
    point = loss.minimum()
    assert_close(loss(point), jnp.asarray(getattr(loss, "loss_floor", 0.0)))
    assert_close(jax.grad(loss)(point), jnp.zeros_like(point))


def test_sweeping_constants_compiles_once():
    traces = 0

    @eqx.filter_jit
    def value(arrays, static, theta):
        nonlocal traces
        traces += 1
        return eqx.combine(arrays, static)(theta)

    values = []
    for target in (1, 2.0, 3.0):
        arrays, static = eqx.partition(ScalarProduct(target=target, scale=1.0), eqx.is_inexact_array_like)
        arrays = jax.tree.map(jnp.asarray, arrays)
        values.append(float(value(arrays, static, jnp.ones(2))))
    assert values == [0.0, 1.0, 4.0]
    assert traces == 1


def test_network_under_trailing_vmap_stays_elementwise(key):
    lanes = tuple(jax.random.normal(k, (4, 4, 5)) for k in jax.random.split(key, 3))
    batched = jax.vmap(jax.grad(SMALL), in_axes=-1, out_axes=-1)
    graph = str(jax.make_jaxpr(batched)(lanes))
    assert "dot_general" not in graph
    assert "gather" not in graph
    assert " pad[" not in graph  # a padded slice is what makes the unrolled gradient slow
    one = jax.jit(jax.grad(SMALL))(tuple(lane[..., 2] for lane in lanes))
    jax.tree.map(lambda many, single: assert_close(many[..., 2], single), jax.jit(batched)(lanes), one)


@pytest.mark.parametrize(
    "sizes",
    [(3, 4, 5), (18, 2, 2), (2, 17, 2), *(pytest.param(x, marks=pytest.mark.slow) for x in ((2, 1, 3), (2, 2, 18)))],
)
def test_matmul_and_its_derivatives(sizes, rng):
    m, k, n = sizes
    a, b = jnp.asarray(rng.normal(size=(m, k))), jnp.asarray(rng.normal(size=(k, n)))
    assert_close(matmul(a, b), a @ b)

    def cubed(product):
        return lambda pair: jnp.sum(product(*pair) ** 3)

    for derivative in (jax.grad, jax.jacfwd, jax.hessian):
        got, expected = (jax.jit(derivative(cubed(product)))((a, b)) for product in (matmul, jnp.matmul))
        jax.tree.map(assert_close, got, expected)


def test_network_against_least_squares(rng):
    inputs, targets = rng.normal(size=(3, 10)), rng.normal(size=(2, 10))
    loss = LinearNetwork(inputs, targets, scale=0.5)
    best = targets @ inputs.T @ np.linalg.inv(inputs @ inputs.T)
    floor = 0.5 * np.linalg.norm(targets - best @ inputs) ** 2
    assert_close(loss.loss_floor, floor)
    value, residual = jax.jit(lambda theta: (loss(theta), loss.residual(theta)))((np.eye(3), best))
    assert_close(value, floor)
    assert_close(residual, np.zeros(6))


def test_bottleneck_is_reduced_rank_regression(rng):
    inputs, targets = rng.normal(size=(4, 12)), rng.normal(size=(3, 12))
    loss = LinearNetwork(inputs, targets)
    gram = inputs @ inputs.T
    values, vectors = np.linalg.eigh(gram)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    u, s, vt = np.linalg.svd(targets @ inputs.T @ root, full_matrices=False)
    theta = (jnp.asarray(np.sqrt(s[:1, None]) * vt[:1] @ root), jnp.asarray(u[:, :1] * np.sqrt(s[:1])))
    value, gradient, residual, floor = jax.jit(
        lambda theta: (*jax.value_and_grad(loss)(theta), loss.residual(theta), loss.floor(theta))
    )(theta)
    assert_close(value, floor)
    assert_close(residual, np.zeros(12))
    assert float(floor) > float(loss.loss_floor)
    assert_close(sum(np.sum(np.square(leaf)) for leaf in gradient), 0.0)


def test_network_with_singular_data(rng):
    inputs = np.outer([1.0, 2.0], rng.normal(size=5))
    targets = rng.normal(size=(1, 5))
    loss = LinearNetwork(inputs, targets)
    fit = targets @ np.linalg.pinv(inputs)
    other = fit + np.array([[2.0, -1.0]])  # the data do not see this direction
    both = jax.jit(lambda weights: (loss((weights,)), loss.residual((weights,))))
    for weights in (fit, other):
        value, residual = both(weights)
        assert_close(value, float(loss.loss_floor))
        assert_close(residual, np.zeros(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ScalarProduct(depth=0),
        lambda: ScalarProduct(scale=-1.0),
        lambda: ScalarProduct(target=np.nan),
        lambda: ScalarProduct(target=jnp.ones(3)),
        lambda: ScalarProduct()(jnp.ones(3)),
        lambda: VectorProduct(dim=1.5),
        lambda: VectorProduct(2)(jnp.ones(2)),
        lambda: LinearNetwork(jnp.ones((2, 3)), jnp.ones((2, 4))),
        lambda: LinearNetwork(jnp.ones((2, 3)), jnp.full((2, 3), jnp.nan)),
        lambda: SMALL((jnp.eye(3),)),
        lambda: Quadratic([[1.0, 2.0], [0.0, 1.0]]),
        lambda: Quadratic(jnp.eye(2), jnp.ones(3)),
        lambda: Rosenbrock()(jnp.ones(1)),
        lambda: Himmelblau()(jnp.ones(3)),
        lambda: DoubleWell()(jnp.ones((2, 2))),
    ],
)
def test_bad_input(make):
    with pytest.raises((ValueError, TypeError)):
        make()


def test_tolerance_follows_dtype():
    assert tolerance("float32") > 1e3 * tolerance("float64")
    assert float(sum_squares({"a": jnp.ones(2), "b": jnp.ones((), "float32")})) == 3.0
    with pytest.raises(ValueError, match="at least one array"):
        sum_squares(())


def test_regularised_product_is_the_product_without_decay_and_has_one_minimum_with_much():
    theta = jnp.array([1.5, -0.4])
    assert float(RegularisedProduct(0.0, 1.3, 0.7)(theta)) == float(ScalarProduct(2, 1.3, 0.7)(theta))
    much = RegularisedProduct(3.0, 1.0, 0.5)
    assert much.minimum().tolist() == [0.0, 0.0]
    assert_close(much(much.minimum()), jnp.asarray(much.loss_floor))
    little = RegularisedProduct(0.3, -1.2, 0.8)
    assert_close(jnp.sum(little.residual(theta) ** 2), little(theta) - little.loss_floor)
    with pytest.raises(ValueError, match="decay"):
        RegularisedProduct(-0.1)
