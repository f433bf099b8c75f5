"""Basin measures: counts against direct runs and exact volumes; chunks, shares and resumption; designs; sequences."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import basins, ensembles, estimators, stability
from gdstab.basins import counting, tallies
from gdstab.losses import ScalarProduct, VectorProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import GridSource, RandomSource
from gdstab.theory import scalar
from gdstab.updates import gradient_descent

BOX = ((-4, 4), (-4, 4))
RULE = gradient_descent()
LOSS = ScalarProduct(depth=2, target=1.0, scale=1.0)
STOP = StoppingRule(grad_tol=1e-6, max_steps=500)
STEP_SIZES = (0.2, 0.3, 0.45)
NUM = 20_000
LONG = 2**16


def uniform(num=NUM, dtype="float64", seed=0):
    return RandomSource.box(jax.random.key(seed), num, BOX, dtype=dtype)


def measure(source=None, step_sizes=STEP_SIZES, *, loss=LOSS, stopping=STOP, **options):
    source = uniform() if source is None else source
    return basins.measure(RULE, loss, step_sizes, source, stopping=stopping, **options)


def assert_same_tally(actual, expected):
    for name, value in expected._asdict().items():
        np.testing.assert_array_equal(getattr(actual, name), value, err_msg=name)


class Parts(eqx.Module):
    """Points of another source, said to be made in parts."""

    inner: RandomSource
    parts: int = eqx.field(static=True)
    design: str = eqx.field(static=True)

    @property
    def num_points(self):
        return self.inner.num_points

    def __call__(self, indices, group=0):
        return self.inner(indices, group)


class Strips(eqx.Module):
    """The box in ten strata: strips of equal width along the first axis, with equally many points each."""

    inner: RandomSource
    parts: int = eqx.field(static=True, default=10)
    design: str = eqx.field(static=True, default="strata")

    @property
    def num_points(self):
        return self.inner.num_points

    def __call__(self, indices, group=0):
        stratum = (group * 4096 + indices) // (self.num_points // self.parts)
        points = self.inner(indices, group)
        return points.at[:, 0].set(-4 + 0.8 * stratum.astype(points.dtype) + (points[:, 0] + 4) / 10)


@pytest.fixture(scope="module")
def whole():
    return measure(volume=64.0, classify=stability.classify, kinds=stability.Kind)


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
def test_counts_are_those_of_a_direct_run(dtype):
    result = measure(uniform(dtype=dtype))
    direct = ensembles.run(RULE, LOSS, uniform(dtype=dtype), np.array(STEP_SIZES), STOP, keep=())
    bins = np.array([tallies.bin_of(count) for count in range(STOP.max_steps + 1)])
    for row, outcome in enumerate(direct.outcome):
        np.testing.assert_array_equal(result.counts[row], np.bincount(outcome, minlength=5))
        for code in Outcome:
            expected = np.bincount(bins[direct.steps[row][outcome == code]], minlength=bins[-1] + 1)
            np.testing.assert_array_equal(result.tally.histogram[row, code], expected)
    converged = direct.outcome == Outcome.CONVERGED
    for row in (1, 2):
        before, now = converged[row - 1], converged[row]
        table = [(before & now).sum(), (before & ~now).sum(), (~before & now).sum(), (~before & ~now).sum()]
        np.testing.assert_array_equal(result.tally.paired[row], table)
    assert result.step_sizes.dtype == dtype
    assert result.tally.lane_steps.sum() == direct.lane_steps
    assert (result.counts.sum(axis=1) == NUM).all()


@pytest.mark.parametrize(
    "options", [pytest.param({"chunk": 7001}, marks=pytest.mark.slow), {"chunk": 4096, "block": 64}]
)
def test_counts_do_not_depend_on_chunk_or_block(whole, options):
    result = measure(classify=stability.classify, kinds=stability.Kind, **options)
    assert_same_tally(result.tally, whole.tally)


def test_counts_do_not_depend_on_the_pieces_that_fit_into_memory(whole, monkeypatch):
    monkeypatch.setattr(counting, "_PIECE_BYTES", 4096 * 16)
    monkeypatch.setattr(counting, "_WINDOW", 8192)
    result = measure(classify=stability.classify, kinds=stability.Kind)
    assert_same_tally(result.tally, whole.tally)


def test_points_are_the_same_in_any_range():
    source = uniform(num=10_000)
    draw = counting.Draw(source)
    expected = np.asarray(eqx.filter_jit(source)(jnp.arange(10_000)))
    np.testing.assert_array_equal(draw(0, 10_000), expected)
    np.testing.assert_array_equal(draw(4000, 9001), expected[4000:9001])
    np.testing.assert_array_equal(draw(9999, 10_000), expected[9999:])


def test_shares_of_processes_add_up(whole):
    kinds = {"classify": stability.classify, "kinds": stability.Kind}
    others = [measure(chunk=4096, share=(i, 3), **kinds).tally for i in (1, 2)]
    result = measure(chunk=4096, share=(0, 3), gather=lambda own: [own, *others], **kinds)
    assert_same_tally(result.tally, whole.tally)
    assert result.rows() == measure(**kinds).rows()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(whole, tmp_path):
    kinds = {"classify": stability.classify, "kinds": stability.Kind}
    weight = {"weight": lambda theta: jnp.exp(theta[0])}
    written = {}

    def write(number, tally):
        np.savez(tmp_path / f"{number}.npz", **tally.arrays())
        written[number] = tally

    once = measure(chunk=4096, on_chunk=write, **kinds, **weight)
    assert list(written) == [0, 1, 2, 3, 4]
    read = {n: basins.Tally.from_arrays(np.load(tmp_path / f"{n}.npz")) for n in (0, 3)}
    assert_same_tally(read[3], written[3])
    again = []
    resumed = measure(chunk=4096, finished=read, on_chunk=lambda n, _: again.append(n), **kinds, **weight)
    assert again == [1, 2, 4]
    assert_same_tally(resumed.tally, once.tally)
    np.testing.assert_array_equal(resumed.counts, whole.counts)
    with pytest.raises(ValueError, match="another `chunk`"):
        measure(chunk=5000, finished=read, **kinds)
    with pytest.raises(ValueError, match="another run"):
        measure(step_sizes=STEP_SIZES[:2], chunk=4096, finished=read, **kinds)
    with pytest.raises(ValueError, match="missing"):
        basins.Tally.from_arrays({"start": np.int64(0)})


@pytest.mark.slow
def test_pieces_of_a_pace_join_to_the_whole(whole):
    """Whatever is cut and kept: all, some from an earlier run with another cut, in two shares."""
    kinds = {"classify": stability.classify, "kinds": stability.Kind}
    first, second, halves = {}, {}, ({}, {})
    once = measure(chunk=8192, pace=ensembles.Pace(8192), on_chunk=first.__setitem__, **kinds)
    np.testing.assert_array_equal(once.counts, whole.counts)
    assert_same_tally(once.tally, whole.tally)
    assert list(first)[:2] == [0, 256]
    assert {0, 8192, 16384} < set(first)  # no piece crosses from one chunk into the next
    some = {start: tally for start, tally in first.items() if start % 3}
    resumed = measure(
        chunk=8192, pace=ensembles.Pace(8192, first=1000), finished=some, on_chunk=second.__setitem__, **kinds
    )
    assert_same_tally(resumed.tally, whole.tally)
    assert not set(second) & set(some)
    for i, half in enumerate(halves):
        pace = ensembles.Pace(8192)
        measure(chunk=8192, pace=pace, share=(i, 2), on_chunk=half.__setitem__, **kinds)
    assert not set(halves[0]) & set(halves[1])
    joined = measure(chunk=8192, pace=ensembles.Pace(8192), finished={**halves[0], **halves[1]}, **kinds)
    assert_same_tally(joined.tally, whole.tally)


def test_a_share_counts_finished_chunks_of_its_own_only():
    written = {}
    measure(chunk=4096, on_chunk=written.__setitem__)
    run = []
    part = measure(chunk=4096, share=(1, 2), finished=written, on_chunk=lambda n, _: run.append(n))
    assert run == []
    assert part.samples == 2 * 4096


def test_rows_hold_the_exact_area(whole):
    rows = whole.rows()
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        exact = scalar.basin_area(row["step_size"], 1.0, 1.0, BOX)
        low, high = row["volume_interval"]
        assert low < exact < high
        assert abs(row["volume"] - exact) < 3 * 64 * row["standard_error"]
        assert row["interval"] == row["clopper_pearson"]
        assert row["kinds"]["minimum"] == row["counts"]["converged"]
        assert sum(row["counts"].values()) == row["samples"] == NUM
        assert row["undecided_bounds"][0] == row["share"] == row["counts"]["converged"] / NUM


@pytest.mark.parametrize("dim", [1, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (2, 4))])
def test_volume_of_the_ellipsoid(dim):
    source = RandomSource.box(jax.random.key(dim), 2**17, ((-3, 3),) * (2 * dim))
    stopping = StoppingRule(max_steps=20_000)
    result = measure(source, 0.3, loss=VectorProduct(dim, 1.0, 1.0), stopping=stopping, volume=6.0 ** (2 * dim))
    (row,) = result.rows()
    exact = scalar.ellipsoid_volume(dim, 0.3, 1.0, 1.0)
    assert row["counts"]["undecided"] == 0
    assert abs(row["volume"] - exact) < 3 * row["standard_error"] * 6.0 ** (2 * dim)
    assert result.differences() == []


def test_differences_between_neighbours(whole):
    converged = whole.count("converged")
    changes = whole.differences()
    assert [change["step_sizes"] for change in changes] == [[0.2, 0.3], [0.3, 0.45]]
    for i, change in enumerate(changes):
        assert sum(change[name] for name in ("both", "first_only", "second_only", "neither")) == NUM
        assert change["both"] + change["first_only"] == converged[i]
        assert change["both"] + change["second_only"] == converged[i + 1]
        assert change["difference"] == pytest.approx((converged[i + 1] - converged[i]) / NUM)
        assert change["ratio"] == pytest.approx(converged[i + 1] / converged[i])
        areas = [scalar.basin_area(eta, 1.0, 1.0, BOX) for eta in change["step_sizes"]]
        low, high = change["difference_interval"]
        assert low < (areas[1] - areas[0]) / 64 < high
        # Sharing the points pays: independent samples would leave the difference more than this uncertain.
        shares = converged[i : i + 2] / NUM
        assert high - low < 2 * 1.96 * np.sqrt((shares * (1 - shares)).sum() / NUM)
        low, high = change["ratio_interval"]
        assert low < areas[1] / areas[0] < high


def test_nothing_converges_above_the_critical_step():
    result = measure(uniform(num=2000, dtype="float32"), (0.3, 0.6), stopping=StoppingRule(max_steps=64))
    assert result.step_sizes.dtype == "float32"
    (change,) = result.differences()
    assert change["second_only"] == change["both"] == 0
    assert change["ratio_interval"][0] == 0
    assert result.rows()[1]["steps_quantiles"] == {"0.5": None, "0.9": None, "0.99": None}
    low, high = result.rows()[1]["interval"]
    assert low == 0 < high < 0.01


def test_undecided_points_widen_the_answer():
    result = measure(stopping=StoppingRule(max_steps=10))
    undecided = result.count("undecided")
    assert (undecided > 100).all()
    bounds = estimators.undecided_bounds(result.count("converged"), undecided, NUM)
    for i, row in enumerate(result.rows()):
        np.testing.assert_allclose(row["undecided_bounds"], [bounds.share_low[i], bounds.share_high[i]])
        np.testing.assert_allclose(row["undecided_interval"], [bounds.low[i], bounds.high[i]])
        exact = scalar.basin_area(row["step_size"], 1.0, 1.0, BOX) / 64
        assert row["interval"][1] < exact < row["undecided_interval"][1]


@pytest.mark.slow
def test_kinds_on_an_antisymmetric_grid():
    """Cells on the anti-diagonal creep to the saddle; as `basins.refine` has it on a heatmap."""
    stopping = StoppingRule(grad_tol=1e-10, max_steps=20_000)
    grid = GridSource(BOX, (100, 100), compact=True)
    kinds = {"classify": stability.classify, "kinds": stability.Kind, "stopping": stopping}
    picture = basins.heatmap(RULE, LOSS, 0.3, box=BOX, resolution=(100, 100), stopping=stopping)
    result = measure(grid, (0.1, 0.3), chunk=3000, **kinds)
    assert result.rows()[1]["counts"] == picture.counts
    assert result.rows()[1]["kinds"] == {
        "minimum": picture.counts["converged"] - 38, "strict_saddle": 38, "degenerate": 0
    }  # fmt: skip
    np.testing.assert_array_equal(result.tally.kinds.sum(axis=1), result.count("converged"))


def test_weights_turn_one_distribution_into_another():
    """Normal points, weighted to be uniform in the box."""
    spread = 3.0
    source = RandomSource.gaussian(jax.random.key(1), 2**16, 2, spread)

    def weight(theta):
        inside = jnp.all(jnp.abs(theta) <= 4)
        return jnp.where(inside, jnp.exp(jnp.sum(theta**2) / (2 * spread**2)), 0.0)

    largest = float(np.exp(16 / spread**2))  # in the corners of the box
    result = measure(source, weight=weight, largest_weight=largest, volume=64.0, chunk=2**15)
    points = np.asarray(eqx.filter_jit(source)(jnp.arange(2**16)))
    weights = np.asarray(jax.vmap(weight)(points))
    np.testing.assert_allclose(result.tally.weights[1, :, 0].sum(), weights.sum(), rtol=1e-12)
    np.testing.assert_allclose(result.tally.weights[1, :, 1].sum(), (weights**2).sum(), rtol=1e-12)
    assert result.tally.heaviest == weights.max()
    for row in result.rows():
        exact = scalar.basin_area(row["step_size"], 1.0, 1.0, BOX)
        low, high = row["volume_interval"]
        assert low < exact < high
        assert abs(row["volume"] - exact) < 3 * 64 * row["standard_error"]
    unweighted = result.count("converged") / 2**16
    share = result.share()
    assert (np.abs(unweighted - share.value) > 5 * share.standard_error).any()
    assert set(share.method.tolist()) == {"delta"}
    seen = dataclasses.replace(result, largest_weight=None).share()
    assert set(seen.method.tolist()) == {"delta, if no weight exceeds those drawn"}
    assert (seen.high - seen.low < share.high - share.low).all()
    with pytest.raises(ValueError, match="expected points of equal weight, got weighted ones"):
        result.differences()
    with pytest.raises(ValueError, match="largest_weight: expected a bound of all weights, got 1 and"):
        measure(source, weight=weight, largest_weight=1.0, chunk=2**15)
    with pytest.raises(ValueError, match="largest_weight: expected a `weight` that it bounds"):
        measure(source, largest_weight=1.0)


def _quadrant(theta):
    return 2 * (theta[0] > 0).astype(jnp.int32) + (theta[1] > 0).astype(jnp.int32)


def test_post_strata():
    result = measure(poststrata=(_quadrant, [0.25] * 4))
    np.testing.assert_array_equal(result.tally.labels.sum(axis=1), result.counts)
    plain = measure().share()
    share = result.share()
    assert set(share.method.tolist()) == {"poststratified"}
    assert (share.high - share.low < plain.high - plain.low).all()
    for i, eta in enumerate(STEP_SIZES):
        assert share.low[i] < scalar.basin_area(eta, 1.0, 1.0, BOX) / 64 < share.high[i]


@pytest.mark.parametrize("design", [pytest.param("replicates", marks=pytest.mark.slow), "strata"])
def test_parts_are_counted_apart(design):
    result = measure(Parts(uniform(), 16, design), chunk=4096)
    plain = measure()
    np.testing.assert_array_equal(result.counts, plain.counts)
    outcome = ensembles.run(RULE, LOSS, uniform(), 0.3, STOP, keep=()).outcome.reshape(16, -1)
    expected = [np.bincount(part, minlength=5) for part in outcome]
    np.testing.assert_array_equal(result.tally.counts[1], expected)
    share = result.share()
    np.testing.assert_allclose(share.value, plain.share().value)
    estimate = estimators.replicates if design == "replicates" else estimators.stratified
    np.testing.assert_array_equal(share.low, estimate(result.tally.counts[..., 1], NUM // 16).low)
    assert set(result.to_xarray().counts_by_part.sizes.items()) == {("step_size", 3), ("part", 16), ("outcome", 5)}


def test_strata_are_more_precise():
    share, plain = measure(Strips(uniform()), chunk=4096).share(), measure().share()
    assert (share.standard_error < 0.9 * plain.standard_error).all()
    exact = np.array([scalar.basin_area(eta, 1.0, 1.0, BOX) / 64 for eta in STEP_SIZES])
    assert (np.abs(share.value - exact) < 3 * share.standard_error).all()


def test_to_xarray(whole):
    dataset = whole.to_xarray()
    assert dict(dataset.sizes) == {"step_size": 3, "outcome": 5, "bin": 112, "pair": 4, "kind": 3}
    np.testing.assert_array_equal(dataset["histogram"].sum(("outcome", "bin")), [NUM] * 3)
    assert dataset["counts"].sel(outcome="converged").values.tolist() == whole.count("converged").tolist()
    assert dataset.attrs["design"] == "independent"


def test_progress_reports_every_verdict_and_step():
    seen = []
    result = measure(chunk=4096, progress=lambda lanes, steps: seen.append((lanes, steps)))
    assert tuple(map(sum, zip(*seen, strict=True))) == (
        3 * NUM - result.count("undecided").sum(), result.tally.lane_steps.sum()
    )  # fmt: skip


def until(width, *, source=None, step_sizes=STEP_SIZES, **options):
    source = uniform(LONG) if source is None else source
    return basins.measure_until(
        RULE, LOSS, step_sizes, source, stopping=STOP, width=width, **{"chunk": 4096, "growth": 2.0} | options
    )


@pytest.mark.slow
def test_sampling_stops_once_the_intervals_are_narrow():
    found = until(0.02)
    assert found.reached.all()
    assert found.widths.max() <= 0.02
    assert 4096 < found.measure.samples < LONG
    direct = measure(uniform(LONG), chunk=4096, share=(0, 1), finished={})  # the same points, more of them
    assert (direct.counts >= found.measure.counts).all()
    assert found.measure.confidence > 0.95
    for row, width in zip(found.measure.rows(), found.widths, strict=True):
        low, high = row["interval"]
        assert high - low == pytest.approx(width)
        assert low < scalar.basin_area(row["step_size"], 1.0, 1.0, BOX) / 64 < high
    fewer = until(0.1)
    assert fewer.measure.samples == 4096
    np.testing.assert_array_equal(fewer.measure.counts, measure(uniform(4096)).counts)


@pytest.mark.slow
def test_a_width_out_of_reach_says_what_was_reached():
    found = until(0.002, budget=10_000)
    assert not found.reached.any()
    assert found.measure.samples == 10_000
    assert (found.widths > 0.002).all()
    relative = until(0.1, relative=True, budget=20_000, step_sizes=(0.3, 0.45))
    assert relative.reached.tolist() == [True, True]
    nothing = until(0.1, relative=True, step_sizes=(0.3, 0.6), budget=5000)
    assert not nothing.reached[1]
    assert np.isinf(nothing.widths[1])


def test_sequential_sampling_resumes_and_shares():
    once = until(0.02)
    written = {}
    until(0.02, on_chunk=written.__setitem__)
    some = {number: written[number] for number in list(written)[::2]}
    assert_same_tally(until(0.02, finished=some).measure.tally, once.measure.tally)
    halves = [{}, {}]
    for i in (0, 1):  # all chunks of each process, so that either can be asked for those of any look
        measure(uniform(LONG), chunk=4096, share=(i, 2), on_chunk=halves[i].__setitem__)

    def gather(own):
        looked = -(-own.stop // 4096)
        other = tallies.Layout(3, LONG, 0, 0, 112).zeros(own.start, own.stop)
        for number in range(1, looked, 2):
            other = basins.merge(other, halves[1][number])
        return [own, other]

    joined = until(0.02, share=(0, 2), finished=halves[0], gather=gather)
    assert_same_tally(joined.measure.tally, once.measure.tally)


def test_bins_hold_their_counts():
    counts = np.concatenate([np.arange(5000), 2 ** np.arange(13, 31), 2 ** np.arange(13, 31) - 1])
    bins = np.array([tallies.bin_of(int(count)) for count in counts])
    last = tallies.last_of(bins)
    assert (last >= counts).all()
    assert (tallies.last_of(bins - 1) < counts).all()
    assert (last <= np.maximum(counts * 17 / 16, counts)).all()
    np.testing.assert_array_equal(tallies.last_of(np.arange(64)), np.arange(64))


def test_steps_are_counted_and_their_quantiles_are_close(rng):
    steps = np.minimum(rng.geometric(1 / 80, 5000), 700).astype(np.int32)
    outcome = rng.integers(0, 5, 5000).astype(np.int8)
    histogram = np.zeros((5, tallies.bin_of(700) + 1), np.int64)
    tallies.count_steps(histogram, outcome, steps)
    np.testing.assert_array_equal(histogram.sum(axis=1), np.bincount(outcome))
    levels = (0.0, 0.05, 0.5, 0.9, 1.0)
    found = tallies.quantiles(histogram, levels)
    for code in range(5):
        exact = np.quantile(steps[outcome == code], levels, method="inverted_cdf")
        assert (found[code] >= exact).all()
        assert (found[code] <= np.where(exact < 64, exact, exact * 17 / 16)).all()
    few = np.zeros((5, 4), np.int64)  # fewer bins than there are exact ones
    tallies.count_steps(few, np.array([1, 1, 3], np.int8), np.array([3, 0, 2], np.int32))
    assert few[1].tolist() == [1, 0, 0, 1]
    assert few[3].tolist() == [0, 0, 1, 0]


class Empty:
    num_points = 0

    def __call__(self, indices, group=0):
        del group
        return jnp.zeros((len(indices), 2))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Empty(), {}, "at least one point"),
        (jnp.ones((5, 2)), {}, "expected a source"),
        (RandomSource.box(jax.random.key(0), 100, ((0, 1),) * 3), {}, r"expected theta of shape \(2,\), got \(3,\)"),
        (Parts(uniform(), 7, "strata"), {}, "equal length"),
        (None, {"step_sizes": (0.1, -1.0)}, "positive"),
        (None, {"weight": lambda theta: theta[0]}, "at least 0"),
        (None, {"weight": lambda theta: jnp.log(theta[0] - 100)}, "finite"),
        (None, {"weight": lambda theta: theta}, "one finite number"),
        (None, {"poststrata": (_quadrant, [0.5, 0.2, 0.2, 0.2])}, "sum 1"),
        (None, {"poststrata": (_quadrant, [0.5, 0.5, 0.0])}, "positive"),
        (None, {"poststrata": (_quadrant, [0.5, 0.5])}, "label from 0 to 1"),
        (None, {"poststrata": (_quadrant, [0.25] * 4), "weight": lambda theta: theta[0] ** 2}, "got both"),
        (Parts(uniform(), 10, "replicates"), {"weight": lambda theta: theta[0] ** 2}, "independent"),
        (None, {"chunk": 0}, "chunk"),
        (None, {"share": (2, 2)}, "share"),
        (None, {"confidence": 1.0}, "confidence"),
        (None, {"volume": -1.0}, "volume"),
        (None, {"classify": stability.classify}, "enumeration"),
    ],
)
def test_bad_input_is_refused(source, options, message):
    with pytest.raises(ValueError, match=message):
        measure(source, **options)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Parts(uniform(), 10, "strata"), {}, "independent"),
        (None, {"budget": 2**18}, "exceeds"),
        (None, {"width": 2.0}, "width"),
        (None, {"growth": 1.0}, "growth"),
    ],
)
def test_bad_input_of_sequential_sampling_is_refused(source, options, message):
    with pytest.raises(ValueError, match=message):
        until(**{"width": 0.1, "source": source} | options)


def test_unknown_outcomes_are_refused(whole):
    with pytest.raises(ValueError, match="expected outcomes"):
        whole.share("stuck")
