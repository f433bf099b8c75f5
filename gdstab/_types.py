"""Shapes and callables, named once; `theta` is any pytree of arrays, `Point` a flat vector."""

from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Array, Float

Theta: TypeAlias = Any
"""Parameters of a loss: one floating-point array, or any pytree of them."""
State: TypeAlias = Any
"""What an update rule carries: parameters, momentum, counters, ..."""
Scalar: TypeAlias = Float[Array, ""]
Point: TypeAlias = Float[Array, " dim"]
LossFn: TypeAlias = Callable[[Theta], Scalar]
