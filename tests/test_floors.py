"""Numbers that a loss tells are looked at: its floor, the entries that it reads, the tolerances it is run with."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdstab as gd
from gdstab import basins, boundaries, losses, orbits, stability
from gdstab._validate import check_loss
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.stability import Kind, Stability
from gdstab.studies import building, options

DESCENT = gd.gradient_descent()
BELOW = "below its floor"


def sunk(theta):
    """The minimum is -1 at 0, and no floor is declared."""
    return jnp.sum(theta**2) - 1


class Declared(eqx.Module):
    """As `sunk`, with a floor that is told."""

    loss_floor: float

    def __call__(self, theta):
        return sunk(theta)


POINTS = np.array([[0.9, 0.0], [0.1, 0.2]])
WAYS = {
    "run": lambda loss, stop: gd.run(DESCENT, loss, POINTS, 0.1, stop).steps,
    "settle": lambda loss, stop: gd.settle(DESCENT, loss, jnp.asarray(POINTS[0]), 0.1, stop).steps,
    "heatmap": lambda loss, stop: (
        basins.heatmap(DESCENT, loss, 0.1, box=((-2, 2), (-2, 2)), resolution=8, stopping=stop).steps
    ),
    "measure": lambda loss, stop: (
        basins.measure(
            DESCENT, loss, 0.1, gd.sampling.RandomSource.box(jax.random.key(0), 64, ((-2, 2), (-2, 2))), stopping=stop
        ).counts
    ),
    "critical_step": lambda loss, stop: (
        boundaries.critical_step(DESCENT, loss, POINTS, stopping=stop, low=0.01, high=1.5, scan=3).low
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_loss_below_its_floor_is_an_error(way):
    with pytest.raises(ValueError, match=BELOW) as error:
        WAYS[way](sunk, StoppingRule())
    assert "declares none" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_a_floor_that_is_told_wrong_and_right(dtype):
    points = POINTS.astype(dtype)
    for scale in (1e-20, 1.0, 1e20):  # whatever the units
        loss = lambda theta, c=scale: c * Declared(0.0)(theta)  # noqa: E731
        with pytest.raises(ValueError, match=BELOW):
            gd.run(DESCENT, loss, points, 0.1 / scale, StoppingRule(loss_tol=1e-7 * scale))
    with pytest.raises(ValueError, match=r"-0\.[0-9]+ where an orbit converged, below its floor -0\.5:"):
        gd.run(DESCENT, Declared(-0.5), points, 0.1, StoppingRule(loss_tol=1e-6))
    found = gd.run(DESCENT, Declared(-1.0), points, 0.1, StoppingRule(loss_tol=1e-6))
    assert (found.outcome == Outcome.CONVERGED).all()
    assert (found.steps > 10).all()
    np.testing.assert_allclose(found.theta, 0, atol=2e-3)
    found = gd.run(DESCENT, Declared(-np.inf), points, 0.1, StoppingRule(grad_tol=1e-5))  # none at all
    assert (found.outcome == Outcome.CONVERGED).all()
    assert (found.steps > 10).all()


def test_rounding_below_the_floor_is_none():
    """A loss of size 1 in single precision that comes out at -1e-7 near its minimum."""
    loss = lambda theta: jnp.sum(theta**2) - jnp.float32(1e-7)  # noqa: E731
    points = np.full((3, 2), 0.5, np.float32)
    assert (gd.run(DESCENT, loss, points, 0.1, StoppingRule()).outcome == Outcome.CONVERGED).all()


def test_an_indefinite_form_has_no_floor():
    forms = [losses.Quadratic(np.diag(c)) for c in ([2.0, 1.0], [2.0, 0.0], [2.0, -1.0])]
    assert [form.loss_floor for form in forms] == [0.0, 0.0, -np.inf]
    ends = gd.run(DESCENT, forms[2], np.array([[1.0, 0.0], [1.0, 0.1]]), 0.1, StoppingRule(escape_radius=10.0))
    assert ends.outcome.tolist() == [Outcome.UNDECIDED, Outcome.DIVERGED]


def monomials(t):
    x, y = t[0], t[1]
    return jnp.stack([x**2, x * y, y**2, y**3, x * y**2, y**4, y**6])


FORMS = {  # coefficients of the monomials; whether 0 is a minimum of value 0
    "x^2 - y^4": ((1, 0, 0, 0, 0, -1, 0), False),
    "x^2 + y^3": ((1, 0, 0, 1, 0, 0, 0), False),
    "negative within 0.01 only": ((1, 0, 0, 0, 0, -1, 1e4), False),
    "(x - y^2) (x - 2 y^2), negative on no line": ((1, 0, 0, 0, -3, 2, 0), False),
    "in small units": ((1e-20, 0, 0, 0, 0, -1e-20, 0), False),
    "x^2 + y^4": ((1, 0, 0, 0, 0, 1, 0), True),
    "(x + y)^2": ((1, 2, 1, 0, 0, 0, 0), True),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_undeclared_floor_is_tested(dtype):
    @jax.jit
    @jax.vmap
    def look(coefficients):
        loss, origin = lambda t: jnp.sum(coefficients * monomials(t)), jnp.zeros(2, dtype)
        return stability.classify(loss, origin).kind, stability.lyapunov_stable(loss, origin, 0.1)

    forms, right = zip(*FORMS.values(), strict=True)
    kinds, stable = look(np.array(forms, dtype))
    assert [Kind(int(kind)) for kind in kinds] == [Kind.MINIMUM if yes else Kind.DEGENERATE for yes in right]
    assert [Stability(int(s)) for s in stable] == [Stability.STABLE if yes else Stability.UNDECIDED for yes in right]


def test_cells_at_an_undeclared_floor_are_looked_at():
    """On y = 0 descent on x^2 - y^4 ends at a degenerate point, whose loss is 0."""
    loss, stop = lambda t: t[0] ** 2 - t[1] ** 4, StoppingRule(loss_tol=1e-12, max_steps=300)
    plane = (np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 1e-9]))
    cells = basins.heatmap(DESCENT, loss, 0.3, box=((-1, 1), (-1, 1)), resolution=3, stopping=stop, plane=plane)
    kinds = basins.refine(DESCENT, loss, cells, stopping=stop, classify=stability.classify, kinds=Kind)
    assert kinds.counts == {"minimum": 0, "strict_saddle": 0, "degenerate": 9}
    assert len(cells.to_xarray().to_dataframe()) == 9


@pytest.mark.parametrize(
    "loss",
    [
        lambda t: t[0] ** 2 + t[2] ** 2,
        lambda t: t[-3] ** 2,
        jax.jit(lambda t: t[0] * t[5]),
        jax.checkpoint(lambda t: t[0] * t[5]),
        lambda t: jnp.sum(t[np.array([0, 4])] ** 2),
        lambda t: jax.lax.cond(t[0] > 0, lambda t: t[0] ** 2, lambda t: t[7] ** 2, t),
    ],
)
def test_reads_beyond_the_parameters_are_refused(loss):
    """JAX takes the last entry instead: a loss of three parameters on points of two is another loss."""
    with pytest.raises(ValueError, match=r"reads entry -?\d of an array of shape \(2,\)"):
        check_loss(loss, jax.ShapeDtypeStruct((2,), np.float32))
    check_loss(loss, jax.ShapeDtypeStruct((8,), np.float32))


def test_reads_that_are_right_are_let_pass():
    every = jax.eval_shape(lambda: jnp.zeros(3))
    for loss in (
        lambda t: t[-3] ** 2 + t[2],
        lambda t: jnp.sum(t[jnp.argsort(t)]),  # known only when it runs
        lambda t: jnp.sum(t[::-1][1:]),
        lambda t: jax.lax.fori_loop(0, 3, lambda i, s: s + t[i], 0.0),
        lambda t: jnp.sum(jnp.take(t, jnp.array([0, 2, 2]))),
    ):
        check_loss(loss, every)


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"loss": options.Regularised()}, "of this loss about 1e-08"),  # its floor is 0.18
        ({"loss": options.Himmelblau()}, "--loss-tol 1e-12 cannot be met"),  # its floor is 0, its size 170
        ({"loss_tol": None}, "--grad-tol 1e-10 cannot be met"),
        ({"loss": options.Regularised(), "grad_tol": 1e-5}, None),
        ({"loss": options.Regularised(), "loss_tol": 1e-7}, None),
        ({"loss": options.Scalar()}, None),
        ({"loss": options.Regularised(), "precision": 64}, None),
    ],
)
def test_tolerances_that_32_bits_cannot_meet(asked, refused):
    study = options.Heatmap(**{"precision": 32} | asked)
    loss, dim = building.build_loss(study.loss)
    if refused is None:
        building.check_tolerances(study, loss, dim)
    else:
        with pytest.raises(ValueError, match=refused):
            building.check_tolerances(study, loss, dim)


def test_one_orbit_is_refused_as_many_are():
    with pytest.raises(ValueError, match=BELOW):
        orbits.settle(DESCENT, Declared(0.0), jnp.ones(2) / 2, 0.1, StoppingRule())
    end = jax.jit(lambda x: orbits.settle(DESCENT, Declared(-1.0), x, 0.1, StoppingRule(loss_tol=1e-9)))(jnp.ones(2))
    assert int(end.outcome) == Outcome.CONVERGED
