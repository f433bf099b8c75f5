"""The exact risk against rational arithmetic, derivatives against rational integrals, differences and quadrature."""

from fractions import Fraction
from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import gdstab as gd
from gdstab.losses import PiecewiseLinear, Polynomial, ShallowReLU
from gdstab.outcomes import Outcome, StoppingRule

N = 4
CUBIC = ShallowReLU(N, (-1.0, 2.0), (0.3, -1.0, 2.0, 0.7))
KNOTS, VALUES = (-1.0, -0.25, 0.5, 2.0), (1.0, -0.5, 0.75, -1.0)
BROKEN = ShallowReLU.from_knots(N, KNOTS, VALUES)
LEAKY = ShallowReLU(N, (-1.0, 2.0), (0.3, -1.0), leak=0.125)
LINE = ShallowReLU(2)
WIDE = ShallowReLU(7, (-1.0, 2.0), (0.3, -1.0, 2.0), leak=0.25)  # many enough to be sorted, as with more knots
SORTED = ShallowReLU.from_knots(8, KNOTS, VALUES)
LOSSES = {"cubic": CUBIC, "knots": BROKEN, "leaky": LEAKY, "wide": WIDE, "wide, knots": SORTED}
ROWS = 100
slow = pytest.mark.slow
each_loss = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "wide" else name for name in LOSSES]
)


def by_hundreds(function):
    """Of any number of rows, one compilation for all: a hundred at a time, the last filled up with the last row."""
    mapped = jax.jit(jax.vmap(function))

    def call(thetas):
        starts = range(0, len(thetas), ROWS)
        full = np.pad(np.asarray(thetas), ((0, -len(thetas) % ROWS), (0, 0)), mode="edge")
        return np.concatenate([mapped(full[i : i + ROWS]) for i in starts])[: len(thetas)]

    return call


value_of = {name: by_hundreds(loss) for name, loss in LOSSES.items()}
slope_of = {name: by_hundreds(jax.grad(loss)) for name, loss in LOSSES.items()}
bend_of = {name: jax.jit(jax.hessian(loss)) for name, loss in LOSSES.items()}


def networks(num, rng, N=N):
    """Random networks; most of them spoilt: equal breakpoints, at and beyond the ends, w at or near 0, cancellation."""
    theta = rng.normal(size=(num, 3 * N + 1))
    w, b, v = theta[:, :N], theta[:, N : 2 * N], theta[:, 2 * N : 3 * N]
    for i in range(num):
        match i % 10:
            case 1:
                b[i] = -w[i] * rng.choice([0.25, 0.5])  # equal up to rounding, at a knot or not
            case 2:
                w[i] = 2.0 ** rng.integers(-3, 4, size=N) * rng.choice([-1, 1], size=N)
                b[i] = -w[i] * rng.choice([-1, 0.5, 2], size=N)  # exactly equal, and at the ends
            case 3:
                b[i] *= 10  # mostly active or inactive throughout
            case 4:
                w[i, :2] = 0.0, -0.0
            case 5:
                w[i], b[i] = w[i] * 1e-9, b[i] * rng.choice([1, 1e-9], size=N)
            case 6:
                w[i, 0], w[i, 1], b[i, 2] = 1e-300, 1e-310, 1e-310
            case 7:
                w[i, :2] = b[i, :2] = 0.0
            case 8:
                w[i, 1], b[i, 1], v[i, 1] = w[i, 0], b[i, 0] * (1 + 1e-15), 3 - v[i, 0]
            case 9:
                theta[i] = np.round(theta[i])
    return theta


def pieces(loss, theta):
    """`(start, end, residual, target, active neurons)` per piece, coefficients lowest first, exact."""
    low, high = (Fraction(end) for end in loss.interval)
    numbers, N = [Fraction(float(x)) for x in theta], loss.neurons
    w, b, v, c = numbers[:N], numbers[N : 2 * N], numbers[2 * N : 3 * N], numbers[-1]
    leak = Fraction(float(loss.leak))
    cuts = {low, high, *(-y / x for x, y in zip(w, b, strict=True) if x)}
    if isinstance(loss.target, PiecewiseLinear):
        cuts |= {Fraction(x) for x in KNOTS}
    cuts = sorted(x for x in cuts if low <= x <= high)
    for start, end in pairwise(cuts):
        mid = (start + end) / 2
        slopes = [1 if x * mid + y > 0 else leak for x, y in zip(w, b, strict=True)]
        weights = [p * s for p, s in zip(v, slopes, strict=True)]
        if isinstance(loss.target, PiecewiseLinear):
            k = max(i for i in range(len(KNOTS) - 1) if Fraction(KNOTS[i]) <= mid)
            x0, x1, y0, y1 = (Fraction(x) for x in (*KNOTS[k : k + 2], *VALUES[k : k + 2]))
            target = [y0 - x0 * (y1 - y0) / (x1 - x0), (y1 - y0) / (x1 - x0)]
        else:
            target = [Fraction(a) for a in loss.target.coefficients]
        residual = [-a for a in target]
        residual[0] += c + sum(p * y for p, y in zip(weights, b, strict=True))
        residual[1] += sum(p * x for p, x in zip(weights, w, strict=True))
        yield start, end, residual, target, slopes


def integral(p, q, start, end):
    """Of the product of two polynomials."""
    powers = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, x in enumerate(p):
        for j, y in enumerate(q):
            powers[i + j] += x * y
    return sum(a * (end ** (k + 1) - start ** (k + 1)) / (k + 1) for k, a in enumerate(powers))


def exact_risk(loss, theta):
    """The risk, and the integral of the squares of network and target."""
    risk = scale = Fraction(0)
    for start, end, residual, target, _ in pieces(loss, theta):
        network = [r + t for r, t in zip(residual, target, strict=True)]
        risk += integral(residual, residual, start, end)
        scale += integral(network, network, start, end) + integral(target, target, start, end)
    return float(risk), float(scale)


def exact_gradient(loss, theta):
    """The gradient where it exists, as rational integrals."""
    N = loss.neurons
    w, b, v = (np.array([Fraction(float(x)) for x in part]) for part in np.split(theta[: 3 * N], 3))
    total = np.full(3 * N + 1, Fraction(0))
    for start, end, residual, _, slopes in pieces(loss, theta):
        level, first = integral([1], residual, start, end), integral([0, 1], residual, start, end)
        for j, s in enumerate(slopes):
            parts = v[j] * first, v[j] * level, w[j] * first + b[j] * level
            total[[j, N + j, 2 * N + j]] += np.array([2 * s * part for part in parts])
        total[-1] += 2 * level
    return total.astype(float)


@each_loss
def test_risk_is_exact(name, rng):
    thetas = networks(200, rng, LOSSES[name].neurons)
    risks = value_of[name](thetas)
    exact, scale = np.array([exact_risk(LOSSES[name], theta) for theta in thetas]).T
    assert (risks >= 0).all()
    assert (np.abs(risks - exact) <= 1e-13 * scale).all()
    assert np.quantile(np.abs(risks / exact - 1), 0.9) < 1e-13


@each_loss
def test_gradient_is_exact(name, rng):
    thetas = networks(100, rng, LOSSES[name].neurons)
    thetas = thetas[~np.isin(np.arange(100) % 10, [7, 9])]  # degenerate neurons have none
    gradients = slope_of[name](thetas)
    for theta, gradient in zip(thetas, gradients, strict=True):
        scale = (1 + np.abs(theta).max()) * np.sqrt(exact_risk(LOSSES[name], theta)[1])
        np.testing.assert_allclose(gradient, exact_gradient(LOSSES[name], theta), rtol=1e-12, atol=1e-13 * scale)


def test_small_losses_keep_their_digits(rng):
    """A sum over pairs of neurons would leave rounding errors of the size of its terms; squares do not."""
    exact = jnp.array([0.7, -0.3, 0.0, 0.21, 1 / 0.7, 0.0, 0.0])
    value = jax.jit(LINE)
    for dtype, least in (("float64", 1e-30), ("float32", 1e-13)):
        assert 0 <= float(value(exact.astype(dtype))) < least
    np.testing.assert_allclose(float(value(exact.at[6].set(1e-9))), 1e-18, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["cubic", *(pytest.param(x, marks=slow) for x in ("knots", "leaky", "wide", "wide, knots"))]
)
def test_float32_is_close(name, rng):
    thetas = networks(200, rng, LOSSES[name].neurons).astype("float32")
    single, double = (value_of[name](thetas.astype(dtype)) for dtype in ("float32", "float64"))
    scale = np.array([exact_risk(LOSSES[name], theta)[1] for theta in thetas])
    assert single.dtype == np.float32
    assert (np.abs(single - double) <= 3e-6 * scale).all()
    assert np.isfinite(slope_of[name](thetas)).all()


@pytest.mark.parametrize("name", ["cubic", pytest.param("wide", marks=slow)])
def test_both_forms_of_theta_and_lanes_agree(name, rng):
    loss, N = LOSSES[name], LOSSES[name].neurons
    thetas = networks(20, rng, N)
    flat = thetas.T
    parts = (flat[:N], flat[N : 2 * N], flat[2 * N : 3 * N], flat[-1])
    expected = value_of[name](thetas)
    np.testing.assert_allclose(eqx.filter_jit(loss.on_lanes)(flat), expected, rtol=1e-13)
    np.testing.assert_allclose(eqx.filter_jit(loss.on_lanes)(parts), expected, rtol=1e-13)
    gradient = slope_of[name](thetas).T
    np.testing.assert_allclose(eqx.filter_jit(loss.gradient)(flat), gradient, rtol=1e-12, atol=1e-14)
    by_parts = eqx.filter_jit(loss.gradient)(parts)
    assert isinstance(by_parts, tuple)
    np.testing.assert_allclose(np.concatenate([*by_parts[:3], by_parts[3][None]]), gradient, rtol=1e-12, atol=1e-14)


@each_loss
def test_homogeneity_of_every_neuron(name, rng):
    """w G_w + b G_b = v G_v."""
    N = LOSSES[name].neurons
    thetas = networks(100, rng, N)
    w, b, v, _ = np.split(thetas, [N, 2 * N, 3 * N], axis=1)
    by_w, by_b, by_v, _ = np.split(slope_of[name](thetas), [N, 2 * N, 3 * N], axis=1)
    scale = np.abs(w * by_w) + np.abs(b * by_b) + np.abs(v) * (np.abs(w) + np.abs(b))
    assert (np.abs(w * by_w + b * by_b - v * by_v) <= 1e-13 * (scale + 1e-300) * (1 + np.abs(v).max())).all()


@pytest.mark.parametrize("name", ["cubic", "knots", "leaky", pytest.param("wide", marks=pytest.mark.slow)])
def test_hessian_where_it_exists(name, rng):
    thetas = networks(40, rng, LOSSES[name].neurons)[np.isin(np.arange(40) % 10, [0, 3, 4, 8])]
    for theta in thetas[[0, 1, 2, 4, 5, 7]]:
        hessian = np.asarray(bend_of[name](theta))
        moves = 1e-6 * np.eye(theta.size)
        differences = (slope_of[name](theta + moves) - slope_of[name](theta - moves)) / 2e-6
        np.testing.assert_allclose(hessian, hessian.T, atol=1e-12 * np.abs(hessian).max())
        np.testing.assert_allclose(hessian, differences, rtol=1e-5, atol=2e-4)
        assert np.isclose(hessian[-1, -1], 2 * 3.0, rtol=1e-14)  # 2 (beta - alpha)


def test_hessian_at_equal_breakpoints(rng):
    """Three neurons bend at 1/2, two of them to the right: where most algorithms by sorting go wrong."""
    theta = np.array([1.0, 2.0, -1.0, 1.0, -0.5, -1.0, 0.5, 0.25, 0.7, -0.4, 1.1, 0.5, 0.1])
    for name in ("cubic", "leaky"):
        moves = 1e-7 * np.eye(theta.size)
        differences = (slope_of[name](theta + moves) - slope_of[name](theta - moves)) / 2e-7
        np.testing.assert_allclose(bend_of[name](theta), differences, atol=3e-6)


@pytest.mark.parametrize("leak", [0.0, 0.125])
def test_conventions_are_one_sided_derivatives(leak):
    base = np.array([0.7, 0.0, -0.2, 0.0, 0.4, 1.5, 0.3])  # the second neuron is degenerate, with v = 1.5
    for convention, side in (("left", -1), ("right", 1)):
        loss = ShallowReLU(2, (-0.5, 1.0), (0.0, 1.0, 1.0), leak, convention)
        gradient = np.asarray(jax.grad(loss)(jnp.asarray(base)))
        np.testing.assert_array_equal(gradient, loss.gradient(jnp.asarray(base)))
        for i in (1, 3):
            step = side * 1e-7 * np.eye(7)[i]
            derivative = float(loss(jnp.asarray(base + step)) - loss(jnp.asarray(base))) / (side * 1e-7)
            assert np.isclose(gradient[i], derivative, rtol=1e-5, atol=1e-6)
    at_zero = np.asarray(loss.gradient(jnp.asarray(base), "zero"))
    assert (at_zero[[1, 3]] == 0).all()
    np.testing.assert_array_equal(np.delete(at_zero, [1, 3]), np.delete(gradient, [1, 3]))
    flat = jnp.asarray(base).at[5].set(0.0)  # flat degenerate: the partial derivatives exist, and are 0
    assert all((np.asarray(loss.gradient(flat, kind))[[1, 3, 5]] == 0).all() for kind in ("zero", "left", "right"))


INTERVALS, CONVENTIONS = [(-0.5, 1.0), (0.25, 1.0), (-1.0, -0.25)], ["zero", "left", "right"]


@pytest.mark.parametrize(
    ("convention", "interval"),
    [
        pytest.param(CONVENTIONS[i], INTERVALS[j], marks=[slow] if i != j else [], id=f"{CONVENTIONS[i]}-interval{j}")
        for i in range(3)
        for j in range(3)
    ],
)
def test_neurons_without_output_change_nothing(interval, convention, rng):
    """Three neurons by pairs, and the same beside five more by sorting: degenerate ones, and cuts everywhere."""
    few, many = (ShallowReLU(n, interval, (0.2, -1.0, 1.0), 0.125, convention) for n in (3, 8))
    found = [jax.jit(jax.vmap(jax.value_and_grad(loss))) for loss in (few, many)]
    small = networks(40, rng, 3)
    parts = np.split(small, [3, 6, 9], axis=1)
    more = rng.normal(size=(40, 5)), rng.normal(size=(40, 5)), np.zeros((40, 5))
    large = np.concatenate([*(np.hstack(pair) for pair in zip(parts[:3], more, strict=True)), parts[3]], axis=1)
    (value, slope), (value_beside, slope_beside) = found[0](small), found[1](large)
    scale = 1 + np.abs(small).max(axis=1)
    np.testing.assert_allclose(value_beside, value, rtol=1e-12, atol=1e-24)
    same = np.array([0, 1, 2, 8, 9, 10, 16, 17, 18, 24])
    assert (np.abs(slope_beside[:, same] - slope) <= 1e-13 * (scale**3)[:, None]).all()


def test_derivatives_are_never_nan(rng):
    for name, loss in LOSSES.items():
        ones = np.ones(3 * loss.neurons + 1)
        thetas = np.stack([0 * ones, ones * 1e-310, *networks(30, rng, loss.neurons)])
        assert np.isfinite(slope_of[name](thetas)).all()
        for theta in thetas:
            assert np.isfinite(np.asarray(bend_of[name](theta))).all()
    for name in ("cubic", "wide"):
        spoilt = np.where(np.eye(3 * LOSSES[name].neurons + 1, dtype=bool), np.nan, 1.0)
        assert np.isnan(value_of[name](spoilt)).all()


def test_leaky_networks_are_wider_relu_networks(rng):
    """The loss of a leaky network is that of a ReLU network twice as wide at P(theta)."""
    wide = ShallowReLU(2 * N, (-1.0, 2.0), (0.3, -1.0))

    def reduction(theta):
        w, b, v, c = theta[:N], theta[N : 2 * N], theta[2 * N : 3 * N], theta[3 * N :]
        return jnp.concatenate([w, -w, b, -b, v, -0.125 * v, c])

    thetas = rng.normal(size=(20, 3 * N + 1))
    composed = jax.jit(jax.vmap(jax.value_and_grad(lambda theta: wide(reduction(theta)))))
    values, gradients = composed(thetas)
    np.testing.assert_allclose(value_of["leaky"](thetas), values, rtol=1e-12)
    np.testing.assert_allclose(slope_of["leaky"](thetas), gradients, rtol=1e-10, atol=1e-12)


def modified_by_quadrature(loss, theta, j, rising):
    """The entries of G^J of neuron j: the paper's integral, by scipy, the target going on beyond the interval."""
    n = loss.neurons
    w, b, v = theta[j], theta[n + j], theta[2 * n + j]
    low, high = loss.interval
    start, end = (-b / w, high) if rising else (low, -b / w)
    inner = [-y / x for x, y in zip(theta[:n], theta[n : 2 * n], strict=True)]
    if isinstance(loss.target, Polynomial):
        target = np.polynomial.Polynomial([float(a) for a in loss.target.coefficients])
    else:
        target = partial(np.interp, xp=(-9.0, 0.5, 9.0), fp=(-18.0, 1.0, -16.0))  # the hat, its sides going on
        inner.append(0.5)
    ends = min(start, end), max(start, end)
    cuts = sorted({*ends, *(x for x in inner if ends[0] < x < ends[1])})

    def residual(x):
        return theta[-1] + theta[2 * n : 3 * n] @ np.maximum(theta[:n] * x + theta[n : 2 * n], 0) - target(x)

    def share(factor):
        return sum(quad(lambda x: 2 * factor(x) * residual(x), p, q)[0] for p, q in pairwise(cuts))

    return np.sign(end - start) * np.array([share(lambda x: v * x), share(lambda _: v), share(lambda x: w * x + b)])


@pytest.mark.parametrize(
    "loss", [ShallowReLU(3, target=(0.2, 1.0, -1.0)), ShallowReLU.from_knots(3, (0, 0.5, 1), (0, 1, 0))]
)
def test_modified_gradient_is_the_papers_integral(loss):
    """Breakpoints above, below and inside the interval, the weight's sign as in the set's name and against it."""
    gradient = eqx.filter_jit(loss.gradient)
    modified = {
        rising: jax.jit(partial(loss.modified_gradient, **{"rising" if rising else "falling": (0,)}))
        for rising in (True, False)
    }
    rest = [0.8, -1.3, -0.2, 0.5, 0.9, -0.6]  # two more neurons: w, b, v
    for w, b, rising in [
        (1.0, -1.4, True),
        (1.0, 0.3, True),
        (-2.0, 1.0, True),
        (-1.0, -0.3, False),
        (1.5, -0.6, False),
    ]:
        theta = np.array([w, rest[0], rest[1], b, rest[2], rest[3], 0.7, rest[4], rest[5], 0.25])
        found = np.asarray(modified[rising](theta))
        np.testing.assert_allclose(found[[0, 3, 6]], modified_by_quadrature(loss, theta, 0, rising), atol=1e-12)
        others = np.array([1, 2, 4, 5, 7, 8, 9])
        np.testing.assert_allclose(found[others], gradient(theta)[others], atol=1e-15)


def test_modified_gradient_agrees_where_nothing_is_modified(rng):
    """With no neuron named, at w = 0, and at type-2-active neurons whose sign matches their set."""
    theta = jnp.array([1.0, -1.0, 0.0, -0.5, 0.75, 0.3, 1.0, 2.0, -1.0, 0.1])
    loss = ShallowReLU(3)
    expected = np.asarray(jax.jit(loss.gradient)(theta))
    for sets in ({}, {"rising": (0, 2), "falling": (1,)}):
        found = jax.jit(partial(loss.modified_gradient, **sets))(theta)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


@pytest.mark.slow
def test_jacobian_of_the_modified_gradient_at_semi_inactive_neurons():
    """G itself has a kink there; G^J is differentiable, and its Jacobian symmetric (Lemmas 4.3 and 4.6)."""
    loss = ShallowReLU(3, (0.0, 2.0), (0.5, 1.0))
    theta = np.array([1.0, -2.0, 0.7, -2.0, 0.0, -0.5, 1.5, -0.8, 1.2, 1.5])  # breakpoints beta, alpha, inside
    modified = jax.jit(partial(loss.modified_gradient, rising=(0,), falling=(1,)))
    jacobian = np.asarray(jax.jit(jax.jacfwd(modified))(theta))
    moves = 1e-6 * np.eye(10)
    differences = np.stack([(modified(theta + h) - modified(theta - h)) / 2e-6 for h in moves], axis=1)
    np.testing.assert_allclose(jacobian, differences, atol=1e-5)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-14)
    gradient = eqx.filter_jit(loss.gradient)
    slopes = [float(gradient(theta + step)[3] - gradient(theta)[3]) / 1e-6 for step in (moves[3], -moves[3])]
    assert slopes[1] == 0  # beyond the edge the neuron is inactive
    assert np.isclose(slopes[0], jacobian[3, 3], atol=1e-5)
    assert abs(slopes[0]) > 0.1
    alone = np.array([1.0, 3.0, -2.0, -2.5, 1.5, 0.0, 1.5])  # no active neuron: the network is the target's mean
    pair = ShallowReLU(2, (0.0, 2.0), (0.5, 1.0))
    entry = jax.jit(jax.jacfwd(partial(pair.modified_gradient, rising=(0,))))(alone)[2, 2]
    assert np.isclose(float(entry), -1.0 * 1.5 / 1.0 * 2.0, rtol=1e-14)  # -f' (v / w) (beta - alpha)


@pytest.mark.parametrize(
    "sets",
    [{"rising": (0, 2), "falling": (1,)}, pytest.param({"rising": (1,), "falling": (0, 2)}, marks=slow)],
    ids=["against", "complement"],
)
def test_jacobian_of_the_modified_gradient_elsewhere(sets):
    """Weights against the sign of their set, breakpoints beyond the interval: differentiable there as well."""
    loss = ShallowReLU(3, (0.0, 2.0), (0.5, 1.0, -0.3))
    theta = np.array([-1.0, 1.25, 0.7, 0.75, 1.0, -2.1, 1.5, -0.8, 1.2, 1.5])  # breakpoints 0.75, -0.8, 3
    modified = jax.jit(partial(loss.modified_gradient, **sets))
    differences = np.stack([(modified(theta + h) - modified(theta - h)) / 2e-6 for h in 1e-6 * np.eye(10)], axis=1)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(modified))(theta), differences, rtol=1e-6, atol=1e-6)


def test_hessian_at_the_ends_is_that_of_outside():
    """Breakpoints exactly alpha and beta: as documented, the limit from beyond the interval."""
    theta = np.array([1.0, -2.0, 1.0, -1.0, -2.0, -2.0, 1.0, 0.3, 0.7, -0.4, 1.1, 0.5, 0.1])  # at 2, -1, -1, 0.3
    outside = theta + 1e-9 * np.eye(13)[[4, 5, 6]].T @ np.array([-1.0, -1.0, 1.0])
    inside = theta - 1e-9 * np.eye(13)[[4, 5, 6]].T @ np.array([-1.0, -1.0, 1.0])
    found, beyond, before = (np.asarray(bend_of["cubic"](point)) for point in (theta, outside, inside))
    np.testing.assert_allclose(found, beyond, atol=1e-6)
    assert np.abs(found - before).max() > 0.1


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=slow), "float64"])
def test_engine_runs_it(dtype):
    points = np.random.default_rng(1).normal(size=(40, 7)).astype(dtype)
    stopping = StoppingRule(loss_tol=1e-9, max_steps=5000)
    result = gd.run(gd.gradient_descent(), LINE, jnp.asarray(points), 0.1, stopping)
    step = jax.jit(jax.vmap(lambda theta: theta - jnp.asarray(0.1, dtype) * jax.grad(LINE)(theta)))
    theta = jnp.asarray(points)
    for _ in range(20):
        theta = step(theta)
    short = gd.run(gd.gradient_descent(), LINE, jnp.asarray(points), 0.1, StoppingRule(loss_tol=0.0, max_steps=20))
    assert result.theta.dtype == dtype
    np.testing.assert_allclose(short.theta, theta, rtol=0, atol=1e3 * np.finfo(dtype).eps)
    assert set(result.outcome.tolist()) <= {Outcome.CONVERGED, Outcome.UNDECIDED}
    converged = result.outcome == Outcome.CONVERGED
    assert converged.sum() >= 5
    assert (result.loss[converged] <= 1e-9).all()
    assert (result.loss[~converged] > 1e-9).all()


def test_lean_and_compiled_once():
    for loss, costly in ((CUBIC, "dot_general"), (SORTED, "argsort")):
        graph = str(jax.make_jaxpr(jax.grad(loss))(jnp.ones(3 * loss.neurons + 1)))
        for primitive in (costly, "gather", "scatter", " sort", "while"):
            assert primitive not in graph
    traces = 0

    @partial(jax.jit, static_argnums=0)
    def evaluate(static, arrays, theta):
        nonlocal traces
        traces += 1
        return eqx.combine(arrays, static)(theta)

    for slope in (0.5, 2.0):
        for loss in (
            ShallowReLU(2, (0.0, slope), (0.0, slope), slope / 4),
            ShallowReLU.from_knots(2, (0.0, slope), (0.0, slope)),
        ):
            arrays, static = eqx.partition(loss, eqx.is_inexact_array_like)  # as the engine does
            evaluate(static, arrays, jnp.ones(7))
    assert traces == 2


def test_derivatives_in_the_target_are_refused():
    with pytest.raises(ValueError, match="with respect to theta only"):
        eqx.filter_grad(lambda loss: loss(jnp.ones(7)))(
            ShallowReLU(2, target=jnp.ones(2).tolist(), leak=jnp.array(0.5))
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neurons": 0}, "neurons: expected an integer of at least 1"),
        ({"neurons": 2, "interval": (1.0, 1.0)}, "alpha < beta"),
        ({"neurons": 2, "interval": (0.0, np.inf)}, "finite alpha < beta"),
        ({"neurons": 2, "interval": (0.0, 1.0, 2.0)}, "two numbers"),
        ({"neurons": 2, "interval": 3.0}, "two numbers"),
        ({"neurons": 2, "target": ()}, "at least one coefficient"),
        ({"neurons": 2, "target": (0.0, np.nan)}, "finite coefficients"),
        ({"neurons": 2, "target": np.sin}, "interpolate other functions"),
        ({"neurons": 2, "target": PiecewiseLinear((0.0, 0.5), (0.0, 1.0))}, "do not cover"),
        ({"neurons": 2, "convention": "middle"}, "'zero', 'left' or 'right'"),
        ({"neurons": 2, "leak": 1.0}, "in \\[0, 1\\)"),
        ({"neurons": 2, "leak": -0.1}, "in \\[0, 1\\)"),
        ({"neurons": 2, "leak": np.nan}, "in \\[0, 1\\)"),
    ],
)
def test_bad_losses_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShallowReLU(**arguments)


@pytest.mark.parametrize(
    ("knots", "values", "message"),
    [
        ((0.0,), (1.0,), "two at the least"),
        ((0.0, 1.0), (1.0,), "as many values as knots"),
        ((0.0, 0.0, 1.0), (1.0, 2.0, 3.0), "increasing"),
        ((0.0, 1.0), (1.0, np.inf), "values: expected finite"),
    ],
)
def test_bad_knots_are_refused(knots, values, message):
    with pytest.raises(ValueError, match=message):
        ShallowReLU.from_knots(2, knots, values)


def test_bad_points_and_sets_are_refused():
    with pytest.raises(ValueError, match="of length 7"):
        LINE(jnp.ones(8))
    with pytest.raises(ValueError, match="w, b, v, c"):
        LINE((jnp.ones(2), jnp.ones(2), jnp.ones(3), jnp.ones(())))
    with pytest.raises(ValueError, match="'zero', 'left' or 'right'"):
        LINE.gradient(jnp.ones(7), "middle")
    for sets in ({"rising": (2,)}, {"rising": (0,), "falling": (0,)}):
        with pytest.raises(ValueError, match="name each neuron once"):
            LINE.modified_gradient(jnp.ones(7), **sets)
    with pytest.raises(ValueError, match="least 0"):
        LINE.modified_gradient(jnp.ones(7), rising=(-1,))
    with pytest.raises(ValueError, match="unbatched"):
        LINE.modified_gradient(jnp.ones((7, 3)))
    with pytest.raises(ValueError, match="leak = 0"):
        LEAKY.modified_gradient(jnp.ones(13))


def test_target_values():
    x = jnp.array([-2.0, 0.3, 5.0])
    np.testing.assert_allclose(Polynomial((1.0, -2.0, 0.0, 3.0))(x), np.polyval([3, 0, -2, 1], np.asarray(x)))
    np.testing.assert_allclose(
        PiecewiseLinear(KNOTS, VALUES)(jnp.asarray(np.linspace(-1, 2, 31))),
        np.interp(np.linspace(-1, 2, 31), KNOTS, VALUES), atol=1e-15,
    )  # fmt: skip
