"""Both ends of what is compared with an epsilon or a fixed small number, in both precisions, where no other test is.

`test_tolerances.py` lists all such comparisons.
"""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest

import gdstab
from gdstab import curvature, data, estimators, losses, outcomes, stability
from gdstab.basins.counting import Questions
from gdstab.basins.tallies import quantiles
from gdstab.bifurcation import points as branch_points
from gdstab.bifurcation._system import Point, System
from gdstab.boundaries.edges import _worth_cutting
from gdstab.flow import status
from gdstab.flow.deviation import plan
from gdstab.outcomes import Outcome
from gdstab.studies import building, options
from gdstab.studies.overfitting import endings

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_shares_sum_to_one(dtype):
    """As they come: three thirds of single precision are 1 + 3e-8."""

    def check(shares):
        Questions(None, (), None, (np.argmax, shares)).check("independent")

    for number in (3, 7, 10_000):
        shares = np.random.default_rng(0).uniform(1, 2, number)
        shares = (shares / shares.sum()).astype(dtype)
        check(shares)
        off = 100 * max(1e-9, float(np.finfo(dtype).eps) * min(number, 8 * number**0.5))
        with pytest.raises(ValueError, match="with sum 1"):
            check(shares * dtype(1 + off))
    check((np.ones(3, dtype) / dtype(3)).tolist() if dtype == np.float64 else np.ones(3, dtype) / dtype(3))


def test_quantiles_of_few_and_of_many():
    """0.7 * 10 is above 7 in floating point; one lane of 1e11 is still one."""
    for unit in (1, 10**10):
        assert quantiles(np.array([7, 3]) * unit, (0.7,)).tolist() == [0]
        assert quantiles(np.array([7 * unit - 1, 3 * unit + 1]), (0.7,)).tolist() == [1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_brackets_no_narrower_than_their_floats(dtype):
    rule, loss, eps = gdstab.gradient_descent(), losses.Quadratic(np.eye(2)), float(np.finfo(dtype).eps)
    starts, bounded = np.ones((1, 2), dtype), gdstab.bifurcation.last_bounded
    with pytest.raises(ValueError, match="rtol"):
        bounded(rule, loss, starts, 1.0, 3.0, rtol=3.9 * eps)
    with pytest.raises(ValueError, match="rtol"):
        gdstab.boundaries.critical_step(
            rule, loss, starts, low=1.0, high=3.0, rtol=7.9 * eps, stopping=outcomes.StoppingRule()
        )


class Multipliers(System):
    """A branch as `find_between` sees it: multipliers at every share of the way between two points."""

    def __init__(self, dtype, at):
        self.dtype, self.at = np.dtype(dtype), at

    def between(self, _a, _b, share, **_):
        point = Point(np.zeros(2), share, np.asarray(self.at(share), complex), np.ones(3), np.zeros(2), 2)
        return point._replace(multipliers=point.multipliers.astype(np.result_type(self.dtype, np.complex64)))

    def kinds(self):
        ends = (self.between(None, None, share) for share in (0.0, 1.0))
        return [kind.value for kind, _ in branch_points.find_between(self, *ends, 0, fixed=True)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_flips_are_told_from_jumps(dtype):
    """A multiplier that passes -1, however steeply; a pair that meets the axis beyond it, however near, is another."""
    for steep in (1e-4, 1e-2, 1.0):
        assert Multipliers(dtype, lambda s, c=steep: [-1 - c * (s - 0.3), 0.1]).kinds() == ["flip"]
    for near in (0.01, 0.5):

        def pair(share, near=near):
            root = np.sqrt(complex(share - 0.3)) / 50
            return [-1 - near + root, -0.99 + near if share > 0.3 else -1 - near - root]

        assert "flip" not in Multipliers(dtype, pair).kinds()


@pytest.mark.parametrize("dtype", DTYPES)
def test_brackets_of_neighbouring_floats_are_left_alone(dtype):
    for unit in (1e-15, 1.0, 1e15):
        low = np.array([1.0, 0.5], dtype) * dtype(unit)
        for floats, worth in ((1, False), (8, True)):
            ends = np.stack([low, low + floats * np.spacing(low)])[None]
            middle = (ends.sum(axis=1) / 2)[:, None].astype(dtype)
            assert _worth_cutting(ends, middle, 0.0).tolist() == [worth]
            assert not _worth_cutting(ends, middle, 0.1 * unit).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_are_symmetric_to_their_rounding(dtype):
    root = float(np.finfo(dtype).eps) ** 0.5
    for unit in (1e-30, 1.0, 1e30):
        for size in (2, 60):
            matrix = np.eye(size, dtype=dtype) * dtype(unit)
            matrix[0, 1] = 0.5 * root * unit
            curvature.inertia_of_matrix(matrix)
            matrix[0, 1] = 2 * root * unit
            with pytest.raises(ValueError, match="symmetric"):
                curvature.inertia_of_matrix(matrix)


@pytest.mark.parametrize("dtype", DTYPES)
def test_directions_that_are_rounding_are_missing(dtype):
    """A third of a column, rounded, is no direction of its own, and neither is a constant once it is subtracted."""
    x, eps = np.random.default_rng(0).standard_normal(200), float(np.finfo(dtype).eps)
    for unit in (1e-15, 1.0, 1e15):
        column = (x * unit).astype(dtype)
        with pytest.raises(ValueError, match="rank 1"):
            data.whiten(np.stack([column, column / dtype(3)], axis=1))
        with pytest.raises(ValueError, match="rank 1"):
            data.whiten(np.stack([column, np.full(200, 1e6 / 3 * unit, dtype)], axis=1), centre=True)
        thin = np.stack([column, (column / 3 + 1000 * eps * unit * np.cos(np.arange(200))).astype(dtype)], axis=1)
        assert data.whiten(thin).inputs.shape == (200, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_weights_are_equal_whatever_their_number(dtype):
    """Binomial below 20 hits and normal from there, whatever weights of a million strata round to; and not unequal."""
    for number in (3, 1_000_000):
        weights = (np.ones(number) / number).astype(dtype)
        for hits in (19, 20):
            counts = np.zeros(number, int)
            counts[0] = hits
            found = estimators.stratified(counts, 40, weights)
            assert str(found.method) == ("stratified" if hits >= 20 else "clopper-pearson")
        counts[0] = 3
        weights[0] *= dtype(1 + 1e-5)
        assert str(estimators.stratified(counts, 40, weights).method) == "gamma"


def test_sums_in_another_order_are_the_same():
    weights = np.random.default_rng(0).uniform(0, 1, 1_000_000)
    every = weights.sum(), (weights**2).sum()
    for off in (1 + 1e-10, 1.0, np.cumsum(weights[::-1])[-1] / every[0]):
        assert estimators.weighted((every[0] * off, every[1]), every, 1.0).high == 1
    for off in ((1 + 1e-8, 1.0), (1.0, 1 + 1e-8)):
        with pytest.raises(ValueError, match="sums over the hits"):
            estimators.weighted((every[0] * off[0], every[1] * off[1]), every, 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_times_are_whole_numbers_of_steps(dtype):
    for unit in (1e-15, 1.0, 1e15):
        for number in (3, 100_000):
            step = dtype(0.1 * unit)
            time = float(dtype(number * 0.1 * unit))
            assert plan(np.array([step]), time, 10).updates.max() == number
            assert plan(np.array([step]), time * (1 - 0.1 / number), 10).updates.max() == number - 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_end_of_a_flow_is_on_its_way(dtype):
    check = importlib.import_module("gdstab.flow.gradient_flow")._check_times
    for time in (1e-15 / 3, 1 / 3, 1e15 / 3):
        check(time, np.linspace(0, time, 7).astype(dtype))
        with pytest.raises(ValueError, match="1 outside"):
            check(time, np.array([0, time * (1 + 3e-6)], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_end_of_the_worst_case_is_on_its_way(dtype):
    loss = losses.WorstCase()
    end = loss.arrivals(loss.start()).end
    for near in (np.array(end).astype(dtype), np.nextafter(dtype(end), dtype(0))):
        assert np.isfinite(loss.flow(loss.start(), np.array([0, near], dtype))).all()
    with pytest.raises(ValueError, match="vector of times"):
        loss.flow(loss.start(), np.array([0, end * (1 + max(1e-11, 4 * np.finfo(dtype).eps))], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_time_that_cannot_go_on(dtype):
    eps, no = float(np.finfo(dtype).eps), jnp.asarray(False)
    for norm in (1e-10, 1.0, 1e10):
        for share, name in ((0.5, "STALLED"), (2.0, "ESCAPED")):
            speed = share * 1e-3 * (1 + norm) / (3.0 * eps)
            found = status.judge(
                jnp.asarray([norm], dtype), jnp.asarray([speed], dtype), jnp.asarray(3.0, dtype),
                settled=no, escaped=no, finished=no, blocked=no,
            )  # fmt: skip
            assert int(found) == status.FlowStatus[name]


@pytest.mark.parametrize("dtype", DTYPES)
def test_forms_of_low_rank_have_a_floor(dtype):
    for size in (2, 60):
        vector = np.random.default_rng(0).uniform(1, 2, size).astype(dtype)
        for unit in (1e-15, 1.0, 1e15):
            form = np.outer(vector, vector) * dtype(unit)
            assert losses.Quadratic(form).loss_floor == 0
            form[0, 0] -= 0.1 * dtype(unit)
            assert losses.Quadratic(form).loss_floor == -np.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_radii_and_gradients_that_floats_hold(dtype):
    info = np.finfo(dtype)
    largest, smallest = float(info.max) ** 0.5, float(info.tiny) ** 0.5
    outcomes.check_range(outcomes.StoppingRule(escape_radius=0.99 * largest, grad_tol=1.01 * smallest), dtype)
    for bad in ({"escape_radius": 1.01 * largest}, {"grad_tol": 0.99 * smallest}):
        with pytest.raises(ValueError, match="use at"):
            outcomes.check_range(outcomes.StoppingRule(**bad), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rotation_does_not_grow(dtype):
    turn, root = np.array([[0.6, -0.8], [0.8, 0.6]], dtype), float(np.finfo(dtype).eps) ** 0.5
    assert stability.kreiss_bound(turn, radii=2, angles=4) < 1.01
    with pytest.raises(ValueError, match="outside the unit circle"):
        stability.kreiss_bound(turn * dtype(1 + 2 * root), radii=2, angles=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lean", [0.0, 0.5])
def test_a_rotation_stays_in_the_stable_space(dtype, lean):
    """Symmetric and not; in 40 dimensions the modulus 1 is 1 only to rounding."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    inside = np.diag(np.r_[np.ones(20), np.full(20, 0.5)]) + lean * np.diag(np.r_[np.zeros(20), np.ones(19)], 1)
    matrix = (basis @ inside @ basis.T).astype(dtype)
    assert stability.splitting(matrix).unstable_basis.shape == (40, 0)
    out = 1 + 3 * float(np.finfo(dtype).eps) ** 0.5
    assert stability.splitting(matrix * dtype(out)).unstable_basis.shape == (40, 20)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_minimum_whose_floor_is_large(dtype):
    """A valley at the height c, rounded up there by some floats, is one of minima; above it it is degenerate."""
    eps = float(np.finfo(dtype).eps)

    class Valley:
        loss_floor = 1000.0

        def __call__(self, theta):
            return theta[0] ** 2 / 2 + jnp.asarray(self.height, dtype)

    for above, kind in ((8 * eps, "MINIMUM"), (max(256 * eps, 1e-6), "DEGENERATE")):
        loss = Valley()
        loss.height = 1000 * (1 + above)
        assert int(stability.classify(loss, jnp.asarray([0.0, 1.0], dtype)).kind) == stability.Kind[kind]


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_a_floor_is_looked_at_in_the_units_of_the_loss(tmp_path, unit):
    """A floor that is missed by 1e-7 of its values is met, in single precision; by 1e-5 it is not."""
    for dip, fine in ((1e-7, True), (1e-5, False)):
        path = tmp_path / f"dip_{fine}.py"
        path.write_text(f"def loss(theta):\n    return {unit} * (abs(theta[0] + 1) + theta[0] + 1 - {dip})\n")
        told = options.Custom(f"{path}:loss")
        if fine:
            building.build_loss(told)
            continue
        with pytest.raises(ValueError, match="below its floor"):
            building.build_loss(told)


@pytest.mark.parametrize("dtype", DTYPES)
def test_minima_are_sampled_in_any_units(dtype):
    unit = 1e8 if dtype == np.float32 else 1e12  # rounding alone leaves more than the root of epsilon
    found = building.sample_minima(options.Scalar(target=unit), 3, unit**0.5, 0, dtype)
    np.testing.assert_allclose(found.astype(float).prod(axis=1) / unit, 1, rtol=20 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_a_stratum_to_a_thousandth(dtype):
    target = endings.make_target(np.diag([1.2, 0.5]), (2, 2, 2), dtype)
    for off, known in ((0.9e-3, True), (1.1e-3, False)):
        first = np.diag([1.2 * (1 + off), 0.5])[None].astype(dtype)
        value, theta = np.array([target.values.min()]), (first, np.eye(2, dtype=dtype)[None])
        ends = endings.identify(target, theta, value, np.array([Outcome.CONVERGED]))
        assert (int(ends.stratum[0]) == target.minimum) == known
