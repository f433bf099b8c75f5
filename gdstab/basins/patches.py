"""What a heatmap is written down in, and put together of: patches of cells, one behind the other."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int32, Int64

from gdstab import ensembles
from gdstab.basins.attractors import Attractors
from gdstab.basins.ends import Ends
from gdstab.basins.kinds import at_floor
from gdstab.basins.labels import Labeller
from gdstab.outcomes import Outcome


class Patch(NamedTuple):
    """Cells `start` to `stop` of a heatmap, as its source numbers them: what a run writes down as it goes."""

    start: int
    stop: int
    outcome: Int8[np.ndarray, " cells"]
    steps: Int32[np.ndarray, " cells"]
    above_floor: Int64[np.ndarray, " some"]
    lane_steps: int
    place: Int32[np.ndarray, " cells"] | None = None
    """Where in `ends` each ended, -1 of nowhere; None if nobody asked for labels."""
    ends: Ends | None = None

    def arrays(self) -> dict:
        """Its arrays and numbers by name, to be written down."""
        said = {name: value for name, value in self._asdict().items() if value is not None and name != "ends"}
        return said if self.ends is None else said | self.ends.arrays()

    @classmethod
    def from_arrays(cls, **arrays) -> "Patch":
        """Back from `arrays`, or from whatever has read them."""
        own = {name: value for name, value in arrays.items() if name in cls._fields}
        return cls(**own, ends=Ends.from_arrays(arrays))


class Room:
    """The arrays of a heatmap, flat, as patches fill them from the front."""

    def __init__(self, cells: int, finished: Iterable[Patch], *, labelled: bool):
        self.patches: list[tuple] | None = [] if labelled else None  # where each has ended
        self.outcome = np.full(cells, Outcome.UNDECIDED, np.int8)
        self.steps = np.zeros(cells, np.int32)
        self.above_floor, self.lane_steps, self.filled = [], 0, 0
        for patch in finished:
            self.put(patch)

    def put(self, patch: Patch) -> None:
        """Take the next patch."""
        if patch.start != self.filled or not patch.start < patch.stop <= self.outcome.size:
            raise ValueError(
                f"expected the patch that begins at cell {self.filled} of {self.outcome.size}, but got cells "
                f"{patch.start} to {patch.stop}; give the patches in order, from the first cell on, without gaps"
            )
        if self.patches is not None:
            if patch.ends is None:
                raise ValueError(f"the patch of cells {patch.start} to {patch.stop} has no end points; run it again")
            self.patches.append((patch.ends, patch.place))
        self.outcome[patch.start : patch.stop] = patch.outcome
        self.steps[patch.start : patch.stop] = patch.steps
        self.above_floor.append(patch.above_floor)
        self.lane_steps += patch.lane_steps
        self.filled = patch.stop

    def fill(self, parts: Iterable, look: Callable, on_patch: Callable | None, pace: ensembles.Pace) -> float:
        """Put the tiles of a run in, one by one, as `look` sees them; seconds of compilation."""
        compile_seconds = 0.0
        for part in parts:
            patch = look(part)
            self.put(patch)
            compile_seconds += part.compile_seconds
            pace.done(part.stop - part.start, part.compile_seconds)
            if on_patch is not None:
                on_patch(patch)
        return compile_seconds

    def labels(self, labeller: Labeller) -> tuple[Int32[np.ndarray, " cells"], Attractors]:
        """The label of every cell, and what they stand for."""
        return labeller.labels(self.patches)


def patch_of(loss, loss_tol, step_size: float, labeller: Labeller | None, part: ensembles.Tile) -> Patch:
    """What is kept of a tile."""
    high = (part.outcome == Outcome.CONVERGED) & ~at_floor(part.loss, loss, loss_tol)
    above_floor = part.start + np.flatnonzero(high)
    ends, place = None, None
    if labeller is not None:
        ends, place = labeller(part.outcome, part.theta, part.state, part.period, step_size)
    return Patch(part.start, part.stop, part.outcome, part.steps, above_floor, part.lane_steps, place, ends)
