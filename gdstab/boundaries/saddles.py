"""Around a saddle: its centre-stable manifold, the orbits on it, and how soon those beside it leave."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, stability, updates
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._types import LossFn, Theta
from gdstab._validate import check_count
from gdstab.stability import CentreStable

DISTANCES = tuple(10.0**-k for k in range(2, 15))
"""Off the manifold, in units of the radius."""
SHARE = 0.7
"""Of half the radius: where starts lie and how far the grid goes, so that orbits stay where the map is not cut off."""
LEFT = 0.25
"""Height above E^cs, in units of the radius, at which an orbit has left."""
FAR = 4.0
"""In units of the radius, where an orbit is no longer followed."""
BUDGET = 1.6
"""Steps that orbits run, in units of the time in which rounding grows to size 1."""
_MARGIN = 50  # a fit of escape times stays this factor away from rounding and from the radius
_PIECE = 512
"""Points of the grid that are written down together."""
_OF_A_POINT = ("points", "factor", "reach", "off")
_SAMPLES = 3  # per unknown of the quadratic form that says where the graph bends


@recorded({"points": ("column", "coordinate"), "axes": ("axis", "coordinate_of_axis")}, rows="column",
          attrs=("factor", "uncut", "residual"))  # fmt: skip
class Surface(NamedTuple):
    """The graph over a grid. Points are in adapted coordinates: along E^cs first, then along E^u."""

    axes: np.ndarray  # [k, s], unit vectors of E^cs over which it is drawn, k = 1 or 2
    points: np.ndarray  # [points, n] or [points, points, n]
    factor: float  # the largest contraction measured
    uncut: float  # share of the points whose orbits were not cut off
    residual: float  # of those, the largest distance off the graph after one update


@recorded(
    {"escape": ("start", "distance"), "off": ("start", "distance", "update", "coordinate"),
     "on": ("start", "update", "coordinate"), "mu": "start", "slope": "start", "ratio": "start"},
    coords={"distance": "distances"}, attrs=("threshold",), rows=("start", "distance"),
)  # fmt: skip
class Leaving(NamedTuple):
    """Orbits that start on the graph, or off it along the leading direction of E^u; in adapted coordinates."""

    on: np.ndarray  # [starts, steps + 1, n]
    off: np.ndarray  # [starts, distances, steps + 1, n]
    distances: np.ndarray  # [distances]
    threshold: float
    escape: np.ndarray  # [starts, distances], steps until the length along E^u exceeds the threshold; -1: it did not
    mu: np.ndarray  # [starts], the largest modulus of a multiplier where the orbit on the graph ends
    slope: np.ndarray  # [starts], of the escape time against log(1 / distance); 1 / log(mu) is predicted

    @property
    def ratio(self) -> np.ndarray:
        """The slopes over what is predicted, [starts]."""
        return self.slope * np.log(self.mu)


class Neighbourhood(NamedTuple):
    """What `saddle_neighbourhood` found."""

    manifold: CentreStable
    surface: Surface
    leaving: Leaving


@entry(host=True)
def saddle_neighbourhood(
    loss: LossFn,
    saddle: Theta,
    step_size: float,
    *,
    rule: Any = None,
    radius: float | None = None,
    resolution: int = 25,
    num_starts: int = 4,
    distances: Sequence[float] = DISTANCES,
    max_steps: int = 100_000,
    kept: Callable[[Callable[[], dict]], dict] = lambda make: make(),
) -> Neighbourhood:
    r"""The centre-stable manifold of a saddle over two coordinates, and descents from it and from beside it.

    Off the graph by $\delta$ an orbit leaves after $\log(1/\delta) / \log\mu$ steps and a constant (until rounding
    sets in), where $\mu$ is the largest modulus of a multiplier at the critical point that the orbit on the graph
    tends to: the saddle itself, unless that lies on a manifold of critical points.

    Parameters
    ----------
    saddle
        A critical point with a multiplier beyond the unit circle.
    rule
        The update rule; gradient descent by default. Momentum begins at rest.
    radius
        As for `stability.centre_stable`.
    resolution
        Points of the grid along each axis. The axes are the two directions of E^cs in which the graph bends most.
    num_starts
        Points of the graph from which orbits start, on a circle in the plane of the axes (2 if E^cs is a line).
    distances
        In units of the radius.
    kept
        What a part of the work makes, arrays by name, or what it made before an interruption: the parts, of some
        seconds each, come in the same order every time.

    Raises
    ------
    ValueError
        As `stability.extend` and `stability.centre_stable`; if E^cs is a point; or if orbits need more than `max_steps`
        to leave.
    """
    rule = updates.gradient_descent() if rule is None else rule
    check_count(resolution, "resolution", least=2)
    check_count(num_starts, "num_starts")
    state = stability.extend(rule, loss, saddle, step_size)
    build = partial(stability.centre_stable, rule, loss, state, step_size)
    if radius is None:
        radius = float(kept(lambda: {"radius": build().radius})["radius"])
    manifold = build(radius=radius)
    if not manifold.dim:
        raise ValueError(
            "expected a multiplier on or inside the unit circle, got none: the manifold is the point itself"
        )
    steps = math.ceil(-BUDGET * math.log(_eps(manifold)) / math.log(float(jnp.abs(manifold.multipliers[0]))))
    if steps > max_steps:
        raise ValueError(f"orbits need {steps} steps to leave, more than max_steps = {max_steps}; raise the step size")
    axes = kept(lambda: {"axes": _bending(manifold)})["axes"]
    surface = _surface(manifold, axes, resolution, kept)
    lengths = np.asarray(distances, float) * float(manifold.radius)
    leaving = kept(lambda: _leaving(manifold, axes, num_starts, lengths, steps)._asdict())
    return Neighbourhood(manifold, surface, Leaving(**leaving))


def escape_times(heights: np.ndarray, threshold: float) -> np.ndarray:
    """The first step at which the length of `heights` [..., steps + 1, u] exceeds the threshold; -1 if none does.

    >>> escape_times(np.array([[[0.1], [0.2], [0.4]], [[0.1], [0.1], [0.1]]]), 0.3).tolist()
    [2, -1]
    """
    beyond = ~(np.linalg.norm(heights, axis=-1) <= threshold)
    return np.where(beyond.any(axis=-1), beyond.argmax(axis=-1), -1)


class _Above(eqx.Module):
    """The point of the graph above y, in adapted coordinates; its orbit halfway; the contraction and the reach."""

    manifold: CentreStable

    def __call__(self, y):
        found = self.manifold.evaluate(y)
        return jnp.concatenate([y, found.height]), found.orbit[self.manifold.length // 2], found.factor, found.reach


class _Image(eqx.Module):
    """One update, in adapted coordinates."""

    manifold: CentreStable

    def __call__(self, x):
        state = self.manifold.fixed_point + jnp.matmul(self.manifold.basis, x, precision="highest")
        return jnp.concatenate(self.manifold.coordinates(self.manifold.step(state)))


@jit
def _follow(image: _Image, points, steps: int):
    """Orbits [lanes, steps + 1, n] from points [lanes, n]; one that is far away stays where it is."""

    def advance(x, _):
        near = jnp.linalg.norm(x, axis=1, keepdims=True) <= FAR * image.manifold.radius
        return jnp.where(near, jax.vmap(image)(x), x), x

    return jnp.swapaxes(jax.lax.scan(advance, points, length=steps + 1)[1], 0, 1)


def _surface(manifold: CentreStable, axes: np.ndarray, resolution: int, kept) -> Surface:
    """The graph over a grid, and how well it is invariant."""
    reach = SHARE * float(manifold.radius) / 2
    ticks = np.linspace(-reach, reach, resolution)
    mesh = np.stack(np.meshgrid(*[ticks] * len(axes), indexing="ij"), axis=-1)
    y = mesh.reshape(-1, len(axes)) @ axes
    size = min(len(y), _PIECE)
    parts = [kept(partial(_piece, manifold, y[start : start + size], size)) for start in range(0, len(y), size)]
    points, factor, reached, off = (np.concatenate([part[name] for part in parts]) for name in _OF_A_POINT)
    uncut = reached <= float(manifold.radius) / 2
    residual = off[uncut].max(initial=0)
    return Surface(
        axes, points.reshape(*mesh.shape[:-1], -1), float(factor.max()), float(uncut.mean()), float(residual)
    )


def _piece(manifold: CentreStable, y: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """The graph above some points, and how far one update leads off it, by the program for so many."""
    points, _, factor, reached = ensembles.map_points(
        _Above(manifold), _cast(manifold, np.resize(y, (size, y.shape[1])))
    )
    images = ensembles.map_points(_Image(manifold), _cast(manifold, points))
    again, *_ = ensembles.map_points(_Above(manifold), _cast(manifold, images[:, : manifold.dim]))
    found = points, factor, reached, np.linalg.norm(images - again, axis=1)
    return {name: value[: len(y)] for name, value in zip(_OF_A_POINT, found, strict=True)}


def _leaving(manifold: CentreStable, axes, num_starts: int, lengths: np.ndarray, steps: int) -> Leaving:
    """Orbits from a circle on the graph and from beside it."""
    angles = 2 * np.pi * (np.arange(num_starts) + 0.5) / num_starts
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) if len(axes) == 2 else np.array([[-1.0], [1.0]])
    reach = SHARE * float(manifold.radius) / 2
    starts, halfway, *_ = ensembles.map_points(_Above(manifold), _cast(manifold, reach * circle @ axes))
    beside = np.repeat(starts[:, None], 1 + len(lengths), axis=1)
    beside[:, 1:, manifold.dim] += np.where(np.arange(len(starts)) % 2, -1, 1)[:, None] * lengths
    orbits = np.asarray(_follow(_Image(manifold), _cast(manifold, beside.reshape(-1, starts.shape[1])), steps))
    orbits = orbits.reshape(*beside.shape[:2], *orbits.shape[1:])
    threshold = LEFT * float(manifold.radius)
    escape = escape_times(orbits[:, 1:, :, manifold.dim :], threshold)
    step = manifold.step
    matrices = [stability.jacobian(step.rule, step.loss, step.unravel(x), step.step_size) for x in jnp.asarray(halfway)]
    mu = np.abs(np.linalg.eigvals(np.asarray(matrices))).max(axis=1)
    slope = np.array([_slope(manifold, lengths, times) for times in escape])
    return Leaving(orbits[:, 0], orbits[:, 1:], lengths, threshold, escape, mu, slope)


def _slope(manifold: CentreStable, lengths: np.ndarray, times: np.ndarray) -> float:
    """Of the escape time against log(1 / distance), by least squares, where neither rounding nor the ends disturb."""
    radius = float(manifold.radius)
    low = _MARGIN * _eps(manifold) * max(radius, float(jnp.linalg.norm(manifold.fixed_point)))
    fit = (times > 0) & (lengths > low) & (lengths < radius / _MARGIN)
    return float(np.polyfit(-np.log(lengths[fit]), times[fit], 1)[0]) if fit.sum() > 1 else math.nan


def _bending(manifold: CentreStable) -> np.ndarray:
    """The one or two directions of E^cs in which the leading height is most curved, by a quadratic fit to samples."""
    dim = manifold.dim
    if dim == 1:
        return np.ones((1, 1))
    first, second = np.triu_indices(dim)
    y = np.random.default_rng(0).standard_normal((_SAMPLES * len(first), dim))
    y *= SHARE * float(manifold.radius) / 2 / np.linalg.norm(y, axis=1, keepdims=True)
    heights = [ensembles.map_points(_Above(manifold), _cast(manifold, side * y))[0][:, dim] for side in (1, -1)]
    form = np.zeros((dim, dim))
    form[first, second] = np.linalg.lstsq(y[:, first] * y[:, second], np.mean(heights, axis=0), rcond=None)[0]
    values, vectors = np.linalg.eigh((form + form.T) / 2)
    return vectors[:, np.argsort(-np.abs(values))[:2]].T


def _eps(manifold: CentreStable) -> float:
    return float(jnp.finfo(manifold.radius.dtype).eps)


def _cast(manifold: CentreStable, points: np.ndarray):
    return jnp.asarray(points, manifold.radius.dtype)
