"""What is drawn: strata, Xavier and balanced layers have the distributions that they promise."""

from itertools import pairwise

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from gdstab.sampling import GROUP, RandomSource, StratifiedSource

BOX = ((-4.0, 4.0), (1.0, 2.0))
WIDTHS = (3, 2, 4)


def points(source, num=None):
    return np.asarray(eqx.filter_jit(source)(jnp.arange(source.num_points if num is None else num)))


def layers(theta, widths=WIDTHS):
    """The matrices of flat points, [points, out, in] each."""
    found, start = [], 0
    for wide, tall in pairwise(widths):
        found.append(theta[:, start : start + wide * tall].reshape(-1, tall, wide))
        start += wide * tall
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_strata_hold_their_points_uniformly(dtype, key):
    source = StratifiedSource(key, 6 * 5 * 40, BOX, (6, 5), dtype=dtype)
    assert (source.design, source.parts) == ("strata", 30)
    low, high = np.transpose(BOX)
    unit = (points(source) - low) / (high - low) * np.array([6, 5])
    cell = np.floor(unit).astype(int)
    np.testing.assert_array_equal(cell[:, 0] * 5 + cell[:, 1], np.repeat(np.arange(30), 40))
    for axis in range(2):
        assert kstest(unit[:, axis] - cell[:, axis], "uniform").pvalue > 0.01


def test_strata_do_not_depend_on_what_else_is_asked_for(key):
    source = StratifiedSource(key, 4 * GROUP, BOX, 2)
    every, some = points(source), np.array([3 * GROUP + 17, 5, GROUP - 1])
    np.testing.assert_array_equal(eqx.filter_jit(source)(some), every[some])


@pytest.mark.parametrize("uniform", [True, False])
def test_xavier_has_glorot_s_variance(uniform, key):
    theta = points(RandomSource.xavier(key, 20_000, WIDTHS, uniform=uniform))
    for layer, wide, tall in zip(layers(theta), WIDTHS[:-1], WIDTHS[1:], strict=True):
        variance = 2 / (wide + tall)
        assert abs(layer.mean()) < 5 * np.sqrt(variance / layer.size)
        assert abs(layer.var() / variance - 1) < 5 * np.sqrt(2 / layer.size)
        if uniform:
            assert np.abs(layer).max() <= np.sqrt(3 * variance)


@pytest.mark.parametrize(
    ("widths", "dtype"),
    [
        pytest.param(widths, dtype, marks=() if usual == dtype else pytest.mark.slow)
        for widths, usual in (((1, 1), "float64"), ((2, 3, 2), "float32"), ((3, 2, 4), ""), ((2, 2, 2, 2), ""))
        for dtype in ("float32", "float64")
    ],
)
def test_balanced_layers_are_balanced(widths, dtype, key):
    matrices = layers(points(RandomSource.balanced(key, 500, widths, 0.7, dtype=dtype)), widths)
    for below, above in pairwise(matrices):
        gap = above.swapaxes(1, 2) @ above - below @ below.swapaxes(1, 2)
        assert np.abs(gap).max() < 200 * np.finfo(dtype).eps * max(np.abs(above).max(), 1) ** 2


def test_the_product_of_balanced_layers_is_normal(key):
    first, second = layers(points(RandomSource.balanced(key, 4000, (2, 3, 2), 0.7)), (2, 3, 2))
    product = second @ first
    assert abs(product.var() / 0.7**2 - 1) < 0.05
    assert kstest(product[:, 0, 1] / 0.7, "norm").pvalue > 0.01
    corr = np.corrcoef(product.reshape(-1, 4).T)
    assert np.abs(corr - np.eye(4)).max() < 0.06


def test_bad_designs_are_refused(key):
    with pytest.raises(ValueError, match="share equally"):
        StratifiedSource(key, 10, BOX, 3)
    with pytest.raises(ValueError, match="widths"):
        RandomSource.xavier(key, 10, (3,))
    with pytest.raises(ValueError, match="key"):
        RandomSource.box(jnp.zeros(3), 10, BOX)
