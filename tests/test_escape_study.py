"""Where ReLU networks end, at a tiny size: levels of the ends, times near levels, escape from a saddle, resumption."""

import dataclasses

import numpy as np
import pytest

from gdstab import records
from gdstab.cli import commands
from gdstab.outcomes import Outcome
from gdstab.studies import building, options, run
from gdstab.studies.escape import relu_levels, saddle_manifold, show
from gdstab.studies.escape import study as escape
from gdstab.studies.escape import summary as escape_summary
from gdstab.studies.escape.relu_levels import CYCLING, GONE, NOT_CONVERGED, OFF_LADDER, ZERO
from gdstab.theory import relu

SMALL = options.Escape(
    samples=256, chunk=128, step_sizes="0.2", max_steps=3000, cells=4, ball_starts=32, radii=(1e-2, 1e-3, 1e-4),
    walks=1, walk_steps=3000, max_period=None, manifold_cells=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return run(dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("runs") / "escape"))


def ladder(neurons=4, leak=0.0, rtol=1e-3):
    loss, _ = building.build_loss(options.Relu(neurons=neurons, leak=leak))
    return relu_levels.make_ladder(loss, rtol)


def test_every_end_lies_on_its_level_or_is_counted_apart(study):
    ends, (row,) = study.record.dataset, study.record.summary["rows"]
    level, loss, gradient = (ends[name].values for name in ("level", "loss", "gradient"))
    assert sum(found["count"] for found in row["levels"].values()) == row["runs"] == 256
    constant = level == 0
    np.testing.assert_allclose(loss[constant], 1 / 12, rtol=1e-12)
    assert gradient[constant].max() <= 1e-9
    assert loss[level == ZERO].max() < 1e-3 / 972
    assert set(np.unique(level)) <= {0, ZERO, NOT_CONVERGED}
    assert row["levels"]["n = 0"]["count"] > 50 < row["levels"]["zero"]["count"]
    assert row["kinds"] == {"local_minimum": int(constant.sum()), "global_minimum": int((level == ZERO).sum())}
    assert row["not_converged"]["gradient"]["0"] > 1e-9
    assert sum(found["count"] for found in row["patterns"]) + row["not_converged"]["count"] == 256


def test_theorem_1_2_is_counted_with_its_limit(study):
    found = study.record.summary["rows"][0]["theorem"]
    assert found["below"] == study.record.summary["rows"][0]["levels"]["zero"]["count"]
    assert found["saddles"] == 0
    assert found["rate"]["clopper_pearson"][1] == pytest.approx(1 - 0.025 ** (1 / found["below"]))


def test_a_saddle_below_the_threshold_would_be_counted():
    level = np.array([ZERO, ZERO, 2, 0, NOT_CONVERGED], np.int16)
    kind = np.array([4, 4, 3, 1, 0], np.int8)
    loss = np.array([0, 1e-9, 1 / 972, 1 / 12, 1e-3])
    found = escape_summary.theorem(ladder(2), {"level": level, "kind": kind, "loss": loss})
    assert found["below"] == 3
    assert (found["saddles"], found["positive"], found["converged"], found["local_minima"]) == (1, 2, 4, 1)


def test_who_rests_at_a_saddle_goes_on(tmp_path):
    setting = escape.prepare(dataclasses.replace(SMALL, max_steps=5000, out=tmp_path / "run"))
    saddle = relu.critical_point(("semi-inactive+", "inactive"))
    theta = np.stack([saddle, saddle, saddle])
    theta[1, 2] += 1e-11  # the breakpoint comes inside: the neuron wakes up
    theta[2, 2] -= 1e-3  # inactive for good: a local minimum, which is left alone
    rule = relu_levels.descent_with_clock(tuple(setting.ladder.values.tolist()), 0.1)
    loss = relu.risk(theta)
    ends = relu_levels.classify_ends(setting.ladder, theta, loss, np.full(3, Outcome.CONVERGED))
    assert [relu.CriticalType(int(kind)).name for kind in ends.kind] == ["SADDLE_A", "SADDLE_A", "LOCAL_MINIMUM"]
    found = {**ends._asdict(), "loss": loss, "steps": np.ones(3, np.int32), "near": np.zeros((3, 2), np.int32)}
    found = escape.pass_saddles(setting, escape.Unit("descent"), rule, theta, {**found, "passed": np.zeros(3, np.int8)})
    assert found["passed"].tolist() == [0, 1, 0]
    assert found["level"].tolist() == [0, ZERO, 0]
    assert found["near"][1, 0] > 10 < found["steps"][1]


def test_constructed_points_are_put_on_their_levels():
    words = [(1, 2, 3, 4), (1, 2, "inactive", "inactive"), ("inactive",) * 4, ("semi-inactive+", *["inactive"] * 3)]
    theta = np.stack([relu.critical_point(word) for word in words] + [relu.global_minimum(4)] + [np.ones(13)] * 4)
    theta[-1] = np.nan
    loss = [*relu.risk(theta[:-1]).tolist(), np.nan]
    outcome = np.array([Outcome.CONVERGED] * 6 + [Outcome.UNDECIDED, Outcome.CYCLING, Outcome.NONFINITE])
    ends = relu_levels.classify_ends(ladder(), theta, np.array(loss), outcome)
    assert ends.level.tolist() == [4, 2, 0, 0, ZERO, OFF_LADDER, NOT_CONVERGED, CYCLING, GONE]
    kinds = [relu.CriticalType(int(kind)).name for kind in ends.kind[:5]]
    assert kinds == ["SADDLE_B", "SADDLE_B", "LOCAL_MINIMUM", "SADDLE_A", "GLOBAL_MINIMUM"]
    assert (ends.kind[5:] == 0).all()
    names = [relu_levels.pattern_name(int(number), 4) for number in ends.pattern]
    assert names[1:4] == ["2 type-2, 2 inactive", "4 inactive", "1 semi-inactive, 3 inactive"]
    assert names[-1] == "none"
    assert np.isnan(ends.gradient[-1])
    assert ends.gradient[:5].max() < 1e-12 < ends.gradient[5]


def test_patterns_do_not_depend_on_the_order_of_neurons(rng):
    theta = rng.normal(size=(50, 13))
    order = rng.permutation(4)
    swapped = np.concatenate([theta[:, :12].reshape(50, 3, 4)[:, :, order].reshape(50, 12), theta[:, 12:]], axis=1)
    np.testing.assert_array_equal(
        relu_levels.patterns(theta, (0.0, 1.0)), relu_levels.patterns(swapped, (0.0, 1.0))
    )  # fmt: skip


def test_walks_are_descent_and_the_clock_counts_their_updates(study):
    data = study.record.dataset
    theta, loss = data["walk_far_theta"].values, data["walk_far_loss"].values
    moved = theta[:, :-1] - 0.2 * relu.gradient(theta[:, :-1])
    np.testing.assert_allclose(theta[:, 1:], moved, atol=1e-13)
    np.testing.assert_allclose(loss, relu.risk(theta), rtol=1e-9, atol=1e-16)
    for number, start in enumerate(data["walk_starts"].values):
        steps = int(data["steps"].values[0, start])
        seen = loss[number, 1 : steps + 1]
        counted = [(np.abs(seen - value) <= 0.1 * value).sum() for value in data["rung_loss"].values]
        np.testing.assert_array_equal(data["near"].values[0, start], counted)


def test_the_saddle_is_left_at_the_predicted_rate(study):
    found = study.record.summary["balls"]
    assert found["slope"] == pytest.approx(found["predicted_slope"], rel=0.01)
    assert found["predicted_slope"] == pytest.approx(1 / np.log(1 + 0.2 * 0.026686733890779))
    assert not any(row["saddles"]["count"] for row in found["rows"])


@pytest.mark.parametrize(("neurons", "leak"), [(1, 0.0), (2, 0.1), (3, 0.0)])
def test_the_default_saddle_is_a_saddle(neurons, leak, tmp_path):
    loss = options.Relu(neurons=neurons, leak=leak)
    found = escape.prepare(options.Escape(loss=loss, out=tmp_path / "run")).saddle
    assert found.curvature < -1e-3
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(2), atol=1e-12)
    values = relu.risk(found.theta + np.array([[-1e-3], [0.0], [1e-3]]) * found.directions[0], leak=leak)
    assert min(values[0], values[2]) < values[1] - 1e-10


def test_the_directory_and_the_printed_tables(study):
    names = {path.name for path in study.record.path.iterdir()}
    pictures = {f"{name}.{ending}" for name in ("figure", "network") for ending in ("png", "pdf")}
    assert names == {"run.json", "summary.json", "result.zarr", *pictures}
    assert study.record.summary["figures"] == ["figure", "network"]
    summary = records.load(study.record.path).summary
    text = show.table(summary)
    assert "2 inactive" in text
    assert "Theorem 1.2" in text
    assert "predicted 187.8" in text
    leaky = {**summary, "configuration": {**summary["configuration"], "loss": {"leak": 0.1}}}
    assert "Corollary 5.5" in show.table(leaky)
    assert not run(dataclasses.replace(SMALL, out=study.record.path)).fresh
    assert options.STUDIES["escape"] is options.Escape
    assert "escape" in commands()


@pytest.mark.slow
def test_an_interrupted_study_goes_on(study, tmp_path, monkeypatch):
    asked, seen = dataclasses.replace(SMALL, out=tmp_path / "run"), []

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(escape._WORK, "walks", fail)
        with pytest.raises(KeyboardInterrupt):
            run(asked)
    monkeypatch.setattr(show, "draw", lambda _: {})
    resumed = run(dataclasses.replace(asked, resume=True), progress=lambda *_: seen.append(1))
    assert not seen  # the random starts, and those around the saddle, were on disk
    for name in ("rows", "balls", "saddle", "walked_starts"):
        assert resumed.record.summary[name] == study.record.summary[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rtol": 0.5}, "--rtol"), ({"radii": ()}, "--radii"), ({"band": 0.7}, "--band"), ({"samples": 0}, "samples"),
        ({"saddle": ("inactive", "inactive")}, "local minimum"), ({"saddle": ("1", "2", "inactive")}, "2 neurons"),
        ({"saddle": ("1", "3")}, "breakpoints"), ({"loss": options.Relu(target=(0.0, 1.0, 1.0))}, "affine"),
        ({"loss": options.Relu(target=(1.0,))}, "affine"), ({"loss": options.Relu(leak=1.0)}, "leak"),
        ({"loss": options.Relu(leak=0.1), "saddle": ("1", "2")}, "not critical"),
    ],
)  # fmt: skip
def test_bad_options_leave_no_directory(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(dataclasses.replace(SMALL, out=tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_centre_stable_manifold_is_written_down(tmp_path):
    record = run(dataclasses.replace(SMALL, manifold_cells=3, out=tmp_path / "run")).record
    found = record.summary["manifold"]
    assert found["off_the_graph"] < 1e-12
    np.testing.assert_allclose(found["slopes"], found["predicted_slopes"], rtol=0.02)
    assert record.dataset["manifold_graph"].shape == (3, 3, 3)
    assert (record.path / "manifold.png").stat().st_size > 10_000
    assert "off it;\nbeside it orbits leave" in show.table(record.summary)


def test_manifolds_are_for_small_networks():
    wanted = [saddle_manifold.wanted(options.Escape(loss=options.Relu(neurons=size))) for size in (3, 4)]
    assert wanted == [True, False]
    assert not saddle_manifold.wanted(SMALL)
