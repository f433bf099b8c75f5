"""Every public function of `theory` and `stability` with arguments at and beyond their edge: the limit, or one line.

Each function is called with the plain arguments of `PLAIN`, then with one of them replaced by every value that `ODD` has
for a parameter of that name. What comes back has no NaN that nobody announced and no negative step, area or length; what
is refused is refused by this package, in one line. A function or a parameter without a row fails.
"""

import inspect
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import gdstab
from gdstab import stability, theory
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
    "inputs": np.array([[1.0, 0.0], [0.5, 2.0]]), "interval": (0.0, 1.0), "jacobian": np.array([[0.5, 10.0], [0.0, 0.5]]),
    "k": 1.25, "kernel": 2, "key": jax.random.key(0), "kinks": 2, "layer_norm": "frobenius", "layers": LAYERS,
    "leak": 0.0, "least_eigenvalue": -0.5, "length": 4, "loss": bowl, "losses": np.array([1 / 12, 0.01]), "low": 0.01,
    "loss_tol": 1e-10, "map_points": stability.singular._one_by_one, "matrix": np.diag([2.0, 0.5]), "max_iterations": 50,
    "max_power": 20, "neurons": 2, "norm": 0.1, "nu": np.array([4.0, 9.0]), "num": 5, "num_fitted": 0, "num_samples": 2,
    "num_values": 2, "output": 1.0, "output_gradients": COLUMNS, "output_hessians": np.stack([np.eye(2)] * 2),
    "output_loss": lambda h, y: 0.5 * jnp.sum((h - y) ** 2), "pairs": 0, "path": np.array([[1.0, 0.5], [2.0, 0.5]]),
    "pattern": np.array([[0, 1], [1, 0]]), "patterns": (np.array([[0, 1], [1, 0]]),) * 3, "plane": None,
    "points": np.array([[1.0, 0.5], [2.0, 0.5]]), "position": 0.5, "preconditioner": np.array([0.5, 4.0]),
    "product": None, "radii": 5, "radius": 0.05, "rank": 1, "resolution": 5, "rows": 2, "rtol": 1e-6, "rule": RULE,
    "scale": 0.5, "second": 2.0, "sharpness": lambda loss, theta: jnp.asarray(2.0), "sigma_max": 2.0,
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
