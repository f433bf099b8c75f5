"""Past and at the threshold: the claims at small sizes, against NumPy and mpmath, and checks that can fail."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gdstab import claims, figures
from gdstab.claims.a import at_threshold as at
from gdstab.claims.a import past_threshold as past
from gdstab.claims.registry import ClaimError, Verdict
from gdstab.theory import catapult, symmetric_line

KEY = jax.random.key(5)
REDUCED, STARTS, STEPS = (1.1, 1.5, 1.9), 120, 2000


@pytest.fixture(scope="module")
def rows():
    return past.evidence(REDUCED, STARTS, STEPS)


@pytest.fixture(scope="module")
def attractors(rows):
    del rows
    return past.attractors_past_the_threshold(None, STARTS, STEPS, REDUCED)


@pytest.fixture(scope="module")
def cascade():
    return past.cascade_on_the_symmetric_line(None, count=5, starts=8, num_steps=4000)


@pytest.fixture(scope="module")
def momentum():
    return at.thresholds_of_optimisers(KEY, (12, 4), ("heavy-ball", "adam"))


def test_they_are_registered():
    names = {each.id for each in claims.registered("A")}
    assert {"A.attractors", "A.cascade", "A.flip", "A.catapult", "A.momentum"} <= names


@pytest.mark.slow
def test_bounded_orbits_are_those_of_a_loop(rows):
    """The same random square as in `basins.collapse`, iterated here in NumPy."""
    k = REDUCED[0]
    reach = np.sqrt((2 * (2 + k) + 2 * (2 - k)) / k / 2)
    points = np.random.default_rng(0).uniform(-reach, reach, (STARTS, 2))
    for row in rows:
        x, y = points.T
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(3000):
                pull = row["reduced"] * (1 - x * y)
                x, y = x + pull * y, y + pull * x
        bounded = np.abs(x) + np.abs(y) < 10
        assert bounded.sum() == row["bounded"]
        assert np.abs(x - y)[bounded].max() < 1e-9
        assert np.abs(1 - x * y)[bounded].max() > 1e-3


@pytest.mark.slow
def test_regimes_and_exponents_across_the_line(rows):
    doubled, *chaotic = rows
    assert doubled["periods"] == {"2": doubled["bounded"]}
    np.testing.assert_allclose(doubled["across"], 0.5 * np.log(3 - 2 * REDUCED[0]), rtol=1e-9)
    for row in chaotic:
        assert row["counts"]["chaotic"] == row["bounded"] > 0
        assert row["along"][1] > 0.2
        assert row["across"][1] < row["across"][0] < row["across"][2] < 0


def test_the_collapse_can_fail(rows):
    assert past.all_collapse(rows)
    assert not past.all_collapse([])
    for change in (
        {"collapsed": rows[0]["collapsed"] - 1},
        {"moving": rows[0]["moving"] - 1},
        {"bounded": 0, "moving": 0, "collapsed": 0},
        {"across": [-0.1, -0.3, 0.1]},
        {"largest_factor": 1.01},
        {"against": 1},
    ):
        assert not past.all_collapse([rows[0] | change, *rows[1:]])


def test_an_orbit_off_the_line_stops_the_claim(rows, monkeypatch):
    wrong = [rows[0] | {"collapsed": 0}, *rows[1:]]
    monkeypatch.setattr(past, "evidence", lambda *_: wrong)
    with pytest.raises(ClaimError, match="did not end on the line"):
        past.attractors_past_the_threshold(None, STARTS, STEPS, REDUCED)


def test_the_question_is_answered_with_numbers(attractors, rows):
    assert attractors.verdict == Verdict.OPEN
    assert attractors.numbers["bounded"] == [row["bounded"] for row in rows]
    assert attractors.numbers["orbits whose fate is not the sign of E"] == 0
    low, high = attractors.numbers["share of the bounded that is chaotic, 95 % interval"][-1]
    assert 0.6 < low < high == 1


@pytest.mark.slow
def test_doublings_against_mpmath(cascade):
    """Periods 4, 8 and 16 double where $f^p(x) = x$ and $(f^p)' = -1$, solved in 30 digits."""
    assert cascade.verdict == Verdict.HOLDS
    found = cascade.numbers["doublings, in k"]
    np.testing.assert_allclose(found[:2], [1, np.sqrt(5) - 1], atol=1e-8)
    for place, guess in ((2, 1.288), (3, 1.2992), (4, 1.30163)):
        period = 2**place
        assert cascade.numbers["of the period"][place] == period
        assert found[place] == pytest.approx(flip_by_mpmath(period, guess), abs=1e-9)
    assert cascade.numbers["accumulation"] == pytest.approx(symmetric_line.ACCUMULATION, abs=1e-5)
    assert cascade.numbers["ratios of gaps"] == pytest.approx([4.5429, 4.6412, 4.6632], abs=1e-3)


def flip_by_mpmath(period, guess):
    with mpmath.workdps(30):

        def along(x, k):
            slope = mpmath.mpf(1)
            for _ in range(period):
                slope *= 1 + k - 3 * x * x
                x = (1 + k) * x - x**3
            return x, slope

        start = mpmath.sqrt((1 + mpmath.mpf(guess)) / 3)
        for _ in range(2000 * period):
            start = (1 + guess) * start - start**3
        equations = [lambda x, k: along(x, k)[0] - x, lambda x, k: along(x, k)[1] + 1]
        return float(mpmath.findroot(lambda x, k: [each(x, k) for each in equations], (start, guess))[1])


@pytest.mark.slow
def test_the_exponent_at_the_end_is_ln_3(cascade):
    exponent, half, exact = cascade.numbers["exponent at k = 2, half its 95 % interval, ln 3"]
    assert exact == pytest.approx(np.log(3))
    assert abs(exponent - exact) < 3 * half < 1e-2
    assert cascade.numbers["last bounded k, bracket"] == pytest.approx([2, 2], abs=1e-5)


@pytest.mark.slow
def test_a_cascade_elsewhere_fails(monkeypatch):
    monkeypatch.setattr(symmetric_line, "ACCUMULATION", 1.31)
    found = past.cascade_on_the_symmetric_line(None, count=5, starts=8, num_steps=4000)
    assert found.verdict == Verdict.FAILS


def test_flips_come_to_their_verdict():
    found = at.flip_of_descent(KEY, num=4)
    assert found.verdict == Verdict.HOLDS
    assert found.numbers["losses, of them subcritical"] == [4, 2]


@pytest.mark.parametrize("germ", [(1.0, 1.0, 0.5), (1.2, -0.3, 3.0)])
def test_amplitudes_against_the_roots_of_a_polynomial(germ):
    """The orbit of period 2 are the roots nearest to 0 of $(G(G(x)) - x) / (G(x) - x)$."""
    row = at.flip_row(*germ)
    exact = catapult.flip_slope(*germ)
    assert row["above"] == (exact > 0) == row["stable"]
    second, third, fourth = germ
    change = 1e-5 * np.sign(exact) * 2 / second
    eta = 2 / second + change
    G = np.polynomial.Polynomial([0, 1 - eta * second, -eta * third / 2, -eta * fourth / 6])
    identity = np.polynomial.Polynomial([0, 1])
    roots = ((G(G) - identity) // (G - identity)).roots()
    pair = np.sort(roots[np.argsort(np.abs(roots))[:2]].real)
    assert np.diff(pair)[0] ** 2 / 4 / change == pytest.approx(exact, rel=1e-3)
    assert row["extrapolated slope over predicted"] == pytest.approx(1, abs=1e-5)
    assert row["order of the error"] == pytest.approx(1, abs=0.1)


def test_oscillations_drift_along_the_hyperbola():
    assert at.normal_row(1.0)["drift"] < 1e-12
    assert at.normal_row(2.0)["drift"] == pytest.approx(2 * 3.75 / 4.25**1.5, rel=1e-10)
    assert max(at.normal_row(2.0)[name] for name in ("coefficient", "drift, error")) < 1e-11


def test_a_wrong_coefficient_fails(monkeypatch):
    monkeypatch.setattr(catapult, "flip_coefficient", lambda a, b, c: (3 * b * b + a * c) / (3 * a * a))
    drawn = np.array([[1.0, 1.0, 0.5], [1.2, 1.5, 1.0]])
    monkeypatch.setattr(at, "germs", lambda *_: drawn)
    assert at.flip_of_descent(KEY, 2).verdict == Verdict.FAILS


@pytest.mark.slow
def test_catapult_comes_to_its_verdict(tmp_path):
    found = at.catapult_of_two_layers(KEY, width=512, num=4, widths=(3,))
    assert found.verdict == Verdict.HOLDS
    share = dict(zip(found.numbers["eta lam at the start"], found.numbers["share that converges"], strict=True))
    assert (share[1.0], share[3.0], share[4.2]) == (1, 1, 0)
    figure = found.figure()
    assert r"\lambda" in figure.axes[0].get_ylabel()
    assert figures.save(figure, tmp_path)[0].stat().st_size > 5000


def test_wrong_identities_fail(monkeypatch):
    monkeypatch.setattr(at, "phases", lambda *_: STORED)
    step = catapult.catapult_step
    assert at.catapult_of_two_layers(KEY, 64, 2, (3,)).verdict == Verdict.HOLDS
    monkeypatch.setattr(catapult, "catapult_step", lambda *args: (step(*args)[0], args[1]))
    assert at.catapult_of_two_layers(KEY, 64, 2, (3,)).verdict == Verdict.FAILS


STORED = {
    "products": np.array([1.0, 3.0, 4.5]),
    "converged": np.array([[True], [True], [False]]),
    "gone": np.array([[False], [False], [True]]),
    "ends": np.array([[1.0], [0.2], [1e9]]),
    "growth": np.array([[0.5], [100.0], [np.inf]]),
}


def test_wrong_phases_fail(monkeypatch):
    for name, change in (("ends", [0.5, 0.2, 1e9]), ("ends", [1.0, 2.5, 1e9]), ("growth", [2.0, 9.0, 9.0])):
        wrong = STORED | {name: np.array(change)[:, None]}
        monkeypatch.setattr(at, "phases", lambda *_, wrong=wrong: wrong)
        assert at.catapult_of_two_layers(KEY, 64, 2, (3,)).verdict == Verdict.FAILS


@pytest.mark.slow
def test_momentum_comes_to_its_verdict(momentum):
    assert momentum.verdict == Verdict.HOLDS
    for values in list(momentum.numbers.values())[:2]:
        assert max(values.values()) < 1e-9
    seen = momentum.numbers["heavy-ball, orbits over step size and beta"]
    assert (seen["lanes"], seen["contradictions"]) == (48, 0)


def test_a_held_second_moment_is_a_preconditioner():
    _, scale = at.held("adam", 3)
    np.testing.assert_allclose(scale, np.sqrt(at.MOMENT) + 1e-8)
    assert at.held("heavy-ball", 2)[1].tolist() == [1, 1]


def test_a_wrong_threshold_fails(monkeypatch):
    monkeypatch.setattr(at, "plane", lambda *_: None)
    monkeypatch.setattr(at.stability_diagram, "compare", lambda _: dict.fromkeys(SEEN, 0) | {"spacing": 0.1})
    monkeypatch.setattr(at, "of_minimum", lambda *_: 0.0)
    for error, verdict in ((1e-9, Verdict.HOLDS), (1e-3, Verdict.FAILS)):
        monkeypatch.setattr(at, "of_quadratic", lambda *_, error=error: error)
        assert at.thresholds_of_optimisers(KEY, (4, 4), ("heavy-ball",)).verdict == verdict


SEEN = "lanes", "contradictions", "undecided_below", "slow_within", "measured", "spacing"


@pytest.mark.slow
def test_figures(rows, momentum, tmp_path):
    figure = past.draw_attractors(rows, fine=16)
    top, bottom = figure.axes
    assert "interval" in top.get_ylabel()
    labels = [text.get_text() for text in bottom.get_legend().get_texts()]
    assert labels == ["trapping ellipse, exact", "bounded, a cycle on $x = y$", "bounded, chaotic on $x = y$"]
    few = past.bifurcation.doublings(past.DESCENT, past.line_loss, jnp.array(0.9), 0.8, 2.0, 3)
    for name, drawn in (("a", figure), ("b", past.draw_cascade(few, 40, 8)), ("c", momentum.figure())):
        assert figures.save(drawn, tmp_path, name)[0].stat().st_size > 5000
