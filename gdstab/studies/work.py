"""What a study is given while it measures, and what it says beforehand that it will take: is that much memory there?

Work is cut into pieces as it goes, each of which takes about so long; the whole does not show it.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gdstab import ensembles, records
from gdstab.records.files import in_words
from gdstab.studies.phases import enter
from gdstab.studies.teams import Team

ALONE = Team()
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of a container


class Needs(NamedTuple):
    """What a run takes: it is refused beforehand where that is not there."""

    memory: Mapping[str, int] = {}
    """Bytes of the arrays that an option makes large, by its field."""
    disk: int = 0
    """Bytes of the results, figures aside."""


def check_memory(**needs: int) -> None:
    """Refuse arrays that this machine cannot hold.

    Parameters
    ----------
    needs
        By the field of an option: the bytes of the arrays that it makes large, at the least.

    Raises
    ------
    ValueError
        If all of them together are more than there is: the option that asks for most is named.

    Examples
    --------
    >>> check_memory(resolution=1000)
    >>> check_memory(resolution=10**18, starts=10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: --resolution asks for arrays of 1e+06 TB, but this machine has ... of memory: lower it
    """
    room = available()
    if sum(needs.values()) > room:
        name = max(needs, key=needs.__getitem__)
        raise ValueError(
            f"--{name.replace('_', '-')} asks for arrays of {in_words(needs[name])}, but this machine has "
            f"{in_words(room)} of memory: lower it"
        )


def available() -> int:
    """Bytes of memory of this machine, or what its container may use of them."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _LIMITS:
        words = path.read_text().strip() if path.is_file() else ""
        if words.isdigit():
            found.append(int(words))
    return min(found)


class Work(NamedTuple):
    """What a study has at hand while it measures."""

    record: records.Record
    progress: Callable[[int, int], None] | None = None
    team: Team = ALONE

    def enter(self, phase: str) -> None:
        """Say that a phase begins."""
        enter(self.progress, phase)

    def parts(self, kind: Callable[..., Any] = dict) -> tuple[list, Callable[[Any], None]]:
        """The parts that an interrupted run kept, from number 0 on, and how to keep the next one.

        `kind` makes a part of its arrays by name, scalars as numbers: a named tuple, or a dictionary.
        """
        kept = [kind(**{name: _plain(array) for name, array in part.items()}) for part in self.record.parts()]
        numbers = iter(range(len(kept), 2**31))

        def keep(part: Any) -> None:
            self.record.commit(next(numbers), **(part if isinstance(part, dict) else part._asdict()))

        return kept, keep


def _plain(array: np.ndarray):
    """A number where it is one."""
    return array if array.ndim else array.item()


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
