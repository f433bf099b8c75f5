r"""Transient growth: what a non-normal map does before its multipliers decide. NumPy, on one matrix.

The Jacobians of momentum are not normal: $\|J^k\|$ can be large for a while although all multipliers are small.
Norms depend on the units of the momentum against those of the parameters; see `entries` in `transient_growth`.
"""

from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Complex, Float

from gdstab import _arguments as arguments
from gdstab._datasets import recorded
from gdstab._validate import check_count

_PROVED = 1e-8
"""By how much of itself the largest height may exceed the one that is returned."""


@recorded({"norms": "power"}, attrs=("peak", "power", "complete"))
class TransientGrowth(NamedTuple):
    r"""The largest $\|J^k\|_2$ of the powers that were looked at: of all if `complete`, else a lower bound of that."""

    peak: float
    power: int  # the k of the peak
    norms: Float[np.ndarray, " powers"]  # from k = 0
    complete: bool  # whether it is certain that no later power is larger


@arguments.closed_form()
def transient_growth(jacobian, *, max_power: int = 1000, entries: int | None = None) -> TransientGrowth:
    r"""The largest $\|J^k\|_2$ over $0 \le k \le$ `max_power`, and when.

    It stops as soon as no later power can be larger: $\|J^{qk + r}\| \le \|J^k\|^q \max_{j < k} \|J^j\|$, so once
    $\|J^k\| \le 1$ and its product with that maximum is at most the peak.

    Parameters
    ----------
    jacobian
        `[n, n]`, such as from `stability.jacobian`.
    entries
        Perturb and look at the first `entries` coordinates only. The parameters come first in a state, so with their
        number this is how far a parameter can be carried from a disturbance of parameters alone, whatever the units of
        the momentum.

    Raises
    ------
    ValueError
        If the matrix is not square and finite, or the numbers are no positive integers that fit.

    Examples
    --------
    >>> found = transient_growth([[0.5, 10.0], [0.0, 0.5]])
    >>> found.power, round(found.peak, 3), found.complete
    (1, 10.025, True)
    """
    matrix = _square(jacobian)
    max_power = check_count(max_power, "max_power")
    n = len(matrix)
    kept = n if entries is None else check_count(entries, "entries")
    if kept > n:
        raise ValueError(f"entries: expected at most the {n} rows of the matrix, got {kept}; lower it")
    power, norms, most = np.eye(n), [1.0], 1.0
    complete = False
    for _ in range(max_power):
        with np.errstate(over="ignore", invalid="ignore"):
            power = power @ matrix
        if not np.isfinite(power).all():
            norms.append(np.inf)
            break
        whole = float(np.linalg.norm(power, 2))
        norms.append(float(np.linalg.norm(power[:kept, :kept], 2)))
        if whole <= 1 and whole * most <= max(norms):
            complete = True
            break
        most = max(most, whole)
    at = int(np.argmax(norms))
    return TransientGrowth(norms[at], at, np.array(norms), complete)


@arguments.closed_form()
def kreiss_bound(jacobian, *, radii: int = 60, angles: int = 180) -> float:
    r"""A lower bound of the largest $\|J^k\|_2$, from the resolvent: $\max_{|z| > 1} (|z| - 1) \|(zI - J)^{-1}\|_2$.

    The maximum over all $z$ is Kreiss' constant $K$, and $K \le \sup_k \|J^k\| \le e n K$ (Trefethen and Embree 2005,
    Spectra and Pseudospectra, section 18). It is taken over a grid of $|z| - 1$ from 1e-4 to 100 and of angles, so what
    comes back is at most $K$.

    Raises
    ------
    ValueError
        If the matrix is not square and finite, or has an eigenvalue outside the unit circle, where $K$ is infinite.

    Examples
    --------
    >>> 2.5 < kreiss_bound([[0.5, 10.0], [0.0, 0.5]]) < 10.025
    True
    """
    matrix = _square(jacobian)
    radius = float(np.abs(np.linalg.eigvals(matrix)).max())
    if radius > 1 + np.sqrt(_precision(jacobian)):
        raise ValueError(
            f"expected a matrix without eigenvalues outside the unit circle, got one of modulus {radius:.6g}: its "
            "powers grow without bound"
        )
    beyond = np.geomspace(1e-4, 100, check_count(radii, "radii"))
    turns = np.exp(2j * np.pi * np.arange(check_count(angles, "angles")) / angles)
    z = np.multiply.outer(1 + beyond, turns)
    smallest = np.linalg.svd(z[..., None, None] * np.eye(len(matrix)) - matrix, compute_uv=False)[..., -1]
    return float((beyond[:, None] / smallest).max())


@arguments.closed_form()
def numerical_range(jacobian, *, angles: int = 180) -> Complex[np.ndarray, " angles"]:
    r"""Points of the edge of the numerical range $\{x^* J x : \|x\| = 1\}$, counter-clockwise.

    By Johnson's rotations (1978, SIAM J. Numer. Anal. 15, 595): the top eigenvector of the Hermitian part of
    $e^{-i\phi} J$ gives the point farthest in the direction $\phi$. The numerical range is convex, so the polygon
    through the points lies inside.
    """
    matrix = _square(jacobian)
    turns = np.exp(2j * np.pi * np.arange(check_count(angles, "angles", least=3)) / angles)
    vectors = np.linalg.eigh(_hermitian(matrix, turns))[1][..., -1]
    return np.einsum("ki,ij,kj->k", vectors.conj(), matrix, vectors)


@arguments.closed_form()
def numerical_radius(jacobian, *, angles: int = 180) -> float:
    r"""$w(J) = \max_{\|x\| = 1} |x^* J x|$, the largest height of the numerical range over all directions.

    The range lies between the lines of two neighbouring directions, so that their heights $h_1, h_2$ at the angle
    $\delta$ bound all between by $\sqrt{h_1^2 + h_2^2 - 2 h_1 h_2 \cos\delta} / \sin\delta$, where the two lines meet.
    Intervals whose bound exceeds the best height seen are halved until none does by more than 1e-8 of it; then the best
    is refined. What comes back is attained, and proved to be the maximum to 1e-8 of itself, whatever `angles`, the
    number of directions at first. Where the range is a disc, all intervals are halved alike.

    $w(J^k) \le w(J)^k$ (Berger) and $\|J\|/2 \le w(J) \le \|J\|$: below 1 it bounds all powers by 2.

    >>> round(numerical_radius([[0.0, 1.0], [0.0, 0.0]]), 12)
    0.5
    """
    matrix = _square(jacobian)
    size = float(np.abs(matrix).max())
    if size == 0:
        return 0.0
    matrix = matrix / size

    def height(phi):
        return np.linalg.eigvalsh(_hermitian(matrix, np.exp(1j * np.asarray(phi))))[..., -1]

    step = 2 * np.pi / check_count(angles, "angles", least=3)
    low = step * np.arange(angles)
    at_low, at_high = height(low), np.roll(height(low), -1)
    best, top = float(low[np.argmax(at_low)]), float(at_low.max())
    while len(low):
        bound = _between(at_low, at_high, step)
        open_ = bound > top * (1 + _PROVED)
        low, at_low, at_high, step = low[open_], at_low[open_], at_high[open_], step / 2
        middle = height(low + step)
        if len(low) and middle.max() > top:
            best, top = float(low[np.argmax(middle)] + step), float(middle.max())
        low = np.concatenate([low, low + step])
        at_low, at_high = np.concatenate([at_low, middle]), np.concatenate([middle, at_high])
    around = scipy.optimize.minimize_scalar(
        lambda phi: -height(phi), bounds=(best - 1e-3, best + 1e-3), method="bounded", options={"xatol": 1e-12}
    )
    return size * float(max(top, -around.fun))


def _between(first, second, angle):
    """No height in the directions between two is larger: the distance of the corner where their lines meet."""
    corner = np.sqrt((first - second) ** 2 + 4 * first * second * np.sin(angle / 2) ** 2) / np.sin(angle)
    largest = np.maximum(first, second)
    # The corner is farthest in a direction between the two if each height is its projection from there.
    inside = (first >= second * np.cos(angle)) & (second >= first * np.cos(angle))
    return np.where(inside, corner, largest)


def _hermitian(matrix, turns):
    """The Hermitian parts of the matrix turned back by every angle."""
    turned = np.asarray(turns).conj()[..., None, None] * matrix
    return (turned + turned.conj().swapaxes(-1, -2)) / 2


def _precision(jacobian) -> float:
    """The rounding of the numbers as they came."""
    dtype = np.asarray(jacobian).dtype
    return float(np.finfo(dtype).eps) if np.issubdtype(dtype, np.inexact) else float(np.finfo(float).eps)


def _square(jacobian) -> np.ndarray:
    matrix = np.asarray(jacobian)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"expected a square matrix, got shape {matrix.shape}; `stability.jacobian` makes one")
    if not np.isfinite(matrix).all():
        raise ValueError("expected a finite matrix, got one with inf or NaN; is the point a fixed point of the map?")
    return matrix.astype(np.result_type(matrix, np.float64))
