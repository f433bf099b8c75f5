"""The manifold of minima: projection, spaces, the flattest point against closed forms, curves, stable parts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from scipy.integrate import quad

from gdstab import curvature, minima
from gdstab.ensembles import map_points
from gdstab.losses import LinearNetwork, ScalarProduct
from gdstab.theory import factorisations, linear

HYPERBOLA = ScalarProduct(depth=2, target=1.0, scale=1.0)


draw = jax.jit(factorisations.random_factorisation, static_argnums=2)
spectrum = eqx.filter_jit(curvature.eigenvalues)


@eqx.filter_jit
def look(loss, theta):
    """Value, floor and Hessian."""
    return loss(theta), loss.floor(theta), curvature.hessian(loss, theta)


def network(rng, widths, samples=None, scale=0.5):
    """Whitened where no number of samples is given."""
    X = jnp.eye(widths[0]) if samples is None else jnp.array(rng.normal(size=(widths[0], samples)))
    return LinearNetwork(X, jnp.array(rng.normal(size=(widths[-1], X.shape[1]))), scale)


def on_manifold(key, loss, widths, num):
    best = linear.reduced_rank_map(loss.inputs, loss.targets, min(widths))
    return [draw(k, best, widths) for k in jax.random.split(key, num)]


#
# Points and spaces
#


@pytest.mark.parametrize(
    "widths",
    [(2, 2, 1), *(pytest.param(widths, marks=pytest.mark.slow) for widths in ((2, 2, 2), (2, 3, 3, 2), (3, 1, 3)))],
    ids=str,
)
def test_projection_and_spaces(key, rng, widths):
    loss = network(rng, widths, samples=6)
    minimum = on_manifold(key, loss, widths, 1)[0]
    noisy = jax.tree.map(lambda W: jnp.asarray(W + 0.1 * rng.normal(size=W.shape)), jax.tree.map(np.asarray, minimum))
    found = minima.project(loss, noisy)
    assert found.residual_norm < 1e-13
    value, floor, H = map(np.asarray, look(loss, found.theta))
    assert_close(value, floor, factor=1e-3)
    tangent, normal = (np.asarray(space(loss, found.theta)) for space in (minima.tangent_space, minima.normal_space))
    assert minima.dimension(loss, found.theta) == linear.manifold_dimension(widths) == tangent.shape[0]
    basis = np.concatenate([tangent, normal])
    assert_close(basis @ basis.T, np.eye(basis.shape[0]), factor=1e-4)
    assert_close(H @ tangent.T, np.zeros(tangent.T.shape))
    assert tuple(map(int, curvature.inertia_of_matrix(H))) == linear.minimum_inertia(widths)


def test_projection_is_quadratic_and_leaves_minima_alone():
    theta = jnp.array([2.0, 0.5])
    assert_close(minima.project(HYPERBOLA, theta).theta, theta, factor=1e-6)
    for offset in (1e-2, 1e-3):  # along the normal the foot is theta, up to the square of the distance
        normal = minima.normal_space(HYPERBOLA, theta)[0]
        moved = minima.project(HYPERBOLA, theta + offset * normal).theta
        assert jnp.linalg.norm(moved - theta) < 2 * offset**2


@pytest.mark.slow
def test_sampling_reaches_the_manifold_and_map_does_not_matter(key):
    loops = minima.sample(HYPERBOLA, key, 16, jnp.zeros(2))
    batched = minima.sample(HYPERBOLA, key, 16, jnp.zeros(2), map=map_points)
    assert loops.theta.shape == (16, 2)
    assert loops.residual_norm.max() < 1e-13
    assert_close(batched.theta, loops.theta)


def test_bad_input(rng):
    with pytest.raises(ValueError, match=r"residual has norm 1\b.*project"):
        minima.dimension(HYPERBOLA, jnp.array([2.0, 1.0]))
    with pytest.raises(ValueError, match="has no `residual`"):
        minima.project(lambda theta: jnp.sum(theta**2), jnp.ones(2))
    loss = network(rng, (2, 2, 2))
    with pytest.raises(ValueError, match="pass a `direction`"):
        minima.trace_curve(loss, factorisations.balanced_factorisation(loss.targets, (2, 2, 2)), 1.0, 0.1)
    with pytest.raises(ValueError, match="no component tangent"):
        minima.trace_curve(HYPERBOLA, jnp.ones(2), 1.0, 0.1, direction=jnp.ones(2))
    with pytest.raises(ValueError, match="step <= length"):
        minima.trace_curve(HYPERBOLA, jnp.ones(2), 1.0, -0.1)
    with pytest.raises(ValueError, match="none of the 1 starts"):
        minima.flattest(HYPERBOLA, [jnp.ones(2)], residual=lambda theta: 1 + theta**2)


def test_a_residual_can_be_passed_as_an_argument():
    def circle(theta):
        return (jnp.sum(theta**2) - 4.0) ** 2

    found = minima.project(circle, jnp.array([3.0, 0.1]), residual=lambda theta: jnp.sum(theta**2, keepdims=True) - 4)
    assert_close(jnp.linalg.norm(found.theta), 2.0)


#
# The flattest point
#


@pytest.mark.parametrize(
    "widths",
    [
        (2, 2, 1),
        pytest.param((2, 2, 2), marks=pytest.mark.slow),
        pytest.param((2, 2, 2, 2), marks=pytest.mark.slow),
        pytest.param((3, 4, 2), marks=pytest.mark.slow),
        pytest.param((2, 3, 2, 1), marks=pytest.mark.slow),
        pytest.param((2, 2, 2, 2, 2), marks=pytest.mark.slow),
        pytest.param((1, 2, 3, 2, 1), marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.slow
def test_flattest_minimum_of_whitened_networks(key, rng, widths):
    loss = network(rng, widths, scale=1.0)
    found = minima.flattest(loss, on_manifold(key, loss, widths, 2))
    sigma = float(np.linalg.norm(linear.optimal_map(loss.inputs, loss.targets), 2))
    expected = linear.flattest_sharpness(sigma, len(widths) - 1, scale=1.0)
    np.testing.assert_allclose(found.reached, expected, rtol=1e-6)
    np.testing.assert_allclose(found.sharpness, spectrum(loss, found.theta)[-1], rtol=1e-9)
    assert found.residual_norm < 1e-12
    assert found.stationarity < 1e-6
    if min(widths) == 2 and len(widths) == 3:
        assert_close(2 / found.sharpness, linear.critical_step(loss.inputs, loss.targets, widths, 1.0))


@pytest.mark.slow
def test_flattest_minimum_where_eigenvalues_meet(key):
    loss = LinearNetwork(jnp.eye(2), jnp.eye(2), 1.0)  # four equal eigenvalues at the flattest point
    found = minima.flattest(loss, on_manifold(key, loss, (2, 2, 2), 2))
    np.testing.assert_allclose(found.sharpness, 4.0, rtol=1e-6)


@pytest.mark.slow
def test_flattest_minimum_for_data_that_are_not_whitened(key, rng):
    for key_data in jax.random.split(key, 3):
        loss = network(rng, (3, 2, 1), samples=6, scale=1.0)
        found = minima.flattest(loss, on_manifold(key_data, loss, (3, 2, 1), 2))
        expected = linear.flattest_sharpness_one_output(loss.inputs, loss.targets, 1.0)
        np.testing.assert_allclose(found.sharpness, expected, rtol=1e-6)


#
# Curves
#


def exact_length(step_size, c=1.0):
    """Of x y = 1 with x^2 + y^2 < 1 / (c eta), one branch: x = e^u, y = e^-u, ds = sqrt(2 cosh 2u) du."""
    reach = 1 / (2 * c * step_size)
    return 0.0 if reach <= 1 else 2 * quad(lambda u: np.sqrt(2 * np.cosh(2 * u)), 0, np.arccosh(reach) / 2)[0]


def test_stable_part_of_the_hyperbola():
    curve = minima.trace_curve(HYPERBOLA, jnp.ones(2), 8.0, 0.02)
    points = np.asarray(curve.theta)
    assert_close(points.prod(axis=1), np.ones(len(points)), factor=1e-6)
    assert_close(curve.sharpness, 2 * np.sum(points**2, axis=1))
    step_sizes = [0.02, 0.05, 0.1, 0.3, 0.499, 0.51]
    found = minima.stable_length(curve, step_sizes)
    np.testing.assert_allclose(found, [exact_length(eta) for eta in step_sizes], rtol=1e-7, atol=1e-7)


def test_the_error_of_the_arc_length_is_of_fourth_order():
    errors = [
        abs(minima.stable_length(minima.trace_curve(HYPERBOLA, jnp.ones(2), 3.0, step), [0.1])[0] - exact_length(0.1))
        for step in (0.1, 0.05)
    ]
    assert errors[0] / errors[1] > 8


@pytest.mark.slow
def test_a_curve_on_a_manifold_of_more_dimensions_stays_on_it(key, rng):
    loss = network(rng, (2, 2, 2), samples=5)
    theta = on_manifold(key, loss, (2, 2, 2), 1)[0]
    curve = minima.trace_curve(loss, theta, 1.0, 0.05, direction=jax.tree.map(jnp.ones_like, theta))
    norms = map_points(lambda point: jnp.linalg.norm(loss.residual(point)), curve.theta)
    assert norms.max() < 1e-12
    assert curve.arc_length.shape == norms.shape == (41,)


def test_stable_part_counts_the_samples(key):
    points = minima.sample(HYPERBOLA, key, 200, jnp.zeros(2)).theta
    step_sizes = np.array([0.05, 0.3, 0.6])
    counts = minima.stable_part(HYPERBOLA, points, step_sizes, map=map_points)
    expected = [np.sum(np.sum(np.asarray(points) ** 2, axis=1) < 1 / eta) for eta in step_sizes]
    assert counts.tolist() == expected
    assert counts[-1] == 0


def test_projection_can_be_jitted_and_compiles_once():
    traces = 0

    class Counted(eqx.Module):
        target: jax.Array

        def residual(self, theta):
            nonlocal traces
            traces += 1
            return theta[:1] * theta[1:] - self.target

        def __call__(self, theta):
            return jnp.sum(self.residual(theta) ** 2)

    minima.project(Counted(jnp.array([1.0])), jnp.array([2.0, 1.0]))
    before = traces
    found = minima.project(Counted(jnp.array([3.0])), jnp.array([2.0, 1.0]))
    assert traces == before
    assert_close(found.theta[0] * found.theta[1], 3.0)
