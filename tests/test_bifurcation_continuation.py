"""Branches of cycles and their bifurcation points, the doubling cascade, and normal forms of flips."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from gdstab import ensembles, stability
from gdstab.bifurcation import Kind, cycle_points, doubled, doublings, flip_form, follow, predicted_amplitude, sweep
from gdstab.losses import ScalarProduct
from gdstab.orbits import find_cycle, refine
from gdstab.theory import catapult, symmetric_line
from gdstab.updates import UpdateRule, from_optax, gradient_descent

RULE = gradient_descent()
PLANE = ScalarProduct(2, 1.0, 1.0)  # k is twice the step size
# Second to fourth derivative; the last c < 0.
POLYNOMIALS = [(2.0, 0.7, -1.0), pytest.param((1.5, -1.0, 0.5), marks=pytest.mark.slow), (0.8, 0.3, 2.0)]


def line(x):
    """Its descent is the symmetric line with k for the step size, in X / sqrt(k)."""
    return (1 - x * x) ** 2 / 4


class Polynomial(jax.tree_util.Partial):
    """A loss on the line with a minimum at 0 and these derivatives there."""

    def __new__(cls, *derivatives):
        return super().__new__(cls, _polynomial, jnp.array(derivatives))


def _polynomial(derivatives, x):
    second, third, fourth = derivatives
    return second * x**2 / 2 + third * x**3 / 6 + fourth * x**4 / 24


def as_rule(step):
    """Any map in place of an update."""

    def of_loss(loss, x, step_size):
        del loss
        return step(x, step_size)

    return UpdateRule(lambda theta, _: theta, of_loss, lambda x: x)


QUADRATIC = as_rule(lambda x, s: x * x - s)
DELAYED = as_rule(lambda x, s: jnp.stack([s * x[0] * (1 - x[1]), x[0]]))
PITCHFORK = as_rule(lambda x, s: s * x - x**3)


def events(branch):
    return [(point.kind, point.step_size) for point in branch.bifurcations]


def flips_in_many_digits(count):
    """Flips of the symmetric line from f^p(x) = x, (f^p)'(x) = -1, in 40 digits."""

    def miss(x, k, period):
        start, slope = x, mpmath.mpf(1)
        for _ in range(period):
            x, slope = (1 + k) * x - x**3, slope * (1 + k - 3 * x * x)
        return x - start, slope + 1

    found = []
    guesses = [(1.144 * 1.112, 1.236), (1.33, 1.288), (1.34, 1.2992), (1.343, 1.30163)]
    with mpmath.workdps(40):
        for n, (_, k) in enumerate(guesses[:count], start=1):
            period, x = 2**n, mpmath.mpf(1.2)
            for _ in range(20_000):
                x = (1 + k) * x - x**3
            found.append(float(mpmath.findroot(lambda x, k, p=period: miss(x, k, p), (x, k), tol=1e-25)[1]))
    return found


@pytest.fixture(scope="module")
def cascade():
    return doublings(RULE, line, jnp.array(0.9), 0.8, 2.0, 7)


def test_doublings_of_the_symmetric_line(cascade):
    assert cascade.ended == "count"
    np.testing.assert_array_equal(cascade.periods, 2 ** np.arange(7))
    np.testing.assert_allclose(
        cascade.step_sizes[:2], [symmetric_line.PERIOD_TWO, symmetric_line.PERIOD_FOUR], atol=1e-12
    )
    np.testing.assert_allclose(cascade.step_sizes[1:5], flips_in_many_digits(4), atol=1e-10)
    assert cascade.accumulation == pytest.approx(symmetric_line.ACCUMULATION, abs=1e-7)
    assert abs(cascade.ratios[-1] - symmetric_line.FEIGENBAUM) < 1e-3
    assert (np.diff(np.abs(cascade.ratios - symmetric_line.FEIGENBAUM)) < 0).all()
    assert all(bool(form.supercritical) for form in cascade.forms)


@pytest.mark.slow
def test_doublings_in_the_plane(cascade):
    """From the flattest minimum, one of a continuum of fixed points; the doubled cycles are isolated."""
    plane = doublings(RULE, PLANE, jnp.array([0.9, 0.9]), 0.4, 1.0, 2)
    np.testing.assert_allclose(2 * plane.step_sizes, cascade.step_sizes[:2], atol=1e-11)


@pytest.mark.slow
def test_doublings_in_single_precision(cascade):
    single = doublings(RULE, line, jnp.array(0.9, jnp.float32), 0.8, 2.0, 2)
    np.testing.assert_allclose(single.step_sizes, cascade.step_sizes[:2], atol=1e-5)


@pytest.mark.slow
def test_doublings_of_the_quadratic_family():
    """Known values: 3/4, 5/4, 1.36809894, 1.39404616, 1.39963124; the accumulation is at 1.401155189."""
    found = doublings(QUADRATIC, line, jnp.array(-0.1), 0.3, 2.0, 6)
    np.testing.assert_allclose(found.step_sizes[:5], [0.75, 1.25, 1.36809894, 1.39404616, 1.39963124], atol=1e-8)
    assert found.accumulation == pytest.approx(1.401155189, abs=1e-6)


@pytest.mark.slow
def test_momentum_doubles_at_its_own_threshold():
    rule = from_optax(_heavy_ball)
    found = doublings(rule, line, rule.init(jnp.array(0.9), 1.0), 1.0, 2.0, 2)
    assert found.step_sizes[0] == pytest.approx(2 * (1 + 0.3) / 2, abs=1e-12)  # the curvature at 1 is 2
    assert found.periods.tolist() == [1, 2]
    after = find_cycle(rule, line, rule.init(jnp.array(0.9), 1.4), found.step_sizes[1] + 1e-3, 8)
    assert after.period == 4


def _heavy_ball(step_size):
    return optax.sgd(step_size, momentum=0.3)


@pytest.mark.slow
def test_at_other_minima_the_oscillation_drifts():
    found = doublings(RULE, PLANE, jnp.array([0.9, 1.1]), 0.4, 1.0, 2)
    x, y = np.asarray(found.flips[0].state)
    assert found.step_sizes == pytest.approx([1 / (x * x + y * y)], abs=1e-12)
    assert "drift along a continuum" in found.ended
    with pytest.raises(ValueError, match="no cycle of period 2"):
        doubled(RULE, PLANE, found.flips[0])


@pytest.fixture(scope="module")
def two_in_the_plane():
    cycle = find_cycle(RULE, PLANE, jnp.array([0.5, 0.6]), 0.55)
    return follow(RULE, PLANE, cycle, 0.3, 0.8)


def test_a_branch_against_its_closed_form(two_in_the_plane):
    branch = two_in_the_plane
    assert branch.period == 2
    assert branch.neutral == 0
    assert branch.ends == ("birth", "range")
    k = 2 * branch.step_sizes
    assert (k[0], k[-1]) == pytest.approx((1, 1.6), abs=1e-10)
    assert (np.diff(k) > 0).all()
    points = cycle_points(RULE, PLANE, branch)
    assert points.shape == (len(k), 2, 2)
    np.testing.assert_allclose(points[0], 1, atol=1e-9)  # the fixed point that it is born from
    np.testing.assert_allclose(points[..., 0], points[..., 1], atol=1e-9)
    exact = np.array([symmetric_line.period_two(value) for value in k[1:]]) / np.sqrt(k[1:, None])
    np.testing.assert_allclose(np.sort(points[1:, :, 0], axis=1), exact, atol=1e-10)
    multipliers = np.sort(branch.multipliers.real, axis=1)
    np.testing.assert_allclose(multipliers, np.sort(np.transpose(symmetric_line.period_two_multipliers(k))), atol=1e-9)
    np.testing.assert_array_equal(branch.stable[(k > 1.0001) & (k < 1.236)], True)
    np.testing.assert_array_equal(branch.stable[k > 1.2361], False)


def test_a_branch_is_born_in_a_flip(two_in_the_plane):
    birth, flip = two_in_the_plane.bifurcations
    assert (birth.kind, birth.birth, birth.period) == (Kind.FLIP, True, 1)
    assert birth.step_size == pytest.approx(0.5, abs=1e-10)
    assert (flip.kind, flip.birth, flip.period) == (Kind.FLIP, False, 2)
    assert 2 * flip.step_size == pytest.approx(symmetric_line.PERIOD_FOUR, abs=1e-12)


def test_fixed_points_of_a_manifold_stay_put():
    x = 1.2
    cycle = refine(RULE, PLANE, jnp.array([x, 1 / x]), 0.3, 1)
    branch = follow(RULE, PLANE, cycle, 0.2, 0.9)
    assert branch.neutral == 1
    np.testing.assert_allclose(branch.states, np.broadcast_to([x, 1 / x], branch.states.shape), atol=1e-12)
    (flip,) = branch.bifurcations
    assert flip.step_size == pytest.approx(float(stability.threshold(PLANE, jnp.array([x, 1 / x]))), abs=1e-12)
    np.testing.assert_array_equal(branch.stable, branch.step_sizes < flip.step_size)


def test_folds_are_passed():
    """The cycles of period 3 of x^2 - eta are born in pairs at 7/4."""
    cycle = find_cycle(QUADRATIC, line, jnp.array(0.1), 1.76, 8, max_steps=2000)
    assert cycle.period == 3
    branch = follow(QUADRATIC, line, cycle, 1.5, 1.9)
    (first, fold), (second, flip) = events(branch)
    assert (first, second) == (Kind.FOLD, Kind.FLIP)
    assert fold == pytest.approx(1.75, abs=1e-12)
    assert flip == pytest.approx(1.7685291524676, abs=1e-10)
    assert branch.ends == ("range", "range")
    assert branch.step_sizes[0] == branch.step_sizes[-1] == 1.9
    turn = int(branch.step_sizes.argmin())
    assert not branch.stable[:turn].any()
    assert branch.stable[turn + 1]


def test_neimark_sacker_point():
    """The delayed logistic map: its fixed point 1 - 1/s has multipliers of modulus sqrt(s - 1)."""
    cycle = refine(DELAYED, PLANE, jnp.array([0.4, 0.4]), 1.7, 1)
    branch = follow(DELAYED, PLANE, cycle, 1.2, 2.5)
    (point,) = branch.bifurcations
    assert point.kind is Kind.NEIMARK_SACKER
    assert point.step_size == pytest.approx(2, abs=1e-12)
    np.testing.assert_allclose(np.sort(np.angle(point.multipliers)), [-np.pi / 3, np.pi / 3], atol=1e-10)
    complex_ones = branch.step_sizes > 1.3
    modulus = np.sqrt(branch.step_sizes - 1)[complex_ones]
    np.testing.assert_allclose(np.abs(branch.multipliers[complex_ones, 0]), modulus, atol=1e-10)


def test_branches_that_cross_are_no_folds():
    cycle = refine(PITCHFORK, line, jnp.array(0.0), 0.5, 1)
    (point,) = follow(PITCHFORK, line, cycle, 0.3, 1.5).bifurcations
    assert point.kind is Kind.BRANCH
    assert point.step_size == pytest.approx(1, abs=1e-12)


def test_sweep_agrees_with_the_closed_form_and_stops_at_folds():
    cycle = find_cycle(RULE, line, jnp.array(0.5), 1.1)
    sizes = np.linspace(1.1, 1.4, 31)
    branch = sweep(RULE, line, cycle, sizes)
    np.testing.assert_array_equal(branch.step_sizes, sizes)
    exact = symmetric_line.period_two_multipliers(sizes)[0]
    np.testing.assert_allclose(branch.multipliers[:, 0], exact, atol=1e-10)
    assert events(branch) == [(Kind.FLIP, pytest.approx(symmetric_line.PERIOD_FOUR, abs=1e-12))]
    three = find_cycle(QUADRATIC, line, jnp.array(0.1), 1.76, 8, max_steps=2000)
    down = sweep(QUADRATIC, line, three, np.linspace(1.76, 1.74, 21))
    assert down.ends[1] == "no cycle nearby"
    assert down.step_sizes.min() == pytest.approx(1.75, abs=1.1e-3)


@pytest.mark.parametrize("derivatives", POLYNOMIALS)
def test_flip_form_of_descent_on_the_line(derivatives):
    form = flip_form(RULE, Polynomial(*derivatives), jnp.array(0.0), 2 / derivatives[0])
    assert float(form.multiplier) == pytest.approx(-1, abs=1e-14)
    assert float(form.slope) == pytest.approx(-derivatives[0], rel=1e-14)
    assert float(form.coefficient) == pytest.approx(catapult.flip_coefficient(*derivatives), rel=1e-13)
    assert float(form.amplitude_slope) == pytest.approx(catapult.flip_slope(*derivatives), rel=1e-13)
    assert bool(form.supercritical) == (catapult.flip_coefficient(*derivatives) > 0)
    assert float(jnp.abs(form.drift).max()) == 0


@pytest.mark.parametrize("derivatives", POLYNOMIALS)
def test_amplitude_is_right_to_first_order(derivatives):
    """The error of the squared amplitude is quadratic in the distance from the flip: halving it divides by four."""
    loss, eta0 = Polynomial(*derivatives), 2 / derivatives[0]
    form = flip_form(RULE, loss, jnp.array(0.0), eta0)
    side = 1 if form.supercritical else -1
    errors = []
    for distance in (8e-4, 4e-4, 2e-4):
        eta = eta0 + side * distance * eta0
        size = float(predicted_amplitude(form, eta, eta0))
        cycle = refine(RULE, loss, jnp.array(size) + 0.5 * form.bend[0] * size**2, eta, 2)
        assert cycle.converged
        assert bool(cycle.stable) == (side == 1)
        apart = float(jnp.abs(cycle.theta[0] - cycle.theta[1]))
        errors.append((apart / 2) ** 2 - size**2)
        assert (apart / 2) ** 2 == pytest.approx(size**2, rel=20 * distance)
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 4, rtol=0.08)
    assert np.isnan(predicted_amplitude(form, eta0 * (1 - side * 0.1), eta0))


def test_amplitude_of_the_symmetric_line_along_its_normal():
    r"""At the flattest minimum half the distance is $\sqrt{(k - 1) / (2k)}$ in the plane: slope 1 per step size."""
    form = flip_form(RULE, PLANE, jnp.ones(2), 0.5)
    np.testing.assert_allclose(form.direction, [np.sqrt(0.5)] * 2, atol=1e-14)
    assert float(form.amplitude_slope) == pytest.approx(1, abs=1e-13)
    np.testing.assert_allclose(form.drift, 0, atol=1e-14)


def test_flip_form_of_a_cycle(cascade):
    """Period 2 to 4: the new points part as predicted."""
    flip, form = cascade.flips[1], cascade.forms[1]
    for distance, rtol in ((1e-4, 2e-2), (1e-5, 2e-3)):
        eta = flip.step_size + distance
        cycle = refine(
            RULE, line, flip.state + form.direction[0] * predicted_amplitude(form, eta, flip.step_size), eta, 4
        )
        apart = float(jnp.abs(cycle.theta[0] - cycle.theta[2])) / 2
        assert apart == pytest.approx(float(predicted_amplitude(form, eta, flip.step_size)), rel=rtol)


@pytest.mark.parametrize("x", [1.0, 1.3, 0.6])
def test_normal_direction_along_the_manifold_of_minima(x):
    """The coefficient is that of the loss on the normal line, whose derivatives are those of a quartic."""
    theta = jnp.array([x, 1 / x])
    form = flip_form(RULE, PLANE, theta, stability.threshold(PLANE, theta))
    n = np.array([1 / x, x]) / np.hypot(x, 1 / x)
    # (1 - (x + t n0)(y + t n1))^2 = (b t + a t^2)^2
    a, b = n[0] * n[1], x * n[1] + n[0] / x
    derivatives = 2 * b * b, 12 * a * b, 24 * a * a
    np.testing.assert_allclose(np.abs(form.direction), np.abs(n), atol=1e-12)
    assert float(form.coefficient) == pytest.approx(catapult.flip_coefficient(*derivatives), rel=1e-11)
    assert float(form.amplitude_slope) == pytest.approx(catapult.flip_slope(*derivatives), rel=1e-11)


@pytest.mark.parametrize("x", [1.3, 0.6])
def test_drift_along_the_manifold_is_what_descent_does(x):
    theta = jnp.array([x, 1 / x])
    eta = stability.threshold(PLANE, theta)
    form = flip_form(RULE, PLANE, theta, eta)
    tangent = np.array([x, -1 / x]) / np.hypot(x, 1 / x)
    drift = float(tangent @ np.asarray(form.drift))
    slope = 2 * (2 * x * tangent[0] + 2 / x * tangent[1])  # of the sharpness 2 (x^2 + y^2)
    assert drift == pytest.approx(-0.5 * float(eta) * slope, rel=1e-11)
    size = 1e-3
    moved = sum(
        tangent @ np.asarray(RULE.step(PLANE, theta + sign * size * form.direction, eta) - theta) for sign in (1, -1)
    )
    assert moved == pytest.approx(2 * drift * size**2, rel=1e-5)


def test_normal_forms_take_whole_manifolds():
    def slope(theta):
        return flip_form(RULE, PLANE, theta, stability.threshold(PLANE, theta)).amplitude_slope

    x = 1.1 ** np.arange(-3.0, 4.0)
    slopes = ensembles.map_points(slope, np.stack([x, 1 / x], axis=1))
    np.testing.assert_allclose(slopes, slopes[::-1], rtol=1e-11)  # x and y are alike
    single = flip_form(RULE, PLANE, jnp.array([x[2], 1 / x[2]]), 1 / (x[2] ** 2 + x[2] ** -2)).amplitude_slope
    assert slopes[2] == pytest.approx(float(single), rel=1e-12)


def test_bad_input():
    cycle = find_cycle(RULE, line, jnp.array(0.5), 1.1)
    with pytest.raises(ValueError, match="count: expected an integer"):
        doublings(RULE, line, jnp.array(0.9), 0.8, 2.0, 0)
    with pytest.raises(ValueError, match="max_period: expected an integer"):
        doublings(RULE, line, jnp.array(0.9), 0.8, 2.0, 2, max_period=0)
    with pytest.raises(ValueError, match=r"between them, got 1\.2 and 1\.5"):
        follow(RULE, line, cycle, 1.2, 1.5)
    with pytest.raises(ValueError, match="direction: expected 1"):
        follow(RULE, line, cycle, 1.0, 1.5, direction=2)
    with pytest.raises(ValueError, match="monotone"):
        sweep(RULE, line, cycle, [1.1, 1.2, 1.15])
    nothing = refine(QUADRATIC, line, jnp.array(0.3), -0.3, 1)
    with pytest.raises(ValueError, match="does not confirm"):
        follow(QUADRATIC, line, eqx.tree_at(lambda c: c.step_size, nothing, jnp.array(0.1)), 0.05, 0.2, rank_tol=10.0)
    schedule = from_optax(lambda s: optax.sgd(lambda count: s / (1 + count)), autonomous=False)
    with pytest.raises(ValueError, match="changes from step to step"):
        doublings(schedule, line, schedule.init(jnp.array(0.9), 0.8), 0.8, 2.0)


@pytest.mark.slow
def test_a_bowl_has_no_doubled_cycle():
    bowl = Polynomial(2.0, 0.0, 0.0)
    found = follow(RULE, bowl, refine(RULE, bowl, jnp.array(0.0), 0.9, 1), 0.5, 1.5)
    [flip] = [point for point in found.bifurcations if point.kind == Kind.FLIP]
    with pytest.raises(ValueError, match="degenerate"):
        doubled(RULE, bowl, flip)
