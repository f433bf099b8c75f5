"""Adaptive pictures: equal to brute force where they can be, at the cost of the edge; what is missed and found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import basins, boundaries, ensembles
from gdstab.boundaries import _quadtree
from gdstab.losses import DoubleWell, RegularisedProduct, ScalarProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import GridSource
from gdstab.theory import scalar
from gdstab.updates import gradient_descent

BOX = ((-4, 4), (-4, 4))
STOP = StoppingRule(grad_tol=1e-10, max_steps=5000)
LOSS = ScalarProduct(depth=2, target=1.0, scale=1.0)
ROUGH = RegularisedProduct(decay=0.2, target=1.0, scale=0.5)


def adaptive(loss=LOSS, step_size=0.3, *, box=BOX, resolution=256, stopping=STOP, **options):
    return boundaries.adaptive_heatmap(
        gradient_descent(), loss, step_size, box=box, resolution=resolution, stopping=stopping, **options
    )


def brute(loss=LOSS, step_size=0.3, *, box=BOX, resolution=256, stopping=STOP, **options):
    return basins.heatmap(
        gradient_descent(), loss, step_size, box=box, resolution=resolution, stopping=stopping, **options
    )


def cell_by_cell(loss=LOSS, step_size=0.3, *, shape, stopping=STOP):
    """The outcomes of `brute`, by what `adaptive` has compiled already."""
    source = GridSource(BOX, shape)
    classify = boundaries.Classifier(gradient_descent(), loss, step_size, stopping)
    return source.to_grid(boundaries.outcome_of(classify(source.take(np.arange(source.num_points)))))


def next_to_another(picture):
    """Cells that differ from one of their eight neighbours, by shifting the whole picture."""
    wide, found = np.pad(picture, 1, mode="edge"), np.zeros(picture.shape, bool)
    rows, columns = picture.shape
    for i in range(3):
        for j in range(3):
            found |= wide[i : i + rows, j : j + columns] != picture
    return found


@pytest.fixture(scope="module")
def smooth():
    return adaptive(resolution=1024), brute(resolution=1024)


def test_a_smooth_basin_equals_brute_force_cell_by_cell(smooth):
    result, whole = smooth
    np.testing.assert_array_equal(result.outcome, whole.outcome)
    assert result.counts == whole.counts
    assert result.fractions == whole.fractions
    assert (result.area, result.area_bracket) == (whole.area, whole.area_bracket)
    low, high = result.area_bracket
    assert low < scalar.basin_area(0.3, 1.0, 1.0, BOX) < high
    assert result.share_computed < 0.04
    assert result.lane_steps < 0.1 * whole.lane_steps


def test_the_boundary_is_that_of_the_whole_picture(smooth):
    result, whole = smooth
    np.testing.assert_array_equal(result.boundary, np.flatnonzero(next_to_another(whole.outcome)))
    assert (result.level.ravel()[result.boundary] == 0).all()


def test_the_mesh_covers_every_cell_once(smooth):
    result, _ = smooth
    assert sum(len(result.leaves(level)) * 4**level for level in range(result.tree.levels + 1)) == result.cells
    level = result.level
    for n in range(result.tree.levels + 1):
        rows, columns = result.leaves(n).T
        assert (level[rows, columns] == n).all()
        np.testing.assert_array_equal(rows % 2**n + columns % 2**n, 0)
    corners = set()  # every corner of every square there ever was is computed, once, and nothing else
    for n in range(result.tree.levels + 1):
        rows, columns = np.nonzero(level[:: 2**n, :: 2**n] <= n)
        for i in (rows, rows + 1):
            for j in (columns, columns + 1):
                corners.update((np.minimum(i * 2**n, 1023) * 1024 + np.minimum(j * 2**n, 1023)).tolist())
    assert result.lanes == len(corners)


def test_cost_grows_as_the_length_of_the_edge():
    sizes = np.array([512, 1024, 2048, 4096])
    lanes = [adaptive(resolution=int(n), coarse=128).lanes for n in sizes]
    more = np.diff(lanes)  # without what does not grow, such as the coarse corners
    assert np.polyfit(np.log(sizes[1:]), np.log(more), 1)[0] == pytest.approx(1, abs=0.02)
    assert lanes[-1] < 0.01 * sizes[-1] ** 2


@pytest.mark.slow
def test_a_line_one_cell_wide_is_followed_through_the_basin():
    """Cells of the antidiagonal creep to the saddle: undecided, with the converged on both sides of them."""
    stopping = StoppingRule(max_steps=2000)
    result = adaptive(step_size=0.2, stopping=stopping, coarse=32)
    np.testing.assert_array_equal(result.outcome, cell_by_cell(step_size=0.2, shape=(256, 256), stopping=stopping))
    rows, columns = np.nonzero(result.outcome == Outcome.UNDECIDED)
    assert ((rows + columns) == 255).sum() > 80
    corners = np.minimum(np.arange(33) * 8, 255)
    assert not np.isin(rows, corners)[np.isin(columns, corners)].any()  # no coarse corner lies on it


@pytest.mark.slow
def test_a_fractal_edge_is_found_but_for_dust():
    whole = cell_by_cell(ROUGH, 0.6, shape=(512, 512))
    lost = []
    for options in ({}, {"reach": 2}, {"contrast": 1}):
        result = adaptive(ROUGH, 0.6, resolution=512, **options)
        differ = result.outcome != whole
        assert not differ[result.level == 0].any()
        edge = next_to_another(result.outcome)
        assert (result.level[edge] == 0).all()
        lost.append(int(differ.sum()))
    assert lost[0] < 1e-4 * whole.size
    assert lost[0] >= lost[1] >= lost[2]


def test_labels_tell_the_minima_apart():
    side = lambda theta: (theta[0] > 0).astype(int)  # noqa: E731
    box = ((-2.0, 2.0), (-2.0, 2.0))
    result = adaptive(DoubleWell(), 0.1, box=box, resolution=(256, 128), coarse=(16, 8), label=side)
    assert result.counts["converged"] == result.cells
    source = GridSource(box, (256, 128))
    whole = ensembles.run(gradient_descent(), DoubleWell(), source, 0.1, STOP, keep=("theta",))
    expected = np.where(whole.outcome == Outcome.CONVERGED, whole.theta[:, 0] > 0, 0).reshape(256, 128)
    np.testing.assert_array_equal(result.outcome, whole.outcome.reshape(256, 128))
    np.testing.assert_array_equal(result.label, expected)
    assert result.lanes < 0.4 * result.cells
    assert result.boundary.size >= 256
    assert set(result.to_xarray().data_vars) == {"outcome", "level", "label"}


class Drawn(eqx.Module):
    """Zero on a disc, one elsewhere: with no updates at all, a picture of any basin one likes."""

    centre: jax.Array
    radius: jax.Array
    tilt: jax.Array  # nan: a disc; else a strip of that slope through the centre

    def __call__(self, theta):
        apart = theta - self.centre
        disc = jnp.sqrt(jnp.sum(apart * apart)) < self.radius
        strip = jnp.abs(apart[1] - self.tilt * apart[0]) < self.radius
        return 1 - jnp.where(jnp.isnan(self.tilt), disc, strip).astype(theta.dtype)


def draw(centre, radius, tilt=np.nan, **options):
    loss = Drawn(jnp.asarray(centre, float), jnp.asarray(radius), jnp.asarray(tilt))
    both = {"box": ((0, 128), (0, 128)), "resolution": 128, "stopping": StoppingRule(max_steps=0)}
    return adaptive(loss, **both, coarse=8, **options), brute(loss, **both)


def test_an_island_without_a_corner_is_missed_and_probes_find_it():
    missed, whole = draw((40.3, 71.7), 4.0)
    assert whole.counts["converged"] == pytest.approx(16 * np.pi, abs=4)
    assert missed.counts["converged"] == 0
    assert (missed.lanes, missed.probes) == (81, boundaries.Probes(0, 0))
    found = [draw((40.3, 71.7), 4.0, probe=4, seed=seed)[0] for seed in range(8)]
    hits = [result.probes.found > 0 for result in found]
    # The island is a fifth of its coarse square: four probes hit it with a probability of 58 %.
    assert 1 <= sum(hits) <= 7
    for hit, result in zip(hits, found, strict=True):
        np.testing.assert_array_equal(result.outcome, whole.outcome if hit else missed.outcome)


def test_an_island_with_a_corner_is_found_without_probes():
    result, whole = draw((40.3, 64.0), 9.0)
    np.testing.assert_array_equal(result.outcome, whole.outcome)


@pytest.mark.parametrize("tilt", [0.37, *(pytest.param(t, marks=pytest.mark.slow) for t in (0.0, -1.0, 5.0))])
def test_a_filament_is_followed_from_the_one_corner_on_it(tilt):
    """Thinner than a coarse square everywhere, and two cells wide: one corner is enough for its whole length."""
    result, whole = draw((64.5, 48.5), 1.02 * np.sqrt(1 + tilt**2), tilt)
    assert whole.counts["converged"] > 100
    np.testing.assert_array_equal(result.outcome, whole.outcome)


def test_the_far_rim_is_looked_at():
    result, whole = draw((127.9, 127.9), 3.0)
    assert whole.counts["converged"] > 4
    np.testing.assert_array_equal(result.outcome, whole.outcome)


def test_cuts_do_not_depend_on_the_order_of_the_work(rng):
    """The same truth, given a few squares at a time: the same mesh."""
    truth = np.zeros((64, 64), np.int16)
    truth[20:33, 11:50] = 1
    truth[25, :] = 2
    meshes = []
    for shuffle in (False, True):
        tree = _quadtree.Quadtree(truth.shape, 3)
        while tree.pending:
            cells = tree.missing()
            tree.put(cells, truth.ravel()[cells], None)
            held = {}
            if shuffle:
                level = int(rng.choice(list(tree.pending)))
                held = {n: [squares] for n, squares in tree.pending.items() if n != level}
                tree.pending = {level: tree.pending[level]}
            tree.grow()
            for n, squares in held.items():
                tree.pending.setdefault(n, []).extend(squares)
        meshes.append([cut.copy() for cut in tree.cut])
        np.testing.assert_array_equal(tree.filled(), truth)
    for one, other in zip(*meshes, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_slices_and_single_precision():
    loss, plane = ScalarProduct(depth=3, target=1.0, scale=0.5), ([0, 0, 1], [1, 0, 0], [0, 1, 1])
    stopping = StoppingRule(loss_tol=1e-8, max_steps=2000)
    options = {"plane": plane, "dtype": "float32", "stopping": stopping, "resolution": 128}
    result, whole = adaptive(loss, 0.2, **options, coarse=32), brute(loss, 0.2, **options)
    np.testing.assert_array_equal(result.outcome, whole.outcome)
    assert result.axes == whole.axes == ("s0", "s1")
    assert result.source.tables[0].dtype == np.float32
    np.testing.assert_array_equal(result.centres, whole.centres)
    assert result.cell_sides == whole.cell_sides


def test_a_resolution_that_cannot_be_halved_is_computed_whole():
    result = adaptive(resolution=(33, 50))
    np.testing.assert_array_equal(result.outcome, cell_by_cell(shape=(33, 50)))
    assert (result.lanes, result.rounds, result.tree.levels, result.share_computed) == (1650, 1, 0, 1.0)
    assert adaptive(resolution=(33, 50), probe=3).probes.cells == 0
    assert (result.level == 0).all()


@pytest.mark.slow
def test_a_classifier_compiles_once_and_counts_what_it_runs(rng):
    progress = []
    classify = boundaries.Classifier(
        gradient_descent(), LOSS, 0.3, STOP, batch=512, progress=lambda lanes, _: progress.append(lanes)
    )
    points = rng.uniform(-4, 4, (1300, 2))
    classes = classify(points)
    compiled = classify.compile_seconds
    for num in (0, 1, 511, 513):
        np.testing.assert_array_equal(classify(points[:num]), classes[:num])
    assert classify.compile_seconds == compiled
    assert classify.lanes == sum(progress) == 1300 + 1025
    expected = ensembles.run(gradient_descent(), LOSS, points, 0.3, STOP)
    np.testing.assert_array_equal(boundaries.outcome_of(classes), expected.outcome)
    np.testing.assert_array_equal(classify.with_steps(points)[1], expected.steps)
    assert not boundaries.label_of(classes).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_size": -1.0}, "positive"),
        ({"step_size": [0.1, 0.2]}, "one step size"),
        ({"box": ((1, 0), (0, 1))}, "low < high"),
        ({"resolution": (0, 16)}, "at least 1"),
        ({"coarse": 100}, "power of two"),
        ({"coarse": (64, 128)}, "power of two"),
        ({"coarse": 512}, "power of two"),
        ({"coarse": 0}, "at least 1"),
        ({"probe": -1}, "probe"),
        ({"reach": 0}, "reach"),
        ({"contrast": 0}, "contrast"),
        ({"batch": 0}, "batch"),
        ({"plane": (0, 0)}, "plane"),
        ({"label": lambda theta: theta[0]}, "one integer"),
        ({"label": lambda theta: (theta > 0).astype(int)}, "one integer"),
        ({"label": lambda theta: (theta[0] > 0).astype(int) - 1}, "from 0 to"),
        ({"loss": lambda theta: theta}, "scalar"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        adaptive(**change)


def test_bad_points_are_refused():
    with pytest.raises(ValueError, match="points"):
        boundaries.Classifier(gradient_descent(), LOSS, 0.3, STOP)(np.zeros(2))
