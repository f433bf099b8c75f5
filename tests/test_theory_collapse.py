"""The quotient that never grows past the critical step: its identity, its inequality, what follows from it."""

import mpmath
import numpy as np
import pytest

from gdstab.theory import collapse, scalar


def step(points, step_size, target, scale):
    u, v = np.split(points, 2, axis=1)
    pull = 2 * scale * step_size * (target - np.sum(u * v, axis=1, keepdims=True))
    return np.concatenate([u + pull * v, v + pull * u], axis=1)


def inside(rng, dim, step_size, target, scale, num=8000):
    points = rng.uniform(-1.5, 1.5, (num, 2 * dim)) * np.sqrt(target / dim)
    return points[scalar.trapping_energy(points, step_size, target, scale) < 0]


@pytest.mark.parametrize(("dim", "target", "scale"), [(1, 1.0, 1.0), (1, 2.5, 0.5), (3, 1.0, 0.5)])
@pytest.mark.parametrize("reduced", [0.4, 1.0, 1.3, 1.7, 1.9])
def test_one_step_multiplies_the_quotient_by_the_factor(rng, dim, target, scale, reduced):
    step_size = reduced / (2 * scale * target)
    points = inside(rng, dim, step_size, target, scale)
    assert len(points) > 50
    before = collapse.potential(points, step_size, target, scale)
    after = collapse.potential(step(points, step_size, target, scale), step_size, target, scale)
    factor = collapse.potential_factor(points, step_size, target, scale)
    np.testing.assert_allclose(after, factor * before, rtol=1e-6, atol=1e-12)
    assert (factor <= 1 + 1e-12).all()


@pytest.mark.parametrize("reduced", [0.2, 1.0, 1.000001, 1.3, 1.6, 1.9, 1.999999])
def test_the_inequality_holds_on_the_whole_line(reduced):
    """|1 + t|^K <= 1 + K t + t^2, with equality at 0 only; in 40 digits, where the difference is tiny."""
    with mpmath.workdps(40):
        for t in np.concatenate(
            [np.linspace(-30, 30, 4001), -1 + np.geomspace(1e-9, 1, 200), np.geomspace(1e-7, 1, 99)]
        ):
            left = abs(1 + mpmath.mpf(t)) ** mpmath.mpf(reduced)
            right = 1 + mpmath.mpf(reduced) * mpmath.mpf(t) + mpmath.mpf(t) ** 2
            assert left < right or t == 0


def test_the_factor_at_the_end_of_bounded_orbits_is_one(rng):
    points = rng.uniform(-1, 1, (100, 2))
    np.testing.assert_allclose(collapse.potential_factor(points, 1.0, scale=1.0), 1, rtol=1e-9)


@pytest.mark.parametrize(("reduced", "dim"), [(1.1, 1), (1.5, 1), (1.5, 2), (1.8, 1)])
def test_orbits_in_the_ellipse_collapse(rng, reduced, dim):
    points = inside(rng, dim, reduced, 1.0, 0.5)
    for _ in range(800):
        points = step(points, reduced, 1.0, 0.5)
    u, v = np.split(points, 2, axis=1)
    assert np.abs(u - v).max() < 1e-6
    assert np.abs(u).max() > 0.1


def test_below_the_critical_step_they_do_not(rng):
    points = inside(rng, 1, 0.7, 1.0, 0.5)
    for _ in range(2000):
        points = step(points, 0.7, 1.0, 0.5)
    assert np.median(np.abs(points[:, 0] - points[:, 1])) > 0.05
    np.testing.assert_allclose(points.prod(axis=1), 1, atol=1e-6)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="target"):
        collapse.potential(np.ones(2), 0.5, target=-1.0)
    with pytest.raises(ValueError, match="step_size"):
        collapse.potential_factor(np.ones(2), 0.0)
