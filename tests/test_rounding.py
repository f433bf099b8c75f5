"""Rounding is not structure: both ends of the range of what is compared with an epsilon, in both precisions."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdstab import bifurcation, curvature, ensembles, outcomes, stability, updates
from gdstab._numerics import identity_tolerance, length, rank_tolerance, rounding
from gdstab.data import whiten
from gdstab.losses import ScalarProduct
from gdstab.theory import linear, scalar, strata

DTYPES = [np.float32, np.float64]


#
# Lengths and spectra
#


@pytest.mark.parametrize(("dtype", "far"), [(np.float32, 2.0**100), (np.float64, 2.0**900)])
def test_lengths_scale_to_the_last_bit(rng, dtype, far):
    x = jnp.asarray(rng.standard_normal(50), dtype)
    near = float(length(x))
    assert near == float(jnp.linalg.norm(x))
    assert float(length(x * dtype(far))) == near * far
    assert float(length(x / dtype(far))) == near / far
    assert [float(length(jnp.full(2, value, dtype))) for value in (0, np.inf)] == [0.0, math.inf]


@pytest.mark.slow
def test_lanczos_in_single_precision_finds_what_lies_below_a_large_eigenvalue():
    """Couplings near 1 beside an eigenvalue 100 are no rounding of 1e5 entries; -1 was missed by 0.21."""
    n = 100_000
    values = np.random.default_rng(0).uniform(0, 1, n).astype(np.float32)
    values[:3] = 100.0, -1.0, -0.9
    found = curvature.extreme_eigenvalues(
        lambda x: 0.5 * jnp.sum(jnp.asarray(values) * x**2), jnp.zeros(n, jnp.float32), num_matvecs=48
    )
    assert float(found.smallest.value) == pytest.approx(-1.0, abs=1e-4)
    assert float(found.largest.value) == pytest.approx(100.0, rel=1e-6)


def test_lanczos_scales_with_the_loss():
    """Value, residual and vector are those of the loss itself: squares of 1e-22 are zero in 32 bits."""
    values = jnp.linspace(-1, 1, 600, dtype=jnp.float32)

    @jax.jit
    def ends(scale):
        diagonal = values * scale
        return curvature.extreme_eigenvalues(
            lambda x: 0.5 * jnp.sum(diagonal * x**2), jnp.zeros(600, jnp.float32), num_matvecs=30
        )

    unscaled = ends(np.float32(1))
    for far in (2.0**-100, 2.0**-73, 2.0**66):
        for near, scaled in zip(unscaled, ends(np.float32(far)), strict=True):
            assert float(scaled.value) / far == pytest.approx(float(near.value), rel=1e-5)
            assert float(scaled.residual) / far == pytest.approx(float(near.residual), rel=1e-2)
            assert abs(float(scaled.vector @ near.vector)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 5000])
def test_counts_of_signs_at_both_ends(dtype, n):
    """Rounding of a large matrix is zero, ten times the tolerance is not, whatever the units."""
    eps, tol = np.finfo(dtype).eps, rank_tolerance((n,), dtype)
    assert tol < 1e-4
    for unit in (1e-30, 1.0, 1e30):
        values = np.full(n, unit, dtype)
        values[:2] = -10 * tol * unit, min(n, 3 * n**0.5) * eps * unit
        counts = curvature.count_signs(jnp.asarray(values))
        assert [int(count) for count in counts] == [1, 1, n - 2]


#
# Ranks, ties, whiteness
#


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_samples_have_the_rank_they_have(dtype):
    """60 000 samples of condition 1000: n epsilon in single precision was 0.007, and refused them."""
    m = 60_000
    X = np.zeros((2, m), dtype)
    X[0, : m // 2], X[1, m // 2 :] = 1.0, 1e-3
    target = np.array([[2.0, 3.0]], dtype)
    for unit in (1e-15, 1.0, 1e15):
        assert np.asarray(linear.optimal_map(X * dtype(unit), target @ X)) * unit == pytest.approx(target, rel=1e-3)
    with pytest.raises(ValueError, match="rank 1"):
        linear.optimal_map(np.stack([X[0], X[0] * dtype(1 / 3)]), X[:1])
    assert whiten(X.T).inputs.shape == (m, 2)
    assert rounding((m, 2), dtype) < 2400 * np.finfo(dtype).eps


@pytest.mark.parametrize(
    ("dtype", "off"), [pytest.param(np.float32, 3e-3, marks=pytest.mark.slow), (np.float32, 1e-4), (np.float64, 1e-7)]
)
def test_almost_white_data_are_not_white(dtype, off):
    """X = diag(1 + d, 1), w = (0, 1): by hand min over t of max(t (1 + d)^2, t + 1/t) / 2 gives 1 for d below 0.4."""
    X, Y = np.diag([1 + off, 1.0]).astype(dtype), np.array([[0.0, 1.0]], dtype)
    exact = 2 / max(2.0, (1.0 + off) ** 2)
    found = linear.critical_step(X, Y, (2, 1, 1))
    assert found == pytest.approx(exact, rel=2e-7 if dtype == np.float32 else 1e-11)
    assert not linear.reduce_data(X, Y).isometric
    with pytest.raises(ValueError, match="not whitened"):
        linear.critical_step(X, np.eye(2, dtype=dtype), (2, 2, 2, 2))


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_white_data_are_white(rng, dtype):
    X = np.linalg.qr(rng.standard_normal((400, 5)))[0].T.astype(dtype)
    Y = rng.standard_normal((5, 400)).astype(dtype)
    sigma = np.linalg.norm(Y.astype(float) @ X.T.astype(float), 2)
    for unit in (1e-12, 1.0, 1e12):
        # X -> u X, Y -> v Y: the target Y X^T / (X X^T) by v / u, the scale by u^2; here v = u
        found = linear.critical_step(X * dtype(unit), Y * dtype(unit), (5, 5, 5))
        assert found * unit**2 == pytest.approx(1 / sigma, rel=float(20 * np.finfo(dtype).eps))
    assert linear.reduce_data(X, Y).isometric
    assert identity_tolerance(dtype) < 3e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_are_ties_of_the_dtype(dtype):
    third = np.array([1.0, 1 / 3, 1 / 3], dtype)
    third[2] += np.spacing(third[2])
    with pytest.warns(UserWarning, match="tied"):
        strata.critical_inertia(third, (3, 3, 3), (0,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strata.critical_inertia(np.array([1.0, 0.5, 0.4999], dtype), (3, 3, 3), (0,))
        linear.reduced_rank_map(np.eye(2, dtype=dtype), np.diag([1.0, 0.9999]).astype(dtype), 1)


#
# Areas and lengths in a box
#

EDGE = math.sqrt(4 / 0.6 - 0.6)  # of the ellipse at y = 0, step size 0.3, scale 1


@pytest.mark.parametrize("side", [1e-2, 1e-5, 1e-9])
def test_areas_of_tiny_boxes(side):
    """Inside their own, outside none, and across the edge at y = 0 the triangle under the tangent, (1, -0.3)."""
    inside, outside = ((1.0, 1.0 + side), (0.5, 0.5 + side)), ((3.0, 3.0 + side), (-3.0, -3.0 + side))
    own = (inside[0][1] - 1.0) * (inside[1][1] - 0.5)
    assert scalar.trapping_area(0.3, scale=1.0, box=inside) == pytest.approx(own, rel=1e-12)
    assert scalar.trapping_area(0.3, scale=1.0, box=outside) == 0.0
    cut = scalar.trapping_area(0.3, scale=1.0, box=((EDGE - side, EDGE + side), (-side, side)))
    assert cut == pytest.approx(2 * side**2, rel=max(side, 1e-5))  # the tangent runs through the centre of the box


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_areas_and_lengths_have_the_units_of_theta(unit):
    """Theta -> t theta takes target to t^2 and step size to t^-2."""
    step, target, box = 0.3 / unit**2, unit**2, np.array([(-1, 2), (0.5, 3)]) * unit
    assert scalar.trapping_area(step, target, 1.0, box) / unit**2 == pytest.approx(5.725340169094688, rel=1e-12)
    assert scalar.minima_length(((0.5 * unit, 2 * unit), (0, 9 * unit)), target) / unit == pytest.approx(
        2.26418078661182, rel=1e-12
    )
    far = 1e10 * unit
    whole = scalar.trapping_area(step, target, 1.0)
    assert scalar.trapping_area(step, target, 1.0, ((-far, far), (-far, far))) == pytest.approx(whole, rel=1e-14)
    assert scalar.minima_length(((-far, far), (-far, far)), target) == pytest.approx(4 * far, rel=1e-9)


@pytest.mark.parametrize("side", [1e-3, 1e-7, 1e-11])
def test_lengths_in_tiny_boxes(side):
    """The hyperbola through (1, 1) crosses a box about it from corner to corner; past the corner it does not."""
    x1 = 1 + side
    assert scalar.minima_length(((1.0, x1), (0.5, 2.0))) == pytest.approx(2**0.5 * (x1 - 1), rel=2 * side + 1e-12)
    assert scalar.minima_length(((x1, 2.0), (1.0, 2.0))) == 0.0
    arc = scalar.stable_minima(0.5 * (1 - side), scale=1.0)
    # x^2 between 1 -+ sqrt(2 side): length 2 sqrt 2 sqrt(2 side), both branches
    assert arc.length == pytest.approx(4 * math.sqrt(side), rel=2 * side + 1e-5)


#
# Determinants
#


@pytest.mark.parametrize(
    ("n", "width", "dtype"),
    [
        pytest.param(2, 3.0, np.float32, marks=pytest.mark.slow),
        (2, 3.0, np.float64),
        (61, 30.0, np.float32),
        pytest.param(61, 30.0, np.float64, marks=pytest.mark.slow),
    ],
)
def test_the_singular_set_where_determinants_leave_the_range_of_floats(n, width, dtype):
    """L = sum x_i^4 / 12, plane (s, t) -> s + t on x_0, s elsewhere: |s| = 1 and |s + t| = 1 only."""
    plane = (jnp.zeros(n, dtype), jnp.ones(n, dtype), jnp.zeros(n, dtype).at[0].set(1.0))
    curves = stability.singular_set(
        lambda x: jnp.sum(x**4) / 12, ((-width, width),) * 2, 1.0, resolution=32, plane=plane
    )
    points, cell = np.concatenate(curves), 2 * width / 31
    off = np.minimum(abs(abs(points[:, 0]) - 1), abs(abs(points.sum(1)) - 1)) / cell
    assert off.max() <= 1.5
    assert np.linalg.norm(points - [0, 1], axis=1).min() <= 2 * cell


@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        pytest.param(2, np.float32, marks=pytest.mark.slow),
        (2, np.float64),
        (100, np.float32),
        pytest.param(100, np.float64, marks=pytest.mark.slow),
    ],
)
def test_a_determinant_is_constant_to_rounding_only(dtype, n):
    """A quadratic whose Hessian is computed through other numbers at every point; then one with a small quartic."""
    points = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (4, n)), dtype)
    weights = jnp.linspace(0.5, 1.5, n, dtype=dtype)
    quadratic = lambda x: jnp.sum(weights * (x - 1) * (x + 1) * 0.5)  # noqa: E731
    assert stability.non_singularity(quadratic, points, 0.5).constant
    assert not stability.non_singularity(lambda x: quadratic(x) + 1e-3 * jnp.sum(x**4), points, 0.5).constant


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_a_momentum_that_is_all_rounding_makes_no_cycle(dtype):
    """Parameters at rest, while the momentum goes round among the last bits: a fixed point, and no CYCLING.

    Where orbits really cycle, past the flip at 2 (1 + beta) / 4, they still do.
    """
    loss, rule = ScalarProduct(scale=1.0), updates.named("heavy-ball", beta=0.5)
    starts = np.random.default_rng(0).uniform(0.9, 1.05, (16, 1)).astype(dtype) * np.ones((1, 2), dtype)
    step_sizes = np.array([0.6, 0.7, 0.78], dtype)  # the flip is at 0.75
    periods = bifurcation.orbit_diagram(rule, loss, step_sizes, starts, transient=2000, kept=2, max_period=8).period
    assert periods[:2].tolist() == [[1] * 16] * 2
    assert np.count_nonzero(periods[2] == 2) >= 12
    stop = outcomes.StoppingRule(loss_tol=None, max_period=8, max_steps=3000)
    found = ensembles.run(rule, loss, starts, step_sizes, stop).outcome
    assert (found[:2] == outcomes.Outcome.UNDECIDED).all()  # nobody said when it has converged
    assert np.count_nonzero(found[2] == outcomes.Outcome.CYCLING) >= 12
