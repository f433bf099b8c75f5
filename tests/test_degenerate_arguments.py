"""Every public function of `theory` and `stability` with arguments at and beyond their edge: the limit, or one line.

Each function is called with the plain arguments of `PLAIN`, then with one of them replaced by every value that `ODD`
has for a parameter of that name. What comes back has no NaN that nobody announced and no negative step, area or length;
what is refused is refused by this package, in one line. A function or a parameter without a row fails.
"""

import inspect
import types
import warnings

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import gdstab
from gdstab import stability, theory
from gdstab._staging import one_by_one
from gdstab.updates import gradient_descent

NAN, INF = float("nan"), float("inf")


def saddle(theta):
    return 0.5 * (1 - theta[0] * theta[1]) ** 2


def bowl(theta):
    return jnp.sum(theta * theta)


def flat(theta):
    return 0 * jnp.sum(theta)


def nowhere(theta):
    return jnp.sum(theta) * NAN


def constant(loss, theta):
    del loss, theta
    return jnp.asarray(2.0)


LAYERS = (np.array([[1.0, 0.5], [0.0, 1.0]]), np.array([[1.0, 2.0], [0.5, 1.0]]), np.array([[2.0, 1.0], [1.0, 1.0]]))
COLUMNS = np.array([[1.0, 2.0], [-1.0, 0.5]])
RELU = np.array([1.0, -1.0, 0.5, -0.25, 1.0, 0.5, 0.25])
RULE = gradient_descent()

PLAIN = {
    "accuracy": 0.1, "alignment": 0.5, "angles": 8, "beta": 0.9, "box": ((0.5, 2.0), (0.0, 3.0)), "channels": (1, 1),
    "c": 0.5, "columns": 2, "curvature": 2.0, "defect": 1.0, "dense_limit": 100, "depth": 2, "dim": 1,
    "directions": LAYERS, "distance": 2.0, "dtype": float, "entries": 1, "eps": 1e-8, "extremes": None, "fitted": (0,),
    "fourth": -6.0, "gates": (np.ones((2, 2)), np.ones((2, 2))), "gradient": 1.0, "gradient_norm": "frobenius",
    "growth": np.array([1.0, -1.0]), "guess": np.array([0.1, 0.0]), "high": 10.0, "initial": 0.0, "initial_loss": 0.5,
    "inputs": np.array([[1.0, 0.0], [0.5, 2.0]]), "interval": (0.0, 1.0),
    "jacobian": np.array([[0.5, 10.0], [0.0, 0.5]]),
    "k": 1.25, "kernel": 2, "key": jax.random.key(0), "kinks": 2, "layer_norm": "frobenius", "layers": LAYERS,
    "leak": 0.0, "least_eigenvalue": -0.5, "length": 4, "loss": bowl, "losses": np.array([1 / 12, 0.01]), "low": 0.01,
    "loss_tol": 1e-10, "map_points": one_by_one, "matrix": np.diag([2.0, 0.5]),
    "max_iterations": 50,
    "max_power": 20, "neurons": 2, "norm": 0.1, "nu": np.array([4.0, 9.0]), "num": 5, "num_fitted": 0, "num_samples": 2,
    "num_values": 2, "output": 1.0, "output_gradients": COLUMNS, "output_hessians": np.stack([np.eye(2)] * 2),
    "output_loss": lambda h, y: 0.5 * jnp.sum((h - y) ** 2), "pairs": 0, "path": np.array([[1.0, 0.5], [2.0, 0.5]]),
    "pattern": np.array([[0, 1], [1, 0]]), "patterns": (np.array([[0, 1], [1, 0]]),) * 3, "plane": None,
    "points": np.array([[1.0, 0.5], [2.0, 0.5]]), "position": 0.5, "preconditioner": np.array([0.5, 4.0]),
    "product": None, "radii": 5, "radius": 0.05, "rank": 1, "resolution": 5, "rows": 2, "rtol": 1e-6, "rule": RULE,
    "scale": 0.5, "second": 2.0, "sharpness": constant, "sigma_max": 2.0,
    "singular_values": np.array([2.0, 1.0]), "shape": (3, 3), "slopes": (1.0, 0.0), "smoothness": 2.0, "spread": 1.0,
    "state": np.zeros(2), "step_size": 0.25, "stretch": 2.0, "stride": 1, "sweeps": 2, "target": 1.0,
    "targets": np.array([[1.0, 0.0], [0.0, 1.0]]), "theta": np.array([1.0, 1.0]), "third": 0.0, "time": 2.0,
    "times": np.array([0.0, 1.0, 3.0]), "tol": None, "v": np.ones(2), "values": np.array([1.0, 3.0]),
    "w": np.ones(2), "b": np.ones(2), "weight_decay": 0.0, "weights": (np.array([1.0, 2.0]),) * 3, "width": 4,
    "widths": (2, 2, 2), "x": np.array([0.0, 0.5]), "gradient_at_zero": -np.eye(2),
}  # fmt: skip

MAP = np.diag([2.0, 1.0])
PLAIN_OF = {
    "theory.counterexamples": {"target": MAP},
    "theory.counterexamples.invisible_line": {"widths": (2, 3, 3, 2)},
    "theory.counterexamples.sharpness_bound": {"theta": LAYERS[:2]},
    "theory.factorisations": {"target": MAP, "theta": LAYERS},
    "theory.factorisations.balancedness_step": {"theta": LAYERS, "loss": lambda t: jnp.sum((t[1] @ t[0]) ** 2)},
    "theory.hessian_bounds.linear_bound": {"gradient": MAP},
    "theory.hessian_bounds.linear_bound_near_zero": {"gradient": MAP},
    "theory.hessian_bounds.linear_form": {"gradient": MAP, "curvature": lambda change: jnp.sum(change**2)},
    "theory.hessian_bounds.linear_concave_point": {"widths": (2, 2, 2, 2)},
    "theory.optimisers": {"rule": "adamw"},
    "theory.optimisers.preconditioner": {"rule": "adam"},
    "theory.relu": {"theta": RELU, "target": (0.0, 1.0), "tol": None},
    "theory.relu.critical_point": {"pattern": (1, 2), "key": None},
    "theory.relu.escape_direction": {"theta": np.array([1.0, -1.0, 1.0, 0.5])},
    "theory.relu.global_minimum": {"key": None},
    "theory.relu.invariants_step": {"gradient": RELU},
    "theory.strata": {"target": MAP},
    "theory.hessian_bounds.shared_form": {"directions": (np.array([1.0, -1.0]),) * 3},
    "theory.linear.flattest_sharpness_one_output": {"targets": np.array([[1.0, 2.0]])},
    "theory.linear.critical_step": {"inputs": np.eye(2)},
    "theory.linear.flattest_sharpness_of": {"inputs": np.eye(2)},
    "theory.linear.reduced_rank_map": {"targets": np.diag([1.0, 3.0])},
    "theory.counterexamples.truncation_excess": {"targets": np.diag([1.0, 3.0])},
    "theory.strata.nonstrict_saddle": {"widths": (2, 2, 2, 2)},
    "stability": {"theta": np.zeros(2)},
    "stability.centre_stable": {"loss": lambda t: 0.5 * t[0] ** 2 - 0.5 * t[1] ** 2, "radius": 1.0, "step_size": 0.5},
    "stability.singular_set": {"loss": lambda t: jnp.sum(t**4)},
    "stability.threshold_of": {"state": None},
}  # fmt: skip


def public(module, path):
    """Names and functions below a module, as its `__all__` has them, or as they are defined in it."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
    ]
    for name in names:
        value = getattr(module, name)
        if isinstance(value, types.ModuleType):
            yield from public(value, f"{path}.{name}")
        elif inspect.isfunction(value) and not name.startswith("_"):
            yield f"{path}.{name}", value


FUNCTIONS = dict(public(theory, "theory")) | dict(public(stability, "stability"))

NUMBERS = (
    0, 0.0, -1.0, NAN, INF, -INF, 1e308, 1e-308, np.int64(2), np.float32(0.5), "one", None, [1.0, 2.0],
)  # fmt: skip
COUNTS = (0, -1, 1, 3, np.int64(2), 2.5, NAN, "two", None, True)
VECTORS = (
    np.zeros(2), np.array([1, 2]), [1.0, 2.0], [1, 2], np.array([NAN, 1.0]), np.array([INF, 1.0]), np.zeros(0), 1.0,
    np.full(2, 1e200), np.full(2, 1e-200), "ab", None,
)  # fmt: skip
MATRICES = (
    np.zeros((2, 2)), np.array([[1, 0], [0, 3]]), [[1.0, 2.0], [0.0, 1.0]], np.array([[NAN, 0], [0, 1]]),
    np.array([[INF, 0], [0, 1]]), np.zeros((0, 0)), np.ones((1, 1)), np.ones((2, 2)), np.ones(2), 1.0,
    np.full((2, 2), 1e200), 1e-200 * np.eye(2), "ab", None,
)  # fmt: skip
TREES = (*((matrix,) * 3 for matrix in MATRICES[:-2]), (np.eye(2),), (), "ab", None, (np.eye(2), np.eye(3)))
WIDTHS = (
    (2, 2), (2, 1, 2), (1, 1, 1), [2, 2, 2], np.array([2, 2, 2]), (2,), (), (2, 0, 2), (2, -1, 2), (2.5, 2, 2),
    (2, 5, 4, 2), (3, 2, 2), 2, None, "ab",
)  # fmt: skip
FLAT = (
    np.zeros(7), np.ones(7, int), [1.0] * 7, np.full(7, NAN), np.full(7, INF), np.full(7, 1e200), np.full(7, 1e-200),
    np.zeros(0), np.zeros(3), 1.0, "ab", None, (1.0, 2.0, 3.0, 4.0), np.zeros((2, 4)),
)  # fmt: skip

ODD = {}
for _names, _values in {
    "accuracy alignment beta c curvature defect distance eps fourth growth gradient high initial initial_loss k leak "
    "least_eigenvalue loss_tol low norm output position radius rtol scale second sigma_max smoothness spread step_size "
    "stretch target third time tol weight_decay": NUMBERS,
    "angles columns dense_limit depth dim entries kernel kinks length max_iterations max_power neurons num num_fitted "
    "num_samples num_values pairs radii rank resolution rows stride sweeps width": COUNTS,
    "b guess losses nu path points position preconditioner singular_values state theta times v values w x": VECTORS,
    "growth times values": (np.array([INF, -INF]), [1, 2], np.array([0.0, 1.0, NAN]), np.array([0, 1, 3])),
    "gradient_at_zero inputs jacobian matrix output_gradients pattern targets": MATRICES,
    "directions gates layers patterns": TREES,
    "weights": (*((vector,) * 3 for vector in VECTORS[:-2]), (), None),
    "widths": WIDTHS,
    "loss": (bowl, saddle, flat, nowhere, lambda theta: theta, "loss", None),
    "box": (
        None, ((0, 1), (0, 1)), ((1, 0), (0, 1)), ((NAN, 1), (0, 1)), ((-INF, INF), (-INF, INF)), ((0, 1),),
        [[0, 1], [0, 1]], "box", 1.0, ((1, 1), (0, 1)), ((-3, -1), (-3, -1)), ((1e-300, 1), (0, 1e300)),
    ),
    "interval": (
        (0, 1), (1, 0), (0, 0), (-INF, INF), (NAN, 1), [0, 2], 1.0, "ab", None, (1e-200, 2e-200), (-1e200, 1e200),
    ),
    "slopes": ((1, 1), (0, 0), (-1, 1), (NAN, 1), (INF, 0), (1,), None, [1.0, 0.5]),
    "fitted": ((), (0, 0), (0, 1), (5,), (-1,), None, [0], np.array([0]), (0.5,), "a"),
    "channels": ((0, 1), (1, -1), (2, 2), (1.5, 1), None, 1),
    "shape": ((1, 1), (0, 0), (2,), (2, -2), None, [3, 3]),
    "gradient_norm layer_norm": ("nuclear", "spectral", "frobenius", "other", None, 1),
    "rule": ("descent", "adam", "heavy-ball", "sign", None, 1, RULE),
    "key": (None, 0, jax.random.key(1), "key"),
    "dtype": (np.float32, int, "float32", "x"),
    "extremes map_points output_loss sharpness": (None, "x", 1),
    "output_hessians": (np.zeros((2, 2, 2)), np.full((2, 2, 2), NAN), np.eye(2), None),
    "plane": ((np.zeros(2), np.ones(2), np.zeros(2)), (np.zeros(3), np.ones(3), np.ones(2)), "x"),
}.items():  # fmt: skip
    for _name in _names.split():
        ODD[_name] = ODD.get(_name, ()) + _values
ODD_OF = {
    "theory.counterexamples": {"target": MATRICES},
    "theory.counterexamples.sharpness_bound": {"theta": TREES},
    "theory.factorisations": {"target": MATRICES, "theta": TREES},
    "theory.strata": {"target": MATRICES},
    "theory.relu": {
        "pattern": ((), ("inactive",), (1,), (1, 2, "degenerate"), ("x",), (2.0, 1), None, [1, 2], "ab"),
        "target": (
            (1.0,), (0.0, 1.0, 2.0), (0, 0), (0, -1), (NAN, 1.0), (INF, 1.0), (), 1.0, None, "ab", (0, 1e-200),
            (0, 1e200), [0, 1],
        ),
        "theta": FLAT,
    },
}  # fmt: skip

UNDEFINED = {
    "theory.optimisers.threshold": "where no step is stable",
    "theory.relu.breakpoints": "where a neuron has none",
    "theory.scalar.stable_minima": "ends of an empty arc",
    "theory.scalar.trapping_ellipse": "axes where nothing is trapped",
}
"""Where a docstring says that an answer is NaN for finite arguments."""
NEVER_NEGATIVE = {
    "theory.flow_bounds.max_step", "theory.flow_bounds.max_step_smooth", "theory.linear.critical_step",
    "theory.linear.flattest_sharpness", "theory.linear.flattest_sharpness_one_output", "theory.optimisers.threshold",
    "theory.scalar.critical_step", "theory.scalar.largest_converging_step", "theory.scalar.trapping_area",
    "theory.scalar.basin_area", "theory.scalar.ellipsoid_volume", "theory.scalar.minima_length",
    "theory.factorisations.convergence_rate", "theory.flow_bounds.balanced_distance", "theory.flow_bounds.flow_time",
    "stability.threshold", "stability.threshold_of", "stability.numerical_radius", "stability.kreiss_bound",
}  # fmt: skip
COSTLY = (
    "theory.counterexamples", "theory.factorisations", "theory.flow_bounds.balanced", "theory.flow_bounds.nearest",
    "theory.flow_bounds.tube", "theory.flow_bounds.unbalancedness", "theory.hessian_bounds", "theory.strata.critical_p",
    "theory.strata.nonstrict", "theory.linear.reduce", "theory.linear.trunc", "theory.linear.optimal",
    "stability.center", "stability.centre", "stability.classify", "stability.extend", "stability.fixed",
    "stability.jacobian", "stability.lyapunov", "stability.multipliers", "stability.non", "stability.precond",
    "stability.singular", "stability.spectral", "stability.threshold",
)  # fmt: skip
"""They compile."""


def rows_of(path, table, name, default):
    """The row of the longest path that has one."""
    parts = path.split(".")
    found = [table[prefix][name] for prefix in (".".join(parts[:i]) for i in range(1, len(parts) + 1))
             if name in table.get(prefix, {})]  # fmt: skip
    return found[-1] if found else default[name]


@pytest.fixture
def as_a_user():
    """Without the checks of types and the strictness that the other tests are run under."""
    strict = {"jax_numpy_dtype_promotion": "strict", "jax_numpy_rank_promotion": "raise"}
    jaxtyping.config.update("jaxtyping_disable", True)
    for name, value in zip(strict, ("standard", "allow"), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in strict.items():
        jax.config.update(name, value)
    jaxtyping.config.update("jaxtyping_disable", False)


def floats(answer):
    leaves = [leaf for leaf in jax.tree.leaves(answer) if isinstance(leaf, float | np.generic | np.ndarray | jax.Array)]
    arrays = [np.asarray(leaf) for leaf in leaves if jnp.issubdtype(getattr(leaf, "dtype", float), jnp.inexact)]
    return [array for array in arrays if array.dtype.kind in "fc"]


def is_finite(value):
    return all(np.isfinite(array).all() for array in floats(value))


def test_every_parameter_has_a_row():
    assert len(FUNCTIONS) > 100
    for path, function in FUNCTIONS.items():
        for name in inspect.signature(function).parameters:
            assert name in PLAIN, f"{path}: no plain value of {name}"
            assert rows_of(path, ODD_OF, name, ODD), f"{path}: no odd values of {name}"
    assert set(UNDEFINED) | NEVER_NEGATIVE <= set(FUNCTIONS)


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=pytest.mark.slow if path.startswith(COSTLY) else ()) for path in FUNCTIONS]
)
def test_limit_or_one_line(path, as_a_user):
    function = FUNCTIONS[path]
    names = list(inspect.signature(function).parameters)
    plain = {name: rows_of(path, PLAIN_OF, name, PLAIN) for name in names}
    assert not any(np.isnan(array).any() for array in floats(call(function, plain)))
    for name in names:
        for value in rows_of(path, ODD_OF, name, ODD):
            told = f"{path}, {name} = {value!r}"
            try:
                answer = call(function, plain | {name: value})
            except ValueError as error:
                refused_in_one_line(error, told)
                continue
            except Exception as error:
                pytest.fail(f"{told}: {type(error).__name__}: {error}")
            if path not in UNDEFINED and is_finite(value):
                assert not any(np.isnan(array).any() for array in floats(answer)), told
            if path in NEVER_NEGATIVE:
                assert not any((array < 0).any() for array in floats(answer)), told


def refused_in_one_line(error, told):
    assert "\n" not in str(error), told
    assert len(str(error)) > 30, told
    frames = inspect.getinnerframes(error.__traceback__)
    assert frames[-1].filename.startswith(gdstab.__path__[0]), told


def call(function, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow, and ties of singular values
        answer = function(**arguments)
        return list(answer) if inspect.isgenerator(answer) else answer


def test_a_number_that_is_not_one_is_refused():
    """A parameter that is NaN makes no answer, not even one in which it does not show."""
    for path, name in [
        ("theory.scalar.trapping_energy", "target"), ("theory.catapult.flip_slope", "third"),
        ("theory.optimisers.threshold", "curvature"), ("theory.optimisers.multipliers", "weight_decay"),
        ("theory.linear.flattest_sharpness", "sigma_max"), ("theory.flow_bounds.max_step_smooth", "least_eigenvalue"),
        ("theory.symmetric_line.step", "k"), ("stability.kreiss_bound", "jacobian"),
    ]:  # fmt: skip
        plain = {key: rows_of(path, PLAIN_OF, key, PLAIN) for key in inspect.signature(FUNCTIONS[path]).parameters}
        with pytest.raises(ValueError, match="expected"):
            FUNCTIONS[path](**plain | {name: np.full(np.shape(plain[name]), NAN)})


def test_limits_by_hand(as_a_user):
    """The limits that the formulas have where they divide by zero."""
    step = theory.scalar.largest_converging_step
    assert float(step(np.array([1.5, -0.5]), -1.0, 1.0)) == pytest.approx(0.5)  # v -> -v
    assert float(step(np.array([1.0, 1.0]), 0.0, 1.0)) == pytest.approx(1.0)  # 4 / S / (2 c)
    assert step([0, 0], 0, 1) == INF  # at its minimum
    theta = np.array([[1.5, -0.5], [0.3, 2.0]])
    np.testing.assert_array_equal(step(theta, -2.0), step(theta * [1, -1], 2.0))
    np.testing.assert_allclose(step(theta, 0.0), step(theta, 1e-12), rtol=1e-9)
    assert theory.scalar.critical_step(0.0) == INF
    eye, none = np.eye(2), np.zeros((2, 2))
    for widths in ((2, 2, 2), (2, 3, 2, 2)):
        assert theory.linear.critical_step(eye, none, widths) == INF
    assert theory.linear.critical_step(np.diag([1.0, 2.0]), np.zeros((1, 2)), (2, 3, 1)) == INF
    assert theory.linear.critical_step(eye, none, (2, 2), 0.5) == 2.0  # one layer: 1 / (c s^2), whatever the targets
    assert theory.linear.critical_step([[1, 0], [0, 1]], [[2, 0], [0, 1]], [2, 2, 2], 0.5) == pytest.approx(0.5)
    assert theory.linear.flattest_sharpness(0.0, 1) == 1.0
    assert theory.linear.flattest_sharpness(0.0, 3) == 0.0
    assert theory.optimisers.threshold("adamw", 0.0) == INF
    assert stability.threshold(flat, np.zeros(2)) == INF
    assert stability.numerical_radius(none) == 0.0
