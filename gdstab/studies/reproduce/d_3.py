"""Figure 3 of paper D: as Figure 1, with both convolutional networks."""

from collections.abc import Callable

from gdstab.studies.options.reproduce import FigureD3
from gdstab.studies.phases import Phase
from gdstab.studies.reproduce import d_1
from gdstab.studies.reproduce.outcome import Reproduction


def run(options: FigureD3, *, progress: Callable | None = None) -> Reproduction:
    """Train both networks with every step size, follow the flow, and compare the distances."""
    return d_1.run(options, progress=progress)


def phases(options: FigureD3) -> dict[str, Phase]:
    """As Figure 1."""
    return d_1.phases(options)
