"""Claims of paper C on ReLU networks: the exact arithmetic against floats, and checks that can fail."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import figures
from gdstab.claims.c import escape, landscape, leaky, strict
from gdstab.claims.c import exact_relu as exact
from gdstab.claims.c import gradient as regularity
from gdstab.claims.registry import ClaimError, Verdict
from gdstab.losses import ShallowReLU
from gdstab.theory import relu
from gdstab.theory.relu import CriticalType

KEY = jax.random.key(3)
CURVED = regularity.CURVED


#
# Rational arithmetic
#


@pytest.mark.parametrize("leak", [Fraction(0), Fraction(3, 10)])
def test_exact_risk_and_derivatives_are_those_of_the_loss(leak):
    problem = CURVED._replace(leak=leak)
    loss = ShallowReLU(2, (-1.0, 2.0), (0.5, -1.0, 1 / 3), leak=float(leak))
    looks = jax.jit(lambda theta: (loss(theta), loss.gradient(theta), jax.hessian(loss)(theta)))
    for theta in regularity.draws(KEY, 6, 2):
        value, slope, bend = looks(jnp.asarray(exact.floats(theta)))
        assert float(exact.risk(theta, problem)) == pytest.approx(float(value), abs=1e-13)
        np.testing.assert_allclose(exact.floats(exact.gradient(theta, problem)), slope, atol=1e-13)
        matrix = [exact.floats(row) for row in exact.jacobian(theta, problem)]
        np.testing.assert_allclose(matrix, bend, atol=1e-12)


def test_exact_modified_gradient_is_that_of_the_loss():
    loss = ShallowReLU(2, (-1.0, 2.0), (0.5, -1.0, 1 / 3))
    modified = jax.jit(lambda theta: loss.modified_gradient(theta, (0,), (1,)))
    for theta in regularity.draws(KEY, 6, 2):
        found = exact.gradient(theta, CURVED, (0,), (1,))
        size = max(1.0, float(max(map(abs, found))))
        np.testing.assert_allclose(exact.floats(found) / size, modified(exact.floats(theta)) / size, atol=1e-13)


def test_dual_numbers_follow_the_rules_of_derivatives():
    x = exact.Dual(Fraction(3), Fraction(1))
    for result, value, slope in (
        (x * x - 2 * x, 3, 4),
        (1 / x, Fraction(1, 3), Fraction(-1, 9)),
        (x / (x + 1), Fraction(3, 4), Fraction(1, 16)),
        (5 - x, 2, -1),
    ):
        assert (result.value, result.slope) == (value, slope)


def test_determinants_and_differences():
    matrix = [[Fraction(x) for x in row] for row in ((0, 2, 1), (3, 0, 1), (1, 1, 0))]
    assert exact.determinant(matrix) == round(np.linalg.det(np.array([exact.floats(row) for row in matrix])))
    assert exact.determinant([[Fraction(1), Fraction(2)], [Fraction(2), Fraction(4)]]) == 0
    cubes = [Fraction(k**3) for k in range(5)]
    assert exact.difference(cubes) == 0
    assert exact.difference(cubes[:4]) == 6


#
# Regularity
#


def test_a_jump_is_seen_and_a_regular_point_is_not_rough():
    theta, sets = next(regularity.special_points(KEY, CURVED))
    direction = regularity.draws(KEY, 1, 3)[0]
    bound = regularity.ROUGH * regularity.SMALL
    assert max(regularity.rough(theta, CURVED, direction, sets)) < bound < regularity.rough(theta, CURVED, direction)[0]


def test_rational_on_components_and_not_across_them():
    theta = exact.fractions([1.0, -2.0, 0.5, 1.0, 1.0, -1.0, 0.3])
    assert regularity.is_rational(theta, exact.fractions([1, 1, 1, -1, 2, 0, 1]), CURVED)
    crossing = [*theta[:2], -2 - 5 * regularity.SMALL, *theta[3:]]  # the first breakpoint passes the end 2
    assert not regularity.is_rational(crossing, exact.fractions([0, 0, 1, 0, 0, 0, 0]), CURVED)


def test_the_counterexample_to_rationality_needs_the_modification():
    start, along = regularity.counterexample()
    assert not regularity.is_rational(start, along, CURVED, ([0], []))
    assert regularity.is_rational(start, along, CURVED)


def test_components_tell_printed_from_corrected():
    far = [Fraction(1)] * 2 + [Fraction(2), Fraction(3)] + [Fraction(1)] * 3
    swapped = far[:2] + far[2:4][::-1] + far[4:]
    assert regularity.component(far, CURVED) == regularity.component(swapped, CURVED)
    assert regularity.component(far, CURVED, everywhere=True) != regularity.component(swapped, CURVED, everywhere=True)
    assert regularity.component([*far[:3], Fraction(1), *far[4:]], CURVED) is None  # breakpoint at the end -1
    assert regularity.component([Fraction(0), *far[1:]], CURVED) is None


def test_inactive_networks_are_singular_at_one_step_size():
    asleep = [Fraction(1), Fraction(-3), Fraction(1), Fraction(0)]
    matrix = exact.jacobian(asleep, CURVED)
    assert regularity.regularity(matrix, Fraction(1, 6)) == 0
    assert regularity.regularity(matrix, Fraction(1, 2)) != 0  # with the printed dG_c/dc = 2 it would be this one
    assert regularity.shared_step_sizes(matrix, matrix) == {round(1 / 6, 9)}


#
# Landscape
#


def test_families_are_what_the_words_of_the_proposition_say():
    families = list(landscape.patterns())
    assert len(families) == len(set(families)) > 80
    for pattern in families:
        theta = relu.critical_point(pattern, **landscape.PROBLEMS[1])
        assert relu.classify(theta, **landscape.PROBLEMS[1]) == landscape.predicted(pattern)


def test_the_search_tells_minima_from_saddles(rng):
    problem = landscape.PROBLEMS[2]
    rows = {role: landscape.look((role, "inactive"), problem, KEY, rng) for role in landscape.SIDES}
    assert {role: row["falls"] for role, row in rows.items()} == {
        "inactive": False, "semi-inactive-": False, "semi-inactive0": True, "semi-inactive+": True, "semi-active": True,
    }  # fmt: skip
    assert all(row["critical"] and row["error"] < 1e-12 for row in rows.values())


def test_exact_saddles_and_what_is_none():
    for kinks in (0, 2):
        assert landscape.is_exactly_critical(KEY, kinks)
        assert strict.exact_strictness(KEY, kinks)[:2] == (True, True)
    theta, _ = landscape.exact_zigzag(KEY, 2)
    theta[0] += Fraction(1, 10**9)
    assert any(exact.gradient(theta, landscape.SLANTED))


def test_newton_finds_zigzags():
    problem = landscape.PROBLEMS[0]
    points, kinds, losses = landscape.by_newton(landscape.starts(KEY, (1, 2), problem), problem)
    zigzags = kinds == CriticalType.SADDLE_B
    assert zigzags.any()
    np.testing.assert_allclose(losses[zigzags], 1 / 972, rtol=1e-9)
    assert len(points) == len(kinds) > 100


def test_leaky_minor():
    assert leaky.leaky_minor(Fraction(1, 3), 2)
    assert leaky.leaky_minor(Fraction(1, 3), -2)


def test_cut_off():
    z = np.linspace(1.2, 3.8, 14)
    a, b = np.exp(3 / (z - 4)), np.exp(3 / (1 - z))
    np.testing.assert_allclose(strict.cut_off(jnp.asarray(z)), a / (a + b), rtol=1e-13)
    assert strict.cut_off(jnp.array([0.5, 1.0, 4.0, 9.0])).tolist() == [1, 1, 0, 0]
    dim, _, top, share, error, properties = strict.cut_off_row(KEY, 2, 5.0)
    assert (dim, all(properties)) == (2, True)
    assert share == top / (6 * np.sqrt(2)) < 1
    assert error < 1e-12


#
# Escape
#


@pytest.fixture
def few(monkeypatch):
    """One small setting."""
    monkeypatch.setattr(escape, "SETTINGS", ((2, 0, 2048),))
    monkeypatch.setattr(escape, "NEAR", ((1, 2),))
    cached = escape.relu_ends
    cached.cache_clear()
    yield
    cached.cache_clear()


@pytest.mark.slow
def test_ends_come_to_their_verdicts(few, tmp_path):
    del few
    [ends] = escape.relu_ends()
    counts = ends.counts()
    assert sum(counts.values()) == 2048
    assert counts["zero"] > 1000
    assert counts["trapped"] > 500
    np.testing.assert_allclose(ends.losses[ends.trapped], 1 / 12, rtol=1e-6)
    found = escape.below_the_threshold(KEY)
    assert found.verdict == Verdict.HOLDS
    assert found.numbers["saddles among limiting losses below the threshold"]["interval"][1] < 5e-3
    assert escape.descent_along_the_modified_gradient(KEY).verdict == Verdict.HOLDS
    assert escape.limits_without_degenerate_neurons(KEY).verdict == Verdict.HOLDS
    figure = found.figure()
    assert figure.axes[0].get_xlabel() == "share of starts"
    assert figures.save(figure, tmp_path)[0].stat().st_size > 5000


@pytest.mark.slow
def test_an_end_at_a_saddle_fails(few, monkeypatch):
    del few
    [ends] = escape.relu_ends()
    wrong = ends._replace(zero=ends.zero & (np.arange(2048) > 99), saddle=ends.zero & (np.arange(2048) <= 99))
    monkeypatch.setattr(escape, "relu_ends", lambda: [wrong])
    assert escape.below_the_threshold(KEY).verdict == Verdict.FAILS
    assert escape.limits_without_degenerate_neurons(KEY).verdict == Verdict.FAILS
    monkeypatch.setattr(escape, "from_a_ball", lambda *_: ends)
    assert escape.strict_saddles_are_left(KEY).verdict == Verdict.FAILS


def test_too_few_runs_stop_the_claim():
    with pytest.raises(ClaimError, match="only 10 runs count"):
        escape.share(0, 10)


@pytest.mark.slow
def test_points_at_rest_are_told_apart(monkeypatch):
    monkeypatch.setattr(escape, "MAX_STEPS", 100)
    problem = escape.PROBLEMS[0]
    patterns = [(1, 2), ("semi-active", "inactive"), ("semi-inactive-", "inactive"), ("inactive", "inactive")]
    members = [relu.critical_point(pattern, **problem) for pattern in patterns]
    points = np.tile(relu.global_minimum(2, **problem), (2048, 1))
    points[:4] = members
    ends = escape.descend(points, np.full(2048, 0.01), problem)
    assert ends.trapped[:5].tolist() == [False, False, True, True, False]
    assert ends.saddle[:5].tolist() == [True, True, False, False, False]
    assert ends.zero[:5].tolist() == [False, False, False, False, True]
    assert not ends.gone.any()
