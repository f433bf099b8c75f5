"""Basin entropy and uncertainty exponent: smooth and fractal boundaries whose measures are known otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from scipy.optimize import brentq

from gdstab import boundaries, sampling
from gdstab.boundaries import basin_entropy, fractal, uncertainty_exponent
from gdstab.losses import RegularisedProduct, ScalarProduct, VectorProduct
from gdstab.outcomes import StoppingRule
from gdstab.theory import scalar
from gdstab.updates import UpdateRule, gradient_descent

BOX = ((-4, 4), (-4, 4))
STOP = StoppingRule(max_steps=5000, escape_radius=1e3)
SMOOTH = ScalarProduct(depth=2, target=1.0, scale=1.0)
SAMPLES = 2**16
KEY = jax.random.key(0)


def smooth(key=KEY, *, loss=SMOOTH, step_size=0.3, box=BOX, stopping=STOP, samples=SAMPLES, **options):
    return uncertainty_exponent(
        gradient_descent(), loss, step_size, box=box, stopping=stopping, key=key, samples=samples, **options
    )


# Newton's method for the roots of z^3 - 1, as a rule of its own


def cube_minus_one(theta):
    x, y = theta[0], theta[1]
    return x * x * x - 3 * x * y * y - 1, 3 * x * x * y - y * y * y


def newton_step(loss, theta, step_size):
    x, y = theta[0], theta[1]
    (re, im), (a, b) = cube_minus_one(theta), (3 * (x * x - y * y), 6 * x * y)
    quotient = jnp.stack([re * a + im * b, im * a - re * b]) / (a * a + b * b)
    return theta - jnp.asarray(step_size, theta.dtype) * quotient


def newton_loss(theta):
    re, im = cube_minus_one(theta)
    return re * re + im * im


def nearest_root(theta):
    roots = jnp.asarray([[1, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]], theta.dtype)
    return jnp.argmin(jnp.sum((roots - theta[None, :]) ** 2, axis=1))


NEWTON = UpdateRule(lambda theta, _: theta, newton_step, lambda state: state)
NEWTON_STOP = StoppingRule(loss_tol=1e-8, max_steps=300, escape_radius=1e15)
NEWTON_BOX = ((-2, 2), (-2, 2))


def newton(key=KEY, *, box=NEWTON_BOX, samples=SAMPLES, **options):
    return uncertainty_exponent(
        NEWTON, newton_loss, 1.0, box=box, stopping=NEWTON_STOP, key=key, samples=samples, label=nearest_root, **options
    )


def preimages(z):
    """The three points that Newton's step takes to z: with w = 1/v they solve v^3 - 3 z v + 2 = 0 (Cardano)."""
    root = np.sqrt(1 - z**3)
    cube = np.where(abs(root - 1) >= abs(-1 - root), root - 1, -1 - root) ** (1 / 3)
    turned = cube[None] * np.exp(2j * np.pi * np.arange(3) / 3)[:, None]
    return 1 / (turned + z[None] / turned)


def julia_dimension(depth=12, start=2.1 - 0.3j):
    """Dimension of Newton's Julia set: the power s at which sums of |slope|^-s over preimages neither grow nor fall.

    The Poincare series of the rational map, in the spherical metric; no orbit and no pair of points is run.
    """
    z, logs, levels = np.array([start]), np.zeros(1), []
    for _ in range(depth):
        w = preimages(z)
        slope = abs(2 * (w**3 - 1) / (3 * w**3)) * (1 + abs(w) ** 2) / (1 + abs(z[None]) ** 2)
        logs, z = (logs[None] + np.log(slope)).ravel(), w.ravel()
        levels.append(logs)
    return brentq(lambda s: special.logsumexp(-s * levels[-1]) - special.logsumexp(-s * levels[-2]), 1.1, 1.9)


@pytest.fixture(scope="module")
def newton_picture():
    source = sampling.GridSource(NEWTON_BOX, (1024, 1024))
    classify = boundaries.Classifier(NEWTON, newton_loss, 1.0, NEWTON_STOP, label=nearest_root)
    return source.to_grid(classify(np.asarray(source(jnp.arange(source.num_points)))))


def box_counting_dimension(labels, sides=(2, 4, 8, 16, 32)):
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    n = len(labels)
    counts = [edge.reshape(n // side, side, n // side, side).any(axis=(1, 3)).sum() for side in sides]
    return -np.polyfit(np.log(sides), np.log(counts), 1)[0]


# Basin entropy


def test_entropy_is_that_of_the_boxes_one_by_one(rng, key):
    labels = rng.integers(-1, 2, size=(23, 31)) * (rng.random((23, 31)) < 0.2)
    found = basin_entropy(labels, 4, key=key)
    cut = [labels[i : i + 4, j : j + 4].ravel() for i in range(0, 20, 4) for j in range(0, 28, 4)]
    each = np.array([stats.entropy(np.unique(box, return_counts=True)[1]) for box in cut])
    assert (found.boxes, found.boundary_boxes) == (35, (each > 0).sum())
    assert found.entropy == pytest.approx(each.mean())
    assert found.boundary_entropy == pytest.approx(each[each > 0].mean())


def test_random_boxes_estimate_the_mean_over_all_places(rng, key):
    labels = (rng.random((40, 50)) < np.linspace(0, 0.3, 50)).astype(np.int8)
    windows = np.lib.stride_tricks.sliding_window_view(labels, (5, 5)).mean(axis=(2, 3))
    exact = special.entr(windows) + special.entr(1 - windows)
    found = basin_entropy(labels, 5, key=key, boxes=20_000, confidence=0.999)
    assert found.boxes == 20_000
    assert found.interval[0] < exact.mean() < found.interval[1]
    assert found.boundary_interval[0] < exact[exact > 0].mean() < found.boundary_interval[1]
    # The bootstrap is that of a mean of independent boxes.
    half = 3.29 * exact.std() / np.sqrt(20_000)
    assert (found.interval[1] - found.interval[0]) / 2 == pytest.approx(half, rel=0.1)


def test_no_straight_edge_is_above_its_bound(rng, key):
    i, j = np.meshgrid(np.arange(500), np.arange(500), indexing="ij")
    for angle in rng.uniform(0, 2 * np.pi, size=10):
        halves = (np.cos(angle) * (i - 250.3) + np.sin(angle) * (j - 249.1) > 0).astype(int)
        found = basin_entropy(halves, 5, key=key)
        assert 0.4 < found.boundary_entropy <= found.straight_edge + 0.02
        assert not found.fractal
    bands = np.stack([np.where(i < 250 + k, 0, 1) for k in range(1, 5)])  # every place an edge can have in a box
    assert np.mean([basin_entropy(band, 5, key=key).boundary_entropy for band in bands]) == pytest.approx(
        found.straight_edge
    )


def test_log_two_needs_three_labels(rng, key):
    two, three = (basin_entropy(rng.integers(n, size=(100, 100)), 5, key=key) for n in (2, 3))
    assert three.fractal
    assert three.rough
    assert two.boundary_entropy < np.log(2)
    assert not two.fractal
    assert two.rough


def test_one_basin_has_no_boundary(key):
    found = basin_entropy(np.ones((100, 100), np.int8), 5, key=key)
    assert (found.entropy, found.boundary_boxes, found.interval[0]) == (0.0, 0, 0.0)
    assert 0 < found.interval[1] < 0.05
    assert np.isnan(found.boundary_entropy)
    assert not found.fractal


@pytest.mark.slow
def test_newton_basins_are_wada(newton_picture, key):
    assert basin_entropy(newton_picture, 5, key=key).fractal
    assert basin_entropy(newton_picture, 5, key=key, boxes=30_000).fractal


def test_entropy_of_bad_input(key):
    square = np.zeros((10, 10), int)
    for labels in (np.zeros((10, 10)), np.zeros(10, int)):
        with pytest.raises(ValueError, match="integer labels"):
            basin_entropy(labels, key=key)
    with pytest.raises(ValueError, match="at most 10 cells"):
        basin_entropy(square, 11, key=key)
    with pytest.raises(ValueError, match="side"):
        basin_entropy(square, 1, key=key)
    with pytest.raises(ValueError, match="boxes"):
        basin_entropy(square, 5, key=key, boxes=0)
    with pytest.raises(ValueError, match="confidence"):
        basin_entropy(square, 5, key=key, confidence=1.0)


# The fit of a power law


def nested_counts(rng, share, samples=2**15):
    """Samples that hit all scales from a random one on, with the share asked for at every scale."""
    hit = rng.random(samples)[:, None] < share[None, :]
    return fractal.Counts.of(hit @ (1 << np.arange(len(share))), len(share))


def test_law_and_its_interval_are_found(rng):
    scales, exponent = 0.5 ** np.arange(12), 0.7
    covered = 0
    for _ in range(100):
        counts = nested_counts(rng, 0.2 * scales**exponent)
        line = fractal.fit(counts, scales, counts.hits >= 30, 0.0, 0.01)
        low, high = fractal.bootstrap(counts, line, 0.0, 400, 0.95, rng)
        covered += low < exponent < high
    assert covered >= 88  # 95 expected, less what the selection of the range costs; binomial
    assert line.used.sum() >= 6


def test_bent_law_is_fitted_only_where_it_is_straight(rng):
    scales = 0.5 ** np.arange(14)
    share = 0.3 * np.where(scales > 2.0**-6, scales**0.1 * 2.0**-2.4, scales**0.5)  # meet at 2^-6
    counts = nested_counts(rng, share, 2**20)
    line = fractal.fit(counts, scales, np.ones(14, bool), 0.0, 0.05)
    np.testing.assert_array_equal(np.flatnonzero(line.used), np.arange(6, 14))
    assert line.slope == pytest.approx(0.5, abs=0.02)


def test_no_range_no_exponent(rng):
    counts = nested_counts(rng, np.array([0.2, 0.1, 0.05, 0.025]))
    line = fractal.fit(counts, 0.5 ** np.arange(4), np.array([True, True, True, False]), 0.02, 0.05)
    assert np.isnan(line.slope)
    assert not line.used.any()
    assert np.isnan(fractal.bootstrap(counts, line, 0.02, 100, 0.95, rng)).all()


# The uncertainty exponent


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow) for seed in range(4)])
def test_smooth_control(seed):
    """The basin of the plain product is an ellipse; by Crofton's formula f = 2 eps length / pi area of the box."""
    ellipse = scalar.trapping_ellipse(0.3, 1.0, 1.0)
    length = 4 * ellipse.along * special.ellipe(1 - (ellipse.across / ellipse.along) ** 2)
    found = smooth(jax.random.key(seed))
    assert found.interval[0] < 1 < found.interval[1]
    assert found.dimension_interval[0] < 1 < found.dimension_interval[1]
    assert not found.fractal
    assert not found.precision_limited.any()
    assert found.used.sum() >= 6
    expected = found.samples * 2 * found.scales * length / (np.pi * 64)
    chosen = found.scales < 0.3
    assert (abs(found.hits - expected)[chosen] < 4 * np.sqrt(expected[chosen]) + 1).all()


@pytest.mark.slow
def test_without_decay_the_edge_is_smooth_and_with_it_fractal():
    """Which of the two minima is reached, if any: the exponent is far from 1, and keys agree on it."""
    control = smooth(loss=RegularisedProduct(decay=0.0, target=1.0, scale=1.0))
    assert control.interval[0] < 1 < control.interval[1]
    side = [
        smooth(
            jax.random.key(seed), loss=RegularisedProduct(decay=0.2, target=1.0, scale=0.5), step_size=1.0,
            stopping=StoppingRule(loss_tol=None, grad_tol=1e-9, max_steps=20_000, escape_radius=1e3), label=which_side,
        )
        for seed in range(3)
    ]  # fmt: skip
    for found in side:
        assert found.fractal
        assert found.interval[1] < 0.75
        assert found.used.sum() >= 10
        assert found.undecided.max() < 1e-3
    lows, highs = zip(*(found.interval for found in side), strict=True)
    assert max(lows) < min(highs)


def which_side(theta):
    return (theta[0] + theta[1] > 0).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_newton_has_the_dimension_of_its_julia_set(newton_picture, seed):
    exact = julia_dimension()
    assert exact == pytest.approx(julia_dimension(start=0.3 + 0.4j), abs=1e-3)
    assert box_counting_dimension(newton_picture) == pytest.approx(exact, abs=0.05)
    found = newton(jax.random.key(seed))
    assert found.dimension_interval[0] < exact < found.dimension_interval[1]
    assert found.dimension == pytest.approx(exact, abs=0.03)
    assert found.saturation == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("measure", "exact"), [(smooth, 1.0), (newton, 2 - julia_dimension())])
def test_intervals_cover(measure, exact):
    """At least 93 of 100 intervals of 95 % hold the exponent, the selection of the range included."""
    found = [measure(jax.random.key(1000 + seed), samples=2**14).interval for seed in range(100)]
    assert sum(low < exact < high for low, high in found) >= 93


@pytest.mark.slow
def test_scales_below_single_precision_are_flagged():
    """Where single precision is not flagged it agrees with double; where distances are no longer resolved it is."""
    scales = np.geomspace(1e-9, 0.1, 17)
    single, double = (newton(scales=scales, dtype=dtype) for dtype in ("float32", "float64"))
    assert not double.precision_limited.any()
    np.testing.assert_array_equal(single.precision_limited, single.scales < 32 * 2.0**-23 * 2)
    good = ~single.precision_limited
    apart = abs(single.hits - double.hits) / np.sqrt(single.hits + double.hits + 1)
    assert (apart[good] < 4).all()
    assert not (single.used & single.precision_limited).any()


@pytest.mark.slow
def test_chaos_leaves_nothing_to_fit():
    """A chaotic transient of hundreds of steps blows roundings up to the size of the box: no scale shows geometry."""
    found = smooth(
        loss=quartic, step_size=1.0, box=((-2, 2),), samples=2**12, stopping=StoppingRule(loss_tol=None, max_steps=200)
    )
    assert found.precision_limited.all()
    assert found.rounding_share > found.saturation / 4
    assert np.isnan([found.exponent, *found.interval, found.dimension]).all()
    assert not found.used.any()
    assert not found.fractal


def quartic(theta):
    """Descent with step 1 is x -> 3.0002 x - x^3, just past its last crisis: orbits stay for long, and then escape."""
    return theta[0] ** 4 / 4 - 1.0001 * theta[0] ** 2


def test_a_box_inside_one_basin():
    found = smooth(box=((0.9, 1.1), (0.9, 1.1)))
    assert (found.hits == 0).all()
    assert found.saturation == 0
    assert np.isnan(found.exponent)


@pytest.mark.slow
def test_slices_equal_the_plane_they_cut():
    plain = smooth(samples=2**12)
    by_axes = smooth(samples=2**12, loss=VectorProduct(dim=2, target=1.0, scale=1.0), plane=(0, 2), dim=4)
    np.testing.assert_array_equal(by_axes.hits, plain.hits)
    assert by_axes.axes == 2


def test_order_of_scales_does_not_matter():
    scales = [0.01, 1.0, 0.1, 0.03, 0.3]
    first, second = smooth(samples=2**12, scales=scales), smooth(samples=2**12, scales=sorted(scales))
    np.testing.assert_array_equal(first.scales, sorted(scales, reverse=True))
    np.testing.assert_array_equal(first.hits, second.hits)
    assert first.interval == second.interval


def test_bad_input():
    for scales in ([0.1, 0.2], [[0.1, 0.2, 0.3, 0.4]], np.linspace(0.1, 1, 63)):
        with pytest.raises(ValueError, match="4 to 62 scales"):
            smooth(scales=scales)
    for scales in ([0.1, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3, np.inf], [0.1, 0.2, 0.3, 0.0]):
        with pytest.raises(ValueError, match="different, positive, finite"):
            smooth(scales=scales)
    with pytest.raises(ValueError, match="one step size"):
        smooth(step_size=[0.1, 0.2])
    with pytest.raises(ValueError, match="holds no point"):
        smooth(box=((1, 1), (0, 1)))
    with pytest.raises(ValueError, match="2 axes"):
        smooth(box=((0, 1), (0, 1), (0, 1)), plane=(0, 1))
    with pytest.raises(ValueError, match="confidence"):
        smooth(confidence=95.0)
    with pytest.raises(ValueError, match="samples"):
        smooth(samples=0)
    with pytest.raises(ValueError, match="label"):
        smooth(label=lambda theta: theta[0])
