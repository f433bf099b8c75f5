"""Units of the parts of a state: momentum and second moments have others than the parameters."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gdstab._types import State, Theta
from gdstab.outcomes import part_numbers

_SWEEPS = 4


def part_units(moves: Float[Array, "n n"], state: State, theta: Theta) -> Float[Array, " n"]:
    """Units of the entries of a state in which its parts act on each other alike; those of the first part are 1.

    `moves` is the Jacobian of a step, with the identity subtracted or not, and `theta` are the parameters of the state,
    whose shapes tell its parts. It is the balancing of a matrix (Osborne 1960, J. ACM 7), by parts.
    """
    numbers = part_numbers(state, theta)
    parts = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    units = [jnp.ones((), moves.dtype) for _ in parts]
    if len(parts) > 1:
        sizes = [[jnp.linalg.norm(moves[row][:, column]) for column in parts] for row in parts]
        for _ in range(_SWEEPS):
            for i in range(1, len(parts)):
                others = [j for j in range(len(parts)) if j != i]
                taken = sum(sizes[i][j] * units[j] for j in others)
                given = sum(sizes[j][i] / units[j] for j in others)
                fair = jnp.sqrt(taken / given)
                units[i] = jnp.where(jnp.isfinite(fair) & (fair > 0), fair, units[i])
    return jnp.stack(units)[np.searchsorted(np.unique(numbers), numbers)]
