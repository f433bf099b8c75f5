"""Host-side checks: every message says what was expected, what came, and what to do."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdstab._compiling import Use, kind_of
from gdstab._identity import is_number
from gdstab._reads import first_read_beyond
from gdstab._types import State, Theta


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
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected one positive number, got {value!r}; pass a single number") from error
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected a positive finite number, got {number}; pass one above zero")
    return number


def whole(value: Any) -> Any:
    """A whole number of any kind as a Python int, whatever else as it is: for fields that are checked afterwards.

    Examples
    --------
    >>> whole(np.int64(8)), whole(8.0), whole(np.array(8)), whole(8.5), whole(True)
    (8, 8, 8, 8.5, True)
    """
    if isinstance(value, np.generic | np.ndarray | jax.Array) and is_concrete(value) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def real(value: Any) -> Any:
    """A real number of any kind as a Python float, whatever else as it is: for fields that are checked afterwards.

    >>> real(np.float32(0.5)), real(1), real(None)
    (0.5, 1.0, None)
    """
    value = whole(value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def check_count(value: Any, name: str, *, least: int = 1) -> int:
    """An integer that is at least `least`, as a Python int; a float that is whole is one.

    Examples
    --------
    >>> check_count(3, "num")
    3
    """
    try:
        count = whole(value)
        if isinstance(count, bool):
            raise TypeError
        count = operator.index(count)
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


def as_theta(theta: Theta) -> Theta:
    """Parameters as a pytree of real floating arrays, with at least one entry.

    Python floats become arrays of the default dtype, NumPy arrays take the byte order of the machine; leaves without
    entries and None stay. Integers, complex numbers and 16-bit floats are refused, and so is all that is no number.

    Raises
    ------
    ValueError
        If a leaf is none of these, or there is no entry at all.

    Examples
    --------
    >>> as_theta({"a": 0.5, "b": np.ones(2, ">f4")})["b"].dtype
    dtype('float32')
    """
    found, structure = jax.tree_util.tree_flatten_with_path(theta)
    leaves = [_as_parameters(path, leaf) for path, leaf in found]
    if not any(math.prod(leaf.shape) for leaf in leaves):
        raise ValueError(f"expected parameters with at least one entry, got {_short(theta)}; pass an array or a tree")
    return jax.tree.unflatten(structure, leaves)


def as_state(state: State) -> State:
    """A state as a pytree of arrays: as `as_theta`, but of any dtype, because rules count their steps.

    >>> as_state((0.5, np.int32(3)))[0].shape
    ()
    """
    return jax.tree_util.tree_map_with_path(_as_array, state)


def _as_array(path, leaf):
    """A leaf as an array in the byte order of the machine; placeholders and what is traced pass."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return leaf
    if isinstance(leaf, float):
        return np.asarray(leaf, jnp.result_type(float))
    if isinstance(leaf, int | complex) or hasattr(leaf, "__array__"):
        array = np.asarray(leaf)
        if array.dtype.kind not in "OSUMmV" or jax.dtypes.issubdtype(array.dtype, np.floating):
            return array.astype(array.dtype.newbyteorder("="), copy=False)
    advice = "convert them, for instance by jnp.asarray(theta, float)"
    if callable(leaf):
        advice = "split a network by `eqx.partition(network, eqx.is_inexact_array)`, `eqx.combine` it in the loss"
    raise ValueError(f"expected parameters that are arrays, got {_short(leaf)}{_at(path)}; {advice}")


def _as_parameters(path, leaf):
    array = _as_array(path, leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"expected parameters that are arrays of real floating-point numbers, got {array.dtype}{_at(path)}; "
            "convert them, for instance by jnp.asarray(theta, float)"
        )
    if array.dtype.itemsize < np.dtype(np.float32).itemsize:
        raise ValueError(
            f"expected parameters in 32 or 64 bits, got {array.dtype}{_at(path)}, whose roundings hide thresholds; "
            "convert them by leaf.astype('float32'), and cast within the loss if it is to work in 16 bits"
        )
    return array


def _at(path) -> str:
    return f" at {jax.tree_util.keystr(path)}" if path else ""


def _short(thing: Any) -> str:
    """Something in a few words, on one line."""
    said = thing.__name__ if callable(thing) and hasattr(thing, "__name__") else " ".join(repr(thing).split())
    return f"{type(thing).__name__} {said[:60] + '...' if len(said) > 60 else said}"


def shapes_of(tree: Any) -> str:
    """The shapes of a tree's leaves, the first of them, as an error says them.

    >>> shapes_of({"a": np.ones(2), "b": 1.0})
    '(2,), ()'
    """
    shapes = [str(np.shape(leaf)) for leaf in jax.tree.leaves(tree)]
    return ", ".join(shapes if len(shapes) <= 6 else [*shapes[:5], f"... {len(shapes)} in all"])


def check_one_dtype(theta: Theta) -> None:
    """All leaves of the parameters must have the same dtype, in which the work is done.

    Examples
    --------
    >>> check_one_dtype({"weight": np.ones(2), "bias": np.ones(1)})
    """
    found = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(theta)})
    if len(found) > 1:
        raise ValueError(f"expected parameters of one dtype, got {', '.join(found)}; convert them with leaf.astype")


def check_loss(loss: Any, theta: Theta) -> Theta:
    """A loss must take `theta`, one point, and give one real floating number; nothing is computed to see that.

    This is the one check of all entry points. The loss may be whatever can be called, with a hash or without.

    Returns
    -------
    The parameters as arrays, see `as_theta`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> check_loss(lambda theta: theta[0] * theta[1], [0.5, 1.0])  # in 64 bits
    [array(0.5), array(1.)]
    """
    theta = as_theta(theta)
    if not callable(loss):
        raise ValueError(f"expected a loss that can be called, got {_short(loss)}; pass a function of theta")
    use = Use(loss, is_number)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in (*jax.tree.leaves(theta), *use.numbers)):
        _check_value(loss, theta)
    else:  # once for all calls of one loss with such parameters
        use.entry.once(("loss", kind_of((theta, use.numbers))), lambda: _check_value(loss, theta))
        use.look_again()
    return theta


def _check_value(loss, theta) -> None:
    """Refuse a loss whose value is no real floating number."""
    try:
        # In a lambda, which has an identity of its own.
        traced, value = jax.make_jaxpr(lambda theta: loss(theta), return_shape=True)(theta)  # noqa: PLW0108
    except Exception as error:
        raise ValueError(
            f"the loss does not take one point theta with arrays of shape {shapes_of(theta)}: "
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


def check_autonomous(rule: Any, what: str) -> None:
    """Refuse a rule that follows a schedule where one map is iterated: it has no `what`, such as "cycles".

    >>> check_autonomous(None, "cycles")
    """
    if getattr(rule, "numbered", False):
        raise ValueError(
            f"expected a rule that is one map iterated, got one that draws random numbers, which has no {what}; pass "
            "it without its noise"
        )
    if not getattr(rule, "autonomous", True):
        raise ValueError(
            f"expected a rule that is one map iterated, got one whose map changes from step to step (a schedule), "
            f"which has no {what}; pass it without its schedule, at one step size"
        )
