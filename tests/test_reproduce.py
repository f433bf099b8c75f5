"""The figures of the papers at small sizes: their numbers, their registry, their command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gdstab import records
from gdstab.cli import commands, main
from gdstab.flow import separation
from gdstab.losses import WorstCase
from gdstab.studies import all_options, lifecycle, options, reproduce, room_of
from gdstab.studies.options.reproduce import FIGURES, FigureA1a, FigureA1b, FigureA2, FigureD2, options_of
from gdstab.studies.reproduce import d_2
from gdstab.studies.reproduce.study import figure_of

ROOT = Path(__file__).parents[1]


def here(done) -> dict:
    """The rows by their quantities."""
    return {row.quantity: (row.paper, row.here) for row in done.rows}


def test_every_figure_has_functions_and_options_of_its_own():
    for name, kind in FIGURES.items():
        assert callable(figure_of(kind()).compare)
        assert kind().out == Path("runs") / name
        assert room_of(kind()) == "gdstab.studies.reproduce"
        assert options.read(options.configuration(kind())) == kind()
        assert kind in all_options()
    assert "reproduce" in commands()
    with pytest.raises(ValueError, match=r"Did you mean A\.1"):
        options_of("A.1c")


def test_the_papers_numbers_are_the_defaults():
    assert (FigureA1a().step_size, FigureA1a().box, FigureA1a().loss.scale) == (0.3, ((-4.0, 4.0), (-4.0, 4.0)), 1.0)
    assert (FigureA1b().box, FigureA1b().loss) == (FigureA1a().box, options.Scalar(scale=1.0))
    assert (FigureA2().step_sizes, FigureA2().loss.scale) == ((0.4, 1.1), 0.5)
    assert FigureA2().boxes == (((-0.2, 2.5), (0.0, 2.5)), ((0.7, 1.25), (0.65, 1.2)))


@pytest.mark.slow  # heatmaps compile for long
def test_a_1a(tmp_path):
    asked = FigureA1a(resolution=(40, 40), max_steps=3000, out=tmp_path / "run")
    done = reproduce.run("A.1a", asked)
    rows = here(done)
    assert rows["step size"] == ("0.3", "0.3")
    assert rows["cells that neither converge nor diverge"] == ("0", "0")
    assert rows["verdicts against the ellipse"][1] == "0"
    assert float(rows["share of the cells that converge"][1]) == pytest.approx(0.312, abs=0.01)
    again = reproduce.run("A.1a", asked)
    assert (done.fresh, again.fresh, again.rows) == (True, False, done.rows)
    assert records.load(tmp_path / "run").summary["reproduction"]["shows"] == done.shows


@pytest.mark.slow  # the critical study compiles for long
def test_a_1b(tmp_path):
    asked = FigureA1b(
        step_sizes="0.3,0.6", samples=100, starts=2, resolution=(20, 20), max_steps=500, out=tmp_path / "run"
    )
    rows = here(reproduce.run("A.1b", asked))
    paper, found = rows["critical step size"]
    assert paper == "0.5"
    assert float(found) == pytest.approx(0.5, rel=1e-6)
    assert rows["largest stable length above the critical step size"] == ("0", "0")
    assert float(rows["length of stable minima: largest error against the closed form"][1]) < 1e-6


@pytest.mark.usefixtures("process_as_it_was", "unrendered")
@pytest.mark.slow
def test_a_2_by_the_command(tmp_path, capsys):
    words = ["reproduce", "A.2", "--output", str(tmp_path / "run")]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "6 of 6" in text
    assert "0 of 6" in text
    assert "largest x^2 + y^2 at their ends, stable below      5   4.487" in text
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "figure.pdf", "figure.png", "result.zarr", "run.json", "summary.json"
    ]  # fmt: skip
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["configuration"]["study"] == "figurea2"
    assert main(words) == 0
    assert "complete already" in capsys.readouterr().out
    assert main([*words, "--step-sizes", "0.4", "0.9"]) == 2
    assert "differs in step_sizes" in capsys.readouterr().err


@pytest.mark.slow
def test_d_2(tmp_path, monkeypatch):
    monkeypatch.setattr(d_2, "flow_error", lambda _: 1e-10)  # see test_worst_case
    done = reproduce.run("D.2", FigureD2(curvature=2.0, step_sizes=(0.05, 0.02), out=tmp_path / "run"))
    rows = here(done)
    assert rows["least curvature of phi, of phi-bar, over a"][1] == "-1, -1"
    assert rows["flow: closed form against the solver"][1] == "1.0e-10"
    for eta in ("0.05", "0.02"):
        words = f"step size {eta}: exponent over a, to the line of the iterates, to the nearest one"
        line, nearest = rows[words][1].split(", ")
        assert float(line) == 1
        assert float(nearest) == pytest.approx(1, abs=0.1)
    assert float(rows["least distance where it excludes the step size"][1]) > 0.1
    dataset = done.record.dataset
    (done.record.path / "figure.png").unlink()
    lifecycle.draw(records.load(done.record.path))
    assert (done.record.path / "figure.png").stat().st_size > 10_000
    assert (dataset["off"] <= dataset["nearest"] * (1 + 1e-6)).all()
    with pytest.raises(ValueError, match="at most 1 / \\(6 a\\)"):
        reproduce.run("D.2", FigureD2(step_sizes=(0.2,), out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_distance_to_the_nearest_iterate(rng):
    path = np.cumsum(rng.exponential(size=(200, 3)), axis=0)
    for point in rng.uniform(-50, 250, (50, 3)):
        assert separation._distance(path, point) == pytest.approx(np.linalg.norm(path - point, axis=1).min(), rel=1e-12)
    loss = WorstCase(extent=500)
    orbit = separation.follow(loss, np.array([0.1]))[0]
    assert separation._distance(orbit, orbit[7]) == 0


@pytest.mark.parametrize("words", [["reproduce"], ["reproduce", "--help"]])
def test_help_lists_the_figures_without_jax(words):
    code = f"""import sys; from gdstab.cli import main; main({words!r})
print(sorted({{"jax", "numpy", "tyro"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in FIGURES)
    assert main(["reproduce", "A.3"]) == 2
