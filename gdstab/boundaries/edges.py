"""Where two outcomes meet along a segment: many segments bisected side by side."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float, Int16

from gdstab._datasets import recorded
from gdstab._validate import check_count, check_dtype, shapes_of


@recorded(
    {"found": "segment", "class_a": "segment", "class_b": "segment", "width": "segment",
     "points": ("segment", "coordinate"), "a": ("segment", "coordinate"), "b": ("segment", "coordinate")},
    attrs=("rounds",),
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class Edges:
    """Brackets of edges, one for each segment; where `found` is false the ends agree and are those that were given."""

    a: Float[np.ndarray, "segments dim"]
    b: Float[np.ndarray, "segments dim"]
    class_a: Int16[np.ndarray, " segments"]
    class_b: Int16[np.ndarray, " segments"]
    found: Bool[np.ndarray, " segments"]
    """Whether the two ends were of different classes."""
    rounds: int

    @property
    def points(self) -> Float[np.ndarray, "segments dim"]:
        """Points on the edges: the middles of the brackets; nan where there is none."""
        return np.where(self.found[:, None], self.a + (self.b - self.a) / 2, np.nan)

    @property
    def width(self) -> Float[np.ndarray, " segments"]:
        """Lengths of the brackets."""
        return np.linalg.norm(self.b - self.a, axis=1)


def bisect_edge(classify: Callable, a, b, tol: float = 0.0, *, parts: int = 2) -> Edges:
    r"""Cut segments whose ends end differently until the bracket of an edge is `tol` long, or as short as floats allow.

    The end `a` keeps its class: of the points that cut a bracket, the first whose class is another one becomes `b`, and
    the one before it `a`. Where there are several edges one is found, and it is one of the class of `a`.

    Parameters
    ----------
    classify
        `classify(points [n, dim]) -> classes [n]`, such as a `boundaries.Classifier`. Orbits near an edge are slow:
        with few `max_steps` the edge found is that between a verdict and UNDECIDED.
    a, b
        The ends of the segments, `[segments, dim]`, of one dtype.
    tol
        Length of a bracket that is short enough; the least is $\varepsilon \max(\|a\|, \|b\|)$.
    parts
        That each bracket is cut into; 2 asks for the fewest classes, more for fewer calls.

    Raises
    ------
    ValueError
        If the ends are not of one shape `[segments, dim]` and dtype, or not finite; if `tol` is negative or `parts`
        below 2.

    Examples
    --------
    >>> edges = bisect_edge(lambda points: (points[:, 0] > 0.3).astype(int), [[0.0, 1.0]], [[1.0, 1.0]])
    >>> edges.points.round(12).tolist(), bool(edges.width[0] < 1e-15)
    ([[0.3, 1.0]], True)
    """
    a, b = check_segments(a, b)
    parts = check_count(parts, "parts", least=2)
    if not tol >= 0:
        raise ValueError(f"tol: expected a length of 0 or more, got {tol}; 0 goes to the resolution of floats")
    class_a, class_b = np.split(np.asarray(classify(np.concatenate([a, b])), np.int16), 2)
    found = class_a != class_b
    ends, classes = np.stack([a, b], axis=1), np.stack([class_a, class_b], axis=1)
    rounds, active = 0, np.flatnonzero(found)
    while active.size:
        cuts = _cuts(ends[active], parts)
        going = _worth_cutting(ends[active], cuts, tol)
        active, cuts = active[going], cuts[going]
        if not active.size:
            break
        seen = np.asarray(classify(cuts.reshape(-1, a.shape[1])), np.int16).reshape(-1, parts - 1)
        chain = np.concatenate([ends[active, :1], cuts, ends[active, 1:]], axis=1)
        seen = np.concatenate([classes[active, :1], seen, classes[active, 1:]], axis=1)
        first = np.argmax(seen != seen[:, :1], axis=1)
        row = np.arange(active.size)
        ends[active] = np.stack([chain[row, first - 1], chain[row, first]], axis=1)
        classes[active, 1] = seen[row, first]
        rounds += 1
    return Edges(ends[:, 0], ends[:, 1], classes[:, 0], classes[:, 1], found, rounds)


def _cuts(ends: Float[np.ndarray, "n 2 dim"], parts: int) -> Float[np.ndarray, "n cuts dim"]:
    """The points that cut segments into equal parts."""
    share = (np.arange(1, parts) / parts).astype(ends.dtype)
    return ends[:, :1] + share[:, None] * (ends[:, 1:] - ends[:, :1])


def _worth_cutting(ends, cuts, tol: float) -> Bool[np.ndarray, " n"]:
    """Brackets that are still long, and that have a float between their ends."""
    width = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    least = np.maximum(tol, np.finfo(ends.dtype).eps * np.linalg.norm(ends, axis=2).max(axis=1))
    new = (cuts != ends[:, :1]).any(axis=2) & (cuts != ends[:, 1:]).any(axis=2)
    return (width > least) & new.any(axis=1)


def check_segments(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Ends of segments as copies, float arrays `[segments, dim]` of one shape and dtype."""
    ends = []
    for name, given in (("a", a), ("b", b)):
        if jax.tree.structure(given) != jax.tree.structure(0) and not isinstance(given, list | tuple):
            raise ValueError(
                f"{name}: expected ends [segments, dim], got {shapes_of(given)}; ravel them, and take the loss as "
                "losses.pullback.Pullback(loss, unravel)"
            )
        end = np.array(given)
        end = end.astype(end.dtype.newbyteorder("="), copy=False)
        end = end if end.dtype.kind == "f" else end.astype(check_dtype())
        if end.ndim != 2 or 0 in end.shape or not np.isfinite(end).all():
            raise ValueError(f"{name}: expected finite ends [segments, dim], got shape {end.shape}; give one per row")
        ends.append(end)
    if ends[0].shape != ends[1].shape or ends[0].dtype != ends[1].dtype:
        raise ValueError(
            f"expected as many ends `b` as `a`, of one dtype, got {ends[0].dtype} {ends[0].shape} and {ends[1].dtype} "
            f"{ends[1].shape}; pair them"
        )
    return ends[0], ends[1]
