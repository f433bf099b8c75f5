"""The squares that an adaptive picture is made of, on the host: which are cut in four, and the cells that decide it.

A square of level l spans 2^l by 2^l cells. Its corners are the low corner cells of itself and of its neighbours (at the
far rim of the picture, the last cell instead), so that the corners of a level are corners of all finer ones.
"""

import numpy as np
from jaxtyping import Bool, Int, Int64


class Quadtree:
    """Squares over a picture `[n0, n1]`; those whose corners disagree are cut, and all squares within `reach` of them.

    The set of cuts is the smallest one closed under that rule: it does not depend on the order of the work.
    """

    def __init__(
        self, shape: tuple[int, int], levels: int, reach: int = 1, contrast: int | None = None, dtype=np.int16
    ):
        self.shape, self.levels, self.reach, self.contrast = shape, levels, reach, contrast
        self.codes = np.zeros(shape, dtype)  # class + 1 of the cells computed; 0 elsewhere
        self.steps = None if contrast is None else np.zeros(shape, np.uint16)  # pages never touched take no memory
        self.cut = [np.zeros((shape[0] >> n, shape[1] >> n), bool) for n in range(1, levels + 1)]
        first = np.arange((shape[0] >> levels) * (shape[1] >> levels))
        self.pending = {levels: [first]}  # squares by level whose corners have not been looked at

    @classmethod
    def of_mesh(cls, mesh: Int[np.ndarray, "n0 n1"], levels: int) -> "Quadtree":
        """The ended tree whose squares that are not cut hold their level in every cell of `mesh`."""
        tree = cls(mesh.shape, levels)
        tree.codes, tree.pending = None, {}
        tree.cut = [mesh[:: 1 << n, :: 1 << n] < n for n in range(1, levels + 1)]
        return tree

    def missing(self) -> Int64[np.ndarray, " cells"]:
        """Flat numbers, sorted, of the cells that must be computed before `grow`."""
        self.pending = {level: np.concatenate(squares) for level, squares in self.pending.items()}
        corners = [self.corners(level, squares).ravel() for level, squares in self.pending.items()]
        cells = np.unique(np.concatenate([np.zeros(0, np.int64), *corners]))
        return cells[self.codes.reshape(-1)[cells] == 0]

    def put(self, cells: Int64[np.ndarray, " cells"], classes, steps) -> None:
        """Store the classes of cells, and their numbers of updates where these count."""
        self.codes.reshape(-1)[cells] = classes + 1
        if self.steps is not None:
            self.steps.reshape(-1)[cells] = np.minimum(steps, np.iinfo(np.uint16).max)

    def grow(self) -> bool:
        """Look at the corners of all pending squares and cut what must be cut; whether squares are pending then."""
        looked, self.pending = self.pending, {}
        for level, squares in looked.items():
            self.require(level, self.around(level, squares[self.mixed(self.corners(level, squares))]))
        return bool(self.pending)

    def mixed(self, cells: Int64[np.ndarray, "corners squares"]) -> Bool[np.ndarray, " squares"]:
        """Whether some computed cells disagree: in their class, or in their numbers of updates by more than allowed."""
        codes = self.codes.reshape(-1)[cells]
        found = (codes != codes[0]).any(axis=0)
        if self.steps is not None:
            found |= np.ptp(self.steps.reshape(-1)[cells], axis=0) > self.contrast
        return found

    def require(self, level: int, squares: Int64[np.ndarray, " squares"]) -> None:
        """Cut squares of a level, which may lie in larger ones that are not cut yet; cells (level 0) come to exist."""
        if level == 0:
            level, squares = 1, self._parents(0, squares)
        while level <= self.levels and squares.size:
            flags = self.cut[level - 1].reshape(-1)
            fresh = squares[~flags[squares]]
            flags[fresh] = True
            self.pending.setdefault(level - 1, []).append(self._children(level, fresh))
            squares, level = self._parents(level, fresh), level + 1

    def corners(self, level: int, squares: Int64[np.ndarray, " squares"]) -> Int64[np.ndarray, "4 squares"]:
        """Flat numbers of the corner cells, the own one first."""
        row, column = np.divmod(squares, self.shape[1] >> level)
        rows = [np.minimum((row + step) << level, self.shape[0] - 1) for step in (0, 1)]
        columns = [np.minimum((column + step) << level, self.shape[1] - 1) for step in (0, 1)]
        return np.stack([r * self.shape[1] + c for r in rows for c in columns])

    def around(self, level: int, squares: Int64[np.ndarray, " squares"]) -> Int64[np.ndarray, " more"]:
        """Squares and those within reach of them, without repetition."""
        return np.unique(np.concatenate(_around(tuple(n >> level for n in self.shape), squares, self.reach)))

    def _parents(self, level: int, squares):
        row, column = np.divmod(squares, self.shape[1] >> level)
        return np.unique((row >> 1) * (self.shape[1] >> (level + 1)) + (column >> 1))

    def _children(self, level: int, squares):
        row, column = np.divmod(squares, self.shape[1] >> level)
        width = self.shape[1] >> (level - 1)
        return np.concatenate([(2 * row + up) * width + 2 * column + right for up in (0, 1) for right in (0, 1)])

    def leaves(self, level: int) -> Int64[np.ndarray, " squares"]:
        """The squares of a level that exist and are not cut; of level 0, the cells that exist on their own."""
        if level == self.levels:
            found = np.arange((self.shape[0] >> level) * (self.shape[1] >> level))
        else:
            found = self._children(level + 1, np.flatnonzero(self.cut[level]))
        return found if level == 0 else found[~self.cut[level - 1].reshape(-1)[found]]

    def leaf_of(self, cells: Int64[np.ndarray, " cells"]) -> Int64[np.ndarray, " cells"]:
        """The own corner of the square, not cut, that holds each cell."""
        row, column = np.divmod(cells, self.shape[1])
        level = np.full(cells.shape, self.levels)
        for n in range(self.levels, 0, -1):
            level[(level == n) & self.cut[n - 1][row >> n, column >> n]] = n - 1
        return (row >> level << level) * self.shape[1] + (column >> level << level)

    def filled(self) -> Int[np.ndarray, "n0 n1"]:
        """The classes of all cells; those in a square that is not cut inherit that of its corners. The tree ends so."""
        for level in range(1, self.levels + 1):
            squares = self.leaves(level)
            paint(self.codes, level, squares, self.codes.reshape(-1)[self.corners(level, squares)[0]])
        classes, self.codes, self.steps = self.codes, None, None
        classes -= 1  # in place: it may be most of the memory
        return classes


def paint(picture: Int[np.ndarray, "n0 n1"], level: int, squares: Int64[np.ndarray, " squares"], values) -> None:
    """Write one value to all cells of each square, in place."""
    side = 1 << level
    blocks = picture.reshape(picture.shape[0] // side, side, picture.shape[1] // side, side)
    row, column = np.divmod(squares, picture.shape[1] // side)
    blocks[row, :, column, :] = np.reshape(values, (-1, 1, 1))


def edge_cells(classes: Int[np.ndarray, "n0 n1"], cells: Int64[np.ndarray, " cells"]) -> Bool[np.ndarray, " cells"]:
    """Which of some cells have one of another class among their neighbours, up to eight."""
    flat = classes.reshape(-1)
    found = np.zeros(cells.shape, bool)
    for others in _around(classes.shape, cells, 1):
        found |= flat[others] != flat[cells]
    return found


def _around(shape: tuple[int, int], places: Int64[np.ndarray, " n"], reach: int) -> list[Int64[np.ndarray, " n"]]:
    """Flat places in a picture, shifted by up to `reach` along both axes and kept inside."""
    row, column = np.divmod(places, shape[1])
    steps = range(-reach, reach + 1)
    rows = [np.clip(row + step, 0, shape[0] - 1) * shape[1] for step in steps]
    columns = [np.clip(column + step, 0, shape[1] - 1) for step in steps]
    return [r + c for r in rows for c in columns]
