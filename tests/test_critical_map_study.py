"""The study and the command `critical-map`: summary, results, resume, figure."""

import dataclasses
import json

import numpy as np
import pytest

from gdstab import basins, figures, losses, records
from gdstab.cli import main, process
from gdstab.sampling import GridSource
from gdstab.studies import building, critical_map, options
from gdstab.studies.critical_map.show import picture, table
from gdstab.studies.critical_map.study import compare
from gdstab.theory import known, scalar

pytestmark = pytest.mark.optimised

RESOLUTION = (48, 48)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "map"
    return critical_map.run(options.CriticalMap(resolution=RESOLUTION, out=out))


def test_summary_agrees_with_the_closed_form(study):
    summary = study.record.summary
    theory = summary["theory"]
    assert theory["critical_step"] == 0.5
    assert theory["max_relative_error_below"] < 1e-5
    assert theory["max_relative_error_elsewhere"] < 1e-2
    assert theory["cells_below"] + theory["cells_elsewhere"] + theory["left_out"] == summary["cells"] == 48 * 48
    assert theory["left_out"] == 48  # the anti-diagonal
    assert summary["kinds"] == {"minimum": 48 * 47, "strict_saddle": 48, "degenerate": 0}
    assert (summary["flagged"], summary["none_converges"], summary["all_converge"]) == (0, 0, 0)
    assert sum(summary["above"].values()) == summary["cells"]


def test_the_comparison_finds_a_wrong_cell(study):
    """Cells are compared with their own exact value: a map turned by a right angle agrees nowhere near as well."""
    asked = options.CriticalMap(resolution=RESOLUTION)
    what = known(building.build_loss(asked.loss)[0])
    source = GridSource(asked.box, RESOLUTION, compact=True)
    eta = study.record.dataset["eta"].values.ravel()[source.cells(np.arange(source.num_points))]
    assert compare(eta, source, asked, what) == study.record.summary["theory"]
    eta[0] *= 1 + 1e-4
    assert compare(eta, source, asked, what)["max_relative_error_below"] == pytest.approx(1e-4, rel=1e-2)
    eta[0] = np.nan
    assert compare(eta, source, asked, what)["max_relative_error_below"] == np.inf


def test_the_directory_holds_everything(study):
    names = {path.name for path in study.record.path.iterdir()}
    assert names == {"run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf"}
    dataset = records.load(study.record.path).dataset
    assert dict(dataset.sizes) == {"x0": 48, "x1": 48}
    for name in ("eta", "low", "high", "flag", "outcome", "kind", "moved"):
        assert dataset[name].shape == RESOLUTION
    eta = dataset["eta"].values
    np.testing.assert_allclose(eta, eta.T, rtol=1e-2)
    i, j = 3, 30
    point = np.array([dataset["x0"][i], dataset["x1"][j]])
    exact = scalar.largest_converging_step(point, 1.0, 1.0)
    assert eta[i, j] == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_a_complete_run_is_read_back_and_an_interrupted_one_goes_on(tmp_path, monkeypatch, study):
    again = critical_map.run(options.CriticalMap(resolution=RESOLUTION, out=study.record.path))
    assert not again.fresh
    assert again.record.summary == study.record.summary

    def fail(*_, **__):
        raise KeyboardInterrupt

    asked = options.CriticalMap(resolution=RESOLUTION, out=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(figures, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            critical_map.run(asked)
    seen = []
    resumed = critical_map.run(dataclasses.replace(asked, resume=True), progress=lambda *_: seen.append(1))
    assert not seen  # every part was on disk
    for name in ("eta", "low", "high", "outcome"):
        np.testing.assert_array_equal(resumed.record.dataset[name], study.record.dataset[name])
    assert resumed.record.summary["lane_steps"] == study.record.summary["lane_steps"]


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_a_loss_without_a_closed_form(tmp_path):
    asked = options.CriticalMap(
        loss=options.Himmelblau(), box=((-5.0, 5.0), (-5.0, 5.0)), resolution=(16, 16), low=0.005, high=0.05,
        grad_tol=1e-8, max_steps=2000, undecided_rtol=0.1, kinds=False, out=tmp_path / "run",
    )  # fmt: skip
    summary = critical_map.run(asked).record.summary
    assert set(summary["theory"].values()) == {None}
    assert summary["kinds"] is None
    assert summary["flagged"] > 0
    assert summary["flagged"] == int(records.load(tmp_path / "run").dataset["flag"].sum())


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_a_slice_of_vectors_has_the_closed_form_too(tmp_path):
    asked = options.CriticalMap(
        loss=options.Vector(dim=2, target=2.0, scale=0.5), plane=(0.0, 3.0), resolution=(8, 8), low=0.05, high=0.6,
        rtol=1e-6, max_steps=4000, kinds=False, out=tmp_path / "run",
    )  # fmt: skip
    theory = critical_map.run(asked).record.summary["theory"]
    assert theory["critical_step"] == 0.5
    assert theory["cells_below"] > 0
    assert theory["max_relative_error_below"] < 1e-5


MINIMA = np.array([(-3.779310, -3.283186), (-2.805118, 3.131313), (3.0, 2.0), (3.584428, -1.848127)])
"""Of Himmelblau's function."""


@pytest.mark.usefixtures("unrendered")
def test_labels_are_those_of_a_loop_and_of_stability_and_outlive_an_interruption(tmp_path, monkeypatch):
    """A run that is cut after its first part goes on; a minimum is reached below its 2 / sharpness only."""
    asked = options.CriticalMap(
        loss=options.Himmelblau(), box=((-4.5, 4.5), (-4.5, 4.5)), resolution=(36, 32), low=0.003, high=0.03, scan=4,
        rtol=0.02, undecided_rtol=0.1, grad_tol=1e-8, max_steps=1000, max_period=None, kinds=False, label="found",
        out=tmp_path / "map",
    )  # fmt: skip
    commit = records.Record.commit

    def cut(record, number, **arrays):
        commit(record, number, **arrays)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.Record, "commit", cut)
        with pytest.raises(KeyboardInterrupt):
            critical_map.run(asked)
    record = critical_map.run(dataclasses.replace(asked, resume=True)).record
    assert {path.name for path in record.path.iterdir()} >= {"attractors.png", "figure.png"}
    dataset = records.load(record.path).dataset
    label, low = (dataset[name].values.ravel() for name in ("label", "low"))
    np.testing.assert_allclose(dataset["label_point"], MINIMA, atol=1e-5)

    x, y = (grid.ravel() for grid in np.meshgrid(dataset["x0"], dataset["x1"], indexing="ij"))
    for _ in range(1000):
        a, b = x**2 + y - 11, x + y**2 - 7
        x, y = x - low * (4 * x * a + 2 * b), y - low * (2 * a + 4 * y * b)
    far = np.hypot(x[:, None] - MINIMA[:, 0], y[:, None] - MINIMA[:, 1])
    assert (far[np.arange(len(label)), label] < 0.01).mean() > 0.99  # rounding decides on an orbit that wanders

    rows = record.summary["attractors"]
    for number, (x, y) in enumerate(MINIMA):
        hessian = [[12 * x**2 + 4 * y - 42, 4 * (x + y)], [4 * (x + y), 12 * y**2 + 4 * x - 26]]
        threshold = 2 / np.linalg.eigvalsh(hessian)[-1]
        assert 0.9 * threshold < low[label == number].max() < threshold
        assert rows[number]["critical_step"] == pytest.approx(threshold, rel=0.1)
    assert [row["lanes"] for row in rows] == [[int((label == number).sum())] for number in range(4)]
    words = table(record.summary)
    assert "median critical step" in words
    assert "4: (3.58, -1.85) minimum" in " ".join(words.split())

    figure = figures.draw_critical_attractors(picture(record))
    seen = figure.axes[0].images[0].get_array().swapaxes(0, 1)
    colours = np.unique(np.concatenate([dataset["label"].values[..., None], seen], axis=-1).reshape(-1, 4), axis=0)
    assert len(colours) == 4  # one for each attractor
    assert {text.get_text()[:2] for text in figure.legends[0].get_texts()} == {"1:", "2:", "3:", "4:"}


def test_what_ends_nowhere_has_a_colour_of_its_own():
    label = np.array([[0, 0], [-1, -1]], np.int32)
    lanes, ones = np.array([[2]]), np.ones(1, int)
    one = basins.Attractors(np.zeros((1, 2)), np.zeros(1, np.int32), lanes, np.zeros(1), ones, 0.1, ("(0, 0)",))
    flagged = np.array([[False, True], [False, True]])
    found = figures.CriticalMap(
        np.full((2, 2), 0.5), flagged, np.zeros((2, 2), bool), ((-1.0, 1.0), (-1.0, 1.0)), ("x0", "x1"), None,
        label=label, attractors=one,
    )  # fmt: skip
    figure = figures.draw_critical_attractors(found)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["1:  (0, 0),  50.0 %", "none converges", "not the smallest, but larger ones converge"]
    assert len(np.unique(np.asarray(figure.axes[0].images[0].get_array()).reshape(-1, 3), axis=0)) == 3
    with pytest.raises(ValueError, match="ask for labels"):
        figures.draw_critical_attractors(found._replace(label=None))


def test_figure_of_everything_at_once():
    eta = np.linspace(0.1, 0.5, 64).reshape(8, 8)
    eta[0, :2] = np.nan
    everywhere = np.zeros((8, 8), bool)
    flagged, all_converge = everywhere.copy(), everywhere.copy()
    flagged[5, 5], all_converge[0, 0] = True, True
    box, axes = ((0.0, 1.0), (0.0, 2.0)), ("x0", "x1")
    figure = figures.draw_critical_map(figures.CriticalMap(eta, flagged, all_converge, box, axes, 0.4))
    figure.canvas.draw()
    words = {text.get_text() for text in figure.legends[0].get_texts()}
    assert words == {"no interval", "none converges", "all converge"}
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert r"$\eta_C = 0.4$" in labels
    picture = figure.axes[0].images[0].get_array()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 40
    unknown = np.full((8, 8), np.nan)
    figures.draw_critical_map(figures.CriticalMap(unknown, everywhere, everywhere, box, axes, None)).canvas.draw()


def test_the_line_of_the_issue_is_the_default():
    words = ["--out", "runs/map", "loss:scalar", "--loss.scale", "1.0"]
    asked = process.parse(options.CriticalMap, words, "critical-map")
    assert dataclasses.replace(asked, out=options.CriticalMap().out) == options.CriticalMap()
    assert options.STUDIES["critical-map"] is options.CriticalMap
    assert options.CriticalMap().max_steps >= 20_000


@pytest.mark.slow
@pytest.mark.usefixtures("process_as_it_was")
def test_command(tmp_path, capsys):
    words = ["critical-map", "--resolution", "12", "12", "--max-steps", "2000", "--out", "run"]
    assert main(words) == 0
    first = capsys.readouterr()
    assert "critical step of the minima: 0.5" in first.out
    assert "converge to: 132 minimum, 12 strict saddle" in first.out
    assert "lanes" in first.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["configuration"]["loss"]["name"] == "scalar"
    assert main(words) == 0
    assert "complete already" in capsys.readouterr().out


@pytest.mark.usefixtures("process_as_it_was")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--low 1 --high 0.5", "low < high"),
        ("--rtol 1e-18", "rtol"),
        ("--scan 1", "scan"),
        ("--resolution 0 10", "at least 1"),
        ("--precision 32", "--grad-tol 1e-5"),
        ("--plane 0 7", "there are 2"),
        ("--nudge -1", "nudge"),
    ],
)
def test_bad_input_ends_with_one_message(words, message, tmp_path, capsys):
    assert main(["critical-map", *words.split(), "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("process_as_it_was")
@pytest.mark.slow
def test_precision_32(tmp_path, capsys):
    words = "--precision 32 --grad-tol 1e-5 --rtol 1e-5 --resolution 8 8 --max-steps 4000 --out run"
    assert main(["critical-map", *words.split()]) == 0
    assert capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["provenance"]["dtype"] == "float32"
    assert summary["theory"]["max_relative_error_below"] < 1e-3


@pytest.mark.slow
def test_the_map_of_the_issue(tmp_path):
    theory = critical_map.run(options.CriticalMap(out=tmp_path / "run")).record.summary["theory"]
    assert theory["max_relative_error_below"] <= 1e-5
    assert theory["max_relative_error_elsewhere"] <= 1e-2
    assert theory["cells_below"] + theory["cells_elsewhere"] == 249_500


def test_losses_of_a_sweep_share_one_program():
    """The loss of the study is a module: another target compiles nothing."""
    assert isinstance(building.build_loss(options.Scalar())[0], losses.ScalarProduct)
