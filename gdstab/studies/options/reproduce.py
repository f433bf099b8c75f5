"""The figures of the papers: `gdstab reproduce`. Each is the options of a study with the paper's numbers as defaults.

A figure more takes an entry of `FIGURES` here and one in `gdstab.studies.reproduce`.
"""

import dataclasses
import difflib
from pathlib import Path
from typing import ClassVar, Literal

from gdstab.studies.options import Critical, Heatmap, Orbit
from gdstab.studies.options.base import Box, RunOptions, SeedOptions, study_options
from gdstab.studies.options.losses import Loss, Scalar


@study_options
class FigureA1a(Heatmap):
    """Figure 1(a) of paper A: updates until convergence for (1 - xy)^2 and step size 0.3."""

    out: Path = Path("runs/A.1a")
    """directory of the results"""


@study_options
class FigureA1b(Critical):
    """Figure 1(b) of paper A: how much of [-4, 4]^2 is trapped and how much of the hyperbola is stable."""

    step_sizes: str = "0.02:1:50"
    """step sizes, as low:high:number, or with commas between them"""
    resolution: tuple[int, int] = (200, 200)
    """cells along the two axes"""
    out: Path = Path("runs/A.1b")
    """directory of the results"""


@study_options
class FigureA2(Orbit):
    """Figure 2 of paper A: orbits on both sides of the critical step size, for (1/2) (1 - xy)^2."""

    step_sizes: tuple[float, ...] = (0.4, 1.1)
    """one panel for each step size"""
    boxes: tuple[Box, ...] = (((-0.2, 2.5), (0.0, 2.5)), ((0.7, 1.25), (0.65, 1.2)))
    """what each panel shows: low and high end of both axes, panel after panel, or once for all"""
    out: Path = Path("runs/A.2")
    """directory of the results"""
    loss: Loss = dataclasses.field(default_factory=lambda: Scalar(scale=0.5))
    """what is minimised: any of these, after all other options"""


@study_options
class FigureD1(RunOptions, SeedOptions):
    """Figure 1 of paper D: two fully connected networks trained with smaller and smaller steps, and the flow."""

    networks: Literal["fully-connected", "convolutional"] = "fully-connected"
    """linear and ReLU; or, as in Figure 3, with max pooling and with subsampling"""
    step_size: float = 0.001
    """eta, the largest step size"""
    ratios: tuple[int, ...] = (2, 5, 10, 20)
    """the others are eta / r for these r"""
    num_steps: int = 2_000
    """updates with eta, the paper has 10000; with eta / r there are r times as many"""
    points: int = 100
    """times that are recorded beside 0, at the most"""
    data: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    """8 x 8 digits instead of the paper's MNIST, which is read from local files"""
    folder: str = ""
    """with the files of mnist or fashion-mnist; by default the folder of that name in $GDSTAB_DATA"""
    samples: int = 200
    """number of images, chosen at random; the paper has 1000"""
    flow_steps: int = 256
    """steps of the flow's solver in eta where the network has kinks: their errors are of first order in the step"""
    rtol: float = 1e-8
    """relative tolerance of the flow's solver where the network has none"""
    atol: float = 1e-10
    """absolute tolerance of the flow's solver where the network has none"""
    out: Path = Path("runs/D.1")
    """directory of the results"""


@dataclasses.dataclass(frozen=True)
class FigureD2:
    """Figure 2 of paper D: the two hills of its worst case, and how descent leaves the flow on them."""

    precision: ClassVar[int] = 64  # no option: the hills are too high for less
    curvature: float = 1.0
    """a: minus the least eigenvalue of the Hessian"""
    extent: float = 3.0
    """b of the hills that are drawn, at least 3"""
    accuracy: float = 0.1
    """epsilon: the distance that counts as close"""
    reach: float = 500.0
    """b of the hills on which descent and flow separate: for the factor b / 2, in distance"""
    step_sizes: tuple[float, ...] = (0.1, 0.01, 0.001)
    """step sizes of the separation, at most 1 / (6 a)"""
    out: Path = Path("runs/D.2")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """begin an interrupted run again (it is short)"""


@study_options
class FigureD3(FigureD1):
    """Figure 3 of paper D: two convolutional networks trained with smaller and smaller steps, and the flow."""

    networks: Literal["fully-connected", "convolutional"] = "convolutional"
    """with max pooling and with subsampling; or, as in Figure 1, fully connected"""
    step_size: float = 0.02
    """eta, the largest step size; the paper's 0.001 is eta / 20 here, over the same time as there"""
    num_steps: int = 500
    """updates with eta, the paper has 10000; with eta / r there are r times as many"""
    samples: int = 100
    """number of images, chosen at random; the paper has 1000"""
    flow_steps: int = 512
    """steps of the flow's solver in eta where the network has kinks: their errors are of first order in the step"""
    out: Path = Path("runs/D.3")
    """directory of the results"""


FIGURES = {"A.1a": FigureA1a, "A.1b": FigureA1b, "A.2": FigureA2, "D.1": FigureD1, "D.2": FigureD2, "D.3": FigureD3}
"""By name: the options of each. `D.1` is drawn by `gdstab.studies.reproduce.d_1`, and so on."""


def options_of(name: str) -> type:
    """The options of a figure.

    Raises
    ------
    ValueError
        If there is no figure of that name.

    Examples
    --------
    >>> options_of("D.2")().extent
    3.0
    """
    if name not in FIGURES:
        close = difflib.get_close_matches(name, FIGURES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"there is no figure {name!r}.{hint} The figures are {', '.join(FIGURES)}")
    return FIGURES[name]
