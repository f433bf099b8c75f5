"""Integers in the state of a rule: those that fade are held, those that do not are a phase, the rest is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab import bifurcation, lyapunov, orbits, stability, updates
from gdstab._clocks import clock_of
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import UpdateRule, from_optax


def parabola(theta):
    return 0.5 * jnp.sum(theta**2)


def wells(theta):
    return jnp.sum((1 - theta**2) ** 2) / 4  # descent: x + eta x (1 - x^2), flip of 1 at a step of 1


def counting(factor, start=0, dtype=jnp.int32):
    """Descent by `factor(count)` times the step size."""

    def step(loss, state, step_size):
        theta, count = state
        scale = jnp.asarray(factor(count), theta.dtype) * jnp.asarray(step_size, theta.dtype)
        return theta - scale * jax.grad(loss)(theta), count + jnp.asarray(1, dtype)

    return UpdateRule(lambda theta, _: (theta, jnp.asarray(start, dtype)), step, lambda state: state[0])


def pulled(phase_of, advance, begin):
    """To 1 by half the way in one phase, to -1 in the other: it ends on -1/3, 1/3, and has no fixed point."""

    def step(loss, state, step_size):
        del loss, step_size
        theta, phase = state
        return theta - 0.5 * (theta - jnp.where(phase_of(phase), 1.0, -1.0)), advance(phase)

    return UpdateRule(lambda theta, _: (theta, begin), step, lambda state: state[0])


EVERY = {k: from_optax(lambda s, k=k: optax.chain(optax.sgd(s), optax.apply_every(k))) for k in (2, 3)}
GATHERED = from_optax(lambda s: optax.MultiSteps(optax.sgd(s), 3).gradient_transformation())
NESTED = from_optax(lambda s: optax.MultiSteps(optax.sgd(s, momentum=0.5), 2).gradient_transformation())
CYCLIC = counting(lambda count: jnp.where(count % 2 == 0, 1.0, 2.0))
PULLED = pulled(lambda count: count % 2 == 0, lambda count: count + 1, jnp.int32(0))
FLIPPED = pulled(lambda flag: flag, lambda flag: ~flag, jnp.asarray(True))


def noisy(loss, state, step_size):
    theta, key = state
    noise = jax.random.normal(key, theta.shape, theta.dtype)
    return theta - step_size * (jax.grad(loss)(theta) + noise), jax.random.split(key)[0]


def held_at(rule):
    return clock_of(rule, None, rule.init(jnp.array([0.3, 0.2]), 0.1)).period


@pytest.mark.parametrize(
    ("rule", "threshold", "dtype"),
    [
        pytest.param(GATHERED, 2.0, np.float32, marks=pytest.mark.slow),  # it gathers in single precision
        pytest.param(NESTED, 3.0, np.float32, marks=pytest.mark.slow),
        pytest.param(EVERY[2], 1.0, np.float64, marks=pytest.mark.slow),
        pytest.param(EVERY[3], 2 / 3, np.float64, marks=pytest.mark.slow),
        (CYCLIC, 1.5, np.float64),  # (1 - eta) (1 - 2 eta) = 1
        (CYCLIC, 1.5, np.float32),
    ],
)
def test_thresholds_are_those_of_a_whole_round(rule, threshold, dtype):
    found = stability.threshold_of(rule, parabola, jnp.zeros(1, dtype), 0.01, 10.0)
    assert found.step_size == pytest.approx(threshold, rel=1e-9 if dtype == np.float64 else 1e-4)
    assert found.width == found.bracket <= 1e-5


@pytest.mark.slow
def test_orbits_agree_with_the_thresholds():
    """Below they converge, above they leave: by running, which knows nothing of a round."""
    sizes = jnp.array([0.97, 1.03])
    for rule, threshold in ((EVERY[2], 1.0), (CYCLIC, 1.5)):
        end = jax.vmap(lambda eta, rule=rule: orbits.settle(rule, parabola, jnp.ones(1), eta, StoppingRule()))(
            threshold * sizes
        )
        assert end.outcome.tolist() == [Outcome.CONVERGED, Outcome.DIVERGED]


@pytest.mark.parametrize("rule", [PULLED, pytest.param(FLIPPED, marks=pytest.mark.slow)])
def test_a_cycle_of_a_rule_with_a_phase(rule):
    state = rule.init(jnp.array([0.3]), 0.5)
    cycle = orbits.find_cycle(rule, parabola, state, 0.5)
    assert (cycle.period, cycle.phases, orbits.minimal_period(cycle)) == (2, 2, 2)
    np.testing.assert_allclose(np.sort(cycle.theta[:, 0]), [-1 / 3, 1 / 3], atol=1e-12)
    assert cycle.multipliers[0] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="multiple of 2"):
        orbits.refine(rule, parabola, state, 0.5, 3)


@pytest.mark.slow
def test_the_cascade_of_a_rule_with_a_phase_is_that_of_its_round():
    """Two steps of `apply_every(2)` are one of twice the size: flips at half the step sizes, of twice the periods."""
    rule, state = EVERY[2], EVERY[2].init(jnp.array([0.9]), 0.3)
    cascade = bifurcation.doublings(rule, wells, state, 0.35, 0.7, count=2)
    np.testing.assert_allclose(cascade.step_sizes, [0.5, (np.sqrt(5) - 1) / 2], rtol=1e-9)
    assert cascade.periods.tolist() == [2, 4]
    starts = jnp.array([[0.3]])
    found = bifurcation.orbit_diagram(rule, wells, [0.3, 0.55], starts, transient=2000, kept=4)
    assert found.period.tolist() == [[2], [4]]
    with pytest.raises(ValueError, match="multiple of 2"):
        bifurcation.flip_form(rule, wells, cascade.flips[0].state, 0.5)


def test_exponents_are_those_of_the_steps():
    rule = CYCLIC
    found = lyapunov.spectrum(rule, parabola, rule.init(jnp.ones(1), 0.2), 0.2, 800)
    assert float(found.value[0]) == pytest.approx(np.log(0.8 * 0.6) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("rule", "period"),
    [
        (from_optax(optax.adam), 1),
        (counting(lambda count: jnp.minimum(count, 40)), 1),  # it warms up
        (counting(lambda count: 1 + count % 4, start=5), 4),
        pytest.param(  # 256 is no multiple of 3
            counting(lambda count: 1 + count % 3, dtype=jnp.uint8), 256, marks=pytest.mark.slow
        ),
        (counting(lambda count: jnp.where(count % 100 == 99, 1.0, 0.0)), 100),
        (counting(lambda count: 1 + jnp.cos(2 * jnp.pi * count.astype(float) / 10) / 2), 10),
        (from_optax(lambda s: optax.MultiSteps(optax.adam(s), 5).gradient_transformation()), 5),
        (from_optax(lambda s: optax.apply_if_finite(optax.sgd(s), 3)), 1),
    ],
)
def test_the_round_of_a_rule(rule, period):
    assert held_at(rule) == period


def test_a_counter_that_fades_is_held_where_it_has_faded():
    rule = from_optax(optax.adam)
    state = rule.init(jnp.array([0.3, 0.2]), 0.1)
    assert int(clock_of(rule, None, state).late(state)[1][0].count) > 2**24


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (counting(lambda count: 1 / (1 + count.astype(float) / 100)), "schedule"),
        (counting(lambda count: 0.99 ** count.astype(float)), "vanishes"),
        pytest.param(
            UpdateRule(lambda theta, _: (theta, jax.random.key(0)), noisy, lambda state: state[0]),
            "random numbers",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_neither_fades_nor_comes_round_is_refused(rule, message):
    theta = jnp.zeros(1)
    state = rule.init(theta, 0.1)
    for attempt in (
        lambda: stability.threshold_of(rule, parabola, theta, 0.01, 1.0),
        lambda: stability.multipliers(rule, parabola, state, 0.1),
        lambda: orbits.find_cycle(rule, parabola, state, 0.1),
        lambda: lyapunov.largest(rule, parabola, state, 0.1, 100),
        lambda: bifurcation.orbit_diagram(rule, parabola, [0.1], theta[None], transient=8, kept=8),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            attempt()
        assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_random_numbers_in_a_state_are_refused():
    rule = UpdateRule(lambda theta, _: (theta, jax.random.key(0)), noisy, lambda state: state[0])
    with pytest.raises(ValueError, match="random numbers"):
        lyapunov.largest(rule, parabola, rule.init(jnp.zeros(1), 0.1), 0.1, 100)


def test_a_frozen_moment_has_no_phase():
    gathered = from_optax(lambda s: optax.MultiSteps(optax.adam(s), 2).gradient_transformation())
    with pytest.raises(ValueError, match="comes round after 2 steps"):
        updates.frozen(gathered, 1.0).init(jnp.ones(1), 0.1)


def searching(search):
    return from_optax(lambda s: optax.chain(optax.sgd(s), search))


ROUGH = {
    "sign": from_optax(optax.sign_sgd),
    "polyak": from_optax(lambda s: optax.polyak_sgd(scaling=s)),
    "backtracking": searching(optax.scale_by_backtracking_linesearch(max_backtracking_steps=15)),
}


def ellipse(theta):
    return 0.5 * (theta[0] ** 2 + 3 * theta[1] ** 2)


@pytest.mark.parametrize(
    "name", ["sign", *(pytest.param(n, marks=pytest.mark.slow) for n in ("polyak", "backtracking"))]
)
def test_no_threshold_where_the_map_is_not_smooth(name):
    """A line search shortens the steps that would be unstable, so orbits converge far beyond 2 / 3."""
    with pytest.raises(ValueError, match=r"jumps or has a kink|finite numbers"):
        stability.threshold_of(ROUGH[name], ellipse, jnp.zeros(2), 0.01, 10.0)


@pytest.mark.parametrize("name", ["sign", pytest.param("backtracking", marks=pytest.mark.slow)])
def test_no_cycle_is_confirmed_where_the_map_is_not_smooth(name):
    rule = ROUGH[name]
    assert not orbits.refine(rule, ellipse, rule.init(jnp.zeros(2), 0.1), 0.1, 1).converged


@pytest.mark.slow
def test_no_exponents_of_a_memory_at_rest():
    rule = from_optax(lambda s: optax.lbfgs(s, memory_size=2, linesearch=None))
    with pytest.raises(ValueError, match="no orbit can have"):
        lyapunov.spectrum(rule, ellipse, rule.init(jnp.array([0.7, -0.4]), 0.5), 0.5, 400)
