"""Heatmaps: the exact basin, slices, areas and their brackets, patches, what cells converged to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import basins, stability
from gdstab.losses import ScalarProduct, VectorProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import GridSource
from gdstab.theory import scalar
from gdstab.updates import gradient_descent

BOX = ((-4, 4), (-4, 4))
STOP = StoppingRule(grad_tol=1e-10, max_steps=20_000, max_period=8)
LOSS = ScalarProduct(depth=2, target=1.0, scale=1.0)


def heatmap(step_size=0.3, *, loss=LOSS, resolution=(100, 100), stopping=STOP, **options):
    return basins.heatmap(
        gradient_descent(), loss, step_size, box=BOX, resolution=resolution, stopping=stopping, **options
    )


@pytest.fixture(scope="module")
def below():
    return heatmap()


@pytest.mark.parametrize("step_size", [0.3, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.1, 0.49))])
def test_area_is_the_exact_one_within_its_bracket(step_size):
    result = heatmap(step_size)
    low, high = result.area_bracket
    exact = scalar.basin_area(step_size, 1.0, 1.0, BOX)
    assert low <= exact <= high
    assert low < result.area < high
    assert abs(result.area - exact) < 0.01 * exact
    assert result.counts["undecided"] == 0


def test_counts_and_fractions(below):
    assert list(below.counts) == ["converged", "cycling", "diverged", "undecided", "nonfinite"]
    assert sum(below.counts.values()) == below.cells == 10_000
    assert sum(below.fractions.values()) == pytest.approx(1)
    assert below.counts["converged"] == (below.outcome == Outcome.CONVERGED).sum()


def test_bracket_counts_neighbours():
    """A block of 3 x 3 converged cells: one has all neighbours in it, and 5 x 5 cells are in or next to it."""
    outcome = np.full((7, 8), Outcome.DIVERGED, np.int8)
    outcome[2:5, 2:5] = Outcome.CONVERGED
    source = GridSource(((0, 7), (0, 16)), (7, 8))
    result = basins.Heatmap(
        outcome=outcome, steps=np.ones((7, 8), np.int32), above_floor=np.zeros(0, np.int64), source=source,
        step_size=0.1, box=((0.0, 7.0), (0.0, 16.0)), axes=("x0", "x1"), lane_steps=0, compile_seconds=0.0,
        run_seconds=0.0,
    )  # fmt: skip
    assert (result.area, result.area_bracket) == (9 * 2.0, (1 * 2.0, 25 * 2.0))


def test_first_axis_is_the_first_of_the_box():
    result = basins.heatmap(gradient_descent(), LOSS, 0.3, box=((1, 2), (-1, 1)), resolution=(4, 2), stopping=STOP)
    np.testing.assert_array_equal(result.centres[0], [1.125, 1.375, 1.625, 1.875])
    numbers = np.arange(8)
    cell = result.source.cells(numbers).tolist().index(1)  # the second cell of the first row
    np.testing.assert_array_equal(np.asarray(result.source(jnp.asarray(numbers)))[cell], [1.125, 0.5])
    assert result.outcome.shape == (4, 2)


def test_patches_join_to_the_whole(below):
    patches = []
    heatmap(tile=3000, on_patch=patches.append)
    assert [patch.stop - patch.start for patch in patches[:2]] == [256, 256]  # nothing is known of what they take
    assert max(patch.stop - patch.start for patch in patches) <= 3000
    again = []
    resumed = heatmap(tile=3000, finished=patches[:3], on_patch=again.append)
    assert [patch.start for patch in again][:1] == [patches[2].stop]
    for name in ("outcome", "steps", "above_floor", "lane_steps"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(below, name))
    with pytest.raises(ValueError, match="in order"):
        heatmap(tile=3000, finished=patches[1:])


def test_cells_on_the_antidiagonal_reach_the_saddle(below):
    kinds = basins.refine(
        gradient_descent(), LOSS, below, stopping=STOP, classify=stability.classify, kinds=stability.Kind
    )
    rows, columns = np.unravel_index(kinds.cells, (100, 100))
    np.testing.assert_array_equal(rows + columns, 99)
    assert kinds.counts == {"minimum": below.counts["converged"] - 38, "strict_saddle": 38, "degenerate": 0}
    np.testing.assert_array_equal(kinds.inertia, [[1, 0, 1]] * 38)


def test_refine_without_candidates():
    result = heatmap(stopping=StoppingRule(max_steps=50), resolution=(10, 11))
    kinds = basins.refine(
        gradient_descent(), LOSS, result, stopping=STOP, classify=stability.classify, kinds=stability.Kind
    )
    assert kinds.counts["minimum"] == result.counts["converged"]
    assert kinds.kind.shape == (0,)


@pytest.mark.slow
def test_slices_by_axes_and_by_directions_agree():
    loss = VectorProduct(dim=2, target=1.0, scale=1.0)
    by_axes = heatmap(loss=loss, plane=(0, 2), dim=4)
    by_directions = heatmap(loss=loss, plane=([0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]))
    plain = heatmap()
    for result in (by_axes, by_directions):
        np.testing.assert_array_equal(result.outcome, plain.outcome)
        np.testing.assert_array_equal(result.steps, plain.steps)
    assert by_axes.axes == ("x0", "x2")
    assert by_directions.axes == ("s0", "s1")


def test_a_slice_off_the_origin_starts_there():
    result = heatmap(plane=([1, 0, 5.0], [0, 1, 0], [1, 0, 1]), loss=lambda t: jnp.sum(t * t), resolution=(2, 2))
    np.testing.assert_array_equal(np.asarray(result.source(jnp.arange(1)))[0], [-1, -2, 3])


def test_to_xarray(below):
    dataset = below.to_xarray()
    assert dict(dataset.sizes) | {"cell": 0} == {"x0": 100, "x1": 100, "cell": 0}
    np.testing.assert_array_equal(dataset["x0"], -dataset["x0"][::-1])
    assert dataset["outcome"].attrs["flag_meanings"].split()[Outcome.DIVERGED] == "diverged"


def test_progress_reports_every_lane_and_step():
    seen = []
    result = heatmap(progress=lambda lanes, steps: seen.append((lanes, steps)))
    assert tuple(map(sum, zip(*seen, strict=True))) == (result.cells, result.lane_steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_size": 0.0}, "positive"),
        ({"step_size": float("nan")}, "positive"),
        ({"step_size": [0.1, 0.2]}, "one step size"),
        ({"resolution": (0, 10)}, "at least 1"),
        ({"resolution": (10, 10, 10)}, "resolution"),
        ({"plane": (0, 0)}, "plane"),
        ({"plane": (0, 5), "dim": 3}, "there are 3"),
        ({"plane": ([0, 0], [1, 0], [2, 0])}, "independent"),
        ({"loss": lambda theta: theta * theta}, "scalar"),
        ({"loss": lambda theta: theta[0].astype(int)}, "floating"),
    ],
)
def test_bad_input_is_refused_on_the_host(change, message):
    with pytest.raises(ValueError, match=message):
        heatmap(**{"step_size": 0.3} | change)


def test_an_empty_box_is_refused():
    with pytest.raises(ValueError, match="low < high"):
        basins.heatmap(gradient_descent(), LOSS, 0.3, box=((4, -4), (0, 1)), resolution=(2, 2), stopping=STOP)


def test_float64_is_refused_where_it_is_disabled():
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        heatmap(dtype="float64")
