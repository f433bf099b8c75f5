"""README's table of what may be jitted, vmapped and differentiated, held to; and derivatives of end points."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdstab as gd

README = pathlib.Path(__file__).parents[1] / "README.md"
STOP = gd.StoppingRule(max_steps=50)
DESCENT = gd.gradient_descent()
PLANE = {"box": ((-1, 1), (-1, 1)), "resolution": (4, 4)}


def loss(t):
    return (1 - t[0] * t[1]) ** 2 / 2 + 0.1 * t[0] ** 2


def source():
    return gd.sampling.RandomSource.box(jax.random.key(0), 8, PLANE["box"])


CALLS = {
    "losses.ScalarProduct()": lambda x, eta: gd.losses.ScalarProduct()(x) * eta,
    "updates.gradient_descent().step": lambda x, eta: DESCENT.step(loss, x, eta),
    "orbits.rollout": lambda x, eta: gd.rollout(DESCENT, loss, x, eta, 3),
    "orbits.settle": lambda x, eta: gd.settle(DESCENT, loss, x, eta, STOP).theta,
    "orbits.newton": lambda x, eta: gd.orbits.newton(DESCENT, loss, x, eta, 1).state,
    "orbits.find_cycle": lambda x, eta: gd.orbits.find_cycle(DESCENT, loss, x, eta),
    "curvature.hessian": lambda x, eta: gd.curvature.hessian(loss, x) * eta,
    "curvature.hvp": lambda x, eta: gd.curvature.hvp(loss, x, x) * eta,
    "curvature.eigenvalues": lambda x, eta: gd.curvature.eigenvalues(loss, x) * eta,
    "curvature.sharpness": lambda x, eta: gd.curvature.sharpness(loss, x) * eta,
    "curvature.top_eigenpairs": lambda x, eta: gd.curvature.top_eigenpairs(loss, x, 2).values * eta,
    "stability.jacobian": lambda x, eta: gd.stability.jacobian(DESCENT, loss, x, eta),
    "stability.multipliers": lambda x, eta: jnp.abs(gd.stability.multipliers(DESCENT, loss, x, eta)),
    "stability.spectral_radius": lambda x, eta: gd.stability.spectral_radius(DESCENT, loss, x, eta),
    "stability.critical_point": lambda x, eta: gd.stability.critical_point(lambda t: loss(t) + eta * t[0], x),
    "stability.classify": lambda x, _: gd.stability.classify(loss, x).kind,
    "stability.lyapunov_stable": lambda x, eta: gd.stability.lyapunov_stable(loss, x, eta),
    "stability.threshold_of": lambda x, eta: gd.stability.threshold_of(DESCENT, loss, x, low=0.01, high=eta),
    "stability.fixed_point": lambda x, eta: gd.stability.fixed_point(DESCENT, loss, x, eta),
    "outcomes.verdict": lambda x, _: gd.outcomes.verdict(loss, x, STOP),
    "flow.gradient_flow": lambda x, eta: gd.flow.gradient_flow(loss, x * eta, 1.0).theta,
    "ensembles.run": lambda x, eta: gd.run(DESCENT, loss, x[None], eta, STOP).theta,
    "ensembles.map_points": lambda x, eta: gd.ensembles.map_points(loss, x[None] * eta),
    "basins.heatmap": lambda _, eta: gd.basins.heatmap(DESCENT, loss, eta, stopping=STOP, **PLANE),
    "basins.measure": lambda _, eta: gd.basins.measure(DESCENT, loss, eta, source(), stopping=STOP),
    "basins.critical_points": lambda _, eta: gd.basins.critical_points(lambda t: eta * loss(t), PLANE["box"]),
    "boundaries.critical_step": lambda x, eta: gd.boundaries.critical_step(
        DESCENT, loss, x[None], low=0.1, high=eta, stopping=STOP
    ),
    "bifurcation.orbit_diagram": lambda x, eta: gd.bifurcation.orbit_diagram(DESCENT, loss, eta, x[None]),
}
SLOW = (
    "top_eigenpairs",
    "settle",
    "newton",
    "gradient_flow",
    "lyapunov_stable",
    "eigenvalues",
    "spectral_radius",
    "jacobian",
    "critical_point",
    "multipliers",
    "sharpness",
    "hvp",
    "verdict",
    "classify",
)


def table():
    text = README.read_text().split("| function | jit, vmap |", 1)[1].split("\n\n", 1)[0]
    for line in text.splitlines()[2:]:
        names, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall(r"`([^`]+)`", names):
            yield name, cells


ROWS = dict(table())


def test_every_row_is_tried():
    assert set(ROWS) == set(CALLS)


def total(name):
    def number(x, eta):
        leaves = jax.tree.leaves(CALLS[name](x, eta))
        return sum(jnp.sum(leaf) for leaf in leaves)

    return number


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n.split(".")[1] in SLOW else n
        for n, cells in ROWS.items()
        if cells[0] != "host"
    ],
)
def test_what_is_pure_may_be_transformed_as_the_table_says(name):
    _, forward, backward = ROWS[name]
    x, eta = jnp.array([1.3, 0.6]), jnp.asarray(0.2)
    plain = CALLS[name](x, eta)
    both = jax.jit(jax.vmap(CALLS[name], (0, None)))(jnp.stack([x, x]), eta)
    for one, two in zip(jax.tree.leaves(plain), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(two[1], one, rtol=1e-9, atol=1e-12)
    if "integers" in (forward, backward):
        assert jnp.issubdtype(plain.dtype, jnp.integer)
        return
    slopes = []
    for says, transform in ((forward, jax.jacfwd), (backward, jax.grad)):
        if says == "yes":
            slopes.append(float(transform(total(name), 1)(x, eta)))
        else:
            with pytest.raises((TypeError, ValueError)):
                transform(total(name), 1)(x, eta)
    h = 1e-5
    difference = (total(name)(x, eta + h) - total(name)(x, eta - h)) / (2 * h)
    assert slopes == pytest.approx([float(difference)] * len(slopes), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", [name for name, cells in ROWS.items() if cells[0] == "host"])
def test_what_runs_on_the_host_says_so(name):
    x, eta = jnp.array([1.3, 0.6]), jnp.asarray(0.2)
    for transformed in (jax.jit(CALLS[name]), jax.grad(CALLS[name], 1)):
        with pytest.raises(ValueError, match=name.replace(".", r"\.") + " runs on the host and cannot be part of jit"):
            transformed(x, eta)


def well(p):
    """Minima at the root of p, with curvature 2 p, so that the threshold is 1 / p."""
    return lambda x: (x**2 - p) ** 2 / 4


def test_the_derivative_of_an_end_point():
    p = jnp.asarray(1.7)
    slope = jax.grad(lambda p: gd.stability.critical_point(well(p), jnp.asarray(1.7**0.5)))(p)
    assert float(slope) == pytest.approx(0.5 / 1.7**0.5)


@pytest.mark.slow
def test_the_derivative_of_the_threshold_where_an_orbit_ends():
    def threshold(p):
        return 2 / gd.curvature.sharpness(well(p), gd.stability.critical_point(well(p), end))

    p = jnp.asarray(1.7)
    end = gd.settle(DESCENT, well(p), jnp.asarray(0.9), 0.1, gd.StoppingRule(loss_tol=1e-20)).theta
    assert float(threshold(p)) == pytest.approx(1 / 1.7)
    assert float(jax.jacfwd(threshold)(p)) == pytest.approx(-1 / 1.7**2)
    assert float(jax.jit(jax.grad(threshold))(p)) == pytest.approx(-1 / 1.7**2)
    low = gd.stability.threshold_of(DESCENT, well(1.7), end, low=0.1, high=2.0).step_size
    high = gd.stability.threshold_of(
        DESCENT, well(1.7001), gd.stability.critical_point(well(1.7001), end), low=0.1, high=2.0
    ).step_size
    assert (float(high) - float(low)) / 1e-4 == pytest.approx(-1 / 1.7**2, rel=1e-3)


def test_no_end_point_of_a_manifold_has_a_derivative():
    with pytest.raises(ValueError, match="expected an isolated critical point, got one with a singular Hessian"):
        gd.stability.critical_point(gd.losses.ScalarProduct(), jnp.array([2.0, 0.5]))
    product = gd.losses.ScalarProduct()
    assert jnp.isnan(jax.jit(lambda x: gd.stability.critical_point(product, x))(jnp.array([2.0, 0.5]))).all()
