r"""All critical points of a loss in a box: where $\nabla L = 0$, sought from many starts, told apart by Hessians."""

import dataclasses
import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int8, Int64
from scipy.spatial import cKDTree

from gdstab import curvature, ensembles, stability
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._types import LossFn, Theta
from gdstab._validate import check_box, check_count, check_loss
from gdstab.basins.grouping import find_attractors
from gdstab.sampling import sobol

_UPDATES = 200  # of the search from each start
_MOST_PARAMETERS = 200
_CLOSE = 2e3  # of the rounding of the box: how near each other two ends are one point
_COARSE = 1 / 64  # of the box: the same where the Hessian is singular, and there may be whole sets of them
_SPACINGS = 3.0  # the same, of the distance that nine in ten ends have to the next, if that is more


class CriticalKind(enum.IntEnum):
    """What a critical point is, by the signs of its Hessian's eigenvalues."""

    MINIMUM = 0  # none negative, and none zero or the loss is at its floor: see `stability.classify`
    SADDLE = 1
    MAXIMUM = 2  # all negative
    DEGENERATE = 3  # the second order does not decide


@recorded(
    {"kind": "critical_point", "loss": "critical_point", "gradient": "critical_point", "extent": "critical_point",
     "hits": "critical_point", "point": ("critical_point", "coordinate"),
     "eigenvalues": ("critical_point", "eigenvalue")},
    attrs=("starts", "outside", "lost"), codes={"kind": CriticalKind},
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class CriticalPoints:
    """The critical points that were found, by ascending loss."""

    point: Float[np.ndarray, "points dim"]
    """Pytrees are raveled."""
    loss: Float[np.ndarray, " points"]
    gradient: Float[np.ndarray, " points"]
    """Norm of it: what rounding leaves."""
    eigenvalues: Float[np.ndarray, "points dim"]
    """Of the Hessian, ascending."""
    kind: Int8[np.ndarray, " points"]
    """A `CriticalKind`."""
    extent: Float[np.ndarray, " points"]
    """Longest side of the box that holds all ends taken for this point: 0, or that of a curve of critical points."""
    hits: Int64[np.ndarray, " points"]
    """Starts from which the search ended there."""
    starts: int
    outside: int
    """Starts from which it ended at a critical point outside of the box."""
    lost: int
    """Starts from which it ended at none."""

    @property
    def num(self) -> int:
        """How many there are."""
        return len(self.kind)

    @property
    def negative(self) -> Int64[np.ndarray, " points"]:
        """Negative eigenvalues of each: its Morse index, where none is zero."""
        return (self.eigenvalues < 0).sum(axis=1)

    @property
    def unseen(self) -> float:
        """Chance that one more start ends at a point not listed here (Good 1953): the share of those hit once."""
        total = int(self.hits.sum())
        return float((self.hits == 1).sum() / total) if total else 1.0

    def rows(self) -> list[dict]:
        """One row a point, of plain numbers."""
        names = [CriticalKind(code).name.lower() for code in self.kind]
        return [
            {
                "kind": name, "point": self.point[i].tolist(), "loss": float(self.loss[i]),
                "eigenvalues": self.eigenvalues[i].tolist(), "gradient": float(self.gradient[i]),
                "extent": float(self.extent[i]), "hits": int(self.hits[i]),
            }
            for i, name in enumerate(names)
        ]  # fmt: skip

    def table(self) -> str:
        """The rows as text."""
        head = f"{'kind':<12}{'loss':>14}{'hits':>8}  {'eigenvalues':<28} point"
        lines = [head]
        for row in self.rows():
            values, place = (", ".join(f"{x + 0.0:.6g}" for x in row[name]) for name in ("eigenvalues", "point"))
            kind = row["kind"] + ("*" if row["extent"] > 0 else "")
            lines.append(f"{kind:<12}{row['loss']:>14.8g}{row['hits']:>8}  {values:<28} ({place})")
        if (self.extent > 0).any():
            lines.append("* one of a set of critical points")
        lines.append(
            f"{self.starts} starts: {self.outside} ended outside of the box, {self.lost} nowhere; "
            f"chance that the next one finds a new point: {self.unseen:.2g}"
        )
        return "\n".join(lines)


@entry(host=True)
def critical_points(
    loss: LossFn, box: Any, *, starts: int = 4096, seed: int = 0, like: Theta | None = None, dtype: Any = None
) -> CriticalPoints:
    r"""All points of a box where $\nabla L = 0$, as far as a search from many starts finds them.

    From each of the starts, a scrambled Sobol set, $\|\nabla L\|^2$ is minimised by Levenberg and Marquardt's method
    with the exact Hessian, which ends at minima, saddles and maxima alike. What ends with
    $\|\nabla L\| \le \epsilon^{3/4} \|\nabla^2 L\|$ times the side of the box is critical; the ends are grouped by
    their distance (`find_attractors`), finely where the Hessian is regular and such points are isolated. Where it is
    singular, those of equal loss and as many negative eigenvalues are, at a 64th of the box or three times the usual
    distance to the next: a curve of minima is one row and not thousands.

    Parameters
    ----------
    loss
        Twice differentiable, with at most 200 parameters: their whole Hessian is solved with.
    box
        `((low, high), ...)`, a pair for each parameter; one pair for all if `like` says how many there are.
    starts
        How many: what is found depends on it, see `CriticalPoints.unseen`.
    seed
        Of the Sobol set.
    like
        A point of the shape of `theta`, where that is no vector; boxes and answers are raveled.
    dtype
        By default float64 where JAX has it enabled.

    Raises
    ------
    ValueError
        If the box does not fit, or there are too many parameters.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> found = critical_points(lambda x: jnp.sum(x**4 - x**2), ((-1, 1.2), (-1, 1)), starts=256)
    >>> np.bincount(found.kind).tolist()  # minima, saddles, maxima
    [4, 4, 1]
    """
    starts = check_count(starts, "starts")
    flat_like, unravel = (None, None) if like is None else ravel_pytree(like)
    box = np.asarray(box, float)
    if flat_like is not None and box.shape == (2,):
        box = np.tile(box, (flat_like.size, 1))
    box = check_box(box, None if flat_like is None else flat_like.size)
    if len(box) > _MOST_PARAMETERS:
        raise ValueError(
            f"expected at most {_MOST_PARAMETERS} parameters, got {len(box)}: the whole Hessian is solved with; hold "
            "the others by `curvature.block`"
        )
    points = np.asarray(sobol(starts, box, seed=seed, dtype=dtype))
    flat_loss = loss if unravel is None else eqx.Partial(_on_flat, loss, unravel)
    check_loss(flat_loss, points[0])
    side = float(np.ptp(box, axis=1).max())
    ends = ensembles.map_points(_Search(flat_loss, side), points)
    eps = float(np.finfo(points.dtype).eps)
    found = np.isfinite(ends["point"]).all(axis=1) & (ends["gradient"] <= eps**0.75 * ends["bend"] * side)
    margin = _CLOSE * eps * side
    inside = ((ends["point"] >= box[:, 0] - margin) & (ends["point"] <= box[:, 1] + margin)).all(axis=1)
    bend = np.median(np.nan_to_num(ends["bend_at_start"], posinf=0))
    rows = _distinct({name: array[found & inside] for name, array in ends.items()}, side, float(bend), eps)
    return CriticalPoints(
        **_described(_Look(flat_loss, eps**0.75 * float(bend)), rows),
        starts=starts,
        outside=int((found & ~inside).sum()),
        lost=int((~found).sum()),
    )


def _on_flat(loss, unravel, flat):
    return loss(unravel(flat))


class _Search(eqx.Module):
    """From a start to where the gradient vanishes, or where the search for that is stuck."""

    loss: LossFn
    side: float = eqx.field(static=True)

    def __call__(self, start):
        slope = jax.grad(self.loss)
        one = jnp.ones((), start.dtype)

        def try_step(carry, _):
            x, damping = carry
            g, H = slope(x), curvature.hessian(self.loss, x)
            square = H @ H
            weight = damping * jnp.maximum(jnp.trace(square) / len(x), jnp.finfo(x.dtype).tiny)
            step = jnp.linalg.solve(square + weight * jnp.eye(len(x), dtype=x.dtype), H @ g)
            step = step * jnp.minimum(one, self.side / jnp.maximum(jnp.linalg.norm(step), jnp.finfo(x.dtype).tiny))
            there = x - step
            better = jnp.linalg.norm(slope(there)) < jnp.linalg.norm(g)  # False for nan
            damping = jnp.clip(damping * jnp.where(better, 0.1, 8.0).astype(x.dtype), jnp.finfo(x.dtype).eps ** 2, 1e8)
            return (jnp.where(better, there, x), damping), None

        (x, _), _ = lax.scan(try_step, (start, one * 1e-2), length=_UPDATES)
        with jax.default_matmul_precision("highest"):
            return {
                "point": x, "gradient": jnp.linalg.norm(slope(x)),
                "bend": jnp.linalg.norm(curvature.hessian(self.loss, x)),
                "eigenvalues": curvature.eigenvalues(self.loss, x), "loss": self.loss(x),
                "bend_at_start": jnp.linalg.norm(curvature.hessian(self.loss, start)),
            }  # fmt: skip


def _distinct(ends: dict[str, np.ndarray], side: float, bend: float, eps: float) -> dict[str, np.ndarray]:
    """One end of each critical point, that with the least gradient, how many there were, and how far apart."""
    point, values = ends["point"], ends["eigenvalues"]
    zero = np.maximum(eps**0.5 * ends["bend"], eps**0.75 * bend)[:, None]
    singular = (np.abs(values) <= zero).any(axis=1)
    least = max(eps**0.5 * float(np.abs(ends["loss"]).max(initial=0)), eps * bend * side**2)
    levels = _levels(ends["loss"], least)
    family = np.where(singular, 1 + (values < -zero).sum(axis=1) + (1 + values.shape[1]) * levels, 0)
    chosen, hits, extent = [], [], []
    for number in np.unique(family):
        rows = np.flatnonzero(family == number)
        tol = _CLOSE * eps * side
        if number and len(rows) > 1:
            nearest = cKDTree(point[rows]).query(point[rows], 2)[0][:, 1]
            tol = max(_COARSE * side, _SPACINGS * float(np.quantile(nearest, 0.9)))
        _, label = find_attractors(point[rows], tol, most=rows.size)
        for here in range(label.max() + 1):
            members = rows[label == here]
            chosen.append(members[np.argmin(ends["gradient"][members])])
            hits.append(len(members))
            spread = float(np.ptp(point[members], axis=0).max())
            extent.append(spread if spread > 2 * _CLOSE * eps * side else 0.0)
    index = np.array(chosen, np.int64)
    return {
        "point": point[index], "gradient": ends["gradient"][index],
        "hits": np.array(hits, np.int64), "extent": np.array(extent, point.dtype),
    }  # fmt: skip


def _levels(loss: np.ndarray, least: float) -> np.ndarray:
    """Numbers of values that differ by that much: on a connected set of critical points the loss is constant."""
    order, levels = np.argsort(loss), np.zeros(len(loss), np.int64)
    levels[order[1:]] = np.cumsum(np.diff(loss[order]) > least)
    return levels


class _Look(eqx.Module):
    """The loss, the eigenvalues and the kind of a critical point."""

    loss: LossFn
    least: float
    """Eigenvalues that are zero next to the curvature that is usual in the box."""

    def __call__(self, x):
        kind, (negative, zero, positive) = stability.classify(self.loss, x)
        values = curvature.eigenvalues(self.loss, x)
        below = (negative > 0) & (values[0] < -jnp.asarray(self.least, x.dtype))
        code = jnp.where(kind == stability.Kind.MINIMUM, CriticalKind.MINIMUM, CriticalKind.DEGENERATE)
        code = jnp.where(below, CriticalKind.SADDLE, code)
        code = jnp.where(below & (zero == 0) & (positive == 0), CriticalKind.MAXIMUM, code)
        return self.loss(x), values, code.astype(jnp.int8)


def _described(look: _Look, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fields of the points, by ascending loss."""
    point = rows["point"]
    if not len(point):
        nothing = np.zeros(0, point.dtype)
        return rows | {"loss": nothing, "eigenvalues": point, "kind": np.zeros(0, np.int8)}
    value, eigenvalues, kind = ensembles.map_points(look, point)
    order = np.lexsort((*point.T[::-1], kind, value.round(12)))
    rows = rows | {"loss": value, "eigenvalues": eigenvalues, "kind": kind}
    return {name: array[order] for name, array in rows.items()}
