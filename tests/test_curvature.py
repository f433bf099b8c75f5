"""Curvature against NumPy, mpmath, finite differences and closed forms; Lanczos with honest residuals."""

import chex
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from conftest import assert_close

from gdstab import curvature


def product(theta):
    """(1 - xy)^2 / 2: at xy = 1 the sharpness is x^2 + y^2 and the other eigenvalue 0."""
    return 0.5 * (1 - theta[0] * theta[1]) ** 2


def network(theta):
    """Three 2x2 layers, c = 1/2, target diag(2, 1/2)."""
    error = jnp.diag(jnp.array([2.0, 0.5], theta[0].dtype)) - theta[2] @ theta[1] @ theta[0]
    return 0.5 * jnp.sum(error**2)


spectrum = jax.jit(lambda theta: curvature.eigenvalues(network, theta))  # one compilation per dtype for all tests


def quadratic(matrix):
    return lambda x: 0.5 * jnp.vdot(x, jnp.asarray(matrix, x.dtype) @ x, precision="highest")


def with_spectrum(rng, values):
    """A random symmetric matrix with these eigenvalues."""
    Q = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return (Q * values) @ Q.T


def layers(rng, dtype=jnp.float64):
    return tuple(jnp.asarray(rng.normal(size=(2, 2)), dtype) for _ in range(3))


def test_hessian_is_symmetric_and_agrees_with_differences_and_hvp(rng):
    theta = layers(rng)
    flat, unravel = jax.flatten_util.ravel_pytree(theta)
    H = jax.jit(lambda t: curvature.hessian(network, t))(theta)
    assert H.shape == (12, 12)
    assert (H == H.T).all()
    gradient = jax.jit(jax.grad(lambda x: network(unravel(x))))
    step = 1e-6
    columns = [(gradient(flat + step * e) - gradient(flat - step * e)) / (2 * step) for e in np.eye(12)]
    np.testing.assert_allclose(H, np.stack(columns), atol=1e-7)
    v = jnp.asarray(rng.normal(size=12))
    moved = jax.jit(lambda t, u: curvature.hvp(network, t, u))(theta, unravel(v))
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, theta)
    assert_close(jax.flatten_util.ravel_pytree(moved)[0], H @ v, factor=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_balanced_minimum_has_the_closed_spectrum(dtype):
    # MATHS.md: sum over l < h of (s_i^(1-1/h-l/h) s_j^(l/h))^2, c = 1/2; the largest is h sigma^(2-2/h).
    s = np.array([2.0, 0.5])
    theta = (jnp.diag(jnp.asarray(s ** (1 / 3), dtype)),) * 3
    positive = [sum((a ** (2 / 3 - k / 3) * b ** (k / 3)) ** 2 for k in range(3)) for a in s for b in s]
    expected = np.sort(np.concatenate([np.zeros(8), positive]))
    values = spectrum(theta)
    assert values.dtype == dtype
    assert_close(values, expected)
    assert_close(values[-1], 3 * 2.0 ** (4 / 3))
    assert tuple(map(int, curvature.count_signs(values))) == (0, 8, 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, pytest.param(3, marks=pytest.mark.slow), 12])
def test_matrix_eigenvalues_against_numpy(rng, dtype, n):
    A = rng.normal(size=(20, n, n))
    A = (A + A.swapaxes(1, 2)).astype(dtype) * np.logspace(-12, 12, 20, dtype=dtype)[:, None, None]
    values = np.asarray(jax.jit(jax.vmap(curvature.matrix_eigenvalues))(jnp.asarray(A)))
    assert values.dtype == dtype
    expected = np.linalg.eigvalsh(A.astype(float))
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert np.max(np.abs(values - expected) / scale) < 20 * np.finfo(dtype).eps
    one = jax.jit(curvature.matrix_eigenvalues)
    for i in range(3):
        np.testing.assert_allclose(one(A[i]), values[i], rtol=0, atol=20 * np.finfo(dtype).eps * scale[i].item())


def test_closed_form_survives_extremes_and_agrees_with_mpmath():
    big = 2.0**100  # its square overflows float32
    A = jnp.array([[big, big], [big, big]], jnp.float32)
    np.testing.assert_allclose(curvature.matrix_eigenvalues(A), np.float32([0, 2 * big]), atol=1e-6 * big)
    B = np.array([[1.0, 1e-9], [1e-9, -3.0]])
    with mpmath.workdps(50):
        exact = sorted(mpmath.eigsy(mpmath.matrix(B.tolist()), eigvals_only=True))
    np.testing.assert_allclose(curvature.matrix_eigenvalues(jnp.asarray(B)), [float(e) for e in exact], rtol=1e-15)
    assert np.isnan(curvature.matrix_eigenvalues(jnp.full((2, 2), jnp.nan))).all()


def test_dense_spectrum_against_mpmath(rng):
    A = with_spectrum(rng, np.array([-3.0, -1e-9, 0, 1e-9, 2, 2, 5]))
    A = (A + A.T) / 2
    with mpmath.workdps(40):
        exact = [float(e) for e in sorted(mpmath.eigsy(mpmath.matrix(A.tolist()), eigvals_only=True))]
    np.testing.assert_allclose(jax.jit(curvature.matrix_eigenvalues)(A), exact, atol=1e-14)


@pytest.mark.parametrize("dense_limit", [512, 1])
def test_derivative_of_the_sharpness(dense_limit):
    """By the closed form, and by Lanczos with the Rayleigh quotient at a frozen vector."""
    top = jax.jit(jax.value_and_grad(lambda x: curvature.sharpness(product, x, dense_limit=dense_limit)))
    theta, step = np.array([2.0, 0.7]), 1e-6
    differences = [(top(theta + step * e)[0] - top(theta - step * e)[0]) / (2 * step) for e in np.eye(2)]
    np.testing.assert_allclose(top(theta)[1], differences, atol=1e-8)


@pytest.mark.parametrize("n", [2, 4])
def test_derivative_at_repeated_eigenvalues_is_a_subgradient(n):
    slope = jax.jit(jax.grad(lambda a: curvature.matrix_eigenvalues(jnp.eye(n) * a)[-1]))(3.0)
    np.testing.assert_allclose(slope, 1)


SPECTRA = {  # largest magnitude is not the largest value in the second and third
    "positive": np.linspace(0.1, 5, 60),
    "negative definite": np.linspace(-9, -1, 60),
    "indefinite": np.concatenate([[-50.0], np.linspace(-1, 1, 58), [3.0]]),
    "repeated": np.repeat([-2.0, 0.0, 4.0], 20),
    "identity": np.full(60, -1.5),
    "zero": np.zeros(60),
}


@pytest.fixture(scope="module")
def extremes_of():
    """One compilation for all spectra of a dtype and all starts, by Lanczos with full depth and with 30 products."""

    def run(matrix, key, num_matvecs):
        x = jnp.zeros(matrix.shape[0], matrix.dtype)
        return curvature.extreme_eigenvalues(quadratic(matrix), x, dense_limit=0, num_matvecs=num_matvecs, key=key)

    return jax.jit(run, static_argnums=2)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanczos_finds_both_ends(rng, key, extremes_of, name, dtype):
    values = SPECTRA[name]
    A = with_spectrum(rng, values)
    scale = max(np.abs(values).max(), 1)
    low, high = extremes_of(jnp.asarray(A, dtype), key, 60)
    for pair, expected in ((low, values.min()), (high, values.max())):
        tolerance = 300 * np.finfo(dtype).eps * scale
        assert abs(float(pair.value) - expected) < tolerance
        assert float(pair.residual) < tolerance
        v = np.asarray(pair.vector, float)
        np.testing.assert_allclose(A @ v, float(pair.value) * v, atol=2 * tolerance)


def test_residual_is_honest_when_lanczos_has_not_converged(rng, key, extremes_of):
    values = np.linspace(0, 1, 60)  # no gaps: 8 products are too few
    A = with_spectrum(rng, values)
    low, high = extremes_of(jnp.asarray(A), key, 8)
    for pair in (low, high):
        residual = np.linalg.norm(A @ pair.vector - pair.value * pair.vector)
        np.testing.assert_allclose(pair.residual, residual, rtol=1e-8)
        assert residual > 1e-3
        assert np.abs(values - pair.value).min() <= residual
    assert values.min() <= low.value < high.value <= values.max()


def test_lanczos_equals_dense_on_a_pytree_and_returns_the_residual(rng):
    theta = layers(rng)
    dense = jax.jit(lambda t: curvature.extreme_eigenvalues(network, t))(theta)
    sharpest = jax.jit(lambda t: curvature.sharpness(network, t, dense_limit=0, return_residual=True))
    sparse = jax.jit(lambda t: curvature.extreme_eigenvalues(network, t, dense_limit=0))(theta)
    for a, b in zip(dense, sparse, strict=True):
        assert_close(a.value, b.value, factor=1e-3)
        assert max(a.residual, b.residual) < 1e-12
    top, residual = sharpest(theta)
    assert residual < 1e-12
    assert_close(top, spectrum(theta)[-1], factor=1e-3)


@pytest.mark.slow
def test_vmap_equals_loop(rng):
    points = jnp.asarray(rng.normal(size=(4, 4)))
    loss = lambda x: product(x[:2]) + product(x[1:3]) ** 2 + jnp.sum(x**2) * x[3]  # noqa: E731

    def everything(x):
        ends = curvature.extreme_eigenvalues(loss, x, dense_limit=0, num_matvecs=4)
        return curvature.eigenvalues(loss, x), ends.smallest.value, ends.largest.value, curvature.inertia(loss, x)

    one = jax.jit(everything)
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one(x) for x in points))
    batched = jax.jit(jax.vmap(everything))(points)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), batched, looped)
    np.testing.assert_allclose(batched[0][:, -1], batched[2], rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_inertia_scales_with_the_matrix(rng, dtype, scale):
    A = with_spectrum(rng, np.array([-2.0, -1e-3, 0, 0, 0, 1e-2, 1, 5])) * scale
    assert tuple(map(int, curvature.inertia_of_matrix(A.astype(dtype)))) == (2, 3, 3)
    assert tuple(map(int, curvature.inertia_of_matrix(A.astype(dtype), tol=0.1 * scale))) == (1, 5, 2)


def test_inertia_of_zero_and_of_nan():
    assert tuple(map(int, curvature.count_signs(jnp.zeros(3)))) == (0, 3, 0)
    assert sum(map(int, curvature.count_signs(jnp.full(3, jnp.nan)))) == 0


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"square matrix, but got shape \(2, 3\)"),
        (np.ones(3), "square"),
        (np.array([[1.0, np.inf], [np.inf, 1.0]]), r"2 entries are not, first at \(0, 1\)"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), r"max \|H - H\^T\| = 2"),
    ],
)
def test_bad_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        curvature.inertia_of_matrix(matrix)


def test_bad_arguments_are_refused(key):
    with pytest.raises(ValueError, match="floating"):
        curvature.hessian(product, jnp.array([1, 2]))
    with pytest.raises(ValueError, match="scalar"):
        curvature.hessian(lambda x: x, jnp.ones(2))
    with pytest.raises(ValueError, match="num_matvecs"):
        curvature.extreme_eigenvalues(product, jnp.ones(2), num_matvecs=0)


def test_trace_is_unbiased_with_an_honest_error(rng, key):
    pytest.importorskip("matfree")
    A = with_spectrum(rng, np.linspace(-1, 4, 30))
    loss = quadratic(A)
    estimate = jax.jit(jax.vmap(lambda k: curvature.trace(loss, jnp.zeros(30), k, num_samples=40)))
    values, sems = estimate(jax.random.split(key, 200))
    true_sem = np.sqrt(2 * (np.sum(A**2) - np.sum(np.diag(A) ** 2)) / 40)  # variance of Hutchinson with signs
    assert abs(values.mean() - np.trace(A)) < 5 * true_sem / np.sqrt(200)
    assert 0.8 < np.sqrt(np.mean(sems**2)) / true_sem < 1.2
    with pytest.raises(ValueError, match="num_samples"):
        curvature.trace(loss, jnp.zeros(30), key, num_samples=1)


@pytest.mark.slow
def test_spectral_density_integrates_to_one_and_finds_the_bulk(rng, key):
    pytest.importorskip("matfree")
    values = np.concatenate([np.zeros(30), [3.0] * 10])  # two distinct eigenvalues: the Krylov space is exhausted
    A = with_spectrum(rng, values)
    run = jax.jit(lambda k: curvature.spectral_density(quadratic(A), jnp.zeros(40), k, num_matvecs=10, num_samples=64))
    grid, density, sem = run(key)
    assert np.isfinite(density).all()
    np.testing.assert_allclose(np.trapezoid(density, grid), 1, atol=1e-5)
    sigma = 3 / 50
    exact = np.exp(-(((np.asarray(grid)[:, None] - values) / sigma) ** 2) / 2).mean(1) / (sigma * np.sqrt(2 * np.pi))
    assert (np.abs(density - exact) <= 5 * sem + 1e-6).all()
    one = jax.jit(
        lambda k: curvature.spectral_density(quadratic(np.eye(5)), jnp.zeros(5), k, width=0.1, grid=jnp.array([1.0]))
    )
    single = one(key)
    np.testing.assert_allclose(single.density, 1 / (0.1 * np.sqrt(2 * np.pi)), rtol=1e-6)
    assert single.sem[0] < 1e-10
