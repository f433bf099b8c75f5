"""Descent beside the flow as a study: distances and bounds on closed forms, warnings, networks; Figures 1 and 3."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gdstab import figures, records
from gdstab.cli import commands, main
from gdstab.losses.network_models import FullyConnected
from gdstab.studies import building, flow, options, reproduce, training
from gdstab.studies.flow import show
from gdstab.studies.flow import study as measured
from gdstab.studies.options.reproduce import FIGURES, FigureD1, FigureD3
from gdstab.studies.reproduce import d_1

CURVATURES, START = np.array([1.0, 3.0]), np.array([1.0, -0.5])
SMALL = {
    "step_size": 0.1, "ratios": (2, 5), "time": 2.0, "points": 20, "curvature_points": 6, "samples": 3,
    "start": tuple(START), "loss": options.Quadratic(tuple(CURVATURES)),
}  # fmt: skip
TINY = options.Network(width=3, depth=2, activation="tanh", samples=20)


@pytest.fixture(scope="module")
def quadratic(tmp_path_factory):
    """A study on which everything is known."""
    return flow.run(options.Flow(**SMALL, out=tmp_path_factory.mktemp("flow") / "run"))


def test_a_quadratic_as_powers_and_exponentials_say(quadratic):
    dataset = quadratic.record.dataset
    eta, times = dataset["step_size"].values[:, None, None], dataset["time"].values[None, :, None]
    np.testing.assert_allclose(eta.ravel(), [0.1, 0.05, 0.02])
    descent = START * (1 - eta * CURVATURES) ** np.round(times / eta)
    exact = START * np.exp(-times * CURVATURES)
    np.testing.assert_allclose(dataset["distance"][0], np.linalg.norm(descent - exact, axis=-1), atol=1e-9)
    np.testing.assert_allclose(dataset["drift"][0], np.linalg.norm(descent - descent[:1], axis=-1), atol=1e-13)
    np.testing.assert_allclose(dataset["tube_smallest"], 1, rtol=1e-12)
    np.testing.assert_allclose(dataset["tube_largest"], 3, rtol=1e-12)


def test_the_bound_of_a_quadratic_has_the_constants_of_the_formula(quadratic):
    """m = -1 and beta = 3 everywhere; gamma, from samples, is no more than the supremum over the tube."""
    dataset, summary = quadratic.record.dataset, quadratic.record.summary
    way = summary["ways"][0]
    gamma = way["curvature"]["gamma"]
    assert np.linalg.norm(CURVATURES * START) <= gamma <= np.linalg.norm(CURVATURES * START) + 3 * 0.1
    times = dataset["time"].values
    expected = 3 * gamma * 0.05 * -np.expm1(-times)
    bound = dataset["bound"].values[0, 1]
    within = np.logical_and.accumulate(expected <= 0.1)
    assert not within.all()
    np.testing.assert_allclose(bound[within], expected[within], rtol=1e-6)
    assert np.isinf(bound[~within]).all()
    assert (dataset["distance"] <= dataset["bound"] * (1 + 1e-6) + 1e-8).all()
    assert (dataset["local"].values <= dataset["bound"].values * (1 + 1e-12)).all()
    assert way["rows"][1]["bound_until"] == pytest.approx(times[within][-1])
    assert way["max_step"] == pytest.approx(0.1 / (3 * gamma * -np.expm1(-2.0)), rel=1e-6)
    assert all(row["bound_holds"] and row["looseness"] >= 1 for row in way["rows"] if row["looseness"] is not None)
    assert way["curvature"]["integral_of_m"] == pytest.approx(-2)
    assert summary["kinks"] is False


def test_the_record_is_complete_and_read_back(quadratic):
    path = quadratic.record.path
    assert sorted(file.name for file in path.iterdir()) == [
        "figure.pdf", "figure.png", "result.zarr", "run.json", "summary.json"
    ]  # fmt: skip
    again = flow.run(options.Flow(**SMALL, out=path))
    assert (quadratic.fresh, again.fresh, again.record.summary) == (True, False, quadratic.record.summary)
    with pytest.raises(records.RunError, match="differs in radius"):
        flow.run(options.Flow(**SMALL, radius=0.2, out=path))


@pytest.mark.usefixtures("process_as_it_was", "unrendered")
def test_above_the_threshold_the_bound_is_said_to_be_void(tmp_path, capsys):
    """By the command, which reads the run back."""
    out = tmp_path / "run"
    asked = options.Flow(**{**SMALL, "step_size": 0.8, "ratios": (4, 8), "time": 16.0}, out=out)
    rows = flow.run(asked).record.summary["ways"][0]["rows"]
    assert [row["above_threshold_from"] for row in rows] == [0.0, None, None]
    assert rows[0]["end"] == pytest.approx(0.5 * 1.4**20, rel=1e-6)
    words = (
        "flow --step-size 0.8 --ratios 4 8 --time 16 --points 20 --curvature-points 6 --samples 3 --start 1.0 -0.5 "
        f"--out {out} loss:quadratic --loss.curvatures 1.0 3.0"
    ).split()
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "Step size 0.8 is above the stability threshold 2/lambda_max of the flow from time 0 on" in text
    assert "Step size 0.2 is above" not in text
    assert "complete already" in text


@pytest.mark.usefixtures("unrendered")
def test_a_flow_that_escapes_is_diagnosed(tmp_path):
    changed = {"loss": options.Quadratic((-20.0, 3.0)), "start": (1.0, 0.1, 0.0, 1.0)}
    study = flow.run(options.Flow(**{**SMALL, **changed}, out=tmp_path / "run"))
    lost, kept = study.record.summary["ways"]
    assert lost["flow"]["status"] == "escaped"
    assert lost["flow"]["said"].startswith("ESCAPED at time 0.69")
    assert kept["flow"]["status"] == "finished"
    dataset = study.record.dataset
    assert np.isnan(dataset["distance"].values[0, :, -1]).all()
    assert np.isfinite(dataset["distance"].values[1]).all()
    assert (study.record.path / "start_1.png").is_file()


@pytest.mark.usefixtures("unrendered")
@pytest.mark.slow
@pytest.mark.parametrize(("power", "known"), [("1.0", True), ("1.5", False)])
def test_a_loss_without_curvature_and_one_whose_tube_leaves_its_domain(power, known, tmp_path):
    (tmp_path / "losses.py").write_text(f"import jax.numpy as jnp\nloss = lambda x: jnp.sum(x**{power})\n")
    changed = {"start": (0.3, 0.05), "time": 0.2, "points": 2, "curvature_points": 2, "ratios": (2,)}
    asked = options.Flow(
        **{**SMALL, **changed, "loss": options.Custom(str(tmp_path / "losses.py") + ":loss", 2, -1e300)},
        out=tmp_path / "run",
    )
    way = flow.run(asked).record.summary["ways"][0]
    assert (way["curvature"]["beta"] is not None) is known
    assert all(row["bound_holds"] for row in way["rows"])
    assert way["rows"][0]["bound_until"] == pytest.approx(0.2 if known else 0.0)
    unknown = show.unknown(way["curvature"])
    assert len(unknown) == (not known)
    assert known or "lower --radius" in unknown[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start": (1.0,)}, "takes 2 numbers for each point"),
        ({"time": 0.05}, "at least one step of 0.1"),
        ({"ratios": (1,)}, "--ratios"),
        ({"radius": 0.0}, "radius"),
        ({"start": (np.nan, 1.0)}, "--start takes a finite number"),
        ({"dense_limit": -1}, "--dense-limit"),
    ],
)
def test_bad_options_leave_no_directory(changed, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        flow.run(options.Flow(**{**SMALL, **changed}, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_drifts_of_a_tree_are_those_of_its_vector(rng):
    tree = {"a": rng.standard_normal((3, 4, 2, 5)), "b": rng.standard_normal((3, 4, 7))}
    flat = np.concatenate([tree["a"].reshape(3, 4, -1), tree["b"]], axis=-1)
    np.testing.assert_allclose(measured.drifts(tree), np.linalg.norm(flat - flat[:1], axis=-1), rtol=1e-13)
    assert measured.drifts(np.array([[[0.0]], [[1e200]], [[np.nan]]])).ravel().tolist() == [0, np.inf, np.inf]


@pytest.mark.slow
def test_a_flat_network_is_the_network():
    loss, dim = building.build_loss(TINY)
    points = training.random_networks(TINY, loss, 2, 0.5, 3, np.float64)
    assert points.shape == (2, dim) == (2, 64 * 3 + 3 * 10)
    tree = loss.map(jnp.asarray(points[1]))
    np.testing.assert_array_equal(ravel_pytree(tree)[0], points[1])
    weights = tree.weights
    hidden = np.tanh(np.asarray(loss.loss.inputs).reshape(20, 64) @ np.asarray(weights[0]).T)
    logits = hidden @ np.asarray(weights[1]).T
    logits -= logits.max(axis=1, keepdims=True)
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(20), np.asarray(loss.loss.targets)])
    assert float(loss(jnp.asarray(points[1]))) == pytest.approx(expected, rel=1e-12)
    assert np.abs(np.asarray(weights[0])).max() <= 0.5 * np.sqrt(6 / 67)
    assert building.build_loss(dataclasses.replace(TINY, criterion="mse"))[0].residual(
        jnp.asarray(points[0])
    ).shape == (200,)


@pytest.mark.parametrize(
    ("loss", "kinks"),
    [
        (TINY, False),
        (options.Network(), True),
        pytest.param(options.Network("adapted"), True, marks=pytest.mark.slow),
        (options.Factorisation(norm="l1"), True),
        (options.Scalar(), False),
        (options.Linear(), False),
    ],
)
def test_kinks_are_known(loss, kinks):
    assert measured.has_kinks(building.build_loss(loss)[0]) is kinks


def test_kinks_of_a_loss_of_somebody_else_are_not_known(tmp_path):
    (tmp_path / "a.py").write_text("def f(theta):\n    return abs(theta[0])\n")
    assert measured.has_kinks(building.build_loss(options.Custom(f"{tmp_path}/a.py:f", 1))[0]) is None


def test_the_command_and_the_figures_are_registered():
    assert "flow" in commands()
    assert options.STUDIES["flow"] is options.Flow
    assert (FIGURES["D.1"], FIGURES["D.3"]) == (FigureD1, FigureD3)
    assert (FigureD1().step_size, FigureD1().ratios) == (0.001, (2, 5, 10, 20))


@pytest.mark.slow
def test_figure_1_at_a_small_size(tmp_path, monkeypatch):
    """Distances against descent by hand, of all parameters in one vector; on one small network."""
    model = FullyConnected.xavier(jax.random.key(0), (64, 4, 10), "linear")
    monkeypatch.setattr(d_1, "networks", lambda *_: {"one": model})
    asked = FigureD1(step_size=0.02, ratios=(2,), num_steps=6, points=3, samples=12, out=tmp_path / "run")
    done = reproduce.run("D.1", asked)
    dataset = done.record.dataset
    assert dataset["drift"].shape == (1, 2, 4)
    shown = training.images("digits", "", 12, 0, balanced=False)
    inputs, target = shown.inputs.reshape(12, 64), shown.one_hot
    ends = []
    for eta, num in ((0.02, 6), (0.01, 12)):
        first, second = (np.asarray(weight) for weight in model.weights)
        for _ in range(num):
            raised = np.exp(inputs @ first.T @ second.T)
            slope = (raised / raised.sum(axis=1, keepdims=True) - target) / 12
            first, second = first - eta * second.T @ slope.T @ inputs, second - eta * slope.T @ inputs @ first.T
        ends.append(np.concatenate([first.ravel(), second.ravel()]))
    start = np.concatenate([np.asarray(weight).ravel() for weight in model.weights])
    assert float(dataset["drift"][0, 1, -1]) == pytest.approx(np.linalg.norm(ends[0] - ends[1]), rel=1e-9)
    assert float(dataset["travelled"][0, 0, -1]) == pytest.approx(np.linalg.norm(ends[0] - start), rel=1e-9)
    # Both distances from the flow are of first order, so the drift is about half the larger one.
    assert float(dataset["distance"][0, 0, -1]) == pytest.approx(2 * np.linalg.norm(ends[0] - ends[1]), rel=0.1)
    found = done.record.summary["networks"]["one"]
    assert found["order"] == pytest.approx(1, abs=0.1)
    assert found["parameters"] == 64 * 4 + 4 * 10
    assert all(0 < row["from_flow_error"] < 1e-3 * row["from_flow"] for row in found["rows"])
    rows = {row.quantity: row.here for row in done.rows}
    assert rows["largest drift between eta and eta/2"].endswith("%")
    again = reproduce.run("D.1", asked)
    assert (again.fresh, again.rows) == (False, done.rows)


@pytest.mark.slow  # convolutions compile for long
def test_figure_3_at_a_small_size(tmp_path):
    asked = FigureD3(step_size=0.02, ratios=(2,), num_steps=4, points=2, samples=10, out=tmp_path / "run")
    done = reproduce.run("D.3", asked)
    networks = done.record.summary["networks"]
    assert list(networks) == ["convolutional, max pooling", "convolutional, subsampling"]
    for found in networks.values():
        assert found["rows"][0]["drift"] == 0 < found["rows"][1]["drift"] < 0.05 * found["rows"][0]["travelled"]
        assert found["flow"]["status"] == "finished"
        assert all(0 < row["from_flow_error"] < 0.01 * row["from_flow"] for row in found["rows"])


def test_descents_that_overflow_are_drawn():
    lost = np.array([0.0, np.inf, np.nan])
    picture = figures.Closeness(
        "a network", np.array([2.0, 1.0]), np.arange(3), np.stack([lost, lost]), np.ones(3), np.abs(lost),
        np.array([[0.0] * 3, [0.0, np.inf, np.inf]]), lost, lost, np.array([0.0, 1e-4, 1e-3]),
    )  # fmt: skip
    drawn = figures.draw_closeness([picture])
    assert all(np.isfinite(axes.get_ylim()).all() for axes in drawn.axes)
    assert drawn.axes[2].get_ylim()[0] > 0


def test_mnist_without_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("GDSTAB_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        reproduce.run("D.1", FigureD1(data="mnist", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
