"""The study of boundaries end to end at small sizes, its figure, and its command."""

import dataclasses
import json
import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gdstab import boundaries, figures, records
from gdstab.cli import main, process
from gdstab.figures import style
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.studies import boundary, building, options
from gdstab.studies.boundary import show
from gdstab.studies.boundary import study as edges
from gdstab.theory import scalar
from gdstab.updates import gradient_descent

SMALL = {"resolution": (256, 256), "samples": 8192}
SMOOTH = options.Regularised(decay=0.0, scale=1.0)


@pytest.fixture
def command_line(process_as_it_was):
    """The command line, in a folder of its own; the process is as before afterwards."""
    return lambda words: main(["boundary", *words.split()])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return boundary.run(options.Boundary(**SMALL, out=tmp_path_factory.mktemp("runs") / "boundary"))


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    asked = options.Boundary(
        **SMALL, step_size=0.3, signs=(), loss=SMOOTH, out=tmp_path_factory.mktemp("runs") / "control"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", lambda *_, **__: None)
        return boundary.run(asked)


def test_with_decay_the_edge_is_fractal(study):
    summary = study.record.summary
    assert sum(summary["counts"].values()) == summary["cells"] == 256**2
    assert summary["counts"]["undecided"] == 0
    assert set(summary["minima"]) == {"x0 <= 0", "x0 > 0"}
    left, right = summary["minima"].values()
    assert left + right == summary["counts"]["converged"]
    assert abs(left - right) < 0.01 * left  # by the symmetry of the loss
    assert summary["uncertainty"]["fractal"]
    assert summary["uncertainty"]["interval"][1] < 0.8
    low, high = summary["uncertainty"]["dimension_interval"]
    assert 1.2 < low < summary["uncertainty"]["boundary_dimension"] < high < 1.5
    assert not summary["uncertainty"]["any_precision_limited"]
    assert summary["entropy"]["boundary_basin_entropy"] > 0.5


@pytest.mark.slow
def test_without_decay_it_is_a_smooth_ellipse(control):
    summary = control.record.summary
    low, high = summary["area_bracket"]
    assert low < scalar.basin_area(0.3, 1.0, 1.0, ((-4, 4), (-4, 4))) < high
    assert summary["minima"] == {}
    uncertainty = summary["uncertainty"]
    assert uncertainty["interval"][0] < 1 < uncertainty["interval"][1]
    assert not uncertainty["fractal"]
    assert not summary["entropy"]["above_straight_edge"]
    assert summary["lanes_computed"] < 0.5 * summary["cells"]
    used = np.array(uncertainty["scales"])
    assert uncertainty["range_used"][0] in used
    assert uncertainty["scales_used"] >= 4
    np.testing.assert_allclose(np.array(uncertainty["hits"]) / 8192, uncertainty["share"])


def test_the_directory_holds_everything(study):
    names = {path.name for path in study.record.path.iterdir()}
    assert names == {"run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf"}
    dataset = records.load(study.record.path).dataset
    picture, summary = show.picture(study.record), study.record.summary
    assert picture.counts == summary["counts"]
    assert edges.names(picture, (0,)) == {0: "x0 <= 0", 1: "x0 > 0"}
    assert [np.count_nonzero((picture.outcome == 1) & (picture.label == label)) for label in (0, 1)] == [
        *summary["minima"].values()
    ]
    assert (picture.boundary.size, list(picture.area_bracket)) == (summary["boundary_cells"], summary["area_bracket"])
    np.testing.assert_array_equal(dataset["level"], picture.level)
    np.testing.assert_allclose(dataset["share"], study.record.summary["uncertainty"]["share"])
    np.testing.assert_array_equal(dataset["scale"], 8.0 * 0.5 ** np.arange(3, 19))
    assert dataset.attrs["provenance"]["seed"] == 0


def test_a_complete_run_is_read_back_and_another_refused(study):
    again = boundary.run(options.Boundary(**SMALL, out=study.record.path))
    assert not again.fresh
    assert again.record.summary == study.record.summary
    with pytest.raises(records.RunError, match="differs in seed"):
        boundary.run(options.Boundary(**SMALL, seed=1, out=study.record.path))


@pytest.mark.slow
def test_a_picture_is_read_back_as_it_was():
    """Of four levels, with probes, and with and without labels."""
    for label in (None, edges.signs_of((0,))):
        picture = boundaries.adaptive_heatmap(
            gradient_descent(), building.build_loss(SMOOTH)[0], 0.3, box=((-4, 4), (0, 4)), resolution=(128, 64),
            coarse=(8, 4), probe=2, stopping=StoppingRule(), label=label,
        )  # fmt: skip
        again = boundaries.AdaptiveHeatmap.from_xarray(picture.to_xarray(), box=picture.box)
        for field in dataclasses.fields(picture):
            if field.name not in {"tree", "source"}:
                np.testing.assert_array_equal(getattr(again, field.name), getattr(picture, field.name), field.name)
        for level in range(5):
            np.testing.assert_array_equal(again.leaves(level), picture.leaves(level))
        np.testing.assert_array_equal(again.level, picture.level)
        np.testing.assert_array_equal(again.source.take(np.arange(9)), picture.source.take(np.arange(9)))


@pytest.mark.slow
def test_the_fit_is_read_back_as_it_was(study, control):
    found, uncertainty = show.exponent(control.record), control.record.summary["uncertainty"]
    assert [found.dimension, found.fractal] == [uncertainty["boundary_dimension"], False]
    scales = found.scales[found.used]
    line = found.amplitude * scales**found.exponent
    np.testing.assert_allclose(line, found.share[found.used], rtol=0.3)
    assert show.exponent(study.record).fractal


def test_signs_of_two_parameters_make_four_labels():
    picture = boundaries.adaptive_heatmap(
        gradient_descent(), building.build_loss(options.Himmelblau())[0], 0.005, box=((-4, 4), (-4, 4)),
        resolution=128, coarse=32, stopping=StoppingRule(), label=edges.signs_of((0, 1)),
    )  # fmt: skip
    assert edges.names(picture, (0, 1)) == {
        0: "x0 <= 0, x1 <= 0", 1: "x0 > 0, x1 <= 0", 2: "x0 <= 0, x1 > 0", 3: "x0 > 0, x1 > 0",
    }  # fmt: skip
    figure = figures.draw_boundary(picture, exponent(), edges.names(picture, (0, 1)))
    assert legend(figure)[0] == r"converges to $x_{0} \leq 0$, $x_{1} \leq 0$"
    assert len(legend(figure)) == 4


def exponent(**change):
    """A made-up fit: shares 0.1 s at scales s."""
    scales = 0.5 ** np.arange(6)
    fields = {field.name: math.nan for field in dataclasses.fields(boundaries.UncertaintyExponent)} | {
        "exponent": 1.0, "interval": (0.9, 1.1), "amplitude": 0.1, "p_value": 0.5, "scales": scales,
        "hits": np.round(4096 * scales).astype(int), "undecided": np.zeros(6), "used": np.arange(6) < 4,
        "precision_limited": np.arange(6) == 5, "samples": 40_960, "axes": 2, "lane_steps": 0,
    }  # fmt: skip
    return boundaries.UncertaintyExponent(**fields | change)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_figure_says_what_it_must(study, tmp_path):
    picture = show.picture(study.record)
    figure = figures.draw_boundary(picture, exponent(), {0: "x0 <= 0", 1: "x0 > 0"})
    basins, mesh, fit = figure.axes
    assert legend(figure) == [r"converges to $x_{0} \leq 0$", "converges to $x_{0} > 0$", "diverges"]
    image = np.asarray(basins.images[0].get_array())
    assert image.shape == (256, 256, 3)
    where = np.argwhere(picture.outcome == Outcome.DIVERGED)[0]
    np.testing.assert_array_equal(
        image[where[1], where[0]], np.round(255 * np.array(to_rgb(style.OUTCOME_COLOURS[Outcome.DIVERGED])))
    )
    window = np.asarray(mesh.images[0].get_array())
    assert len(np.unique(window.reshape(-1, 3), axis=0)) > 1  # it lies at an edge
    squares = mesh.collections[0].get_paths()
    assert len(squares) > 4
    assert [text.get_text() for text in fit.get_legend().get_texts()] == [
        "fit", "slope 1 (smooth)", "used", "left out", "set by rounding",
    ]  # fmt: skip
    assert fit.get_title() == r"(c) $\alpha = 1.000$ [0.900, 1.100]"
    for path in figures.save(figure, tmp_path):
        assert path.stat().st_size > 5000


def test_a_picture_of_one_basin_without_a_fit_is_drawn(tmp_path):
    picture = boundaries.adaptive_heatmap(
        gradient_descent(), building.build_loss(SMOOTH)[0], 0.3, box=((0.5, 1), (0.5, 1)),
        resolution=(8, 12), stopping=StoppingRule(),
    )  # fmt: skip
    nothing = exponent(exponent=math.nan, interval=(math.nan, math.nan), used=np.zeros(6, bool), hits=np.zeros(6, int))
    figure = figures.draw_boundary(picture, nothing)
    assert legend(figure) == ["converges"]
    assert figure.axes[2].get_title() == "(c) no range could be fitted"
    figures.save(figure, tmp_path)


def test_the_window_stays_in_the_picture():
    """Thirteen coarse squares make six windows and a half; the edge is in the half."""
    picture = boundaries.adaptive_heatmap(
        gradient_descent(), building.build_loss(SMOOTH)[0], 0.3, box=((0.0, 2.6), (0.0, 0.1)),
        resolution=(104, 8), coarse=(13, 1), stopping=StoppingRule(),
    )  # fmt: skip
    assert picture.boundary.size
    mesh = figures.draw_boundary(picture, exponent()).axes[1]
    assert mesh.get_xlim() == pytest.approx((2.4, 2.6))
    assert mesh.get_ylim() == pytest.approx((0.0, 0.1))


@pytest.mark.usefixtures("unrendered")
def test_what_cannot_be_fitted_is_null(tmp_path):
    """Everything converges: no pair ever differs."""
    asked = options.Boundary(
        resolution=(32, 32), samples=256, step_size=0.1, box=((0.5, 1.0), (0.5, 1.0)), loss=SMOOTH, out=tmp_path / "run"
    )
    record = boundary.run(asked).record
    summary = record.summary
    assert np.isnan(show.exponent(record).amplitude)
    assert summary["boundary_cells"] == 0
    assert summary["uncertainty"]["exponent"] is None
    assert summary["uncertainty"]["range_used"] is None
    assert summary["entropy"]["boundary_basin_entropy"] is None
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["area"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--step-size -1", "positive"),
        ("--box 4 -4 -4 4", "low < high"),
        ("--resolution 0 10", "at least 1"),
        ("--coarse 100 100", "power of two"),
        ("--probe -1", "probe"),
        ("--reach 0", "reach"),
        ("--contrast 0", "contrast"),
        ("--signs 2", "--signs"),
        ("--signs -1", "--signs"),
        ("--scales 3 5", "--scales"),
        ("--scales 3 99", "--scales"),
        ("--samples 0", "samples"),
        ("--entropy-side 1", "--entropy-side"),
        ("--entropy-side 300", "--entropy-side"),
        ("--plane 0 7", "there are 2"),
        ("--max-steps -1", "--max-steps"),
        ("--precision 32", "--grad-tol 1e-5"),
        ("--resolution 2000000 2000000 --coarse None", "--resolution asks for arrays of"),
    ],
)
def test_bad_input_ends_with_one_message(words, message, command_line, tmp_path, capsys):
    small = "" if "--resolution" in words else "--resolution 256 256"
    assert command_line(f"{words} {small} --out run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_prints_what_it_found(command_line, capsys):
    words = "--resolution 128 128 --coarse 32 32 --samples 4096 --contrast 2 --out run"
    assert command_line(words) == 0
    first = capsys.readouterr()
    for text in ("x0 <= 0", "computed: ", "random probes: ", "basin entropy: ", "uncertainty exponent: 0.", "fractal"):
        assert text in first.out
    assert "lanes" in first.err
    assert command_line(words) == 0
    second = capsys.readouterr()
    assert "complete already" in second.out
    assert second.out.splitlines()[:15] == first.out.splitlines()[:15]


def test_the_defaults_of_the_command_are_those_of_the_options():
    assert process.parse(options.Boundary, [], "boundary") == options.Boundary()
    words = "--signs --scales 0 10 --coarse 64 64 loss:scalar"
    asked = process.parse(options.Boundary, words.split(), "boundary")
    assert (asked.signs, asked.scales, asked.coarse, asked.loss) == ((), (0, 10), (64, 64), options.Scalar())


@pytest.mark.slow
def test_in_single_precision(tmp_path):
    asked = options.Boundary(
        resolution=(64, 64), samples=2048, grad_tol=1e-5, precision=32, scales=(3, 24), out=tmp_path / "run"
    )
    summary = boundary.run(asked).record.summary
    assert summary["provenance"]["dtype"] == "float32"
    assert summary["uncertainty"]["any_precision_limited"]
    assert summary["uncertainty"]["precision_limited"][0] is False
