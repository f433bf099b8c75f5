"""The measure of the converging set: counts against a loop and the exact share, and checks that can fail."""

import jax
import numpy as np
import pytest

from gdstab import claims, figures, sampling
from gdstab.claims import e as paper_e
from gdstab.claims.a import measure as measured
from gdstab.claims.registry import ClaimError, Verdict

pytestmark = pytest.mark.optimised

NUM, NAMES = 1024, ("xy",)


@pytest.fixture(scope="module")
def tables():
    return {name: measured.table(name, NUM) for name in NAMES}


def loop(points, step_size, num_steps):
    """Descent on (1/2)(1 - xy)^2 in NumPy: who is within 1e-9 of the minima at two steps in a row."""
    x, y = points.T.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(num_steps):
            residual = 1 - x * y
            x, y = x + step_size * residual * y, y + step_size * residual * x
        return (abs(residual) < 1e-9) & (abs(1 - x * y) < 1e-9)


@pytest.mark.parametrize("ratio", [0.5, 0.95, 1.05])
def test_counts_are_those_of_a_loop(tables, ratio):
    [row] = [row for row in tables["xy"].rows if row.ratio == ratio]
    assert row.step_size == pytest.approx(ratio)  # eta_C is 1
    points = np.asarray(sampling.box(jax.random.key(57), NUM, ((-2, 2), (-2, 2))))
    assert row.minima == loop(points, row.step_size, 6000).sum()


def test_every_point_is_counted_once(tables):
    for found in tables.values():
        for row in found.rows:
            assert row.minima + row.undecided + sum(row.elsewhere.values()) == row.samples == NUM


def test_the_share_drops_to_nothing_at_the_critical_step(tables):
    for found in tables.values():
        assert measured.dichotomy(found.rows)
        last, first = found.rows[3:5]
        assert (last.ratio, first.ratio) == (0.99, 1.01)
        assert last.interval[0] > 0.2
        assert first.interval[0] == 0
        assert first.interval[1] < 0.005
        assert last.at_most is None
        assert first.elsewhere["cycling"] > 0.9 * last.minima  # they stay, and do not come to rest


def test_the_network_has_the_critical_step_of_its_target():
    target = np.random.default_rng(0).standard_normal((2, 2)) / np.sqrt(2)
    largest = np.linalg.svd(target, compute_uv=False)[0]
    found = measured.critical_step(measured.CASES["linear network 2-2-2"].loss)
    assert found == pytest.approx(1 / (2 * 0.5 * largest), rel=1e-12)


def test_weight_decay_has_the_critical_step_of_its_minima():
    # L = (1/2)(1 - xy)^2 + (d/2)(x^2 + y^2) has x = y = sqrt(1 - d), and along (1, 1) the eigenvalue 2 (1 - d).
    loss = measured.CASES["xy with weight decay"].loss
    assert measured.critical_step(loss) == pytest.approx(1 / (1 - loss.decay), rel=1e-9)


def row(ratio=1.05, minima=0, undecided=0, samples=1000, exact=None):
    rest = {"diverged": samples - minima - undecided}
    return measured.Row(ratio, ratio, samples, minima, undecided, rest, exact)


@pytest.mark.parametrize(
    ("rows", "holds"),
    [
        ([row(0.9, 500), row(1.1)], True),
        ([row(0.9, 500), row(1.1, 1)], False),  # one point too many
        ([row(0.9, 500), row(1.1, 0, 5)], False),  # not known
        ([row(0.9, 0), row(1.1)], False),
        ([row(0.9, 0, 500), row(1.1)], False),
        ([row(0.9, 500)], False),
        ([row(1.1)], False),
    ],
)
def test_the_dichotomy_can_fail(rows, holds):
    assert measured.dichotomy(rows) is holds


def test_exact_shares_are_compared(tables):
    rows = tables["xy"].rows
    assert all(each.exact is not None for each in rows)
    assert measured.fits_theory(rows)
    assert not measured.fits_theory([row(0.9, 500, exact=0.6)])
    assert not measured.fits_theory([row(1.1, 2, exact=0.0)])
    assert measured.fits_theory([row(0.9, 500, 100, exact=0.6)])  # the undecided may be the rest
    assert not measured.fits_theory([row(0.9, 500, 100, exact=0.4)])


def test_intervals_count_the_undecided_in():
    assert row(0.9, 300, 100).interval == pytest.approx((0.2717, 0.4311), abs=2e-4)
    assert row().at_most == pytest.approx(3 / 1000, rel=2e-3)
    assert row().interval[1] > row().at_most  # two-sided
    assert row(undecided=1).at_most is None


def test_chaotic_orbits_pass_by_the_minima():
    shares = measured.passing_by(num=300, num_steps=500)
    values = list(shares.values())
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9  # at a loss of 1e-4 nearly all would be counted as converged
    assert values[-1] == 0


def test_the_claims_come_to_their_verdicts(tables):
    claim = measured.measure_of_the_converging_set(None, NUM, NAMES)
    restated = paper_e.converging_set_is_null(None, NUM, NAMES)
    assert claim.verdict == restated.verdict == Verdict.CORRECTED
    assert claim.numbers["xy: share of the box"] == [each.share for each in tables["xy"].rows]
    assert restated.numbers["2-2-2 at the largest eta: eta times a positive eigenvalue on M (below 2: eta < eta_E)"] < 2
    assert {"A.thm16", "E.main"} <= {each.id for each in claims.registered()}


def test_a_claim_whose_numbers_are_wrong_has_no_verdict(tables, monkeypatch):
    found = tables["xy"]
    converging = found.rows[4]._replace(minima=1)
    wrong = found._replace(rows=(*found.rows[:4], converging, *found.rows[5:]))
    monkeypatch.setattr(measured, "table", lambda *_: wrong)
    monkeypatch.setattr(measured, "fits_theory", lambda _: True)
    with pytest.raises(ClaimError, match="its repair fails as well"):
        measured.measure_of_the_converging_set(None, NUM, ("xy",))


def test_the_figure(tables, tmp_path):
    figure = measured.draw(tables)
    top, bottom = figure.axes
    assert bottom.get_yscale() == "log"
    assert "eta_C" in bottom.get_xlabel()
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["$xy$"]
    png, _ = figures.save(figure, tmp_path)
    assert png.stat().st_size > 5000
