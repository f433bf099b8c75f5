import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import sampling
from gdstab.sampling import GROUP, GridSource, RandomSource
from tests.conftest import assert_close

SQUARE = ((-4, 4), (-4, 4))
RANDOM = {
    "box": lambda key, num, dtype=None: sampling.box(key, num, ((-1, 2), (0, 5), (3, 4)), dtype=dtype),
    "gaussian": lambda key, num, dtype=None: sampling.gaussian(key, num, 3, 0.5, dtype=dtype),
    "ball": lambda key, num, dtype=None: sampling.ball(key, num, 3, 2.0, dtype=dtype),
}
SOURCES = {
    "box": lambda key, num: RandomSource.box(key, num, ((-1, 2), (0, 5), (3, 4))),
    "gaussian": lambda key, num: RandomSource.gaussian(key, num, 3, 0.5),
    "ball": lambda key, num: RandomSource.ball(key, num, 3, 2.0),
}
each_kind = pytest.mark.parametrize("kind", RANDOM)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("resolution", [(7, 10), (1000, 3), (33, 97)])
def test_symmetric_grid_is_exactly_antisymmetric(dtype, resolution):
    points = np.asarray(sampling.grid(((-4.1, 4.1), (-0.3, 0.3)), resolution, dtype=dtype))
    assert points.dtype == dtype
    np.testing.assert_array_equal(points, -points[::-1])


def test_grid_order_and_centres():
    points = sampling.grid(((0, 2), (0, 30)), (2, 3))
    np.testing.assert_array_equal(points, [[0.5, 5], [0.5, 15], [0.5, 25], [1.5, 5], [1.5, 15], [1.5, 25]])
    assert sampling.grid(((0, 1),) * 3, 2).shape == (8, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_grid_source_equals_grid_bitwise(dtype, index_dtype):
    box, resolution = ((-4, 4), (-1, 3.3), (0, 0.7)), (7, 13, 5)
    source, points = GridSource(box, resolution, dtype=dtype), sampling.grid(box, resolution, dtype=dtype)
    assert source.num_points == len(points)
    got = eqx.filter_jit(source)(jnp.arange(len(points), dtype=index_dtype))
    np.testing.assert_array_equal(got, points)
    np.testing.assert_array_equal(source(jnp.array([454, 3], index_dtype)), points[jnp.array([454, 3])])


def test_grid_source_beyond_32_bits():
    source = GridSource(((0, 1),) * 3, 2**17)
    assert source.num_points == 2**51
    numbers = [0, 2**31 + 12345, 2**40 + 7, 2**43 - 1]
    for number in numbers:
        digits = number >> 34, (number >> 17) % 2**17, number % 2**17
        expected = [(digit + 0.5) / 2**17 for digit in digits]
        group, offset = divmod(number, GROUP)
        point = source(jnp.array([offset], "int32"), jnp.asarray(group, "int32"))[0]
        np.testing.assert_array_equal(point, expected)


def test_affine_slice():
    origin, directions = [1.0, 0.0, -2.0], [[1.0, 1.0, 0.0], [0.0, -1.0, 3.0]]
    source = GridSource(SQUARE, (6, 4), origin=origin, directions=directions)
    flat = np.asarray(sampling.grid(SQUARE, (6, 4)))
    assert_close(source(jnp.arange(24)), jnp.asarray(np.array(origin) + flat @ np.array(directions)))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("box", "float32"), ("box", "float64"), ("gaussian", "float64"), ("ball", "float32"),
        pytest.param("gaussian", "float32", marks=pytest.mark.slow),
        pytest.param("ball", "float64", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_prefix_of_more_points_is_fewer_points(kind, dtype, key):
    many = np.asarray(RANDOM[kind](key, 2 * GROUP + 5, dtype))
    assert many.dtype == dtype
    for num in (1, GROUP + 1):
        np.testing.assert_array_equal(many[:num], RANDOM[kind](key, num, dtype))


@each_kind
def test_any_window_can_be_drawn_alone(kind, key):
    many, source = np.asarray(RANDOM[kind](key, 3 * GROUP)), SOURCES[kind](key, 3 * GROUP)
    draw = eqx.filter_jit(source)
    for start, num in ((0, 2 * GROUP), (GROUP, 2 * GROUP), (GROUP - 3, 10), (100, 2 * GROUP)):
        np.testing.assert_array_equal(draw(np.arange(start, start + num)), many[start : start + num])
    window = draw(np.arange(7, dtype="int32"), np.asarray(2, "int32"))
    np.testing.assert_array_equal(window, many[2 * GROUP : 2 * GROUP + 7])
    scattered = np.array([3 * GROUP - 1, 0, 5000, 5000, 7, 4 * GROUP // 3, GROUP, GROUP - 1, 2 * GROUP, 1])
    np.testing.assert_array_equal(draw(scattered), many[scattered])


def test_group_keys_are_the_documented_ones(key):
    group = 2**32 * 3 + 5
    folded = jax.random.fold_in(jax.random.fold_in(key, 3), 5)
    source = RandomSource.gaussian(key, 2**50, 2)
    found = eqx.filter_jit(source)(np.arange(4), np.asarray(group))
    np.testing.assert_array_equal(found, np.asarray(jax.random.normal(folded, (GROUP, 2)))[:4])


def test_random_points_have_their_distribution(key):
    num = 5 * GROUP
    normal, ball, inside = (np.asarray(RANDOM[kind](key, num)) for kind in ("gaussian", "ball", "box"))
    sem = 0.5 / np.sqrt(num)
    assert np.abs(normal.mean(0)).max() < 5 * sem
    assert np.abs((normal**2).mean(0) - 0.25).max() < 5 * 0.25 * np.sqrt(2 / num)
    radius = np.linalg.norm(ball, axis=1)
    assert radius.max() <= 2.0
    assert abs((radius < 1.0).mean() - 1 / 8) < 5 * np.sqrt(7 / 64 / num)
    low, high = np.array([[-1.0, 0.0, 3.0]]), np.array([[2.0, 5.0, 4.0]])
    assert ((inside >= low) & (inside <= high)).all()
    assert np.abs((inside - low) / (high - low) - 0.5).mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("seed", [None, 7])
def test_sobol_is_indexed_by_position(seed):
    points = sampling.sobol(40, SQUARE, seed=seed)
    np.testing.assert_array_equal(sampling.sobol(13, SQUARE, start=9, seed=seed), points[9:22])
    assert points.shape == (40, 2)
    assert float(jnp.abs(sampling.sobol(1024, SQUARE, seed=seed).mean(0)).max()) < 0.02


@pytest.mark.parametrize(
    "make",
    [
        lambda _: sampling.grid(SQUARE, 0),
        lambda _: sampling.grid(((1, 1), (0, 1)), 3),
        lambda _: sampling.grid(SQUARE, (3, 3, 3)),
        lambda key: sampling.box(key, 0, SQUARE),
        lambda key: sampling.gaussian(key, 3, 2, -1.0),
        lambda key: sampling.ball(key, 3, 0),
        lambda _: sampling.sobol(2**31, SQUARE),
        lambda _: GridSource(SQUARE, 3, directions=[[1.0, 0.0]]),
        lambda _: GridSource(SQUARE, 3, directions=[[1.0, 0.0], [2.0, 0.0]]),
        lambda _: GridSource(SQUARE, 3, origin=[1.0, 0.0, 0.0]),
        lambda _: GridSource(((0, 1),) * 2, (2**19, 2**13)),
    ],
)
def test_bad_input(make, key):
    with pytest.raises(ValueError, match="expected"):
        make(key)


def test_points_taken_on_the_host_equal_those_made_in_jit():
    numbers = np.array([5, 0, 59, 17, 17])
    for frame in ({}, {"origin": [0.1, 0.2, 0.3], "directions": [[1.0, 0.3, 0.0], [0.0, 0.7, 1.0]]}):
        for compact in (False, True):
            source = sampling.GridSource(((-1, 1), (0, 3)), (6, 10), compact=compact, **frame)
            np.testing.assert_array_equal(source.take(numbers), source(jnp.asarray(numbers)))
