"""The study and the command `cycle`: what is found, where it bifurcates, results, figure, bad input."""

import dataclasses

import numpy as np
import pytest

from gdstab import bifurcation, figures, records
from gdstab.cli import commands, main, process
from gdstab.studies import building, cycle, options
from gdstab.studies.cycle import show
from gdstab.studies.cycle.study import find
from gdstab.theory import symmetric_line


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return cycle.run(options.Cycle(doublings=1, out=tmp_path_factory.mktemp("runs") / "cycle"))


def test_both_mirror_images_are_found(study):
    summary = study.record.summary
    first, second = summary["cycles"]
    assert (first["period"], second["period"]) == (2, 2)
    np.testing.assert_allclose(np.sort(first["theta"], axis=0), -np.sort(second["theta"], axis=0)[::-1], atol=1e-10)
    assert first["lanes"] + second["lanes"] == summary["outcomes"]["cycling"]
    assert summary["unassigned"] == 0
    assert sum(summary["outcomes"].values()) == summary["starts"] == 256
    for found in (first, second):
        low, high = found["interval"]
        assert low < found["share"] < high
        # Half of the bounded starts each: the ellipse in the box of 16, its area from its closed form.
        assert low < 0.5 * summary["outcomes"]["cycling"] / 256 < high
        assert found["stable"]
    assert summary["theory"]["period_two_error"] < 1e-10


def test_branches_and_their_doublings(study):
    summary = study.record.summary
    np.testing.assert_allclose(summary["doublings"][:2], summary["theory"]["doublings"], atol=1e-10)
    assert 2 * summary["doublings"][2] == pytest.approx(1.28803175448284, abs=1e-10)
    periods = sorted(branch["period"] for branch in summary["branches"])
    assert periods == [1, 1, 2, 2, 4, 4]
    for branch in summary["branches"]:
        for point in branch["bifurcations"]:
            assert point["kind"] == "flip"
            assert point["supercritical"]
            assert min(abs(complex(*value) + 1) for value in point["multipliers"]) < 1e-9
    fixed = next(branch for branch in summary["branches"] if branch["period"] == 1)
    assert fixed["neutral"] == 1
    assert (fixed["from"], fixed["to"]) == pytest.approx((0.275, 0.77))


def test_the_directory_holds_everything(study):
    names = {path.name for path in study.record.path.iterdir()}
    assert names == {"run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf"}
    rows = records.load(study.record.path).dataset
    two = (rows["period"] == 2) & (rows["step_size"] > 0.51)
    k = 2 * rows["step_size"].values[two]
    X = np.abs(rows["theta"].values[two][:, 0]) * np.sqrt(k)
    exact = np.array([symmetric_line.period_two(value) for value in k])
    np.testing.assert_allclose(np.abs(X[:, None] - exact).min(axis=1), 0, atol=1e-9)
    stable = rows["stable"].values[two].astype(bool)
    np.testing.assert_array_equal(stable[np.abs(k - 1.236) > 1e-3], (k < 1.236)[np.abs(k - 1.236) > 1e-3])


def test_a_complete_run_is_read_back(study):
    again = cycle.run(options.Cycle(doublings=1, out=study.record.path))
    assert not again.fresh
    assert again.record.summary == study.record.summary


@pytest.mark.slow
def test_momentum_and_given_starts(tmp_path):
    asked = options.Cycle(
        rule="heavy-ball", beta=0.5, step_size=0.8, start=(1.0, 1.1, -1.0, -1.1), doublings=0, follow=1,
        step_sizes=(0.7, 0.9), out=tmp_path / "run",
    )  # fmt: skip
    summary = cycle.run(asked).record.summary
    assert summary["starts"] == 2
    assert [found["period"] for found in summary["cycles"]] == [2, 2]
    assert len(summary["cycles"][0]["multipliers"]) == 4  # of parameters and momentum
    assert summary["doublings"][0] == pytest.approx(2 * (1 + 0.5) / 4, abs=1e-10)  # 2 (1 + beta) / sharpness
    assert summary["theory"] is None


@pytest.mark.slow
def test_minima_that_fill_a_continuum_count_as_one(tmp_path):
    asked = options.Cycle(step_size=0.2, starts=32, box=(0.0, 2.0), follow=1, doublings=1, out=tmp_path / "run")
    (found,) = cycle.run(asked).record.summary["cycles"]
    assert (found["period"], found["neutral"], found["lanes"]) == (1, 1, 32)


def test_nothing_found_is_an_answer(tmp_path):
    summary = cycle.run(options.Cycle(start=(9.0, 9.0), out=tmp_path / "run")).record.summary
    assert summary["outcomes"]["diverged"] == 1
    assert summary["cycles"] == summary["branches"] == summary["doublings"] == []


def test_the_figure_shows_every_branch(study):
    followed = [
        figures.Track(2, np.array([0.5, 0.6, 0.7]), np.ones((3, 2)), np.array([True, True, False]), np.ones(3), []),
        figures.Track(3, np.array([0.6, 0.7]), np.ones((2, 3)), np.array([False, False]), np.ones(2),
                      [figures.BranchMark("fold", 0.65, np.ones(3), 1.0)]),
    ]  # fmt: skip
    figure = figures.draw_cycle(figures.Branches(0.55, [np.ones(2)], followed, 0, (0.5, 0.7)))
    left, _ = figure.axes
    lines = [line for line in left.lines if len(line.get_xdata()) > 1 and line.get_linestyle() in ("-", "--")]
    assert len(lines) == 2 * 2 + 3  # stable and unstable parts of two points, and three points
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"period 2", "period 3", "unstable", "fold"} <= labels


def test_the_figure_of_a_run_on_disk_has_its_branches_and_marks(study):
    left, right = show.draw(records.load(study.record.path))["figure"].axes
    drawn = {round(float(x), 8) for line in left.lines if line.get_marker() == "o" for x in line.get_xdata()}
    assert drawn == {round(step_size, 8) for step_size in study.record.summary["doublings"]}
    crosses = [line for line in left.lines if line.get_marker() == "x"]
    assert sorted(y for line in crosses for y in line.get_ydata()) == sorted(
        theta[0] for cycle in study.record.summary["cycles"] for theta in cycle["theta"]
    )
    stable = [line for line in right.lines if line.get_color() == "#000000" and line.get_linestyle() == "-"]
    assert stable
    for line in stable:
        x, y = line.get_data()
        np.testing.assert_allclose(y, np.abs(1 - 4 * x), atol=1e-8)  # of the flattest minimum


@pytest.mark.slow
def test_command(tmp_path, capsys, process_as_it_was):
    words = [
        "--starts",
        "64",
        "--follow",
        "1",
        "--doublings",
        "0",
        "--out",
        "run",
        "loss:scalar",
        "--loss.scale",
        "1.0",
    ]
    assert main(["cycle", *words]) == 0
    printed = capsys.readouterr().out
    assert "period 2" in printed
    assert "supercritical" in printed
    assert "0.6180339887" in printed
    assert main(["cycle", *words]) == 0
    assert "complete already" in capsys.readouterr().out


def test_options_are_complete():
    assert process.parse(options.Cycle, [], "cycle") == options.Cycle()
    assert options.STUDIES["cycle"] is options.Cycle
    assert "cycle" in commands()
    assert options.configuration(options.Cycle())["rule"] == "descent"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_period": 0}, "--max-period takes an integer of at least 1"),
        ({"starts": 0}, "--starts takes an integer"),
        ({"doublings": -1}, "--doublings takes an integer of at least 0"),
        ({"start": (1.0, 2.0, 3.0)}, "2 numbers for each point"),
        ({"box": (1.0, 1.0)}, "low end and a higher one"),
        ({"coordinate": 2}, "index of a parameter, 0 to 1"),
        ({"step_sizes": (0.6, 0.7)}, "around the step size 0.55"),
        ({"step_size": -0.1}, "positive finite number"),
    ],
)
def test_bad_input_leaves_no_directory(tmp_path, wrong, message):
    asked = dataclasses.replace(options.Cycle(out=tmp_path / "run"), **wrong)
    with pytest.raises(ValueError, match=message):
        cycle.run(asked)
    assert not (tmp_path / "run").exists()


def test_explore_does_not_follow_a_branch_twice():
    rule, (loss, _) = building.build_rule(options.Cycle()), building.build_loss(options.Scalar(scale=1.0))
    found = find(rule, loss, np.array([[0.5, 0.6]]), options.Cycle())
    two = found.attractors[0].cycle
    once = bifurcation.explore(rule, loss, [two], 0.52, 0.6, doublings=0)
    twice = bifurcation.explore(rule, loss, [two, two], 0.52, 0.6, doublings=0)
    assert len(once) == len(twice) == 1
    with pytest.raises(ValueError, match="doublings: expected an integer"):
        bifurcation.explore(rule, loss, [two], 0.52, 0.6, doublings=-1)
