"""The centre-stable manifold of a saddle of a shallow ReLU network, as arrays that a run can write down and draw."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from gdstab import figures
from gdstab.boundaries import saddle_neighbourhood
from gdstab.studies.escape import Escape
from gdstab.studies.escape.relu_levels import Ladder
from gdstab.theory import relu

MOST_NEURONS = 3
"""Of networks for which it is computed; beyond, the graph has more coordinates than a picture could stand for."""


def pattern(options: Escape, ladder: Ladder) -> tuple[int | str, ...]:
    """The saddle that `--manifold` names: by default a semi-active neuron and inactive ones; semi-active, with a leak.

    Such a saddle is left faster than one with breakpoints, and its manifold bends more.
    """
    if options.manifold:
        return tuple(int(word) if word.isdigit() else word for word in options.manifold)
    others = "semi-active" if float(ladder.loss.leak) > 0 else "inactive"
    return ("semi-active", *[others] * (ladder.loss.neurons - 1))


def wanted(options: Escape) -> bool:
    """Whether there is one to compute."""
    return options.manifold_cells > 0 and options.loss.neurons <= MOST_NEURONS


def saddle(options: Escape, ladder: Ladder) -> np.ndarray:
    """The parameters of the saddle.

    Raises
    ------
    ValueError
        If the words make no critical point of this network.
    """
    return relu.critical_point(pattern(options, ladder), **ladder.affine)


def compute(
    options: Escape, ladder: Ladder, dtype: np.dtype, kept: Callable[[Callable[[], dict]], dict]
) -> dict[str, np.ndarray]:
    """The manifold with orbits on it and beside it: what `figures.CentreStablePicture` holds, and how exact it is.

    `kept` is as for `saddle_neighbourhood`.

    Raises
    ------
    ValueError
        If the critical point has no unstable direction.
    """
    theta = saddle(options, ladder).astype(dtype)
    size = options.manifold_cells
    found = saddle_neighbourhood(ladder.loss, jnp.asarray(theta), options.saddle_step, resolution=size, kept=kept)
    surface, leaving = found.surface, found.leaving
    numbers = {
        **figures.CentreStablePicture.of(found)._asdict(), "slope": leaving.slope, "saddle": theta,
        "residual": surface.residual, "factor": surface.factor, "uncut": surface.uncut,
    }  # fmt: skip
    return {name: np.asarray(value) for name, value in numbers.items()}


def summarise(options: Escape, ladder: Ladder, found: dict[str, np.ndarray]) -> dict:
    """Which saddle, how exactly its graph is invariant, and the escape times against the prediction."""
    steps = 1 / np.log(found["mu"])
    return {
        "pattern": [str(role) for role in pattern(options, ladder)], "off_the_graph": float(found["residual"]),
        "contraction": float(found["factor"]), "uncut": float(found["uncut"]),
        "slopes": found["slope"].tolist(), "predicted_slopes": steps.tolist(),
    }  # fmt: skip


def draw(data):
    """The figure, from the dataset of a run."""
    found = {name: data[f"manifold_{name}"].values for name in figures.CentreStablePicture._fields}
    return figures.draw_centre_stable(figures.CentreStablePicture(**found))
