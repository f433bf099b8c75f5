"""Orbit diagrams, hysteresis and the end of bounded orbits, against closed forms and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab import bifurcation
from gdstab.bifurcation import diagrams
from gdstab.theory import symmetric_line
from gdstab.updates import from_optax, gradient_descent

pytestmark = pytest.mark.optimised

RULE = gradient_descent()
HEAVY_BALL = from_optax(lambda s: optax.sgd(s, momentum=0.5))
SCHEDULE = from_optax(lambda s: optax.sgd(lambda count: s / (count + 1)), autonomous=False)
STARTS = np.array([0.3, 0.7, 1.1])


def cubic(x):
    """Its step is x -> (1 + eta) x - eta x^3, the symmetric line with k = eta, at X = sqrt(k) x."""
    return (1 - x * x) ** 2 / 4


def product(theta):
    return (1 - theta[0] * theta[1]) ** 2


def bowl(theta):
    return jnp.sum(theta * theta) / 2


def golden(x):
    """Its gradient is x (1 + 2 x^2) / (1 + x^4)."""
    return 0.5 * jnp.arctan(x * x) + 0.5 * jnp.log(1 + x**4)


def along(theta):
    return (theta[0] + theta[1]) / 2


def orbits(map_, start, updates):
    """The points after each update."""
    path = []
    for _ in range(updates):
        start = map_(start)
        path.append(start)
    return np.stack(path, axis=-1)


def test_values_are_those_of_a_loop():
    """17 updates are discarded: two looks and one more; up to the chaotic regime, while it is short."""
    sizes = np.array([0.4, 1.1, 1.7])
    found = bifurcation.orbit_diagram(RULE, cubic, sizes, STARTS, transient=17, kept=6)
    eta = sizes[:, None]
    path = orbits(lambda x: (1 + eta) * x - eta * x**3, np.broadcast_to(STARTS, (3, 3)), 23)
    np.testing.assert_allclose(found.values, path[..., 17:], rtol=1e-6)  # chaos has enlarged rounding by then
    np.testing.assert_allclose(found.state, path[..., -1], rtol=1e-6)
    assert found.counts is None
    assert found.lane_steps == 9 * (17 + 6 + 32)


def test_periods_and_cycles_of_the_symmetric_line():
    k = np.array([0.7, 1.15, 1.26, 1.29])
    found = bifurcation.orbit_diagram(
        RULE, product, k / 2, np.column_stack([STARTS, STARTS]), transient=4000, kept=4, observe=along
    )
    np.testing.assert_array_equal(found.period, [[1] * 3, [2] * 3, [4] * 3, [8] * 3])
    np.testing.assert_array_equal(found.common_period, [1, 2, 4, 8])
    np.testing.assert_allclose(found.values[0], 1.0, rtol=1e-12)
    orbit = np.array(symmetric_line.period_two(1.15)) / np.sqrt(1.15)
    np.testing.assert_allclose(np.sort(found.values[1], axis=1)[:, [0, -1]], np.tile(orbit, (3, 1)), rtol=1e-10)
    assert not found.escaped.any()


def test_a_window_of_period_three():
    """The orbit of period 3, its multiplier between -1 and 1 by the product of the slopes 1 + k - 3 X^2."""
    k = 1.455
    found = bifurcation.orbit_diagram(RULE, cubic, [k], STARTS, transient=4000, kept=3)
    assert set(found.period.ravel().tolist()) == {3}
    multipliers = np.prod(1 + k - 3 * k * found.values[0] ** 2, axis=1)
    np.testing.assert_allclose(multipliers, multipliers[0], rtol=1e-6)
    assert abs(multipliers[0]) < 1
    short = bifurcation.orbit_diagram(RULE, cubic, [k], STARTS, transient=4000, kept=1, max_period=2)
    assert not short.period.any()


def test_a_slow_approach_is_no_cycle():
    """At a multiplier of -0.9998 the orbit hops about the fixed point for long."""
    found = bifurcation.orbit_diagram(RULE, cubic, [0.9999], STARTS, transient=400, kept=2)
    assert not found.period.any()
    assert np.ptp(found.values, axis=2).min() > 1e-3


def test_counts_are_the_histogram_of_the_values():
    sizes = np.linspace(1.0, 2.2, 7)
    settings = {"transient": 300, "kept": 50}
    kept = bifurcation.orbit_diagram(RULE, cubic, sizes, STARTS, **settings)
    seen = []
    counted = bifurcation.orbit_diagram(
        RULE, cubic, sizes, STARTS, bins=40, value_range=(-0.5, 1.5), progress=lambda *new: seen.append(new), **settings
    )
    assert counted.escaped[-1].all()
    assert not counted.escaped[:5].any()
    for row, counts, outside in zip(kept.values, counted.counts, counted.outside, strict=True):
        bounded = row[np.isfinite(row)]
        expected, edges = np.histogram(bounded, 40, (-0.5, 1.5))
        np.testing.assert_array_equal(counts, expected)
        assert outside == bounded.size - expected.sum()
    np.testing.assert_allclose(counted.edges, edges)
    assert counted.outside.sum() > 0
    assert counted.values is None
    np.testing.assert_array_equal(counted.escaped, kept.escaped)
    np.testing.assert_array_equal(counted.period, kept.period)
    assert sum(lanes for lanes, _ in seen) == 21
    assert sum(updates for _, updates in seen) == counted.lane_steps


@pytest.mark.slow
def test_slabs_change_nothing(monkeypatch):
    """Slabs of 1024 lanes cross from one step size to the next, and the last one is filled up."""
    starts = np.linspace(0.1, 1.2, 700)
    settings = {"transient": 40, "kept": 30, "bins": 50, "value_range": (-1.5, 1.5)}
    whole = bifurcation.orbit_diagram(RULE, cubic, [0.9, 1.2, 1.6, 2.1], starts, **settings)
    monkeypatch.setattr(diagrams, "_SLAB", 1)
    parts = bifurcation.orbit_diagram(RULE, cubic, [0.9, 1.2, 1.6, 2.1], starts, **settings)
    for name in ("counts", "outside", "escaped", "period", "state"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert whole.counts.sum() + whole.outside.sum() == 30 * np.count_nonzero(~whole.escaped)


def test_orbits_that_escape_are_marked():
    """Descent on a bowl converges below 2; it is left for infinity above."""
    starts = np.ones((2, 3))
    found = bifurcation.orbit_diagram(RULE, bowl, [1.5, 2.5], starts, transient=400, kept=3, escape_radius=100.0)
    np.testing.assert_array_equal(found.escaped, [[False] * 2, [True] * 2])
    np.testing.assert_array_equal(found.bounded, [1.0, 0.0])
    np.testing.assert_array_equal(found.common_period, [1, -1])
    assert np.isnan(found.values[1]).all()
    assert (np.abs(found.state[1]) < 100 * 1.5**8).all()  # it stood still at the next look


def test_momentum_is_part_of_the_orbit():
    """Heavy ball flips at 2 (1 + beta) / lambda; below, its orbit is that of the recurrence in NumPy."""
    theta = np.array([[0.7, 0.9], [1.2, 0.8]])
    sizes = np.array([0.3, 0.5, 0.6])
    found = bifurcation.orbit_diagram(
        HEAVY_BALL, product, sizes, theta, transient=9, kept=4, observe=along, max_period=2
    )

    def step(pair):
        x, v = pair
        v = 0.5 * v - 2 * (1 - x.prod(axis=-1, keepdims=True)) * x[..., ::-1]
        return x - sizes[:, None, None] * v, v

    state = np.broadcast_to(theta, (3, 2, 2)), np.zeros((3, 2, 2))
    for update in range(13):
        state = step(state)
        if update >= 9:
            np.testing.assert_allclose(found.values[..., update - 9], state[0].mean(axis=-1), rtol=1e-9)


@pytest.mark.slow
def test_momentum_flips_where_it_must():
    line = np.array([[0.98, 0.98]])
    settled = bifurcation.orbit_diagram(HEAVY_BALL, product, [0.6, 0.74, 0.76], line, transient=4000, kept=1)
    np.testing.assert_array_equal(settled.period[:, 0], [1, 1, 2])
    assert jax.tree.structure(settled.state) == jax.tree.structure(HEAVY_BALL.init(jnp.ones(2), 0.1))


def test_trees_and_single_precision():
    def loss(theta):
        return jnp.sum(theta["a"] ** 2) + theta["b"] ** 2 / 2

    starts = {"a": np.ones((2, 3), np.float32), "b": np.array([1.0, 2.0], np.float32)}
    found = bifurcation.orbit_diagram(RULE, loss, 0.25, starts, transient=1, kept=2)
    assert found.values.dtype == found.state["b"].dtype == np.float32
    assert found.step_sizes.shape == (1,)
    np.testing.assert_array_equal(found.values, np.full((1, 2, 2), [0.25, 0.125]))
    np.testing.assert_allclose(found.state["b"], [[0.75**3, 2 * 0.75**3]], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transient": 0}, "transient: expected an integer of at least 1"),
        ({"kept": 0}, "kept: expected"),
        ({"max_period": 0}, "max_period: expected"),
        ({"bins": 0, "value_range": (0, 1)}, "bins: expected"),
        ({"bins": 10}, "value_range"),
        ({"value_range": (0, 1)}, "pass `bins` too"),
        ({"bins": 10, "value_range": (1, 1)}, "low < high"),
        ({"escape_radius": 0.0}, "escape_radius"),
        ({"escape_radius": 1e200}, "too large for float64"),
        ({"observe": lambda theta: theta * jnp.ones(2)}, "one real number"),
        ({"step_sizes": []}, "at least one step size"),
        ({"step_sizes": [-1.0]}, "positive finite step sizes"),
        ({"starts": np.array([1.0, np.nan])}, "finite starts"),
        ({"starts": np.float64(1.0)}, "add an axis"),
        ({"starts": np.ones((2, 3))}, "scalar"),
        ({"starts": np.array([1, 2])}, "floating"),
        ({"rule": SCHEDULE}, "schedule"),
    ],
)
def test_bad_input_of_diagrams(change, message):
    given = {"rule": RULE, "loss": cubic, "step_sizes": [0.5], "starts": STARTS, "transient": 1, "kept": 1} | change
    positional = [given.pop(name) for name in ("rule", "loss", "step_sizes", "starts")]
    with pytest.raises(ValueError, match=message):
        bifurcation.orbit_diagram(*positional, **given)


def test_hysteresis_at_a_subcritical_flip():
    r"""$h(u) = (1 + 2u) / (1 + u^2)$ has its largest value, the golden ratio, at $u = (\sqrt 5 - 1) / 2$.

    The orbit of period 2, $\pm x$ with $\eta h(x^2) = 2$, is there from $\eta = \sqrt 5 - 1$ on; 0 loses its stability
    at 2 only. Further up there are others, off centre.
    """
    sizes = np.linspace(1.1, 2.2, 56)
    found = bifurcation.hysteresis(RULE, golden, sizes, np.array([0.1, -0.2]), settle=2000, kept=4)
    up, down = (np.abs(values).max(axis=2) > 0.1 for values in (found.up, found.down))
    fold = np.sqrt(5) - 1
    for start in range(2):
        assert 2.0 < sizes[up[:, start]].min() < 2.05
        assert fold < sizes[down[:, start]].min() < fold + 0.03
    both = (sizes > 1.27) & (sizes < 1.42)
    eta = sizes[both]
    u = (eta + np.sqrt(eta**2 + 2 * eta - 4)) / 2  # the larger root of eta h(u) = 2
    np.testing.assert_allclose(found.gap[both], np.sqrt(u)[:, None] * np.ones(2), rtol=1e-4)
    assert (found.gap[(sizes > 1.27) & (sizes < 1.97)] > 0.5).all()
    assert (found.gap[sizes < 1.2] < 1e-6).all()
    assert not found.escaped_up.any()


def test_without_a_nudge_an_orbit_sits_on_what_repels():
    settings = {"settle": 400, "kept": 2}
    sizes = np.array([0.5, 1.1])
    nudged = bifurcation.hysteresis(RULE, cubic, sizes, np.array([0.9]), **settings)
    still = bifurcation.hysteresis(RULE, cubic, sizes, np.array([0.9]), nudge=0.0, **settings)
    assert np.ptp(still.up[1]) == 0
    assert np.ptp(nudged.up[1]) > 0.1


def test_a_sweep_begins_anew_after_an_escape():
    found = bifurcation.hysteresis(RULE, bowl, [1.0, 1.5, 2.5, 3.0], np.ones((2, 2)), settle=100, kept=3)
    np.testing.assert_array_equal(found.escaped_up[:, 0], [False, False, True, True])
    np.testing.assert_array_equal(found.escaped_down, found.escaped_up)
    assert np.isnan(found.gap[2:]).all()
    assert (found.gap[:2] < 1e-12).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_sizes": [0.5]}, "two increasing"),
        ({"step_sizes": [0.5, 0.4]}, "increasing"),
        ({"settle": 0}, "settle"),
        ({"kept": 0}, "kept"),
        ({"nudge": -1.0}, "nudge"),
        ({"nudge": np.nan}, "nudge"),
        ({"rule": SCHEDULE}, "schedule"),
    ],
)
def test_bad_input_of_sweeps(change, message):
    given = {"rule": RULE, "loss": cubic, "step_sizes": [0.4, 0.5], "starts": STARTS, "settle": 1, "kept": 1} | change
    positional = [given.pop(name) for name in ("rule", "loss", "step_sizes", "starts")]
    with pytest.raises(ValueError, match=message):
        bifurcation.hysteresis(*positional, **given)


def test_bounded_orbits_of_the_symmetric_line_end_at_two():
    starts = np.linspace(0.1, 1.2, 20)
    found = bifurcation.last_bounded(RULE, cubic, starts, 1.5, 3.0)
    assert abs(found.low - symmetric_line.LAST_BOUNDED) < 2e-6
    assert 0 < found.high - found.low < 1e-7
    assert found.survivors > 0
    assert found.longest < 20_000
    short = bifurcation.last_bounded(RULE, cubic, starts, 1.5, 3.0, max_steps=100)
    assert short.low > found.low  # whoever lingers counts as bounded


def test_brackets_at_the_ends_of_the_range():
    assert bifurcation.last_bounded(RULE, cubic, STARTS, 0.5, 1.0)[:2] == (1.0, np.inf)
    found = bifurcation.last_bounded(RULE, cubic, STARTS, 2.5, 3.0)
    assert found[:3] == (0.0, 2.5, 0)
    single = bifurcation.last_bounded(RULE, cubic, STARTS.astype(np.float32), 1.5, 3.0, rtol=1e-5)
    assert abs(single.low - 2) < 1e-3


@pytest.mark.parametrize(
    ("low", "high", "more", "message"),
    [
        (2.0, 1.0, {}, "low < high"),
        (0.0, 1.0, {}, "low: expected"),
        (1.0, 2.0, {"max_steps": 0}, "max_steps"),
        (1.0, 2.0, {"rtol": 1e-17}, "rtol"),
        (1.0, 2.0, {"escape_radius": -1.0}, "escape_radius"),
    ],
)
def test_bad_input_of_the_search(low, high, more, message):
    with pytest.raises(ValueError, match=message):
        bifurcation.last_bounded(RULE, cubic, STARTS, low, high, **more)
