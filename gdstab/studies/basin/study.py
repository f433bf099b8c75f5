"""What share of random initial points converges, against the step size, and how far that is from the exact share.

The points are run in parts that survive a kill, by one process or by several.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from gdstab import basins, ensembles, stability, updates
from gdstab._types import LossFn
from gdstab._validate import check_step_sizes
from gdstab.outcomes import StoppingRule
from gdstab.studies import building, labels
from gdstab.studies.basin import Basin, distributions
from gdstab.studies.options import parse_range
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.tables import picked
from gdstab.studies.work import Needs, Work
from gdstab.theory import Known, known

_CHUNK, _PARTS = 2**17, 2**10


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    known: Known
    dim: int
    step_sizes: np.ndarray
    source: Callable
    volume: float | None
    stopping: StoppingRule
    label: Callable | basins.Found | None
    needs: Needs


def prepare(options: Basin) -> Setting:
    """Build and check everything."""
    (loss, dim, dtype), stopping = building.problem(options), building.build_stopping(options)
    step_sizes = check_step_sizes(parse_range(options.step_sizes), dtype)  # [steps]
    source, volume = distributions.build_source(options, loss, dim, dtype)
    if options.width is not None and getattr(source, "design", "independent") != "independent":
        raise ValueError(
            f"--width stops as soon as an interval is narrow, which needs independent points: it goes with "
            f"--distribution box, not {options.distribution}"
        )
    length = "samples" if options.chunk is None else "chunk"
    needs = Needs({length: points_at_once(options) * (dim + 1) * dtype.itemsize})
    label = labels.build_label(options, loss, dim)
    return Setting(loss, known(loss), dim, step_sizes, source, volume, stopping, label, needs)


def phases(options: Basin) -> dict[str, Phase]:
    """What each process goes through."""
    lanes = max(options.samples, 0) * len(parse_range(options.step_sizes)) // jax.process_count()
    return {"orbits": Phase(10, lanes), SAVING: Phase(1)}


def measure(options: Basin, setting: Setting, work: Work):
    """Count where the points end, each process its share of them."""
    begin = time.perf_counter()
    work.enter("orbits")
    measured, stopped = count(options, setting, work)
    seconds = time.perf_counter() - begin + work.record.seconds_before()
    return measured.to_xarray(), {**summarise(options, setting, measured, stopped), "seconds": seconds}


def count(options: Basin, setting: Setting, work: Work) -> tuple[basins.Measure, basins.SequentialMeasure | None]:
    """The measure of all processes, and how a sequential one came to stop."""
    chunk, finished = points_at_once(options), work.record.found(basins.Tally.from_arrays)
    if options.chunk is None:  # pieces are known by their first points, however they were numbered
        finished = {tally.start: tally for tally in finished.values()}
    common = {
        "stopping": setting.stopping, "volume": setting.volume, "classify": stability.classify, "kinds": stability.Kind,
        "label": setting.label, "confidence": options.confidence, "progress": work.progress, "finished": finished,
        "on_chunk": lambda number, tally: work.record.commit(number, **tally.arrays()),
        "share": (work.team.number, work.team.size), "gather": work.team.gather, "chunk": chunk,
        "pace": ensembles.Pace(chunk) if options.chunk is None else None,
    }  # fmt: skip
    what = updates.gradient_descent(), setting.loss, setting.step_sizes, setting.source
    if options.width is None:
        return basins.measure(*what, **common), None
    stopped = basins.measure_until(*what, width=options.width, **common)
    return stopped.measure, stopped


def points_at_once(options: Basin) -> int:
    """The length of a chunk: as asked for, or 2^17 doubled until there are at most 1024, where all of them are run.

    >>> points_at_once(Basin(samples=10**6)), points_at_once(Basin(samples=10**9)), points_at_once(Basin(chunk=100))
    (131072, 1048576, 100)
    """
    if options.chunk is not None:
        return options.chunk
    parts = 1 if options.width is not None else math.ceil(options.samples / _CHUNK / _PARTS)
    return _CHUNK << (parts - 1).bit_length()


def summarise(options: Basin, setting: Setting, measured: basins.Measure, stopped) -> dict:
    """What `summary.json` holds: `rows`, one per step size, and what they have in common."""
    rows = measured.rows()
    for row in rows:
        exact = distributions.exact_share(options, setting.known, setting.dim, row["step_size"])
        row["exact"] = exact
        row["exact_volume"] = None if None in {exact, measured.volume} else exact * measured.volume
    sequential = None
    if stopped is not None:
        sequential = {
            "width": options.width, "reached": stopped.reached, "widths": stopped.widths, "looks": stopped.look,
            "confidence_of_each_look": measured.confidence,
        }  # fmt: skip
    found = {}
    if measured.attractors is not None:
        found["attractors"] = labels.summarise(measured.attractors, setting.loss)
    return {
        **found, **picked(measured, "samples", "design", "volume"), **picked(options, "distribution", "confidence"),
        "critical_step": setting.known.critical_step, "rows": rows, "differences": measured.differences(),
        "sequential": sequential, "lane_steps": measured.tally.lane_steps.sum(),
        **picked(measured, "compile_seconds", "run_seconds"),
    }  # fmt: skip
