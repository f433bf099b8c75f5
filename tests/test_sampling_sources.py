"""Sources of points: the same bits whoever asks, draws as JAX and scipy make them, verdicts that follow."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

from gdstab import ensembles
from gdstab.outcomes import StoppingRule
from gdstab.sampling import GROUP, RandomSource, SobolSource, StratifiedSource, draws, networks, sources
from gdstab.updates import gradient_descent

BOX = ((-1.3, 2.0), (0.1, 5.0), (3.0, 4.7))
KINDS = {
    "box": lambda key, num, dtype=None: RandomSource.box(key, num, BOX, dtype=dtype),
    "gaussian": lambda key, num, dtype=None: RandomSource.gaussian(key, num, 3, 0.7, dtype=dtype),
    "ball": lambda key, num, dtype=None: RandomSource.ball(key, num, 4, 2.3, dtype=dtype),
    "balanced": lambda key, num, dtype=None: RandomSource.balanced(key, num, (3, 2, 4), 1.3, dtype=dtype),
    "sobol": lambda _, num, dtype=None: SobolSource(num, BOX, replicates=4, dtype=dtype),
    "strata": lambda key, num, dtype=None: StratifiedSource(key, num, BOX, (4, 2, 4), dtype=dtype),
}
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(source, num):
    return np.asarray(eqx.filter_jit(source)(jnp.arange(num)))


def layers_of(points, widths):
    """Layers [points, rows, columns] of flat points."""
    ends = list(itertools.accumulate((a * b for a, b in itertools.pairwise(widths)), initial=0))
    spans = zip(itertools.pairwise(ends), itertools.pairwise(widths), strict=True)
    return [np.asarray(points)[:, start:stop].reshape(-1, b, a) for (start, stop), (a, b) in spans]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        pytest.param(kind, dtype, marks=() if usual == dtype else pytest.mark.slow)
        for kind, usual in zip(KINDS, ("float32", "float32", "", "", "float32", "float64"), strict=True)
        for dtype in ("float32", "float64")
    ],
)
def test_points_are_the_same_bits_in_blocks_of_any_length(kind, dtype, key):
    """Also where the compiler sees one large array and where it sees many small ones."""
    source = KINDS[kind](key, 2 * GROUP, dtype)
    arrays, static = eqx.partition(source, eqx.is_array)

    def in_blocks(arrays, block):
        make = eqx.combine(arrays, static)
        starts = jnp.arange(0, 1024, block, dtype=jnp.int32)
        points = jax.lax.map(lambda start: make(start + jnp.arange(block, dtype=jnp.int32)), starts)
        return points.reshape(1024, -1)

    whole = np.asarray(eqx.filter_jit(source)(jnp.arange(2 * GROUP, dtype=jnp.int32)))
    assert whole.dtype == dtype
    assert np.isfinite(whole).all()
    for block in (16, 512):
        np.testing.assert_array_equal(jax.jit(in_blocks, static_argnums=1)(arrays, block), whole[:1024])
    group = jnp.array([1, 0], "int32")  # any points, with a word for each
    np.testing.assert_array_equal(eqx.filter_jit(source)(jnp.array([904, 3], "int32"), group), whole[[5000, 3]])


@each_dtype
@pytest.mark.parametrize("entries", [1, 5])
def test_draws_are_those_of_jax(entries, dtype, key):
    indices = jnp.arange(2 * GROUP, dtype=jnp.int32)
    keys = jax.jit(draws.group_keys)(key, indices)
    folded = [jax.random.fold_in(jax.random.fold_in(key, 0), group) for group in (0, 1)]
    uniform = [jax.random.uniform(each, (GROUP, entries), dtype) for each in folded]
    np.testing.assert_array_equal(
        jax.jit(draws.uniforms, static_argnums=(2, 3))(keys, indices, entries, dtype).T, jnp.concatenate(uniform)
    )
    normal = jnp.concatenate([jax.random.normal(each, (GROUP, entries), dtype) for each in folded])
    eps = np.finfo(dtype).eps
    half = jax.jit(draws.half_normals, static_argnums=(2, 3))(keys, indices, entries, dtype)
    np.testing.assert_allclose(np.sqrt(2).astype(dtype) * half.T, normal, rtol=4 * eps, atol=4 * eps)


def test_old_keys_give_the_same_points():
    old, new = (draw(RandomSource.ball(key, 9, 2), 9) for key in (jax.random.PRNGKey(4), jax.random.key(4)))
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("dim", [1, 2, 20])
def test_ball_is_uniform(dim, key):
    points = draw(RandomSource.ball(key, 5000, dim, 3.0), 5000)
    radius = np.linalg.norm(points, axis=1) / 3
    assert stats.kstest(radius**dim, "uniform").pvalue > 1e-3
    assert np.abs(points.mean(0)).max() < 5 * 3 / math.sqrt(5000 * (dim + 2))


@pytest.mark.parametrize(
    ("widths", "dtype"),
    [
        ((1, 1, 1), "float64"), ((3, 2, 4), "float64"), pytest.param((2, 5, 4, 3), "float32", marks=pytest.mark.slow),
        pytest.param((1, 1, 1), "float32", marks=pytest.mark.slow),
        pytest.param((3, 2, 4), "float32", marks=pytest.mark.slow),
        pytest.param((2, 5, 4, 3), "float64", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_balanced_layers_are_balanced_and_make_a_normal_matrix(widths, dtype, key):
    num, scale, eps = 50, 1.7, np.finfo(dtype).eps
    points = draw(RandomSource.balanced(key, num, widths, scale, dtype=dtype), num)
    assert points.dtype == dtype
    layers = layers_of(np.asarray(points, np.float64), widths)
    for below, above in itertools.pairwise(layers):
        size = np.linalg.norm(below, axis=(1, 2)) ** 2
        gap = above.swapaxes(1, 2) @ above - below @ below.swapaxes(1, 2)
        assert (np.linalg.norm(gap, axis=(1, 2)) < 40 * eps * size).all()
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    # The independent path: JAX's own normal numbers, and LAPACK's singular values.
    folded, entries = jax.random.fold_in(jax.random.fold_in(key, 0), 0), networks.num_normals(widths)
    drawn = np.asarray(jax.random.normal(folded, (GROUP, entries), dtype), np.float64)[:num]
    matrix = scale * drawn[:, : widths[0] * widths[-1]].reshape(num, widths[-1], widths[0])
    U, s, Vt = np.linalg.svd(matrix, full_matrices=False)
    s[:, min(widths) :] = 0
    size = s[:, :1, None]
    assert (np.abs(product - (U * s[:, None, :]) @ Vt) < 200 * eps * size).all()


def test_hidden_spaces_have_no_preferred_direction(key):
    widths, num = (2, 3, 2), 20_000
    first, _ = layers_of(draw(RandomSource.balanced(key, num, widths), num), widths)
    assert np.abs(first.mean(0)).max() < 0.03
    outer = (first @ first.swapaxes(1, 2)).mean(0)
    assert np.abs(outer / np.trace(outer) * 3 - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("shape", [(7, 3), (4, 9), (12, 12)])
def test_singular_values_against_lapack(shape, rng):
    matrices = rng.standard_normal((20, *shape))
    matrices[1] *= 10.0 ** -np.arange(shape[1])  # graded: small ones are relatively exact, too
    U, s, V = (
        np.moveaxis(np.asarray(each), -1, 0)
        for each in jax.jit(networks.singular_values)(jnp.moveaxis(matrices, 0, -1))
    )
    expected = np.linalg.svd(matrices, compute_uv=False)
    np.testing.assert_allclose(np.sort(s)[:, ::-1], expected, atol=1e-13 * expected.max())
    np.testing.assert_allclose((U * s[:, None, :]) @ V.swapaxes(1, 2), matrices, atol=1e-13 * expected.max())
    for frame in (U, V):
        np.testing.assert_allclose(
            frame.swapaxes(1, 2) @ frame, np.broadcast_to(np.eye(min(shape)), (20,) + (min(shape),) * 2), atol=1e-13
        )


@pytest.mark.parametrize("length", [2, 70_000])
def test_sobol_source_is_scipys_bit_for_bit(length):
    source = SobolSource(3 * length, BOX, replicates=3, seed=11)
    words = np.asarray(eqx.filter_jit(source.integers)(jnp.arange(3 * length, dtype=jnp.int32))).reshape(3, length, 3)
    for part in range(3):
        sequence = qmc.Sobol(3, bits=32, rng=np.random.default_rng([11, part]))
        unit = sequence.random_base2((length - 1).bit_length())[:length]
        np.testing.assert_array_equal(words[part], unit * 2.0**32)
    assert (source.parts, source.design, source.num_points) == (3, "replicates", 3 * length)


def test_sobol_source_far_out():
    source = SobolSource(5 * 2**25, BOX[:2], replicates=5, seed=1)
    sequence = qmc.Sobol(2, bits=32, rng=np.random.default_rng([1, 4]))
    group, offset = divmod(4 * 2**25 + 2**24 + 12345, GROUP)
    unit = sequence.fast_forward(2**24 + 12345).random(3)
    got = source.integers(jnp.arange(offset, offset + 3, dtype=jnp.int32), jnp.asarray(group, jnp.int32))
    np.testing.assert_array_equal(got, unit * 2.0**32)


def test_sobol_points_round_inside_the_box():
    """Where the largest 24-bit number would be rounded up to the high end."""
    source = SobolSource(2**16, ((1.0, 1.001),), replicates=1, dtype="float32")
    points = draw(source, 2**16)
    assert points.min() >= np.float32(1)
    assert points.max() < np.float32(1.001)
    assert points.max() == np.nextafter(np.float32(1.001), np.float32(0))


def test_sobol_replicates_agree_better_than_random_points(key):
    box, parts, length = ((0.0, 1.0),) * 2, 32, 1024
    means = {}
    for name, source in (
        ("sobol", SobolSource(parts * length, box, replicates=parts)),
        ("random", RandomSource.box(key, parts * length, box)),
    ):
        x, y = draw(source, parts * length).T
        means[name] = (x * x * y).reshape(parts, length).mean(1)
        assert abs(means[name].mean() - 1 / 6) < 5 * means[name].std() / math.sqrt(parts)
    assert means["sobol"].std() < means["random"].std() / 20


@pytest.mark.slow
def test_sources_without_64_bits(key):
    """Same points, with 32-bit words alone."""
    wide = {kind: draw(KINDS[kind](key, 64, "float32"), 64) for kind in ("box", "ball", "sobol", "strata")}
    wide_far = KINDS["sobol"](key, 2**20, "float32")(jnp.arange(9), 2**7)
    with jax.enable_x64(False):
        for kind, expected in wide.items():
            narrow = draw(KINDS[kind](key, 64), 64)
            assert narrow.dtype == jnp.float32
            np.testing.assert_array_equal(narrow, expected)
        far = KINDS["sobol"](key, 2**20)(jnp.arange(9), 2**7)
        np.testing.assert_array_equal(far, wide_far)


@pytest.mark.parametrize("n", [1, 3, 4096, 2**18 + 1, 999_999_937, 2**30])
def test_division_in_two_words(n):
    numbers = [0, 5, n - 1, n, 2**31 - 1, 2**40 + 123, 2**43 - 1]
    numbers = [number for number in numbers if number // n < 2**31]
    for number in numbers:
        for indices in (number % GROUP, number % 2**30 if number < 2**30 else number % GROUP + 2**30 - GROUP):
            group = (number - indices) // GROUP
            if group < 0:
                continue
            found = sources.divide(jnp.array([indices], "int32"), jnp.asarray(group, "int32"), n)
            assert [int(word[0]) for word in found] == [*divmod(group * GROUP + indices, n)]


def product_loss(theta):
    return 0.5 * (1 - theta[0] * theta[1]) ** 2


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in ("sobol", "balanced", "ball")])
def test_verdicts_do_not_depend_on_the_block(kind, key):
    source = {
        "sobol": lambda: SobolSource(3000, ((-3.0, 3.0),) * 2, replicates=3),
        "balanced": lambda: RandomSource.balanced(key, 3000, (1, 1, 1), 2.0),
        "ball": lambda: RandomSource.ball(key, 3000, 2, 3.0),
    }[kind]()
    rule, stopping = gradient_descent(), StoppingRule(max_steps=300)
    runs = [ensembles.run(rule, product_loss, source, 0.4, stopping, block=block) for block in (16, 256)]
    given = ensembles.run(rule, product_loss, np.asarray(eqx.filter_jit(source)(jnp.arange(3000))), 0.4, stopping)
    for other in (runs[1], given):
        np.testing.assert_array_equal(runs[0].outcome, other.outcome)
        np.testing.assert_array_equal(runs[0].steps, other.steps)


@pytest.mark.parametrize(
    "make",
    [
        lambda _: SobolSource(100, BOX, replicates=16),
        lambda _: SobolSource(2**31, BOX, replicates=1),
        lambda _: SobolSource(0, BOX),
        lambda _: SobolSource(16, BOX, replicates=0),
        lambda _: SobolSource(16, BOX, seed=-1),
        lambda _: SobolSource(16, ((1, 1),)),
        lambda _: SobolSource(16, ((1.0, 1.0 + 1e-12),), dtype="float32"),
        lambda _: SobolSource(16, ((0, 1),) * 21202),
        lambda key: StratifiedSource(key, 10, BOX, 2),
        lambda key: StratifiedSource(key, 0, BOX, 2),
        lambda key: StratifiedSource(key, 16, BOX, (2, 2)),
        lambda key: StratifiedSource(key, 2**23, ((1.0, 1.5),), 2**23, dtype="float32"),
        lambda _: StratifiedSource(3, 8, BOX, 2),
        lambda key: RandomSource.xavier(key, 3, (2,)),
        lambda key: RandomSource.xavier(key, 3, 2),
        lambda key: RandomSource.xavier(key, 3, (2, 0)),
        lambda key: RandomSource.balanced(key, 3, (2, 1), scale=0.0),
        lambda key: RandomSource.balanced(key, 3, (2000, 2, 2000)),
        lambda key: RandomSource.box(jax.random.split(key), 3, BOX),
        lambda _: RandomSource.box(jax.random.key(0, impl="rbg"), 3, BOX),
    ],
)
def test_bad_input(make, key):
    with pytest.raises(ValueError, match="expected"):
        make(key)
