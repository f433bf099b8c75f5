"""Centre-stable manifolds against closed forms, power series and escape times; the study around a saddle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab import figures, stability, updates
from gdstab.boundaries import saddles as near
from gdstab.claims.c import general
from gdstab.claims.registry import Verdict
from gdstab.losses import ScalarProduct, ShallowReLU
from gdstab.stability.centre_stable import cut_off
from gdstab.theory import relu

DESCENT = updates.gradient_descent()
SEMI_ACTIVE = jnp.asarray(relu.critical_point(("semi-active", "inactive"), target=(0.0, 4.0)))
NETWORK = ShallowReLU(2, target=(0.0, 4.0))
HEAVY_BALL = updates.from_optax(lambda step_size: optax.sgd(step_size, momentum=0.9))


@eqx.filter_jit
def on_graph(manifold, points):
    return jax.vmap(manifold.evaluate)(points)


@eqx.filter_jit
def images(manifold, points):
    return jax.vmap(lambda x: manifold.coordinates(manifold.step(x)))(points)


@eqx.filter_jit
def moved(manifold, points):
    return jax.vmap(manifold.step)(points)


def evaluated(manifold, points):
    """The graph above many points, and how far the map takes it off itself."""
    graph = on_graph(manifold, points)
    along, heights = images(manifold, graph.point)
    return graph, jnp.linalg.norm(heights - on_graph(manifold, along).height, axis=1)


def above(manifold, rng, num=6, share=0.7):
    """Random points of E^cs at a share of half the radius."""
    points = rng.normal(size=(num, manifold.dim))
    points *= share / 2 * float(manifold.radius) / np.linalg.norm(points, axis=1, keepdims=True)
    return jnp.asarray(points, manifold.radius.dtype)


def bent(theta):
    """A saddle at 0 whose stable manifold has no closed form."""
    x, y = theta
    return (x**2 - y**2) / 2 + x**2 * y


def kinked(theta):
    """Its gradient has a kink at the saddle, so that the remainder is not small there."""
    return theta[0] ** 2 - theta[1] ** 2 + 2 * jnp.sum(theta) * jnp.abs(jnp.sum(theta))


def bump(p):
    return 0.5 * p[0] ** 2 - 0.3 * p[0] * p[1] + p[1] ** 3


def sheared(loss, x, step_size):
    """Diag(0, 1, 1.5) seen through a polynomial shear: a singular map, no gradient, with the manifold u = bump."""
    del loss, step_size
    straight = jnp.diag(jnp.array([0.0, 1.0, 1.5])) @ x.at[2].add(-bump(x[:2]))
    return straight.at[2].add(bump(straight[:2]))


SHEARED = updates.UpdateRule(lambda theta, _: theta, sheared, lambda state: state)


def stable_series(eta, order):
    r"""Coefficients of $y = \phi(x)$ invariant under descent on `bent`, degree by degree, in exact polynomials."""
    Poly = np.polynomial.Polynomial
    phi = Poly([0.0])
    for degree in range(2, order + 1):
        x, y = Poly([0, 1 - eta]), phi
        moved_x = x - 2 * eta * Poly([0, 1]) * y
        moved_y = (1 + eta) * y - eta * Poly([0, 0, 1])
        gap = (phi(moved_x) - moved_y).coef
        lacking = gap[degree] if degree < len(gap) else 0.0
        phi = phi + Poly([0] * degree + [lacking / ((1 + eta) - (1 - eta) ** degree)])
    return phi


def test_splitting_of_symmetric_and_general_matrices(rng):
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    split = stability.splitting(turn @ np.diag([-1.5, 1.0, 0.2, 1.2]) @ turn.T)
    np.testing.assert_allclose(split.multipliers, [-1.5, 1.2, 1.0, 0.2], atol=1e-12)
    np.testing.assert_allclose(np.diag(split.unstable), [-1.5, 1.2], atol=1e-12)
    skew = rng.normal(size=(4, 4))
    rotating = np.array([[0.6, -0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1.3, 1], [0, 0, 0, 1.3]])  # moduli 1, 1, 1.3, 1.3
    matrix = skew @ rotating @ np.linalg.inv(skew)
    split = stability.splitting(matrix)
    for basis, block in ((split.stable_basis, split.stable), (split.unstable_basis, split.unstable)):
        assert basis.shape == (4, 2)
        np.testing.assert_allclose(matrix @ basis, basis @ block, atol=1e-10)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(split.unstable)), 1.3, atol=1e-6)


def test_cut_off_is_that_of_lemma_6_1(rng):
    points = rng.normal(size=(4000, 3)) * 2.0
    images, slopes = jax.jit(jax.vmap(lambda x: (cut_off(x, 3.0), jax.jacfwd(cut_off)(x, 3.0))))(points)
    sizes = np.linalg.norm(points, axis=1)
    np.testing.assert_array_equal(images[sizes <= 1.5], points[sizes <= 1.5])
    assert not np.any(images[sizes >= 3])
    assert np.linalg.norm(images, axis=1).max() < 3
    assert 3**0.5 <= np.linalg.norm(slopes, axis=(1, 2)).max() < 6 * 3**0.5


def test_linear_and_symmetric_manifolds_are_flat(rng):
    found = stability.centre_stable(DESCENT, ScalarProduct(scale=1.0), jnp.zeros(2), 0.1, radius=1.5)
    graph, invariance = evaluated(found, above(found, rng))
    np.testing.assert_allclose(graph.point.sum(axis=1), 0, atol=1e-15)  # the antidiagonal
    assert float(invariance.max()) < 1e-15
    assert bool(jnp.all(graph.iterations < 20))
    assert float(graph.reach.max()) <= 0.75


def test_a_sheared_singular_map(rng):
    found = stability.centre_stable(SHEARED, jnp.sum, jnp.zeros(3), 0.1, radius=1.0)
    graph, invariance = evaluated(found, above(found, rng))
    np.testing.assert_allclose(graph.point[:, 2], jax.vmap(bump)(graph.point[:, :2]), atol=1e-15)
    assert float(invariance.max()) < 1e-15
    assert found.dim == 2


@pytest.mark.parametrize(("dtype", "tol", "radius"), [(jnp.float64, 1e-14, None), (jnp.float32, 1e-6, 1.0)])
def test_against_a_power_series(rng, dtype, tol, radius):
    found = stability.centre_stable(DESCENT, bent, jnp.zeros(2, dtype), 0.1, radius=radius)
    assert float(found.radius) == 1
    graph, invariance = evaluated(found, above(found, rng, share=0.4))
    x, y = np.asarray(graph.point, float).T
    np.testing.assert_allclose(y, stable_series(0.1, 30)(x), atol=tol)
    assert np.abs(y).min() > 1e-2
    assert float(invariance.max()) < tol
    assert 0.05 < float(graph.factor.max()) <= 0.5


@pytest.mark.slow
def test_momentum_has_a_manifold_too(rng):
    state = stability.extend(HEAVY_BALL, bent, jnp.zeros(2), 0.1)
    found = stability.centre_stable(HEAVY_BALL, bent, state, 0.1, radius=1.0)
    assert found.dim == 3
    graph, invariance = evaluated(found, above(found, rng, share=0.3))
    assert float(invariance.max()) < 1e-14
    assert np.abs(graph.height).max() > 1e-3
    x = graph.point
    for _ in range(90):
        x = moved(found, x)
    assert float(jnp.linalg.norm(x, axis=1).max()) < 0.02 * float(jnp.linalg.norm(graph.point, axis=1).max())


@pytest.mark.slow
def test_escape_from_a_relu_saddle(rng):
    """On the graph orbits stay until rounding has grown; off it by delta they leave at log(1/delta) / log mu."""
    found = stability.centre_stable(DESCENT, NETWORK, SEMI_ACTIVE, 0.4, radius=0.5)
    start = on_graph(found, above(found, rng, share=0.4))
    distances = np.append(10.0 ** -np.arange(2, 13), 0.0)
    off = np.asarray(start.point[0]) + distances[:, None] * np.asarray(found.basis)[:, -1]

    @jax.jit
    def follow(points):
        def move(x, _):
            return jax.vmap(found.step)(x), jax.vmap(found.coordinates)(x)[1][:, 0]

        return jax.lax.scan(move, points, length=220)[1]

    heights = np.asarray(follow(jnp.asarray(off)))
    # The orbit on the graph ends in a critical point beside the saddle.
    beside = stability.centre_stable(DESCENT, NETWORK, start.orbit[0, 90], 0.4, radius=0.5)
    assert np.abs(heights[:120, -1]).max() < 0.01
    steps = np.argmax(np.abs(heights) > 0.05, axis=0)
    assert (steps[:-1] > 0).all()
    slope = np.polyfit(np.log(1 / distances[:-1]), steps[:-1], 1)[0]
    assert slope == pytest.approx(1 / np.log(float(beside.mu)), rel=0.02)
    assert abs(float(beside.mu - found.mu)) > 1e-4


@pytest.mark.parametrize(
    ("loss", "theta", "options", "message"),
    [
        (bent, jnp.ones(2), {}, "one update moves by"),
        (lambda theta: jnp.sum(theta**2), jnp.zeros(2), {}, "every direction is centre-stable"),
        (lambda theta: theta[0] ** 2 - 1e-6 * theta[1] ** 2, jnp.zeros(2), {}, "so near to 1"),
        (bent, jnp.zeros(2), {"radius": -1.0}, "radius: expected a positive"),
        pytest.param(kinked, jnp.zeros(2), {}, "found no radius", marks=pytest.mark.slow),
    ],
)
def test_bad_input(loss, theta, options, message):
    with pytest.raises(ValueError, match=message):
        stability.centre_stable(DESCENT, loss, theta, 0.1, **options)


def test_a_wrong_number_of_coordinates_is_refused():
    found = stability.centre_stable(DESCENT, bent, jnp.zeros(2), 0.1, radius=1.0)
    with pytest.raises(ValueError, match=r"expected y of shape \(1,\)"):
        found.evaluate(jnp.zeros(2))


@pytest.fixture(scope="module")
def neighbourhood():
    return near.saddle_neighbourhood(bent, jnp.zeros(2), 0.1, radius=1.0, resolution=7, distances=near.DISTANCES[:7])


@pytest.mark.slow
def test_the_study_finds_the_manifold_and_the_slope(neighbourhood):
    surface, leaving = neighbourhood.surface, neighbourhood.leaving
    x, y = (surface.points @ np.asarray(neighbourhood.manifold.basis).T).T
    np.testing.assert_allclose(y, stable_series(0.1, 30)(x), atol=1e-14)
    assert surface.uncut == 1
    assert surface.residual < 1e-14
    np.testing.assert_allclose(leaving.mu, 1.1)
    np.testing.assert_allclose(leaving.ratio, 1, rtol=0.02)
    assert (np.abs(leaving.on[:, :150, 1]) <= np.abs(leaving.on[:, :1, 1])).all()
    for side, orbit in enumerate(leaving.off[:, 3]):
        left = np.linalg.norm(orbit[:, 1:], axis=1) > 0.25
        assert left[leaving.escape[side, 3]]
        assert not left[: leaving.escape[side, 3]].any()


def test_the_claim_comes_to_its_verdict_and_can_fail(neighbourhood, monkeypatch):
    [name, *_] = general.NEIGHBOURHOODS
    monkeypatch.setattr(general, "neighbourhood", lambda _: neighbourhood)
    found = general.graphs(None, (name,))
    assert found.verdict == Verdict.HOLDS
    radius, factor = found.numbers[f"{name}: radius and contraction as in the proof"]
    assert factor <= 0.5
    assert radius < 0.01
    for change in ({"slope": 1.1 * neighbourhood.leaving.slope}, {"escape": np.full((2, 7), -1)}):
        wrong = neighbourhood._replace(leaving=neighbourhood.leaving._replace(**change))
        monkeypatch.setattr(general, "neighbourhood", lambda _, wrong=wrong: wrong)
        assert general.graphs(None, (name,)).verdict == Verdict.FAILS


def test_figures(neighbourhood, tmp_path):
    curve = figures.draw_centre_stable(neighbourhood)
    assert r"E^{cs}" in curve.axes[0].get_xlabel()
    picture = figures.CentreStablePicture.of(neighbourhood)
    flat = np.linspace(-1, 1, 5)
    graph = np.stack([*np.meshgrid(flat, flat), np.add.outer(flat**2, -(flat**2))], axis=-1)
    wide = [np.insert(orbits, 1, 0.0, axis=-1) for orbits in (picture.on, picture.off)]
    surface = figures.draw_centre_stable(picture._replace(graph=graph, on=wide[0], off=wide[1]))
    assert surface.axes[0].name == "3d"
    assert figures.save(surface, tmp_path)[0].stat().st_size > 5000


def test_bad_input_of_the_study():
    with pytest.raises(ValueError, match="more than max_steps = 10"):
        near.saddle_neighbourhood(bent, jnp.zeros(2), 0.1, radius=1.0, max_steps=10)
    with pytest.raises(ValueError, match="resolution: expected an integer of at least 2"):
        near.saddle_neighbourhood(bent, jnp.zeros(2), 0.1, resolution=1)
    assert near.escape_times(np.full((1, 3, 2), np.nan), 1.0).tolist() == [0]
