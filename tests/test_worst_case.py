"""The worst case of paper D against its printed formulas in many digits, its flow, and Proposition 20 in a run."""

import math

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gdstab import flow, orbits
from gdstab._validate import check_loss
from gdstab.losses import WorstCase
from gdstab.studies import building, options
from gdstab.updates import gradient_descent

LOSS = WorstCase(curvature=2.0, extent=500, accuracy=0.1)
LOSSES = [LOSS, WorstCase(0.5, 3, 1e-6)]
STEP_SIZES = np.array([0.04, 0.01])
NUM_STEPS = 1700


@jax.jit
def _hills(z, loss):
    both = [loss.phi, loss.phi_bar]
    return [[jax.vmap(f)(z) for f in (hill, jax.grad(hill), jax.grad(jax.grad(hill)))] for hill in both]


def hills(z, loss):
    """Value, slope and curvature of both hills at many points, [2, 3, points]; padded, to compile once."""
    z = np.asarray(z)
    return np.asarray(_hills(jnp.asarray(np.pad(z, (0, 4500 - z.size))), loss))[..., : z.size]


def printed(loss, name):
    """A hill as printed in (25) and (26), with the constants that the loss has in float64."""
    a, width = mp.mpf(float(loss.curvature)), mp.mpf(float(loss.width))
    cut = mp.mpf(float(loss.cut if name == "phi" else loss.second_cut))
    middle, centre = a * (width / 2 - 7 * width**2 / 48), width / 2 - 1

    def end(z, height):
        """What both have from their cut points on."""
        s = z - cut
        foot = a * (mp.mpf(2) / 3 + cut) * s**3 - a * (mp.mpf(1) / 4 + cut / 2) * s**4
        return mp.mpf(0) if s > 1 else height - a * z**2 / 2 + (foot if s > 0 else 0)

    def phi(z):
        return end(abs(z), a * (cut + 1) ** 2 / 2 - 5 * a / 12 - a * cut / 2)

    def phi_bar(z):
        z = z if z >= centre else abs(z - centre) + centre
        top = a * (cut + 1) ** 2 / 2 + a / 12 - a * cut / 2 - middle
        if z < 1 - width:
            return top - a * (z - centre) ** 2 / 4
        return end(z, top - a / 2 + middle) - (a * (z - 1) ** 3 / (12 * width) if z < 1 else 0)

    return phi if name == "phi" else phi_bar


def points(loss, name):
    """Some in every piece, on both sides, and the cut points where pieces meet on the right."""
    width, cut = float(loss.width), loss.cut
    if name == "phi":
        inside, meet = [0.0, 0.3, 1e8, 0.7 * cut, cut + 0.25, cut + 0.5, cut + 0.75, cut + 3.0], [cut, cut + 1]
        return np.array(inside + [-z for z in inside]), meet
    cut = loss.second_cut
    inside = [3e-6 - 1, 0.2, 1 - 0.7 * width, 1 - 0.2 * width, 1.5, cut + 0.3, cut + 0.8, cut + 2]
    meet = [1 - width, 1.0, cut, cut + 1]
    return np.array(inside + [width - 2 - z for z in inside]), meet


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["phi", "phi_bar"])
def test_the_hills_are_those_printed(loss, name):
    z, _ = points(loss, name)
    found, exact = hills(z, loss)[int(name == "phi_bar")], printed(loss, name)
    with mp.workdps(110):
        for order, values in enumerate(found):
            wanted = np.array([float(mp.diff(exact, mp.mpf(x), order)) for x in z])
            scale = float(exact(mp.mpf(z[0]))) if order == 0 else loss.curvature
            # Points within width of 1, or within 1 of the cut, are themselves known to rounding.
            np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-15 * scale)


@pytest.mark.parametrize("name", ["phi", "phi_bar"])
def test_they_are_twice_continuously_differentiable(name):
    """As printed, by one-sided differences in many digits; and in float64 on both sides of every point."""
    loss = LOSSES[1]
    exact, (_, meet) = printed(loss, name), points(loss, name)
    with mp.workdps(150):
        for order in (0, 1, 2):
            for z in map(mp.mpf, meet):
                below, above = (mp.diff(exact, z, order, direction=side, h=mp.mpf(10) ** -45) for side in (-1, 1))
                assert abs(below - above) < mp.mpf(10) ** -20, (name, order, float(z))
    if name == "phi_bar":  # beside 1e13, a neighbour is 0.004 away
        near = np.array([[z - 1e-10, z, z + 1e-10] for z in (*meet, *(float(loss.width) - 2 - z for z in meet))])
        curvature = hills(near.ravel(), loss)[1, 2].reshape(near.shape)
        assert np.ptp(curvature, axis=1).max() < 1e-10 / float(loss.width) + 1e-7  # a break has a / 2 at least


def test_curvature_lies_between_minus_a_and_the_smoothness():
    loss = LOSSES[1]
    share = np.linspace(0, 1, 2001)
    first = loss.cut + np.linspace(-0.5, 1.5, 401)
    second = np.concatenate([12 * share - 6, 1 - float(loss.width) * share])
    bends = hills(np.concatenate([first, second]), loss)
    for bend in (bends[0, 2, : first.size], bends[1, 2, first.size :]):
        assert bend.min() == pytest.approx(-loss.curvature, rel=1e-12)
    assert bends[0, 2, : first.size].max() == pytest.approx(loss.smoothness, rel=1e-4)
    assert bends[:, 0].min() >= 0
    far = jax.jit(jax.grad(loss))(jnp.array([1e100, -1e100, 1.0, 7.0]))
    np.testing.assert_array_equal(far, [0, 0, 12 * loss.curvature, 0])


@pytest.mark.slow
def test_flow_in_closed_form_against_the_solver_and_a_quadrature():
    start, arrivals = LOSS.start(4), LOSS.arrivals(LOSS.start())
    times = np.append(np.linspace(0, arrivals.end, 12), np.linspace(*arrivals[:2], 3))
    times.sort()
    exact = LOSS.flow(start, times)
    settings = {"rtol": 1e-12, "atol": 1e-14, "save_at": times, "escape_radius": LOSS.cut}
    found = flow.gradient_flow(LOSS, jnp.asarray(start), arrivals.end, **settings)
    assert bool(found.successful)
    np.testing.assert_allclose(found.observed[:, 0], exact[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.observed[:, 1] + 1, exact[:, 1] + 1, rtol=1e-8)
    np.testing.assert_allclose(found.observed[:, 2:], exact[:, 2:], atol=1e-10)
    a, width = mp.mpf(LOSS.curvature), mp.mpf(float(LOSS.width))
    lapse = mp.quad(lambda y: 1 / (1 - y + y**2 / (4 * width)), [0, width]) / a
    assert arrivals.isotropic - arrivals.transition == pytest.approx(float(lapse), abs=1e-13)
    low, high = LOSS.window(start)
    assert arrivals.isotropic < low < high < arrivals.end
    np.testing.assert_allclose(LOSS.flow(start, [low, high])[:, 1], [2, LOSS.extent], rtol=1e-5)


def test_exponential_separation():
    """Proposition 20 in a run: its distances, its exponent, and the closed forms of Lemmas 68 and 72."""
    start, (low, high), a = LOSS.start(), LOSS.window(LOSS.start()), LOSS.curvature
    walk = jax.jit(jax.vmap(orbits.rollout(gradient_descent(), NUM_STEPS), (None, None, 0)))
    path = np.asarray(walk(LOSS, jnp.asarray(start), jnp.asarray(STEP_SIZES))[1])
    times = np.linspace(low, high, 9)
    points = LOSS.flow(start, times)
    for eta, orbit in zip(STEP_SIZES, path, strict=True):
        steps = 1 + np.arange(int(5 / eta))
        np.testing.assert_allclose(orbit[steps - 1, 0], start[0] * (1 + a * eta) ** steps, rtol=1e-11)
        top = float(LOSS.width) / 2 - 1
        np.testing.assert_allclose(orbit[steps - 1, 1] - top, (start[1] - top) * (1 + a * eta / 2) ** steps, rtol=1e-8)
        assert orbit[-1, 1] > LOSS.second_cut + 1  # what comes later is as far or farther
        nearest = np.linalg.norm(orbit[None] - points[:, None], axis=2).min(axis=1)
        assert (nearest[eta >= LOSS.excluded_step(times)] > LOSS.accuracy).all()
        isotropic = orbit[(orbit[:, 1] >= 1) & (orbit[:, 1] < LOSS.second_cut)]
        ray = isotropic[0, :2] / np.linalg.norm(isotropic[0, :2])
        np.testing.assert_allclose(isotropic[:, 1] / isotropic[:, 0], ray[1] / ray[0], rtol=1e-12)
        off = np.abs(ray[0] * points[:, 1] - ray[1] * points[:, 0])
        assert np.polyfit(times, np.log(off), 1)[0] == pytest.approx(a, rel=1e-6)
        assert (off > 1e-14 * a * eta * np.exp(a * times)).all()
        assert (nearest >= off * (1 - 1e-6)).all()
    assert 5 * LOSS.excluded_step(high) > STEP_SIZES[0] > LOSS.excluded_step(high)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WorstCase(curvature=-1.0), "curvature"),
        (lambda: WorstCase(extent=2), "at least 3"),
        (lambda: WorstCase(accuracy=1.5), "below 1"),
        (lambda: LOSS(jnp.ones(2)), "at least 3 entries"),
        (lambda: LOSS(jnp.ones(3, jnp.float32)), "expected float64, got float32"),
        (lambda: check_loss(LOSS, jnp.ones(3, jnp.float32)), "float64"),
        (lambda: LOSS.arrivals([0.7, 2.0, 3.0]), "`start\\(\\)` gives one"),
        (lambda: LOSS.arrivals([1e15, -0.5, 3.0]), "cut point first"),
        (lambda: LOSS.flow(LOSS.start(), [1e3]), "times from 0 to"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_option_of_the_command_line():
    loss, dim = building.build_loss(options.Worstcase(curvature=2.0, extent=500.0))
    assert (loss, dim) == (LOSS, 3)
    assert loss.cut == 500 * math.exp(30) + 1
