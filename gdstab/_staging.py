"""Functions of arrays that are traced at every call and compiled once: what eager calls of loops are run by.

Called as it stands, a function with a loop in it is compiled at every call, because the body of the loop is a new
function each time. Under `jax.jit` it is compiled once, but for good: the compilation holds the loss, and a loss that
has changed meets the compilation of the old one. Here every call is traced, which takes milliseconds, and the trace is
looked up by what it says, operation by operation. So a loss that is written anew and says the same compiles nothing,
one that has changed is compiled, and no loss is held: the arrays that it captured become arguments.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

LIMIT = 128
"""Compilations that are kept; the one used longest ago makes room for the next."""
MOST_BYTES = 2**27
"""Of arrays that the kept ones hold: those that a jitted function captured and that are used within a loop."""
JITTED = frozenset({"jit", "pjit"})  # as versions of JAX call it


class _Kept(NamedTuple):
    run: Callable
    held: int  # bytes


_kept: OrderedDict[tuple, _Kept] = OrderedDict()


def forget() -> None:
    """Let nobody meet again what is compiled, as `jax.clear_caches` does."""
    _kept.clear()


_lock = threading.Lock()


def staged(fn: Callable, *args: Any) -> Any:
    """`fn(*args)`, compiled once for all functions that say the same about arguments of the same shapes.

    Parameters
    ----------
    fn
        A pure function of trees of arrays, which may be a fresh closure. Inside a transformation (`jit`, `vmap`,
        `grad`) it is called as it stands.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> [float(staged(lambda x, power=power: jnp.sum(x**power), jnp.arange(3.0))) for power in (1, 2)]
    [3.0, 5.0]
    """
    if jax.config.jax_disable_jit or _any_traced(args):
        return fn(*args)
    leaves, inside = jax.tree.flatten(args)
    outside = []

    def flat(*leaves):
        found, structure = jax.tree.flatten(fn(*jax.tree.unflatten(inside, leaves)))
        outside.append(structure)
        return found

    closed = jax.make_jaxpr(flat)(*leaves)
    captured = [_plain(array, var) for array, var in _captured(closed)]
    if _any_traced(captured):  # the function itself belongs to a transformation
        return fn(*args)
    return jax.tree.unflatten(outside[-1], _compiled(closed.jaxpr)(captured, leaves))


def one_by_one(fn: Callable, points: Any) -> Any:
    """`lax.map`, compiled once: what maps a function over points where nothing faster is passed.

    Examples
    --------
    >>> one_by_one(lambda x: x**2, np.arange(3.0)).tolist()
    [0.0, 1.0, 4.0]
    """
    return staged(lambda points: jax.lax.map(fn, points), points)


def _compiled(jaxpr: Jaxpr) -> Callable:
    """The jitted form of a trace, as a function of the arrays that it captured and of its arguments."""
    held: dict[int, Any] = {}
    key = _described(jaxpr, held, lifted=True)
    with _lock:
        kept = _kept.pop(key, None) or _Kept(
            jax.jit(lambda captured, leaves: _evaluate(jaxpr, iter(captured), leaves)),
            sum(array.nbytes for array, _ in held.values()),
        )
        _kept[key] = kept
        while len(_kept) > LIMIT or (len(_kept) > 1 and sum(other.held for other in _kept.values()) > MOST_BYTES):
            _kept.popitem(last=False)
    return kept.run


def _any_traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _captured(closed: ClosedJaxpr) -> Iterator[tuple]:
    """Arrays that a trace and the jitted functions in it captured, with their variables, in the order of use."""
    yield from zip(closed.consts, closed.jaxpr.constvars, strict=True)
    for equation in closed.jaxpr.eqns:
        if equation.primitive.name in JITTED:
            yield from _captured(equation.params["jaxpr"])


def _plain(array, var):
    """A captured array as an argument; some are NumPy's, in a wrapping of JAX's own."""
    return array if isinstance(array, jax.Array) else np.asarray(array, var.aval.dtype)


def _evaluate(jaxpr: Jaxpr, captured: Iterator, leaves) -> list:
    """Run a trace, the jitted functions in it written out, so that what those captured is an argument as well."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*(next(captured) for _ in jaxpr.constvars), *leaves]))  # noqa: B905

    def read(var):
        return var.val if isinstance(var, Literal) else values[var]

    for equation in jaxpr.eqns:
        inputs = [read(var) for var in equation.invars]
        if equation.primitive.name in JITTED:
            found = _evaluate(equation.params["jaxpr"].jaxpr, captured, inputs)
        else:
            bound = equation.primitive.get_bind_params(equation.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # before JAX 0.8 rules come apart
            found = equation.primitive.bind(*functions, *inputs, **params)
            found = found if equation.primitive.multiple_results else [found]
        values.update(zip(equation.outvars, found, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _described(jaxpr: Jaxpr, held: dict, *, lifted: bool = False) -> tuple:
    """What a trace says, hashable and equal for traces that compute the same: names are numbers in order of use.

    Where `_evaluate` writes out jitted functions (`lifted`), what they captured is an argument and says nothing.
    """
    numbers: dict = {}

    def name(var):
        if isinstance(var, Literal):
            return var.aval, np.asarray(var.val).tobytes()
        return numbers.setdefault(var, len(numbers))

    def equation(eqn):
        if lifted and eqn.primitive.name in JITTED:
            inner = _described(eqn.params["jaxpr"].jaxpr, held, lifted=True)
            return inner, tuple(map(name, eqn.invars)), tuple(map(name, eqn.outvars))
        custom = eqn.primitive.name.startswith("custom_")  # their rules are for transformations, which are over here
        said = [(key, eqn.params[key]) for key in sorted(eqn.params)]
        params = tuple((key, _parameter(value, held)) for key, value in said if not custom or _is_jaxpr(value))
        return eqn.primitive, tuple(map(name, eqn.invars)), tuple((name(v), v.aval) for v in eqn.outvars), params

    inputs = tuple((name(var), var.aval) for var in (*jaxpr.constvars, *jaxpr.invars))
    return inputs, tuple(map(equation, jaxpr.eqns)), tuple(map(name, jaxpr.outvars))


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def _parameter(value: Any, held: dict) -> Any:
    """A parameter of an operation, hashable; arrays by their content."""
    if isinstance(value, ClosedJaxpr):
        return _described(value.jaxpr, held), tuple(_digest(array, held) for array in value.consts)
    if isinstance(value, Jaxpr):
        return _described(value, held)
    if isinstance(value, tuple | list):
        return tuple(_parameter(part, held) for part in value)
    if isinstance(value, float):
        return repr(value)  # 0.0 and -0.0 are equal
    try:
        hash(value)
    except TypeError:
        return _digest(value, held)
    return value


def _digest(array: Any, held: dict) -> bytes:
    """Of an array's content; `held` remembers it for the call."""
    if id(array) not in held:
        plain = np.asarray(jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array)
        said = f"{array.dtype}{array.shape}".encode()
        held[id(array)] = plain, hashlib.blake2b(said + plain.tobytes(), digest_size=16).digest()
    return held[id(array)][1]
