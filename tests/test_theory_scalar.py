import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from gdstab.losses import ScalarProduct, VectorProduct
from gdstab.theory import scalar
from gdstab.updates import gradient_descent
from tests.conftest import assert_close

CASES = [(0.3, 1.0, 1.0), (0.49, 1.0, 1.0), (0.2, 2.5, 0.5), (0.7, 0.6, 1.3)]  # step size, target, scale
each_case = pytest.mark.parametrize(("step_size", "target", "scale"), CASES)


@jax.jit
def hessian(loss, theta):
    return jax.hessian(loss)(theta)


@jax.jit
def moved(loss, points, step_size):
    return jax.vmap(lambda theta: gradient_descent().step(loss, theta, step_size))(points)


@each_case
@pytest.mark.parametrize("dim", [1, 3])
def test_exact_laws_of_one_step(step_size, target, scale, dim, rng):
    points = rng.uniform(-3, 3, (200, 2 * dim))
    after = np.asarray(moved(VectorProduct(dim, target, scale), points, step_size))
    constants = {"step_size": step_size, "target": target, "scale": scale}
    energy = functools.partial(scalar.trapping_energy, **constants)
    np.testing.assert_allclose(energy(after), energy(points) * scalar.energy_factor(points, **constants), rtol=1e-10)
    plus, minus, difference = scalar.diagonal_multipliers(points, **constants)

    def halves(theta):
        return theta[:, :dim], theta[:, dim:]

    (u, v), (u1, v1) = halves(points), halves(after)
    np.testing.assert_allclose(u1 + v1, plus[:, None] * (u + v), atol=1e-10)
    np.testing.assert_allclose(u1 - v1, minus[:, None] * (u - v), atol=1e-10)
    gap, gap1 = (u**2 - v**2).sum(1), (u1**2 - v1**2).sum(1)
    np.testing.assert_allclose(gap1, difference * gap, rtol=1e-8, atol=1e-8)


@each_case
def test_ellipse_is_the_zero_set_of_the_energy(step_size, target, scale):
    curve = scalar.ellipse_curve(step_size, target, scale, num=37)
    ellipse = scalar.trapping_ellipse(step_size, target, scale)
    np.testing.assert_allclose(scalar.trapping_energy(curve, step_size, target, scale), 0, atol=1e-12)
    assert ellipse.area == pytest.approx(scalar.ellipsoid_volume(1, step_size, target, scale), rel=1e-13)
    k = 2 * scale * step_size
    assert ellipse.area == pytest.approx(2 * np.pi * np.sqrt(4 - (k * target) ** 2) / k, rel=1e-13)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_volume_by_sampling(dim, rng):
    step_size, target, scale, half, num = 0.6, 1.0, 0.5, 3.4, 400_000
    points = rng.uniform(-half, half, (num, 2 * dim))
    share = (scalar.trapping_energy(points, step_size, target, scale) < 0).mean()
    expected = scalar.ellipsoid_volume(dim, step_size, target, scale) / (2 * half) ** (2 * dim)
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / num)


@each_case
@pytest.mark.parametrize(
    "box",
    [
        ((-4, 4), (-4, 4)),
        ((-1, 2), (-0.5, 1)),
        ((0, 9), (-9, 9)),
        ((1, 1.5), (-3, 0.2)),
        ((-0.1, 0.1), (-9, 9)),
        ((8, 9), (8, 9)),
    ],
)
def test_area_in_a_box_against_chords(step_size, target, scale, box):
    k = 2 * scale * step_size
    reduced, (y0, y1) = k * target, box[1]

    def chord(x):  # y^2 - k a x y + x^2 + k a^2 - 4/k < 0
        root = np.sqrt(max((reduced * x / 2) ** 2 - x**2 - reduced * target + 4 / k, 0))
        return max(min(reduced * x / 2 + root, y1) - max(reduced * x / 2 - root, y0), 0)

    edges = {*box[0]}
    reach = 2 / np.sqrt(k)  # half the width of the ellipse
    crossings = [np.sqrt(max(4 / k - reduced * target - y**2 * (1 - reduced**2 / 4), 0)) for y in (y0, y1)]
    for y, root in zip((y0, y1), crossings, strict=True):
        edges |= {reduced * y / 2 - root, reduced * y / 2 + root}
    cuts = sorted(np.clip([*edges, -reach, reach], *box[0]))
    expected = sum(quad(chord, a, b, epsabs=1e-12, epsrel=1e-12, limit=200)[0] for a, b in itertools.pairwise(cuts))
    assert scalar.trapping_area(step_size, target, scale, box) == pytest.approx(expected, abs=1e-8)


def test_area_of_a_large_box_is_the_whole():
    for half in (4, 100, 1e6):
        part = scalar.trapping_area(0.3, 1.0, 1.0, ((-half, half), (-half, half)))
        assert part == pytest.approx(scalar.trapping_area(0.3, 1.0, 1.0), rel=1e-13)
    quarters = [((-9, 0.3), (-9, 1)), ((0.3, 9), (-9, 1)), ((-9, 0.3), (1, 9)), ((0.3, 9), (1, 9))]
    parts = sum(scalar.trapping_area(0.3, 1.0, 1.0, box) for box in quarters)
    assert parts == pytest.approx(scalar.trapping_area(0.3, 1.0, 1.0), rel=1e-13)


def test_beyond_the_critical_step():
    assert scalar.critical_step(1.0, 1.0) == 0.5
    assert scalar.basin_area(0.6, 1.0, 1.0) == 0.0
    assert scalar.trapping_area(0.6, 1.0, 1.0, ((-4, 4), (-4, 4))) / 64 == pytest.approx(0.13, abs=0.005)
    assert scalar.trapping_area(1.1, 1.0, 1.0) == 0.0
    assert scalar.ellipsoid_volume(2, 1.1, 1.0, 1.0) == 0.0
    assert len(scalar.ellipse_curve(1.1, 1.0, 1.0)) == 0
    assert scalar.stable_minima(0.5, 1.0, 1.0).length == 0.0


@pytest.mark.parametrize("dim", [1, 2])
def test_largest_converging_step_against_simulation(dim, rng):
    target, scale = 1.3, 0.7
    loss = VectorProduct(dim, target, scale)
    points = jnp.asarray(rng.uniform(-3, 3, (300, 2 * dim)))
    largest = scalar.largest_converging_step(points, target, scale)
    assert isinstance(largest, jax.Array)
    np.testing.assert_allclose(largest, scalar.largest_converging_step(np.asarray(points), target, scale), rtol=1e-14)

    @jax.jit
    def end(points, sizes):
        def orbit(theta, size):
            step = functools.partial(gradient_descent().step, loss, step_size=size)
            return loss(jax.lax.fori_loop(0, 20_000, lambda _, theta: step(theta), theta))

        return jax.vmap(orbit)(points, sizes)

    assert float(end(points, 0.98 * largest).max()) < 1e-10
    assert not bool((end(points, 1.02 * largest) < 1e-10).any())


@each_case
def test_stable_minima(step_size, target, scale, rng):
    arc = scalar.stable_minima(step_size, target, scale)
    if not step_size < scalar.critical_step(target, scale):
        assert np.isnan(arc.low)
        return
    x = rng.uniform(0.2, 5, 200)
    points = np.stack([x, target / x], axis=-1)
    stable = scalar.local_rate(points, step_size, scale) < 1
    np.testing.assert_array_equal(stable, (arc.low < x) & (x < arc.high))
    np.testing.assert_array_equal(stable, (points**2).sum(1) < arc.bound)
    straight = 2 * quad(lambda x: np.sqrt(1 + target**2 / x**4), arc.low, arc.high, epsrel=1e-12)[0]
    assert arc.length == pytest.approx(straight, rel=1e-10)
    loss = ScalarProduct(2, target, scale)
    top = np.linalg.eigvalsh(hessian(loss, points[0]))[-1]
    assert_close(np.abs(1 - step_size * top), scalar.local_rate(points[0], step_size, scale))


def test_minima_in_boxes():
    box = ((-4, 4), (-4, 4))
    whole = 2 * quad(lambda x: np.sqrt(1 + x**-4), 0.25, 4, epsrel=1e-12)[0]
    assert scalar.minima_length(box) == pytest.approx(whole, rel=1e-10)
    assert scalar.minima_length(((0, 4), (-4, 4))) == pytest.approx(whole / 2, rel=1e-10)
    assert scalar.minima_length(((-4, 0), (-4, 0))) == pytest.approx(whole / 2, rel=1e-10)
    assert scalar.minima_length(((0, 4), (-4, 0))) == 0.0
    assert scalar.minima_length(((0.5, 1), (1.5, 9))) == pytest.approx(scalar.minima_length(((0.5, 2 / 3), (0, 9))))
    inside = scalar.stable_minima(0.3, 1.0, 1.0, box)
    assert inside.length == pytest.approx(scalar.stable_minima(0.3, 1.0, 1.0).length)
    assert scalar.stable_minima(0.3, 1.0, 1.0, ((0, 4), (-4, 4))).length == pytest.approx(inside.length / 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: scalar.critical_step(-1.0),
        lambda: scalar.trapping_ellipse(0.0),
        lambda: scalar.trapping_energy(np.ones(3), 0.1),
        lambda: scalar.ellipsoid_volume(0, 0.1),
        lambda: scalar.trapping_area(0.1, box=((0, 1), (1, 0))),
    ],
)
def test_bad_input(make):
    with pytest.raises(ValueError, match="expected"):
        make()
