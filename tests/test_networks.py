"""Networks on data: against NumPy and scipy, differences, PyTorch's distributions, and laws of homogeneity."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import signal, stats

from gdstab import curvature, data, ensembles, flow
from gdstab.losses import ConvolutionalNetwork, FullyConnected, LinearNetwork, NetworkRisk, initialisation
from gdstab.losses.network_models import ACTIVATIONS, homogeneity_error
from gdstab.losses.networks import cross_entropy
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import gradient_descent

KEY = jax.random.key(7)
RNG = np.random.default_rng(7)
SAMPLES = RNG.normal(size=(6, 4))
LABELS = np.array([0, 2, 1, 1, 0, 2])
VALUES = RNG.normal(size=(6, 3))
ACTIVATE = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


def drawn(make, *arguments, **options):
    """A model of the shapes that `make` gives, filled by NumPy: nothing is compiled."""
    generator = np.random.default_rng(7)

    def fill(leaf):
        return jnp.asarray(generator.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[1:])))

    made = eqx.filter_eval_shape(make, KEY, *arguments, **options)
    shapes, rest = eqx.partition(made, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return eqx.combine(jax.tree.map(fill, shapes), rest)


def small_risk(activation="tanh", *, biases=True, loss="cross_entropy", **options):
    model = drawn(FullyConnected.xavier, (4, 5, 3), activation, biases=biases)
    return NetworkRisk(model, SAMPLES, LABELS if loss == "cross_entropy" else VALUES, loss, **options)


def noise_like(theta, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype), theta)


def shifted(theta, direction, size):
    return jax.tree.map(lambda leaf, step: jnp.asarray(leaf + size * step), theta, direction)


def inner(first, second):
    return sum(
        np.sum(np.asarray(a) * np.asarray(b))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


# Values and derivatives


CROSS_ENTROPY = jax.jit(jax.value_and_grad(cross_entropy))


@pytest.mark.parametrize("logits", [[0.3, -1.2, 2.0], [60.0, 0.0, 1.0], [-700.0, 800.0, 3.0], [1e-9, 0.0, 0.0]])
def test_cross_entropy_to_full_relative_accuracy(logits):
    with mpmath.workdps(800):
        exact = [mpmath.mpf(z) for z in logits]
        parts = [mpmath.exp(z) for z in exact]
        value = float(mpmath.log(sum(parts)) - exact[0])
        slopes = [float(part / sum(parts)) for part in parts]
        slopes[0] = float(-sum(parts[1:]) / sum(parts))
    found, gradient = CROSS_ENTROPY(jnp.array(logits), jnp.array(0))
    np.testing.assert_allclose(found, value, rtol=1e-13)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-13)


def dense_in_numpy(model, x):
    for number, weight in enumerate(model.weights):
        x = np.asarray(weight) @ x + (0 if model.biases is None else np.asarray(model.biases[number]))
        x = x if number == model.depth - 1 else ACTIVATE[model.activation](x)
    return x


def loss_in_numpy(outputs, targets, loss):
    if loss == "mse":
        return ((outputs - targets) ** 2).sum(1) / 2
    return np.log(np.exp(outputs).sum(1)) - outputs[np.arange(len(targets)), targets]


@pytest.mark.parametrize(
    ("activation", "biases"),
    [
        pytest.param(name, biases, marks=pytest.mark.slow if (i + biases) % 2 else ())
        for i, name in enumerate(ACTIVATIONS)
        for biases in (False, True)
    ],
)
def test_a_fully_connected_network_is_what_numpy_says(activation, biases):
    loss = "mse" if biases else "cross_entropy"
    risk = small_risk(activation, biases=biases, loss=loss)
    outputs = np.array([dense_in_numpy(risk.network, x) for x in SAMPLES])
    found, value = jax.jit(lambda theta: (risk.outputs(theta), risk(theta)))(risk.theta0)
    np.testing.assert_allclose(found, outputs, rtol=1e-13)
    expected = loss_in_numpy(outputs, np.asarray(risk.targets), loss).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-13)


def convolve_in_numpy(model, image):
    x = np.pad(image, model.padding)[None]
    for number in (0, 1):
        kernel = np.asarray(model.weights[number])
        maps = [sum(signal.correlate2d(c, k, "valid") for c, k in zip(x, each, strict=True)) for each in kernel]
        x = np.array(maps)[:, : maps[0].shape[0] // 2 * 2, : maps[0].shape[1] // 2 * 2]
        windows = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        x = np.max(windows, axis=0) if model.pooling == "max" else windows[0]
        x = x if model.biases is None else x + np.asarray(model.biases[number])[:, None, None]
        x = ACTIVATE[model.activation](x)
    rest = FullyConnected(model.weights[2:], model.biases and model.biases[2:], model.activation)
    return dense_in_numpy(rest, x.ravel())


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("tutorial", 8),
        pytest.param("tutorial", 13, marks=pytest.mark.slow),
        ("adapted", 13),
        pytest.param("adapted", 28, marks=pytest.mark.slow),
    ],
)
def test_a_convolutional_network_is_what_scipy_says(kind, size):
    model = drawn(getattr(ConvolutionalNetwork, kind), size)
    images = RNG.normal(size=(2, size, size))
    expected = [convolve_in_numpy(model, image) for image in images]
    np.testing.assert_allclose(jax.jit(jax.vmap(model.__call__))(jnp.array(images)), expected, rtol=1e-11, atol=1e-14)


def test_architectures_are_those_of_figure_3():
    """The tutorial's 61706 parameters; 5 x 5 kernels, 400 numbers left; on digits 3 x 3 kernels, 16 left."""
    full, bare = (drawn(kind) for kind in (ConvolutionalNetwork.tutorial, ConvolutionalNetwork.adapted))
    shapes = [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    assert [weight.shape for weight in full.weights] == [weight.shape for weight in bare.weights] == shapes
    assert sum(leaf.size for leaf in jax.tree.leaves(full)) == 61706
    assert sum(leaf.size for leaf in jax.tree.leaves(bare)) == 61706 - 236
    assert (full.padding, full.pooling, bare.pooling, bare.biases) == (2, "max", "subsample", None)
    small = drawn(ConvolutionalNetwork.tutorial, 8)
    assert ([weight.shape for weight in small.weights[:3]], small.padding) == (
        [(6, 1, 3, 3), (16, 6, 3, 3), (120, 16)],
        1,
    )


SMOOTH = drawn(FullyConnected.xavier, (4, 5, 3), "tanh", biases=True)
CONVOLVED = {"channels": (1, 1, 2), "hidden": (), "outputs": 3, "activation": "tanh"}
DIFFERENTIATED = [
    (SMOOTH, SAMPLES, LABELS, "cross_entropy"),
    (SMOOTH, SAMPLES, VALUES, "mse"),
    (drawn(ConvolutionalNetwork.tutorial, 8, **CONVOLVED), RNG.normal(size=(6, 8, 8)), LABELS, "cross_entropy"),
    (drawn(ConvolutionalNetwork.adapted, 8, **CONVOLVED), RNG.normal(size=(6, 8, 8)), VALUES, "mse"),
]


@pytest.mark.parametrize(
    ("model", "inputs", "targets", "loss"),
    [pytest.param(*row, marks=pytest.mark.slow if i in {1, 2} else ()) for i, row in enumerate(DIFFERENTIATED)],
)
def test_gradients_and_hessian_products_are_differences(model, inputs, targets, loss):
    risk = NetworkRisk(model, inputs, targets, loss)
    direction = noise_like(risk.theta0)

    @jax.jit
    def derivatives(theta):
        (value, gradient), (_, product) = jax.jvp(jax.value_and_grad(risk), (theta,), (direction,))
        return value, gradient, product

    _, gradient, product = derivatives(risk.theta0)
    size = 1e-5
    ahead, behind = (derivatives(shifted(risk.theta0, direction, sign * size)) for sign in (1, -1))
    np.testing.assert_allclose(inner(gradient, direction), (ahead[0] - behind[0]) / (2 * size), rtol=1e-7)
    for found, first, last in zip(*map(jax.tree.leaves, (product, ahead[1], behind[1])), strict=True):
        np.testing.assert_allclose(found, (first - last) / (2 * size), rtol=1e-6, atol=1e-7)


def test_curvature_of_a_risk():
    risk = small_risk(biases=False, loss="mse")
    H, product = jax.jit(lambda theta: (curvature.hessian(risk, theta), curvature.hvp(risk, theta, theta)))(risk.theta0)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(risk.theta0)])
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(product)])
    np.testing.assert_allclose(found, np.asarray(H) @ flat, rtol=1e-12, atol=1e-13)


def test_output_gradients_are_those_of_each_sample():
    risk = small_risk()
    outputs, found = jax.jit(lambda theta: (risk.outputs(theta), risk.output_gradients(theta)))(risk.theta0)
    chances = np.exp(outputs)
    expected = chances / chances.sum(1, keepdims=True) - np.eye(3)[LABELS]
    np.testing.assert_allclose(found, expected, atol=1e-14)
    other = small_risk(loss="mse", reduction="sum")
    outputs, found, residual = jax.jit(
        lambda theta: (other.outputs(theta), other.output_gradients(theta), other.residual(theta))
    )(other.theta0)
    np.testing.assert_allclose(found, outputs - VALUES, atol=1e-14)
    np.testing.assert_array_equal(np.ravel(found), residual)


def test_a_linear_network_is_a_linear_network():
    model = drawn(FullyConnected.xavier, (4, 5, 3), "linear")
    risk, mean = (NetworkRisk(model, SAMPLES, VALUES, "mse", reduction) for reduction in ("sum", "mean"))
    known = LinearNetwork(SAMPLES.T, VALUES.T, 0.5)
    slopes = jax.jit(
        lambda theta: [jax.value_and_grad(loss)(theta) for loss in (risk, mean, lambda t: known(t.weights))]
    )
    (value, ours), (shared, _), (expected, theirs) = slopes(model)
    np.testing.assert_allclose([value, 6 * shared], expected, rtol=1e-13)
    for first, second in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-12)


# A loss like any other


class Scaled(eqx.Module):
    """A model with a bit of everything: parameters, integers, a function, a number."""

    inside: eqx.nn.MLP
    order: jax.Array
    factor: float = 2.0

    def __call__(self, x):
        return self.factor * self.inside(x[self.order])


def test_any_equinox_model_is_a_loss():
    mlp = drawn(lambda key: eqx.nn.MLP(4, 3, 5, 1, key=key))
    risk = NetworkRisk(Scaled(mlp, jnp.array([3, 2, 1, 0])), SAMPLES, LABELS)
    assert len(jax.tree.leaves(risk.theta0)) == 4
    other = risk.parameters(jax.tree.map(lambda leaf: leaf, risk.model(risk.theta0)))
    assert jax.tree.structure(other) == jax.tree.structure(risk.theta0)
    weights = [np.asarray(leaf) for leaf in jax.tree.leaves(risk.theta0)]
    hidden = np.maximum(SAMPLES[:, ::-1] @ weights[0].T + weights[1], 0)
    by_hand = 2 * (hidden @ weights[2].T + weights[3])
    np.testing.assert_allclose(risk.outputs(other), by_hand, rtol=1e-13)
    np.testing.assert_allclose(risk(other), loss_in_numpy(by_hand, LABELS, "cross_entropy").mean(), rtol=1e-13)


def test_sweeping_data_and_models_compiles_once():
    traces = 0

    @eqx.filter_jit
    def slope(risk, theta):
        nonlocal traces
        traces += 1
        return jax.grad(risk)(theta)

    for seed in range(3):
        model = jax.tree.map(lambda leaf, seed=seed: leaf + seed, drawn(FullyConnected.xavier, (4, 5, 3), "relu"))
        risk = NetworkRisk(model, SAMPLES + seed, (LABELS + seed) % 3)
        assert np.isfinite(inner(slope(risk, risk.theta0), risk.theta0))
    assert traces == 1


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_dtype_follows_theta(loss):
    risk = small_risk(loss=loss)
    theta = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), risk.theta0)
    found = jax.eval_shape(lambda theta: (jax.value_and_grad(risk)(theta), risk.accuracy(theta)), theta)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}
    value = eqx.filter_jit(risk)
    np.testing.assert_allclose(value(theta), value(risk.theta0), rtol=1e-5)


def test_an_ensemble_of_trainings_is_a_loop_over_them():
    risk = small_risk("relu", biases=False, loss="mse")
    thetas = [noise_like(risk.theta0, seed) for seed in range(3)]
    points = jax.tree.map(lambda *leaves: jnp.stack(leaves), *thetas)
    sizes = np.array([0.05, 1000.0])
    result = ensembles.run(gradient_descent(), risk, points, sizes, StoppingRule(max_steps=7))
    assert (result.outcome[0] == Outcome.UNDECIDED).all()
    assert np.isin(result.outcome[1], [Outcome.DIVERGED, Outcome.NONFINITE]).all()
    slope = jax.jit(jax.grad(risk))
    for lane, theta in enumerate(thetas):
        for _ in range(7):
            theta = shifted(theta, slope(theta), -0.05)  # noqa: PLW2901
        for found, expected in zip(jax.tree.leaves(result.theta), jax.tree.leaves(theta), strict=True):
            np.testing.assert_allclose(found[0, lane], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
def test_the_flow_keeps_what_homogeneity_conserves():
    """Frobenius norms of consecutive layers keep the difference of their squares along the flow (Du et al. 2018)."""
    risk = small_risk("linear", biases=False)
    end = jax.jit(lambda theta: flow.gradient_flow(risk, theta, 3.0, rtol=1e-10, atol=1e-12).theta)(risk.theta0)
    before, after = ([float(jnp.sum(w * w)) for w in theta.weights] for theta in (risk.theta0, end))
    assert float(risk(end)) < 0.9 * float(risk(risk.theta0))
    np.testing.assert_allclose(after[1] - after[0], before[1] - before[0], atol=1e-8)


def test_accuracy_on_the_data_and_elsewhere():
    model = FullyConnected((jnp.eye(3),))
    inputs = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [1.0, 1.0, 4.0], [9.0, 0.0, 0.0]])
    risk = NetworkRisk(model, inputs, np.array([0, 1, 1, 0]))
    assert float(risk.accuracy(risk.theta0)) == 0.75
    assert float(risk.accuracy(risk.theta0, inputs[:2], np.array([1, 1]))) == 0.5
    coded = NetworkRisk(model, inputs, np.eye(3)[[0, 1, 1, 0]], "mse")
    assert float(coded.accuracy(coded.theta0)) == 0.75
    assert risk.loss_floor == coded.loss_floor == 0.0


def test_descent_learns_the_digits():
    train, test = data.split(data.normalised(data.digits()), 300)
    risk = NetworkRisk(drawn(FullyConnected.xavier, (64, 10)), train.inputs, train.labels)
    step = jax.jit(lambda theta: shifted(theta, jax.grad(risk)(theta), -0.1))
    theta = risk.theta0
    for _ in range(60):
        theta = step(theta)
    assert float(risk.accuracy(theta)) > 0.9
    assert float(risk.accuracy(theta, test.inputs, test.labels)) > 0.85
    assert float(risk.accuracy(risk.theta0)) < 0.4


# Homogeneity


@pytest.mark.parametrize("activation", [pytest.param("linear", marks=pytest.mark.slow), "relu", "leaky_relu"])
def test_networks_without_biases_are_homogeneous(activation):
    """Exactly so for powers of two, of degree 1 in every layer, and with the slopes that the model says."""
    dense = drawn(FullyConnected.xavier, (4, 5, 6, 3), activation, slope=0.3)
    assert dense.degree == 3
    assert float(homogeneity_error(dense, jnp.array(SAMPLES))) == 0.0
    assert float(homogeneity_error(dense, jnp.array(SAMPLES), factor=0.3)) < 1e-14
    layer = eqx.tree_at(lambda model: model.weights[1], dense, 4 * dense.weights[1])
    x = jnp.array(SAMPLES[0])
    np.testing.assert_array_equal(layer(x), 4 * dense(x))
    up, down = dense.slopes
    single = FullyConnected((jnp.ones((1, 1)),) * 2, activation=activation, slope=0.3)
    assert [float(single(jnp.array([z]))[0]) for z in (2.0, -2.0)] == [2 * up, -2 * down]


def test_only_the_adapted_convolutional_network_is_homogeneous():
    full, bare = (drawn(kind, 8) for kind in (ConvolutionalNetwork.tutorial, ConvolutionalNetwork.adapted))
    images = jnp.array(RNG.normal(size=(2, 8, 8)))
    assert (full.degree, bare.degree) == (None, 5)
    error = eqx.filter_jit(lambda model: homogeneity_error(model, images, 5))
    assert float(error(bare)) == 0.0
    assert float(error(full)) > 1e-3
    assert SMOOTH.degree is None
    with pytest.raises(ValueError, match="no degree"):
        homogeneity_error(full, images)


# Initialisation


@pytest.mark.parametrize(
    ("shape", "fans"),
    [((100, 200), 300), pytest.param((40, 30, 5, 5), 70 * 25, marks=pytest.mark.slow)],
    ids=["matrix", "kernel"],
)
def test_xavier_weights_are_uniform_as_pytorch_draws_them(shape, fans):
    drawn = np.asarray(initialisation.xavier_uniform(KEY, shape)).ravel()
    reach = np.sqrt(6 / fans)
    assert drawn.max() <= reach
    assert drawn.min() >= -reach
    assert np.abs(drawn).max() > reach * (1 - 10 / drawn.size)
    assert abs(drawn.mean()) < 4 * reach / np.sqrt(3 * drawn.size)
    assert abs(drawn.var() * fans / 2 - 1) < 4 * np.sqrt(0.8 / drawn.size)  # a uniform square has variance 4/45
    assert stats.kstest(drawn, stats.uniform(-reach, 2 * reach).cdf, method="asymp").pvalue > 0.01


def test_biases_and_kernels_by_default_reach_one_over_the_root_of_their_inputs():
    shapes = [(400, 1, 5, 5), (400, 64)]

    @jax.jit
    def draw(key):
        default = initialisation.random_layers(key, shapes, biases=True, kernels="default")
        return default, initialisation.random_layers(key, shapes, scale=0.5)

    (weights, biases), (xavier, none) = draw(KEY)
    for drawn, reach in ((biases[0], 1 / 5), (biases[1], 1 / 8), (weights[0], 1 / 5), (weights[1], np.sqrt(6 / 464))):
        drawn = np.asarray(drawn).ravel()  # noqa: PLW2901
        assert stats.kstest(drawn, stats.uniform(-reach, 2 * reach).cdf, method="asymp").pvalue > 0.01
    assert none is None
    np.testing.assert_array_equal(xavier[1], weights[1] / 2)  # the same draw, halved
    reach = np.sqrt(6 / (401 * 25)) / 2
    assert (
        stats.kstest(np.asarray(xavier[0]).ravel(), stats.uniform(-reach, 2 * reach).cdf, method="asymp").pvalue > 0.01
    )


@pytest.mark.parametrize("unbalancedness", [0.0, pytest.param(1e-6, marks=pytest.mark.slow), 0.3])
def test_near_balanced_layers_are_as_far_from_balance_as_asked(unbalancedness):
    model = FullyConnected.balanced(KEY, (4, 5, 3), norm=0.1, unbalancedness=unbalancedness)
    weights = [np.asarray(weight) for weight in model.weights]
    magnitudes = [np.linalg.norm(b.T @ b - a @ a.T, "nuc") for a, b in pairwise(weights)]
    np.testing.assert_allclose(max(magnitudes), unbalancedness, rtol=1e-9, atol=1e-14)
    if unbalancedness < 0.1:
        np.testing.assert_allclose(np.linalg.norm(weights[1] @ weights[0]), 0.1, rtol=1e-3)
    assert model.widths == (4, 5, 3)


# Bad input


class Shape(eqx.Module):
    """A model without a single array."""

    side: int = 3

    def __call__(self, x):
        return x[: self.side]


GOOD = {"network": SMOOTH, "inputs": SAMPLES, "targets": LABELS}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": Shape()}, "without any"),
        ({"loss": "hinge"}, "cross_entropy, mse"),
        ({"reduction": "max"}, "mean, sum"),
        ({"targets": LABELS[:5]}, "as many targets"),
        ({"inputs": SAMPLES.T}, "samples are rows"),
        ({"inputs": np.where(SAMPLES > 1, np.nan, SAMPLES)}, "finite"),
        ({"inputs": SAMPLES[:, :3]}, "does not take one sample of shape"),
        ({"targets": LABELS + 1}, "labels from 0 to 2"),
        ({"targets": LABELS - 1}, "labels from 0 to 2"),
        ({"targets": LABELS * 1.0}, "integer labels"),
        ({"targets": LABELS, "loss": "mse"}, "expected shape"),
        ({"targets": VALUES * np.inf, "loss": "mse"}, "finite"),
        ({"network": drawn(FullyConnected.xavier, (4, 1))}, "at least 2 outputs"),
    ],
)
def test_bad_risks(change, message):
    with pytest.raises(ValueError, match=message):
        NetworkRisk(**(GOOD | change))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small_risk().model(small_risk("relu").theta0), "theta0"),
        (lambda: small_risk().residual(small_risk().theta0), "no point minimises"),
        (lambda: small_risk().accuracy(small_risk().theta0, SAMPLES), "as many labels"),
        (lambda: FullyConnected.xavier(KEY, (4,)), "two widths"),
        (lambda: drawn(FullyConnected.xavier, (4, 3), "gelu"), "leaky_relu"),
        (lambda: FullyConnected.xavier(KEY, (4, 3), scale=0.0), "positive"),
        (lambda: FullyConnected((jnp.ones((5, 4)), jnp.ones((3, 4)))), "fit one on the other"),
        (lambda: FullyConnected((jnp.ones((5, 4)),), (jnp.ones(4),)), "a bias for every output"),
        (lambda: FullyConnected.balanced(KEY, (4, 3), unbalancedness=0.1), "two layers"),
        (lambda: ConvolutionalNetwork.tutorial(KEY, 7), "at least 8"),
        (lambda: ConvolutionalNetwork.tutorial(KEY, 8, kernels="he"), "'xavier' or 'default'"),
        (lambda: drawn(ConvolutionalNetwork.xavier, 8, pooling="mean", biases=True), "max, subsample"),
        (lambda: ConvolutionalNetwork(drawn(FullyConnected.xavier, (4, 4, 4, 3)).weights), "two kernels"),
        (lambda: drawn(ConvolutionalNetwork.adapted, 28)(jnp.ones((8, 8))), "pad them more"),
    ],
)
def test_bad_models(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_accuracy_understands_integer_codes_and_refuses_labels_out_of_range():
    inputs, labels = jnp.eye(3), np.array([0, 1, 1])
    risk = NetworkRisk(eqx.nn.Linear(3, 3, use_bias=False, key=jax.random.key(0)), inputs, jnp.asarray(labels))
    theta = jax.tree.map(lambda leaf: jnp.eye(*leaf.shape), risk.theta0)
    assert float(risk.accuracy(theta)) == pytest.approx(2 / 3)
    assert float(risk.accuracy(theta, inputs, np.eye(3, dtype=int)[labels])) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        risk.accuracy(theta, inputs, np.array([0, 1, 7]))


def test_a_model_of_two_dtypes_is_refused():
    model = eqx.nn.Linear(3, 3, key=jax.random.key(0))
    model = eqx.tree_at(lambda layer: layer.bias, model, model.bias.astype(jnp.float32))
    with pytest.raises(ValueError, match="one dtype"):
        NetworkRisk(model, jnp.eye(3), jnp.array([0, 1, 2]))
