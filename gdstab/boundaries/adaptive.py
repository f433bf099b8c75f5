"""Pictures of basins at the cost of their edges: only cells near a disagreement are computed, the others inherit."""

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int16, Int64

from gdstab._contract import entry
from gdstab._results import origin as origin_of
from gdstab._types import LossFn, Theta
from gdstab._validate import check_box, check_count, check_dtype, check_resolution
from gdstab.basins import Picture, flat_plane, parse_plane
from gdstab.boundaries._quadtree import Quadtree, edge_cells, paint
from gdstab.boundaries.verdicts import BATCH, LABEL_STEP, Classifier, label_of, outcome_of
from gdstab.outcomes import Outcome, StoppingRule, names
from gdstab.sampling import GridSource
from gdstab.updates import UpdateRule

COARSE = 128
"""Squares along the shorter side of the first picture, at the least, where the resolution allows."""


class Probes(NamedTuple):
    """Random cells that were computed to look for what the refinement overlooked."""

    cells: int
    found: int
    """Those that disagreed with the square they lie in, and would have been missed."""


@dataclasses.dataclass(frozen=True, eq=False)
class AdaptiveHeatmap(Picture):
    """Verdict for every cell of a plane, most of them inherited; the first axis is the first of the box."""

    outcome: Int8[np.ndarray, "n0 n1"]
    """An `Outcome` per cell: that of its centre if it was computed, else that of the corners of its square."""
    label: Int16[np.ndarray, "n0 n1"] | None
    """What the converged cells converged to, where a label was given; 0 for the others."""
    lanes: int
    """Cells that were computed."""
    probes: Probes
    rounds: int
    """Times that the engine was called, each with all cells known to be needed by then."""
    tree: Quadtree
    """Squares of the mesh; see `leaves` and `level`."""
    source: GridSource
    """The centres by flat index in the arrays."""
    step_size: float
    box: tuple[tuple[float, float], tuple[float, float]]
    axes: tuple[str, str]
    lane_steps: int
    compile_seconds: float
    run_seconds: float
    origin: dict | None = None
    """Rule, loss, stopping rule, dtype and versions, in words: attributes of `to_xarray`."""
    outcomes: tuple[str, ...] = names()
    numbers = ("lanes", "rounds", *Picture.numbers)

    @property
    def share_computed(self) -> float:
        """Share of the cells that were computed."""
        return self.lanes / self.cells

    @property
    def classes(self) -> Int8[np.ndarray, "n0 n1"] | Int16[np.ndarray, "n0 n1"]:
        """One number per cell for outcome and label, as a `Classifier` gives it."""
        return self.outcome if self.label is None else self.outcome + np.int16(LABEL_STEP) * self.label

    @property
    def boundary(self) -> Int64[np.ndarray, " some"]:
        """Flat indices of the cells with a neighbour, of up to eight, that has another outcome or label.

        They are all among the cells that were computed one by one.
        """
        single = self.tree.leaves(0)
        found = edge_cells(self.outcome, single)
        if self.label is not None:
            found |= edge_cells(self.label, single)
        return np.sort(single[found])

    @property
    def area_bracket(self) -> tuple[float, float]:
        """Area of the cells whose eight neighbours converged too, and of all that converged or touch one that did.

        As `basins.Heatmap.area_bracket`.
        """
        cells = self.boundary
        converged = self.outcome.reshape(-1)[cells] == Outcome.CONVERGED
        mixed = edge_cells((self.outcome == Outcome.CONVERGED).view(np.int8), cells)
        number, cell = self.counts["converged"], float(np.prod(self.cell_sides))
        return (number - int((mixed & converged).sum())) * cell, (number + int((mixed & ~converged).sum())) * cell

    @property
    def level(self) -> Int8[np.ndarray, "n0 n1"]:
        """The square that a cell lies in spans 2^level cells; 0 where the cell was computed on its own."""
        picture = np.full(self.outcome.shape, self.tree.levels, np.int8)
        for level in range(self.tree.levels, 0, -1):
            paint(picture, level, np.flatnonzero(self.tree.cut[level - 1]), level - 1)
        return picture

    def leaves(self, level: int) -> Int64[np.ndarray, "squares 2"]:
        """First row and column of the squares of the mesh that span 2^level cells."""
        corner = self.tree.corners(level, self.tree.leaves(level))[0]
        return np.stack(np.divmod(corner, self.outcome.shape[1]), axis=1)

    def to_xarray(self):
        """The result as an `xarray.Dataset` on the two axes, with the meaning of the codes in the attributes."""
        data = {"level": (self.axes, self.level, {"long_name": "the square of the mesh spans 2^level cells"})}
        if self.label is not None:
            data["label"] = (self.axes, self.label, {"long_name": "what the orbit converged to"})
        dataset = self._dataset(data)
        return dataset.assign_attrs(levels=self.tree.levels, probes=list(self.probes))

    @classmethod
    def from_xarray(cls, dataset, *, box, plane=None, dim: int | None = None) -> "AdaptiveHeatmap":
        """The picture that `to_xarray` wrote, with the box and the plane that it was asked for."""
        axes = tuple(map(str, dataset["outcome"].dims))
        outcome = dataset["outcome"].values
        origin, directions, _ = parse_plane(plane, dim)
        return cls(
            outcome=outcome, label=dataset["label"].values if "label" in dataset else None,
            probes=Probes(*dataset.attrs["probes"]),
            tree=Quadtree.of_mesh(dataset["level"].values, dataset.attrs["levels"]),
            source=GridSource(box, outcome.shape, origin, directions, dataset[axes[0]].dtype), box=box, axes=axes,
            **cls._numbers_of(dataset),
        )  # fmt: skip


@entry(host=True)
def adaptive_heatmap(
    rule: UpdateRule,
    loss: LossFn,
    step_size,
    *,
    box,
    resolution,
    stopping: StoppingRule,
    coarse=None,
    reach: int = 1,
    contrast: int | None = None,
    probe: int = 0,
    seed: int = 0,
    label: Callable | None = None,
    plane=None,
    dim: int | None = None,
    like: Theta | None = None,
    dtype=None,
    batch: int = BATCH,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
) -> AdaptiveHeatmap:
    r"""The picture of `basins.heatmap`, computed only near its edges.

    Coarse squares have a computed cell at each corner. A square whose corners disagree is cut in four, and so are its
    eight neighbours of the same size, down to single cells; where a finer square disagrees next to a coarser one, that
    one is cut too, until nothing changes. So an edge is followed wherever it goes, and the number of cells computed
    grows as the length of the edges in cells, not as the area.

    Computed cells have the very initial point of `basins.heatmap`. Every other cell lies in a square all of whose
    corners agree, as do those of the squares around it. What can be missed is a region (an island, or a filament
    thinner than a coarse square) none of whose cells was computed: it holds no corner of a square of the final mesh. A
    filament is followed from any computed cell of it as long as its cells are within `reach` of each other; one that
    is thinner than a cell is a dotted line in the picture, and may be lost at a wider gap. `probe`, a larger `reach`
    and a finer `coarse` look for what is missed.

    Parameters
    ----------
    rule, loss, step_size, stopping, box, resolution, plane, dim, like, dtype
        As in `basins.heatmap`.
    coarse
        Coarse squares per axis (one number, or two): the resolution over a power of two, the same for both axes. By
        default the fewest that leave `COARSE` along the shorter side; more of them miss less.
    reach
        How many squares around one that disagrees are cut with it.
    contrast
        Squares also disagree if the numbers of updates at their corners differ by more than this. Orbits are slow near
        an edge, so that a filament is seen from afar, however thin.
    probe
        Random cells per coarse square to compute besides; those that disagree with what they would inherit are starts
        for further cuts. A region of a share f of the box that was missed is found with a probability of at least
        $1 - (1 - f)^N$, N being the number of probes.
    seed
        Of the probes.
    label
        Tells apart what converged orbits converged to: see `boundaries.Classifier`. By default only outcomes count.
    batch, devices, progress
        As in `boundaries.Classifier`. Memory: one byte per cell, three with a label, and a third of one for the mesh.

    Raises
    ------
    ValueError
        As `basins.heatmap`; if `coarse` does not fit the resolution, `reach` or `contrast` is below 1, or `probe` is
        negative.

    Examples
    --------
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: (1 - theta[0] * theta[1]) ** 2
    >>> result = adaptive_heatmap(
    ...     gradient_descent(), loss, 0.3, box=((-4, 4), (-4, 4)), resolution=1024,
    ...     stopping=StoppingRule(grad_tol=1e-10),
    ... )
    >>> result.counts["converged"], result.cells, result.share_computed < 0.05
    (327300, 1048576, True)
    """
    begin = time.perf_counter()
    sides = tuple(tuple(side) for side in check_box(box, 2).tolist())
    shape = check_resolution(resolution, 2)
    reach = check_count(reach, "reach")
    contrast = contrast if contrast is None else check_count(contrast, "contrast")
    tree = Quadtree(shape, check_coarse(shape, coarse), reach, contrast, np.int8 if label is None else np.int16)
    plane, dim, like, dtype = flat_plane(plane, dim, like, dtype)
    origin, directions, axes = parse_plane(plane, dim)
    source = GridSource(sides, shape, origin, directions, check_dtype(dtype))
    probe = check_count(probe, "probe", least=0)
    classify = Classifier(
        rule, loss, step_size, stopping, label=label, like=like, batch=batch, devices=devices, progress=progress
    )
    rounds = _close(tree, source, classify)
    probes = Probes(0, 0)
    if probe and tree.levels:
        probes = _probe(tree, source, classify, probe, np.random.default_rng(seed))
        rounds += _close(tree, source, classify)
    classes = tree.filled()
    return AdaptiveHeatmap(
        outcome=classes if label is None else outcome_of(classes), label=None if label is None else label_of(classes),
        lanes=classify.lanes, probes=probes, rounds=rounds, tree=tree, source=source, step_size=float(step_size),
        box=sides, axes=axes, lane_steps=classify.lane_steps, compile_seconds=classify.compile_seconds,
        run_seconds=time.perf_counter() - begin - classify.compile_seconds,
        origin=origin_of(rule, loss, stopping, dtype=check_dtype(dtype)),
    )  # fmt: skip


def check_coarse(shape: tuple[int, int], coarse=None) -> int:
    """How often a coarse square is halved until it is a cell, for so many of them per axis, or refuse these.

    >>> check_coarse((1024, 512), (64, 32)), check_coarse((1024, 512))
    (4, 2)
    """
    if coarse is None:
        levels = 0
        while all(n % (2 << levels) == 0 and n >> (levels + 1) >= COARSE for n in shape):
            levels += 1
        return levels
    squares = check_resolution(coarse, 2)
    ratios = {n // c for n, c in zip(shape, squares, strict=True) if n % c == 0}
    ratio = ratios.pop() if len(ratios) == 1 else 0
    if [c * ratio for c in squares] != list(shape) or ratio.bit_count() != 1:
        raise ValueError(
            f"coarse: expected the resolution {shape} over one power of two for both axes, got {squares}; take for "
            f"instance {tuple(n >> check_coarse(shape) for n in shape)}"
        )
    return ratio.bit_length() - 1


def _close(tree: Quadtree, source: GridSource, classify: Classifier) -> int:
    """Compute and cut until no square disagrees; how many rounds that took."""
    rounds, growing = 0, bool(tree.pending)
    while growing:
        cells = tree.missing()
        if cells.size:
            tree.put(cells, *classify.with_steps(source.take(cells)))
            rounds += 1
        growing = tree.grow()
    return rounds


def _probe(tree: Quadtree, source: GridSource, classify: Classifier, number: int, rng: np.random.Generator) -> Probes:
    """Compute random cells, `number` in each coarse square; cut around those that are not what they would inherit."""
    squares = np.repeat(np.arange((tree.shape[0] >> tree.levels) * (tree.shape[1] >> tree.levels)), number)
    corner = tree.corners(tree.levels, squares)[0]
    inside = rng.integers(0, 1 << tree.levels, (2, corner.size))
    cells = np.unique(corner + inside[0] * tree.shape[1] + inside[1])
    cells = cells[tree.codes.reshape(-1)[cells] == 0]
    tree.put(cells, *classify.with_steps(source.take(cells)))
    wrong = cells[tree.mixed(np.stack([cells, tree.leaf_of(cells)]))]
    tree.require(0, wrong)
    return Probes(cells.size, wrong.size)
