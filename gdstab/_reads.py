"""Reads beyond the end of an array: NumPy refuses them, JAX quietly takes the last entry instead."""

import jax
import numpy as np
from jax.extend import core
from jax.lax import GatherScatterMode

_NUMPY = {
    "lt": lambda _, a, b: a < b,
    "add": lambda _, a, b: a + b,
    "sub": lambda _, a, b: a - b,
    "mul": lambda _, a, b: a * b,
    "select_n": lambda _, which, *cases: np.choose(which.astype(int), cases),
    "convert_element_type": lambda params, a: a.astype(params["new_dtype"]),
    "broadcast_in_dim": lambda params, a: np.broadcast_to(
        a.reshape([a.shape[params["broadcast_dimensions"].index(i)] if i in params["broadcast_dimensions"] else 1
                   for i in range(len(params["shape"]))]), params["shape"]),
    "squeeze": lambda params, a: a.squeeze(params["dimensions"]),
    "reshape": lambda params, a: a.reshape(params["new_sizes"]),
    "concatenate": lambda params, *parts: np.concatenate(parts, params["dimension"]),
}  # fmt: skip
"""What JAX works indices out with, on the host: nothing is compiled."""
_INLINED = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # parameters of operations that pass their arguments on as they are


def first_read_beyond(closed) -> tuple[int, tuple[int, ...]] | None:
    """Index and shape of the first read beyond the end that a traced function does; None if all indices fit.

    Only indices that tracing knows are looked at, such as the 3 of `theta[3]`; those that depend on the arguments are
    not known before it runs.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> first_read_beyond(jax.make_jaxpr(lambda theta: theta[0] * theta[3])(jnp.ones(2)))
    (3, (2,))
    >>> first_read_beyond(jax.make_jaxpr(lambda theta: theta[0] * theta[-1])(jnp.ones(2)))
    """
    return _look(closed.jaxpr, _concrete(closed.jaxpr.constvars, closed.consts))


def _concrete(names, values) -> dict:
    return {
        name: value
        for name, value in zip(names, values, strict=True)
        if value is not None and not isinstance(value, jax.core.Tracer)
    }


def _look(jaxpr, known: dict):
    for equation in jaxpr.eqns:
        values = [var.val if isinstance(var, core.Literal) else known.get(var) for var in equation.invars]
        found = _beyond(equation, values) or _look_inside(equation, values)
        if found is not None:
            return found
        work_out = _NUMPY.get(equation.primitive.name)
        if work_out is not None and all(value is not None for value in values):
            known[equation.outvars[0]] = work_out(equation.params, *map(np.asarray, values))
    return None


def _look_inside(equation, values):
    for name, part in equation.params.items():
        for inner in jax.tree.leaves(part, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                jaxpr, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
                known = _concrete(jaxpr.constvars, consts) if consts else {}
                if name in _INLINED and len(jaxpr.invars) == len(values):
                    known |= _concrete(jaxpr.invars, values)
                found = _look(jaxpr, known)
                if found is not None:
                    return found
    return None


def _beyond(equation, values):
    """The index and the shape, if this operation reads at a known index that is none."""
    name, shape = equation.primitive.name, getattr(equation.invars[0].aval, "shape", ()) if equation.invars else ()
    if name == "dynamic_slice":
        reads = zip(values[1:], shape, equation.params["slice_sizes"], strict=False)
        starts = [(int(at), size, width) for at, size, width in reads if at is not None]
    elif name == "gather" and values[1] is not None and equation.params["mode"] != GatherScatterMode.FILL_OR_DROP:
        axes, widths = equation.params["dimension_numbers"].start_index_map, equation.params["slice_sizes"]
        columns = np.moveaxis(np.asarray(values[1]), -1, 0)
        pairs = [(column.ravel(), axis) for column, axis in zip(columns, axes, strict=True)]
        starts = [(int(at), shape[axis], widths[axis]) for column, axis in pairs for at in column]
    else:
        return None
    wrong = [at for at, size, width in starts if at < 0 or at + width > size]
    return (wrong[0], tuple(shape)) if wrong else None
