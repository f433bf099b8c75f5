"""How mixed a picture of basins is: basin entropy and boundary basin entropy."""

import dataclasses
import math

import jax
import numpy as np
from jaxtyping import Array
from scipy import special

from gdstab._validate import check_count
from gdstab.estimators import rule_of_three


@dataclasses.dataclass(frozen=True)
class BasinEntropy:
    """Entropy of the labels in the boxes of a picture; the intervals are bootstraps over boxes."""

    entropy: float
    """Mean over all boxes."""
    interval: tuple[float, float]
    boundary_entropy: float
    """Mean over the boxes that hold two labels or more; nan if there are none."""
    boundary_interval: tuple[float, float]
    boxes: int
    boundary_boxes: int
    straight_edge: float
    """The largest boundary entropy of two basins with a straight edge: its edges are along the axes."""

    @property
    def fractal(self) -> bool:
        """Whether the boundary entropy is above ln 2 for sure: sufficient, never necessary; needs three labels."""
        return self.boundary_interval[0] > math.log(2)

    @property
    def rough(self) -> bool:
        """Whether it is above that of any straight edge for sure: at this resolution the boundary is no smooth curve.

        It needs no third label, but a boundary may be fractal without it.
        """
        return self.boundary_interval[0] > self.straight_edge


def basin_entropy(
    labels, side: int = 5, *, key: Array, boxes: int | None = None, resamples: int = 2000, confidence: float = 0.95
) -> BasinEntropy:
    r"""Basin entropy and boundary basin entropy of a picture (Daza et al., Sci. Rep. 6:31416, 2016).

    Box $i$ of `side` x `side` cells, of which a share $p_{ij}$ has label $j$, has the entropy
    $S_i = -\sum_j p_{ij} \ln p_{ij}$. The basin entropy is the mean over all boxes, $S_b = \sum_i S_i / N$; the
    boundary basin entropy that over the $N_b$ boxes with two labels or more, $S_{bb} = \sum_i S_i / N_b$.
    $S_{bb} > \ln 2$ is sufficient for a fractal boundary (three basins then meet in most boxes), and cannot hold with
    two labels; see `BasinEntropy.rough` for them.

    Parameters
    ----------
    labels
        Any integers: `Heatmap.outcome`, or which minimum was reached.
    side
        Cells along a box, at least 2; 5 is what the authors use.
    key
        For the bootstrap, and for where random boxes lie.
    boxes
        This many boxes at random places; by default all disjoint ones, from the first corner on.
    resamples, confidence
        Of the intervals, percentiles over resampled boxes. Disjoint boxes are treated as if drawn at random, though
        neighbours are alike: the intervals speak of pictures like this one, not of the cells between its centres.

    Raises
    ------
    ValueError
        If the labels are no integers on two axes, or a box does not fit in.

    Examples
    --------
    >>> import jax
    >>> halves = np.repeat(np.arange(10) < 5, 10).reshape(10, 10).astype(int)
    >>> [basin_entropy(halves, side, key=jax.random.key(0)).entropy for side in (5, 10)]
    [0.0, 0.6931471805599453]
    """
    labels, side = _check_picture(labels, side)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), np.uint32)))
    mixed, number = _mixed_boxes(labels, side, boxes, rng)
    shares = np.stack([(mixed == label).mean(axis=(1, 2)) for label in np.unique(mixed)] or [np.zeros(0)])
    each = special.entr(shares).sum(axis=0)
    _, first, times = np.unique(each.round(12), return_index=True, return_counts=True)
    values = each[first]
    # Boxes of equal entropy are interchangeable, so resampling them all is one multinomial draw of their numbers.
    draws = rng.multinomial(number, np.array([number - times.sum(), *times]) / number, size=resamples)[:, 1:]
    total, found = draws @ values, draws.sum(axis=1)
    ceiling = float(rule_of_three(number, confidence)[1]) * math.log(side * side)
    cuts = [(1 - confidence) / 2, (1 + confidence) / 2]
    some, straight = times.sum() > 0, np.arange(1, side) / side
    return BasinEntropy(
        entropy=float(times @ values / number),
        interval=_pair(np.quantile(total / number, cuts)) if some else (0.0, ceiling),
        boundary_entropy=float(times @ values / times.sum()) if some else math.nan,
        boundary_interval=_pair(np.quantile(total[found > 0] / found[found > 0], cuts)) if some else (math.nan,) * 2,
        boxes=number,
        boundary_boxes=int(times.sum()),
        straight_edge=float(np.mean(special.entr(straight) + special.entr(1 - straight))),
    )


def _check_picture(labels, side) -> tuple[np.ndarray, int]:
    labels, side = np.asarray(labels), check_count(side, "side", least=2)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"expected integer labels [n0, n1], got {labels.dtype} of shape {labels.shape}; pass codes")
    if side > min(labels.shape):
        raise ValueError(f"expected a side of at most {min(labels.shape)} cells, got {side}; no box fits in")
    return labels, side


def _mixed_boxes(labels, side: int, boxes: int | None, rng) -> tuple[np.ndarray, int]:
    """The boxes that hold several labels, [some, side, side], and the number of all that were looked at."""
    if boxes is None:
        rows, columns = (length // side for length in labels.shape)
        cut = labels[: rows * side, : columns * side].reshape(rows, side, columns, side).swapaxes(1, 2)
        mixed = cut.min(axis=(2, 3)) != cut.max(axis=(2, 3))
        return cut[mixed], rows * columns
    boxes = check_count(boxes, "boxes")
    corners = (rng.integers(length - side + 1, size=boxes) for length in labels.shape)
    taken = np.lib.stride_tricks.sliding_window_view(labels, (side, side))[*corners]
    return taken[taken.min(axis=(1, 2)) != taken.max(axis=(1, 2))], boxes


def _pair(values) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)
