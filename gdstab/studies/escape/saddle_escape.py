"""Descent from around an exact saddle of a shallow ReLU network: from balls, from a square, and step by step."""

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, orbits, sampling, updates
from gdstab._numerics import sum_squares
from gdstab.outcomes import StoppingRule
from gdstab.studies.escape import Escape
from gdstab.studies.escape.relu_levels import Ladder, classify_ends, descent_with_clock
from gdstab.studies.work import run_piece
from gdstab.theory import relu

_FLAT = 1e-3
"""Orbits from a ball are at rest where the gradient is below this share of the least radius times the curvature."""


class Saddle(NamedTuple):
    """An exact critical point, and two directions to leave it."""

    theta: np.ndarray  # [3N + 1]
    pattern: tuple[int | str, ...]  # a breakpoint's number or a role per neuron
    kind: str
    level: int  # the place of its loss among the levels of the ladder
    curvature: float  # the least eigenvalue of the Hessian, negative
    directions: np.ndarray  # [2, 3N + 1], orthonormal: of the least eigenvalue, and (nearly) all biases lowered


def find_saddle(options: Escape, ladder: Ladder) -> Saddle:
    """The saddle that `--saddle` names.

    With a leak the constant realisations are the saddles that are known; there the neurons are "semi-active" by
    default.

    Raises
    ------
    ValueError
        If the words make no critical point of this network, or one from which the loss does not fall.
    """
    pattern = _pattern(options, ladder)
    theta = relu.critical_point(pattern, **ladder.affine)
    kind = relu.CriticalType(int(relu.classify(theta, **ladder.problem)))
    if len(pattern) != ladder.loss.neurons or "SADDLE" not in kind.name:
        raise ValueError(
            f"--saddle takes a word for each of {ladder.loss.neurons} neurons that make a saddle of this loss, got "
            f"{' '.join(map(str, pattern))}: {kind.name.lower().replace('_', ' ')}; take semi-active for each"
        )
    curvature, first = relu.escape_direction(theta, **ladder.problem)
    neurons = ladder.loss.neurons
    second = np.zeros(theta.size)
    second[neurons : 2 * neurons] = -1
    second -= (second @ first) * first
    level = ladder.kinks.index(max((role for role in pattern if isinstance(role, int)), default=0))
    directions = np.stack([first, second / np.linalg.norm(second)])
    return Saddle(theta, pattern, kind.name.lower(), level, curvature, directions)


def _pattern(options: Escape, ladder: Ladder) -> tuple[int | str, ...]:
    if options.saddle:
        return tuple(int(word) if word.isdigit() else word for word in options.saddle)
    neurons, kinks = ladder.loss.neurons, ladder.kinks[-1]
    if float(ladder.loss.leak) > 0 or kinks == 0:
        return ("semi-active",) * neurons
    return (*range(1, kinks + 1), *["inactive"] * (neurons - kinks))


class Left(NamedTuple):
    """Orbits that started near the saddle: where they ended, and for how long their loss stayed near its level."""

    level: np.ndarray
    kind: np.ndarray
    loss: np.ndarray
    stay: np.ndarray  # updates


def starts(options: Escape, saddle: Saddle, dtype) -> np.ndarray:
    """Uniform points of the balls, one radius after the other, then the cells of the square, [orbits, 3N + 1]."""
    balls = ball_offsets(options, saddle.theta.size, options.ball_starts, dtype).reshape(-1, saddle.theta.size)
    return (saddle.theta + np.concatenate([balls, square_offsets(options, saddle)])).astype(dtype)


def leave(
    options: Escape, ladder: Ladder, saddle: Saddle, stopping: StoppingRule, points: np.ndarray, size: int, progress
) -> Left:
    """Orbits from some of the `starts`, by the program that runs `size` of them."""
    least = _FLAT * min(options.radii) * -saddle.curvature
    run = run_piece(
        descent_with_clock(tuple(ladder.values.tolist()), options.band), ladder.loss, points, size,
        options.saddle_step, dataclasses.replace(stopping, grad_tol=min(options.grad_tol, least)),
        keep=("state", "loss"), progress=progress,
    )  # fmt: skip
    ends = classify_ends(ladder, run.state.theta, run.loss, run.outcome)
    return Left(ends.level, ends.kind, run.loss, run.state.near[:, saddle.level])


def apart(options: Escape, left: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of all `starts`: `balls_...` `[radii, starts]`, and `square_...` `[cells, cells]`."""
    cut = len(options.radii) * options.ball_starts
    balls = {f"balls_{name}": value[:cut].reshape(len(options.radii), -1) for name, value in left.items()}
    square = {f"square_{name}": value[cut:].reshape(options.cells, -1) for name, value in left.items()}
    return balls | square


def ball_offsets(options: Escape, dim: int, num: int, dtype) -> np.ndarray:
    """The same uniform points of the unit ball, times each radius, [radii, num, dim]."""
    key = jax.random.fold_in(jax.random.key(options.seed), 1)
    unit = np.asarray(sampling.ball(key, num, dim, dtype=dtype))
    return np.asarray(options.radii)[:, None, None] * unit


def square_offsets(options: Escape, saddle: Saddle) -> np.ndarray:
    """The centres of the cells of a square in the plane of `saddle.directions`, [cells squared, dim]."""
    along = (np.arange(options.cells) + 0.5) / options.cells * 2 * options.reach - options.reach
    grid = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1)
    return grid.reshape(-1, 2) @ saddle.directions


def predicted_time(options: Escape, saddle: Saddle) -> float:
    r"""Updates in which the distance along the leading direction grows e-fold: $1 / \log(1 + \eta |\lambda|)$."""
    return 1 / math.log1p(options.saddle_step * -saddle.curvature)


class Walks(NamedTuple):
    """Orbits step by step, the start included."""

    theta: np.ndarray  # [orbits, updates + 1, 3N + 1]
    loss: np.ndarray  # [orbits, updates + 1]
    gradient: np.ndarray  # its norm


def walk(ladder: Ladder, starts: np.ndarray, step_sizes: np.ndarray, num_steps: int) -> Walks:
    """Follow every start with its step size for so many updates, by the definition of an orbit, not by the engine."""
    follow = orbits.rollout(updates.gradient_descent(), num_steps, observe=partial(_observe, ladder.loss))

    def one(lane):
        theta, step_size = lane
        _, path = follow(ladder.loss, theta, step_size)
        first = _observe(ladder.loss, theta)
        return jax.tree.map(lambda begin, rest: jnp.concatenate([begin[None], rest]), first, path)

    return Walks(*ensembles.map_points(one, (starts, step_sizes.astype(starts.dtype))))


def _observe(loss, theta):
    value, gradient = jax.value_and_grad(loss)(theta)
    return theta, value, jnp.sqrt(sum_squares(gradient))
