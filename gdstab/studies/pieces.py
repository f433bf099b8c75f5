"""Work that is cut into pieces as it goes, each of which takes about so long; the whole does not show it."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from gdstab import ensembles


def cut(total: int, kept: Iterator[int], pace: ensembles.Pace) -> Iterator[tuple[int, int]]:
    """`(start, stop)` of the pieces of a range: as long as those that are kept, then as `pace` says.

    >>> list(cut(1000, iter([300, 100]), ensembles.Pace(10**6)))
    [(0, 300), (300, 400), (400, 656), (656, 912), (912, 1000)]
    """
    start = 0
    while start < total:
        stop = min(start + next(kept, pace.length), total)
        yield start, stop
        start = stop


def run_piece(rule, loss, points, size: int, step_size: float, stopping, **options) -> ensembles.Tile:
    """Orbits of up to `size` points with one step size, by the very program that runs so many."""
    num = len(jax.tree.leaves(points)[0])
    padded = jax.tree.map(lambda leaf: np.resize(leaf, (size, *leaf.shape[1:])), points)
    (tile,) = ensembles.iter_run(rule, loss, padded, step_size, stopping, tile=size, spans=[(0, num)], **options)
    return tile


def joined(parts: Sequence[dict]) -> dict:
    """Arrays of pieces, one behind the other."""
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
