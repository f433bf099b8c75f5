"""Shallow ReLU networks: every family of critical points, by quadrature, by perturbation, and by its predicted loss."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import root

from gdstab.losses import ShallowReLU
from gdstab.theory import relu
from gdstab.theory.relu import CriticalType, NeuronType

PROBLEMS = [
    {"interval": (0.0, 1.0), "target": (0.0, 1.0)},
    {"interval": (-2.0, 1.5), "target": (3.0, -0.7)},
]
FAMILIES = {  # pattern: what it must be
    ("inactive", "inactive"): CriticalType.LOCAL_MINIMUM,
    ("semi-inactive-",): CriticalType.LOCAL_MINIMUM,
    ("semi-inactive-", "inactive", "semi-inactive-"): CriticalType.LOCAL_MINIMUM,
    ("semi-inactive+", "semi-inactive-"): CriticalType.SADDLE_A,
    ("semi-inactive0", "inactive"): CriticalType.SADDLE_A,
    ("semi-active",): CriticalType.SADDLE_A,
    ("semi-active", "semi-inactive+", "semi-inactive0", "inactive"): CriticalType.SADDLE_A,
    (1, 2): CriticalType.SADDLE_B,
    (2, 1, 2, "semi-inactive+"): CriticalType.SADDLE_B,
    (1, 1, 2, "inactive", "semi-active"): CriticalType.SADDLE_B,
    (1, 2, 3, 4): CriticalType.SADDLE_B,
    (6, 5, 4, 3, 2, 1, "semi-inactive-", 3): CriticalType.SADDLE_B,
    ("degenerate", "inactive"): CriticalType.SADDLE_DEGENERATE,
    (1, 2, "degenerate"): CriticalType.SADDLE_DEGENERATE,
}
STRICT = [  # the saddles of the set S: Lemma 4.6
    pattern
    for pattern, kind in FAMILIES.items()
    if kind == CriticalType.SADDLE_B
    or (kind == CriticalType.SADDLE_A and {"semi-active", "semi-inactive+"} & set(pattern))
]


def name(pattern):
    return ",".join(map(str, pattern)) if isinstance(pattern, tuple) else None


def number(pattern):
    return max((role for role in pattern if isinstance(role, int)), default=0)


def size_of(theta):
    return (theta.size - 1) // 3


def activation(z, leak=0.0):
    return max(z, leak * z)


def by_quadrature(theta, problem, leak=0.0, which=None):
    """Risk and its partial derivatives by adaptive quadrature, or the `which` derivative alone; no code shared."""
    N, (alpha, beta) = size_of(theta), problem["interval"]
    w, b, v, c = theta[:N], theta[N : 2 * N], theta[2 * N : 3 * N], theta[-1]
    points = sorted({float(-bj / wj) for wj, bj in zip(w, b, strict=True) if wj and alpha < -bj / wj < beta})

    def residual(x):
        network = c + sum(vj * activation(wj * x + bj, leak) for wj, bj, vj in zip(w, b, v, strict=True))
        return network - sum(a * x**k for k, a in enumerate(problem["target"]))

    def slope(j, x):
        z = w[j] * x + b[j]
        return 0.0 if w[j] == b[j] == 0 else (1.0 if z > 0 else leak)

    def integrate(function):
        return quad(function, alpha, beta, points=points or None, epsabs=1e-13, epsrel=1e-12)[0]

    parts = (
        [lambda x, j=j: 2 * v[j] * slope(j, x) * x * residual(x) for j in range(N)]
        + [lambda x, j=j: 2 * v[j] * slope(j, x) * residual(x) for j in range(N)]
        + [lambda x, j=j: 2 * activation(w[j] * x + b[j], leak) * residual(x) for j in range(N)]
        + [lambda x: 2 * residual(x)]
    )
    return integrate(lambda x: residual(x) ** 2), np.array([integrate(part) for part in parts])


def numpy_risk(thetas, problem):
    """Risk of many networks by the midpoint rule would be too rough: Simpson between all breakpoints, in a loop."""
    alpha, beta = problem["interval"]
    out = []
    for theta in np.atleast_2d(thetas):
        N = size_of(theta)
        w, b = theta[:N], theta[N : 2 * N]
        t = np.sort([alpha, beta, *np.clip(-b[w != 0] / w[w != 0], alpha, beta)])
        x = np.stack([t[:-1], (t[1:] + t[:-1]) / 2, t[1:]])
        network = theta[-1] + np.sum(theta[2 * N : 3 * N] * np.maximum(w * x[..., None] + b, 0), axis=-1)
        square = (network - np.polynomial.polynomial.polyval(x, problem["target"])) ** 2
        out.append(np.sum(np.diff(t) / 6 * (square[0] + 4 * square[1] + square[2])))
    return np.array(out)


#
# Risk and derivatives
#


@pytest.mark.parametrize("leak", [0.0, 0.3])
@pytest.mark.parametrize("problem", [*PROBLEMS, {"interval": (-1.0, 2.0), "target": (0.5, -1.0, 0.3, 2.0)}])
def test_risk_and_gradient_are_those_of_quadrature(rng, problem, leak):
    thetas = rng.normal(size=(3, 10))
    thetas[0, 0], thetas[0, 3] = 0.0, 0.7  # semi-active
    thetas[1, 1] = thetas[1, 4] = 0.0  # degenerate
    thetas[2, :3], thetas[2, 3:6] = 1.0, -0.25  # one breakpoint for all
    for theta in thetas:
        loss, slope = by_quadrature(theta, problem, leak)
        np.testing.assert_allclose(relu.risk(theta, **problem, leak=leak), loss, rtol=1e-11)
        np.testing.assert_allclose(relu.gradient(theta, **problem, leak=leak), slope, rtol=1e-9, atol=1e-10)
    batched = relu.gradient(thetas.reshape(3, 1, 10), **problem, leak=leak)
    np.testing.assert_array_equal(batched[:, 0], [relu.gradient(theta, **problem, leak=leak) for theta in thetas])


@pytest.mark.slow
def test_the_loss_that_is_descended_agrees(rng, key):
    """Its closed form, by JAX, against Gauss and Legendre's rule here."""
    problem = PROBLEMS[1]
    loss = jax.jit(jax.value_and_grad(ShallowReLU(4, **problem)))
    critical = [relu.critical_point(pattern, **problem, key=key) for pattern in FAMILIES if len(pattern) == 4]
    assert len(critical) == 3
    for theta in [*rng.normal(size=(5, 13)), *critical]:
        value, slope = loss(jnp.asarray(theta))
        np.testing.assert_allclose(relu.risk(theta, **problem), value, rtol=1e-12)
        np.testing.assert_allclose(relu.gradient(theta, **problem), slope, atol=1e-12 * (1 + np.abs(theta).max()) ** 3)


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_the_hessian_differentiates_the_gradient(rng, leak):
    problem = {"interval": (-1.0, 2.0), "target": (0.5, -1.0, 0.3)}
    theta, step = rng.normal(size=13), 1e-6
    assert NeuronType.TYPE_2 in relu.neuron_types(theta, interval=problem["interval"])
    shifts = step * np.eye(13)
    rise = relu.gradient(theta + shifts, **problem, leak=leak) - relu.gradient(theta - shifts, **problem, leak=leak)
    hessian = relu.modified_hessian(theta, **problem, leak=leak)
    np.testing.assert_allclose(hessian, rise / (2 * step), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-13)


@pytest.mark.parametrize("w", [1.3, -0.8])
def test_at_a_semi_inactive_neuron_the_hessian_is_one_sided(w):
    """The waking side: a forward difference where the neuron wakes up."""
    problem = PROBLEMS[1]
    end = problem["interval"][w > 0]
    theta = np.array([w, -w * end, 0.9, 1.7])
    hessian, step = relu.modified_hessian(theta, **problem), 1e-7
    shift = step * np.array([np.sign(end), 1.0, 0.0, 0.0])  # raises w x + b at the end
    rise = relu.gradient(theta + shift, **problem) - relu.gradient(theta, **problem)
    np.testing.assert_allclose(hessian @ shift, rise, rtol=1e-5, atol=1e-12)


def test_lemma_4_6_gives_the_entries_at_plateau_saddles():
    for problem in PROBLEMS:
        slope, length = problem["target"][1], np.diff(problem["interval"])[0]
        theta = relu.critical_point(("semi-active",), **problem)
        block = relu.modified_hessian(theta, **problem)[np.ix_([0, 2], [0, 2])]
        np.testing.assert_allclose(np.linalg.det(block), -(slope**2) * length**6 / 36, rtol=1e-12)
        theta = relu.critical_point(("semi-inactive+",), **problem, key=jax.random.key(1))
        expected = -slope * theta[2] / theta[0] * length
        np.testing.assert_allclose(relu.modified_hessian(theta, **problem)[1, 1], expected, rtol=1e-12)


#
# Types of neurons
#


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neuron_types_are_those_of_the_definition(rng, dtype):
    """Against the definition itself, the set I_j counted on a fine grid; drawn so that every case occurs."""
    alpha, beta = -2.0, 1.5
    w = rng.choice([-1.0, 0.0, 2.0], size=400)
    b = np.where(rng.random(400) < 0.5, -w * rng.choice([alpha, beta], size=400), rng.integers(-6, 7, size=400) / 2)
    scale = 2.0 ** rng.integers(-3, 4, size=400)
    types = relu.neuron_types((*(np.asarray(a * scale, dtype) for a in (w, b)), np.ones(400, dtype), dtype(0.0)),
                              interval=(alpha, beta))  # fmt: skip
    inside = w[:, None] * np.linspace(alpha, beta, 701) + b[:, None] >= 0
    count = inside.sum(1)
    active = (w != 0) & (b + np.maximum(w * alpha, w * beta) > 0)
    expected = {
        NeuronType.DEGENERATE: (w == 0) & (b == 0),
        NeuronType.INACTIVE: count == 0,
        NeuronType.SEMI_INACTIVE: (count == 1) & (w != 0),
        NeuronType.SEMI_ACTIVE: (w == 0) & (b > 0),
        NeuronType.TYPE_1: active & inside.all(1),
        NeuronType.TYPE_2: active & ~inside.all(1),
    }
    for kind, holds in expected.items():
        assert holds.any()
        np.testing.assert_array_equal(types == kind, holds)


def test_tolerances_depend_on_the_breakpoint_and_not_on_the_size():
    for size in (1e-2, 1.0, 1e3):
        near = (size, -size * (1 - 1e-6), 1.0, 0.0)
        assert relu.neuron_types(near) == NeuronType.TYPE_2
        assert relu.neuron_types(near, tol=1e-5) == NeuronType.SEMI_INACTIVE
        assert relu.neuron_types((size * 1e-6, size, 1.0, 0.0), tol=1e-5) == NeuronType.SEMI_ACTIVE
    assert relu.neuron_types(np.array([1.0, -1 + 1e-6, 1.0, 0.0], np.float32)) == NeuronType.SEMI_INACTIVE
    assert relu.is_flat((1.0, 1.0, 1e-12, 0.0))
    assert not relu.is_flat((1.0, 1.0, 1e-12, 0.0), tol=0.0)
    np.testing.assert_array_equal(relu.breakpoints(([2.0, 0.0], [-1.0, 1.0], [1.0, 1.0], 0.0)), [0.5, np.nan])


#
# Families of critical points
#


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("pattern", FAMILIES, ids=name)
def test_every_family_is_critical_at_its_level_and_of_its_type(pattern, problem, keyed, key):
    theta = relu.critical_point(pattern, **problem, key=key if keyed else None)
    n, (alpha, beta) = number(pattern), problem["interval"]
    predicted = problem["target"][1] ** 2 * (beta - alpha) ** 3 / (12 * (n + 1) ** 4)
    loss, slope = by_quadrature(theta, problem)
    np.testing.assert_allclose(loss, predicted, rtol=1e-9)
    np.testing.assert_allclose(slope, 0, atol=1e-11 * (1 + np.abs(theta).max()) ** 2)
    np.testing.assert_allclose(relu.risk(theta, **problem), predicted, rtol=1e-12)
    x = np.linspace(alpha, beta, 101)
    np.testing.assert_allclose(relu.realise(theta, x), relu.realisation_at_level(n, x, **problem), atol=1e-12)
    for given, tol in ((theta, 1e-11), (theta, None), (jnp.asarray(theta, jnp.float32), None)):
        assert relu.is_critical(given, **problem, tol=tol)
        assert relu.classify(given, **problem, tol=tol) == FAMILIES[pattern]
    assert relu.match_levels(loss, size_of(theta), **problem) == n
    roles = relu.neuron_types(theta, interval=problem["interval"])
    for role, kind in zip(pattern, roles, strict=True):
        wanted = "TYPE_2" if isinstance(role, int) else role.rstrip("+-0").upper().replace("-", "_")
        assert NeuronType(kind).name == wanted


@pytest.mark.parametrize("pattern", [p for p, kind in FAMILIES.items() if kind == CriticalType.LOCAL_MINIMUM], ids=name)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_local_minima_stand_up_to_perturbation(pattern, problem, key, rng):
    theta = relu.critical_point(pattern, **problem, key=key)
    loss = relu.level(0, **problem)
    for radius in (1e-2, 1e-4):
        moved = theta + radius * rng.normal(size=(100, theta.size)) / np.sqrt(theta.size)
        values = numpy_risk(moved, problem)
        assert values.min() >= loss * (1 - 1e-12)
        assert values.max() > loss


@pytest.mark.parametrize("pattern", STRICT, ids=name)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_strict_saddles_fall_along_their_direction_and_rise_along_others(pattern, problem, key, rng):
    theta = relu.critical_point(pattern, **problem, key=key)
    loss = relu.level(number(pattern), **problem)
    value, direction = relu.escape_direction(theta, **problem)
    step = 1e-4
    assert value < 0
    fall = numpy_risk(theta + step * direction, problem) - loss
    np.testing.assert_allclose(fall, 0.5 * value * step**2, rtol=5e-2)
    up = theta + step * np.eye(theta.size)[-1]
    assert numpy_risk(up, problem) > loss


def test_equal_semi_inactive_neurons_do_not_hide_the_fall():
    """Their eigenvalue is repeated, and an eigenvector that wakes one and sends one deeper to sleep would mislead."""
    theta = relu.critical_point(("semi-inactive+", "semi-inactive+", "semi-inactive0"), **PROBLEMS[1])
    value, direction = relu.escape_direction(theta, **PROBLEMS[1])
    np.testing.assert_allclose(value, np.linalg.eigvalsh(relu.modified_hessian(theta, **PROBLEMS[1]))[0])
    fall = numpy_risk(theta + 1e-4 * direction, PROBLEMS[1]) - relu.level(0, **PROBLEMS[1])
    np.testing.assert_allclose(fall, 0.5e-8 * value, rtol=1e-2)


def test_critical_points_of_other_polynomials_are_seen():
    """The best constant is critical for every target; a constant target is met exactly."""
    inactive = [1.0, -3.0, 2.0]
    for target, mean in (((1.0, 0.0, 3.0), 2.0), ((0.5,), 0.5), ((0.0, 0.0, 0.0, 4.0), 1.0)):
        assert relu.is_critical([*inactive, mean], target=target)
        assert not relu.is_critical([*inactive, mean + 1e-3], target=target)
    assert not relu.is_critical([1.0, -0.5, 2.0, 2.0], target=(1.0, 0.0, 3.0))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_saddles_that_are_not_strict_fall_at_third_order(problem):
    slope, step = problem["target"][1], 1e-3
    alpha, beta = problem["interval"]
    for side in (1.0, -1.0):
        end = beta if side > 0 else alpha
        flat_semi = np.array([side, -side * end, 0.0, problem["target"][0] + slope * (alpha + beta) / 2])
        assert relu.classify(flat_semi, **problem) == CriticalType.SADDLE_A
        assert np.linalg.eigvalsh(relu.modified_hessian(flat_semi, **problem)).min() >= 0
        moved = flat_semi + step * np.array([0.0, 1.0, side * np.sign(slope), 0.0])
        fall = numpy_risk(moved, problem) - relu.level(0, **problem)
        np.testing.assert_allclose(fall, -abs(slope) * (beta - alpha) / 2 * step**3, rtol=1e-2)


@pytest.mark.parametrize("pattern", [p for p in FAMILIES if "degenerate" in p], ids=name)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_flat_degenerate_neurons_make_saddles_and_others_are_pinned(pattern, problem, key):
    theta = relu.critical_point(pattern, **problem, key=key)
    N, j = size_of(theta), pattern.index("degenerate")
    loss, step = relu.level(number(pattern), **problem), 1e-3
    values = []
    for w, v in itertools.product((step, -step), repeat=2):
        moved = theta.copy()
        moved[j], moved[2 * N + j] = w, v
        moved[N + j] = -w * np.mean(problem["interval"])
        values.append(float(numpy_risk(moved, problem)[0]))
    assert min(values) < loss < max(values)
    pinned = theta.copy()
    pinned[2 * N + j] = 0.5
    np.testing.assert_allclose(relu.gradient(pinned, **problem), 0, atol=1e-12)
    assert not relu.is_critical(pinned, **problem)
    assert relu.classify(pinned, **problem) == CriticalType.NOT_DIFFERENTIABLE


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(("neurons", "pairs"), [(1, 0), (2, 1), (3, 1), (4, 0), (6, 2)])
def test_global_minima(neurons, pairs, problem, key):
    theta = relu.global_minimum(neurons, pairs=pairs, **problem, key=key)
    loss, slope = by_quadrature(theta, problem)
    scale = 1 + np.abs(theta).max() ** 2
    assert loss <= 1e-24 * scale**2
    np.testing.assert_allclose(slope, 0, atol=1e-11 * scale)
    assert relu.classify(theta, **problem) == CriticalType.GLOBAL_MINIMUM
    assert relu.match_levels(loss, neurons, **problem) == relu.ZERO_LEVEL
    types = relu.neuron_types(theta, interval=problem["interval"])
    assert np.sum(types == NeuronType.TYPE_2) == 2 * pairs
    N = neurons
    degenerate = relu.join_parameters(*(np.append(part, extra) for part, extra in (
        (theta[:N], 0.0), (theta[N : 2 * N], 0.0), (theta[2 * N : -1], 0.7))), theta[-1])  # fmt: skip
    assert relu.is_critical(degenerate, **problem)  # differentiable, as the residual vanishes


def test_almost_critical_points_are_told_apart(key):
    problem = PROBLEMS[0]
    theta = relu.critical_point((1, 2), **problem, key=key)
    shift = np.zeros(7)
    shift[4] = 1e-5
    assert relu.classify(theta + shift, **problem) == CriticalType.NOT_CRITICAL
    assert relu.classify(theta + shift, **problem, tol=1e-3) == CriticalType.SADDLE_B
    lanes = np.stack([theta, theta + shift, relu.global_minimum(2), relu.critical_point(("inactive",) * 2)])
    kinds = ["SADDLE_B", "NOT_CRITICAL", "GLOBAL_MINIMUM", "LOCAL_MINIMUM"]
    found = relu.classify(lanes.reshape(2, 2, 7), **problem)
    assert found.shape == (2, 2)
    assert [CriticalType(kind).name for kind in found.ravel()] == kinds


def test_random_points_are_not_critical_and_lanes_beyond_one_batch_agree(rng):
    lanes = rng.normal(size=(9000, 4))
    assert not relu.is_critical(lanes[:50] + np.array([[0, 5, 0, 0]])).any()
    np.testing.assert_array_equal(relu.risk(lanes)[8990:], relu.risk(lanes[8990:]))


#
# Levels and thresholds
#


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_threshold_leaves_only_strict_levels(problem):
    """Theorem 1.2: below it, a critical point uses all N neurons (N even) or there is none (N odd)."""
    (alpha, beta), slope = problem["interval"], problem["target"][1]
    for neurons in range(1, 9):
        ladder = relu.levels(neurons, **problem)
        below = [n for n, loss in ladder.items() if loss < relu.threshold(neurons, **problem)]
        assert below == ([neurons] if neurons % 2 == 0 else [])
        if neurons % 2 == 0:
            printed = slope**2 * (beta - alpha) ** 3 / (12 * (neurons - 1) ** 4)
            np.testing.assert_allclose(relu.threshold(neurons, **problem), printed)
        assert list(relu.match_levels(list(ladder.values()), neurons, **problem)) == list(ladder)
    best_constant = relu.risk((0.0, -1.0, 0.0, problem["target"][0] + slope * (alpha + beta) / 2), **problem)
    np.testing.assert_allclose(relu.level(0, **problem), best_constant)
    assert (
        list(relu.match_levels([np.nan, np.inf, 0.5 * relu.level(0, **problem)], 3, **problem)) == [relu.NO_LEVEL] * 3
    )


@pytest.mark.parametrize("n", [0, 2, 4, 6])
def test_the_zigzag_has_the_loss_of_its_level(n):
    problem = PROBLEMS[1]
    (alpha, beta), (offset, slope) = problem["interval"], problem["target"]
    loss = quad(
        lambda x: float(relu.realisation_at_level(n, x, **problem) - offset - slope * x) ** 2,
        alpha,
        beta,
        points=np.linspace(alpha, beta, n + 2)[1:-1] if n else None,
    )[0]
    np.testing.assert_allclose(loss, relu.level(n, **problem), rtol=1e-9)


#
# Leaky networks and invariants
#


def test_the_leaky_network_is_a_relu_network_of_twice_the_width(rng):
    theta, leak, problem = rng.normal(size=10), 0.3, PROBLEMS[1]
    doubled, x = relu.leaky_reduction(theta, leak), np.linspace(-2, 1.5, 31)
    w, b, v, c = theta[:3], theta[3:6], theta[6:9], theta[9]
    direct = c + np.sum(v * np.where((z := w * x[:, None] + b) > 0, z, leak * z), axis=1)
    np.testing.assert_allclose(relu.realise(doubled, x), direct, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(relu.realise(theta, x, leak=leak), direct, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(relu.risk(doubled, **problem), relu.risk(theta, **problem, leak=leak), rtol=1e-12)
    jacobian = np.stack([relu.leaky_reduction(row, leak) for row in np.eye(10)])  # P is linear
    pulled = jacobian @ relu.gradient(doubled, **problem)
    np.testing.assert_allclose(pulled, relu.gradient(theta, **problem, leak=leak), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_leaks_leave_no_local_minima(problem, key):
    minimum = relu.critical_point(("inactive", "semi-inactive-"), **problem, key=key)
    assert relu.classify(minimum, **problem, leak=0.1) == CriticalType.NOT_CRITICAL
    for sign in (1.0, -1.0):  # flat, w = 0: section 5, with tau = 1 - sign(b)
        offset, slope = problem["target"]
        theta = np.array([0.0, sign, 0.0, offset + slope * np.mean(problem["interval"])])
        assert relu.is_critical(theta, **problem, leak=0.1)
        assert relu.classify(theta, **problem, leak=0.1) == CriticalType.SADDLE_A
        block = relu.modified_hessian(theta, **problem, leak=0.1)[np.ix_([0, 2], [0, 2])]
        length = np.diff(problem["interval"])[0]
        np.testing.assert_allclose(np.linalg.det(block), -(0.1 ** (1 - sign)) * slope**2 * length**6 / 36, rtol=1e-12)


def test_a_leaky_saddle_with_breakpoints_is_strict_and_on_no_relu_level():
    """Found by root finding: the levels of Proposition 4.5 are those of ReLU, and a leak moves them."""
    start, leak = np.array([5.1, -0.8, -1.7, 0.5, 0.1, -0.8, 0.5]), 0.1
    theta = root(lambda point: relu.gradient(point, leak=leak), start, tol=1e-13).x
    loss, slope = by_quadrature(theta, PROBLEMS[0], leak)
    np.testing.assert_allclose(slope, 0, atol=1e-11)
    assert relu.classify(theta, leak=leak) == CriticalType.SADDLE_B
    assert relu.match_levels(loss, 2) == relu.NO_LEVEL
    value, direction = relu.escape_direction(theta, leak=leak)
    assert value < 0
    for side in (1e-4, -1e-4):
        np.testing.assert_allclose(relu.risk(theta + side * direction, leak=leak) - loss, 0.5e-8 * value, rtol=5e-2)


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_invariants_drift_by_the_square_of_the_step(rng, leak):
    theta, problem = rng.normal(size=(5, 13)), {"interval": (-1.0, 2.0), "target": (0.5, -1.0, 0.3)}
    G = relu.gradient(theta, **problem, leak=leak)
    w, b, v, _ = relu.split_parameters(theta)
    G_w, G_b, G_v, _ = relu.split_parameters(G)
    assert np.abs(G_v).max() > 0.1
    np.testing.assert_allclose(w * G_w + b * G_b, v * G_v, atol=1e-12 * np.abs(G).max())
    for step in (1e-3, 0.1):
        drift = relu.invariants(theta - step * G) - relu.invariants(theta)
        np.testing.assert_allclose(drift, relu.invariants_step(G, step), atol=1e-13 * (1 + np.abs(G).max() ** 2))


#
# Bad input
#


def test_bad_input_is_refused():
    theta = relu.critical_point((1, 2))
    for call, message in [
        (lambda: relu.risk(theta, interval=(1.0, 1.0)), "low < high"),
        (lambda: relu.risk(theta, target=lambda x: x), "polynomial"),
        (lambda: relu.risk(theta, target=[[1.0]]), "coefficients"),
        (lambda: relu.risk(theta, leak=1.0), r"leak in \[0, 1\)"),
        (lambda: relu.risk(theta[:5]), "3N \\+ 1"),
        (lambda: relu.risk(theta[:1]), "at least one neuron"),
        (lambda: relu.risk(theta * np.nan), "finite parameters, got 7"),
        (lambda: relu.risk((theta[:2], theta[2:3], theta[4:6], theta[6])), "one weight, bias"),
        (lambda: relu.classify(theta, target=(1.0, 2.0, 3.0)), "degree 2: the classification"),
        (lambda: relu.classify(theta, target=(1.0, 0.0)), "global minima"),
        (lambda: relu.neuron_types(theta, tol=-1.0), "tolerance"),
        (lambda: relu.level(3), "even"),
        (lambda: relu.match_levels([1.0], 2, rtol=2.0), "rtol"),
        (lambda: relu.levels(0), "at least 1"),
        (lambda: relu.realisation_at_level(2, [1.5]), "outside"),
        (lambda: relu.critical_point((1, 3)), "1 .. n"),
        (lambda: relu.critical_point((1,)), "n even"),
        (lambda: relu.critical_point(("sleepy",)), "sleepy"),
        (lambda: relu.critical_point(()), "empty"),
        (lambda: relu.global_minimum(3, pairs=2), "at most 1 pairs"),
        (lambda: relu.modified_hessian(np.zeros(4)), "DEGENERATE"),
        (lambda: relu.modified_hessian(np.array([1.0, 0.0, 1.0, 0.0])), "TYPE_1"),
        (lambda: relu.modified_hessian(theta[None]), "one point"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
