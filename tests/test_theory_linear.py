"""Closed forms for linear networks, each against autodiff; the printed claims that fail, shown to fail."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from jax.flatten_util import ravel_pytree

from gdstab.losses import LinearNetwork
from gdstab.theory import counterexamples, factorisations, linear, strata

ARCHITECTURES = [  # (d_in, ..., d_out), filling unless marked
    (2, 2),
    (1, 1, 1),
    (2, 2, 2),
    (3, 2, 1),
    (2, 4, 3),
    (3, 1, 3),  # non-filling
    (3, 2, 4),  # non-filling
    (2, 2, 2, 2),
    (1, 3, 2, 2),
    (3, 4, 1, 2),  # non-filling
    (3, 2, 3, 3),  # non-filling
    (2, 3, 3, 2, 2),
]
COSTLY = {
    (2, 2),
    (3, 2, 1),
    (3, 4, 1, 2),
    (3, 3, 2),
    (2, 4, 3),
    (3, 2, 4),
    (1, 3, 2, 2),
    (3, 2, 3, 3),
    (2, 3, 3, 2, 2),
    (4, 5, 3),
    (3, 4, 3),
    (4, 3, 2),
    (3, 4, 3, 3),
}
SHAPES = [(2, 2, 2), (3, 3, 2), (3, 2, 3), (4, 3, 2), (2, 3, 4), (3, 4, 3), (3, 1, 2), (4, 5, 3)]


def name(widths):
    return "-".join(map(str, widths))


def each(widths, costly=COSTLY):
    """Those that take long to compile are looked at with `-m slow`."""
    marked = [pytest.param(row, marks=pytest.mark.slow if row in costly else ()) for row in widths]
    return pytest.mark.parametrize("widths", marked, ids=name)


@jax.jit
def look(loss, theta):
    """Value, gradient and Hessian."""
    flat, unravel = ravel_pytree(theta)
    hessian = jax.hessian(lambda point: loss(unravel(point)))(flat)
    return (*jax.value_and_grad(lambda point: loss(unravel(point)))(flat), hessian)


def gradient_and_spectrum(loss, theta):
    _, gradient, hessian = look(loss, theta)
    return np.asarray(gradient), np.linalg.eigvalsh(hessian)


@jax.jit
def value_and_gradient(loss, theta):
    return jax.value_and_grad(loss)(theta)


@jax.jit
def jacobian_of(loss, theta):
    return jax.vmap(lambda row: ravel_pytree(row)[0])(jax.jacrev(loss.residual)(theta))


random_factorisation = jax.jit(factorisations.random_factorisation, static_argnums=2)


def whitened(target, scale=0.5):
    return LinearNetwork(jnp.eye(target.shape[1]), target, scale)


def data(rng, widths, samples=7):
    return jnp.array(rng.normal(size=(widths[0], samples))), jnp.array(rng.normal(size=(widths[-1], samples)))


def product(theta):
    return functools.reduce(lambda total, W: W @ total, map(np.asarray, theta))


def inertia(values):
    values = np.asarray(values)
    tol = 1e-9 * max(1.0, np.abs(values).max())
    return int(np.sum(values < -tol)), int(np.sum(np.abs(values) <= tol)), int(np.sum(values > tol))


#
# Maps and data
#


def test_the_optimal_map_solves_the_normal_equations(rng):
    X, Y = data(rng, (3, 2))
    W = linear.optimal_map(X, Y)
    assert_close(W @ X @ X.T, Y @ X.T)
    assert_close(linear.reduced_rank_map(X, Y, 2), W)


def test_rank_deficient_data_are_refused(rng):
    X = jnp.array(rng.normal(size=(3, 1)) * rng.normal(size=(1, 7)))
    with pytest.raises(ValueError, match="rank 1"):
        linear.optimal_map(X, jnp.ones((2, 7)))


def test_tied_singular_values_warn():
    with pytest.warns(UserWarning, match="tied"):
        linear.reduced_rank_map(jnp.eye(3), jnp.eye(3), 1)
    with pytest.warns(UserWarning, match="gaps"):
        strata.critical_inertia(np.array([1.0, 1.0]), (2, 2, 2), (0,))


def test_reduced_rank_regression_beats_the_truncated_map(rng):
    X, Y = data(rng, (3, 3))
    assert counterexamples.truncation_excess(X, Y, 1) > 1e-2
    orthonormal = jnp.linalg.qr(X.T)[0].T
    assert_close(counterexamples.truncation_excess(orthonormal, Y, 1), 0.0)
    W = linear.reduced_rank_map(X, Y, 1)
    theta = random_factorisation(jax.random.key(0), W, (3, 1, 3))
    gradient, _ = gradient_and_spectrum(LinearNetwork(X, Y), theta)
    assert_close(gradient, np.zeros(6))


def test_reducing_the_data_keeps_the_loss_and_is_isometric_only_when_whitened(rng):
    X, Y = data(rng, (3, 2))
    theta = tuple(jnp.array(rng.normal(size=shape)) for shape in [(4, 3), (2, 4)])
    reduced = linear.reduce_data(X, Y)
    small = whitened(reduced.target)
    whole, part = value_and_gradient(LinearNetwork(X, Y), theta)[0], value_and_gradient(small, reduced.reduce(theta))[0]
    assert_close(whole, float(part) + 0.5 * float(reduced.offset))
    assert not reduced.isometric
    white = linear.reduce_data(jnp.linalg.qr(X.T)[0].T, Y)
    assert white.isometric
    _, spectrum = gradient_and_spectrum(LinearNetwork(jnp.linalg.qr(X.T)[0].T, Y), theta)
    assert_close(gradient_and_spectrum(whitened(white.target), white.reduce(theta))[1], spectrum)


#
# Minima
#


@each(ARCHITECTURES)
def test_inertia_at_minima(key, rng, widths):
    X, Y = data(rng, widths)
    best = linear.reduced_rank_map(X, Y, min(widths))
    for key_point in jax.random.split(key, 3):
        theta = random_factorisation(key_point, best, widths)
        assert_close(product(theta), best, factor=1.0)
        gradient, values = gradient_and_spectrum(LinearNetwork(X, Y), theta)
        assert_close(gradient, np.zeros(gradient.size))
        assert inertia(values) == linear.minimum_inertia(widths)
    assert linear.minimum_inertia(widths)[1] == linear.manifold_dimension(widths)


@each(ARCHITECTURES)
@pytest.mark.parametrize("scale", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_balanced_spectrum_at_minima(key, rng, widths, scale):
    target = jnp.array(rng.normal(size=(widths[-1], widths[0])))
    sigma = np.linalg.svd(target, compute_uv=False)
    theta = factorisations.balanced_factorisation(target, widths, key=key)
    assert all(np.abs(C).max() < 1e-12 for C in factorisations.balancedness(theta))
    _, values = gradient_and_spectrum(whitened(target, scale), theta)
    assert_close(linear.balanced_spectrum(sigma, widths, scale), values)
    assert_close(linear.flattest_sharpness(sigma[0], len(widths) - 1, scale), values[-1])


@each([(3, 2, 3), (4, 3, 2), (3, 4, 3, 3), (2, 3, 2, 3, 3)], {(3, 4, 3, 3), (2, 3, 2, 3, 3)})
def test_balanced_spectrum_at_every_critical_point_and_deficient_target(rng, widths):
    target = jnp.array(rng.normal(size=(widths[-1], widths[0])))
    sigma = np.linalg.svd(target, compute_uv=False)
    for fitted in strata.fitted_sets(widths):
        theta = factorisations.balanced_factorisation(target, widths, fitted=fitted)
        gradient, values = gradient_and_spectrum(whitened(target), theta)
        assert_close(gradient, np.zeros(gradient.size))
        assert_close(linear.balanced_spectrum(sigma, widths, fitted=fitted), values)
    thin = linear.truncate(target, 1)  # rank W* below the least width: M is singular there
    _, values = gradient_and_spectrum(whitened(thin), factorisations.balanced_factorisation(thin, widths))
    kept = np.where(np.arange(sigma.size) < 1, sigma, 0.0)
    np.testing.assert_allclose(linear.balanced_spectrum(kept, widths), values, atol=1e-6)


@each(ARCHITECTURES)
def test_no_sampled_minimum_is_flatter_than_the_bound(key, rng, widths):
    target = jnp.array(rng.normal(size=(widths[-1], widths[0])))
    bound = linear.flattest_sharpness(float(np.linalg.norm(target, 2)), len(widths) - 1)
    for key_point in jax.random.split(key, 3):
        theta = random_factorisation(key_point, target, widths)
        assert gradient_and_spectrum(whitened(target), theta)[1][-1] >= bound * (1 - 1e-9)


def test_critical_step_in_each_case_it_knows(rng):
    X, Y = data(rng, (2, 1))
    assert_close(linear.critical_step(X, Y, (2, 1), 1.0), 1 / np.linalg.norm(X, 2) ** 2)
    assert_close(linear.critical_step(jnp.eye(1), jnp.full((1, 1), 2.0), (1, 1, 1), 1.0), 1 / 4)  # 1 / (2 c a)
    flattest = linear.flattest_sharpness_one_output(X, Y)
    assert_close(linear.critical_step(X, Y, (2, 3, 1)), 2 / flattest)
    W = linear.optimal_map(3 * jnp.linalg.qr(X.T)[0].T, Y)
    scaled = linear.critical_step(3 * jnp.linalg.qr(X.T)[0].T, Y, (2, 3, 1))
    assert_close(scaled, 2 / (9 * linear.flattest_sharpness(jnp.linalg.norm(W), 2)))
    assert_close(scaled, 2 / linear.flattest_sharpness_one_output(3 * jnp.linalg.qr(X.T)[0].T, Y))
    with pytest.raises(ValueError, match=r"minima\.flattest"):
        linear.critical_step(X, Y, (2, 3, 3, 1))
    with pytest.raises(ValueError, match="do not fit"):
        linear.critical_step(X, Y, (3, 1))


#
# Saddles
#


def test_the_strata_table_is_large_enough():
    assert sum(len(list(strata.fitted_sets(widths))) for widths in SHAPES) >= 40


@each(SHAPES)
def test_inertia_of_every_stratum(key, rng, widths):
    target = jnp.array(rng.normal(size=(widths[-1], widths[0])))
    sigma = np.linalg.svd(target, compute_uv=False)
    loss = whitened(target)
    for fitted in strata.fitted_sets(widths):
        expected = strata.critical_inertia(sigma, widths, fitted)
        assert expected[1] == strata.stratum_dimension(widths, len(fitted))
        for key_point in jax.random.split(key, 3):
            theta = strata.critical_point(key_point, target, widths, fitted)
            value, gradient, hessian = look(loss, theta)
            assert_close(gradient, np.zeros(gradient.size), factor=1.0)
            assert_close(value, strata.critical_value(sigma, fitted))
            assert inertia(np.linalg.eigvalsh(hessian)) == expected


@each([(2, 2, 2, 2), (3, 4, 3, 3), (2, 3, 3, 2, 2)])
def test_deep_networks_have_saddles_without_negative_eigenvalue(rng, widths):
    target = jnp.array(np.diag([3.0, 2.0, 1.0])[: widths[-1], : widths[0]])
    loss = whitened(target)
    for num_fitted in range(min(widths)):
        theta = strata.nonstrict_saddle(target, widths, num_fitted)
        value, gradient, hessian = look(loss, theta)
        assert_close(gradient, np.zeros(gradient.size))
        assert inertia(np.linalg.eigvalsh(hessian))[0] == 0
        assert value > 0.1
    with pytest.raises(ValueError, match="two or more hidden"):
        strata.nonstrict_saddle(target, (2, 2, 2))


#
# The printed claims that fail
#


@pytest.mark.parametrize("widths", [(2, 2, 2), pytest.param((3, 4, 2), marks=pytest.mark.slow), (2, 3, 3, 2)], ids=name)
def test_the_least_positive_eigenvalue_is_not_proper(widths):
    target = jnp.eye(widths[-1], widths[0]) + 0.5 * jnp.eye(widths[-1], widths[0], 1)
    loss = whitened(target)
    num_zero, num_positive = linear.minimum_inertia(widths)[1:]
    least = []
    for stretch in (1.0, 10.0, 1000.0):
        theta = counterexamples.vanishing_eigenvalue_path(target, widths, stretch)
        assert_close(product(theta), target)
        # On M the Hessian is J^T J (c = 1/2), and the singular values of J lose fewer digits.
        least.append(np.linalg.svd(jacobian_of(loss, theta), compute_uv=False)[num_positive - 1] ** 2)
        if stretch < 100 or len(widths) == 3:
            values = gradient_and_spectrum(loss, theta)[1]
            np.testing.assert_allclose(values[num_zero], least[-1], rtol=1e-3)
    sigma = np.linalg.svd(target, compute_uv=False)
    if widths == (2, 2, 2):
        np.testing.assert_allclose(least[1], (sigma[0] + sigma[1]) / 100, rtol=1e-9)
    assert least[-1] < 1e-5
    np.testing.assert_allclose(least[-1] / least[1], 1e-4, rtol=0.1)  # falls like stretch^-2


@each([(1, 2, 2, 1), (2, 3, 4, 2), (2, 2, 3, 3, 2)], {(2, 3, 4, 2)})
def test_stable_minima_are_unbounded_for_three_layers(key, widths):
    target = jnp.eye(widths[-1], widths[0])
    loss = whitened(target)
    spectra = []
    for distance in (0.0, 1.0, 1e3):
        theta = counterexamples.invisible_line(target, widths, distance)
        value, _, hessian = look(loss, theta)
        assert float(value) < 1e-20
        spectra.append(np.linalg.eigvalsh(hessian))
    np.testing.assert_allclose(spectra[1], spectra[0], atol=1e-10)
    np.testing.assert_allclose(spectra[2], spectra[0], atol=1e-7)
    with pytest.raises(ValueError, match="in a row"):
        counterexamples.invisible_line(target, (2, 2, 2), 1.0)


def test_descent_converges_far_out_on_the_invisible_line(key):
    loss = whitened(jnp.eye(1))
    start = counterexamples.invisible_line(jnp.eye(1), (1, 2, 2, 1), 100.0)
    # Perturbed least where the far block amplifies most.
    start = tuple(
        W + 1e-4 * jax.random.normal(k, W.shape) for W, k in zip(start, jax.random.split(key, 3), strict=True)
    )
    step = jax.jit(lambda theta: jax.tree.map(lambda w, g: w - 0.3 * g, theta, jax.grad(loss)(theta)))
    theta = start
    for _ in range(2000):
        theta = step(theta)
    assert float(loss(theta)) < 1e-20
    assert float(jnp.linalg.norm(theta[1])) > 90


@pytest.mark.slow
def test_sharpness_is_proper_for_one_hidden_layer_and_for_square_layers(key):
    target = jnp.array([[2.0, 0.3], [0.0, 1.0]])
    for spread, key_point in itertools.product((1.0, 4.0), jax.random.split(key, 3)):
        theta = random_factorisation(key_point, target, (2, 4, 2), spread)
        assert gradient_and_spectrum(whitened(target), theta)[1][-1] >= counterexamples.sharpness_bound(theta) * (
            1 - 1e-9
        )
    sizes = (1e1, 1e2, 1e3)
    for layer in range(3):  # square and invertible: blow one layer up and shrink the others, the sharpness follows
        tops = []
        for size in sizes:
            gauge = jnp.diag(jnp.array([size, 1.0]))
            theta = [*factorisations.balanced_factorisation(target, (2, 2, 2, 2))]
            theta[layer] = gauge @ theta[layer] if layer < 2 else theta[layer] @ gauge
            above = layer + 1 if layer < 2 else 1
            theta[above] = theta[above] @ jnp.linalg.inv(gauge) if layer < 2 else jnp.linalg.inv(gauge) @ theta[above]
            assert_close(product(theta), target)
            tops.append(float(gradient_and_spectrum(whitened(target), tuple(theta))[1][-1]))
        assert tops[0] < tops[1] < tops[2]
        assert tops[2] > 1e2


#
# Balancedness and the rate
#


@pytest.mark.parametrize("step_size", [1e-3, 0.3])
@pytest.mark.slow
def test_balancedness_changes_by_the_exact_law(rng, step_size):
    X, Y = data(rng, (3, 2))
    loss = LinearNetwork(X, Y)
    theta = tuple(0.5 * jnp.array(rng.normal(size=shape)) for shape in [(4, 3), (3, 4), (2, 3)])
    slopes = value_and_gradient(loss, theta)[1]
    moved = tuple(jnp.asarray(np.asarray(w) - step_size * np.asarray(g)) for w, g in zip(theta, slopes, strict=True))
    predicted = factorisations.balancedness_step(loss, theta, step_size)
    for before, after, change, W in zip(
        *map(factorisations.balancedness, (theta, moved)), predicted, moved, strict=False
    ):
        rounding = 100 * np.finfo(float).eps * max(1.0, np.sum(np.square(W)), np.abs(after).max())
        np.testing.assert_allclose(np.asarray(after) - np.asarray(before), change, rtol=0, atol=rounding)


def test_balanced_initialisation_is_balanced_and_of_the_given_norm(key):
    theta = factorisations.balanced_initialisation(key, (3, 2, 4, 3), 0.2)
    assert_close(np.linalg.norm(product(theta)), 0.2)
    assert all(np.abs(C).max() < 1e-15 for C in factorisations.balancedness(theta))


def test_the_rate_bounds_the_decay_of_the_error(rng):
    seen = 0.0
    for _ in range(20):
        theta = tuple(
            jnp.asarray(s * rng.normal(size=shape)) for s, shape in [(0.2, (4, 3)), (1.0, (3, 4)), (4.0, (2, 3))]
        )
        rate = factorisations.convergence_rate(theta)
        target = jnp.array(rng.normal(size=(2, 3)))
        value, gradient = value_and_gradient(whitened(target), theta)
        squared = 2 * float(value)
        decay = 2 * sum(np.sum(np.square(G)) for G in gradient)  # -d/dt ||M||^2 under the flow
        assert decay >= 2 * rate * squared * (1 - 1e-12)
        seen = max(seen, rate)
    assert seen > 0  # the hypothesis of Proposition 2 held at some of the points
    with pytest.raises(ValueError, match="never widen"):
        factorisations.convergence_rate((jnp.ones((1, 2)), jnp.ones((2, 1))))
