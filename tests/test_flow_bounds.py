"""Bounds on descent against flow: formulas against mpmath and brute force, statements against flows and descent."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jaxtyping import Array, Bool, Int
from scipy.integrate import solve_ivp

from gdstab import losses
from gdstab.flow import gradient_flow
from gdstab.theory import factorisations
from gdstab.theory import flow_bounds as fb

#
# Theorem 2, Theorem 3, Corollary 4
#


def test_the_general_bound_is_its_integral(rng):
    times = np.concatenate([[0.0], np.cumsum(rng.uniform(0.1, 1.0, 6))])
    growth, defect, initial = 3 * rng.standard_normal(6), rng.uniform(0, 2, 6), 0.3
    growth[2], defect[3] = 0.0, 0.0
    mu = lambda t: sum(m * min(max(t - a, 0), b - a) for m, a, b in zip(growth, times, times[1:], strict=False))  # noqa: E731
    found = fb.euler_bound(times, growth, defect, initial)
    for k in range(7):
        inside = sum(
            defect[j] * mpmath.quad(lambda s: mpmath.exp(-mu(float(s))), [times[j], times[j + 1]]) for j in range(k)
        )
        exact = mpmath.exp(mu(times[k])) * (initial + inside)
        assert float(exact) == pytest.approx(found[k], rel=1e-12)
    both = fb.euler_bound(times, np.stack([growth, -growth]), defect, np.array([initial, 0.0]))
    np.testing.assert_allclose(both[0], found, rtol=1e-14)


def test_nothing_overflows_before_the_answer():
    times, growth = np.array([0.0, 1.0, 2.0]), np.array([1000.0, -1000.0])
    with mpmath.workdps(60):
        exact = (mpmath.expm1(1000) / 1000) * mpmath.exp(-1000) + -mpmath.expm1(-1000) / 1000
    bound = fb.euler_bound(times, growth, 1.0)
    assert bound[1] == np.inf
    assert bound[2] == pytest.approx(float(exact), rel=1e-12)
    assert fb.max_step(times, growth, 1.0, 1.0, 0.1) == 0.0
    assert fb.max_step_smooth(2.0, 1.0, -1.0, 0.1, 1e4) == 0.0


def test_the_general_bound_holds_and_is_attained_by_euler_on_linear_fields(rng):
    """x' = A x: growth is the largest eigenvalue of the symmetric part, defects are computed."""
    step, num, looseness = 0.01, 200, []
    for case in range(20):
        A = rng.standard_normal((3, 3)) if case else 0.5 * np.eye(3)
        values, vectors = np.linalg.eig(A)
        start = rng.standard_normal(3)
        times = step * np.arange(num + 1)
        exact = (
            (vectors * np.exp(values * times[:, None])[:, None]) @ np.linalg.solve(vectors, start.astype(complex))
        ).real
        points = [start]
        for _ in range(num):
            points.append(points[-1] + step * A @ points[-1])
        defect = step * np.linalg.norm(np.array(points[:-1]) @ A.T @ A.T, axis=1)  # the largest is at the end
        growth = np.full(num, np.linalg.eigvalsh((A + A.T) / 2)[-1])
        bound = fb.euler_bound(times, growth, defect)
        real = np.linalg.norm(exact - points, axis=1)
        assert (real <= bound + 1e-13).all()
        looseness.append(bound[-1] / real[-1])
    assert looseness[0] == pytest.approx(2, rel=0.01)  # the defect grows from 0 within a step: half of it on average


def test_the_largest_step_is_an_infimum_over_all_times(rng):
    for _ in range(10):
        times = np.concatenate([[0.0], np.cumsum(rng.uniform(0.1, 0.5, 5))])
        growth, initial = 3 * rng.standard_normal(5), 0.002
        fine = np.unique(np.concatenate([times, np.linspace(0, times[-1], 2001)]))
        on_fine = growth[np.searchsorted(times, (fine[1:] + fine[:-1]) / 2) - 1]
        spread, carried = (fb.euler_bound(fine, on_fine, d, r)[1:] for d, r in ((1.0, 0.0), (0.0, initial)))
        brute = max(np.min((0.1 - carried) / (6.0 * spread)), 0.0)
        assert float(fb.max_step(times, growth, 2.0, 3.0, 0.1, initial)) == pytest.approx(brute, rel=1e-9)
    assert fb.max_step(times, growth, 2.0, 3.0, 0.1, 0.1) == 0.0


@pytest.mark.parametrize("least", [-0.7, 0.0, 0.4])
def test_corollary_4_follows_from_theorem_3(least):
    beta, loss, radius, time, initial = 2.0, 3.0, 0.5, 1.5, 0.01
    gradient = np.sqrt(2 * beta * loss) + beta * radius
    general = fb.max_step(np.array([0.0, time]), np.array([-least]), beta, gradient, radius, initial)
    coarse = fb.max_step_smooth(beta, loss, least, radius, time, initial)
    assert coarse == pytest.approx(float(general)) if least <= 0 else coarse < general


def test_corollary_4_holds_on_a_cosine():
    """L = 1 - cos x: the flow is tan(x/2) = tan(x_0/2) e^(-t), smoothness 1, least eigenvalue -1."""
    for start, radius, time in ((3.1, 0.1, 3.0), (2.0, 0.01, 2.0), (3.14, 0.3, 6.0)):
        limit = fb.max_step_smooth(1.0, 1 - np.cos(start), -1.0, radius, time)
        step = time / (np.floor(time / limit) + 1)
        x, worst = start, 0.0
        for k in range(1, round(time / step) + 1):
            x = x - step * np.sin(x)
            worst = max(worst, abs(x - 2 * np.arctan(np.tan(start / 2) * np.exp(-k * step))))
        assert 1e-3 * radius < worst <= radius


def double_well(start, times, radius):
    """L = (1 - x^2)^2 / 4: the exact flow, and the least upper bound of -L'' over each ball."""
    grown = start**2 * np.exp(2 * times)
    x = np.sqrt(grown / (1 - start**2 + grown))
    return x, 1 - 3 * np.maximum(np.abs(x) - radius, 0.0) ** 2


def test_theorem_3_as_printed_is_false_and_as_corrected_holds():
    start, radius, time = 1e-3, 0.1, 14.0
    times = np.linspace(0, time, 4001)
    _, growth = double_well(start, times, radius)
    near = np.abs(np.linspace(-radius, 1 + radius, 10_001))  # the tube
    beta, gamma = np.abs(3 * near**2 - 1).max(), np.abs(near**3 - near).max()
    on_intervals = fb.interval_maxima(growth)  # m falls along the flow: rigorous
    mu = fb.exponent(times, on_intervals)
    spread = fb.euler_bound(times, on_intervals, 1.0)[1:]
    printed = np.min(radius / (beta * gamma * spread * np.exp(mu[-1] - mu[1:])))
    corrected = float(fb.max_step(times, on_intervals, beta, gamma, radius))
    assert printed > 50 * corrected

    def worst(step):
        z, found = start, 0.0
        for k in range(1, int(time / step) + 1):
            z = z + step * (z - z**3)
            found = max(found, abs(z - double_well(start, np.array(k * step), radius)[0]))
        return found

    assert worst(0.99 * printed) > radius
    assert worst(0.99 * corrected) <= radius


def test_the_bound_is_void_past_the_radius():
    times = np.linspace(0, 3, 31)
    bound = fb.descent_bound(times, np.ones(30), 2.0, 3.0, 0.5, 0.01)
    known = np.isfinite(bound)
    np.testing.assert_allclose(bound[known], 0.06 * np.expm1(times[known]))
    assert (0.06 * np.expm1(times[~known]) > 0.5).all()
    assert 0 < known.sum() < 31


#
# The tube, and Theorem 3 with measured constants
#


class Three(eqx.Module):
    """Three smooth architectures of ten parameters in one program: linear, tanh, and a convolution."""

    kind: Int[Array, ""]

    def __call__(self, flat):
        x = 0.6 * jnp.sin(jnp.arange(18.0)).reshape(6, 3)
        y = jnp.array([[1.0, -1.0, 0.5]])
        linear = flat[None, 8:] @ flat[4:8].reshape(2, 2) @ flat[:4].reshape(2, 2) @ x[:2]
        tanh = flat[None, 6:9] @ jnp.tanh(flat[:6].reshape(3, 2) @ x[:2]) + flat[9]
        value = [sum(flat[3 * f + k] * x[k : k + 4] for k in range(3)) for f in range(2)]
        convolution = flat[None, 6:] @ jax.nn.softplus(value[0] - value[1])
        residual = jnp.stack([linear, tanh, convolution])[self.kind] - y
        return 0.5 * jnp.mean(residual**2)


@pytest.mark.parametrize("num", [pytest.param(6, marks=pytest.mark.slow), pytest.param(210, marks=pytest.mark.slow)])
def test_descent_stays_within_the_bound_of_measured_constants(num, rng):
    steps, time, radius = 320, 0.6, 0.25
    starts = jnp.asarray(0.7 * rng.standard_normal((num, 10)))
    times, kinds = np.linspace(0, time, steps + 1), jnp.arange(num) % 3

    @jax.jit
    @jax.vmap
    def compare(kind, start):
        field, step = lambda z: -jax.grad(Three(kind))(z), time / steps

        def both(state, _):
            z, iterate = state

            def stage(slope, part):
                slope = field(z + step * part * slope)
                return slope, slope

            _, slopes = jax.lax.scan(stage, jnp.zeros_like(z), jnp.array([0.0, 0.5, 0.5, 1.0]))
            z = z + step * jnp.array([1.0, 2.0, 2.0, 1.0]) @ slopes / 6  # Runge and Kutta: an error of 1e-10 here
            iterate = iterate + step * field(iterate)
            return (z, iterate), (z, jnp.linalg.norm(z - iterate))

        path, far = jax.lax.scan(both, (start, start), None, length=steps)[1]
        return jnp.concatenate([start[None, :], path]), far

    paths, real = compare(kinds, starts)
    coarse, ratios = times[::32], []
    for kind, path, far, key in zip(kinds, paths, real, jax.random.split(jax.random.key(0), num), strict=True):
        tube = fb.tube_constants(Three(kind), path[::32], radius, key, 24)
        growth = fb.interval_maxima(tube.growth)
        beta, gamma = float(tube.smoothness.max()), float(tube.gradient.max())
        bound = fb.descent_bound(coarse, growth, beta, gamma, radius, time / steps)
        assert np.isfinite(bound).all()
        assert (far[31::32] <= bound[1:]).all()
        assert time / steps < fb.max_step(coarse, growth, beta, gamma, radius)
        ratios.append(float(bound[-1] / far[-1]))
    assert min(ratios) > 1.5
    assert np.median(ratios) < 60


def test_tube_constants_approach_the_suprema_from_below(key):
    A = jnp.diag(jnp.array([3.0, -2.0]))
    found = fb.tube_constants(losses.Quadratic(A), jnp.array([[1.0, 0.0], [0.0, 0.0]]), 0.5, key, 400)
    np.testing.assert_allclose(found.growth, 2.0)
    np.testing.assert_allclose(found.smoothness, 3.0)
    assert (np.asarray(found.gradient) <= [4.5, 1.5]).all()
    assert (np.asarray(found.gradient) > [4.48, 1.49]).all()
    with pytest.raises(ValueError, match="radius"):
        fb.tube_constants(losses.Quadratic(A), jnp.zeros((1, 2)), 0.0, key)


#
# Proposition 14, Theorems 15 and 32
#


class Deep(eqx.Module):
    """A balanced start of one output has rank one: its flow is that of the widths (2, 1, ..., 1), up to four layers."""

    used: Bool[Array, " 3"]

    def __call__(self, theta):
        first, rest = theta
        product = jnp.prod(jnp.where(self.used, rest, 1)) * first
        return 0.5 * jnp.sum((product - jnp.array([1.0, 0.0])) ** 2)


@pytest.mark.slow
def test_proposition_14_is_valid():
    cases = [
        (depth, norm, nu, accuracy)
        for depth in (2, 3, 4)
        for norm in (0.05, 0.2)
        for nu in (1.0, 0.5, 0.0, -0.5, -0.9)
        for accuracy in (0.1, 1e-3)
    ]
    bars = np.array([fb.flow_time(*case) for case in cases])
    depths, norms, alignments, accuracies = map(jnp.array, zip(*cases, strict=True))
    root = norms ** (1 / depths)
    first = root[:, None] * jnp.stack([alignments, jnp.sqrt(1 - alignments**2)], axis=1)
    used = jnp.arange(3)[None, :] < depths[:, None] - 1

    @jax.jit
    @jax.vmap
    def reach(used, theta, bar, accuracy):
        found = gradient_flow(Deep(used), theta, bar, until=lambda z: Deep(used)(z) <= accuracy)
        return found.time, found.settled

    start = (first, jnp.broadcast_to(root[:, None], used.shape))
    times, settled = reach(used, start, jnp.asarray(bars), accuracies)
    assert len(cases) == 60
    assert bool(settled.all())
    assert (bars > 20 * np.asarray(times)).all()


def test_the_integral_of_proposition_14_bounds_what_is_measured():
    n, norm, radius = 3, 0.1, 1e-3
    loss, root = Deep(jnp.array([True, True, False])), norm ** (1 / n)
    times = np.linspace(0, 20.0, 41)
    start = np.array([0.0, root, root, root, 1.0])

    def field(_, z):
        a, b = z[2:4]
        r = a * b * z[:2] - [1, 0]
        return -np.array([*(a * b * r), b * r @ z[:2], a * r @ z[:2], 0.0])

    path = jnp.asarray(solve_ivp(field, (0, 20), start, rtol=1e-9, t_eval=times).y.T)
    tube = fb.tube_constants(loss, (path[:, :2], path[:, 2:]), radius, jax.random.key(0), 8)
    measured = fb.exponent(times, np.maximum(fb.interval_maxima(tube.growth), 0.0))[-1]
    beta, gamma = fb.flow_constants(n)
    assert 0.3 < measured < fb.growth_integral(n, norm, 0.0, radius, 20.0)
    assert float(tube.smoothness.max()) < beta
    assert float(tube.gradient.max()) < gamma


def test_guarantees_are_their_formulas():
    with mpmath.workdps(40):
        for n, norm, nu, acc in (
            (2, 0.2, 1.0, 0.5),
            (3, 0.1, 0.0, 0.1),
            (5, 0.01, -0.99, 1e-6),
            (40, 1e-3, -0.9999, 3.0),
        ):
            w, e = mpmath.mpf(norm), min(mpmath.mpf(1), mpmath.mpf(acc))
            q = (1 - mpmath.mpf(nu)) / (1 + mpmath.mpf(nu))
            log = mpmath.log(15 * n * max(1, q) / (w * e))
            step = w**5 * e / (mpmath.mpf(n) ** 8.5 * mpmath.exp(7 * n + 6) * max(1, q) ** ((11 * n - 5) / 2) * log**2)
            count = mpmath.floor(2 * n * max(1, 1.5 * q) ** n / (w * step) * log + 1)
            found = fb.descent_guarantee(n, norm, nu, acc)
            assert found.log10_step == pytest.approx(float(mpmath.log10(step)), rel=1e-12)
            assert found.log10_iterations == pytest.approx(float(mpmath.log10(count)), rel=1e-12)
            if norm > 0.1:
                continue
            p = max(3, (3 - mpmath.mpf(nu)) / (1 + mpmath.mpf(nu)))
            log = mpmath.log(23 * n * p / (w * e))
            step = w**5 * e / (mpmath.mpf(n) ** 8.5 * mpmath.exp(7 * n + 10) * p ** ((11 * n - 5) / 2) * log**2)
            gap = w**8 * e**2 / (mpmath.mpf(n) ** 15 * mpmath.exp(12 * n + 6) * p ** (9 * n - 5) * log**2)
            found = fb.unbalanced_guarantee(n, norm, nu, acc)
            assert found.log10_step == pytest.approx(float(mpmath.log10(step)), rel=1e-12)
            assert found.log10_unbalancedness == pytest.approx(float(mpmath.log10(gap)), rel=1e-12)
            count = 3 * n * (1.5 * p) ** n / (w * step) * log + 1
            assert found.log10_iterations == pytest.approx(float(mpmath.log10(count)), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0.1, 0.0, 0.1), "depth"),
        ((3, 0.3, 0.0, 0.1), "norm"),
        ((3, 0.1, -1.0, 0.1), "cosine"),
        ((3, 0.1, 0.0, 0.0), "accuracy"),
    ],
)
def test_starts_outside_the_statements_are_refused(arguments, message):
    for formula in (fb.flow_time, fb.descent_guarantee, fb.unbalanced_guarantee):
        with pytest.raises(ValueError, match=message):
            formula(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fb.euler_bound(np.array([1.0, 2.0]), np.ones(1), 1.0), "ascend from 0"),
        (lambda: fb.euler_bound(np.array([0.0, 2.0]), np.ones(2), 1.0), "each of the 1 intervals"),
        (lambda: fb.euler_bound(np.array([0.0, 2.0]), np.ones(1), -1.0), "at least 0"),
        (lambda: fb.max_step_smooth(1.0, 1.0, -2.0, 0.1, 1.0), "raise the smoothness"),
        (lambda: fb.growth_integral(3, 0.1, 0.0, 0.5, 1.0), "thinner tube"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


#
# Balance
#


def distance(a, b):
    return np.sqrt(sum(np.sum((np.asarray(x) - np.asarray(y)) ** 2, axis=(-2, -1)) for x, y in zip(a, b, strict=True)))


@pytest.mark.parametrize("widths", [pytest.param((2, 2, 1), marks=pytest.mark.slow), (2, 2, 2, 2), (2, 3, 1)])
def test_lemma_31_on_random_weights(rng, widths):
    num, proved = 200, widths[1] <= widths[0]
    theta = tuple(jnp.asarray(rng.standard_normal((num, b, a))) for a, b in itertools.pairwise(widths))

    @jax.jit
    @jax.vmap
    def look(theta):
        near, nearest = fb.balanced_nearby(theta), fb.nearest_balanced(theta, 60)
        left = jnp.stack([fb.unbalancedness(near), fb.unbalancedness(nearest)])
        return near, nearest, fb.unbalancedness(theta), fb.balanced_distance(theta), left

    near, nearest, magnitude, bound, left = look(theta)
    assert float(jnp.max(left)) < 1e-12
    exact = [
        [
            np.linalg.svd(C, compute_uv=False).sum(-1)
            for C in map(np.asarray, jax.vmap(factorisations.balancedness)(theta))
        ]
    ]
    np.testing.assert_allclose(magnitude, np.max(exact[0], axis=0), rtol=1e-12)
    far, least = distance(theta, near), distance(theta, nearest)
    assert (least <= far * (1 + 1e-12)).all()
    n = len(widths) - 1
    if proved:
        assert (far <= np.asarray(bound)).all()
        assert (np.asarray(bound) < n**1.5 * np.sqrt(np.asarray(magnitude))).all()
        assert np.median(np.asarray(bound) / least) > 1.5
    else:
        assert np.isinf(bound).all()
    away = tuple(W + 1e-3 * jnp.asarray(rng.standard_normal(W.shape)) for W in near)
    close = distance(away, look(away)[1])
    assert (close <= distance(away, near)).mean() > 0.95  # balanced points close by are found


def test_the_bound_of_lemma_31_by_what_is_kept():
    square, falling = (jnp.eye(2),) * 4, (jnp.eye(2), jnp.eye(2), jnp.eye(2), jnp.ones((1, 2)))
    for layers, reach in ((square, 4), (falling, 6)):
        first = (2 * layers[0], *layers[1:])
        expected = np.sqrt(reach * float(fb.unbalancedness(first)))
        assert float(fb.balanced_distance(first)) == pytest.approx(expected)


def test_where_curvature_vanishes_every_step_will_do_and_where_it_is_unknown_none():
    times, growth = np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.0])
    assert float(fb.max_step(times, growth, 0.0, 1.0, 0.1)) == np.inf
    assert fb.descent_bound(times, growth, 0.0, 1.0, 0.1, 10.0).tolist() == [0, 0, 0]
    assert float(fb.max_step(times, np.array([0.5, np.inf]), 1.0, 1.0, 0.1)) == 0
    assert fb.euler_bound(times, np.array([0.5, np.inf]), 1.0)[2] == np.inf
    with pytest.raises(ValueError, match="growth"):
        fb.max_step(times, np.array([0.5, np.nan]), 1.0, 1.0, 0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"initial": -1.0}, "initial"), ({"initial_loss": np.nan}, "loss"), ({"least_eigenvalue": np.nan}, "eigenvalue")],
)
def test_constants_that_are_none(changed, message):
    usual = {"smoothness": 1.0, "initial_loss": 1.0, "least_eigenvalue": 0.0, "radius": 0.1, "time": 1.0}
    with pytest.raises(ValueError, match=message):
        fb.max_step_smooth(**usual | changed)
