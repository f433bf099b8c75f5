"""Points of any shape: how a flat vector and a pytree of parameters are told into each other, on host and device."""

import math
from typing import Any

import jax
import numpy as np

from gdstab._types import Theta
from gdstab._validate import as_theta, check_one_dtype, shapes_of


class Shape:
    """The shape of one point: leaves in the order of `jax.flatten_util.ravel_pytree`, each row by row.

    Two of the same structure are equal, so that it may be a static field of what is compiled.

    Examples
    --------
    >>> shape = Shape({"w": np.ones((1, 2)), "b": 0.5, "n": None})
    >>> shape.split(np.arange(6.0).reshape(2, 3))["w"].tolist(), shape.dim
    ([[[1.0, 2.0]], [[4.0, 5.0]]], 3)
    """

    def __init__(self, like: Theta):
        like = as_theta(like)
        check_one_dtype(like)
        leaves, self.structure = jax.tree.flatten(like)
        self.shapes = tuple(np.shape(leaf) for leaf in leaves)
        self.dtype = np.dtype(leaves[0].dtype)
        self.dim = sum(math.prod(shape) for shape in self.shapes)

    def __eq__(self, other):
        """Whether points of the one are points of the other."""
        return type(other) is Shape and self._key == other._key

    def __hash__(self):
        """Of structure and shapes."""
        return hash(self._key)

    @property
    def _key(self):
        return self.structure, self.shapes

    def split(self, flat: Any) -> Any:
        """Flat points `[..., dim]`, an array of NumPy or JAX, as a pytree of `[..., *shape]`."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes]).tolist()
        starts = [0, *ends[:-1]]
        leaves = [
            flat[..., start:end].reshape(*flat.shape[:-1], *shape)
            for start, end, shape in zip(starts, ends, self.shapes, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)

    def join(self, points: Any, name: str) -> np.ndarray:
        """A pytree of `[n, *shape]`, or of `[*shape]` for one point, as a flat array `[n, dim]` or `[dim]`."""
        leaves, structure = jax.tree.flatten(points)
        lead = np.shape(leaves[0])[: np.ndim(leaves[0]) - len(self.shapes[0])] if leaves else ()
        if structure != self.structure or [np.shape(leaf) for leaf in leaves] != [(*lead, *own) for own in self.shapes]:
            raise ValueError(
                f"{name}: expected {self.structure} of arrays with the shapes {self.shapes}, got {structure} of "
                f"{shapes_of(points)}; give points of the shape that the loss takes"
            )
        return np.concatenate([np.asarray(leaf).reshape(*lead, -1) for leaf in leaves], axis=-1)


def shape_of(points: Any) -> Shape:
    """The shape of one point of a pytree of arrays `[n, ...]`."""
    if not jax.tree.leaves(points) or any(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(points)):
        raise ValueError(f"expected initial points [points, ...], got shapes {shapes_of(points)}; add an axis")
    return Shape(jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)[1:], leaf.dtype), points))
