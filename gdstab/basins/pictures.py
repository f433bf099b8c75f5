"""What every picture of verdicts has, whether each of its cells was computed or most of them were inherited."""

import numpy as np
from jaxtyping import Float, Int8

from gdstab._datasets import attributes, compact, flags
from gdstab._results import frame
from gdstab.outcomes import Outcome, names
from gdstab.sampling import GridSource

ORDER = (Outcome.CONVERGED, Outcome.CYCLING, Outcome.DIVERGED, Outcome.UNDECIDED, Outcome.NONFINITE)
"""The order in which verdicts are reported."""


def in_order(outcomes: tuple[str, ...]) -> list[int]:
    """The codes in the order in which they are reported, verdicts of one's own last.

    >>> in_order((*names(), "accurate"))
    [1, 2, 3, 0, 4, 5]
    """
    return [*map(int, ORDER), *range(len(ORDER), len(outcomes))]


class Picture:
    """Verdicts for the cells of a plane; the first axis of the arrays is the first of the box."""

    outcome: Int8[np.ndarray, "n0 n1"]
    source: GridSource
    box: tuple[tuple[float, float], tuple[float, float]]
    axes: tuple[str, str]
    origin: dict | None
    outcomes: tuple[str, ...] = names()
    """What the codes of `outcome` mean: the five, and behind them those of `StoppingRule.until`."""
    numbers = ("step_size", "lane_steps", "compile_seconds", "run_seconds")  # fields that are attributes of datasets

    def to_dataframe(self):
        """One row a cell, as a `pandas.DataFrame`."""
        return frame(self.to_xarray(), self.axes)

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return self.outcome.size

    @property
    def counts(self) -> dict[str, int]:
        """Cells per verdict."""
        return {self.outcomes[code]: int(np.count_nonzero(self.outcome == code)) for code in in_order(self.outcomes)}

    @property
    def fractions(self) -> dict[str, float]:
        """Share of the cells per verdict; they add up to one."""
        return {name: count / self.cells for name, count in self.counts.items()}

    @property
    def cell_sides(self) -> tuple[float, float]:
        """Width of a cell along both axes, in the coordinates of the box."""
        (a, b), (c, d) = self.box
        return (b - a) / self.outcome.shape[0], (d - c) / self.outcome.shape[1]

    @property
    def centres(self) -> tuple[Float[np.ndarray, " n0"], Float[np.ndarray, " n1"]]:
        """Coordinates of the cell centres along both axes."""
        dtype = self.source.tables[0].dtype
        sides = zip(self.box, self.outcome.shape, strict=True)
        return tuple(np.asarray(GridSource((side,), (n,), dtype=dtype).tables[0])[:, 0] for side, n in sides)

    @property
    def area(self) -> float:
        """Area of the cells that converged, in the coordinates of the box (saddles included, see `refine`)."""
        return self.counts["converged"] * float(np.prod(self.cell_sides))

    def _dataset(self, data: dict):
        """An `xarray.Dataset` on the two axes: the verdicts and `data`, with the numbers as attributes."""
        import xarray as xr  # noqa: PLC0415 (only needed here)

        outcome = (self.axes, self.outcome, {"long_name": "how the orbit ended", **flags(self.outcomes)})
        attrs = attributes(self, **{name: getattr(self, name) for name in self.numbers})
        coords = dict(zip(self.axes, self.centres, strict=True))
        return compact(xr.Dataset({"outcome": outcome, **data}, coords, attrs))

    @classmethod
    def _numbers_of(cls, dataset) -> dict:
        """The fields that `_dataset` made attributes; what a store keeps as a floating-point number is a count."""
        found = {name: dataset.attrs[name] for name in cls.numbers}
        return {name: number if name.endswith(("size", "seconds")) else int(number) for name, number in found.items()}
