import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import _validate
from gdstab.losses import ScalarProduct


@pytest.mark.parametrize("given", [0.3, np.float32(0.3), jnp.asarray(0.3), [0.1, 0.2], (1,), np.array([0.5])])
def test_good_step_sizes(given):
    checked = _validate.check_step_sizes(given, "float32")
    assert isinstance(checked, np.ndarray)
    assert checked.dtype == np.float32
    assert checked.shape == np.shape(given)


@pytest.mark.parametrize("given", [0.0, -0.1, np.nan, np.inf, [0.1, np.nan], [], [[0.1]], None, [0.1, [2]], 1e-60])
def test_bad_step_sizes(given):
    with pytest.raises(ValueError, match="expected"):
        _validate.check_step_sizes(given, "float32")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda theta: theta, "scalar"),
        (lambda theta: jnp.sum(theta)[None], "scalar"),
        (lambda theta: jnp.sum(theta).astype(int), "real floating"),
        (lambda theta: jnp.sum(theta).astype(complex), "real floating"),
        (lambda theta: jnp.sum(theta) > 0, "real floating"),
        (lambda theta: (jnp.sum(theta), 1.0), "one number"),
        (lambda theta: 1.0 if theta[0] > 0 else 0.0, "does not take"),
        (lambda theta: theta @ jnp.ones(5), "does not take"),
        (lambda x, y: x * y, "does not take"),
    ],
)
def test_bad_losses(loss, message):
    with pytest.raises(ValueError, match=message):
        _validate.check_loss(loss, jnp.ones(2))


@pytest.mark.parametrize("theta", [(), jnp.ones(0), jnp.ones(2, int), jnp.ones(2, complex), [1, 2], {"w": None}])
def test_bad_parameters(theta):
    with pytest.raises(ValueError, match="expected parameters"):
        _validate.check_loss(lambda _: 0.0, theta)


def test_good_losses_cost_nothing():
    _validate.check_loss(ScalarProduct(), jnp.ones(2))
    _validate.check_loss(lambda theta: jnp.sum(theta["w"]), {"w": jax.ShapeDtypeStruct((2,), jnp.float32)})
    _validate.check_loss(lambda theta: (1 - theta[0] * theta[1]) ** 2, jnp.ones(2, "float32"))


@pytest.mark.parametrize(
    "box",
    [((0, 0), (0, 1)), ((1, -1),), ((0, np.inf),), ((np.nan, 1),), (0, 1), (), ((0, 1, 2),), "box", ((0, "a"),), None],
)
def test_bad_boxes(box):
    with pytest.raises(ValueError, match="expected"):
        _validate.check_box(box)


def test_box_dimension():
    with pytest.raises(ValueError, match="3 axes"):
        _validate.check_box(((0, 1), (0, 1)), dim=3)
    with pytest.raises(ValueError, match="low < high"):
        _validate.check_box(((-1.7e308, 1.7e308),))


@pytest.mark.parametrize("resolution", [0, -3, 2.5, (3,), (3, 0), (3, 3, 3), "many", None, [[3, 3]], True])
def test_bad_resolutions(resolution):
    with pytest.raises((ValueError, TypeError)):
        _validate.check_resolution(resolution, 2)


def test_good_resolutions():
    assert _validate.check_resolution(np.int64(3), 2) == (3, 3)
    assert _validate.check_resolution([3, np.int32(4)], 2) == (3, 4)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "big", None, [1.0, 2.0]])
def test_bad_positive(value):
    with pytest.raises(ValueError, match="escape_radius"):
        _validate.check_positive(value, "escape_radius")


@pytest.mark.parametrize("dtype", ["int32", "complex64", "float99", 7])
def test_bad_dtypes(dtype):
    with pytest.raises(ValueError, match="floating dtype"):
        _validate.check_dtype(dtype)


def test_float64_where_jax_has_it_disabled():
    with jax.enable_x64(False):
        assert _validate.check_dtype() == np.float32
        with pytest.raises(ValueError, match="JAX_ENABLE_X64=1"):
            _validate.check_dtype("float64")
    assert _validate.check_dtype() == np.float64
