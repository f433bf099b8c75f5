"""Labels of end points: grouping against graph distances, blocks and orders, matching, cycles, symmetries, shares."""

import dataclasses
import enum
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from gdstab import basins, boundaries, ensembles, figures, theory
from gdstab.basins import Found
from gdstab.basins.ends import cells_of, distinct
from gdstab.basins.grouping import Place
from gdstab.losses import DoubleWell, Himmelblau, ScalarProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import RandomSource
from gdstab.studies import basin, heatmap, labels, options
from gdstab.studies.heatmap import show as show_of_heatmaps
from gdstab.studies.heatmap import study as study_of_heatmaps
from gdstab.updates import gradient_descent

RULE = gradient_descent()
MINIMA = np.array([(-3.779310, -3.283186), (-2.805118, 3.131313), (3.0, 2.0), (3.584428, -1.848127)])
BOX = ((-5.0, 5.0), (-5.0, 5.0))
STOP = StoppingRule(max_period=4, max_steps=1000)
NUM = 4000


def by_distance(points, low, high):
    """Numbers of components where links are shorter than `low`, and shorter than `high`, in every coordinate."""
    far = cdist(points, points, "chebyshev")
    return [connected_components(far < tol)[1] for tol in (low, high)]


def refines(fine, coarse):
    """Whether what has one label in the first has one in the second."""
    return len(np.unique(np.stack([fine, coarse]), axis=1).T) == len(np.unique(fine))


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_the_groups_are_those_of_distances_between_one_and_two_cells(rng, dim):
    """Chains of gaps up to `tol` are never cut, gaps of twice that never bridged; the order of points is no matter."""
    points = 80 / dim * rng.random((30, dim)).repeat(10, axis=0) + rng.normal(size=(300, dim))
    found, label = basins.find_attractors(points, 1.0, most=300)
    fine, coarse = by_distance(points, 1.0, 2.0)
    assert len(np.unique(fine)) > 2
    assert refines(fine, label)
    assert refines(label, coarse)
    assert found.lanes.tolist() == [np.bincount(label).tolist()]
    order = rng.permutation(len(points))
    again, shuffled = basins.find_attractors(points[order], 1.0, most=300)
    np.testing.assert_array_equal(shuffled, label[order])
    np.testing.assert_array_equal(again.point, found.point)
    few, pooled = basins.find_attractors(points, 1.0, most=2)
    assert few.names[2] == "others"
    assert np.sort(few.lanes[0][:2]).tolist() == np.sort(found.lanes[0])[-2:].tolist()
    assert few.lanes.sum() == len(pooled)


def test_a_manifold_is_one_attractor_and_rounding_does_not_order_points(rng):
    x = np.exp(rng.uniform(-1, 1, 100_000)) * rng.choice([-1, 1], 100_000)
    ends = np.stack([x, 1 / x], axis=1) + 1e-9 * rng.normal(size=(100_000, 2))
    for tol in (0.1, 0.01):
        found, label = basins.find_attractors(ends, tol)
        assert found.num == 2
        np.testing.assert_array_equal(label, ends[:, 0] > 0)
        assert (found.extent > 2).all()
        assert (found.cells > 1 / tol).all()
    both, _ = basins.find_attractors(ends, 0.01, images=lambda points: [-points])
    assert both.num == 1
    wells = np.array([(1.0, 2.0), (1.0, -2.0)])[rng.integers(0, 2, 1000)]
    for noise in 1e-9 * rng.normal(size=(5, 1000, 2)):
        found, label = basins.find_attractors(wells + noise, 0.1)
        np.testing.assert_array_equal(label, wells[:, 1] > 0)
    assert found.names == ("(1, -2)", "(1, 2)")


def test_cells_that_do_not_fit_into_one_number(rng):
    rows = rng.integers(-(2**40), 2**40, (500, 6))[rng.integers(0, 500, 3000)]
    found, place = distinct(list(rows.T))
    wanted, expected = np.unique(rows, axis=0, return_inverse=True)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(place, expected)
    with pytest.raises(ValueError, match="tol: 1e-15 is below what points of size 100"):
        cells_of(np.array([[100.0]]), 1e-15)
    with pytest.raises(ValueError, match="expected end points"):
        basins.find_attractors(np.arange(3), 0.1)


def test_matching_takes_the_closest_pairs_first_and_keeps_who_was_away():
    def at(*x, cycle=False):
        return Place(np.array(x, float)[:, None], cycle)

    known = [at(0.0), at(1.0), at(9.0)]
    assert basins.match_labels(known, [at(1.1), at(0.4), at(9.0, cycle=True)], 2.0).tolist() == [1, 0, 3]
    assert basins.match_labels([], [at(1.0), at(2.0)], 1.0).tolist() == [0, 1]
    assert basins.match_labels([at(0.0)], [at(1.0)], 1.0).tolist() == [0]
    assert basins.match_labels([at(0.0)], [at(1.01)], 1.0).tolist() == [1]


@pytest.fixture(scope="module")
def measured():
    return measure()


def measure(label=Found(), loss=Himmelblau(), step_sizes=(0.014, 0.016, 0.01), box=BOX, num=NUM, **more):  # noqa: B008
    source = RandomSource.box(jax.random.key(1), num, box)
    return basins.measure(RULE, loss, step_sizes, source, stopping=STOP, label=label, **more)


def looped(points, step_size, steps=1000):
    """The minimum that each point ends at by NumPy, -1 of none: 2 x (x^2 + y - 11) and so on, written by hand."""
    x, y = points.T.copy()
    for _ in range(steps):
        a, b = x**2 + y - 11, x + y**2 - 7
        x, y = x - step_size * (4 * x * a + 2 * b), y - step_size * (2 * a + 4 * y * b)
    far = np.hypot(x[:, None] - MINIMA[:, 0], y[:, None] - MINIMA[:, 1])
    return np.where(far.min(axis=1) < 1e-3, far.argmin(axis=1), -1)


def test_himmelblau_has_four_and_their_shares_are_those_of_a_loop(measured, rng):
    """At 0.016 the first minimum has lost its stability (2 / 133.8) to a cycle of two, with a label of its own."""
    found = measured.attractors
    np.testing.assert_allclose(found.point[:4], MINIMA, atol=1e-5)
    assert found.period.tolist() == [0, 0, 0, 0, 2]
    assert (found.lanes.sum(axis=1) == NUM).all()
    assert (found.lanes[:, 0] > 0).tolist() == [True, False, True]
    assert (found.lanes[:, 4] > 0).tolist() == [False, True, False]
    points = rng.uniform(-5, 5, (20_000, 2))
    share = measured.label_share()
    assert share.value.shape == (3, 5)
    for step, step_size in ((0, 0.014), (2, 0.01)):
        counts = np.bincount(looped(points, step_size), minlength=4)
        error = np.sqrt(counts / 20_000 / 20_000)
        assert (share.low[step, :4] - 2 * error <= counts / 20_000).all()
        assert (counts / 20_000 <= share.high[step, :4] + 2 * error).all()
    assert (share.high - share.low)[0, :4].max() < 0.03


def test_neither_chunks_nor_blocks_nor_processes_change_a_label(measured):
    tallies = {}
    parts = [
        measure(chunk=1000, block=64, share=(i, 2), on_chunk=lambda number, tally: tallies.update({number: tally}))
        for i in (0, 1)
    ]

    def gather(tree):  # as `Team.gather`, of two processes
        if not isinstance(tree, basins.Tally):
            return [np.int64(len(part.tally.ends.row)) for part in parts]
        most = len(tree.ends.row) + 3
        return [part.tally._replace(ends=part.tally.ends.longer(most)) for part in parts]

    again = measure(chunk=1000, share=(0, 2), gather=gather, finished=tallies)
    read = {number: basins.Tally.from_arrays(tally.arrays()) for number, tally in tallies.items()}
    for other in (again, measure(chunk=1000, finished=read)):
        for name, array in measured.tally.ends._asdict().items():
            np.testing.assert_array_equal(getattr(other.tally.ends, name), array, err_msg=name)
        np.testing.assert_array_equal(other.label_of_cell, measured.label_of_cell)
        assert other.attractors.names == measured.attractors.names
    with pytest.raises(ValueError, match="has no end points"):
        measure(chunk=1000, finished={0: tallies[0]._replace(ends=None)})


def test_labels_of_the_lanes_of_a_result(measured):
    source = RandomSource.box(jax.random.key(1), NUM, BOX)
    sizes = measured.step_sizes
    result = ensembles.run(RULE, Himmelblau(), source, sizes, STOP, keep=("theta", "state"))
    found = basins.label_ends(RULE, Himmelblau(), result, Found(measured.attractors.tol), STOP)
    assert found.attractors.names == measured.attractors.names
    for step in range(3):
        lanes = np.bincount(found.label[step], minlength=5)
        assert lanes.tolist() == measured.attractors.lanes[step].tolist()
    with pytest.raises(ValueError, match="with states"):
        basins.label_ends(RULE, Himmelblau(), eqx.tree_at(lambda r: r.state, result, None), Found(0.1), STOP)


def test_labels_of_the_cells_of_a_heatmap():
    kept = []
    grid = {"box": BOX, "resolution": (40, 40), "stopping": STOP, "label": Found()}
    picture = basins.heatmap(RULE, Himmelblau(), 0.01, **grid, tile=300, on_patch=kept.append)
    points = picture.source.take(np.arange(1600))
    expected = np.empty((40, 40), int)
    expected.ravel()[picture.source.cells(np.arange(1600))] = looped(points, 0.01)
    np.testing.assert_array_equal(picture.label, expected)
    half = [basins.Patch.from_arrays(**patch.arrays()) for patch in kept[: len(kept) // 2]]
    np.testing.assert_array_equal(
        basins.heatmap(RULE, Himmelblau(), 0.01, **grid, tile=300, finished=half).label, expected
    )
    back = basins.Heatmap.from_xarray(picture.to_xarray(), box=BOX)
    np.testing.assert_array_equal(back.label, expected)
    assert back.attractors.names == picture.attractors.names


@pytest.mark.slow
def test_labels_of_critical_steps():
    points = np.asarray(RandomSource.box(jax.random.key(1), 256, BOX)(jnp.arange(256)))
    search = {"low": 0.005, "high": 0.01, "scan": 2, "stopping": StoppingRule(max_steps=1000), "label": Found(0.1)}
    steps = boundaries.critical_step(RULE, Himmelblau(), points, **search)
    assert (steps.low == 0.01).all()
    np.testing.assert_array_equal(steps.label, looped(points, 0.01))


class Side(enum.IntEnum):
    LEFT = 0
    RIGHT = 1


def side(theta):
    return (theta[0] > 0).astype(jnp.int32)


def test_wells_are_told_apart_by_name_by_kind_and_by_symmetry():
    """A lane that meets `loss_tol` was called the kind 0 before it was looked at, whatever the kinds were."""
    wells = {"loss": DoubleWell(), "step_sizes": 0.3, "box": ((-1.5, 1.5),)}
    kinds = {"classify": lambda _, theta: (side(theta), (0, 0, 0)), "kinds": Side}
    named = measure(side, **wells, **kinds)
    left, right = named.attractors.lanes[0]
    assert left + right == NUM
    assert abs(left - right) < 5 * np.sqrt(NUM)
    assert named.tally.kinds.tolist() == [[left, right]]
    with pytest.raises(ValueError, match="one integer from 0"):
        measure(lambda theta: theta[0], **wells, **kinds)
    with pytest.raises(ValueError, match="equal weight"):
        measure(side, **wells, weight=lambda theta: 1.0 + theta[0] ** 2)


def test_a_cycle_is_one_attractor_whatever_its_phase():
    """Past its threshold 1 each well has a cycle of two; beyond, end points are at either phase of it."""
    wells = {"loss": DoubleWell(), "step_sizes": (0.9, 1.1, 1.15), "box": ((-1.5, 1.5),), "num": 2000}
    found = measure(**wells).attractors
    assert found.period.tolist() == [0, 0, 2, 2]
    assert (found.lanes[0, :2] > 0).all()
    assert (found.lanes[1:, 2:] > 0).all()
    assert (found.lanes[1:, :2] == 0).all()
    x = found.point[2:, 0]
    eta = [0.9, 1.1, 1.15]
    step = x[:, None] - np.array(eta[1:]) * (x**3 - x)[:, None]
    back = step - np.array(eta[1:]) * (step**3 - step)
    assert np.abs(back - x[:, None]).min(axis=1).max() < 1e-6  # of period two at one of the step sizes
    mirrored = measure(Found(symmetries=(jnp.negative,)), **wells).attractors
    assert mirrored.period.tolist() == [0, 2]
    assert mirrored.lanes.T.tolist() == [found.lanes[:, :2].sum(1).tolist(), found.lanes[:, 2:].sum(1).tolist()]


SMALL = options.Heatmap(loss=options.Himmelblau(), step_size=0.01, box=BOX, resolution=(24, 24), max_steps=500)


def test_a_configuration_without_labels_is_what_it_was():
    assert not {"label", "label_tol"} & set(options.configuration(SMALL))
    for plain in (SMALL, options.CriticalMap()):
        asked = dataclasses.replace(plain, label="found", label_tol=0.25)
        assert options.read(json.loads(json.dumps(options.configuration(asked)))) == asked
    with pytest.raises(ValueError, match="use --label found"):
        study_of_heatmaps.prepare(options.Heatmap(label="by-minimum", loss=options.Relu()))
    with pytest.raises(ValueError, match="goes with --label"):
        study_of_heatmaps.prepare(options.Heatmap(label_tol=0.1))


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_the_study_of_heatmaps_writes_labels(tmp_path):
    record = heatmap.run(dataclasses.replace(SMALL, label="found", out=tmp_path / "map")).record
    assert [row["kind"] for row in record.summary["attractors"]] == ["minimum"] * 4
    assert sum(row["lanes"][0] for row in record.summary["attractors"]) == 576
    assert "(3, 2)" in show_of_heatmaps.table(record.summary)


@pytest.mark.usefixtures("unrendered")
@pytest.mark.slow
def test_the_study_of_basins_writes_labels_and_draws_them(tmp_path):
    asked = options.Basin(
        loss=options.Himmelblau(), step_sizes="0.01,0.016", box=(-5.0, 5.0), samples=500, max_steps=500,
        label="by-minimum", out=tmp_path / "basin",
    )  # fmt: skip
    record = basin.run(asked).record
    assert {path.name for path in record.path.iterdir()} >= {"attractors.png", "figure.png"}
    first, second = (np.array([entry["lanes"] for entry in row["labels"]]) for row in record.summary["rows"])
    assert first.sum() == 500
    assert second[0] == first[4] == second[4] == 0


def test_minima_that_are_known_are_those_of_the_loss():
    minima = Himmelblau().minima()
    np.testing.assert_allclose(minima, MINIMA, atol=1e-6)
    assert max(float(Himmelblau()(jnp.asarray(point))) for point in minima) < 1e-20
    label = labels.ByMinimum(minima)
    assert [int(label(jnp.asarray(point))) for point in [*minima, [0.0, 0.0]]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_branches_that_are_known_are_those_of_the_loss(dtype):
    asked = options.Heatmap(label="by-minimum", loss=options.Scalar(target=2.0))
    label = study_of_heatmaps.prepare(asked).label
    assert label.names == ("branch through (-1.414, -1.414)", "branch through (1.414, 1.414)", "elsewhere")
    branches, _ = theory.known(ScalarProduct(target=2.0)).minima(((-50, 50), (-50, 50)), 0.1, num=7)
    ends = np.concatenate([*branches, np.zeros((1, 2))]).astype(dtype)
    assert jax.jit(jax.vmap(label))(ends).tolist() == [1] * 7 + [0] * 7 + [2]  # the saddle last
    near = jax.jit(jax.vmap(labels.ByBranch(2.0, tol=0.01)))
    shifts = np.array([[0.0098], [0.0102], [-0.0098], [-0.0102]])
    across = np.sqrt(2.0) + shifts * np.full(2, np.sqrt(0.5))  # at the vertex
    assert near(across.astype(dtype)).tolist() == [1, 2, 1, 2]


def test_bands_add_up_and_name_what_they_show():
    share = np.array([[0.4, 0.3, 0.0], [0.0, 0.5, 0.25]])
    rest = {kind: np.zeros(2) for kind in Outcome if kind != Outcome.CONVERGED} | {Outcome.DIVERGED: 1 - share.sum(1)}
    interval = np.stack([share - 0.01, share + 0.01], axis=-1)
    figure = figures.draw_label_shares(
        figures.LabelShares(np.array([0.1, 0.2]), share, interval, ("a", "b", "c"), rest, 0.95)
    )
    bands = [band.get_paths()[0].vertices[:, 1] for band in figure.axes[0].collections]
    assert [band.max() for band in bands] == pytest.approx([0.4, 0.7, 0.75, 1.0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1:  a", "2:  b", "3:  c", "diverges"]
