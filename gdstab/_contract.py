"""What every entry point asks of its rule, loss, stopping rule and starts: one line says which argument is wrong."""

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from gdstab._results import tell


def entry(function: Callable | None = None, *, host: bool = False) -> Callable:
    """Look at the arguments of a function before it runs, by their names: a decorator.

    Parameters
    ----------
    host
        The function runs on the host: called under a transformation of JAX it says so, by its name.

    Examples
    --------
    >>> @entry
    ... def follow(rule, loss, theta): ...
    >>> follow(abs, abs, 1.0)
    Traceback (most recent call last):
    ValueError: follow: `rule` must be an UpdateRule such as gradient_descent(), but got the function abs; ...
    """
    if function is None:
        return functools.partial(entry, host=host)
    names = [*inspect.signature(function).parameters]
    say = tell  # of the globals of this module the wrapper knows none
    asked = [(place, name, _CHECKS[name]) for place, name in enumerate(names) if name in _CHECKS]

    def look(args, options):
        for place, name, check in asked:
            given = args[place] if place < len(args) else options.get(name)
            if given is not None and (wrong := check(given)):
                raise ValueError(f"{_name(function)}: `{name}` must be {wrong}")
        if host and _is_traced([given for given in (*args, *options.values()) if not isinstance(given, Iterator)]):
            raise ValueError(
                f"{_name(function)} runs on the host and cannot be part of jit, vmap or grad, but got a traced "
                "argument: call it outside; it compiles by itself, and takes many points and step sizes at once"
            )

    def checked(*args, **options):
        look(args, options)
        return say(function(*args, **options), dict(zip(names, args, strict=False)) | options)

    # With the globals of its own module, by which doctest knows whose function it is.
    wrapper = types.FunctionType(checked.__code__, function.__globals__, function.__name__, None, checked.__closure__)
    wrapper = functools.wraps(function)(wrapper)
    wrapper.runs_on_host = host
    return wrapper


def _name(function: Callable) -> str:
    rooms = function.__module__.split(".")
    return (
        f"{rooms[1]}.{function.__name__}"
        if rooms[0] == "gdstab" and not rooms[1].startswith("_")
        else function.__name__
    )


def _is_traced(tree: Any) -> bool:
    """Whether there is a tracer among the arguments, or in what a function among them closes over."""
    leaves = jax.tree.leaves(tree)
    cells = [cell for leaf in leaves for cell in getattr(leaf, "__closure__", None) or ()]
    held = jax.tree.leaves([cell.cell_contents for cell in cells if cell != types.CellType()])
    return any(isinstance(leaf, jax.core.Tracer) for leaf in (*leaves, *held))


def _shown(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
        return f"the function {value.__name__}"
    if isinstance(value, np.ndarray | jax.Array):
        return f"an array of shape {value.shape}"
    words = repr(value).splitlines()[0]
    return words if len(words) <= 40 else f"an object of type {type(value).__name__}"


def _wrong_rule(rule: Any) -> str | None:
    if not isinstance(rule, type) and callable(getattr(rule, "step", None)):
        return None
    room = (getattr(rule, "__module__", None) or "").split(".")[0]
    if callable(getattr(rule, "update", None)) and callable(getattr(rule, "init", None)):
        advice = "wrap the function that builds it, as from_optax(optax.adam): it is given the step size"
    elif room == "optax":
        advice = f"wrap it: from_optax(optax.{rule.__name__})"
    elif room == "gdstab" and isinstance(rule, types.FunctionType):
        advice = f"call it: {rule.__name__}(...)"
    else:
        advice = "the rule comes first, then the loss"
    return f"an UpdateRule such as gradient_descent(), but got {_shown(rule)}; {advice}"


def _wrong_loss(loss: Any) -> str | None:
    if isinstance(loss, type):
        return f"a function of one theta, but got {_shown(loss)}; make one: {loss.__name__}(...)"
    if callable(loss) or isinstance(loss, int):  # which the short form of `rollout` takes, and nobody else
        return None
    order = "first the rule, then the loss, then where to start"
    what = "an UpdateRule" if _wrong_rule(loss) is None else _shown(loss)
    return f"a function of one theta, but got {what}; {order}"


def _wrong_stopping(stopping: Any) -> str | None:
    if hasattr(stopping, "escape_radius") and not isinstance(stopping, type):
        return None
    if isinstance(stopping, type):
        advice = f"make one: {stopping.__name__}()"
    elif isinstance(stopping, int | np.integer) and not isinstance(stopping, bool):
        advice = f"write StoppingRule(max_steps={stopping})"
    else:
        advice = "write StoppingRule(loss_tol=..., max_steps=...)"
    return f"a StoppingRule, but got {_shown(stopping)}; {advice}"


def _wrong_start(start: Any) -> str | None:
    if isinstance(start, types.FunctionType) or _wrong_rule(start) is None:
        return f"where to start, but got {_shown(start)}; first the rule, then the loss, then where to start"
    return None


def _wrong_step_size(step_size: Any) -> str | None:
    if callable(step_size) or np.ndim(step_size) > 1:
        return f"one step size, but got {_shown(step_size)}; the step size comes after where to start"
    return None


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "rule": _wrong_rule,
    "loss": _wrong_loss,
    "stopping": _wrong_stopping,
    **dict.fromkeys(("initial", "points", "starts", "theta", "state", "guess", "source"), _wrong_start),
    "step_size": _wrong_step_size,
}
