"""Verdicts of one's own: when they fall, what comes before them, and that their names are in every count."""

import jax.numpy as jnp
import numpy as np
import pytest

import gdstab as gd
from gdstab import basins, boundaries, outcomes

DESCENT, BOX = gd.gradient_descent(), ((-3.0, 3.0), (-2.0, 4.0))


def bowl(theta):
    """Contracts by 1 - 2 eta in each step."""
    return jnp.sum(theta**2)


def near(theta):
    return jnp.sum(theta**2) < 0.25


def left(theta):
    return theta[1] < -1


RULE = gd.StoppingRule(loss_tol=1e-6, escape_radius=10.0, max_steps=200, until={"near": near, "left": left})
NAMES = outcomes.names(RULE)
STEP = 0.1


@pytest.fixture(scope="module")
def picture():
    return basins.heatmap(DESCENT, bowl, STEP, box=BOX, resolution=(12, 12), stopping=RULE)


def alone(point):
    """Code and number of updates of one point, by a loop: the first of "near" and "left" that holds."""
    for step in range(200):
        codes = [code for code, holds in ((5, point @ point < 0.25), (6, point[1] < -1)) if holds]
        if codes:
            return codes[0], step
        point = point * (1 - 2 * STEP)
    return 0, 200


def test_they_fall_at_the_first_point_where_they_hold(picture):
    points = np.stack(np.meshgrid(*picture.centres, indexing="ij"), -1).reshape(-1, 2)
    ends, steps = np.array([alone(point) for point in points]).T
    assert set(ends) == {5, 6}
    np.testing.assert_array_equal(picture.outcome.ravel(), ends)
    np.testing.assert_array_equal(picture.steps.ravel(), steps)
    found = gd.run(DESCENT, bowl, points, STEP, RULE, block=16)
    np.testing.assert_array_equal(found.outcome, ends)
    assert found.counts == picture.counts == dict.fromkeys(NAMES[:5], 0) | {
        "near": (ends == 5).sum(), "left": (ends == 6).sum(),
    }  # fmt: skip
    assert "5 near, 6 left" in found.to_xarray().attrs["outcomes"]
    one = gd.settle(DESCENT, bowl, jnp.asarray(points[0]), STEP, RULE)
    assert (int(one.outcome), int(one.steps)) == (ends[0], steps[0])


def test_pictures_are_read_back_with_their_names(picture):
    again = basins.Heatmap.from_xarray(picture.to_xarray(), box=BOX)
    assert again.counts == picture.counts
    assert sum(again.fractions.values()) == 1
    assert again.outcomes == NAMES


def test_a_measure_counts_and_shares_them(picture):
    source = gd.sampling.GridSource(BOX, (12, 12))
    found = basins.measure(DESCENT, bowl, [STEP, 2.0], source, stopping=RULE)
    assert found.rows()[0]["counts"] == picture.counts
    assert found.share("near", "left").value[0] == 1
    assert found.count("DIVERGED", "near", "left")[1] == found.samples  # at step size 2 it triples
    assert found.steps_quantiles((1.0,), "near")[0, 0] == picture.steps[picture.outcome == 5].max()
    assert found.to_xarray()["counts"].sel(outcome="left")[0] == picture.counts["left"]
    with pytest.raises(ValueError, match=r"expected outcomes from \['undecided'.*'left'\], got \['far'\]"):
        found.share("far")


def test_parts_are_counted_alike():
    source = gd.sampling.SobolSource(256, BOX, seed=1, replicates=8)
    found = basins.measure(DESCENT, bowl, STEP, source, stopping=RULE)
    assert found.tally.counts.shape == (1, 8, 7)
    assert found.tally.counts[0].sum(axis=1).tolist() == [256 // 8] * 8
    assert found.share("left").value[0] == pytest.approx(1 / 6, abs=0.02)  # the lowest of six units


def test_what_comes_before_and_after():
    """Not finite and outside of the ball before; the first of one's own; then the loss, also where it is no number."""
    rule = gd.StoppingRule(
        loss_tol=0.5, escape_radius=10.0, until={"negative": lambda x: x < 0, "low": lambda x: x < 0.5}
    )
    codes = [
        int(outcomes.verdict(jnp.log, jnp.asarray(x), rule)) for x in (-1.0, 0.25, -11.0, np.inf, np.nan, 1.0, 3.0)
    ]
    assert [outcomes.names(rule)[code] for code in codes] == [
        "negative", "low", "diverged", "nonfinite", "nonfinite", "converged", "undecided",
    ]  # fmt: skip
    moving = [bool(outcomes.moving(jnp.log, jnp.asarray(x), rule)) for x in (-1.0, 0.25, -11.0, np.nan, 1.0, 3.0)]
    assert moving == [False, False, False, False, False, True]


def test_the_critical_step_of_a_constraint():
    """From x = 1 the first update goes to 1 - 2 eta, below -1/2 from eta = 3/4 on."""
    rule = gd.StoppingRule(loss_tol=1e-9, until={"out": lambda theta: theta[0] < -0.5})
    more = {"low": 0.1, "high": 0.99, "stopping": rule, "rtol": 1e-4}
    found = boundaries.critical_step(DESCENT, bowl, np.array([[1.0]]), **more)
    assert found.eta == pytest.approx([0.75], rel=1e-4)
    assert found.outcome.tolist() == [5]
    with pytest.raises(ValueError, match=r"expected members of Outcome or of \('out',\), got \('in',\)"):
        boundaries.critical_step(DESCENT, bowl, np.array([[1.0]]), **more, outcomes=("in",))


def test_bad_verdicts_are_refused():
    for until, told in (
        ({"converged": near}, "none of .*, got 'converged'; rename it"),
        ({"not one": near}, "expected names such as 'accurate'"),
        ({"near": 3}, "expected a function of theta for 'near', got 3"),
        ({f"v{i}": near for i in range(101)}, "at most 100 verdicts, got 101"),
    ):
        with pytest.raises(ValueError, match=told):
            gd.StoppingRule(until=until)
    rule = gd.StoppingRule(until={"signs": lambda theta: theta < 0})
    with pytest.raises(ValueError, match=r"'signs' to give one truth value for a point, got bool of shape \(2,\)"):
        gd.run(DESCENT, bowl, np.ones((3, 2)), 0.1, rule)
    with pytest.raises(ValueError, match="expected the five verdicts, from which classes are numbered"):
        boundaries.adaptive_heatmap(DESCENT, bowl, 0.1, box=BOX, resolution=8, stopping=RULE)
