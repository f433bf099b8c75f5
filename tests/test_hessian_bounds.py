"""Least Hessian eigenvalues of homogeneous networks: forms against autodiff, bounds on samples, constructed points."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gdstab.theory import hessian_bounds as hb
from gdstab.theory.hessian_bounds import bounds

LINEAR, RELU, LEAKY = (1.0, 1.0), (1.0, 0.0), (1.0, -0.3)
WIDTHS, SAMPLES, NUM = (2, 3, 2, 2), 3, 1000
PATTERNS = (
    hb.convolution_pattern(5, 2, channels=(1, 2)),
    hb.convolution_pattern(4, 3, channels=(2, 1)),
    hb.dense_pattern(2, 2),
)
SIZES = tuple(int(pattern.max()) + 1 for pattern in PATTERNS)


def square(prediction, target):
    return 0.5 * jnp.sum((prediction - target) ** 2)


def cross_entropy(prediction, target):
    return jax.nn.logsumexp(prediction) - prediction @ target


def mean_loss(theta, x, y, slopes, output_loss, shared=False):
    """Written out here, apart from the library."""
    layers = hb.realise(PATTERNS, theta) if shared else theta
    value = x
    for W in layers[:-1]:
        value = W @ value
        value = slopes[0] * jnp.maximum(value, 0) + slopes[1] * jnp.minimum(value, 0)
    return jnp.mean(jax.vmap(output_loss)((layers[-1] @ value).T, y))


def draw(rng, shapes, spread=0.7):
    """Gaussian leaves [NUM, ...], each scaled by a factor of its own, so that the layers are far from balanced."""
    scale = [np.exp(spread * rng.standard_normal(NUM)) for _ in shapes]
    return tuple(
        jnp.asarray(s.reshape(NUM, *[1] * len(shape)) * rng.standard_normal((NUM, *shape)))
        for s, shape in zip(scale, shapes, strict=True)
    )


def data(rng, d_in):
    x = rng.standard_normal((NUM, d_in, SAMPLES))
    y = np.eye(2)[rng.integers(0, 2, (NUM, SAMPLES))] + 0.3 * rng.standard_normal((NUM, SAMPLES, 2))
    return jnp.asarray(x), jnp.asarray(y)


def look(slopes, output_loss, shared=False):
    """At one point: the Hessian, both sides of the exact form, and every bound."""

    def at(theta, direction, x, y):
        flat, unravel = ravel_pytree(theta)
        hessian = jax.hessian(lambda z: mean_loss(unravel(z), x, y, slopes, output_loss, shared))(flat)
        step = ravel_pytree(direction)[0]
        layers = hb.realise(PATTERNS, theta) if shared else theta
        gates, out = hb.activation_gates(layers, x, slopes), hb.outputs(layers, x, slopes)
        slope = jax.vmap(jax.grad(output_loss))(out.T, y).T
        curve = jax.vmap(jax.hessian(output_loss))(out.T, y)
        if shared:
            form = hb.shared_form(PATTERNS, theta, direction, gates, x, slope, curve)
            bounds = [hb.shared_bound(PATTERNS, theta, slope, x, slopes)]
        else:
            form = hb.gated_form(theta, direction, gates, x, slope, curve)
            bounds = [hb.homogeneous_bound(theta, slope, x, slopes, layer_norm=n) for n in ("frobenius", "spectral")]
        return hessian, step @ hessian @ step, form, jnp.stack(bounds)

    return jax.jit(jax.vmap(at))


def assert_below(bounds, hessians, largest_median):
    """Bounds below every least eigenvalue; the median of bound over eigenvalue where that is negative."""
    bounds, least = np.asarray(bounds), np.linalg.eigvalsh(np.asarray(hessians))[:, 0]
    assert (bounds <= least + 1e-10 * np.abs(bounds)).all()
    assert (least < 0).mean() > 0.8
    looseness = bounds[least < 0] / least[least < 0]
    assert looseness.min() >= 1
    assert np.median(looseness) < largest_median


def test_lemmas_9_and_11_fully_connected(rng):
    shapes = list(zip(WIDTHS[1:], WIDTHS, strict=False))
    x, y = data(rng, WIDTHS[0])
    hessians, exact, form, bounds = look(LEAKY, cross_entropy)(draw(rng, shapes), draw(rng, shapes), x, y)
    np.testing.assert_allclose(form, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())
    assert_below(bounds[:, 0], hessians, 20.0)
    assert_below(bounds[:, 1], hessians, 15.0)
    assert (bounds[:, 1] >= bounds[:, 0]).all()


@pytest.mark.slow
def test_lemmas_21_and_23_shared_weights(rng):
    shapes = [(size,) for size in SIZES]
    x, y = data(rng, 5)
    hessians, exact, form, bounds = look(RELU, cross_entropy, True)(draw(rng, shapes), draw(rng, shapes), x, y)
    np.testing.assert_allclose(form, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())
    assert_below(bounds[:, 0], hessians, 60.0)


def test_lemmas_5_and_7_linear_networks(rng):
    shapes = list(zip(WIDTHS[1:], WIDTHS, strict=False))
    x, y = data(rng, WIDTHS[0])

    def phi(W, x, y):
        return jnp.mean(jax.vmap(cross_entropy)((W @ x).T, y))

    @jax.jit
    @jax.vmap
    def at(theta, direction, x, y):
        flat, unravel = ravel_pytree(theta)
        hessian = jax.hessian(lambda z: mean_loss(unravel(z), x, y, LINEAR, cross_entropy))(flat)
        W = theta[2] @ theta[1] @ theta[0]
        pull = jax.grad(phi)(W, x, y)
        curve = jax.hessian(phi)(W, x, y)
        form = hb.linear_form(theta, direction, pull, lambda D: jnp.einsum("ij,ijkl,kl->", D, curve, D))
        step = ravel_pytree(direction)[0]
        bounds = [hb.linear_bound(theta, pull, gradient_norm=n) for n in ("frobenius", "nuclear")]
        return hessian, step @ hessian @ step, form, jnp.stack(bounds)

    hessians, exact, form, bounds = at(draw(rng, shapes), draw(rng, shapes), x, y)
    np.testing.assert_allclose(form, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())
    assert_below(bounds[:, 0], hessians, 15.0)
    assert_below(bounds[:, 1], hessians, 10.0)
    assert (bounds[:, 1] >= bounds[:, 0] * (1 + 1e-12)).all()


def test_the_linear_bound_is_attained():
    """n = 2: at the origin the least eigenvalue is minus the largest singular value of the gradient."""
    gradient = jnp.diag(jnp.array([3.0, 0.0]))
    theta = (jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    flat, unravel = ravel_pytree(theta)
    hessian = jax.jit(jax.hessian(lambda z: jnp.sum(gradient * (unravel(z)[1] @ unravel(z)[0]))))(flat)
    assert np.linalg.eigvalsh(np.asarray(hessian))[0] == pytest.approx(-3.0)
    assert float(hb.linear_bound(theta, gradient, gradient_norm="nuclear")) == pytest.approx(-3.0)
    assert float(hb.linear_bound(theta, gradient)) == pytest.approx(-3 * np.sqrt(2))


@partial(jax.jit, static_argnames=("slopes", "shared"))
def hessian_at(theta, x, y, slopes, shared=False):
    flat, unravel = ravel_pytree(theta)
    return jax.hessian(lambda z: mean_loss(unravel(z), x, y, slopes, square, shared))(flat)


def assert_reaches(point, curvature, x, y, slopes, shared=False):
    """The curvature along the direction, and the least eigenvalue, by the Hessian of autodiff."""
    hessian, step = np.asarray(hessian_at(point.theta, x, y, slopes, shared)), ravel_pytree(point.direction)[0]
    along = float(step @ hessian @ step / (step @ step))
    assert along == pytest.approx(point.curvature, rel=1e-6)
    assert point.curvature <= -curvature
    assert np.linalg.eigvalsh(hessian)[0] <= point.curvature * (1 - 1e-9)


def test_proposition_6_reaches_any_curvature(rng):
    widths = (3, 2, 1, 2, 2)
    x, y = jnp.asarray(rng.standard_normal((widths[0], 4))), jnp.asarray(rng.standard_normal((4, widths[-1])))
    for curvature in (1.0, 1e2, 1e4):
        point = hb.linear_concave_point(-y.T @ x.T / 4, widths, curvature)
        assert_reaches(point, curvature, x, y, LINEAR)
        spectrum = np.linalg.eigvalsh(np.asarray(hessian_at(point.theta, x, y, LINEAR)))
        assert spectrum[0] == pytest.approx(-curvature, rel=1e-9)


@pytest.mark.slow
def test_propositions_10_and_22_reach_any_curvature():
    rng = np.random.default_rng(3)
    x, y = jnp.asarray(rng.standard_normal((2, 4))), jnp.asarray(rng.standard_normal((4, 2)))
    layers = tuple(jnp.asarray(rng.standard_normal(s)) for s in zip(WIDTHS[1:], WIDTHS, strict=False))
    signals = jnp.asarray(rng.standard_normal((5, 4)))
    weights = tuple(jnp.asarray(rng.standard_normal(size)) for size in SIZES)
    for curvature in (1.0, 1e2, 1e4):
        point = hb.homogeneous_concave_point(square, layers, x, y, curvature)
        assert_reaches(point, curvature, x, y, RELU)
        point = hb.shared_concave_point(PATTERNS, square, weights, signals, y, curvature, LEAKY)
        assert_reaches(point, curvature, signals, y, LEAKY, True)


def test_degenerate_data_are_refused():
    layers = (jnp.ones((1, 1)),) * 3
    with pytest.raises(ValueError, match="at least three layers"):
        hb.linear_concave_point(jnp.ones((1, 1)), (1, 1, 1), 1.0)
    with pytest.raises(ValueError, match="global minimum"):
        hb.linear_concave_point(jnp.zeros((1, 1)), (1, 1, 1, 1), 1.0)
    with pytest.raises(ValueError, match="got a sum of 0"):
        hb.homogeneous_concave_point(square, layers, jnp.ones((1, 1)), jnp.zeros((1, 1)), 1.0)
    with pytest.raises(ValueError, match="start nearer"):
        hb.linear_bound_near_zero(layers, jnp.ones((1, 1)), 0.3)
    with pytest.raises(ValueError, match="twice in a row"):
        hb.operator_norm(np.array([[0, 0]]))
    with pytest.raises(ValueError, match="no longer than"):
        hb.convolution_pattern(2, 3)


def flow_from_near_zero(flat, field, time=20.0, num=2000):
    """Runge and Kutta's method; every 50th point."""
    h = time / num

    def step(z, _):
        def stage(slope, part):
            slope = field(z + h * part * slope)
            return slope, slope

        _, slopes = jax.lax.scan(stage, jnp.zeros_like(z), jnp.array([0.0, 0.5, 0.5, 1.0]))
        z = z + h * jnp.array([1.0, 2.0, 2.0, 1.0]) @ slopes / 6
        return z, z

    return jax.jit(lambda z: jax.lax.scan(step, z, None, length=num)[1][49::50])(flat)


@pytest.mark.parametrize(("slopes", "shared"), [(LINEAR, False), (LEAKY, True)])
def test_propositions_8_12_and_24_hold_along_flows_from_near_zero(slopes, shared):
    rng, radius = np.random.default_rng(5), 0.15
    shapes = [(size,) for size in SIZES] if shared else list(zip(WIDTHS[1:], WIDTHS, strict=False))
    x, y = jnp.asarray(rng.standard_normal((5 if shared else 2, 6))), jnp.asarray(5 * rng.uniform(0, 2, (6, 2)))
    x = jnp.abs(x)  # and positive weights: no neuron is dead
    flat, unravel = ravel_pytree(tuple(jnp.asarray(rng.uniform(0, 1, shape)) for shape in shapes))
    loss = lambda z: mean_loss(unravel(z), x, y, slopes, square, shared)  # noqa: E731
    path = flow_from_near_zero(radius * flat / jnp.linalg.norm(flat), lambda z: -jax.grad(loss)(z))

    @jax.jit
    @jax.vmap
    def at(z):
        theta = unravel(z)
        layers = hb.realise(PATTERNS, theta) if shared else theta
        slope = hb.outputs(layers, x, slopes) - y.T
        if shared:
            bounds = [hb.shared_bound_near_zero(PATTERNS, theta, slope, x, radius, slopes)]
        else:
            bounds = [hb.homogeneous_bound_near_zero(theta, slope, x, radius, slopes)]
        if slopes == LINEAR:
            bounds.append(hb.linear_bound_near_zero(theta, slope @ x.T / 6, radius))
        return loss(z), jax.hessian(loss)(z), jnp.stack(bounds)

    values, hessians, bounds = map(np.asarray, at(path))
    assert values[-1] < 0.8 * values[0]
    assert (bounds <= np.linalg.eigvalsh(hessians)[:, :1]).all()


def test_patterns_realise_a_convolution(rng):
    kernel, signal = rng.standard_normal((3, 2, 3)), rng.standard_normal((2, 8))
    pattern = hb.convolution_pattern(8, 3, stride=2, channels=(2, 3))
    [W] = hb.realise((pattern,), (jnp.asarray(kernel.ravel()),))
    exact = jax.lax.conv_general_dilated(jnp.asarray(signal[None]), jnp.asarray(kernel), (2,), "VALID")[0]
    np.testing.assert_allclose(W @ signal.ravel(), exact.ravel(), atol=1e-12)
    largest = max(float(jnp.linalg.norm(hb.realise((pattern,), (jnp.asarray(w),))[0])) for w in np.eye(kernel.size))
    assert hb.operator_norm(pattern) == pytest.approx(largest) == pytest.approx(np.sqrt(3))


def test_single_precision_stays_single():
    def bounds(theta, x):
        gradient = theta[0]
        return (
            hb.linear_bound(theta, gradient),
            hb.linear_bound_near_zero(theta, gradient, 0.1),
            hb.homogeneous_bound(theta, x, x),
            hb.homogeneous_bound_near_zero(theta, x, x, 0.1),
        )

    shapes = jax.eval_shape(bounds, (jnp.ones((2, 2), jnp.float32),) * 3, jnp.ones((2, 3), jnp.float32))
    assert {each.dtype for each in shapes} == {np.dtype(np.float32)}


def test_integer_data_are_no_integer_layers():
    """-Y X^T of integer data: theta was cut to integers once."""
    gradient = -np.array([[3, 0], [0, 1]])
    point = hb.linear_concave_point(gradient, (2, 2, 2, 2), 10.0)
    vector, unravel = ravel_pytree(point.theta)

    def loss(vector):
        W = unravel(vector)
        return jnp.sum(jnp.asarray(gradient, float) * (W[2] @ W[1] @ W[0]))

    assert np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(vector))[0] == pytest.approx(-10.0, rel=1e-12)


def test_arguments_that_would_void_a_bound():
    layers, column = (jnp.ones((2, 2)),) * 3, jnp.ones((2, 1))
    with pytest.raises(ValueError, match="radius"):
        hb.homogeneous_bound_near_zero(layers, column, column, -5.0)
    with pytest.raises(ValueError, match="gradient_norm: expected one of frobenius, nuclear"):
        bounds._check_norm("spectral", "gradient_norm", "frobenius", "nuclear")
