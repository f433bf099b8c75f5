"""A long calculation from Python that loses at most half a minute: killed at any moment, it goes on where it was."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import basins, boundaries, ensembles
from gdstab._results import versions, words
from gdstab.records.directories import Record, begin
from gdstab.records.files import RunError

_KINDS = {"on_chunk": basins.Tally, "on_patch": basins.Patch, "on_part": boundaries.CriticalPart}


class Resumable:
    """A directory in which one calculation keeps what it has done; made by `resumable`."""

    def __init__(self, record: Record):
        self._record, self._used = record, False

    def __call__(self, function: Callable, *args: Any, **options: Any) -> Any:
        """`function(*args, **options)`, kept piece by piece: `basins.measure`, `measure_until`, `heatmap`,
        `boundaries.critical_step`, or any other that takes `finished` and says what it has done.
        """
        self._once()
        takes = inspect.signature(function).parameters
        hook = next((name for name in _KINDS if name in takes), None)
        if hook is None or "finished" not in takes:
            raise ValueError(
                f"expected a function that can be continued, such as basins.measure, got {words(function)}; run the "
                "tiles of `ensembles.iter_run` by `tiles`"
            )
        kind = _KINDS[hook]
        if hook == "on_chunk":
            most = options.get("chunk", 2**20)
            hooks = {
                "finished": self._record.found(kind.from_arrays), "pace": ensembles.Pace(most),
                hook: lambda number, tally: self._record.commit(number, **tally.arrays()),
            }  # fmt: skip
        else:
            kept = [kind.from_arrays(**_plain(part)) for part in self._record.parts()]
            numbers = iter(range(len(kept), 2**31))
            hooks = {"finished": kept, hook: lambda part: self._record.commit(next(numbers), **part.arrays())}
        return function(*args, **options, **hooks)

    def tiles(self, rule, loss, initial, step_sizes, stopping, **options: Any) -> Iterator[ensembles.Tile]:
        """As `ensembles.iter_run` with `keep=()` or `keep=("theta", "loss")`, in order: what is kept, then the rest.

        Tiles are as long as takes some seconds; `tile` in the options is the most.
        """
        self._once()
        rows = 1 if np.ndim(step_sizes) == 0 or not options.get("product", True) else len(step_sizes)
        points, shape = _points_of(initial)
        total, done, most = rows * points, 0, options.pop("tile", ensembles.TILE)
        number = 0
        for part in self._record.parts():
            tile = _read(_plain(part), shape)
            yield tile
            number, done = number + 1, tile.stop
        pace = ensembles.Pace(min(most, points))

        def spans():  # none crosses from one step size to the next
            start = done
            while start < total:
                end = min(start + pace.length, total, (start // points + 1) * points)
                yield start, end
                start = end

        for tile in ensembles.iter_run(rule, loss, initial, step_sizes, stopping, spans=spans(), **options):
            pace.done(tile.stop - tile.start, tile.compile_seconds)
            self._record.commit(number, **_written(tile))
            number += 1
            yield tile

    def _once(self) -> None:
        if self._used:
            raise RunError(f"{self._record.path} holds one calculation: open another directory for the next one.")
        self._used = True


@contextlib.contextmanager
def resumable(directory: Any, **configuration: Any) -> Iterator[Resumable]:
    """Open a directory for one calculation, or take it up again, at its end or wherever it was interrupted.

    What is done is on the disk after some seconds each time, whatever the sizes of chunks. The same program again gives
    the same result, bit for bit in all counts, and runs only what is missing.

    Parameters
    ----------
    directory
        Made if it is not there.
    configuration
        What the result depends on, by name: rule, loss, stopping rule, source, step sizes, ... They are compared in
        words, with numbers; where one differs, the directory is refused. The versions are compared too.

    Raises
    ------
    RunError
        If the directory holds another calculation (what differs is named), or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from gdstab import outcomes, sampling, updates
    >>> rule, stop = updates.gradient_descent(), outcomes.StoppingRule()
    >>> def loss(theta):
    ...     return (1 - theta[0] * theta[1]) ** 2
    >>> source = sampling.RandomSource.box(jax.random.key(0), 3000, ((-4, 4), (-4, 4)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for _ in range(2):  # the second time nothing is run
    ...         with resumable(folder, rule=rule, loss=loss, stopping=stop, source=source) as run:
    ...             found = run(basins.measure, rule, loss, 0.3, source, stopping=stop)
    >>> int(found.count("converged")[0]), found.samples
    (897, 3000)
    """
    told = {name: _told(value) for name, value in configuration.items()} | {"versions": versions()}
    record = begin(directory, {"study": None, **told}, resume=True)
    try:
        yield Resumable(record)
    finally:
        record.release()


def _told(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | jax.Array) and value.size <= 64 and value.dtype.kind in "biuf":
        return np.asarray(value).tolist()
    return [_told(one) for one in value] if type(value) in {list, tuple} else words(value)


def _plain(part: dict) -> dict:
    return {name: array if array.ndim else array.item() for name, array in part.items()}


def _points_of(initial) -> tuple[int, Any]:
    if hasattr(initial, "num_points"):
        return initial.num_points, jax.tree.structure(eqx.filter_eval_shape(initial, jnp.zeros(1, jnp.int32)))
    return len(jax.tree.leaves(initial)[0]), jax.tree.structure(initial)


def _written(tile: ensembles.Tile) -> dict:
    arrays = {
        name: value for name, value in tile._asdict().items() if name not in {"theta", "state"} and value is not None
    }
    if tile.state is not None:
        raise ValueError('keep: expected () or ("theta", "loss") for tiles that are kept on disk, got "state" too')
    leaves = [] if tile.theta is None else jax.tree.leaves(tile.theta)
    return arrays | {f"theta{number}": leaf for number, leaf in enumerate(leaves)}


def _read(part: dict, structure) -> ensembles.Tile:
    leaves = [part.pop(name) for name in sorted((name for name in part if name.startswith("theta")), key=_number)]
    theta = jax.tree.unflatten(structure, leaves) if leaves else None
    return ensembles.Tile(**{"loss": None, "state": None, **part, "theta": theta})


def _number(name: str) -> int:
    return int(name.removeprefix("theta"))
