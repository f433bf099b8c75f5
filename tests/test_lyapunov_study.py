"""The study and the command `lyapunov`, and the evidence for the collapse onto the symmetric line."""

import dataclasses
import json

import numpy as np
import pytest

from gdstab import basins, figures, records
from gdstab.basins import collapse
from gdstab.cli import main, process
from gdstab.losses import ScalarProduct
from gdstab.outcomes import StoppingRule
from gdstab.studies import lyapunov, options
from gdstab.studies.lyapunov import show
from gdstab.theory import symmetric_line
from gdstab.updates import gradient_descent

SMALL = options.Lyapunov(
    step_sizes="0.4,0.55,0.6,0.75,1.0", starts=60, num_steps=1500, max_steps=1500, line_starts=8, line_steps=3000,
    resolution=(16, 12), seed=3,
)  # fmt: skip
PLANE = ScalarProduct(scale=1.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return lyapunov.run(dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("runs") / "lyapunov"))


def test_rows_agree_with_closed_forms(study):
    rows = study.record.summary["rows"]
    assert [row["reduced"] for row in rows] == pytest.approx([0.8, 1.1, 1.2, 1.5, 2.0])
    for row in rows[:3]:
        assert row["closed_form"] is not None
        for name in ("low", "median", "high"):
            assert row["exponent"][name] == pytest.approx(row["closed_form"], abs=1e-6)
    assert rows[3]["closed_form"] is None
    along = rows[3]["along"]
    assert abs(rows[3]["exponent"]["median"] - along[0]) < 0.02
    assert along[1] < along[0] < along[2]
    assert rows[4]["closed_form"] == np.log(3)
    assert rows[4]["along"][1] <= np.log(3) <= rows[4]["along"][2]
    assert (rows[4]["bounded"], rows[4]["exponent"]) == (0, None)


def test_rows_say_what_bounded_orbits_do(study):
    rows = study.record.summary["rows"]
    for row, kind in zip(rows, ("converged", "periodic", "periodic", "chaotic"), strict=False):
        # At 0.4 one point starts beside a minimum that is stable by a hair, and is not there yet.
        assert row["shares"][kind]["value"] >= (0.95 if kind == "converged" else 1)
        assert row["shares"][kind]["low"] < row["shares"][kind]["value"] <= row["shares"][kind]["high"]
    assert rows[0]["moving"] <= 1
    for row in rows[1:4]:
        assert row["collapsed"] == row["moving"] == row["bounded"] > 0
        assert row["across"][2] < 0


def test_the_directory_holds_everything(study):
    names = {path.name for path in study.record.path.iterdir()}
    assert names == {"run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf"}
    dataset = records.load(study.record.path).dataset
    assert dict(dataset.sizes) == {"step_size": 5, "sample": 60, "coordinate": 2, "x0": 16, "x1": 12}
    field, summary = dataset["map_exponent"].values, study.record.summary["map"]
    assert int(np.isfinite(field).sum()) == summary["bounded"]
    assert int((field > 0).sum()) == summary["positive"] > 0
    for row, exponents in zip(study.record.summary["rows"], dataset["exponent"].values, strict=True):
        known = exponents[np.isfinite(exponents)]
        assert known.size == row["exponents"]
        assert not known.size or np.median(known) == row["exponent"]["median"]
    assert dataset.attrs["provenance"]["seed"] == 3


def test_the_map_is_the_one_of_its_points(study):
    """By an orbit in NumPy: the first axis is the first parameter."""
    dataset = records.load(study.record.path).dataset
    i, j = 9, 4
    theta, tangent, total = np.array([float(dataset["x0"][i]), float(dataset["x1"][j])]), np.array([0.6, -0.8]), 0.0
    for _ in range(64):
        (x, y), k = theta, 1.3
        jacobian = np.array([[1 - k * y * y, k * (1 - 2 * x * y)], [k * (1 - 2 * x * y), 1 - k * x * x]])
        theta, tangent = theta + k * (1 - x * y) * theta[::-1], jacobian @ tangent
        total += np.log(np.linalg.norm(tangent))
        tangent /= np.linalg.norm(tangent)
    assert dataset["map_exponent"].values[i, j] == pytest.approx(total / 64, abs=0.03)  # another first vector


def test_a_complete_run_is_read_back_and_another_is_refused(study):
    again = lyapunov.run(dataclasses.replace(SMALL, out=study.record.path))
    assert not again.fresh
    assert again.record.summary == study.record.summary
    with pytest.raises(records.RunError, match="differs in seed"):
        lyapunov.run(dataclasses.replace(SMALL, seed=4, out=study.record.path, resume=True))


@pytest.mark.slow
def test_another_rule_and_another_loss(tmp_path):
    asked = dataclasses.replace(
        SMALL, rule="heavy-ball", beta=0.5, step_sizes="0.2,0.3", loss=options.Quadratic((1.0, 8.0)), out=tmp_path / "q"
    )
    rows = lyapunov.run(asked).record.summary["rows"]
    for row in rows:  # complex multipliers of modulus sqrt(beta), or the larger of two real ones
        found = (
            np.abs(np.roots([1, -(1.5 - row["step_size"]), 0.5])),
            np.abs(np.roots([1, -(1.5 - 8 * row["step_size"]), 0.5])),
        )
        assert row["exponent"]["median"] == pytest.approx(np.log(max(map(np.max, found))), abs=2e-2)
        assert "across" not in row


def test_the_table_of_the_collapse():
    rows = collapse.table(gradient_descent(), PLANE, [0.55, 0.8], starts=100, num_steps=1500)
    for row in rows:
        assert (row["against"], row["collapsed"]) == (0, row["moving"])
        assert row["collapsed_share"][0] > 0.85
        assert row["across"][2] < 0
        assert 0.9 < row["largest_factor"] <= 1 + 1e-12
        assert row["identity_off"] < 5e-3
    assert rows[0]["shares"]["periodic"]["value"] == rows[1]["shares"]["chaotic"]["value"] == 1.0
    assert rows[0]["across"][0] == pytest.approx(np.log(abs(symmetric_line.period_two_multipliers(1.1)[1])) / 2)


def test_points_off_the_line_are_counted():
    """Below the critical step orbits stay where they converge, beside the line: nothing has collapsed there."""
    found = basins.regimes(
        gradient_descent(), PLANE,
        np.random.default_rng(0).uniform(0.2, 1.4, (40, 2)), np.array([0.3]),
        stopping=StoppingRule(loss_tol=None, max_steps=500, max_period=4), num_steps=300,
    )  # fmt: skip
    row = collapse.collapsed(found)[0]
    assert row["moving"] == 40
    assert row["collapsed"] == 0
    assert row["largest_distance"] > 0.1


@pytest.mark.parametrize("target", [0.5, pytest.param(3.0, marks=pytest.mark.slow)])
def test_the_line_of_another_target(target):
    """Only k a counts."""
    loss = ScalarProduct(target=target, scale=1.0)
    here = collapse.line(gradient_descent(), loss, [1.1 / (2 * target)], starts=6, num_steps=3000)
    exact = np.log(np.abs(symmetric_line.period_two_multipliers(1.1))) / 2
    np.testing.assert_allclose([here.along[0], here.across[0]], exact, atol=1e-9)
    assert here.starts[0] == 6


@pytest.mark.slow
def test_ln_3_to_five_digits():
    found = collapse.line(gradient_descent(), PLANE, [1.0], starts=200, num_steps=100_000)
    assert abs(found.along[0] - np.log(3)) < found.along_half[0] < 1e-5
    assert abs(found.across[0]) < 3 * found.across_half[0] + 1e-6


@pytest.mark.slow
def test_the_line_of_the_issue(capsys, process_as_it_was):
    line = (
        "--step-sizes 0.5:0.8:3 --starts 30 --num-steps 400 --max-steps 300 --max-period 8 --line-steps 400 "
        "--line-starts 4 --resolution 8 8 --out run loss:scalar --loss.scale 1.0"
    )
    assert main(["lyapunov", *line.split()]) == 0
    out = capsys.readouterr().out
    assert "step size" in out
    assert "Results: run" in out
    assert main(["lyapunov", *line.split()]) == 0
    assert "complete already" in capsys.readouterr().out
    summary = json.loads((records.load("run").path / "summary.json").read_text())
    assert [round(row["step_size"], 3) for row in summary["rows"]] == [0.5, 0.65, 0.8]


def test_the_defaults_are_those_of_the_command():
    assert process.parse(options.Lyapunov, [], "lyapunov") == options.Lyapunov()
    asked = process.parse(options.Lyapunov, ["--rule", "adam", "--beta", "0.8", "loss:himmelblau"], "lyapunov")
    assert (asked.rule, asked.beta, asked.loss) == ("adam", 0.8, options.Himmelblau())


def test_a_long_table_is_thinned(study):
    summary = dict(study.record.summary)
    summary["rows"] = summary["rows"] * 20
    text = show.table(summary)
    assert "34 of 100 step sizes" in text
    assert "-0.0000" not in text


def test_the_figure_of_a_run_on_disk_shows_its_rows(study):
    exponents, field, shares, *_ = show.draw(records.load(study.record.path))["figure"].axes
    rows = study.record.summary["rows"]
    median = next(line for line in exponents.lines if line.get_label().startswith("random starts"))
    np.testing.assert_array_equal(median.get_ydata()[:4], [row["exponent"]["median"] for row in rows[:4]])
    assert np.isnan(median.get_ydata()[4])
    assert any(r"\eta_C = 0.5$" in line.get_label() for line in exponents.lines)
    assert (field.get_xlabel(), field.get_ylabel()) == ("$x_{0}$", "$x_{1}$")
    assert field.images[0].get_array().shape == (12, 16)
    assert "chaotic" in [text.get_text() for text in shares.get_legend().get_texts()]


def test_a_figure_of_one_step_size_without_anything_bounded(tmp_path):
    nothing = np.array([np.nan])
    figure = figures.draw_lyapunov(
        figures.Exponents(
            step_sizes=np.array([2.0]), exponent=np.full((1, 3), np.nan),
            shares={kind.name.lower(): nothing for kind in basins.BOUNDED}, bounded=np.zeros(1),
            closed_form=None, along=None, across=None, critical_step=None, field=np.full((4, 5), np.nan),
            box=((0, 1), (0, 1)), axes=("x0", "x1"), map_step_size=2.0, map_steps=64, confidence=0.95,
        )
    )  # fmt: skip
    assert all(path.stat().st_size > 1000 for path in figures.save(figure, tmp_path))


def test_a_figure_without_a_closed_form_that_stands_alone(tmp_path):
    sizes = np.linspace(0.2, 0.4, 3)
    figure = figures.draw_lyapunov(
        figures.Exponents(
            step_sizes=sizes, exponent=np.tile([-0.3, -0.2, -0.1], (3, 1)),
            shares={kind.name.lower(): np.full(3, 0.2) for kind in basins.BOUNDED}, bounded=np.ones(3),
            closed_form=np.log(np.abs(1 - 4 * sizes)), along=None, across=None, critical_step=None,
            field=np.zeros((4, 5)), box=((0, 1), (0, 1)), axes=("x0", "x1"), map_step_size=0.3, map_steps=64,
            confidence=0.95,
        )
    )  # fmt: skip
    figures.save(figure, tmp_path)
    assert all(axes.get_position().width > 0.1 for axes in figure.axes if axes.get_xlabel().startswith("step"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_sizes": "0.5:0.1:3"}, "low < high"),
        ({"step_sizes": "-0.5"}, "positive"),
        ({"starts": 0}, "starts"),
        ({"num_steps": 50}, "num_steps"),
        ({"num_steps": 500, "transient": 600}, "transient"),
        ({"map_steps": 10}, "--map-steps"),
        ({"map_step_size": 0.0}, "positive"),
        ({"box": (1.0, -1.0)}, "low < high"),
        ({"box": (0.0, 1.0, 2.0)}, "box"),
        ({"resolution": (0, 5)}, "resolution"),
        ({"max_period": 1}, "--max-period"),
        ({"max_steps": 1000}, "at least 1152 updates"),
        ({"confidence": 1.0}, "confidence"),
        ({"beta": 1.0, "rule": "heavy-ball"}, "beta"),
        ({"plane": (0.0, 0.0)}, "plane"),
    ],
)
def test_mistakes_leave_no_directory_behind(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        lyapunov.run(dataclasses.replace(SMALL, out=tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_step_sizes_beyond_the_end_of_the_line_are_refused():
    with pytest.raises(ValueError, match="2 c a eta <= 2"):
        collapse.line(gradient_descent(), PLANE, [1.2])
