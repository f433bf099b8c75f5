"""Answers do not depend on units: the loss times a with steps over a is the same map, and so is theta times b.

For L_b(theta) = b^2 L(theta / b) the step size is the same, and orbits are b times as large.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdstab as gd
from gdstab import bifurcation, minima, orbits, stability
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import symmetric_line
from gdstab.updates import from_optax, gradient_descent

RULE = gradient_descent()
UNITS = np.array([(1, 1), (1e-12, 1e8), (1e12, 1e-8)])
MORE = np.concatenate([UNITS, [(1e12, 1), (1e-12, 1), (1, 1e-8), (1, 1e8), (3e5, 7e3)]])
BOTH = pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])


class InUnits(eqx.Module):
    """a b^2 L(theta / b), the units traced, so that all of them compile once."""

    loss: object = eqx.field(static=True)
    a: jax.Array
    b: jax.Array

    def __call__(self, theta):
        return self.a * self.b**2 * self.loss(theta / self.b)

    def residual(self, theta):
        """Of the product."""
        return jnp.sqrt(self.a) * self.b * (1 - theta[0] * theta[1] / self.b**2)


def in_units(loss, a, b, dtype=np.float64):
    return InUnits(loss, jnp.asarray(a, dtype), jnp.asarray(b, dtype))


def well(x):
    return (1 - x[0] ** 2) ** 2 / 4


def saddle(x):
    """Minima at (-1, 0) and (1, 0), a saddle at 0, which attracts along its second axis."""
    return (x[0] ** 2 - 1) ** 2 / 4 + x[1] ** 2 / 2


def shifted_well(x):
    return well(x - 30)


def product(x):
    return (1 - x[0] * x[1]) ** 2


def bowl(x):
    return (x[0] ** 2 + 3 * x[1] ** 2) / 2


def heavy_ball(step_size):
    return optax.sgd(step_size, momentum=0.3)


@BOTH
def test_cycles_of_the_engine(dtype):
    """The double well at steps with a fixed point, periods 2 and 4, and chaos: verdicts and periods."""
    points, steps = np.linspace(0.2, 0.7, 6, dtype=dtype)[:, None], np.array([0.8, 1.2, 1.26, 1.5])
    found = []
    for a, b in UNITS:
        stopping = StoppingRule(None, None, 1e3 * b, 3000, 8)
        loss = in_units(well, a, b, dtype)
        one = gd.run(RULE, loss, (points * dtype(b)).astype(dtype), (steps / a).astype(dtype), stopping)
        found.append((one.outcome, one.period))
    outcome, period = found[0]
    assert (outcome[[0, 3]] == Outcome.UNDECIDED).all()
    np.testing.assert_array_equal(period, np.broadcast_to([[0], [2], [4], [0]], (4, 6)))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@BOTH
def test_periods_of_diagrams(dtype):
    """Chaos in small units is no fixed point."""
    for a, b in ((1, 1e-7), (1e12, 1e8)):
        loss, starts = in_units(well, a, b, dtype), (np.array([[0.3], [0.6]]) * b).astype(dtype)
        steps = (np.array([0.8, 1.2, 1.5]) / a).astype(dtype)
        found = bifurcation.orbit_diagram(RULE, loss, steps, starts, transient=1000, kept=1, max_period=4)
        np.testing.assert_array_equal(found.period, [[1, 1], [2, 2], [0, 0]])


@pytest.mark.slow
def test_a_minimum_at_the_origin_is_a_fixed_point():
    """Its orbit shrinks for ever, and is never near in its own size."""
    found = bifurcation.orbit_diagram(RULE, bowl, 0.25, np.full((1, 2), 1e-8), transient=100, kept=1, max_period=2)
    assert found.period.tolist() == [[1]]


def test_a_passage_of_a_saddle_has_no_period():
    starts = np.array([[1e-9, 0.5], [1e-9, 0.01], [0.0, 0.5], [0.9, 0.5]], np.float32)
    found = bifurcation.orbit_diagram(RULE, saddle, np.float32(0.1), starts, transient=104, kept=1)
    assert not found.period[0, :3].any()


@BOTH
def test_a_saddle_that_is_passed_is_no_end(dtype):
    """From (1e-9, 0.5) on it is near the saddle for long; from (0, 0.5) it would stay there."""
    for a, b in UNITS if dtype == np.float32 else MORE:
        for start in ([1e-9, 0.5], [0.0, 0.5], [0.0, 0.0]):
            theta = jnp.asarray(start, dtype) * dtype(b)
            cycle = orbits.find_cycle(RULE, in_units(saddle, a, b, dtype), theta, 0.1 / a)
            np.testing.assert_allclose(np.asarray(cycle.theta[0]) / b, [1, 0], atol=1e-5, err_msg=f"{a} {b} {start}")


def ends(loss, step, start, dtype, units):
    """The cycles in all these units."""
    return [
        orbits.find_cycle(RULE, in_units(loss, a, b, dtype), jnp.array([start], dtype) * dtype(b), step / a)
        for a, b in units
    ]


@BOTH
def test_period_two_by_newtons_method(dtype):
    exact = np.sort(symmetric_line.period_two(1.2)) / np.sqrt(1.2)
    for cycle, (_, b) in zip(ends(well, 1.2, 0.3, dtype, MORE), MORE, strict=True):
        assert (cycle.period, orbits.minimal_period(cycle)) == (2, 2)
        np.testing.assert_allclose(np.sort(np.ravel(cycle.theta)) / b, exact, rtol=2e-6)
        assert float(cycle.multipliers[0].real) == pytest.approx(-0.68, abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "step", "start", "period"), [(well, 1.7, 0.3, 6), (shifted_well, 1.2, 30.3, 2)])
def test_other_cycles_by_newtons_method(loss, step, start, period):
    """A long one that almost anything near it leaves, and one far from 0, in single precision."""
    for cycle in ends(loss, step, start, np.float32, MORE):
        assert (cycle.period, bool(cycle.stable)) == (period, True)


@pytest.mark.slow
@BOTH
def test_momentum_in_units_of_the_loss(dtype):
    """Its size is that of a gradient: 1e12 times that of the parameters, or a share of it. One multiplier is beta."""
    rule = from_optax(heavy_ball)
    for a, b in UNITS:
        start = rule.init(jnp.array([0.7], dtype) * dtype(b), jnp.asarray(1.4 / a, dtype))
        cycle = orbits.find_cycle(rule, in_units(well, a, b, dtype), start, 1.4 / a)
        assert cycle.period == 2
        np.testing.assert_allclose(np.sort(np.ravel(cycle.theta)) / b, [0.83918, 1.10651], atol=1e-4)
        np.testing.assert_allclose(np.prod(np.asarray(cycle.multipliers)), 0.09, rtol=1e-3)


@pytest.mark.slow
def test_chaos_has_no_cycle():
    for dtype, b in ((np.float64, 1e-7), (np.float64, 1e7), (np.float32, 1e-7)):
        with pytest.raises(ValueError, match="undecided"):
            orbits.find_cycle(
                RULE, in_units(well, 1, b, dtype), jnp.array([0.6], dtype) * dtype(b), 1.9, 8, max_steps=3000
            )


@pytest.mark.slow
def test_branches_and_doublings():
    """Flips at 1 and at sqrt 5 - 1, as in units of 1."""
    for a, b in UNITS:
        loss, start = in_units(well, a, b), jnp.array([0.9 * b])
        cascade = bifurcation.doublings(RULE, loss, start, 0.8 / a, 2 / a, count=2)
        np.testing.assert_allclose(cascade.step_sizes * a, [1, np.sqrt(5) - 1], rtol=1e-9)


@pytest.mark.slow
def test_hysteresis_is_nudged_in_units_of_theta():
    gaps = []
    for b in (1e-8, 1.0, 1e8):
        found = bifurcation.hysteresis(
            RULE, in_units(well, 1, b), np.linspace(0.9, 1.1, 5), np.array([[0.9 * b]]), settle=300, kept=4
        )
        gaps.append(found.gap / b)
    np.testing.assert_allclose(gaps[0], gaps[1], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(gaps[2], gaps[1], rtol=1e-5, atol=1e-9)


def test_points_on_the_manifold_of_minima():
    for a, b in UNITS:
        loss = in_units(product, a, b)
        found = minima.project(loss, jnp.array([2.0, 1.0]) * b)
        np.testing.assert_allclose(jnp.prod(found.theta / b), 1, rtol=1e-12)
        tangent = minima.tangent_space(loss, found.theta)
        np.testing.assert_allclose(tangent @ found.theta[::-1], 0, atol=1e-9 * b)
        with pytest.raises(ValueError, match="must lie on M"):
            minima.tangent_space(loss, jnp.array([1.0, 1.001]) * b)


@pytest.mark.slow
def test_critical_points_and_their_kinds():
    """What moves by a tenth of its size is no fixed point, however small; zero eigenvalues beside a floor."""
    for a, b in UNITS:
        loss = in_units(product, a, b)
        assert int(stability.classify(loss, jnp.ones(2) * b).kind) == stability.Kind.MINIMUM
        assert int(stability.classify(loss, jnp.zeros(2)).kind) == stability.Kind.STRICT_SADDLE
        stability.extend(RULE, loss, jnp.ones(2) * b, 0.1 / a)
        with pytest.raises(ValueError, match="one update leaves where it is"):
            stability.extend(RULE, loss, jnp.array([1.0, 0.9]) * b, 0.1 / a)
    flat = in_units(lambda x: 0.5 + x[0] ** 2 + x[1] ** 4, 1e-12, 1.0)  # a tiny loss, yet not at its floor
    assert int(stability.classify(flat, jnp.array([0.0, 1e-6])).kind) == stability.Kind.DEGENERATE
