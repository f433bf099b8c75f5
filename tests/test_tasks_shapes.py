"""Tasks of the field with parameters of any shape: a network as a dict, runs cut off and resumed, and little memory."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdstab as gd

INPUTS = np.linspace(-2, 2, 6)
LIKE = {"in": np.zeros((2, 3)), "out": np.zeros(3), "bias": 0.0, "unused": None}
DESCENT, STEP_SIZES = gd.gradient_descent(), np.geomspace(0.02, 3, 20)


def network(theta, x):
    """Two inputs, of which the second is one; three hidden units."""
    return jnp.tanh(jnp.stack([x, jnp.ones_like(x)], 1) @ theta["in"]) @ theta["out"] + theta["bias"]


def risk(theta):
    x = jnp.asarray(INPUTS, theta["out"].dtype)
    return jnp.mean((network(theta, x) - jnp.sin(x)) ** 2) / 2


RULE = gd.StoppingRule(loss_tol=1e-2, max_steps=60, until={"saturated": lambda theta: jnp.abs(theta["in"]).max() > 4})


def resumed(source, tile, stopping, cut):
    """All tiles of a run that is dropped after `cut` of them, and asked for the other lanes anew."""
    total = len(STEP_SIZES) * source.num_points
    parts = gd.ensembles.iter_run(DESCENT, risk, source, STEP_SIZES, stopping, tile=tile, keep=("theta",))
    done = [next(parts) for _ in range(cut)]
    parts.close()
    rest = [(start, stop) for start, stop in _spans(source.num_points, tile, total) if start >= done[-1].stop]
    return [
        *done,
        *gd.ensembles.iter_run(DESCENT, risk, source, STEP_SIZES, stopping, spans=rest, tile=tile, keep=("theta",)),
    ]


def _spans(points, tile, total):
    """Of tiles that do not cross from one step size to the next."""
    for row in range(0, total, points):
        for start in range(row, row + points, tile):
            yield start, min(start + tile, row + points)


@pytest.mark.parametrize("num", [90, pytest.param(10**6, marks=pytest.mark.slow)])
def test_a_network_as_a_dict_from_many_starts_cut_off_and_resumed(num):
    source = gd.sampling.RandomSource.gaussian(jax.random.key(3), num, like=LIKE)
    whole = list(gd.ensembles.iter_run(DESCENT, risk, source, STEP_SIZES, RULE, tile=2**20, keep=("theta",)))
    parts = resumed(source, min(2**18, num // 2 + 1), RULE, cut=25)
    for name in ("outcome", "steps"):
        one, other = (np.concatenate([getattr(tile, name) for tile in run]) for run in (whole, parts))
        np.testing.assert_array_equal(one, other)
    counts = np.bincount(np.concatenate([tile.outcome for tile in whole]), minlength=6)
    assert counts.sum() == 20 * num
    assert (counts[[0, 1, 5]] > 0.01 * 20 * num).all()  # undecided, converged, saturated
    for leaf in ("in", "out", "bias"):
        one, other = (np.concatenate([tile.theta[leaf] for tile in run]) for run in (whole, parts))
        np.testing.assert_array_equal(one, other)
    assert whole[0].theta["unused"] is None
    assert whole[7].start == 7 * num
    theta = jax.tree.map(lambda leaf: np.asarray(leaf)[5], source(jnp.arange(8)))
    first, out, bias = by_hand(theta, STEP_SIZES[7], int(whole[7].steps[5]))
    for name, leaf in (("in", first), ("out", out), ("bias", bias)):
        np.testing.assert_allclose(whole[7].theta[name][5], leaf, rtol=1e-9, atol=1e-12)


def by_hand(theta, eta, steps):
    """Backpropagation in NumPy."""
    first, out, bias = theta["in"], theta["out"], theta["bias"]
    x, y = np.stack([INPUTS, np.ones(6)], 1), np.sin(INPUTS)
    for _ in range(steps):
        hidden = np.tanh(x @ first)
        error = (hidden @ out + bias - y) / 6
        slope = x.T @ (error[:, None] * out * (1 - hidden**2))
        first, out, bias = first - eta * slope, out - eta * hidden.T @ error, bias - eta * error.sum()
    return first, out, bias


def test_what_does_not_fit_says_what_to_ask_for_instead():
    source = gd.sampling.RandomSource.gaussian(jax.random.key(3), 2**40, like=LIKE)
    with pytest.raises(MemoryError, match=r"1099511627776 lanes does not fit.*keep=\(\).*ensembles.iter_run"):
        gd.run(DESCENT, risk, source, 0.1, RULE)


_LARGE = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
import gdstab as gd

like = {"w": np.zeros((9, 10), np.float32), "b": np.zeros(10, np.float32)}

def loss(theta):
    return jnp.sum(theta["w"] ** 2) + jnp.sum(theta["b"] ** 2)

def count(num):
    source = gd.sampling.RandomSource.gaussian(jax.random.key(0), num, like=like)
    rule = gd.StoppingRule(loss_tol=1e-3, max_steps=50)
    tiles = gd.ensembles.iter_run(gd.gradient_descent(), loss, source, 0.2, rule, keep=())
    return sum(int((tile.outcome == gd.Outcome.CONVERGED).sum()) for tile in tiles)

count(4096)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = count(int(sys.argv[1]))
print(found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kilobytes are counted there")
def test_ten_million_orbits_of_a_hundred_parameters_take_little_memory():
    """They have 4 GB of initial points alone, which are drawn where they are needed."""
    told = subprocess.run([sys.executable, "-c", _LARGE, "10000000"], capture_output=True, text=True, check=True)
    found, kilobytes = map(int, told.stdout.split())
    assert found == 10**7
    assert kilobytes < 1e6
