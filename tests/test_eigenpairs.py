"""Eigenpairs at the ends of a spectrum, and the operators of a network, against NumPy's dense algebra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gdstab
from gdstab import curvature, losses

SPECTRUM = np.concatenate([[5.0, 5.0, 5.0, 4.5, 3.0], np.linspace(-4, 2, 55)])


def rotated(dtype):
    """A quadratic whose Hessian has a given spectrum, the largest eigenvalue three times; and the matrix."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((60, 60)))
    matrix = (basis * SPECTRUM) @ basis.T
    return losses.Quadratic(jnp.asarray((matrix + matrix.T) / 2, dtype))


def expected(which, k):
    by = np.sort(SPECTRUM)
    if which == "magnitude":
        return SPECTRUM[np.argsort(-np.abs(SPECTRUM), kind="stable")][:k]
    return {"largest": by[::-1][:k], "smallest": by[:k], "both": [*by[:k], *by[::-1][:k]]}[which]


@pytest.mark.parametrize(
    ("method", "which", "dtype"),
    [
        ("lanczos", "largest", "float64"), ("lobpcg", "largest", "float64"), ("dense", "magnitude", "float64"),
        pytest.param("lanczos", "both", "float32", marks=pytest.mark.slow),
        pytest.param("lanczos", "magnitude", "float64", marks=pytest.mark.slow),
        pytest.param("lobpcg", "smallest", "float32", marks=pytest.mark.slow),
        pytest.param("lobpcg", "magnitude", "float64", marks=pytest.mark.slow),
        pytest.param("dense", "both", "float32", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_pairs_come_as_often_as_they_are_there(method, which, dtype):
    loss = rotated(dtype)
    found = curvature.top_eigenpairs(loss, jnp.zeros(60, dtype), 4, which=which, method=method, num_matvecs=56)
    loose = 2e-5 if dtype == "float32" else 1e-8  # LOBPCG stops there
    assert found.values == pytest.approx(expected(which, 4), abs=loose)
    matrix, vectors = np.asarray(loss.matrix, float), np.asarray(found.vectors, float)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=100 * np.finfo(dtype).eps ** 0.75)
    off = np.linalg.norm(vectors @ matrix - np.asarray(found.values)[:, None] * vectors, axis=1)
    np.testing.assert_allclose(found.residuals, off, atol=50 * np.finfo(dtype).eps)


@pytest.mark.slow
def test_jitted_it_is_the_same_and_its_derivative_that_of_the_eigenvalues():
    def values(t):
        return curvature.top_eigenpairs(lambda x: jnp.sum(jnp.cos(t * jnp.arange(1.0, 5) * x)), jnp.zeros(4), 2).values

    assert jax.jit(values)(2.0) == pytest.approx(values(2.0))
    assert values(2.0) == pytest.approx([-4, -16])
    assert jax.jacfwd(values)(2.0) == pytest.approx([-4, -16])  # of -(t j)^2


def test_no_more_than_there_are():
    with pytest.raises(ValueError, match="at most as many eigenpairs as there are parameters, 3, got 4; lower k"):
        curvature.top_eigenpairs(lambda x: jnp.sum(x**2), jnp.zeros(3), 2, which="both")
    with pytest.raises(ValueError, match=r"method: expected one of None, 'dense'.*got 'power'"):
        curvature.top_eigenpairs(lambda x: jnp.sum(x**2), jnp.zeros(3), method="power")


class Small(eqx.Module):
    """One hidden layer of two tanh neurons, three outputs, 15 parameters."""

    inner: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __init__(self):
        one, two = jax.random.split(jax.random.key(3))
        self.inner, self.outer = eqx.nn.Linear(2, 2, key=one), eqx.nn.Linear(2, 3, key=two)

    def __call__(self, x):
        return self.outer(jnp.tanh(self.inner(x)))


@pytest.fixture(scope="module")
def risks():
    """The loss by either criterion, its parameters, and the dense Jacobian [samples, outputs, parameters]."""
    rng = np.random.default_rng(1)
    inputs, labels = rng.standard_normal((5, 2)), np.array([0, 2, 1, 1, 0])
    entropy = losses.NetworkRisk(Small(), inputs, labels)
    square = losses.NetworkRisk(Small(), inputs, np.eye(3)[labels], loss="mse", reduction="sum")
    flat, unravel = ravel_pytree(entropy.theta0)
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda x: entropy.outputs(unravel(x))))(flat))
    return entropy, square, entropy.theta0, jacobian


def test_gauss_newton_is_the_fisher_matrix(risks):
    """Against the sum over the labels that the model itself draws, and over the outputs' squares."""
    entropy, square, theta, jacobian = risks
    outputs = np.asarray(entropy.outputs(theta))
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    fisher = np.zeros((15, 15))
    for share, rows in zip(shares, jacobian, strict=True):
        for label in range(3):
            score = (share - np.eye(3)[label]) @ rows
            fisher += share[label] * np.outer(score, score) / len(shares)
    assert curvature.fisher(entropy, theta).matrix() == pytest.approx(fisher, rel=1e-9, abs=1e-13)
    gram = np.einsum("sop,soq->pq", jacobian, jacobian)
    assert curvature.gauss_newton(square, theta).matrix() == pytest.approx(gram, rel=1e-9, abs=1e-13)


@pytest.mark.slow
def test_the_empirical_fisher_matrix_is_a_sum_over_samples(risks):
    entropy, square, theta, _ = risks
    for risk, weight in ((entropy, 1 / 5), (square, 1.0)):
        total = np.zeros((15, 15))
        for x, y in zip(risk.inputs, risk.targets, strict=True):
            one = losses.NetworkRisk(risk.network, x[None], y[None], loss=risk.loss)
            slope = np.asarray(ravel_pytree(jax.grad(one)(theta))[0])
            total += weight * np.outer(slope, slope)
        assert curvature.empirical_fisher(risk, theta).matrix() == pytest.approx(total, rel=1e-9, abs=1e-13)


def test_the_tangent_kernel_has_the_spectrum_of_gauss_newton(risks):
    _, square, theta, jacobian = risks
    kernel = curvature.ntk(square, theta)
    rows = jacobian.reshape(15, 15)
    assert kernel.matrix() == pytest.approx(rows @ rows.T, rel=1e-9, abs=1e-13)
    top = curvature.operator_eigenpairs(kernel, 3).values
    assert top == pytest.approx(curvature.operator_eigenpairs(curvature.gauss_newton(square, theta), 3).values)


def test_a_block_is_a_block_of_the_hessian(risks):
    entropy, _, theta, _ = risks
    whole = np.asarray(curvature.hessian(entropy, theta))
    part = curvature.block(entropy, theta, lambda model: model.inner)
    assert curvature.hessian(*part) == pytest.approx(whole[:6, :6], rel=1e-9, abs=1e-13)
    pair = curvature.block(entropy, theta, lambda model: (model.inner.bias, model.outer.bias))
    where = np.r_[4:6, 12:15]
    assert curvature.top_eigenpairs(*pair, 1).values[0] == pytest.approx(
        np.linalg.eigvalsh(whole[np.ix_(where, where)])[-1]
    )
    with pytest.raises(ValueError, match="where: expected a function from theta to parts of it"):
        curvature.block(entropy, theta, lambda model: model.hidden)
    with pytest.raises(ValueError, match=r"expected a loss of a network's outputs.*without outputs and of_outputs"):
        curvature.ntk(jnp.sum, jnp.zeros(2))


def test_the_leading_pairs_along_training(risks):
    """Sharpness climbs along descent; where it ends, the leading pairs are those of the matrix of Gauss and Newton."""
    _, square, theta, _ = risks
    rule, step_size = gdstab.gradient_descent(), 0.05
    path = gdstab.rollout(rule, square, theta, step_size, 60)
    for number in (0, 60):
        here = jax.tree.map(lambda leaf, number=number: leaf[number], path)
        found = curvature.top_eigenpairs(square, here, 5)
        dense = np.linalg.eigvalsh(np.asarray(curvature.hessian(square, here)))[::-1][:5]
        assert found.values == pytest.approx(dense, rel=1e-9)
        assert float(found.residuals.max()) < 1e-10
        assert found.values[0] == pytest.approx(float(curvature.sharpness(square, here)), rel=1e-12)
