"""Volumes in many dimensions: exact ellipsoids, cubes, simplices; the walks; the intervals; what is refused."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gdstab import basins
from gdstab.basins import volumes, walks
from gdstab.losses import VectorProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import scalar
from gdstab.updates import gradient_descent

RULE = gradient_descent()
STOP = StoppingRule()
STEP_SIZE = 0.3
BOUNDED = (Outcome.CONVERGED, Outcome.CYCLING, Outcome.UNDECIDED)


def quartic(theta):
    """With step 1/2, descent goes to 0 from exactly the cube |theta_i| < sqrt(3)."""
    return jnp.sum(theta * theta / 2 + theta * theta * theta * theta / 4)


def ellipsoid(dim, *, step_size=STEP_SIZE, seed=0, dtype=None, **options):
    """An estimate for the product of two vectors, and the logarithm of the exact volume."""
    loss = VectorProduct(dim=dim, target=1.0, scale=1.0)
    options = {"stopping": STOP, "chains": 1024, "moves": 32} | options
    estimate = basins.volume(RULE, loss, step_size, loss.minimum(dtype), key=jax.random.key(seed), **options)
    return estimate, math.log(scalar.ellipsoid_volume(dim, step_size, 1.0, 1.0))


def cube(dim, *, centre=None, **options):
    centre = jnp.zeros(dim) if centre is None else centre
    options = {"stopping": StoppingRule(loss_tol=1e-2), "key": jax.random.key(1), "chains": 1024} | options
    return basins.volume(RULE, quartic, 0.5, centre, **options)


def assert_within(estimate, exact, errors=3.0):
    assert abs(estimate.log_volume - exact) < errors * estimate.standard_error
    assert estimate.troubles == []


class Body:
    """A set given by a function of points, in place of orbits."""

    outcomes = (Outcome.CONVERGED,)

    def __init__(self, contains, centre):
        self.contains, self.centre = contains, np.asarray(centre, float)
        self.orbits = self.undecided = 0

    def __call__(self, points):
        self.orbits += len(points)
        return self.contains(points)


def of_body(contains, centre, *, seed, chains=512, moves=32, replicates=16):
    """What `basins.volume` does behind its checks."""
    body, rng = Body(contains, centre), np.random.default_rng(seed)
    points, enough = walks.spread(body, walks.first_points(body, chains, rng), moves, rng)
    ladder, points = walks.fit_ladder(body, points, enough, rng)
    return volumes._estimate(body, ladder, points, moves, enough, replicates, 0.95, rng)


def log_ball(dim):
    return dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)


@pytest.mark.parametrize(
    ("dim", "moves"),
    [
        pytest.param(1, 8, marks=pytest.mark.slow),
        *(pytest.param(dim, 32, marks=pytest.mark.slow) for dim in (1, 2, 4, 8)),
    ],
)
def test_exact_ellipsoids(dim, moves):
    estimate, exact = ellipsoid(dim, moves=moves)
    assert_within(estimate, exact)
    assert estimate.standard_error < 0.02
    assert estimate.log_interval[0] < estimate.log_volume < estimate.log_interval[1]
    assert estimate.volume == pytest.approx(math.exp(estimate.log_volume))
    assert estimate.interval == pytest.approx(np.exp(estimate.log_interval))


@pytest.mark.slow
@pytest.mark.parametrize("direct", [walks.DIRECT, 0.6])
def test_an_exact_ellipsoid_in_forty_dimensions(monkeypatch, direct):
    """By independent points in one ellipsoid, and by walks in two."""
    monkeypatch.setattr(walks, "DIRECT", direct)
    estimate, exact = ellipsoid(20, chains=4096)
    assert (len(estimate.radii) > 1) == (direct > 0.5)
    assert_within(estimate, exact)
    assert estimate.standard_error < 0.02


@pytest.mark.slow
def test_walks_agree_with_the_exact_ellipsoid(monkeypatch):
    monkeypatch.setattr(walks, "DIRECT", 0.6)
    estimate, exact = ellipsoid(4)
    assert len(estimate.radii) > 1
    assert_within(estimate, exact)


@pytest.mark.slow
def test_single_precision():
    estimate, exact = ellipsoid(2, dtype=jnp.float32)
    assert_within(estimate, exact)


@pytest.mark.slow
def test_what_is_bounded_beyond_the_critical_step():
    """At c eta = 0.6 no minimum is stable; what is trapped is the same ellipsoid."""
    estimate, exact = ellipsoid(1, step_size=0.6, outcomes=BOUNDED, stopping=StoppingRule(max_steps=300), moves=8)
    assert_within(estimate, exact)
    assert estimate.undecided == 0


@pytest.mark.slow
def test_a_cube_in_nine_dimensions_needs_a_ladder():
    estimate = cube(9, moves=16)
    assert len(estimate.radii) > 1
    assert estimate.radii.shape == estimate.shares.shape
    assert estimate.acceptance.shape == estimate.memory.shape == estimate.drift.shape == (len(estimate.radii) - 1,)
    assert_within(estimate, 9 * math.log(2 * math.sqrt(3)))
    assert estimate.standard_error < 0.08


@pytest.mark.slow
def test_a_radius_cuts():
    estimate = cube(3, radius=1.0)
    assert_within(estimate, log_ball(3))


@pytest.mark.slow
def test_the_key_decides():
    first, again, other = (ellipsoid(1, seed=seed, moves=8)[0] for seed in (0, 0, 1))
    assert first.log_volume == again.log_volume
    assert first.log_volume != other.log_volume


@pytest.mark.slow
def test_orbits_and_progress_are_counted():
    seen = []
    estimate = ellipsoid(1, moves=8, progress=lambda *counts: seen.append(counts[0]))[0]
    assert sum(seen) == estimate.orbits


def test_undecided_orbits_are_a_trouble():
    estimate = ellipsoid(1, moves=8, stopping=StoppingRule(max_steps=15))[0]
    assert estimate.undecided > 0.01
    assert any("undecided" in text for text in estimate.troubles)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"acceptance": np.array([0.3, 0.01])}, "accepted"),
        ({"memory": np.array([0.1, 0.9])}, "end near"),
        ({"drift": np.array([0.0, -9.0])}, "drift"),
        ({"standard_error": 0.7}, "standard error"),
        ({"rim": 0.2}, "rim"),
    ],
)
def test_troubles_are_named(change, word):
    none = np.zeros(2)
    fine = basins.Volume(
        log_volume=0.0, standard_error=0.1, log_interval=(-0.2, 0.2), confidence=0.95, centre=none, radii=np.ones(3),
        shape=np.eye(2), shares=np.full(3, 0.25), acceptance=np.full(2, 0.3), memory=none, drift=none, rim=0.0,
        replicates=16, undecided=0.0, orbits=1,
    )  # fmt: skip
    assert fine.troubles == []
    (text,) = dataclasses.replace(fine, **change).troubles
    assert word in text


BODIES = {
    "simplex": (lambda x: (x > 0).all(1) & (x.sum(1) < 1), np.full(4, 1 / 5), -math.lgamma(5)),
    "half ball": (lambda x: ((x**2).sum(1) < 1) & (x[:, 0] > 0), 0.3 * np.eye(8)[0], log_ball(8) - math.log(2)),
    "star, not convex": (lambda x: np.sqrt(abs(x)).sum(1) < 1, np.zeros(3), 6 * math.log(2) - math.lgamma(7)),
    "two balls": (  # apart, but within reach of a move
        lambda x: np.minimum((x[:, 0] - 1.05) ** 2, (x[:, 0] + 1.05) ** 2) + (x[:, 1:] ** 2).sum(1) < 1,
        np.zeros(2),
        log_ball(2) + math.log(2),
    ),
    "stretched": (lambda x: ((x / [1, 1, 1e3]) ** 2).sum(1) < 1, np.zeros(3), log_ball(3) + 3 * math.log(10)),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in {"simplex", "star, not convex"})) for name in BODIES],
)
def test_other_bodies(name):
    """Mean error over repetitions within its own error, and the standard errors stated are of the size of it."""
    contains, centre, exact = BODIES[name]
    found = [of_body(contains, centre, seed=seed) for seed in range(4)]
    z = np.array([(estimate.log_volume - exact) / estimate.standard_error for estimate in found])
    assert abs(z.mean()) < 3 / math.sqrt(4)
    assert 0.15 < math.sqrt((z**2).mean()) < 2.15  # the 0.1 % and 99.9 % points of four
    assert all(estimate.troubles == [] for estimate in found)


@pytest.mark.slow
def test_a_hole_in_the_middle(monkeypatch):
    """A ring fills no ellipsoid around its middle; those around the centre given serve."""
    monkeypatch.setattr(walks, "DIRECT", 0.4)
    ring = of_body(lambda x: abs(np.linalg.norm(x, axis=1) - 1) < 0.1, [1.0, 0.0], seed=0)
    assert len(ring.radii) > 2
    np.testing.assert_array_equal(ring.centre, [1, 0])
    assert_within(ring, math.log(math.pi * 0.4))


def test_walks_keep_the_uniform_distribution():
    rng = np.random.default_rng(0)
    shape = np.array([[2.0, 0, 0], [1.0, 0.5, 0], [0.3, 0.2, 1.0]])
    ball = walks.Ellipsoid(np.array([1.0, 2, 3]), shape, 1.5)
    assert ball.log_volume == pytest.approx(math.log(4 / 3 * math.pi * 1.5**3 * np.linalg.det(shape)))
    half = Body(lambda x: x[:, 0] > 1.0, ball.centre)
    points = ball.draw(8192, rng)
    np.testing.assert_allclose(ball.place(ball.lift(points, rng)), points, atol=1e-12)
    moved = walks.walk(half, ball, points[half(points)], 0.4, 16, rng).points
    assert half(moved).all()
    flat = ball.whiten(moved) / ball.radius
    assert stats.kstest(np.linalg.norm(flat, axis=1) ** 3, "uniform").pvalue > 0.01
    first = special.betainc(2, 2, (1 + flat[:, 0]) / 2)  # distribution function of one coordinate of a ball
    assert stats.kstest(2 * first - 1, "uniform").pvalue > 0.01  # above the middle
    assert ball.at_rim(moved).mean() == pytest.approx(0.5, abs=0.03)


def test_tuning_reaches_the_acceptance_aimed_at():
    rng = np.random.default_rng(0)
    ball = walks.Ellipsoid(np.zeros(10), np.eye(10), 2.0)
    body = Body(lambda x: (abs(x) < 0.5).all(1), np.zeros(10))
    tuned = walks.walk(body, ball, np.zeros((2048, 10)), 3.0, 64, rng, tune=True)
    kept = walks.walk(body, ball, tuned.points, tuned.angle, 8, rng)
    assert kept.angle == tuned.angle
    assert kept.acceptance == pytest.approx(walks.ACCEPTANCE, abs=0.05)


def test_intervals_cover():
    """Ladders with known shares; the level of the innermost is counted like the others."""
    rng = np.random.default_rng(0)
    truth, repeats = np.array([0.4, 0.25, 0.3]), 1000
    log_volume = math.log(truth[0]) - np.log(truth[1:]).sum()
    hits, biggest = 0, 0.0
    for _ in range(repeats):
        shares = rng.binomial(200, truth[:, None], (3, 16)) / 200
        estimate, error, (low, high) = volumes._summary(0.0, shares, 1, 0.95)
        hits += low <= log_volume <= high
        delta = math.sqrt((((1 - truth) / truth) / (200 * 16)).sum())
        biggest = max(biggest, abs(estimate - log_volume) / delta)
        assert 0.3 * delta < error < 2.2 * delta
    assert 0.935 < hits / repeats < 0.975
    assert biggest < 5


def test_one_ellipsoid_has_the_exact_interval():
    shares = np.full((1, 4), 0.25)
    estimate, error, interval = volumes._summary(1.0, shares, 400, 0.9)
    low, high = stats.beta.ppf([0.05, 0.95], [100, 101], [301, 300])
    assert (estimate, error) == pytest.approx((1 + math.log(0.25), math.sqrt(0.75 / 100)))
    assert interval == pytest.approx((1 + math.log(low), 1 + math.log(high)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_size": [0.1, 0.2]}, "one step size"),
        ({"step_size": -1.0}, "positive"),
        ({"centre": jnp.zeros((2, 2))}, "centre"),
        ({"centre": jnp.zeros(2, int)}, "floats"),
        ({"centre": jnp.array([0.0, jnp.nan])}, "finite centre"),
        ({"centre": jnp.full(2, 50.0)}, "stable minimum"),
        ({"outcomes": ()}, "at least one verdict"),
        ({"radius": 0.0}, "radius"),
        ({"chains": 1000}, "multiple of 16"),
        ({"chains": 512}, "1024 or more"),
        ({"centre": jnp.zeros(100)}, "1600 or more"),
        ({"moves": 0}, "moves"),
        ({"replicates": 1}, "replicates"),
        ({"confidence": 1.0}, "confidence"),
        ({"loss": lambda theta: theta}, "scalar"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {"loss": VectorProduct(dim=1, target=1.0, scale=1.0), "step_size": 0.3, "centre": jnp.ones(2)} | change
    loss, step_size, centre = (given.pop(name) for name in ("loss", "step_size", "centre"))
    with pytest.raises(ValueError, match=message):
        basins.volume(
            RULE, loss, step_size, centre, **{"stopping": STOP, "key": jax.random.key(0), "chains": 1024} | given
        )


def test_a_set_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(walks, "EPOCHS", 3)
    with pytest.raises(ValueError, match="still grows"):
        of_body(lambda x: abs(x[:, 1]) < 1, [0.0, 0.0], seed=0, moves=8)
