"""Host-side checks: every message says what was expected, what came, and what to do."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdstab._reads import first_read_beyond
from gdstab._types import Theta


def is_concrete(value: Any) -> bool:
    """Whether a value can be looked at on the host (it is no tracer and no placeholder of a partitioned module)."""
    return value is not None and not isinstance(value, jax.core.Tracer | jax.ShapeDtypeStruct)


def check_dtype(dtype: Any = None) -> np.dtype:
    """The floating dtype to work in; by default float64 where JAX has it enabled and float32 elsewhere.

    Examples
    --------
    >>> check_dtype("float32")
    dtype('float32')
    """
    if dtype is None:
        return np.dtype(jnp.result_type(float))
    try:
        chosen = np.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"expected a floating dtype such as 'float32', got {dtype!r}; pass one or None") from error
    if not jnp.issubdtype(chosen, jnp.floating):
        raise ValueError(f"expected a real floating dtype, got {chosen}; pass 'float32' or 'float64'")
    if chosen == np.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            "float64 was asked for, but JAX has it disabled and would compute in float32; enable it before any array "
            'is made, by jax.config.update("jax_enable_x64", True) or by JAX_ENABLE_X64=1 in the environment, '
            "or ask for float32"
        )
    return chosen


def check_positive(value: Any, name: str) -> float:
    """A positive finite number as a Python float.

    Examples
    --------
    >>> check_positive(2, "escape_radius")
    2.0
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected one positive number, got {value!r}; pass a single number") from error
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected a positive finite number, got {number}; pass one above zero")
    return number


def check_count(value: Any, name: str, *, least: int = 1) -> int:
    """An integer that is at least `least`, as a Python int.

    Examples
    --------
    >>> check_count(3, "num")
    3
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        count = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name}: expected an integer, got {value!r}; pass one of at least {least}") from error
    if count < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {count}; raise it")
    return count


def check_step_sizes(step_sizes: Any, dtype: Any = None) -> np.ndarray:
    """Step sizes as a NumPy array of at most one axis: positive, finite, in the dtype asked for.

    Examples
    --------
    >>> check_step_sizes([0.25, 0.5], "float32").tolist()
    [0.25, 0.5]
    """
    try:
        given = np.asarray(step_sizes, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected step sizes that are real numbers, got {step_sizes!r}; pass floats") from error
    if given.ndim > 1:
        raise ValueError(
            f"expected one step size or a vector of them, got an array of shape {given.shape}; ravel it, and reshape "
            "the answer"
        )
    if given.size == 0:
        raise ValueError("expected at least one step size, got none; pass a number or a non-empty vector")
    values = given.astype(check_dtype(dtype))
    unusable = ~(np.isfinite(values) & (values > 0))
    if unusable.any():
        first = given[unusable].ravel()[0] if given.ndim else given.item()
        raise ValueError(
            f"expected positive finite step sizes, got {int(unusable.sum())} that are not, the first being {first}; "
            f"remove them or check that they do not vanish in {values.dtype}"
        )
    return values


def check_box(box: Any, dim: int | None = None) -> np.ndarray:
    """A box `((low, high), ...)` as an array [dim, 2] of float64, every side of positive finite length.

    Examples
    --------
    >>> check_box(((-4, 4), (0, 1))).tolist()
    [[-4.0, 4.0], [0.0, 1.0]]
    """
    try:
        sides = np.asarray(box, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a box ((low, high), ...) of numbers, got {box!r}; give two per axis") from error
    if sides.ndim != 2 or sides.shape[1] != 2 or len(sides) == 0:
        raise ValueError(f"expected a box ((low, high), ...), got shape {sides.shape}; give two numbers per axis")
    if dim is not None and len(sides) != dim:
        raise ValueError(f"expected a box of {dim} axes, got {len(sides)}; give one (low, high) per axis")
    with np.errstate(over="ignore"):
        usable = np.isfinite(sides).all(axis=1) & np.isfinite(sides[:, 1] - sides[:, 0]) & (sides[:, 1] > sides[:, 0])
    if not usable.all():
        axis = int(np.argmin(usable))
        raise ValueError(
            f"expected low < high, both finite, on every axis of the box, got {tuple(sides[axis].tolist())} on axis "
            f"{axis}, which holds no point; swap or widen them"
        )
    return sides


def check_resolution(resolution: Any, dim: int) -> tuple[int, ...]:
    """Numbers of cells per axis, each at least 1; one number stands for every axis.

    Examples
    --------
    >>> check_resolution(10, 2)
    (10, 10)
    """
    given = np.asarray(resolution, dtype=object)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != dim):
        raise ValueError(f"expected one resolution or {dim} of them, got {resolution!r}; give one integer per axis")
    cells = [given.item()] * dim if given.ndim == 0 else given.tolist()
    return tuple(check_count(count, f"resolution of axis {axis}") for axis, count in enumerate(cells))


def check_theta(theta: Theta) -> None:
    """Parameters must be a pytree of real floating arrays, with at least one entry."""
    leaves = jax.tree.leaves(theta)
    if not any(math.prod(np.shape(leaf)) for leaf in leaves):
        raise ValueError(f"expected parameters with at least one entry, got {theta!r}; pass an array or a tree of them")
    for leaf in leaves:
        kind = getattr(leaf, "dtype", type(leaf))
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(kind, jnp.floating):
            raise ValueError(
                f"expected parameters that are arrays of real floating numbers, got {kind}; "
                "convert them, for instance by jnp.asarray(theta, float)"
            )


def check_one_dtype(theta: Theta) -> None:
    """All leaves of the parameters must have the same dtype, in which the work is done.

    Examples
    --------
    >>> check_one_dtype({"weight": np.ones(2), "bias": np.ones(1)})
    """
    found = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(theta)})
    if len(found) > 1:
        raise ValueError(f"expected parameters of one dtype, got {', '.join(found)}; convert them with leaf.astype")


def check_loss(loss: Any, theta: Theta) -> None:
    """A loss must take `theta`, one point, and give one real floating number; nothing is computed to see that.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> check_loss(lambda theta: jnp.sum(theta**2), jnp.ones(2))
    """
    check_theta(theta)
    shapes = [str(np.shape(leaf)) for leaf in jax.tree.leaves(theta)]
    try:
        traced, value = jax.make_jaxpr(loss, return_shape=True)(theta)
    except Exception as error:
        raise ValueError(
            f"the loss does not take one point theta with arrays of shape {', '.join(shapes)}: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}; "
            "write it in jax.numpy for one point, without a batch axis"
        ) from error
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if dtype is None:
        raise ValueError(f"expected a loss that returns one number, got {type(value).__name__}; return an array scalar")
    if shape != ():
        raise ValueError(f"expected a loss that returns a scalar, got shape {shape}; sum or average it, say jnp.sum")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"expected a loss that returns a real floating number, got {dtype}; return a float")
    beyond = first_read_beyond(traced)
    if beyond is not None:
        raise ValueError(
            f"the loss reads entry {beyond[0]} of an array of shape {beyond[1]}, and JAX would quietly take another "
            "one instead; give theta more entries, or correct the index"
        )
