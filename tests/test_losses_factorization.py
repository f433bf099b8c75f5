"""Matrix recovery, phase retrieval and quadratic networks against closed forms, NumPy and the engine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import ensembles, minima, stability
from gdstab.losses import MatrixFactorisation, MatrixRecovery, PhaseRetrieval, QuadraticNetwork
from gdstab.losses.quadratic_networks import gaussian_design
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.stability import Kind
from gdstab.studies import building, options
from gdstab.updates import gradient_descent
from tests.conftest import assert_close

KEYS = jax.random.split(jax.random.key(6), 6)
TARGET = np.random.default_rng(1).normal(size=(4, 3))
SQUARE = np.array([[3.0, 1.0, 0.5], [1.0, 1.5, -0.2], [0.5, -0.2, -1.0]])  # two positive eigenvalues, one negative
TRUTH = np.array([1.0, 0.5, -0.4, 0.2, 0.1, 0.9])  # of two neurons with three inputs each
PROBLEMS = {  # one of each kind, planted where that is possible
    "wide": MatrixFactorisation(TARGET, 2, scale=0.7),
    "symmetric": MatrixFactorisation(SQUARE, 2, symmetric=True, scale=0.7),
    "wide-l1": MatrixFactorisation(TARGET, 3, norm="l1"),
    "dense": MatrixRecovery.random(KEYS[0], (3, 2), 9),
    "low-rank": MatrixRecovery.random(KEYS[1], (3, 2), 12, rank=1),
    "low-rank-symmetric": MatrixRecovery.random(KEYS[2], (3, 3), 14, rank=2, symmetric=True),
    "low-rank-l1": MatrixRecovery.random(KEYS[3], (3, 2), 12, rank=2, norm="l1"),
    "phase": PhaseRetrieval.random(KEYS[4], 3, 12),
    "phase-l1": PhaseRetrieval.random(KEYS[4], 3, 12, norm="l1"),
    "network": QuadraticNetwork.random(KEYS[5], 3, 14, neurons=2),
    "population": QuadraticNetwork.population(TRUTH, neurons=2, scale=0.7),
}
slow = pytest.mark.slow
every_problem = pytest.mark.parametrize("loss", PROBLEMS.values(), ids=PROBLEMS.keys())


def by_numpy(loss, theta):
    """The loss written a second time, matrix by matrix."""
    theta = np.asarray(theta)
    if isinstance(loss, QuadraticNetwork):
        found = [sum((w @ x) ** 2 for w in theta.reshape(loss.neurons, -1)) for x in np.asarray(loss.inputs)]
        misfit = np.array(found) - np.asarray(loss.values)
    else:
        shape = loss.target.shape if isinstance(loss, MatrixFactorisation) else loss.measurements.shape[1:]
        if loss.rank is None:
            matrix = theta.reshape(shape)
        else:
            u = theta[-shape[1] * loss.rank :].reshape(shape[1], loss.rank)
            v = u if loss.symmetric else theta[: shape[0] * loss.rank].reshape(shape[0], loss.rank)
            matrix = v @ u.T
        if isinstance(loss, MatrixFactorisation):
            misfit = matrix - np.asarray(loss.target)
        else:
            misfit = np.array([np.trace(a.T @ matrix) for a in np.asarray(loss.measurements)]) - np.asarray(loss.values)
    return float(loss.scale) * np.sum(misfit**2 if loss.norm == "l2" else np.abs(misfit))


@eqx.filter_jit
def examine(loss, theta):
    """Gradient, eigenvalues of the Hessian by autodiff, and kind; compiled once for each class and shape."""
    spectrum = jnp.linalg.eigvalsh(jax.hessian(loss)(theta))
    return jax.grad(loss)(theta), spectrum, stability.classify(loss, theta).kind


@every_problem
def test_value_and_gradient_against_numpy(loss, rng):
    theta, width = rng.normal(size=loss.dim), 1e-6
    value, gradient = jax.jit(jax.value_and_grad(loss))(theta)
    np.testing.assert_allclose(value, by_numpy(loss, theta), rtol=1e-12)
    steps = width * np.eye(loss.dim)
    differences = [(by_numpy(loss, theta + e) - by_numpy(loss, theta - e)) / (2 * width) for e in steps]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-7)


@every_problem
def test_lanes_on_a_trailing_axis(loss, rng):
    lanes = rng.normal(size=(loss.dim, 4))
    assert_close(eqx.filter_jit(loss.on_lanes)(lanes), [by_numpy(loss, lane) for lane in lanes.T])


SINGLE = {"wide-l1", "low-rank-symmetric", "phase", "population"}


@pytest.mark.parametrize(
    ("dtype", "loss"),
    [
        pytest.param(dtype, loss, marks=slow if dtype == "float32" and name not in SINGLE else (), id=f"{dtype}-{name}")
        for dtype in ("float32", "float64")
        for name, loss in PROBLEMS.items()
    ],
)
def test_dtype_follows_theta_and_the_minimum_is_one(loss, dtype):
    theta = loss.minimum(dtype)
    look = jax.jit(lambda at: (*jax.value_and_grad(loss)(at), loss.residual(at)))
    value, gradient, residual = look(theta)
    assert theta.dtype == value.dtype == gradient.dtype == residual.dtype == dtype
    assert_close(value, np.asarray(loss.loss_floor, dtype), factor=100 if loss.norm == "l1" else 10)
    if loss.norm == "l2":
        assert_close(gradient, np.zeros(loss.dim, dtype))
        assert_close(residual, np.zeros_like(residual))
    value, _, residual = look(np.asarray(theta) + 0.1 * np.sin(np.arange(1.0, loss.dim + 1)).astype(dtype))
    assert np.linalg.norm(residual) > 1e-3
    assert float(value) - float(loss.loss_floor) > 1e-5


@pytest.mark.parametrize(
    "name",
    ["symmetric", "network", *(pytest.param(x, marks=pytest.mark.slow) for x in ("wide", "population", "phase"))],
)
def test_the_minimum_is_a_minimum(name):
    loss = PROBLEMS[name]
    assert examine(loss, loss.minimum())[2] == Kind.MINIMUM


@pytest.mark.parametrize(
    ("loss", "chosen", "kind"),
    [
        (PROBLEMS["wide"], (0, 1), Kind.MINIMUM),
        (PROBLEMS["wide"], (0, 2), Kind.STRICT_SADDLE),
        pytest.param(PROBLEMS["wide"], (1,), Kind.STRICT_SADDLE, marks=pytest.mark.slow),
        (PROBLEMS["wide"], (), Kind.STRICT_SADDLE),
        pytest.param(
            MatrixFactorisation(TARGET.T, 5), (0, 2), Kind.STRICT_SADDLE, marks=pytest.mark.slow
        ),  # more columns than the rank of the target
        (PROBLEMS["symmetric"], (0, 1), Kind.MINIMUM),
        pytest.param(PROBLEMS["symmetric"], (1,), Kind.STRICT_SADDLE, marks=pytest.mark.slow),
        (PROBLEMS["symmetric"], (), Kind.STRICT_SADDLE),
        (PROBLEMS["population"], (0, 1), Kind.MINIMUM),
        pytest.param(PROBLEMS["population"], (0,), Kind.STRICT_SADDLE, marks=pytest.mark.slow),
        pytest.param(PROBLEMS["population"], (1, 2), Kind.STRICT_SADDLE, marks=pytest.mark.slow),
        (PROBLEMS["population"], (), Kind.STRICT_SADDLE),
        pytest.param(PhaseRetrieval.population([0.6, 0.8]), (0,), Kind.MINIMUM, marks=pytest.mark.slow),
        (PhaseRetrieval.population([0.6, 0.8]), (1,), Kind.STRICT_SADDLE),
    ],
)
def test_critical_points_have_the_hessian_of_the_closed_form(loss, chosen, kind):
    theta, spectrum = loss.critical_point(chosen), loss.critical_spectrum(chosen)
    gradient, expected, found = examine(loss, theta)
    assert_close(gradient, jnp.zeros(loss.dim))
    np.testing.assert_allclose(spectrum, expected, atol=1e-10)
    assert found == kind
    assert (float(spectrum[0]) < -1e-3) == (kind == Kind.STRICT_SADDLE)


def test_turned_factors_are_as_critical(rng):
    loss = PROBLEMS["wide"]
    theta, turn = loss.critical_point((0, 2)), rng.normal(size=(2, 2))
    v, u = np.split(np.asarray(theta), [8])
    turned = jnp.concatenate(
        [jnp.asarray((v.reshape(4, 2) @ turn).ravel()), jnp.asarray((u.reshape(3, 2) @ np.linalg.inv(turn).T).ravel())]
    )
    gradient, _, kind = examine(loss, turned)
    assert_close(gradient, jnp.zeros(loss.dim))
    assert kind == Kind.STRICT_SADDLE


@pytest.mark.parametrize(
    "name",
    [
        "low-rank",
        *(pytest.param(x, marks=slow) for x in ("low-rank-symmetric", "low-rank-l1", "phase")),
        "phase-l1",
        "network",
    ],
)
def test_the_origin_is_a_strict_saddle(name):
    loss = PROBLEMS[name]
    gradient, spectrum, kind = examine(loss, jnp.zeros(loss.dim))
    assert not gradient.any()
    np.testing.assert_allclose(loss.origin_spectrum(), spectrum, atol=1e-10)
    assert kind == Kind.STRICT_SADDLE


def test_floors_against_numpy(rng):
    lost = np.linalg.svd(TARGET, compute_uv=False)[2:]
    assert_close(PROBLEMS["wide"].loss_floor, 0.7 * np.sum(lost**2))
    negative = np.linalg.eigvalsh(SQUARE)[0]
    assert_close(PROBLEMS["symmetric"].loss_floor, 0.7 * negative**2)
    data, values = rng.normal(size=(9, 2, 2)), rng.normal(size=9)
    _, floor, *_ = np.linalg.lstsq(data.reshape(9, 4), values)
    noisy = MatrixRecovery(data, values, scale=2.0)
    assert_close(noisy.loss_floor, 2.0 * floor[0])


@pytest.mark.parametrize(
    "features", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(5, marks=pytest.mark.slow)]
)
def test_population_is_the_expectation_over_normal_inputs(features, rng):
    truth, theta = rng.normal(size=(2, features)), rng.normal(size=(2, features))
    loss = QuadraticNetwork.population(truth.ravel(), neurons=2, scale=1.0)
    apart = theta.T @ theta - truth.T @ truth
    assert_close(loss(jnp.asarray(theta.ravel())), 2 * np.sum(apart**2) + np.trace(apart) ** 2)
    x, z = theta[0], truth[0]
    expected = 3 * (x @ x) ** 2 + 3 * (z @ z) ** 2 - 2 * (x @ x) * (z @ z) - 4 * (x @ z) ** 2
    assert_close(PhaseRetrieval.population(z, scale=1.0)(jnp.asarray(x)), expected)


def test_design_against_gauss_hermite():
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    weight = np.prod(np.stack(np.meshgrid(weights, weights, weights, indexing="ij"), -1).reshape(-1, 3), axis=1)
    expected = np.einsum("m,mi,mj,mk,ml->ijkl", weight / weight.sum(), grid, grid, grid, grid)
    design = np.asarray(gaussian_design(3))
    assert_close(np.einsum("mi,mj,mk,ml->ijkl", design, design, design, design), expected)


@pytest.mark.parametrize("at_zero", [-1.0, 0.0, 0.25])
def test_subgradient_convention_at_kinks(at_zero):
    """At the truth every residual is 0: the slope of each |r_i| is the one asked for."""
    loss = PhaseRetrieval.planted(np.eye(2), [1.0, -2.0], norm="l1", scale=3.0, at_zero=at_zero)
    at_kink, spectrum, _ = examine(loss, jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(at_kink, 3 * at_zero * np.array([2.0, -4.0]))
    np.testing.assert_allclose(spectrum, np.full(2, 6 * at_zero), atol=1e-12)  # that of 3 at_zero (x_1^2 + x_2^2)
    beside, _, _ = examine(loss, jnp.array([1.1, -1.9]))
    np.testing.assert_allclose(beside, 3 * np.array([2.2, 3.8]))


def test_network_of_one_neuron_is_phase_retrieval():
    phase, theta = PROBLEMS["phase"], jnp.array([0.3, -1.0, 0.2])
    network = QuadraticNetwork(phase.inputs, phase.values, 1, scale=phase.scale)
    assert float(network(theta)) == float(phase(theta)) == float(phase(-theta))


def test_descent_is_stable_up_to_the_sharpness_of_the_minimum():
    """24 c |z|^2 at the minima of the population loss of phase retrieval, so that 1 / 6 is critical for c = 1/2."""
    loss = PhaseRetrieval.population([0.6, 0.8])
    starts = loss.minimum()[None, :] + 1e-3 * jax.random.normal(KEYS[0], (8, 2))
    stopping = StoppingRule(max_steps=400, loss_tol=1e-20)
    outcome = ensembles.run(gradient_descent(), loss, starts, np.array([0.16, 0.172]), stopping).outcome
    assert (outcome[0] == Outcome.CONVERGED).all()
    assert (outcome[1] != Outcome.CONVERGED).all()


@pytest.mark.parametrize("name", ["wide", pytest.param("population", marks=pytest.mark.slow)])
def test_descent_from_random_starts_reaches_the_floor(name):
    """No spurious minima here: every start gets past the saddles, to the floor (Ge, Jin and Zheng 2017)."""
    loss = PROBLEMS[name]
    starts = 0.5 * jax.random.normal(KEYS[1], (8, loss.dim))
    found = ensembles.run(gradient_descent(), loss, starts, 0.02, StoppingRule(max_steps=20_000, loss_tol=1e-10))
    assert (found.outcome == Outcome.CONVERGED).all()
    np.testing.assert_allclose(found.loss, float(loss.loss_floor), atol=2e-10)


def test_starts_on_the_stable_manifold_stay_with_the_saddle():
    """Orthogonal to the truth of phase retrieval descent ends at the strict saddle; a push off it does not."""
    loss = PhaseRetrieval.population([1.0, 0.0])
    starts = jnp.array([[0.0, 0.3], [1e-3, 0.3]])
    stopping = StoppingRule(max_steps=50, loss_tol=1e-20)  # rounding grows by 1.4 a step: later the saddle is left
    found = ensembles.run(gradient_descent(), loss, starts, 0.1, stopping)
    np.testing.assert_allclose(np.abs(found.theta), [[0.0, 3**-0.5], [1.0, 0.0]], atol=1e-5)


@pytest.mark.slow
def test_studies_sample_the_minima():
    asked = options.Factorisation(diagonal=(3.0, 2.0, 1.0), rank=2)
    points = jnp.asarray(building.sample_minima(asked, 4, 0.3, 0, np.dtype(float)))
    loss, _ = building.build_loss(asked)
    assert_close(jnp.stack([loss(point) for point in points]), np.full(4, 0.5))  # 1 is missed
    assert minima.dimension(loss, points[0]) == 4  # the orbit of GL(2)


def test_sweeping_arrays_compiles_once():
    traces = 0

    @eqx.filter_jit
    def value(arrays, static, theta):
        nonlocal traces
        traces += 1
        return eqx.combine(arrays, static)(theta)

    values = []
    for size in (1.0, 2.0, 3.0):
        loss = PhaseRetrieval.planted(size * np.eye(2), [1.0, 0.0], scale=size, norm="l1", at_zero=0.1 * size)
        arrays, static = eqx.partition(loss, eqx.is_inexact_array_like)
        values.append(float(value(jax.tree.map(jnp.asarray, arrays), static, jnp.zeros(2))))
    np.testing.assert_allclose(values, [1.0, 8.0, 27.0])
    assert traces == 1


@pytest.mark.parametrize(
    ("asked", "dim"),
    [
        (options.Factorisation(diagonal=(3.0, 2.0, 1.0), rank=2), 12),
        (options.Factorisation(symmetric=True), 2),
        (options.Recovery(), 4),
        (options.Recovery(rank=0, shape=(3, 2)), 6),
        (options.Recovery(symmetric=True, rank=2, norm="l1"), 4),
        (options.Phase(dim=3), 3),
        (options.Phase(num=5, norm="l1"), 2),
        (options.Quadnet(features=3, neurons=2), 6),
    ],
)
def test_options_build_planted_problems(asked, dim):
    loss, found = building.build_loss(asked)
    assert found == loss.dim == dim
    assert_close(loss(loss.minimum()), np.asarray(loss.loss_floor, float))
    assert float(loss(jnp.zeros(dim)) - loss.loss_floor) > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MatrixFactorisation(TARGET, 0), "rank"),
        (lambda: MatrixFactorisation(TARGET[0], 1), "expected a matrix"),
        (lambda: MatrixFactorisation(TARGET * np.nan, 1), "finite"),
        (lambda: MatrixFactorisation(TARGET, 1, symmetric=True), "symmetric"),
        (lambda: MatrixFactorisation(TARGET, 1, scale=-1.0), "scale"),
        (lambda: MatrixFactorisation(TARGET, 1, norm="l3"), "'l2' or 'l1'"),
        (lambda: MatrixFactorisation(TARGET, 1, norm="l1", at_zero=1.5), "from -1 to 1"),
        (lambda: PROBLEMS["wide"](jnp.ones(3)), "shape"),
        (lambda: PROBLEMS["wide"].critical_point((0, 0)), "distinct"),
        (lambda: PROBLEMS["wide"].critical_point((0, 1, 2)), "at most 2"),
        (lambda: PROBLEMS["wide"].critical_point((3,)), "from 0 to 2"),
        (lambda: PROBLEMS["symmetric"].critical_point((2,)), "above 0"),
        (lambda: PROBLEMS["wide-l1"].critical_spectrum(()), "l2"),
        (lambda: MatrixRecovery(np.ones((3, 2)), np.ones(3)), "3 axes"),
        (lambda: MatrixRecovery(np.ones((3, 2, 2)), np.ones(2)), "values"),
        (lambda: MatrixRecovery(np.ones((3, 2, 2)), np.ones(3), symmetric=True), "rank"),
        (lambda: MatrixRecovery(np.ones((3, 2, 2)), np.ones(3), rank=1).minimum(), "planted"),
        (lambda: MatrixRecovery(np.ones((3, 2, 2)), np.ones(3), truth=np.ones(3)), "truth"),
        (PROBLEMS["dense"].origin_spectrum, "dense"),
        (lambda: PhaseRetrieval(np.eye(2), [0.0, 1.0], norm="l1").origin_spectrum(), "kink"),
        (lambda: PhaseRetrieval(np.eye(2), np.ones(2), neurons=2), "QuadraticNetwork"),
        (lambda: PROBLEMS["phase"].critical_point((0,)), "fourth moments"),
        (lambda: PROBLEMS["phase-l1"].critical_point((0,)), "l2"),
        (lambda: QuadraticNetwork.population(np.ones(3), neurons=2), "2 rows"),
        (lambda: gaussian_design(13), "at most 12"),
        (lambda: building.build_loss(options.Phase(norm="l1")), "--loss.num"),
        (lambda: building.build_loss(options.Recovery(num=0)), "--loss.num"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
