"""Refined outcomes: known regimes of known maps, shares with intervals, finite-time exponents of many orbits."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab import basins, ensembles, estimators, lyapunov
from gdstab.basins import Regime
from gdstab.losses import DoubleWell, ScalarProduct
from gdstab.orbits import rollout
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import GridSource
from gdstab.theory import symmetric_line
from gdstab.updates import UpdateRule, from_optax, gradient_descent, named

WELL, PRODUCT = DoubleWell(), ScalarProduct(scale=1.0)
STOP = StoppingRule(loss_tol=None, grad_tol=1e-10, max_steps=2000, max_period=16, escape_radius=1e3)
DESCENT = gradient_descent()


def delayed_logistic_step(_, state, step_size):
    """x -> a x (1 - y), y -> x: an invariant circle is born at a = 2 (Aronson et al. 1982)."""
    return jnp.stack([step_size * state[0] * (1 - state[1]), state[0]])


def still(theta):
    return 1 + 0 * jnp.sum(theta)


CIRCLE = UpdateRule(lambda theta, _: theta, delayed_logistic_step, lambda state: state)


@pytest.fixture(scope="module")
def plane():
    points = np.random.default_rng(0).uniform(-2, 2, (60, 2))
    sizes = np.array([0.4, 0.55, 0.625, 0.75, 0.95])
    return points, basins.regimes(DESCENT, PRODUCT, points, sizes, stopping=STOP, num_steps=3000, converged=True)


def test_regimes_of_the_product(plane):
    points, found = plane
    for eta, regime, period in zip(found.step_sizes, found.regime, found.period, strict=True):
        k = 2 * eta
        inside = np.sum(points**2, axis=1) + k * (1 - points.prod(axis=1)) < 4 / k
        expected = {0.4: Regime.CONVERGED, 0.55: Regime.PERIODIC, 0.625: Regime.PERIODIC}.get(eta, Regime.CHAOTIC)
        np.testing.assert_array_equal(regime, np.where(inside, expected, Regime.DIVERGED))
        periods = {0.55: 2, 0.625: 4}
        np.testing.assert_array_equal(period, np.where(inside, periods.get(eta, 0), 0))


def test_exponents_of_the_product(plane):
    _, found = plane
    known = np.isfinite(found.exponent)
    np.testing.assert_array_equal(known, np.isin(found.regime, basins.BOUNDED))
    np.testing.assert_allclose(found.exponent[0][known[0]], 0, atol=1e-9)
    two = np.log(np.max(np.abs(symmetric_line.period_two_multipliers(1.1)))) / 2
    np.testing.assert_allclose(found.exponent[1][known[1]], two, atol=1e-9)
    assert (found.exponent[3][known[3]] > 10 * found.standard_error[3][known[3]]).all()
    ends = np.asarray(found.theta)[3][known[3]]
    np.testing.assert_allclose(ends[:, 0], ends[:, 1], atol=1e-12)


def test_rows_have_shares_with_intervals(plane):
    _, found = plane
    rows = found.rows(0.9)
    assert [row["step_size"] for row in rows] == found.step_sizes.tolist()
    for i, row in enumerate(rows):
        assert sum(row["counts"].values()) == 60
        bounded = int(np.isin(found.regime[i], basins.BOUNDED).sum())
        assert row["bounded"] == row["exponents"] == bounded
        assert sum(share["value"] for share in row["shares"].values()) == pytest.approx(1)
        wanted = estimators.plain(row["counts"]["chaotic"], bounded, 0.9)
        assert row["shares"]["chaotic"]["low"] == float(wanted.low)
        assert row["shares"]["chaotic"]["high"] == float(wanted.high)
        assert row["bounded_share"]["value"] == bounded / 60
    assert rows[1]["periods"] == {"2": rows[1]["bounded"]}
    assert rows[3]["exponent"]["low"] <= rows[3]["exponent"]["median"] <= rows[3]["exponent"]["high"]


@pytest.mark.slow
def test_an_invariant_circle_is_quasi_periodic():
    points = np.random.default_rng(1).uniform(0.4, 0.6, (20, 2))
    sizes = np.array([1.9, 2.02, 2.1, 2.27])
    stopping = StoppingRule(loss_tol=None, max_steps=4000, max_period=16, escape_radius=1e3)
    found = basins.regimes(CIRCLE, still, points, sizes, stopping=stopping, num_steps=8000)
    assert (found.regime[1:3] == Regime.QUASI_PERIODIC).mean() > 0.9
    assert np.abs(found.exponent[1:3]).max() < 1e-3
    assert not np.isin(found.regime[1:3], [Regime.CHAOTIC, Regime.PERIODIC]).any()
    assert (found.regime[3] == Regime.CHAOTIC).all()
    # A fixed point that attracts, seen without a tolerance: no cycle, no circle, no chaos.
    assert (found.regime[0] == Regime.UNDECIDED).all()


def test_near_a_doubling_nothing_is_called_quasi_periodic():
    """The exponent is 0, and the orbit nearly returns: at k = 1 the approach is algebraic."""
    points = np.random.default_rng(2).uniform(0.3, 1.2, (50, 1))
    found = basins.regimes(DESCENT, WELL, points, np.array([1.0]), stopping=STOP, num_steps=3000)
    assert np.abs(found.exponent).max() < 5e-3
    assert (found.regime == Regime.UNDECIDED).all()


def test_cycles_longer_than_the_longest_asked_for_stay_undecided():
    stopping = StoppingRule(loss_tol=None, grad_tol=1e-10, max_steps=2000, max_period=2, escape_radius=1e3)
    found = basins.regimes(DESCENT, WELL, np.full((50, 1), 0.4), np.array([1.26]), stopping=stopping, num_steps=3000)
    assert (found.regime == Regime.UNDECIDED).all()
    assert (found.exponent < -5 * found.standard_error).all()


def test_a_chaotic_orbit_that_nearly_returned_is_not_periodic():
    """With a loose tolerance the engine takes a passage near an unstable cycle for the cycle itself."""
    loose = StoppingRule(loss_tol=None, max_steps=4000, max_period=16, cycle_tol=3e-2, escape_radius=1e3)
    points = np.random.default_rng(4).uniform(0.3, 1.2, (50, 1))
    ends = ensembles.run(DESCENT, WELL, points, np.array([1.6]), loose)
    assert (ends.outcome == Outcome.CYCLING).sum() >= 5
    found = basins.regimes(DESCENT, WELL, points, np.array([1.6]), stopping=loose, num_steps=3000)
    assert (found.regime == Regime.CHAOTIC).all()
    assert (found.period == 0).all()


def test_orbits_that_leave_late_have_diverged():
    """Just past the end of bounded orbits most are still there after ten steps, and gone after a thousand."""
    points = np.random.default_rng(3).uniform(-0.9, 0.9, (200, 1))
    early = StoppingRule(loss_tol=None, max_steps=10, max_period=2, escape_radius=1e3)
    found = basins.regimes(DESCENT, WELL, points, np.array([2.01]), stopping=early, num_steps=2000)
    assert (found.regime == Regime.DIVERGED).mean() > 0.98
    gone = found.regime == Regime.DIVERGED
    assert np.isnan(found.exponent[gone]).all()


def test_an_orbit_goes_on_from_its_whole_state():
    """Momentum too: its last point is that of one orbit, far from settled, of as many steps in all."""
    rule, theta = named("heavy-ball", beta=0.95), jnp.array([0.9, 1.6])
    stopping = StoppingRule(loss_tol=None, max_steps=3, max_period=2)
    found = basins.regimes(rule, PRODUCT, theta[None], np.array([0.02]), stopping=stopping, num_steps=80)
    last, _ = rollout(rule, 83)(PRODUCT, rule.init(theta, 0.02), 0.02)
    np.testing.assert_allclose(found.theta[0, 0], rule.theta(last), rtol=1e-10)
    assert abs(float(PRODUCT(rule.theta(last)))) > 1e-6


@pytest.mark.slow
def test_sources_pairs_and_single_precision_agree(plane):
    points, found = plane
    paired = basins.regimes(
        DESCENT, PRODUCT, np.repeat(points[:5], 2, axis=0), np.tile([0.55, 0.75], 5), stopping=STOP, num_steps=3000,
        product=False,
    )  # fmt: skip
    np.testing.assert_array_equal(paired.regime, found.regime[[1, 3], :5].T.ravel())
    np.testing.assert_array_equal(paired.exponent[0::2], found.exponent[1, :5])
    with pytest.raises(ValueError, match="several step sizes"):
        paired.rows()
    source = GridSource(((-1, 1), (-1, 1)), (3, 4), dtype=np.float32)
    small = basins.regimes(
        DESCENT, PRODUCT, source, 0.75, stopping=StoppingRule(loss_tol=None, max_period=8, max_steps=500)
    )
    assert small.exponent.dtype == np.float32
    assert small.regime.shape == (12,)
    assert (small.regime == Regime.CHAOTIC).sum() >= 8


def test_nothing_bounded_is_no_error():
    found = basins.regimes(DESCENT, PRODUCT, np.full((3, 2), 5.0), np.array([0.9]), stopping=STOP)
    assert (found.regime == Regime.DIVERGED).all()
    row = found.rows()[0]
    assert (row["bounded"], row["exponent"], row["shares"]["chaotic"]) == (0, None, None)


def test_finite_time_exponents_are_those_of_single_orbits():
    source = GridSource(((-2, 2), (-2, 2)), (6, 5))
    value, error = basins.exponents(DESCENT, PRODUCT, source, np.array([0.55, 0.65]), 64)
    assert value.shape == error.shape == (2, 30)
    points = source.take(np.arange(30))
    for s, p in [(0, 12), (1, 17)]:
        single = lyapunov.largest(DESCENT, PRODUCT, jnp.asarray(points[p]), [0.55, 0.65][s], 64, transient=0, blocks=8)
        np.testing.assert_allclose(value[s, p], float(single.value), rtol=1e-6)
        np.testing.assert_allclose(error[s, p], float(single.standard_error), rtol=1e-5)
    k = 1.3
    inside = np.sum(points**2, axis=1) + k * (1 - points.prod(axis=1)) < 4 / k
    np.testing.assert_array_equal(np.isfinite(value[1]), inside)
    one, _ = basins.exponents(DESCENT, PRODUCT, points, np.full(30, 0.65), 64, product=False)
    np.testing.assert_array_equal(one, value[1])
    alone, _ = basins.exponents(DESCENT, PRODUCT, points, 0.65, 64)
    np.testing.assert_array_equal(alone, value[1])


def _scheduled(step_size):
    return optax.sgd(lambda count: step_size / (1 + count))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stopping": StoppingRule()}, "max_period"),
        ({"num_steps": 30}, "blocks"),
        ({"transient": 5000}, "transient"),
        ({"rule": from_optax(_scheduled, autonomous=False)}, "schedule"),
        ({"step_sizes": -1.0}, "positive"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(change, message):
    asked = {"rule": DESCENT, "loss": PRODUCT, "initial": np.ones((2, 2)), "step_sizes": np.array([0.3]),
             "stopping": STOP} | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        basins.regimes(**asked)


@pytest.mark.parametrize(
    ("step_sizes", "num_steps", "product", "message"),
    [(np.ones(3), 64, False, "each of 2 points"), (0.3, 8, True, "blocks"), ([0.0], 64, True, "positive")],
)
def test_finite_time_exponents_of_bad_input(step_sizes, num_steps, product, message):
    with pytest.raises(ValueError, match=message):
        basins.exponents(DESCENT, PRODUCT, np.ones((2, 2)), step_sizes, num_steps, product=product)
