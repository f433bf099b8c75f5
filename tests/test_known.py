"""What is known of a loss beforehand, and the loss in other coordinates."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import curvature, ensembles, losses, minima, theory
from gdstab.losses.contract import Loss
from gdstab.losses.pullback import First, Identity, Pullback, Unravel
from gdstab.outcomes import StoppingRule
from gdstab.studies import building, options
from gdstab.updates import gradient_descent

CLOSED = [
    pytest.param(losses.ScalarProduct(target=-3.0, scale=1.0), marks=pytest.mark.slow),
    pytest.param(losses.ScalarProduct(depth=3, target=2.0), marks=pytest.mark.slow),
    pytest.param(losses.VectorProduct(dim=2, target=1.5, scale=0.25), marks=pytest.mark.slow),
    losses.Quadratic(jnp.diag(jnp.array([1.0, 10.0]))),
    building.build_loss(options.Linear(widths=(2, 2, 2), seed=3))[0],
]


@pytest.mark.parametrize("loss", CLOSED, ids=lambda loss: type(loss).__name__)
def test_the_flattest_minimum_is_as_flat_as_can_be(loss, rng):
    """No minimum of a hundred random ones is flatter, and where the flattest is named, its Hessian says the same."""
    found = theory.known(loss)
    dim = loss.map.size if isinstance(loss, Pullback) else {"VectorProduct": 4}.get(type(loss).__name__)
    dim = dim or getattr(loss, "depth", 2)
    points = minima.sample(loss, jax.random.key(0), 100, jnp.zeros(dim), map=ensembles.map_points).theta
    tops = ensembles.map_points(lambda theta: curvature.eigenvalues(loss, theta)[-1], points)
    assert tops.min() >= found.flattest * (1 - 1e-9)
    assert found.critical_step == pytest.approx(2 / found.flattest)
    if found.minimum is not None:
        top = float(curvature.eigenvalues(loss, jnp.asarray(found.minimum))[-1])
        assert top == pytest.approx(found.flattest, rel=1e-12)


def test_nothing_is_known_of_a_loss_that_nobody_knows():
    for loss in (lambda theta: theta @ theta, losses.Himmelblau(), losses.LinearNetwork(jnp.eye(2), jnp.eye(2))):
        assert theory.known(loss) == theory.Known()
        assert theory.known(loss).exact_share(0.1, radius=1.0) is None
        assert theory.known(loss).minima(((-1, 1), (-1, 1)), 0.1) is None


def test_a_target_of_zero_or_below_has_no_hyperbola():
    for target in (0.0, -1.0):
        found = theory.known(losses.ScalarProduct(target=target))
        assert found.product is None
        assert found.hyperbola is None
    assert theory.known(losses.ScalarProduct(target=0.0)).critical_step is None


@pytest.mark.parametrize("where", [{"box": ((-4, 4), (-3, 3))}, {"radius": 4.0}, {"spread": 1.2}])
def test_shares_are_those_of_a_count(where, rng):
    """Of twenty thousand points that descent runs from; plain NumPy draws them."""
    loss, num = losses.ScalarProduct(scale=1.0), 20_000
    if "box" in where:
        points = rng.uniform([-4, -3], [4, 3], (num, 2))
    elif "radius" in where:
        angle, radius = rng.uniform(0, 2 * np.pi, num), 4.0 * np.sqrt(rng.uniform(size=num))
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    else:
        points = 1.2 * rng.standard_normal((num, 2))
    ends = ensembles.run(gradient_descent(), loss, points, 0.4, StoppingRule(escape_radius=1e3, max_steps=2000))
    exact = theory.known(loss).exact_share(0.4, **where)
    assert np.mean(ends.outcome == 1) == pytest.approx(exact, abs=5 * np.sqrt(0.25 / num))
    with pytest.raises(ValueError, match="one of box, radius and spread"):
        theory.known(loss).exact_share(0.4, **where, **({"radius": 1.0} if "radius" not in where else {"spread": 1.0}))


def test_curves_of_minima_are_minima_and_their_stable_part_is_stable():
    loss, step_size = losses.ScalarProduct(target=2.0, scale=1.0), 0.2
    curves, stable = theory.known(loss).minima(((-4, 4), (-4, 4)), step_size)
    assert len(curves) == len(stable) == 2
    for curve in curves:
        np.testing.assert_allclose(curve.prod(axis=1), 2.0, rtol=1e-12)
    for curve in stable:
        assert (2 * (curve**2).sum(axis=1) <= 2 / step_size * (1 + 1e-12)).all()


def test_levels_of_a_relu_network_against_a_line():
    assert theory.known(losses.ShallowReLU(4)).levels == theory.relu.levels(4)
    assert theory.known(losses.ShallowReLU(4, target=(0.0, 1.0, 1.0))).levels is None
    assert theory.known(losses.ShallowReLU(4, target=(1.0,))).levels is None


def test_a_pullback_says_what_the_loss_inside_says():
    """Exactly what its map allows, and the same numbers."""
    network = losses.LinearNetwork(jnp.eye(2), jnp.diag(jnp.array([2.0, 1.0])))
    flat = Pullback(network, Unravel.of(((3, 2), (2, 3))))
    theta = jnp.arange(12.0) / 10
    layers = flat.map(theta)
    assert isinstance(flat, Loss)
    assert float(flat(theta)) == float(network(layers))
    np.testing.assert_array_equal(flat.residual(theta), network.residual(layers))
    lanes = jnp.stack([theta, 2 * theta], axis=-1)
    np.testing.assert_allclose(flat.on_lanes(lanes), [flat(theta), flat(2 * theta)], rtol=1e-14)
    assert flat.one_block(theta) == network.one_block(layers)
    assert not hasattr(flat, "lanes_together")
    shifted = Pullback(network, lambda theta: flat.map(theta + 1))  # nobody said that it takes lanes
    assert not hasattr(shifted, "on_lanes")
    assert float(shifted.loss_floor) == float(network.loss_floor)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        flat.nonsense  # noqa: B018


def test_a_floor_that_is_given_counts():
    assert not hasattr(Pullback(lambda theta: theta @ theta, Identity()), "loss_floor")
    assert Pullback(lambda theta: theta @ theta - 1, Identity(), -1.0).loss_floor == -1.0
    assert Pullback(losses.ScalarProduct(), First(), -2.0).loss_floor == -2.0


def test_pullbacks_to_trees_are_those_of_ravel():
    tree = {"W": jnp.arange(6.0).reshape(2, 3), "b": (jnp.ones(2), jnp.zeros(()))}
    flat, _ = jax.flatten_util.ravel_pytree(tree)
    back = Unravel.like(tree)(flat)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(one, other)
    assert Unravel.like(tree).size == flat.size


def test_equal_pullbacks_compile_once():
    """What is forwarded compares equal where the pullbacks do."""
    pairs = itertools.pairwise([Pullback(losses.ShallowReLU(2), Identity()) for _ in range(2)])
    assert all(one.residual == other.residual if hasattr(one, "residual") else one == other for one, other in pairs)
