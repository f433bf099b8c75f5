"""The study and the command `multipliers`: thresholds, the engine's diagram, the edge of stability, figures."""

import dataclasses
import json

import numpy as np
import pytest

from gdstab import figures, records
from gdstab.basins import stability_diagram
from gdstab.basins.stability_diagram import Diagram, Verdict
from gdstab.cli import main, process
from gdstab.studies import building, multipliers, options
from gdstab.studies.multipliers import show
from gdstab.theory import optimisers

SMALL = {"resolution": (24, 10), "num_steps": 200, "every": 10}


@pytest.fixture(scope="module")
def heavy_ball(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "heavy-ball"
    return multipliers.run(options.Multipliers(**SMALL, out=out))


@pytest.fixture(scope="module")
def adam(tmp_path_factory):
    """Held long enough at the edge of stability; Adam forgets its second moment in a hundred updates here."""
    asked = options.Multipliers(
        rule="adam", beta2=0.99, resolution=(24, 10), num_steps=4000, step_size=0.1, out=tmp_path_factory.mktemp("adam")
    )
    return multipliers.run(asked)


@pytest.mark.slow
def test_momentum_at_the_flattest_minimum(heavy_ball):
    summary = heavy_ball.record.summary
    assert summary["point"] == [1.0, 1.0]
    assert summary["curvature"] == pytest.approx(4.0)
    assert summary["threshold"]["closed_form"] == pytest.approx(2 * 1.9 / 4)
    assert summary["threshold"]["relative_difference"] < 1e-9
    assert summary["threshold"]["multiplier"][0] == pytest.approx(-1, abs=1e-6)
    found = np.sort_complex([complex(*pair) for pair in summary["multipliers"]])
    expected = np.sort_complex([*np.roots([1, -(1.9 - 0.3 * 4), 0.9]), 1.0, 0.9])  # and those along the minima
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert summary["spectral_radius"] == pytest.approx(1)
    assert summary["growth"]["kreiss_bound"] <= 1.001 * max(summary["growth"]["peak"], 10)
    assert summary["orbit"]["limit"] == pytest.approx(2 * 1.9 / 0.3)


BOTH = pytest.mark.parametrize("rule", ["heavy_ball", pytest.param("adam", marks=pytest.mark.slow)])


@BOTH
def test_the_engine_finds_the_curve(rule, request):
    found = request.getfixturevalue(rule).record.summary["diagram"]
    assert found["lanes"] == 240
    assert found["contradictions"] == 0
    assert found["measured"] <= found["spacing"] * 1.01
    counts = found["counts"]
    assert counts["returns"] > 60
    assert counts["returns"] + counts["leaves"] + counts["cycles"] + counts["diverges"] + counts["undecided"] == 240
    assert found["slow_within"] < 0.01


@BOTH
def test_along_the_minima(rule, request):
    rows = request.getfixturevalue(rule).record.summary["manifold"]
    assert len(rows) == 9
    assert max(row["relative_difference"] for row in rows) < 1e-9
    if rule == "heavy_ball":
        for row in rows:
            assert row["closed_form"] == pytest.approx(3.8 / (2 * (row["x"] ** 2 + row["x"] ** -2)))


@pytest.mark.slow
def test_adam_stays_at_its_edge(adam):
    """The curvature it sees rises to (2 + 2 beta1) / ((1 - beta1) eta) and stays near it."""
    orbit = adam.record.summary["orbit"]
    assert orbit["limit"] == pytest.approx(380)
    assert 0.8 < orbit["median_to_limit"] < 1.1
    dataset = adam.record.dataset
    assert float(dataset["curvature"][0]) < 0.5 * orbit["limit"]
    assert adam.record.summary["nu"] == pytest.approx(dataset["nu"].values[-1].tolist())


@pytest.mark.slow
def test_second_moment_of_the_orbit_is_that_of_a_plain_loop(adam):
    """By the definition, in NumPy: the bias-corrected average of squared gradients of c (1 - xy)^2."""
    dataset = adam.record.dataset
    asked = options.Multipliers(rule="adam", beta2=0.99, num_steps=4000, step_size=0.1)
    theta = building.one_start(asked, 2, np.dtype(float)).copy()
    m, nu = np.zeros(2), np.zeros(2)
    for step in range(1, 31):
        gradient = -2 * (1 - theta.prod()) * theta[::-1]
        m, nu = 0.9 * m + 0.1 * gradient, 0.99 * nu + 0.01 * gradient**2
        theta = theta - 0.1 * (m / (1 - 0.9**step)) / (np.sqrt(nu / (1 - 0.99**step)) + 1e-8)
    np.testing.assert_allclose(dataset["theta"].sel(step=30), theta, rtol=1e-8)
    np.testing.assert_allclose(dataset["nu"].sel(step=30), nu / (1 - 0.99**30), rtol=1e-8)
    scale = np.sqrt(nu / (1 - 0.99**30)) + 1e-8
    hessian = 2 * np.array([[theta[1] ** 2, 2 * theta.prod() - 1], [2 * theta.prod() - 1, theta[0] ** 2]])
    expected = np.linalg.eigvals(hessian / scale[:, None]).real.max()
    np.testing.assert_allclose(dataset["curvature"].sel(step=30), expected, rtol=1e-8)


def test_the_directory_holds_everything(heavy_ball):
    names = {path.name for path in heavy_ball.record.path.iterdir()}
    pictures = {"figure.png", "figure.pdf", "orbit.png", "orbit.pdf"}
    assert names == {"run.json", "summary.json", "result.zarr", *pictures}
    dataset = records.load(heavy_ball.record.path).dataset
    plane, orbit = {"step_size": 24, "beta": 10}, {"step": 20, "coordinate": 2}
    assert dict(dataset.sizes) == {**plane, **orbit, "index": 4, "part": 2, "direction": 180}
    np.testing.assert_allclose(dataset["threshold"], (1 + dataset["beta"]) / 2)
    again = multipliers.run(options.Multipliers(**SMALL, out=heavy_ball.record.path))
    assert not again.fresh
    assert again.record.summary == heavy_ball.record.summary


@pytest.mark.parametrize(
    ("asked", "curvature"),
    [
        pytest.param({"rule": "rmsprop", "nu": 0.25}, 4 / (0.5 + 1e-8), marks=pytest.mark.slow),
        pytest.param(
            {"rule": "nesterov", "weight_decay": 0.1, "loss": options.Scalar(scale=0.5)}, None, marks=pytest.mark.slow
        ),
        pytest.param({"rule": "descent", "loss": options.Quadratic((1.0, 8.0))}, 8.0, marks=pytest.mark.slow),
        pytest.param({"rule": "adamw", "weight_decay": 0.1, "nu": 0.25}, None, marks=pytest.mark.slow),
    ],
)
def test_other_rules(asked, curvature, tmp_path):
    given = options.Multipliers(**{**SMALL, "step_size": 0.1, "num_steps": 50, **asked}, out=tmp_path / "run")
    summary = multipliers.run(given).record.summary
    assert summary["threshold"]["relative_difference"] < 1e-8
    assert summary["diagram"]["contradictions"] == 0
    assert summary["diagram"]["measured"] <= summary["diagram"]["spacing"] * 1.01
    if curvature is not None:
        assert summary["curvature"] == pytest.approx(curvature)
    else:  # 2 c (a - xy) = w p at the fixed point, on the symmetric line
        scale = 2 * given.loss.scale / (0.5 if given.rule == "adamw" else 1.0)
        assert summary["point"] == pytest.approx([(1 - 0.1 / scale) ** 0.5] * 2)
        assert summary["manifold"] is None
        exact = optimisers.threshold(given.rule, summary["curvature"], weight_decay=0.1)
        assert summary["threshold"]["closed_form"] == pytest.approx(float(exact))


def test_the_comparison_finds_what_is_wrong():
    step_sizes, betas = np.linspace(0.1, 1.0, 10), np.array([0.0, 0.5])
    threshold = np.array([0.55, 0.75])
    verdict = np.where(step_sizes[:, None] < threshold, Verdict.RETURNS, Verdict.DIVERGES).astype(np.int8)
    plane = Diagram(step_sizes, betas, verdict, np.ones((10, 2), int), threshold, 20)
    found = stability_diagram.compare(plane)
    assert (found["contradictions"], found["farthest"]) == (0, 0.0)
    assert found["measured"] == pytest.approx(0.05 / 0.55)
    verdict[9, 0], verdict[0, 1], verdict[4, 0] = Verdict.RETURNS, Verdict.CYCLES, Verdict.UNDECIDED
    found = stability_diagram.compare(plane)
    assert (found["contradictions"], found["undecided_below"]) == (2, 1)
    assert found["farthest"] == pytest.approx(1 - 0.1 / 0.75)
    assert found["slow_within"] == pytest.approx(0.05 / 0.55)
    assert found["measured"] == pytest.approx(1)  # in the second column none returns at first


def test_figures_of_everything_at_once():
    step_sizes, betas = np.geomspace(0.1, 10, 12), np.linspace(0, 0.9, 5)
    verdict = np.arange(60).reshape(12, 5) % 5
    plane = figures.StabilityPlane(step_sizes, betas, verdict.astype(np.int8), np.arange(60).reshape(12, 5), np.ones(5))
    values = np.array([1.2 + 0j, -0.5 + 0.2j])
    figure = figures.draw_multipliers(plane, figures.MultiplierMap("adam", 0.3, 0.5, values, 2 * values))
    figure.canvas.draw()
    words = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"converges elsewhere", "cycle", "diverges", "undecided", "unstable multiplier"} < words
    assert figure.axes[0].get_yscale() == "log"
    figure = figures.draw_multipliers(
        plane._replace(
            betas=betas[:1], verdict=np.full((12, 1), 3, np.int8), updates=np.ones((12, 1)), threshold=np.ones(1)
        ),
        figures.MultiplierMap("descent", 0.3, 0.5, values[1:], 100 * values),
    )
    figure.canvas.draw()
    words = {text.get_text() for text in figure.legends[0].get_texts()}
    assert words == {"threshold, closed form", "diverges", "the map on the right", "multiplier"}
    nothing = np.full(3, np.nan)
    figures.draw_edge(figures.StabilityEdge("descent", 0.1, np.arange(3), nothing, nothing, 20.0)).canvas.draw()


def test_the_figures_of_a_run_on_disk_show_it(heavy_ball):
    drawn = show.draw(records.load(heavy_ball.record.path))
    left, right, *_ = drawn["figure"].axes
    assert [axes.get_title()[:3] for axes in (left, right, *drawn["orbit"].axes)] == ["(a)", "(b)", "(a)", "(b)"]
    spots = {complex(x, y) for line in right.lines if line.get_marker() in "os" for x, y in line.get_xydata()}
    assert spots == {complex(*pair) for pair in heavy_ball.record.summary["multipliers"]}
    (curve,) = [line for line in drawn["orbit"].axes[1].lines if line.get_label() == "largest curvature the rule sees"]
    assert curve.get_ydata()[-1] == heavy_ball.record.summary["orbit"]["last"]


def test_rules_of_the_options_are_those_of_the_package():
    names = options.RuleName.__args__
    assert names == building.updates.NAMES
    for name in names:
        asked = options.Multipliers(rule=name)
        assert building.build_rule(asked) is building.build_rule(dataclasses.replace(asked, seed=1))
    assert options.STUDIES["multipliers"] is options.Multipliers
    assert options.configuration(options.Multipliers())["rule"] == "heavy-ball"
    asked = process.parse(
        options.Multipliers, ["--rule", "adam", "--beta", "0.8", "loss:scalar", "--loss.scale", "2"], "multipliers"
    )
    assert (asked.rule, asked.beta, asked.loss.scale) == ("adam", 0.8, 2.0)


@pytest.mark.usefixtures("process_as_it_was")
@pytest.mark.slow
def test_command(tmp_path, capsys):
    words = "multipliers --rule heavy-ball --resolution 24 10 --num-steps 200 --out run"
    assert main(words.split()) == 0
    text = capsys.readouterr().out
    assert "heavy-ball above (1, 1)" in text
    assert "0 contradictions" in text
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["configuration"]["study"] == "multipliers"
    assert main(words.split()) == 0
    assert "complete already" in capsys.readouterr().out


@pytest.mark.usefixtures("process_as_it_was")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rule sign", "jumps"),
        ("--rule lion", "jumps"),
        ("--beta 1", "beta"),
        ("--beta2 -1", "beta2"),
        ("--weight-decay -1", "--weight-decay"),
        ("--nu 0", "nu"),
        ("--betas 0.5 0.5", "--betas"),
        ("--resolution 1 5", "--resolution"),
        ("--every 20000", "--every"),
        ("--point 1", "--point"),
        ("--start 1 2 3", "--start"),
        ("--step-size -1", "--step-size"),
    ],
)
def test_bad_input_ends_with_one_message(words, message, tmp_path, capsys):
    assert main(["multipliers", *words.split(), "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_gallery(tmp_path):
    for rule in ("heavy-ball", "adam"):
        summary = multipliers.run(options.Multipliers(rule=rule, out=tmp_path / rule)).record.summary
        assert summary["diagram"]["contradictions"] == 0
        assert summary["diagram"]["measured"] < summary["diagram"]["spacing"]
    assert summary["orbit"]["median_to_limit"] == pytest.approx(1, abs=0.1)
