"""The study of basin measures: its rows against exact shares, its distributions, its parts, its figure, mistakes."""

import dataclasses
import errno

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import ensembles, estimators, figures, records
from gdstab.cli import driver, main, process
from gdstab.outcomes import Outcome
from gdstab.studies import basin, building, options
from gdstab.studies.basin import distributions, show
from gdstab.studies.basin import study as counting
from gdstab.theory import known, scalar
from gdstab.updates import gradient_descent

BOX = (-4.0, 4.0, -4.0, 4.0)
SMALL = options.Basin(step_sizes="0.2:0.6:3", samples=6000, chunk=1024, max_steps=1500, box=BOX)
TIMES = ("seconds", "run_seconds", "compile_seconds", "provenance")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return basin.run(dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("runs") / "basin"))


def assert_same(found, wanted):
    assert {k: v for k, v in found.summary.items() if k not in TIMES} == {
        k: v for k, v in wanted.summary.items() if k not in TIMES
    }
    for name, variable in wanted.dataset.variables.items():
        np.testing.assert_array_equal(found.dataset[name].values, variable.values, strict=True)


def test_the_line_of_the_issue():
    line = (
        "--step-sizes 0.05:0.6:12 --samples 1000000 --box -4 4 -4 4 --seed 0 --out runs/fig1b loss:scalar "
        "--loss.scale 1.0"
    )
    asked = process.parse(driver.command_of("basin"), line.split(), "basin")
    wanted = options.Basin(box=BOX)
    for field in dataclasses.fields(options.Basin):
        if field.name != "out":
            assert getattr(asked, field.name) == getattr(wanted, field.name), field.name
    assert (asked.coordinator, asked.num_processes, asked.process_id, asked.join_timeout) == (None, None, None, 60)
    assert "coordinator" not in options.configuration(wanted)


def test_rows_hold_what_the_issue_asks_for(study):
    summary = study.record.summary
    assert summary["critical_step"] == 0.5
    assert summary["volume"] == 64
    assert [row["step_size"] for row in summary["rows"]] == pytest.approx([0.2, 0.4, 0.6])
    for row in summary["rows"]:
        counts = row["counts"]
        assert sum(counts.values()) == row["samples"] == 6000
        assert row["share"] == counts["converged"] / 6000
        assert sum(row["kinds"].values()) == counts["converged"]
        for name, interval in (
            ("wilson", estimators.wilson_interval), ("clopper_pearson", estimators.clopper_pearson_interval),
        ):  # fmt: skip
            assert row[name] == pytest.approx([float(end) for end in interval(counts["converged"], 6000)])
        assert row["undecided_bounds"] == pytest.approx(
            [counts["converged"] / 6000, (counts["converged"] + counts["undecided"]) / 6000]
        )
        exact = scalar.basin_area(row["step_size"], 1.0, 1.0, ((-4, 4), (-4, 4))) / 64
        assert row["exact"] == pytest.approx(exact)
        assert abs(row["share"] - exact) <= 4 * np.sqrt(exact * (1 - exact) / 6000)
        assert row["volume_interval"] == pytest.approx([64 * end for end in row["interval"]])
    assert len(summary["differences"]) == 2
    assert summary["lane_steps"] == sum(row["lane_steps"] for row in summary["rows"]) > 0


def test_the_directory_holds_everything(study):
    names = {path.name for path in study.record.path.iterdir()}
    assert names == {"run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf"}
    dataset = study.record.dataset
    rows = study.record.summary["rows"]
    for outcome in ("converged", "diverged", "cycling", "undecided", "nonfinite"):
        assert dataset["counts"].sel(outcome=outcome).values.tolist() == [row["counts"][outcome] for row in rows]
    assert dataset["histogram"].sum("bin").values.tolist() == dataset["counts"].values.tolist()
    assert dataset.attrs["provenance"]["seed"] == 0


def test_a_complete_run_is_read_back_and_another_is_refused(study):
    again = basin.run(dataclasses.replace(SMALL, out=study.record.path))
    assert not again.fresh
    assert again.record.summary == study.record.summary
    for change in ({"seed": 1}, {"samples": 7000}, {"chunk": 512}, {"loss": options.Scalar(scale=0.5)}):
        with pytest.raises(records.RunError, match=f"differs in {next(iter(change))}"):
            basin.run(dataclasses.replace(SMALL, out=study.record.path, resume=True, **change))


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for flags in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(records.RunError, match="holds files, but no run"):
            basin.run(dataclasses.replace(SMALL, out=tmp_path, **flags))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_the_chunk_changes_no_count(study, tmp_path):
    other = basin.run(dataclasses.replace(SMALL, chunk=6000, out=tmp_path / "run"))
    assert other.record.summary["rows"] == study.record.summary["rows"]
    assert other.record.summary["differences"] == study.record.summary["differences"]


@pytest.mark.usefixtures("unrendered")
def test_damaged_and_missing_parts_are_run_again_and_no_others(study, tmp_path, monkeypatch):
    asked = dataclasses.replace(SMALL, out=tmp_path / "run")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(figures, "save", full)
        with pytest.raises(records.RunError, match=r"no room.*--resume"):
            basin.run(asked)
    parts = sorted((tmp_path / "run" / "parts").iterdir())
    assert len(parts) == 6
    content = bytearray(parts[2].read_bytes())
    content[len(content) // 2] ^= 4
    parts[2].write_bytes(content)
    parts[4].unlink()
    committed = []
    commit = records.Record.commit

    def note(record, number, **arrays):
        committed.append(number)
        commit(record, number, **arrays)

    monkeypatch.setattr(records.Record, "commit", note)
    resumed = basin.run(dataclasses.replace(asked, resume=True))
    assert committed == [2, 4]
    assert_same(resumed.record, study.record)


def test_a_part_of_another_layout_is_not_believed(tmp_path, monkeypatch):
    """Not damaged, but not of this run: its file was copied here."""
    asked = dataclasses.replace(SMALL, out=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(counting, "summarise", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            basin.run(asked)
    parts = tmp_path / "run" / "parts"
    (parts / "00000000.npz").write_bytes((parts / "00000001.npz").read_bytes())
    with pytest.raises(ValueError, match="belongs to another run"):
        basin.run(dataclasses.replace(asked, resume=True))


@pytest.mark.usefixtures("unrendered")
def test_sampling_stops_once_the_intervals_are_narrow(study, tmp_path):
    asked = dataclasses.replace(SMALL, samples=100_000, width=0.05, out=tmp_path / "run")
    summary = basin.run(asked).record.summary
    stopped = summary["sequential"]
    assert all(stopped["reached"])
    assert max(stopped["widths"]) <= 0.05
    assert summary["samples"] < 20_000
    assert summary["samples"] % 1024 == 0
    for row in summary["rows"]:
        assert row["interval"][0] <= row["exact"] <= row["interval"][1]
        assert row["interval"][1] - row["interval"][0] == pytest.approx(
            stopped["widths"][summary["rows"].index(row)], rel=1e-9
        )
    assert study.record.summary["sequential"] is None


@pytest.mark.usefixtures("unrendered")
def test_a_width_out_of_reach_is_said_with_what_was_reached(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(process, "configure", lambda _: None)
    line = (
        f"basin --step-sizes 0.2:0.6:3 --samples 6000 --chunk 1024 --max-steps 1500 --width 0.001 --out {tmp_path}/run"
    )
    assert main(line.split()) == 0
    said = capsys.readouterr().out
    assert "the budget ended before 2 of 3 intervals were at most 0.001 wide; the widest has 0.03" in said
    assert records.load(tmp_path / "run").summary["samples"] == 6000


def test_the_table(study, capsys, monkeypatch):
    monkeypatch.setattr(process, "configure", lambda _: None)
    line = f"basin --step-sizes 0.2:0.6:3 --samples 6000 --chunk 1024 --max-steps 1500 --out {study.record.path}"
    assert main([*line.split(), "--box", "-4", "4", "-4", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "loss:scalar (depth 2, target 1, scale 1), gradient descent"
    assert lines[2].split("  ")[0] == "step size"
    row = study.record.summary["rows"][0]
    assert lines[3].split()[:5] == ["0.2", *(f"{x:.6f}" for x in (row["share"], *row["interval"], row["exact"]))]
    assert "critical step size: 0.5" in lines
    assert "nothing was computed" in lines[-1]


def exact_share(asked, step_size):
    loss, dim = building.build_loss(asked.loss)
    return distributions.exact_share(asked, known(loss), dim, step_size)


@pytest.mark.parametrize(
    ("change", "dim"),
    [
        ({}, 2), ({"box": (-1.0, 3.0, 0.0, 2.5)}, 2), ({"distribution": "ball", "radius": 5.0}, 2),
        ({"distribution": "gaussian", "loss": options.Vector(dim=3, target=2.0, scale=0.25), "spread": 1.5}, 6),
        ({"loss": options.Vector(dim=2, scale=1.0)}, 4),
    ],
)  # fmt: skip
def test_exact_shares_against_the_sign_of_the_energy(change, dim):
    """No orbit is run: where E < 0 the theory says that it converges."""
    asked = dataclasses.replace(options.Basin(samples=100_000, seed=1), **change)
    loss, size = building.build_loss(asked.loss)
    assert size == dim
    source, _ = distributions.build_source(asked, loss, dim, np.float64)
    points = np.asarray(eqx.filter_jit(source)(jnp.arange(asked.samples)))
    target, scale = loss.target, loss.scale
    step_size = 0.7 * scalar.critical_step(target, scale)
    inside = scalar.trapping_energy(points, step_size, target, scale) < 0
    exact = exact_share(asked, step_size)
    error = np.sqrt(exact * (1 - exact) / len(points)) + 1e-12
    assert abs(inside.mean() - exact) < 4 * error
    assert exact_share(asked, 1.01 * scalar.critical_step(target, scale)) == 0


def test_exact_shares_of_other_distributions():
    plain = exact_share(options.Basin(), 0.3)
    for name in ("sobol", "stratified"):
        assert exact_share(options.Basin(distribution=name), 0.3) == plain
    narrow = options.Basin(distribution="gaussian", spread=0.01)
    assert exact_share(narrow, 0.3) == pytest.approx(1, abs=1e-12)
    wide = options.Basin(distribution="gaussian", spread=1000.0)  # a constant density all over the basin
    density = 1 / (2 * np.pi * 1000.0**2)
    assert exact_share(wide, 0.3) == pytest.approx(density * scalar.basin_area(0.3, 1.0, 1.0), rel=1e-5)
    ball = options.Basin(distribution="ball", radius=5.0)
    assert exact_share(ball, 0.3) == pytest.approx(scalar.basin_area(0.3, 1.0, 1.0) / (25 * np.pi))


@pytest.mark.parametrize(
    "change",
    [
        {"loss": options.Scalar(depth=3)}, {"loss": options.Scalar(target=-1.0)}, {"loss": options.Linear()},
        {"distribution": "xavier"}, {"distribution": "ball", "radius": 1.0},
        {"loss": options.Vector(), "box": (-1.0, 1.0)},
    ],
)  # fmt: skip
def test_nothing_is_called_exact_that_is_not_known(change):
    assert exact_share(dataclasses.replace(options.Basin(), **change), 0.3) is None


@pytest.mark.slow
def test_every_distribution_fits_a_network_of_matrices(tmp_path, monkeypatch):
    """Eight parameters."""
    monkeypatch.setattr(figures, "save", lambda *_, **__: None)
    for name in ("sobol", "stratified", "ball", "gaussian", "xavier", "balanced"):
        asked = options.Basin(
            step_sizes="0.2", samples=2**10, distribution=name, box=(-1.0, 1.0), radius=1.0, cells=(2,), replicates=4,
            max_steps=300, chunk=2**10, out=tmp_path / name, loss=options.Linear(widths=(2, 2, 2)),
        )  # fmt: skip
        summary = basin.run(asked).record.summary
        (row,) = summary["rows"]
        assert sum(row["counts"].values()) == 2**10
        assert 0 < row["interval"][0] < row["share"] < row["interval"][1] <= 1
        assert row["exact"] is None
        assert summary["design"] == {"sobol": "replicates", "stratified": "strata"}.get(name, "independent")
        assert (summary["volume"] is None) == (name in {"gaussian", "xavier", "balanced"})
    setting = counting.prepare(asked)
    points = eqx.filter_jit(setting.source)(jnp.arange(2**10))
    first, second = points.reshape(-1, 2, 2, 2).swapaxes(0, 1)
    np.testing.assert_allclose(second.mT @ second, first @ first.mT, atol=1e-12)
    alone = ensembles.run(gradient_descent(), setting.loss, points, setting.step_sizes[0], setting.stopping)
    assert (alone.outcome == Outcome.CONVERGED).sum() == row["counts"]["converged"]


@pytest.mark.slow
def test_single_precision_counts_nearly_the_same(study, tmp_path):
    found = basin.run(dataclasses.replace(SMALL, precision=32, out=tmp_path / "run")).record.summary
    assert found["provenance"]["dtype"] == "float32"
    for row, wanted in zip(found["rows"], study.record.summary["rows"], strict=True):
        assert abs(row["counts"]["diverged"] - wanted["counts"]["diverged"]) < 250  # other points: 6 standard errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"step_sizes": "0.3:0.1:4"}, "low:high"),
        ({"step_sizes": "-1,2"}, "positive"),
        ({"box": (-4.0, 4.0, 1.0)}, "odd number of values"),
        ({"box": (-4.0, 4.0) * 3}, "2 or 4 numbers"),
        ({"box": (4.0, -4.0)}, "low < high"),
        ({"chunk": 0}, "chunk"),
        ({"confidence": 1.0}, "confidence"),
        ({"width": -0.1}, "width"),
        ({"width": 0.1, "distribution": "sobol"}, "independent points"),
        ({"distribution": "ball", "radius": 0.0}, "radius"),
        ({"distribution": "stratified", "cells": (3, 3, 3)}, "--cells"),
        ({"distribution": "xavier", "loss": options.Rosenbrock()}, "another --distribution"),
        ({"max_steps": -1}, "--max-steps"),
        ({"max_period": 1}, "--max-period"),
    ],
)
def test_bad_input_leaves_no_directory(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        basin.run(dataclasses.replace(SMALL, out=tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def shares(**changes):
    eta = np.array([0.2, 0.4, 0.6])
    converged, zeros = np.array([0.5, 0.2, 0.0]), np.zeros(3)
    picture = figures.Shares(
        eta, converged, np.stack([converged - 0.01, converged + 0.01], axis=1), zeros, zeros, 0.95,
        np.array([0.49, 0.21, 0.0]), (eta, converged), 0.5,
    )  # fmt: skip
    return picture._replace(**changes)


def labels(figure):
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_the_figure_shows_what_is_there_and_nothing_else():
    plain = {"exact", "converges, with its 95 % interval", r"critical step $\eta_C = 0.5$"}
    assert labels(figures.draw_basin(shares())) == plain
    more = figures.draw_basin(shares(cycling=np.array([0, 0, 0.1]), undecided=np.array([0, 0.1, 0])))
    assert labels(more) == plain | {"ends in a cycle", "undecided at the last update"}
    unknown = figures.draw_basin(shares(exact=np.full(3, np.nan), curve=None, critical_step=None))
    assert labels(unknown) == {"converges, with its 95 % interval"}
    assert len(unknown.axes) == 1
    assert len(labels(figures.draw_basin(shares(critical_step=2.0)))) == 2


@pytest.mark.usefixtures("unrendered")
def test_the_figure_of_a_single_step_size(tmp_path):
    asked = dataclasses.replace(SMALL, step_sizes="0.2", out=tmp_path / "run")
    record = basin.run(asked).record
    assert record.summary["differences"] == []
    assert len(show.draw(record)["figure"].axes) == 2
