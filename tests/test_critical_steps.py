"""Critical steps of initial points: closed forms, the scan and the bisection by themselves, gaps, bad input."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab import boundaries, stability
from gdstab.boundaries import _search, critical_step
from gdstab.losses import Himmelblau, Quadratic, ScalarProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import GridSource, RandomSource
from gdstab.theory import scalar, symmetric_line
from gdstab.updates import from_optax, gradient_descent

pytestmark = pytest.mark.optimised

LOSS = ScalarProduct(depth=2, target=1.0, scale=1.0)
STOP = StoppingRule(loss_tol=None, grad_tol=1e-10, escape_radius=1e3, max_steps=20_000, max_period=8)
GRID = GridSource(((-4, 4), (-4, 4)), (60, 60), compact=True)
ETA_C = scalar.critical_step(1.0, 1.0)
U, C, Y, D = (int(code) for code in (Outcome.UNDECIDED, Outcome.CONVERGED, Outcome.CYCLING, Outcome.DIVERGED))


def find(points=GRID, loss=LOSS, *, rule=None, low=0.02, high=1.0, stopping=STOP, **options):
    return critical_step(rule or gradient_descent(), loss, points, low=low, high=high, stopping=stopping, **options)


@pytest.fixture(scope="module")
def found():
    return find(classify=stability.classify)


@pytest.fixture(scope="module")
def places():
    points = GRID.take(np.arange(GRID.num_points))
    return points, scalar.largest_converging_step(points, 1.0, 1.0), points[:, 0] == -points[:, 1]


def test_closed_form(found, places):
    _, exact, antidiagonal = places
    error = np.abs(found.eta / exact - 1)
    below = exact < 0.98 * ETA_C
    assert error[below & ~antidiagonal].max() < 1e-5
    assert error[~below & ~antidiagonal].max() < 1e-2
    assert found.interval.all()
    assert (below & ~antidiagonal).sum() > 2500


def test_brackets_hold_the_exact_value_and_are_as_narrow_as_asked(found, places):
    _, exact, antidiagonal = places
    usual = ~antidiagonal & ~found.moved & (exact < 0.98 * ETA_C)
    assert (found.low[usual] < exact[usual]).all()
    assert (found.high[usual] > exact[usual]).all()
    assert (found.high <= found.low * np.where(found.undecided, 1 + 1e-3, 1 + 1e-6)).all()
    assert (found.outcome[usual] == D).all()
    assert not found.undecided[usual].any()


def test_the_antidiagonal_reaches_the_saddle_until_it_escapes(found, places):
    r"""On u = -v the root of E = 0 is 2 / (a + x^2) in k, and the saddle attracts the line up to k a = 2."""
    points, _, antidiagonal = places
    exact = 1 / (1 + points[antidiagonal, 0] ** 2)
    np.testing.assert_allclose(found.eta[antidiagonal], exact, rtol=1e-6)
    assert (found.kind[antidiagonal] == stability.Kind.STRICT_SADDLE).all()
    assert (found.kind[~antidiagonal] == stability.Kind.MINIMUM).all()


def test_points_on_the_minima_are_moved_and_have_the_answer_of_their_neighbours(found, places):
    points, exact, _ = places
    np.testing.assert_array_equal(found.moved, np.abs(points.prod(axis=1) - 1) < 1e-12)
    assert found.moved.sum() == 10
    error = np.abs(found.eta / exact - 1)[found.moved]
    assert error.max() < 1e-2
    still = find(points[found.moved][:1], nudge=0.0)
    assert (still.low[0], still.high[0], still.moved[0]) == (1.0, np.inf, False)
    assert np.isnan(still.eta[0])


def test_chunks_and_parts_join_to_the_whole(found, places):
    points, _, _ = places
    points = points[:300]
    parts = []
    whole = find(points, chunk=128, on_part=parts.append)
    for name in ("low", "high", "interval", "outcome", "moved"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(found, name)[:300])
    assert [(part.start, part.stop) for part in parts] == [(0, 128), (128, 256), (256, 300)]
    again = []
    resumed = find(points, chunk=128, finished=parts[:2], on_part=again.append)
    assert [part.start for part in again] == [256]
    for name in ("low", "high", "lanes", "lane_steps"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    with pytest.raises(ValueError, match="in order"):
        find(points, chunk=128, finished=parts[1:])


def test_progress_counts_every_orbit():
    seen = []
    result = find(np.array([[2.0, 2.0], [1.0, -3.0]]), progress=lambda lanes, steps: seen.append((lanes, steps)))
    assert tuple(map(sum, zip(*seen, strict=True))) == (result.lanes, result.lane_steps)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_every_point_of_a_quadratic_has_the_step_of_its_sharpness(dtype, key):
    loss = Quadratic(jnp.diag(jnp.asarray([1.0, 3.0, 0.5])))
    source = RandomSource.gaussian(key, 8, 3, dtype=dtype)
    result = find(
        source, loss, low=0.1, high=2.0, rtol=1e-4, undecided_rtol=1e-4,
        stopping=StoppingRule(loss_tol=1e-12, escape_radius=1e3, max_steps=10_000),
    )  # fmt: skip
    assert result.eta.dtype == np.dtype(dtype)
    # Within about 1e-3 of the threshold an orbit needs more updates than it has: undecided, and close enough.
    np.testing.assert_allclose(result.eta, 2 / 3, rtol=2e-3)


def test_momentum_moves_the_threshold(rng):
    r"""Heavy ball on a quadratic is stable up to 2 (1 + beta) / lambda (Polyak 1964)."""
    rule = from_optax(_heavy_ball)
    result = find(
        rng.normal(size=(8, 2)), Quadratic(jnp.eye(2)), rule=rule, low=0.5, high=8.0, rtol=1e-4,
        stopping=StoppingRule(escape_radius=1e3, max_steps=20_000),
    )  # fmt: skip
    np.testing.assert_allclose(result.eta, 3.0, rtol=1e-3)


def _heavy_ball(step_size):
    return optax.sgd(step_size, momentum=0.5)


def test_what_counts_as_converging_can_be_chosen():
    """On the symmetric line orbits stay bounded up to k a = 2, converging or not."""
    bounded = (Outcome.CONVERGED, Outcome.CYCLING, Outcome.UNDECIDED)
    result = find(np.array([[0.5, 0.5], [1.3, 1.3]]), low=0.3, high=1.5, outcomes=bounded, rtol=1e-4)
    np.testing.assert_allclose(result.eta, symmetric_line.LAST_BOUNDED / 2, rtol=1e-3)
    assert (result.outcome == D).all()


def test_gaps_are_found_and_real():
    """An orbit thrown out of a sharp well may settle in a flatter one: Himmelblau's minima differ in sharpness."""
    source = GridSource(((-5, 5), (-5, 5)), (20, 20))
    stopping = StoppingRule(loss_tol=None, grad_tol=1e-8, escape_radius=1e3, max_steps=5000, max_period=8)
    result = find(source, Himmelblau(), low=0.005, high=0.05, stopping=stopping, undecided_rtol=0.1)
    flagged = np.flatnonzero(~result.interval)
    assert 40 < flagged.size < 200
    np.testing.assert_allclose(result.eta[flagged], ((result.low + result.high) / 2)[flagged])
    for number in flagged[:3]:
        ladder = result.step_sizes
        ends = [_settles(source.take([number])[0], step_size) for step_size in ladder]
        inside = (ladder > result.low[number]) & (ladder < result.high[number])
        assert all(ends[i] for i in np.flatnonzero(ladder <= result.low[number]))
        assert not any(ends[i] for i in np.flatnonzero(ladder >= result.high[number]))
        assert {ends[i] for i in np.flatnonzero(inside)} == {True, False}


def _settles(point, step_size, steps=5000):
    """Plain descent on Himmelblau's function, by hand."""
    x, y = (float(entry) for entry in point)
    for _ in range(steps):
        first, second = x * x + y - 11, x + y * y - 7
        slope = 4 * x * first + 2 * second, 2 * first + 4 * y * second
        if np.hypot(*slope) <= 1e-8:
            return True
        x, y = x - step_size * slope[0], y - step_size * slope[1]
        if not np.hypot(x, y) < 1e3:
            return False
    return False


class FakeTrial(_search.Trial):
    """Points whose outcome at a step size is a given function of both: no orbit is run."""

    def __init__(self, rule, num):
        super().__init__(None, None, np.zeros((num, 1)), None, num, np.array([C], np.int8), None, None)
        self.rule, self.asked = rule, []

    def __call__(self, rows, step_sizes, stopping=None):
        del stopping  # no orbit, no budget
        self.asked.append(len(rows))
        return np.array([self.rule(row, size) for row, size in zip(rows, step_sizes, strict=True)], np.int8)


@pytest.mark.parametrize(
    ("verdicts", "low", "high", "interval", "at_high"),
    [
        ([C, C, D, D], 2, 3, True, D),
        ([C, C, C, C], 4, np.inf, True, U),
        ([D, D, Y, Y], 0, 1, True, D),
        ([U, C, D, D], 2, 3, True, D),  # too slow at small steps: no gap
        ([C, U, C, D], 3, 4, True, D),  # unlucky: no gap
        ([C, U, U, D], 1, 4, True, D),  # a failure counts before what is undecided
        ([C, C, U, U], 2, 3, True, U),
        ([U, U, U, U], 0, 1, True, U),
        ([C, D, C, Y], 1, 4, False, Y),
        ([D, C, D, D], 0, 3, False, D),
        ([C, Y, U, C], 1, np.inf, False, U),
    ],
)
def test_the_scan_brackets(verdicts, low, high, interval, at_high):
    ladder = np.array([1.0, 2.0, 3.0, 4.0])
    bracket = _search.scan_ladder(FakeTrial(lambda _, size: verdicts[int(size) - 1], 1), ladder)
    assert [entry[0] for entry in bracket] == [low, high, at_high, interval]


def test_one_undecided_orbit_does_not_stop_the_bisection():
    """Where one step size in 30 is undecided by accident, thresholds are still found to full width."""
    thresholds, met = np.linspace(1.1, 1.9, 50), []

    def verdict(row, size):
        accident = np.random.default_rng(int(size * 1e15)).random() < 1 / 30
        met.append(accident)
        return U if accident else C if size < thresholds[row] else D

    trial = FakeTrial(verdict, 50)
    bracket = _bracket(50)
    _search.bisect(trial, bracket, 1e-6, 1e-3)
    assert sum(met) > 20
    assert (bracket.outcome == D).all()
    assert ((bracket.low <= thresholds) & (thresholds <= bracket.high)).all()
    np.testing.assert_allclose(bracket.low, bracket.high, rtol=1e-6)


def test_a_band_of_undecided_steps_ends_the_bisection_early():
    def verdict(row, size):
        del row
        return C if size < 1.5 else U if size < 1.6 else D

    trial = FakeTrial(verdict, 1)
    bracket = _bracket(1)
    _search.bisect(trial, bracket, 1e-9, 1e-3)
    assert bracket.outcome[0] == U
    assert bracket.low[0] < 1.5 <= bracket.high[0] <= bracket.low[0] * (1 + 1e-3)
    assert len(trial.asked) < 30


def _bracket(num):
    ones = np.ones(num)
    return _search.Bracket(ones.copy(), 2 * ones, np.full(num, D, np.int8), np.ones(num, bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 0.0}, "low"),
        ({"low": 1.0, "high": 0.5}, "low < high"),
        ({"scan": 1}, "scan"),
        ({"low": 1.0, "high": 1 + 1e-15}, "does not hold so many"),
        ({"rtol": 1e-17}, "rtol"),
        ({"undecided_rtol": 0.0}, "undecided_rtol"),
        ({"nudge": -1.0}, "nudge"),
        ({"outcomes": ()}, "outcomes"),
        ({"outcomes": tuple(Outcome)}, "outcomes"),
        ({"outcomes": ("converged",)}, "outcomes"),
        ({"chunk": 0}, "chunk"),
        ({"chunk": 100}, "multiple of 4096"),
        ({"points": np.zeros(3)}, r"arrays of shape \(\)"),
        ({"points": np.zeros((3, 2), int)}, "floating"),
        ({"points": np.array([[np.nan, 0.0]])}, "finite"),
        ({"loss": lambda theta: theta}, "scalar"),
    ],
)
def test_bad_input_is_refused_on_the_host(change, message):
    with pytest.raises(ValueError, match=message):
        find(**change)


def test_the_search_is_checked_by_itself():
    with pytest.raises(ValueError, match="float32"):
        boundaries.check_search(np.dtype("float32"), 0.1, 1.0, 4, 1e-8, 1e-3, 0.0)
