"""Every numbered statement is registered, comes to the verdict that is known, and nothing that goes wrong is hidden."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import claims, records
from gdstab.claims import problems, registry, report
from gdstab.claims.registry import ClaimError, Finding, Verdict, judge
from gdstab.cli import main

HOLDS, CORRECTED, FAILS = "holds", "holds as corrected", "fails: counterexample"
OPEN, NOT_TESTABLE = "open: evidence", "not testable: reason"

EXPECTED = {
    "A.thm7": CORRECTED, "A.rem8": CORRECTED, "A.thm9": CORRECTED, "A.thm10": CORRECTED, "A.thm12": FAILS,
    "A.cor13": FAILS, "A.def14": CORRECTED, "A.thm15": CORRECTED, "A.thm16": CORRECTED, "A.cor17": FAILS,
    "A.thm20": HOLDS, "A.rem21": CORRECTED, "A.appA1": CORRECTED, "A.appB": CORRECTED, "A.prop2": CORRECTED,
    "A.prop27": NOT_TESTABLE, "A.prop34": CORRECTED, "A.fig1a": HOLDS, "A.fig1b": HOLDS, "A.contrib3": FAILS,
    "A.open1": OPEN, "A.open2": OPEN, "A.open3": OPEN, "A.open4": OPEN, "A.open5": OPEN,
    "A.attractors": OPEN, "A.cascade": HOLDS, "A.flip": HOLDS, "A.catapult": HOLDS, "A.momentum": HOLDS,
    "B.lem2.3": HOLDS, "B.prop1": HOLDS, "B.prop2": CORRECTED, "B.prop3": CORRECTED, "B.prop4": CORRECTED,
    "B.prop5": CORRECTED, "B.lem3.2": HOLDS, "B.rem4": CORRECTED, "B.conj": OPEN,
    "D.appB": HOLDS, "D.prop20": HOLDS,
    "D.thm2": HOLDS, "D.thm3": CORRECTED, "D.cor4": HOLDS, "D.lem5": HOLDS, "D.prop6": HOLDS, "D.lem7": HOLDS,
    "D.prop8": HOLDS, "D.lem9": HOLDS, "D.prop10": HOLDS, "D.lem11": HOLDS, "D.prop12": HOLDS, "D.prop14": HOLDS,
    "D.proc13": HOLDS, "D.thm15": NOT_TESTABLE, "D.cor18": NOT_TESTABLE, "D.lem21": HOLDS, "D.prop22": HOLDS,
    "D.lem23": HOLDS, "D.prop24": HOLDS, "D.lem31": HOLDS, "D.thm32": NOT_TESTABLE,
    "C.thm1.2": HOLDS, "C.lem4.2": HOLDS, "C.lem4.3": CORRECTED, "C.lem4.4": HOLDS, "C.prop4.5": HOLDS,
    "C.lem4.6": HOLDS, "C.thm4.7": HOLDS, "C.prop4.8": HOLDS, "C.lem5.1": HOLDS, "C.lem5.2": HOLDS,
    "C.lem5.3": HOLDS, "C.thm5.4": HOLDS, "C.cor5.5": CORRECTED, "C.lem6.1": HOLDS,
    "C.thm1.1": HOLDS, "C.thm2.2": HOLDS, "C.cor2.3": HOLDS, "C.lem2.4": NOT_TESTABLE, "C.prop2.5": HOLDS,
    "C.sec3": HOLDS, "C.sec3.1": HOLDS, "C.sec3.2": HOLDS, "C.sec3.3": CORRECTED,
    "E.thm5": FAILS, "E.cor6": FAILS, "E.main": CORRECTED, "E.prop9": NOT_TESTABLE, "E.thm17": CORRECTED,
    "E.prop18": CORRECTED,
    "E.exp1": FAILS, "E.exp2": HOLDS, "E.exp3": HOLDS,
}  # fmt: skip

FAST = "A.cor13", "A.thm20", "A.appA1", "A.prop27", "A.open4", "C.lem2.4", "B.rem4", "E.thm17"  # all five verdicts
OTHERS = "A.thm12", "A.contrib3", "A.def14", "A.rem21", "A.thm7", "C.cor2.3", "B.prop3"


@pytest.fixture
def extra():
    """Register claims for one test only."""
    before = dict(registry._CLAIMS)
    yield registry.claim
    registry._CLAIMS.clear()
    registry._CLAIMS.update(before)


def test_every_statement_is_registered():
    assert {each.id for each in claims.registered()} == set(EXPECTED)
    for each in claims.registered():
        assert each.statement.endswith((".", "?")), each.id
        assert each.source, each.id


def test_every_claim_carries_the_verdict_that_is_known():
    assert {each.id: each.expected for each in claims.registered()} == EXPECTED


@pytest.mark.usefixtures("process_as_it_was")
def test_a_verdict_that_is_not_the_known_one_is_told(extra, tmp_path, capsys):
    """On the command line, in the report, in the exit code; read back and resumed too."""
    found, ran = {"Z.one": Verdict.FAILS, "Z.two": ZeroDivisionError, "Z.new": Verdict.OPEN}, []
    for name, expected in (("Z.one", Verdict.HOLDS), ("Z.two", Verdict.HOLDS), ("Z.new", None)):

        def test(key, name=name):
            ran.append(name)
            if not isinstance(found[name], Verdict):
                raise found[name]
            return Finding(found[name], {"x": 1.0})

        extra(name, source="0", statement="Zero.", expected=expected)(test)
    out = str(tmp_path / "run")
    for _ in range(2):
        assert main(["claims", "--paper", "Z", "--out", out]) == 1
        assert "Z.one: fails: counterexample, but expected: holds\nZ.two: ZeroDivisionError" in capsys.readouterr().out
    assert ran == ["Z.one", "Z.two", "Z.new"]  # once
    text = (tmp_path / "run" / "report.md").read_text()
    assert "Not as expected: Z.one, Z.two." in text
    assert "**Expected: holds.**" in text
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["unexpected"] == ["Z.one", "Z.two"]
    found |= {"Z.one": Verdict.HOLDS, "Z.two": KeyboardInterrupt}
    assert main(["claims", "--paper", "Z", "--out", out, "--overwrite"]) == 130
    found["Z.two"] = Verdict.HOLDS
    assert main(["claims", "--paper", "Z", "--out", out]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["claims", "--paper", "Z", "--out", out, "--resume"]) == 0
    assert ran[3:] == ["Z.one", "Z.two", "Z.two", "Z.new"]
    with pytest.raises(ValueError, match=r"Did you mean Z\.one"):
        claims.run_report(only="Z.onn", out=out)


def test_a_claim_that_is_stopped_goes_on_behind_its_last_piece(extra, tmp_path):
    """Another claim finds the pieces as well; with a directory or without, the rows are the same."""
    computed, stop = [], [True]

    def piece(number, shape):
        computed.append(number)
        if number == 1 and stop:
            raise KeyboardInterrupt
        return {"points": jnp.arange(6.0).reshape(shape) / 7, "last": np.float32(number) / 3, 2: [("a", None, 0.1)]}

    def test(key):
        pieces = [registry.kept(piece, number, (2, 3)) for number in range(3)]
        assert all(type(each["points"]) is np.ndarray and type(each["last"]) is np.float32 for each in pieces)
        return Finding(Verdict.HOLDS, {str(number): each for number, each in enumerate(pieces)})

    extra("Z.one", source="1", statement="One.")(test)
    extra("Z.two", source="2", statement="Two.")(test)
    with pytest.raises(KeyboardInterrupt):
        claims.run_report(paper="Z", out=tmp_path)
    stop.clear()
    rows = claims.run_report(paper="Z", out=tmp_path, resume=True)
    assert computed == [0, 1, 1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "summary.json", "claims.json", "report.md"}
    for row, other in zip(rows, claims.run(paper="Z"), strict=True):
        assert row | {"seconds": 0} == other | {"seconds": 0}
        assert row["numbers"]["1"]["2"] == [["a", None, 0.1]]


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(TypeError, match="cannot hold set"):
        registry.kept(set)


def test_a_full_disk_is_no_fault_of_the_claim(extra, tmp_path, monkeypatch):
    def full(*_, **__):
        raise records.RunError("no room")

    extra("Z.one", source="1", statement="One.")(lambda _: Finding(Verdict.HOLDS, registry.kept(dict)))
    monkeypatch.setattr(records.Record, "commit", full)
    with pytest.raises(records.RunError, match="no room"):
        claims.run_report(only="Z.one", out=tmp_path)


def test_claims_keep_to_a_directory_of_their_own(extra, tmp_path):
    extra("Z.one", source="0", statement="Zero.")(lambda _: Finding(Verdict.HOLDS, {"x": 1.0}))
    (tmp_path / "claims.json").write_text("mine")
    with pytest.raises(ValueError, match="holds files, but no run"):
        claims.run_report(only="Z.one", out=tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["claims.json"]
    claims.run_report(only="Z.one", out=tmp_path / "a")
    with pytest.raises(ValueError, match="differs in only"):
        claims.run_report(only=["A.thm20"], out=tmp_path / "a")


def test_verdicts_are_the_five():
    assert {str(verdict) for verdict in Verdict} == {HOLDS, CORRECTED, FAILS, OPEN, NOT_TESTABLE}


def test_a_verdict_follows_from_the_checks():
    assert judge(True, corrected=True) == HOLDS
    assert judge(False, corrected=True) == CORRECTED
    assert judge(False) == FAILS
    with pytest.raises(ClaimError, match="its repair fails as well"):
        judge(False, corrected=False)


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_fast_claims_come_to_the_known_verdict(name):
    [row] = claims.run(only=name)
    assert row.get("error") is None
    assert (row["id"], row["verdict"]) == (name, EXPECTED[name])
    assert row["numbers"]
    assert row["seconds"] > 0
    json.dumps(row, allow_nan=False)


def test_the_counterexample_lies_on_the_minima():
    target, loss = problems.small_problem(jax.random.key(1))
    del target
    path = problems.vanishing_path(jax.random.key(1), [1.0, 1e3])
    assert path[1, 0] > 1e3  # the norm
    assert 0 < path[1, 1] < 1e-5  # the least positive eigenvalue
    assert loss.scale == 1.0


def test_positive_spectrum_is_that_of_the_hessian(key):
    target, loss = problems.small_problem(key)
    theta = jax.tree.map(lambda leaf: leaf[0], problems.random_minima(key, target, (2, 2, 2), 1))
    exact = problems.spectra(loss, jax.tree.map(lambda leaf: leaf[None], theta))[0, -4:]
    np.testing.assert_allclose(problems.positive_spectrum(loss, theta), exact, rtol=1e-9)


@pytest.mark.slow
def test_shares_across_the_critical_step():
    _, ratios, shares, weak = claims.a.dynamics.transition()
    converged = np.array([row["share"] for row in shares["converged"]])
    assert (converged[ratios < 1] > 0.98).all()
    assert (converged[ratios > 1] == 0).all()
    assert (weak < 2).all()
    assert all(
        0 < row["interval"][1] < 0.01 for row, ratio in zip(shares["converged"], ratios, strict=True) if ratio > 1
    )


def test_what_raises_is_reported_and_stops_nothing(extra, tmp_path):
    def broken(key):
        raise RuntimeError("lost")

    def undrawable(key):
        return Finding(Verdict.HOLDS, {"x": jnp.array([1.0, jnp.inf]), "y": np.float64(2)}, "", lambda: 1 / 0)

    extra("Z.one", source="1", statement="One.")(broken)
    extra("Z.two", source="2", statement="Two.")(undrawable)
    rows = claims.run_report(paper="Z", out=tmp_path)
    assert rows[0]["error"] == "RuntimeError: lost"
    assert rows[0]["verdict"] is None
    assert "ZeroDivisionError" in rows[1]["error"]
    assert rows[1]["numbers"] == {"x": [1.0, "inf"], "y": 2.0}
    assert claims.exit_code(rows) == 1
    assert json.loads((tmp_path / "claims.json").read_text()) == rows
    assert "ERROR" in (tmp_path / "report.md").read_text()
    with pytest.raises(ValueError, match="registered twice"):
        extra("Z.one", source="1", statement="One.")(broken)


def test_report_files(tmp_path):
    seen = []
    rows = claims.run_report(only=["A.thm12", "A.thm20"], out=tmp_path / "new", on_row=seen.append)
    assert seen == rows
    assert claims.exit_code(rows) == 0
    assert [row["id"] for row in json.loads((tmp_path / "new" / "claims.json").read_text())] == ["A.thm12", "A.thm20"]
    text = (tmp_path / "new" / "report.md").read_text()
    assert "![A.thm12](A.thm12.png)" in text
    assert "Verdict: fails: counterexample." in text
    assert (tmp_path / "new" / "A.thm12.png").stat().st_size > 5000
    assert claims.run_report(only="A.thm20")[0]["verdict"] == HOLDS  # without a directory nothing is written


def test_wrong_names_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"Did you mean A\.thm20"):
        claims.run(only="A.thm21")
    with pytest.raises(ValueError, match="the papers are A, B, C, D, E"):
        claims.run(paper="Q")
    with pytest.raises(ValueError, match="belongs to paper B"):
        claims.run(paper="B", only="A.thm12")


def test_cells_of_the_report():
    assert report._short([True, 0.5, None]) == "[True, 0.5, None]"
    assert report._cell("|x|") == r"\|x\|"


@pytest.mark.slow
def test_all_claims(tmp_path):
    rows = claims.run_report(out=tmp_path)
    assert {row["id"]: row["verdict"] for row in rows} == EXPECTED
    assert claims.exit_code(rows) == 0
