"""The studies of linear networks at small sizes: the overfitting conjecture, critical step sizes, spectra."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from gdstab import figures, records
from gdstab.cli import main
from gdstab.outcomes import Outcome
from gdstab.studies import building, critical, options, overfitting, spectrum
from gdstab.studies.critical import study as critical_study
from gdstab.studies.overfitting import endings, lingering
from gdstab.studies.overfitting import study as measured
from gdstab.studies.overfitting.units import units
from gdstab.studies.work import Needs, Work
from gdstab.theory import factorisations, known, linear, strata

SMALL = options.Overfitting(
    hidden_layers=(1,), datasets=1, starts=1000, flow_starts=6, special_starts=5, lingering_starts=6,
    lingering_spreads=(0.1, 0.01),
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "overfitting"
    return overfitting.run(dataclasses.replace(SMALL, out=out))


@pytest.mark.slow
def test_no_random_start_ends_at_a_saddle_and_special_ones_do_and_linger(study):
    summary = study.record.summary
    pooled = {row["rule"]: row for row in summary["rows"] if row["data"] == "all"}
    assert pooled["descent"]["counts"] == {**dict.fromkeys(pooled["descent"]["counts"], 0), "{1,2,3}": 1000}
    assert (pooled["flow"]["runs"], pooled["flow"]["share"]) == (6, 1.0)
    for row in pooled.values():
        assert row["undecided"] == row["diverged"] == row["unidentified"] == row["loss_and_product_disagree"] == 0
        assert row["saddles"] == 0
        assert row["saddle"]["wilson"][0] == 0 < row["saddle"]["clopper_pearson"][1]
    assert pooled["descent"]["saddle"]["clopper_pearson"][1] == pytest.approx(1 - 0.025 ** (1 / 1000))
    for row in summary["special"]:
        assert row["ended_as_expected"] == row["runs"] == row["saddles"], row["set"]
        assert row["nudged"]["share"] == 1.0, row["set"]
    assert len(summary["special"]) == 7 + 1 + 2
    near = {(row["data"], row["spread"], row["fitted"]): row for row in summary["lingering"]}
    assert near[0, 0.01, "{}"]["median"] > 3 * near[0, 0.1, "{}"]["median"]  # longer from smaller starts
    assert near[0, 0.01, "{}"]["visits"] == 6
    names = {path.name for path in study.record.path.iterdir()}
    assert names == {"run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf"}
    dataset = records.load(study.record.path).dataset
    assert dataset["descent_stratum"].shape == (1, 1, 1000)
    assert (dataset["descent_stratum"] == 7).all()
    assert not overfitting.run(dataclasses.replace(SMALL, out=study.record.path)).fresh


@pytest.mark.slow
def test_an_interrupted_study_goes_on(study, tmp_path, monkeypatch):
    asked = dataclasses.replace(SMALL, out=tmp_path / "run")

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(measured._WORK, "lingering", fail)
        with pytest.raises(KeyboardInterrupt):
            overfitting.run(asked)
    seen = []
    resumed = overfitting.run(dataclasses.replace(asked, resume=True), progress=lambda *_: seen.append(1))
    assert not seen  # the random starts were on disk
    for name in ("rows", "special", "lingering"):
        assert resumed.record.summary[name] == study.record.summary[name]


@pytest.mark.parametrize("kept", [0, 1, 5, 30])
def test_random_starts_are_cut_anew_behind_what_is_kept(kept, tmp_path, monkeypatch):
    """Parts that are kept, of whatever length, are not done again; the rest joins on to them."""
    asked = dataclasses.replace(SMALL, hidden_layers=(1, 2), out=tmp_path)
    done = []

    def descent(options, target, unit, dtype, progress):
        done.append(unit)
        return {"stratum": np.arange(*unit.span)}

    def other(options, target, unit, dtype, progress):
        done.append(unit)
        return {"name": np.array([unit.kind])}

    made = {kind: descent if kind == "descent" else other for kind in measured._WORK}
    monkeypatch.setattr(measured, "_WORK", made)
    setting = measured.Setting([[None] * asked.datasets] * 2, np.dtype(float), Needs())
    record = records.begin(tmp_path, {})
    whole = measured.gather(asked, setting, Work(record))
    for number in range(kept, len(done)):
        (tmp_path / "parts" / f"{number:08d}.npz").unlink()
    before = len(done)
    again = measured.gather(asked, setting, Work(record))
    assert not set(done[:kept]) & set(done[before:])
    for parts in (whole, again):
        assert list(parts) == list(units(asked))
        for unit, part in parts.items():
            if unit.kind == "descent":
                np.testing.assert_array_equal(part["stratum"], np.arange(asked.starts // asked.datasets))
            else:
                assert part["name"] == unit.kind


@pytest.mark.slow
def test_strata_are_identified_from_exact_critical_points(key):
    widths = (4, 3, 3)
    target = endings.draw_target(widths, 0, 0, np.dtype(float))
    assert np.diff(target.singular_values).max() < -0.09
    for number, fitted in enumerate(target.fitted):
        theta = strata.critical_point(jax.random.fold_in(key, number), target.map, widths, fitted)
        loss = np.array([float(target.loss(theta))])
        one = tuple(np.asarray(layer)[None] for layer in theta)
        assert endings.identify(target, one, loss, np.array([Outcome.CONVERGED])).stratum.tolist() == [number]
        off = (one[0] * 1.1, one[1])
        found = endings.identify(target, off, loss, np.array([Outcome.CONVERGED]))
        assert found.stratum.tolist() == [endings.UNIDENTIFIED if fitted else number]
        gone = endings.identify(target, one, loss, np.array([Outcome.UNDECIDED])).stratum
        assert gone.tolist() == [endings.UNDECIDED]


def test_a_bottleneck_has_its_own_minimum():
    target = endings.draw_target((3, 2, 3), 1, 0, np.dtype(float))
    assert target.fitted[target.minimum] == (0, 1)
    assert target.loss.loss_floor == pytest.approx(0.5 * target.singular_values[2] ** 2)


def test_time_near_a_level_of_a_known_curve():
    times = np.linspace(0, 10, 1001)
    walks = lingering.Walks((), np.ones(1), times[-1:], times, (2 - 0.2 * times)[None], np.ones((1, 1001)))
    spent, least = lingering.time_near(walks, np.array([0.0, 1.0, 3.0]), 0.1)
    np.testing.assert_allclose(spent[0], [0.5, 1.0, 0.0], atol=1e-6)
    assert least[0, 1] == 1
    assert np.isnan(least[0, 2])


@pytest.mark.parametrize(
    "change", [{"starts": 0}, {"hidden_layers": (0,)}, {"band": 0.7}, {"spread": 0.0}, {"hidden_layers": ()}]
)
def test_bad_options_leave_no_directory(change, tmp_path):
    with pytest.raises(ValueError, match=r"takes|expected"):
        overfitting.run(dataclasses.replace(SMALL, out=tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_figure_1b(tmp_path):
    asked = options.Critical(
        samples=2000, starts=1, step_sizes="0.2:0.6:3", resolution=(60, 60), max_steps=500, out=tmp_path / "run"
    )
    summary = critical.run(asked).record.summary
    assert summary["critical_step"] == pytest.approx(0.5, rel=1e-9)
    assert summary["exact_critical_step"] == 0.5
    for row in summary["rows"]:
        assert row["trapped"] == pytest.approx(row["exact_trapped"], abs=0.01)
        assert row["stable_length"] == pytest.approx(row["exact_stable_length"], abs=1e-6)
        assert row["wilson"][0] <= row["share"] <= row["wilson"][1]
    shares = [row["share"] for row in summary["rows"]]
    assert shares[2] == 0 < shares[1]
    assert shares == sorted(shares, reverse=True)
    assert not critical.run(asked).fresh


def test_stable_share_in_a_box_off_the_centre():
    loss, _ = building.build_loss(options.Scalar(scale=1.0))
    box = ((0.25, 3.0), (0.0, 9.0))
    sizes = np.array([0.1, 0.3, 0.45])
    exact = critical_study.exact_curves(known(loss).hyperbola, box, sizes)["stable_length"]
    np.testing.assert_allclose(critical_study.stable_share(loss, 1.0, box, sizes, np.dtype(float)), exact, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [options.Vector(dim=2), options.Linear(widths=(2, 2, 2))])
def test_the_flattest_minimum_of_every_loss_with_a_closed_form(loss, tmp_path):
    asked = options.Critical(samples=50, starts=1, step_sizes="0.1,0.2", loss=loss, out=tmp_path / "run")
    summary = critical.run(asked).record.summary
    assert summary["relative_error"] < 1e-6
    assert summary["thresholds"]["1.0"] <= summary["critical_step"] * (1 + 1e-6)
    assert "trapped" not in summary["rows"][0]


@pytest.mark.slow
def test_sampled_minima_are_minima(tmp_path):
    loss = options.Linear(widths=(3, 2, 3))
    fn, _ = building.build_loss(loss)
    points = building.sample_minima(loss, 5, 1.0, 0, np.dtype(float))
    assert len(points) == 5
    value, residual = jax.jit(jax.vmap(lambda point: (fn(point), fn.residual(point))))(points)
    assert np.asarray(value) == pytest.approx(fn.loss_floor, abs=1e-12)
    assert np.abs(residual).max() < 1e-10
    (tmp_path / "my.py").write_text("def fn(theta):\n    return theta @ theta\n")
    with pytest.raises(ValueError, match="residual"):
        building.sample_minima(options.Custom(f"{tmp_path}/my.py:fn"), 5, 1.0, 0, np.dtype(float))


@pytest.mark.usefixtures("unrendered")
@pytest.mark.slow
def test_spectrum_at_a_balanced_point_is_the_formula(tmp_path):
    loss = options.Linear(widths=(3, 2, 2))
    theta = factorisations.balanced_factorisation(building.teacher(loss), loss.widths)
    start = tuple(np.concatenate([np.ravel(layer) for layer in theta]).tolist())
    asked = options.Spectrum(where="point", start=start, loss=loss, step_sizes=(0.5, 1e6), out=tmp_path / "run")
    study = spectrum.run(asked)
    sigma = np.linalg.svd(building.teacher(loss), compute_uv=False)
    np.testing.assert_allclose(
        study.record.dataset["eigenvalues"][0], linear.balanced_spectrum(sigma, loss.widths), atol=1e-12
    )
    row = study.record.summary["rows"][0]
    assert tuple(row["inertia"]) == linear.minimum_inertia(loss.widths)
    assert row["above"][1] == row["inertia"][2]


@pytest.mark.slow
def test_the_ends_by_lanczos_agree_with_the_dense_spectrum(tmp_path):
    asked = options.Spectrum(
        num_steps=2, every=2, num_matvecs=8, num_probes=2, loss=options.Linear(), out=tmp_path / "dense"
    )
    dense = spectrum.run(asked).record
    sparse = spectrum.run(dataclasses.replace(asked, dense_limit=4, out=tmp_path / "sparse")).record
    for a, b in zip(dense.summary["rows"], sparse.summary["rows"], strict=True):
        assert a["number"] == b["number"]
        assert (a["smallest"], a["largest"]) == pytest.approx((b["smallest"], b["largest"]))
    grid, density = sparse.dataset["eigenvalue"].values, sparse.dataset["density"].values
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_spectra_of_minima(tmp_path):
    asked = options.Spectrum(where="minima", samples=20, loss=options.Vector(), out=tmp_path / "run")
    summary = spectrum.run(asked).record.summary
    assert all(tuple(row["inertia"]) == (0, 3, 1) for row in summary["rows"])


def test_ranges():
    assert options.parse_range("0.1:0.3:2") == [0.1, 0.3]
    for text in ("", "a:b:c", "0.3:0.1:5", "0.1:0.3", "0.1:0.3:1", "0.1:0.3:2.5"):
        with pytest.raises(ValueError, match="low:high:number"):
            options.parse_range(text)


def test_panels_of_the_figures():
    times = np.geomspace(0.01, 100, 50)
    stairs = figures.Staircase(2, 0.01, times, np.exp(-times)[None], {"{}": 1.0, "{1}": 0.4, "{2}": 0.7, "{1,2}": 0.0})
    row = {"hidden_layers": 2, "fitted": "{}", "value": 1.0, "spread": 0.1, "median": 2.0}
    figure = figures.draw_overfitting([stairs], [row, {**row, "spread": 0.01, "median": 5.0}])
    assert [axes.get_title() for axes in figure.axes] == ["(a) two hidden layers", "(b) time near a saddle"]
    density = tuple(np.array([[0.0, 1.0, 2.0], [0.1, 1.0, 0.1], [0.0, 0.1, 0.0]]))
    spectra = figures.Spectra("point", np.zeros(1, int), np.array([[0.0, 2.0]]), np.array([0.5]), density)
    assert len(figures.draw_spectrum(spectra).axes) == 1
    assert len(figures.draw_spectrum(spectra._replace(where="orbit")).axes) == 2


@pytest.mark.usefixtures("process_as_it_was")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(
            "critical --step-sizes 0.1:0.6:3 --samples 50 --starts 2 --resolution 10 10",
            ("critical step size", "0.5"),
            marks=pytest.mark.slow,
        ),
        pytest.param("spectrum --num-steps 3", ("inertia", "18 parameters"), marks=pytest.mark.slow),
    ],
)
def test_commands(line, words, capsys):
    assert main([*line.split(), "--out", "run"]) == 0
    first = capsys.readouterr().out
    assert all(word in first for word in words)
    assert main([*line.split(), "--out", "run"]) == 0
    assert "complete already" in capsys.readouterr().out
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["provenance"]["dtype"] == "float64"
    if line.startswith("critical"):
        assert summary["relative_error"] < 1e-6
        assert summary["thresholds"]["1.0"] <= summary["critical_step"] * (1 + 1e-6)
        for row in summary["rows"]:
            assert row["stable_length"] == pytest.approx(row["exact_stable_length"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("process_as_it_was")
def test_the_overfitting_command_prints_a_complete_run(study, capsys):
    line = (
        "overfitting --hidden-layers 1 --datasets 1 --starts 1000 --flow-starts 6 --special-starts 5 "
        "--lingering-starts 6 --lingering-spreads 0.1 0.01 --out"
    )
    assert main([*line.split(), str(study.record.path)]) == 0
    out = capsys.readouterr().out
    for words in ("global minimum", "identical neurons", "least gradient", "complete already"):
        assert words in out


@pytest.mark.usefixtures("process_as_it_was")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("critical --step-sizes 3:1:2", "low:high:number"),
        ("critical --step-sizes=-1:1:2", "positive"),
        ("spectrum --start 1 2", "18 parameters"),
        ("spectrum --num-probes 1", "--num-probes"),
        ("overfitting --datasets 0", "datasets"),
    ],
)
def test_bad_commands_end_with_one_message(line, message, capsys):
    command, *words = line.split()
    assert main([command, "--out", "run", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
