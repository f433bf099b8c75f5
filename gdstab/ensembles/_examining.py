"""What must be known of a loss and of its points before anything is compiled; found by tracing, once for each."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from gdstab._validate import check_loss
from gdstab.ensembles._points import is_source
from gdstab.ensembles._tuning import all_equations, calls_lapack

_KNOWN: dict = {}
_MANY = 512


def one_point(points) -> Any:
    """Shape and dtype of one initial point, of a source or of a pytree of arrays `[points, ...]`."""

    def shape():
        made = jax.eval_shape(points, jax.ShapeDtypeStruct((1,), np.int32)) if is_source(points) else points
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), made)

    return _once("point", points, None, shape) if is_source(points) else shape()


def needs_the_cpu(loss, points, one) -> bool:
    """Whether loss or source call what must not run twice at once; an error if the loss is none for such a point."""

    def look():
        check_loss(loss, one)
        return calls_lapack(all_equations(loss, one))

    def look_at_source():
        return calls_lapack(all_equations(points, jax.ShapeDtypeStruct((1,), np.int32)))

    return _once("loss", loss, one, look) or (is_source(points) and _once("source", points, None, look_at_source))


def _once(what: str, module, one, find: Callable):
    """The answer to a question that depends on a module's structure and shapes only, not on its numbers."""
    arrays, static = eqx.partition(module, lambda leaf: eqx.is_array(leaf) or eqx.is_inexact_array_like(leaf))
    shapes = [(np.shape(leaf), str(getattr(leaf, "dtype", None))) for leaf in jax.tree.leaves(arrays)]
    leaves, treedef = jax.tree.flatten(one)
    key = what, static, *shapes, treedef, *leaves, jax.config.jax_enable_x64
    if key not in _KNOWN:
        if len(_KNOWN) >= _MANY:
            _KNOWN.clear()
        _KNOWN[key] = find()
    return _KNOWN[key]
