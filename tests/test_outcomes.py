"""Where theta, the loss or the gradient is no number: the same verdict from one orbit and from the engine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdstab as gd
from gdstab.outcomes import Outcome, StoppingRule, moving, verdict

STARTS = np.array([
    [-1.0, 0.0], [-1.0, 0.5], [-2.0, 1.0], [2.0, 1.0], [np.nan, 1.0], [1e7, 0.0], [-1e7, 0.0], [0.0, 1.0],
])  # fmt: skip


class Barrier(eqx.Module):
    """`x^2 / 2 - log x + y^2`: its gradient (x - 1/x, 2y) is finite, and vanishes, where x < 0 and it is nan."""

    loss_floor: float = 0.5

    def __call__(self, theta):
        return 0.5 * theta[0] ** 2 - jnp.log(theta[0]) + theta[1] ** 2


def wall(theta):
    """Infinite, and flat, for x < 0."""
    return jnp.where(theta[0] < 0, jnp.inf, theta[0] ** 2) + theta[1] ** 2


def well(theta):
    """Down to -inf, with a finite slope, for x < 0."""
    return jnp.where(theta[0] < 0, -jnp.inf, theta[0] ** 2) + theta[1] ** 2


def kink(theta):
    """Finite everywhere; its gradient is nan at x = 0."""
    return 1.0 + jnp.sqrt(theta[0] ** 2) + theta[1] ** 2


NONFINITE, CONVERGED, DIVERGED, UNDECIDED = Outcome.NONFINITE, Outcome.CONVERGED, Outcome.DIVERGED, Outcome.UNDECIDED
BEYOND = [NONFINITE, DIVERGED, DIVERGED]
EVERY_TEST = {"grad_tol": 1e-8, "max_period": 4}
BY_GRADIENT = {"loss_tol": None, "grad_tol": 1e-8}
NO_TOLERANCE = {"loss_tol": None, "max_period": 4}
CASES = {
    "barrier": (Barrier(), EVERY_TEST, [NONFINITE] * 3 + [CONVERGED, *BEYOND, NONFINITE]),
    "barrier, no tolerance": (Barrier(), NO_TOLERANCE, [NONFINITE] * 3 + [UNDECIDED, *BEYOND, NONFINITE]),
    "barrier, gradient": (Barrier(), BY_GRADIENT, [NONFINITE] * 3 + [CONVERGED, *BEYOND, NONFINITE]),
    "barrier, loss": (Barrier(), {}, [NONFINITE] * 3 + [CONVERGED, *BEYOND, NONFINITE]),
    "wall": (wall, EVERY_TEST, [NONFINITE] * 3 + [CONVERGED, *BEYOND, CONVERGED]),
    "well": (well, {}, [NONFINITE] * 3 + [CONVERGED, *BEYOND, CONVERGED]),
    "kink": (kink, {"grad_tol": 1e-8}, [UNDECIDED] * 4 + [*BEYOND, NONFINITE]),
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c == "barrier" else pytest.mark.slow) for c in CASES],
)
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
def test_what_is_no_number_is_nonfinite(case, dtype):
    loss, tests, expected = CASES[case]
    stopping, starts = StoppingRule(max_steps=40, **tests), STARTS.astype(dtype)
    step_size = 0.2 if case != "kink" else 0.15
    ends = gd.run(gd.gradient_descent(), loss, starts, step_size, stopping)
    alone = jax.jit(jax.vmap(lambda theta: gd.settle(gd.gradient_descent(), loss, theta, step_size, stopping)))(starts)
    if dtype == "float64":
        assert [Outcome(code).name for code in ends.outcome] == [outcome.name for outcome in expected]
    for name in ("outcome", "steps", "period"):
        np.testing.assert_array_equal(getattr(ends, name), getattr(alone, name), err_msg=name)
    assert not ends.steps[4:7].any()


@pytest.mark.parametrize(
    "tests",
    [pytest.param({}, marks=pytest.mark.slow), {"grad_tol": 1e-8}, pytest.param(BY_GRADIENT, marks=pytest.mark.slow)],
)
def test_an_orbit_goes_on_where_there_is_no_verdict(tests):
    """`moving` and `verdict` agree, but where a loss has overflowed: theta may leave the ball at the next update."""
    stopping = StoppingRule(**tests)
    for loss in (Barrier(), wall, well, kink):

        @jax.jit
        @jax.vmap
        def look(theta, loss=loss):
            return verdict(loss, theta, stopping), moving(loss, theta, stopping), jnp.isposinf(loss(theta))

        seen, goes_on, infinite = (np.asarray(found) for found in look(STARTS))
        overflown = infinite & (seen == NONFINITE)
        np.testing.assert_array_equal(goes_on[~overflown], (seen == UNDECIDED)[~overflown])


def test_diverged_where_the_loss_has_overflowed():
    """Outside of the ball the loss is not asked."""
    power = lambda theta: theta[0] ** 60 - theta[1] ** 60  # noqa: E731 (inf - inf far out)
    assert np.isnan(power(jnp.array([1e7, 1e7])))
    assert int(verdict(power, jnp.array([1e7, 1e7]), StoppingRule())) == DIVERGED
    assert bool(moving(power, jnp.array([9e5, 0.0]), StoppingRule()))
    end = gd.settle(gd.gradient_descent(), power, jnp.array([3.0, 0.0]), 0.1, StoppingRule(escape_radius=1e3))
    assert Outcome(int(end.outcome)) is DIVERGED
