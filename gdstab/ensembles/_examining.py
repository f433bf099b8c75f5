"""What must be known of a loss and of its points before anything runs; found by tracing, once for each."""

from functools import partial
from typing import Any

import jax
import numpy as np

from gdstab._compiling import Use, kind_of
from gdstab._guard import all_equations, runs_alone
from gdstab._validate import check_loss
from gdstab.ensembles._kernel import Static, compiled
from gdstab.ensembles._points import Feed, is_source
from gdstab.ensembles._tuning import working_bytes


def one_point(use: Use, points) -> Any:
    """Shape and dtype of one initial point, of a source or of a pytree of arrays `[points, ...]`."""

    def shape(made):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), made)

    if not is_source(points):
        return shape(points)
    index = jax.ShapeDtypeStruct((1,), np.int32)
    return use.entry.once(
        ("point", kind_of(use.numbers)), lambda: shape(_shapes(use, lambda system, i: system.source(i), index))
    )


def check_system(use: Use, one, dtype) -> Any:
    """Shapes of the state that the rule begins with; an error if the loss is none for such a point."""

    def look():
        _shapes(use, lambda system, theta: check_loss(system.loss.loss, theta), one)
        return _shapes(use, lambda system, *args: system.rule.init(*args), one, jax.ShapeDtypeStruct((), dtype))

    return use.entry.once(("state", kind_of((one, use.numbers))), look)


def bytes_of_an_update(use: Use, one, state, dtype) -> int:
    """What all intermediate arrays of one update of one lane take."""

    def step(system, state, step_size):
        return system.rule.step(system.loss, state, step_size)

    def look():
        numbers, eta = use.numbers, jax.ShapeDtypeStruct((), dtype)
        return working_bytes(all_equations(jax.make_jaxpr(partial(use.entry.slot.trace, step))(numbers, state, eta)))

    return use.entry.once(("bytes", kind_of((one, use.numbers))), look)


def runs_by_itself(use: Use, numbers, static: Static, feed: Feed, one, platform: str) -> bool:
    """Whether no other call may run beside the passes of a job, by all that they do.

    The trace is the one that the first pass is compiled from.
    """

    def look():
        shapes = (one, jax.ShapeDtypeStruct((), np.uint32)) if feed.numbered else one
        points = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((static.chunk, *leaf.shape), leaf.dtype), shapes)
        number = jax.ShapeDtypeStruct((), np.int32)
        window = (number, number) if is_source(feed.initial) else None
        step_size = jax.ShapeDtypeStruct(() if feed.by_rows else (static.chunk,), feed.step_sizes.dtype)
        first, _ = compiled(platform, use.entry, static)
        traced = first.trace(numbers, points if window is None else None, window, step_size, number, number)
        return runs_alone(all_equations(traced.jaxpr))

    return use.entry.once(("alone", static, feed.by_rows, platform, kind_of((one, numbers))), look)


def _shapes(use: Use, fn, *args):
    """Shapes of `fn(system, *args)`."""
    return jax.eval_shape(lambda *args: use.entry.slot.trace(fn, use.numbers, *args), *args)
