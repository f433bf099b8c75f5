"""Stability against closed forms: multipliers, thresholds, kinds, determinants, singular sets."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_close

from gdstab import ensembles, stability
from gdstab.losses import LinearNetwork
from gdstab.stability import Kind, Stability, maps
from gdstab.updates import from_optax, gradient_descent


def product(theta):
    """(1 - xy)^2 / 2."""
    return 0.5 * (1 - theta[0] * theta[1]) ** 2


def saddle(theta):
    """Eigenvalues 4, 1, -2 everywhere."""
    return 0.5 * jnp.sum(jnp.array([4.0, 1.0, -2.0], theta.dtype) * theta**2)


def shifted_bowl(theta):
    """A loss whose floor is not 0, and whose second order is degenerate in one direction."""
    return theta[0] ** 2 + theta[1] ** 4 - 3


class Bowl(eqx.Module):
    loss_floor: float = -3.0

    def __call__(self, theta):
        return shifted_bowl(theta)


KNOWN = [  # loss, minimum, sharpness there, inertia (all by hand)
    (product, [1.0, 1.0], 2.0, (0, 1, 1)),
    (product, [4.0, 0.25], 16.0625, (0, 1, 1)),
    (lambda x: 3.0 * jnp.sum(x**2), [0.0, 0.0], 6.0, (0, 0, 2)),
]


@pytest.mark.parametrize(
    ("dtype", "loss", "theta", "sharpness", "signs"),
    [
        pytest.param(dtype, *row, marks=pytest.mark.slow if dtype == jnp.float32 and i else ())
        for dtype in (jnp.float32, jnp.float64)
        for i, row in enumerate(KNOWN)
    ],
)
def test_known_minima(loss, theta, sharpness, signs, dtype):
    theta = jnp.array(theta, dtype)

    @jax.jit
    def study(theta, step_sizes):
        stable = jax.vmap(lambda s: stability.lyapunov_stable(loss, theta, s))(step_sizes)
        return stability.threshold(loss, theta), stability.classify(loss, theta), stable

    edge = 2 / sharpness
    limit, (kind, inertia), stable = study(theta, jnp.array([0.99 * edge, edge, 1.01 * edge], dtype))
    assert limit.dtype == dtype
    assert_close(limit, edge)
    assert (kind.dtype, int(kind)) == (jnp.int8, Kind.MINIMUM)
    assert tuple(map(int, inertia)) == signs
    assert stable.tolist() == [Stability.STABLE, Stability.UNDECIDED, Stability.UNSTABLE]


def test_threshold_scales_and_composes():
    theta = jnp.array([1.0, 2.0])
    limit = jax.jit(lambda scale: stability.threshold(lambda x: scale * saddle(jnp.append(x, 0.0)), theta))
    for scale in (0.1, 7.0):
        assert_close(limit(scale), 0.5 / scale)
    for top, expected in ((4.0, 0.5), (0.0, np.inf), (-1.0, np.inf), (np.nan, np.nan)):
        built = stability.threshold_from(lambda _, theta, top=top: jnp.asarray(top) + 0 * theta)
        np.testing.assert_array_equal(built(None, jnp.array(0.0)), expected)
        slope = jax.grad(built, argnums=1)(None, jnp.array(0.0))
        assert np.isnan(top) or slope == 0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("step_size", [0.1, 0.4, 0.9])
def test_heavy_ball_multipliers(momentum, step_size):
    rule = heavy_ball[momentum]
    state = rule.init(jnp.zeros(3), step_size)
    found = descend_multipliers(rule, saddle, state, step_size)
    expected = np.concatenate([np.roots([1, -(1 + momentum - step_size * lam), momentum]) for lam in (4.0, 1.0, -2.0)])
    assert (np.diff(np.abs(found)) <= 1e-12).all()
    np.testing.assert_allclose(np.sort_complex(np.round(found, 7)), np.sort_complex(np.round(expected, 7)), atol=2e-7)
    below = step_size * 4.0 < 2 * (1 + momentum)  # MATHS.md: eta lambda < 2 (1 + beta)
    sharp = np.abs(np.roots([1, -(1 + momentum - step_size * 4.0), momentum])).max()
    assert (sharp < 1) == below


heavy_ball = {m: from_optax(lambda s, m=m: optax.sgd(s, momentum=m)) for m in (0.0, 0.5, 0.9)}
descend_multipliers = jax.jit(stability.multipliers, static_argnums=(0, 1))


def test_gradient_descent_multipliers_are_one_minus_eta_lambda():
    found = descend_multipliers(gradient_descent(), saddle, jnp.ones(3), 0.75)
    assert jnp.iscomplexobj(found)
    np.testing.assert_allclose(found, [2.5, -2.0, 0.25], atol=1e-12)


def test_multipliers_leave_counters_out_and_take_trees():
    class Memory(NamedTuple):
        where: dict
        count: jax.Array

    class Rule(NamedTuple):
        step: object

    def step(loss, state, step_size):
        slope = jax.grad(lambda w: loss(w["x"]))(state.where)
        return Memory({"x": state.where["x"] - step_size * slope["x"]}, state.count + 1)

    state = Memory({"x": jnp.ones(3)}, jnp.array(5))
    found = stability.multipliers(Rule(step), saddle, state, 0.75)
    np.testing.assert_allclose(found, [2.5, -2.0, 0.25], atol=1e-12)
    with pytest.raises(ValueError, match="floating-point"):
        stability.multipliers(Rule(step), saddle, jnp.array(5), 0.75)


@pytest.mark.slow
def test_multipliers_vmap_over_step_sizes():
    step_sizes = jnp.array([0.1, 0.2])
    batched = jax.vmap(lambda s: stability.multipliers(gradient_descent(), saddle, jnp.ones(3), s))(step_sizes)
    np.testing.assert_allclose(np.sort(batched.real), np.sort(1 - np.outer(step_sizes, [4.0, 1.0, -2.0])), atol=1e-12)


def test_host_eigenvalues_agree_under_jit_and_vmap(rng):
    matrices = rng.normal(size=(3, 4, 4))
    found = jax.jit(jax.vmap(maps._host_eigenvalues))(matrices)
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(np.linalg.eigvals(matrices)), atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "theta", "kind", "signs"),
    [
        (saddle, [0.0, 0.0, 0.0], Kind.STRICT_SADDLE, (1, 0, 2)),
        (saddle, [1e-6, 0.0, 0.0], Kind.STRICT_SADDLE, (1, 0, 2)),  # its loss is below the default floor's tolerance
        (lambda x: -jnp.sum(x**2), [0.0, 0.0], Kind.STRICT_SADDLE, (2, 0, 0)),
        (lambda x: x[0] ** 2 + x[1] ** 3 + 1, [0.0, 0.0], Kind.DEGENERATE, (0, 1, 1)),
        (lambda x: jnp.sum(x**4) + 1, [0.0, 0.0], Kind.DEGENERATE, (0, 2, 0)),
        (Bowl(), [0.0, 0.0], Kind.MINIMUM, (0, 1, 1)),  # at its floor of -3
        (product, [0.0, 0.0], Kind.STRICT_SADDLE, (1, 0, 1)),
        (product, [1.0, 1 + 1e-6], Kind.MINIMUM, (0, 1, 1)),  # where a loss tolerance of 1e-12 stops on either side
        (product, [1.0, 1 - 1e-6], Kind.MINIMUM, (0, 1, 1)),
        (product, [np.nan, 1.0], Kind.DEGENERATE, (0, 0, 0)),
    ],
)
def test_kinds(loss, theta, kind, signs):
    found, inertia = jax.jit(lambda x: stability.classify(loss, x))(jnp.array(theta))
    assert (Kind(int(found)), tuple(map(int, inertia))) == (kind, signs)


def test_linear_network_minimum_and_its_saddle_at_zero(rng):
    loss = LinearNetwork(jnp.eye(2), jnp.diag(jnp.array([2.0, 0.5])), scale=0.5)
    balanced = (jnp.diag(jnp.sqrt(jnp.array([2.0, 0.5]))),) * 2
    classify = jax.jit(lambda theta: stability.classify(loss, theta))
    kind, inertia = classify(balanced)
    assert (int(kind), *map(int, inertia)) == (Kind.MINIMUM, 0, 4, 4)
    assert_close(
        jax.jit(lambda theta: stability.threshold(loss, theta))(balanced), 2 / (2 * 2.0)
    )  # 2 c h sigma^(2 - 2/h) = 4
    kind, inertia = classify(jax.tree.map(jnp.zeros_like, balanced))
    assert (int(kind), *map(int, inertia)) == (Kind.STRICT_SADDLE, 4, 0, 4)


def test_lyapunov_at_saddles_and_degenerate_points():
    verdict = jax.jit(stability.lyapunov_stable, static_argnums=0)
    assert verdict(saddle, jnp.zeros(3), 0.1) == Stability.UNSTABLE
    assert verdict(lambda x: x[0] ** 2 + x[1] ** 3 + 1, jnp.zeros(2), 0.1) == Stability.UNDECIDED
    assert verdict(lambda x: x[0] ** 2 + x[1] ** 3 + 1, jnp.zeros(2), 1.1) == Stability.UNSTABLE
    assert verdict(product, jnp.full(2, jnp.nan), 0.1) == Stability.UNDECIDED


def test_determinant_and_center_stable_dimension(rng):
    x, y = at = rng.normal(size=2)
    theta, values = jnp.asarray(at), np.linalg.eigvalsh([[y * y, 2 * x * y - 1], [2 * x * y - 1, x * x]])
    for step_size in (0.3, 1.7):
        sign, log_abs = stability.jacobian_determinant(product, theta, step_size)
        np.testing.assert_allclose(sign * np.exp(log_abs), np.prod(1 - step_size * values), rtol=1e-10)
        inside = np.sum(np.abs(1 - step_size * values) <= 1)
        assert int(stability.center_stable_dimension(product, theta, step_size)) == inside
    sign, log_abs = stability.jacobian_determinant(saddle, jnp.zeros(3), 0.25)
    assert (sign, log_abs) == (0, -np.inf)
    assert [int(stability.center_stable_dimension(saddle, jnp.zeros(3), s)) for s in (0.1, 0.5, 0.6, 3.0)] == [
        2,
        2,
        1,
        0,
    ]


def test_singular_set_of_the_product_is_where_the_formula_vanishes():
    # c = 1/2: det = (1 - eta y^2)(1 - eta x^2) - eta^2 (2xy - 1)^2
    step_size, box = 0.3, ((-3, 3), (-2, 2))
    curves = stability.singular_set(product, box, step_size, resolution=(121, 81))
    assert len(curves) == 1  # a star around the origin, closed
    np.testing.assert_array_equal(curves[0][0], curves[0][-1])
    x, y = curves[0].T
    assert (np.abs(x) <= 3).all()
    assert (np.abs(y) <= 2).all()
    det = (1 - step_size * y**2) * (1 - step_size * x**2) - step_size**2 * (2 * x * y - 1) ** 2
    assert np.abs(det).max() < 0.02  # straight pieces in cells of side 1/20

    plain = stability.singular_set(product, box, step_size, resolution=(13, 9))
    mapped = stability.singular_set(product, box, step_size, resolution=(13, 9), map_points=ensembles.map_points)
    np.testing.assert_allclose(np.concatenate(mapped), np.concatenate(plain), atol=1e-12)


def test_singular_set_on_a_plane_through_a_tree():
    # The line x = y = s of the product, shifted by t in a second leaf that only adds t^2: det = 0 on known lines.
    def loss(theta):
        return product(theta["w"]) + theta["b"] ** 2

    zero = {"w": jnp.zeros(2), "b": jnp.array(0.0)}
    along, across = {**zero, "w": jnp.ones(2)}, {**zero, "b": jnp.array(1.0)}
    curves = stability.singular_set(loss, ((0.5, 2), (-1, 1)), 0.25, resolution=101, plane=(zero, along, across))
    # Eigenvalues of the product at x = y = s: 3 s^2 - 1 and 1 - s^2; at eta = 1/4 only the first reaches 4.
    np.testing.assert_allclose(np.concatenate(curves)[:, 0], np.sqrt(5 / 3), atol=1e-3)
    assert stability.singular_set(saddle, ((0, 1), (0, 1)), 0.1, resolution=3, plane=tuple(jnp.eye(3))) == []


def test_the_linear_network_of_one_layer_is_caught(rng):
    """MATHS.md: at h = 1 the loss is quadratic and, whitened, G sends everything to one point at eta = 1."""
    loss = LinearNetwork(jnp.eye(2), jnp.asarray(rng.normal(size=(2, 2))), scale=0.5)
    points = (jnp.asarray(rng.normal(size=(50, 2, 2))),)
    assert stability.non_singularity(loss, points, 1.0) == (1.0, 0.0, True, True)
    assert stability.non_singularity(loss, points, 0.5, map_points=ensembles.map_points) == (0.0, 0.0, True, False)


def test_deeper_networks_are_non_singular(rng):
    points = jnp.asarray(rng.normal(size=(500, 2)) * 2)
    found = stability.non_singularity(product, points, 0.5)
    assert (found.share_singular, found.constant, found.singular) == (0.0, False, False)
    det = np.prod(1 - 0.5 * np.linalg.eigvalsh(jax.jit(jax.vmap(jax.hessian(product)))(points)), axis=1)
    np.testing.assert_allclose(found.share_negative, np.mean(det < 0), atol=1e-12)
    # On the plane's own singular set the check must fire: x = y = s with eta (3 s^2 - 1) = 1.
    on_it = jnp.full((3, 2), np.sqrt((1 / 0.5 + 1) / 3))
    assert stability.non_singularity(product, on_it, 0.5).share_singular == 1.0


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="step_size"):
        stability.singular_set(product, ((0, 1), (0, 1)), -0.1)
    with pytest.raises(ValueError, match="box"):
        stability.singular_set(product, ((0, 1),), 0.1)
    with pytest.raises(ValueError, match="at least 2 points"):
        stability.singular_set(product, ((0, 1), (0, 1)), 0.1, resolution=1)
    with pytest.raises(ValueError, match="directions of 3 entries"):
        stability.singular_set(saddle, ((0, 1), (0, 1)), 0.1, plane=(jnp.zeros(3), jnp.ones(2), jnp.ones(2)))
    with pytest.raises(ValueError, match="finite Hessian"):
        stability.non_singularity(product, jnp.full((2, 2), jnp.nan), 0.1)
