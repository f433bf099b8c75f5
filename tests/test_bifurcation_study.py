"""The study of bifurcations end to end at small sizes, its figure, and its command."""

import dataclasses
import json

import numpy as np
import pytest

from gdstab import bifurcation as bif
from gdstab import figures, records
from gdstab.cli import main, process
from gdstab.studies import bifurcation, building, options, work
from gdstab.studies.bifurcation import cascades, show
from gdstab.studies.bifurcation.study import _differences, draw_starts, measure, observer, prepare
from gdstab.studies.tables import plain
from gdstab.theory import symmetric_line

SMALL = {"starts": 16, "transient": 1500, "kept": 32, "bins": 200, "max_steps": 5000}
QUICK = SMALL | {"starts": 4, "transient": 300, "doublings": 0, "hysteresis": 0, "max_steps": 300}
# By mpmath with 40 digits: Newton's method on X = g^p(X), (g^p)'(X) = -1 for g(X) = (1 + k) X - X^3, p = 4, 8, 16.
CASCADE = 1.288031754482843, 1.299227939650204, 1.301628914037081


@pytest.fixture
def command_line(process_as_it_was):
    """The command line, in a folder of its own; the process is as before afterwards."""
    return lambda words: main(["bifurcation", *words.split()])


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bifurcation"
    return options.Bifurcation(**SMALL, step_sizes="0.4:1.0:121", doublings=5, hysteresis=4, out=out)


@pytest.fixture(scope="module")
def study(asked):
    return bifurcation.run(asked)


@pytest.fixture(scope="module")
def summary(study):
    return study.record.summary


def diagram_of(study):
    return show.diagram_of(study.record.dataset.load(), study.record.summary)


@pytest.fixture(scope="module")
def diagram(study):
    return diagram_of(study)


def test_the_cascade_of_the_symmetric_line(summary):
    """Step sizes are k / 2."""
    first, second, *others = summary["doublings"]
    assert abs(2 * first - 1) < 1e-8
    assert abs(2 * second - (np.sqrt(5) - 1)) < 1e-8
    np.testing.assert_allclose(2 * np.array(others), CASCADE, atol=1e-8)
    assert summary["periods"] == [1, 2, 4, 8, 16]
    assert summary["ended"] == "count"
    assert abs(summary["feigenbaum_ratios"][-1] - symmetric_line.FEIGENBAUM) < 0.02
    assert abs(2 * summary["accumulation"] - symmetric_line.ACCUMULATION) < 1e-4
    assert summary["exact"]["doublings"] == [0.5, (np.sqrt(5) - 1) / 2]
    for flip, (low, high) in zip(summary["doublings"][:3], summary["seen_between"][:3], strict=True):
        assert low < flip < high
        assert high - low < 0.021


def test_bounded_orbits_end_at_k_2(summary, diagram):
    assert abs(summary["last_bounded"] - 1) < 1e-4
    low, high = summary["last_bounded_bracket"]
    assert low < high < low + 1e-7
    assert all(row["bounded"] == 1 for row in summary["rows"])
    assert len(summary["rows"]) == 121
    periods = {round(row["step_size"], 3): row["period"] for row in summary["rows"]}
    assert (periods[0.45], periods[0.55], periods[0.63]) == (1, 2, 4)
    assert summary["observations"] + summary["outside"] == 121 * 16 * 32
    assert summary["outside"] < 0.01 * summary["observations"]
    assert diagram.counts.sum() == summary["observations"]


def test_where_sweeps_differ():
    """Two starts; the second ends elsewhere on its way down through the last two step sizes, the first escapes once."""
    up = np.zeros((5, 2, 3))
    down = up.copy()
    down[3:, 1] = 1.0
    up[2, 0] = np.nan
    loop = bif.Hysteresis(np.linspace(1.0, 2.0, 5), up, down, np.isnan(up[..., 0]), np.isnan(down[..., 0]), 0.0)
    assert _differences(loop, 4.0) == {
        "starts": 2, "step_sizes": 5, "largest_gap": 1.0, "at": 1.75, "share_different": 0.4,
        "different": [[1.75, 2.0]],
    }  # fmt: skip
    assert _differences(loop, 40.0)["different"] == []


def test_sweeps_that_differ_by_rounding_do_not_differ():
    up = np.full((3, 2, 4), 0.7)
    down = np.nextafter(up, 1)
    loop = bif.Hysteresis(np.linspace(1.0, 2.0, 3), up, down, np.isnan(up[..., 0]), np.isnan(down[..., 0]), 0.0)
    assert loop.gap.max() > 0
    found = _differences(loop, 1e-20)
    assert (found["largest_gap"], found["at"], found["share_different"], found["different"]) == (0.0, None, 0.0, [])
    assert show._hysteresis(found) == ["up and down again: 0 % of 3 step sizes end apart"]


def test_sweeps_are_part_of_the_summary(summary):
    """What each start does past the crisis is chaos; before the first doubling it can only end at 1 or at -1."""
    loop = summary["hysteresis"]
    assert (loop["starts"], loop["step_sizes"]) == (4, 121)
    first = [high for low, high in loop["different"] if low == 0.4]
    assert not first or loop["largest_gap"] > 2.8


def test_the_directory_holds_everything(study, asked):
    names = {path.name for path in study.record.path.iterdir()}
    assert names == {"run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf"}
    dataset = records.load(study.record.path).dataset
    assert dataset["counts"].dtype == np.int64
    assert dataset["counts"].shape == (121, 200)
    assert dataset["period"].shape == dataset["escaped"].shape == (121, 16)
    np.testing.assert_array_equal(dataset["step_size"], options.parse_range(asked.step_sizes))
    low, high = study.record.summary["value_range"]
    np.testing.assert_allclose(dataset["bin"], low + (high - low) * (np.arange(200) + 0.5) / 200)
    assert dataset["zoom_counts"].shape == (400, 400)
    assert dataset["up"].shape == dataset["down"].shape == (121, 4, 32)
    assert dataset.attrs["provenance"]["seed"] == 0


def test_a_complete_run_is_read_back_and_another_refused(study, asked):
    again = bifurcation.run(asked)
    assert not again.fresh
    assert again.record.summary == study.record.summary
    with pytest.raises(records.RunError, match="differs in seed"):
        bifurcation.run(dataclasses.replace(asked, seed=1))


def test_other_targets_and_scales_are_the_same_in_k():
    """Scale 1/2 and target 2: k a = 2 eta; observed in units of sqrt(2)."""
    asked = options.Bifurcation(step_sizes="0.45:0.6:6", loss=options.Scalar(scale=0.5, target=2.0))
    assert cascades.exact(asked)["last_bounded"] == 1.0
    minimum, orbit = cascades.closed_forms(asked)
    np.testing.assert_allclose(minimum.values, 2.0)
    np.testing.assert_array_equal(minimum.stable, minimum.step_sizes < 0.5)
    np.testing.assert_allclose(orbit.values.prod(axis=1), 2 * 2 / (2 * orbit.step_sizes), rtol=1e-12)
    for other in ({"rule": "heavy-ball"}, {"weight_decay": 0.1}, {"line": "box"}, {"loss": options.Vector()}):
        assert cascades.exact(dataclasses.replace(asked, **other)) is None
        assert cascades.closed_forms(dataclasses.replace(asked, **other)) == []


@pytest.mark.slow
def test_momentum_and_observables(tmp_path):
    """Heavy ball flips at 2 (1 + beta) / 4."""
    asked = options.Bifurcation(
        **QUICK | {"doublings": 2, "transient": 2000}, rule="heavy-ball", beta=0.5, step_sizes="0.6:0.8:5",
        box=(0.9, 1.05), observe="norm", value_range=(0.5, 2.5), out=tmp_path / "run",
    )  # fmt: skip
    summary = bifurcation.run(asked).record.summary
    np.testing.assert_allclose(summary["doublings"], [0.75], atol=1e-9)
    assert summary["ended"].startswith("no flip of period 2 up to step size 0.8")
    assert summary["exact"] is None
    assert summary["hysteresis"] is None
    assert [row["period"] for row in summary["rows"]][:3] == [1, 1, 1]


@pytest.mark.slow
def test_a_box_of_starts_and_the_loss(tmp_path):
    """In the plane the minima below eta_C are many, so that the loss tells more; single precision."""
    asked = options.Bifurcation(
        **QUICK, step_sizes="0.2,0.3,0.9", line="box", box=(-1.0, 1.0), observe="loss", precision=32,
        value_range=(-0.1, 1.5), out=tmp_path / "run",
    )  # fmt: skip
    study = bifurcation.run(asked)
    summary = study.record.summary
    assert summary["provenance"]["dtype"] == "float32"
    assert summary["doublings"] == []
    assert summary["ended"] == "not asked for"
    diagram = diagram_of(study)
    zero = np.searchsorted(diagram.edges, 0.0) - 1
    assert diagram.counts[0, zero] == 4 * 32
    assert np.count_nonzero(diagram.counts[2]) > 10
    points = draw_starts(asked, 2, np.dtype("float32"))
    assert points.shape == (4, 2)
    assert (points[:, 0] != points[:, 1]).all()


@pytest.mark.slow
def test_what_escapes_is_said(tmp_path):
    """A bowl loses all orbits at 2 / curvature."""
    asked = options.Bifurcation(
        **QUICK, step_sizes="0.5:2.5:5", box=(-1.0, 1.0), value_range=(-2.0, 2.0),
        loss=options.Quadratic((1.0,)), out=tmp_path / "run",
    )  # fmt: skip
    summary = bifurcation.run(asked).record.summary
    assert summary["accumulation"] is None
    assert [row["bounded"] for row in summary["rows"]] == [1, 1, 1, 1, 0]
    assert summary["rows"][-1]["period"] is None
    assert abs(summary["last_bounded"] - 2) < 0.05
    nothing = dataclasses.replace(asked, step_sizes="2.5:3:2", value_range=None, out=tmp_path / "other")
    with pytest.raises(ValueError, match="every orbit escapes"):
        bifurcation.run(nothing)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        pytest.param({"loss": options.Doublewell()}, 0.5**0.5, marks=pytest.mark.slow),
        pytest.param({"loss": options.Doublewell(), "precision": 32}, 0.5**0.5, marks=pytest.mark.slow),
        pytest.param({"loss": options.Quadratic((1.0, 1.5))}, 0.0, marks=pytest.mark.slow),
        pytest.param({"observe": "loss", "precision": 32}, 0.0, marks=pytest.mark.slow),
    ],
)
def test_one_value_that_all_orbits_settle_on_is_a_line_in_the_middle(changes, value):
    asked = options.Bifurcation(**QUICK | {"hysteresis": 2, "bins": 64} | changes, step_sizes="0.3:0.4:3")
    dataset, summary = measure(asked, prepare(asked), work.Work(None))
    counts, summary = dataset["counts"].values, plain(summary)
    low, high = summary["value_range"]
    assert high - low > 1e-6 * max(abs(low), abs(high))
    assert low + 0.4 * (high - low) < value < high - 0.4 * (high - low)
    assert summary["outside"] == counts[:, :16].sum() == counts[:, -16:].sum() == 0
    assert (counts.max(axis=1) == 4 * 32).all()  # in one bin, not at the edge of two
    assert (summary["hysteresis"]["share_different"], summary["hysteresis"]["different"]) == (0, [])
    assert "0 % of 3 step sizes end apart" in show.table(summary).splitlines()[-1]
    figure = figures.draw_bifurcation(
        show.diagram_of(dataset, summary), show.marks(asked, summary), hysteresis=show.sweeps_of(dataset)
    )
    density, _, sweeps, *_ = figure.axes
    for axes in (density, sweeps):
        image = np.asarray(axes.images[0].get_array())
        seen = np.flatnonzero((image < 255).any(axis=(1, 2)))
        assert 0.3 * len(image) < seen.min() <= seen.max() < 0.7 * len(image)


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_figure_says_what_it_must(study, diagram, asked, tmp_path):
    marks = show.marks(asked, study.record.summary)
    loss, _ = building.build_loss(asked.loss)
    loop = bif.hysteresis(
        building.build_rule(asked), loss, [0.4, 0.6, 0.8], np.ones((2, 2)), settle=10, kept=4,
        observe=observer("diagonal", loss),
    )  # fmt: skip
    figure = figures.draw_bifurcation(diagram, marks, hysteresis=loop)
    main_axes, strip, sweeps = figure.axes[:3]
    vertical = [line for line in main_axes.lines if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 1]
    dashed = [line.get_xdata()[0] for line in vertical if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed, study.record.summary["doublings"])
    named = [text.get_text() for text in main_axes.texts]
    assert named[:3] == ["period 2", "4", "8"]
    assert named[-2:] == [r"$\eta_\infty$", "(a)"]
    assert legend(main_axes) == ["exact, attracting", "exact, repelling"]
    assert legend(sweeps) == ["seen on the way up only", "seen on the way down only", "seen on both ways"]
    assert sweeps.get_ylim()[1] > main_axes.get_ylim()[1]  # room for it above what was seen
    upper = [child for child in main_axes.child_axes if child.get_xlabel()]
    assert [child.get_xlabel() for child in upper] == [r"$k = 2 c \eta$"]
    image = np.asarray(main_axes.images[0].get_array())
    shown, visited = (image < 255).any(axis=2).T, diagram.counts > 0  # white where no orbit is
    columns, bins = shown.shape[0] // len(visited), visited.shape[1] // shown.shape[1]
    pooled = visited.reshape(len(visited), -1, bins).any(axis=2)
    np.testing.assert_array_equal(shown, np.repeat(pooled, columns, axis=0))
    colours = np.asarray(strip.images[0].get_array())[0]
    assert len(np.unique(colours[np.repeat(diagram.common_period == 2, columns)], axis=0)) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["period 1", "period 2", "period 4"]
    assert "none found" in labels
    for path in figures.save(figure, tmp_path):
        assert path.stat().st_size > 5000


def test_an_inset_is_drawn_where_there_is_room(study, diagram, asked):
    marks = show.marks(asked, study.record.summary)
    close = figures.Density(diagram.step_sizes, diagram.counts, diagram.edges)
    figure = figures.draw_bifurcation(diagram, marks, zoom=close)
    inset = [child for child in figure.axes[0].child_axes if child.images]
    assert len(inset) == 1
    full = dataclasses.replace(diagram, counts=np.ones_like(diagram.counts))
    figure = figures.draw_bifurcation(full, marks, zoom=close)
    assert not [child for child in figure.axes[0].child_axes if child.images]


def test_uneven_step_sizes_are_drawn_at_their_places(diagram):
    few = dataclasses.replace(
        diagram, step_sizes=np.array([0.1, 0.2, 0.9]), counts=diagram.counts[:3],
        period=diagram.period[:3], escaped=diagram.escaped[:3], outside=diagram.outside[:3],
    )  # fmt: skip
    image = figures.draw_bifurcation(few, figures.Marks("x")).axes[0].images[0]
    left, right = image.get_extent()[:2]
    assert (left, right) == pytest.approx((0.05, 1.25))
    columns = np.asarray(image.get_array()).shape[1]
    assert columns > 100


def test_what_cannot_be_drawn_is_refused(diagram):
    nothing = dataclasses.replace(diagram, counts=None)
    one = dataclasses.replace(
        diagram, **{name: getattr(diagram, name)[:1] for name in ("step_sizes", "counts", "outside")},
        period=diagram.period[:1], escaped=diagram.escaped[:1],
    )  # fmt: skip
    for some in (nothing, one):
        with pytest.raises(ValueError, match="diagram with bins"):
            figures.draw_bifurcation(some, figures.Marks("x"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-period 0", "--max-period"),
        ("--transient 0", "transient"),
        ("--kept 0", "kept"),
        ("--step-sizes 0.5:0.4:10", "low < high"),
        ("--step-sizes 0.5:0.5:10", "low < high"),
        ("--step-sizes 0.5", "at least two increasing"),
        ("--step-sizes 0.5,0.4", "increasing"),
        ("--step-sizes -1:1:10", "positive"),
        ("--starts 0", "starts"),
        ("--bins 0", "bins"),
        ("--box 1 0", "low < high"),
        ("--value-range 1 1", "low < high"),
        ("--doublings -1", "doublings"),
        ("--hysteresis 9", "--hysteresis takes up to all 4"),
        ("--escape-radius 0", "--escape-radius"),
        ("--max-steps 0", "--max-steps"),
        ("--beta 1.5 --rule heavy-ball", "beta"),
    ],
)
def test_bad_input_ends_with_one_message(words, message, command_line, tmp_path, capsys):
    starts = "" if "--starts" in words else "--starts 4"
    more = "" if "--hysteresis" in words else "--hysteresis 0"
    assert command_line(f"{words} {starts} {more} --out run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_prints_what_it_found(command_line, capsys, tmp_path):
    words = (
        "--step-sizes 0.45:0.65:11 --starts 4 --transient 500 --kept 16 --value-range 0 2 --doublings 2 --hysteresis 0 "
        "--max-steps 500 --out run loss:scalar --loss.scale 1.0"
    )
    assert command_line(words) == 0
    first = capsys.readouterr()
    for text in ("0.5000000000", "0.6180339887", "bounded orbits end at", "44 orbits, 100 % of them"):
        assert text in first.out
    assert "44 lanes" in first.err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["periods"] == [1, 2]
    assert command_line(words) == 0
    second = capsys.readouterr()
    assert "complete already" in second.out
    assert second.out.splitlines()[:8] == first.out.splitlines()[:8]


def test_the_defaults_of_the_command_are_those_of_the_options():
    assert process.parse(options.Bifurcation, [], "bifurcation") == options.Bifurcation()
    words = "--rule heavy-ball --beta 0.5 --value-range -1 1 --line box loss:vector --loss.dim 3"
    asked = process.parse(options.Bifurcation, words.split(), "bifurcation")
    assert (asked.rule, asked.beta, asked.value_range, asked.line) == ("heavy-ball", 0.5, (-1.0, 1.0), "box")
    assert asked.loss == options.Vector(dim=3)
