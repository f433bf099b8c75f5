"""The catapult's identities and the flip coefficient; the symmetric line in closed form."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gdstab.losses import ScalarProduct, VectorProduct
from gdstab.theory import catapult, symmetric_line
from gdstab.theory.catapult import Phase
from gdstab.updates import gradient_descent
from tests.conftest import assert_close

RULE = gradient_descent()
PLANE = ScalarProduct(2, 1.0, 0.5)  # k is the step size
WIDTH = 6
TWO_LAYERS = VectorProduct(WIDTH, 0.0, 0.5 / WIDTH)


@jax.jit
def step(theta, step_size):
    return RULE.step(TWO_LAYERS, theta, step_size)


@jax.jit
def step_in_the_plane(theta, step_size):
    return RULE.step(PLANE, theta, step_size)


jacobian_in_the_plane = jax.jit(jax.jacobian(step_in_the_plane))


def outputs(theta):
    u, v = np.asarray(theta[:WIDTH]), np.asarray(theta[WIDTH:])
    return u @ v / np.sqrt(WIDTH), (u @ u + v @ v) / WIDTH


@pytest.mark.parametrize("product", [0.7, 2.5, 3.9, 5.0])
def test_catapult_identities_hold_to_rounding(product, rng):
    theta = jnp.asarray(rng.standard_normal(2 * WIDTH))
    output, curvature = outputs(theta)
    step_size = product / curvature
    for _ in range(5):
        predicted = catapult.catapult_step(output, curvature, step_size, WIDTH)
        theta = step(theta, step_size)
        output, curvature = outputs(theta)
        np.testing.assert_allclose(predicted, (output, curvature), rtol=1e-13)


def test_catapult_phases_are_what_wide_networks_do():
    """From a small output at large width: below 2 it shrinks, from 2 to 4 it grows first, above 4 it diverges."""
    width, step_size = 10_000, 1.0
    ends = {}
    for curvature in (1.5, 3.0, 4.5):
        output, now, largest = 0.1, curvature, 0.1
        for _ in range(300):
            output, now = catapult.catapult_step(output, now, step_size, width)
            largest = max(largest, abs(output))
            if largest > 1e6:
                break
        ends[catapult.phase(curvature, step_size)] = largest, abs(output), now
    largest, last, curvature = ends[Phase.LAZY]
    assert largest == 0.1
    assert last < 1e-9
    assert curvature == pytest.approx(1.5, abs=1e-5)
    largest, last, curvature = ends[Phase.CATAPULT]
    assert largest > 10  # of the order of the square root of the width
    assert last < 1e-9
    assert curvature < 2
    assert ends[Phase.DIVERGENT][0] > 1e6


def test_flip_coefficient_against_a_second_iterate(rng):
    r"""$G(G(x)) = x + \dots$ at the flip: its cubic coefficient is $-2c$, expanded here by polynomial arithmetic."""
    for _ in range(5):
        second, third, fourth = rng.uniform(0.5, 2), *rng.uniform(-2, 2, 2)
        eta = 2 / second
        G = np.polynomial.Polynomial([0, 1 - eta * second, -eta * third / 2, -eta * fourth / 6])
        twice = G(G).coef[:4]
        np.testing.assert_allclose(twice[:3], [0, 1, 0], atol=1e-12)
        coefficient = catapult.flip_coefficient(second, third, fourth)
        assert twice[3] == pytest.approx(-2 * coefficient, rel=1e-10)
        assert catapult.flip_slope(second, third, fourth) == pytest.approx(
            3 * second**3 / (3 * third**2 - second * fourth), rel=1e-12
        )


def test_step_of_the_symmetric_line_is_descent(rng):
    for k in (0.7, 1.1, 1.9):
        x = float(rng.uniform(-1, 1))
        after = np.asarray(step_in_the_plane(np.array([x, x]), k))
        assert_close(after * np.sqrt(k), np.full(2, symmetric_line.step(np.sqrt(k) * x, k)))


@pytest.mark.parametrize("k", [1.1, symmetric_line.PERIOD_FOUR, 1.7])
def test_period_two_and_its_multipliers_in_the_plane(k):
    low, high = symmetric_line.period_two(k)
    assert symmetric_line.step(low, k) == pytest.approx(high, rel=1e-14)
    assert symmetric_line.step(high, k) == pytest.approx(low, rel=1e-13)
    first, second = (np.asarray(jacobian_in_the_plane(np.full(2, point / np.sqrt(k)), k)) for point in (low, high))
    multipliers = np.sort(np.linalg.eigvals(second @ first))
    np.testing.assert_allclose(multipliers, np.sort(symmetric_line.period_two_multipliers(k)), atol=1e-12)


def test_fixed_point_multipliers_in_the_plane():
    for k in (0.5, 1.3):
        jacobian = np.asarray(jacobian_in_the_plane(np.ones(2), k))
        expected = np.sort(symmetric_line.fixed_point_multipliers(k))
        np.testing.assert_allclose(np.linalg.eigvalsh(jacobian), expected, atol=1e-14)


def test_where_the_symmetric_line_changes():
    assert symmetric_line.fixed_point_multipliers(symmetric_line.PERIOD_TWO)[0] == -1
    assert symmetric_line.period_two_multipliers(symmetric_line.PERIOD_FOUR)[0] == pytest.approx(-1, abs=1e-14)
    peak = np.sqrt((1 + symmetric_line.CRISIS) / 3)
    largest = symmetric_line.step(peak, symmetric_line.CRISIS)
    assert largest == pytest.approx(np.sqrt(1 + symmetric_line.CRISIS), rel=1e-14)
    with pytest.raises(ValueError, match="k > 1"):
        symmetric_line.period_two(0.9)


def test_accumulation_from_superstable_orbits():
    """Where the critical point has period 2^n accumulates at the same k; found here in 40 digits."""
    with mpmath.workdps(40):

        def miss(k, period):
            start = x = mpmath.sqrt((1 + k) / 3)
            for _ in range(period):
                x = (1 + k) * x - x**3
            return x - start

        found = [mpmath.findroot(lambda k: miss(k, 2), 1.12), mpmath.findroot(lambda k: miss(k, 4), 1.27)]
        for n in range(3, 10):
            guess = found[-1] + (found[-1] - found[-2]) / symmetric_line.FEIGENBAUM
            found.append(mpmath.findroot(lambda k, n=n: miss(k, 2**n), guess))
        a, b, c = found[-3:]
        limit = c - (c - b) ** 2 / (c - 2 * b + a)
        assert float((b - a) / (c - b)) == pytest.approx(symmetric_line.FEIGENBAUM, abs=1e-3)
    assert abs(symmetric_line.ACCUMULATION - float(limit)) < 2e-10


def test_lyapunov_exponent_at_the_last_bounded_step():
    angle = np.pi * (np.arange(100_000) + 0.5) / 100_000  # the invariant density of the Chebyshev cubic, X = 2 cos
    slope = 1 + symmetric_line.LAST_BOUNDED - 3 * (2 * np.cos(angle)) ** 2
    assert np.log(np.abs(slope)).mean() == pytest.approx(symmetric_line.LAST_EXPONENT, abs=1e-3)


def test_bad_input():
    with pytest.raises(ValueError, match="width: expected an integer of at least 1"):
        catapult.catapult_step(1.0, 1.0, 1.0, 0)
    with pytest.raises(ValueError, match="step_size: expected a positive"):
        catapult.phase(1.0, -1.0)
