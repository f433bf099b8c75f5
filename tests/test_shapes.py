"""Parameters of any shape: every tool gives for a pytree what it gives for the same numbers as a vector."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gdstab as gd
from gdstab._shapes import Shape

DESCENT, BOX = gd.gradient_descent(), ((-3.0, 3.0), (-3.0, 3.0))
STOP = gd.StoppingRule(loss_tol=1e-8, max_steps=300)


class Pair(NamedTuple):
    a: Any
    b: Any


class Net(eqx.Module):
    w: Any
    v: Any
    bias: Any = None


def one(x, y):
    return jnp.asarray(x), jnp.asarray(y)


SHAPES = {
    "dict": ({"x": one(1.2, 0)[0], "y": one(0.7, 0)[0]}, lambda t: t["x"] * t["y"]),
    "tuple": (one(1.2, 0.7), lambda t: t[0] * t[1]),
    "namedtuple": (Pair(*one(1.2, 0.7)), lambda t: t.a * t.b),
    "module with None": (Net(jnp.full((1, 1), 1.2), jnp.full(1, 0.7)), lambda t: (t.w @ t.v)[0]),
    "matrix": (jnp.array([[1.2, 0.7]]), lambda t: t[0, 0] * t[0, 1]),
}
FAST = ()  # what follows has a dictionary
EACH = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES]


def losses_of(name):
    like, product = SHAPES[name]
    _, unravel = ravel_pytree(like)

    def loss(t):
        return (1 - product(t)) ** 2

    return like, loss, lambda x: loss(unravel(x))


@pytest.mark.parametrize("name", EACH)
def test_sources_planes_and_searches(name):
    like, loss, flat = losses_of(name)
    drawn = [gd.sampling.RandomSource.box(jax.random.key(1), 500, BOX, **more) for more in ({}, {"like": like})]
    plain, shaped = (
        gd.basins.measure(DESCENT, f, [0.1, 0.3], s, stopping=STOP) for f, s in zip((flat, loss), drawn, strict=True)
    )
    np.testing.assert_array_equal(plain.counts, shaped.counts)
    assert 0 < plain.counts[1, gd.Outcome.CONVERGED] < 500
    pictures = [
        gd.basins.heatmap(DESCENT, f, 0.2, box=BOX, resolution=(16, 16), stopping=STOP, **more)
        for f, more in ((flat, {}), (loss, {"like": like}))
    ]
    np.testing.assert_array_equal(pictures[0].steps, pictures[1].steps)
    points = drawn[0](jnp.arange(24))
    tree = Shape(like).split(np.asarray(points))
    steps = [
        gd.boundaries.critical_step(DESCENT, f, p, low=0.02, high=1.0, stopping=STOP, rtol=1e-2, scan=4)
        for f, p in ((flat, np.asarray(points)), (loss, tree))
    ]
    np.testing.assert_array_equal(steps[0].low, steps[1].low)
    classes = [
        gd.boundaries.Classifier(DESCENT, f, 0.2, STOP, **more)(p)
        for f, p, more in ((flat, np.asarray(points), {}), (loss, tree, {"like": like}))
    ]
    np.testing.assert_array_equal(*classes)


def test_labels_kinds_and_planes_of_pytrees():
    like, loss, flat = losses_of("dict")
    wells = gd.basins.heatmap(
        DESCENT, loss, 0.2, box=BOX, resolution=(16, 16), stopping=STOP, like=like,
        label=lambda t: (t["x"] > 0).astype(int),
    )  # fmt: skip
    assert wells.attractors.lanes[0].tolist() == [wells.counts["converged"] // 2] * 2
    told = {"stopping": STOP, "classify": gd.stability.classify, "kinds": gd.stability.Kind}
    plain = gd.basins.heatmap(DESCENT, flat, 0.2, box=BOX, resolution=(16, 16), stopping=STOP)
    assert (
        gd.basins.refine(DESCENT, loss, wells, **told).counts == gd.basins.refine(DESCENT, flat, plain, **told).counts
    )
    assert len(wells.to_dataframe()) == wells.to_xarray()["label"].size == 256
    plane = tuple({"x": x, "y": y} for x, y in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0)))  # its axes exchanged
    turned = gd.basins.heatmap(DESCENT, loss, 0.2, box=BOX, resolution=(16, 16), stopping=STOP, plane=plane)
    np.testing.assert_array_equal(turned.outcome, wells.outcome.T)
    sharp = gd.boundaries.adaptive_heatmap(
        DESCENT, loss, 0.2, box=BOX, resolution=16, coarse=4, stopping=STOP, like=like
    )
    assert sharp.counts == wells.counts


def test_a_number_is_a_point():
    """x^4 / 4 - x^2 / 2: wells at 1 and -1, with curvature 2."""
    found = gd.run(DESCENT, lambda x: (x**2 - 1) ** 2 / 4, np.array([-0.5, 0.5, 2.0]), 0.3, STOP)
    assert found.theta.round(3).tolist() == [-1, 1, 1]
    steps = gd.boundaries.critical_step(
        DESCENT, lambda x: (x**2 - 1) ** 2 / 4, np.array([0.7, 0.9]), low=0.5, high=1.5,
        stopping=gd.StoppingRule(loss_tol=None, grad_tol=1e-6, max_steps=3000), rtol=1e-3,
    )  # fmt: skip
    assert steps.eta == pytest.approx([1, 1], rel=1e-2)


@pytest.mark.slow
def test_sources_of_pytrees_are_the_same_points():
    like = {"w": np.zeros((2, 1)), "b": 0.0, "n": None}
    key = jax.random.key(5)
    for make, more in (("gaussian", {"scale": 2.0}), ("ball", {"radius": 3.0}), ("box", {})):
        box = {"box": (-1.0, 1.0)} if make == "box" else {}
        tree = getattr(gd.sampling.RandomSource, make)(key, 10, **box, **more, like=like)
        flat_box = {"box": ((-1.0, 1.0),) * 3} if make == "box" else {"dim": 3}
        flat = getattr(gd.sampling.RandomSource, make)(key, 10, **flat_box, **more)
        rows = flat(jnp.arange(4))
        made = tree(jnp.arange(4))
        np.testing.assert_array_equal(made["b"], rows[:, 0])
        np.testing.assert_array_equal(made["w"][:, :, 0], rows[:, 1:])
        assert made["n"] is None
    sobol = gd.sampling.shaped(gd.sampling.SobolSource(64, BOX, seed=1), Pair(0.0, 0.0))
    assert sobol(jnp.arange(3)).a.shape == (3,)
    assert sobol.num_points == 64
    assert (getattr(sobol, "parts", 1) > 1) == (getattr(sobol.source, "parts", 1) > 1)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected a source of vectors with the 2 entries.*got \(3,\)"):
        gd.sampling.shaped(gd.sampling.RandomSource.box(jax.random.key(0), 9, BOX + BOX[:1]), {"a": 0.0, "b": 1.0})
    like, loss, _ = losses_of("dict")
    with pytest.raises(ValueError, match="plane: expected PyTreeDef"):
        gd.basins.heatmap(
            DESCENT, loss, 0.2, box=BOX, resolution=(4, 4), stopping=STOP, like=like, plane=(like, {"x": 1.0}, like)
        )
    with pytest.raises(ValueError, match=r"a: expected ends .*ravel them, and take the loss as"):
        gd.boundaries.track_edge(DESCENT, loss, 0.2, like, like, stopping=STOP)
    with pytest.raises(ValueError, match=r"expected a centre \[dim\] of floats.*ravel it, and take the loss as"):
        gd.basins.volume(DESCENT, loss, 0.2, like, stopping=STOP, key=jax.random.key(0))
