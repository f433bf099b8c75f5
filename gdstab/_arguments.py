"""Arguments of closed forms: what each kind of parameter may be, checked once; and answers that are not numbers.

A function under `closed_form` takes Python numbers, lists, integer arrays, NumPy and JAX arrays alike. Traced arguments
pass unseen, so that it can be compiled, batched and differentiated as before.
"""

import functools
import inspect
import itertools
import linecache
import pathlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdstab._validate import as_theta, check_count

_PACKAGE = str(pathlib.Path(__file__).parent)
_RAW = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, NotImplementedError)


def closed_form(*, undefined: bool = False, **kinds: Callable[[Any, str], Any]) -> Callable[[Callable], Callable]:
    """Check the arguments of a function by kind, and what it answers: a decorator.

    Each kind is called as `kind(value, name)` and returns the argument that is passed on. An error from inside, which
    would speak of shapes and operators, is told in one line with the arguments that came. An answer with NaN for
    arguments that are finite is an error, too, unless the function says where it is `undefined`.

    Examples
    --------
    >>> quotient = closed_form(a=real, b=positive)(lambda a, b: a / b)
    >>> quotient(1, 2)
    0.5
    >>> quotient(1, 0)
    Traceback (most recent call last):
    ValueError: b: expected numbers above 0, got 0.0; pass positive ones
    """

    def decorate(function: Callable) -> Callable:
        signature, call = inspect.signature(function), _call

        def closed(*args, **options):
            return call(function, signature, kinds, undefined, args, options)

        # With the globals of its own module, by which doctest knows whose function it is.
        wrapper = types.FunctionType(closed.__code__, function.__globals__, function.__name__, None, closed.__closure__)
        return functools.wraps(function)(wrapper)

    return decorate


def _call(function, signature, kinds, undefined, args, options):
    given = signature.bind(*args, **options).arguments
    for name, kind in kinds.items():
        if name in given and not _is_traced(given[name]):
            given[name] = kind(given[name], name)
    if _is_traced(list(given.values())):
        return function(**given)
    try:
        answer = function(**given)
    except jax.errors.JAXTypeError:  # a loss that closes over something traced
        raise
    except _RAW as error:
        if isinstance(error, ValueError) and _is_ours(error):
            raise
        raise ValueError(
            f"{function.__name__}: expected arguments that fit together, got {_told(given)}; they lead to "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        ) from error
    if (
        not undefined
        and not _is_traced(answer)
        and _has(answer, np.isnan)
        and not _has(given, lambda values: ~np.isfinite(values))
    ):
        raise ValueError(
            f"{function.__name__}: expected arguments that lead to numbers, got {_told(given)}, which lead to NaN; are "
            "they too large, too small, or at a point where nothing is defined?"
        )
    return answer


def real(value: Any, name: str) -> Any:
    """Finite real numbers: one, or an array of them; integers in arrays become floats."""
    array = _floats(value, name)
    wrong = ~np.isfinite(array)
    if wrong.any():
        raise ValueError(f"{name}: expected finite numbers, got {array[wrong].ravel()[0]}; pass ones that are")
    return _as_came(value, array)


def single(value: Any, name: str) -> Any:
    """One finite real number."""
    if np.ndim(_floats(value, name)):
        raise ValueError(f"{name}: expected one number, got {_brief(value)}; call it for each")
    return real(value, name)


def positive(value: Any, name: str) -> Any:
    """Finite numbers above 0."""
    return _above(value, name, strict=True)


def nonnegative(value: Any, name: str) -> Any:
    """Finite numbers of at least 0."""
    return _above(value, name, strict=False)


def tolerance(value: Any, name: str) -> Any:
    """A finite number of at least 0; None stays, for a function's own."""
    return None if value is None else nonnegative(value, name)


def points(value: Any, name: str) -> Any:
    """An array of real numbers with at least one axis and one entry; what is not finite stays so, point by point."""
    array = _floats(value, name)
    if not array.ndim or not array.size:
        raise ValueError(f"{name}: expected an array with at least one number, got shape {array.shape}; pass [..., n]")
    return _as_came(value, array)


def matrix(value: Any, name: str) -> Any:
    """A matrix of finite numbers with at least one entry."""
    array = _floats(value, name)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name}: expected a matrix [rows, columns], got shape {array.shape}; give it two axes")
    return real(value, name)


def layers(value: Any, name: str) -> tuple:
    """Matrices (W_1, ..., W_h) whose product exists."""
    if not isinstance(value, tuple | list) or not len(value):
        raise ValueError(f"{name}: expected a tuple of matrices (W_1, ..., W_h), got {_brief(value)}; pass all layers")
    found = tuple(matrix(W, name) for W in value)
    for below, above in itertools.pairwise(found):
        if above.shape[1] != below.shape[0]:
            raise ValueError(
                f"{name}: expected layers that follow each other, got shapes {[W.shape for W in found]}; each takes as "
                "many inputs as the one before has outputs"
            )
    return found


def widths(value: Any, name: str) -> tuple[int, ...]:
    """The widths (d_in, ..., d_out) of a network: at least two integers, each at least 1."""
    try:
        found = tuple(check_count(width, name) for width in value)
    except TypeError as error:
        raise ValueError(f"{name}: expected integers (d_in, ..., d_out), got {_brief(value)}; pass a tuple") from error
    if len(found) < 2:
        raise ValueError(f"{name}: expected (d_in, ..., d_out), at least two of them, got {found}; add the outputs")
    return found


def indices(value: Any, name: str) -> Any:
    """A set of indices from 0 on; None stays."""
    if value is None:
        return None
    try:
        return tuple(check_count(index, name, least=0) for index in value)
    except TypeError as error:
        raise ValueError(
            f"{name}: expected indices from 0 on, got {_brief(value)}; pass a tuple of integers"
        ) from error


def spectrum(value: Any, name: str) -> Any:
    """Singular values: one axis of finite numbers of at least 0."""
    array = _floats(nonnegative(value, name), name)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected a vector of singular values, got shape {array.shape}; pass them all")
    return _as_came(value, array)


def slopes(value: Any, name: str) -> tuple:
    """The two slopes of an activation, right and left of 0."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name}: expected two slopes, right and left of 0, got {_brief(value)}; (1, 0) is ReLU")
    return tuple(real(slope, name) for slope in value)


def pattern(value: Any, name: str) -> np.ndarray:
    """A pattern of shared weights: a matrix of integers, -1 where an entry is 0."""
    found = np.asarray(value)
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.integer) or (found < -1).any():
        raise ValueError(
            f"{name}: expected integers [rows, columns], -1 for zero, got {_brief(value)}; number the weights"
        )
    return found


def parameters(value: Any, name: str) -> Any:
    """A tree of floating arrays, a loss's argument; numbers, lists of them and integer arrays become arrays."""
    plain = isinstance(value, list) and all(isinstance(entry, int | float) for entry in value)
    if plain or isinstance(value, int | float | np.integer) or getattr(value, "dtype", np.dtype(float)).kind in "iu":
        value = jnp.asarray(_floats(value, name), float)
    as_theta(value)
    return value


def finite_parameters(value: Any, name: str) -> Any:
    """The same, all finite."""
    value = parameters(value, name)
    if _has(value, lambda values: ~np.isfinite(values)):
        raise ValueError(f"{name}: expected finite parameters, got inf or NaN; pass a point of the loss's domain")
    return value


def count(value: Any, name: str) -> int:
    """An integer of at least 1."""
    return check_count(value, name)


def number(value: Any, name: str) -> int:
    """An integer of at least 0."""
    return check_count(value, name, least=0)


def random_key(value: Any, name: str) -> Any:
    """One of JAX's keys; None stays, where a function can do without."""
    dtype = getattr(value, "dtype", None)
    if value is None or (dtype is not None and (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == np.uint32)):
        return value
    raise ValueError(f"{name}: expected a random key, got {_brief(value)}; pass jax.random.key(0), for instance")


def function(value: Any, name: str) -> Any:
    """Something that can be called."""
    if not callable(value):
        raise ValueError(f"{name}: expected a function, got {_brief(value)}; pass what computes it")
    return value


def _above(value, name, *, strict):
    array = _floats(real(value, name), name)
    wrong = ~(array > 0) if strict else ~(array >= 0)
    if wrong.any():
        bound, advice = ("above 0", "pass positive ones") if strict else ("of at least 0", "drop the sign")
        raise ValueError(f"{name}: expected numbers {bound}, got {array[wrong].ravel()[0]}; {advice}")
    return _as_came(value, array)


def _floats(value, name) -> np.ndarray:
    """As a NumPy array of floats, to be looked at."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf" and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError
        return array if array.dtype.kind == "f" else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected real numbers, got {_brief(value)}; pass a number or an array") from error


def _as_came(value, array):
    """Numbers and floating arrays as they came; lists and integers as floating arrays."""
    if isinstance(value, int | float) or (hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)):
        return value
    return jnp.asarray(array, float) if isinstance(value, jax.Array) else array if array.ndim else float(array)


def _is_traced(tree) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree, is_leaf=_is_iterator))


def _is_iterator(node) -> bool:
    return isinstance(node, Iterator)


def _has(tree, test) -> bool:
    """Whether an entry of a floating leaf has it."""
    leaves = jax.tree.leaves(tree, is_leaf=_is_iterator)
    leaves = [leaf for leaf in leaves if isinstance(leaf, float | np.floating | np.ndarray | jax.Array)]
    arrays = [np.asarray(leaf) for leaf in leaves if jnp.issubdtype(getattr(leaf, "dtype", float), jnp.inexact)]
    return any(bool(test(array).any()) for array in arrays)


def _is_ours(error) -> bool:
    """Whether an error was raised by this package in words, not below it or by Python."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    path = trace.tb_frame.f_code.co_filename
    return path.startswith(_PACKAGE) and linecache.getline(path, trace.tb_lineno).lstrip().startswith("raise ")


def _told(given) -> str:
    return ", ".join(f"{name} {_shape(value)}" for name, value in given.items())


def _shape(value) -> str:
    if hasattr(value, "dtype") and getattr(value, "ndim", 0):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, tuple | list) and any(hasattr(part, "dtype") for part in value):
        return f"({', '.join(map(_shape, value))})"
    return _brief(value)


def _brief(value) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
