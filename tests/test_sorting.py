"""The sorting network against NumPy, and its way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab.losses.relu_spline import running_sums, sort_rows, unsort_rows


@pytest.mark.parametrize("rows", [1, 2, 4, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_lane_is_sorted_and_brought_back(rows, dtype, rng):
    keys = rng.integers(-3, 4, size=(rows, 50, 2)).astype(dtype)  # many are equal
    values = rng.normal(size=keys.shape).astype(dtype)

    @jax.jit
    def both(keys, values):
        sorted_keys, moved, stages = sort_rows(keys, values)
        return sorted_keys, moved, unsort_rows(stages, moved)

    found, moved, back = both(keys, values)
    np.testing.assert_array_equal(found, np.sort(keys, axis=0))
    np.testing.assert_array_equal(back, values)
    pairs, expected = (np.sort(np.asarray(k) + 1j * np.asarray(v), axis=0) for k, v in ((found, moved), (keys, values)))
    np.testing.assert_array_equal(pairs, expected)


def test_a_nan_spoils_its_own_lane_only():
    keys = jnp.array([[2.0, 2.0], [1.0, jnp.nan]])
    found, _, _ = sort_rows(keys, keys)
    np.testing.assert_array_equal(found[:, 0], [1.0, 2.0])
    assert np.isnan(found[:, 1]).all()


def test_the_number_of_rows_is_checked():
    with pytest.raises(ValueError, match="power of two of rows, got 3"):
        sort_rows(jnp.ones(3), jnp.ones(3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_running_sums(dtype, rng):
    values = jnp.asarray(rng.normal(size=(17, 5)), dtype)
    np.testing.assert_allclose(running_sums(values), np.cumsum(values, axis=0), rtol=0, atol=20 * np.finfo(dtype).eps)
