"""What share of random initial points converges, against the step size, and how far that is from the exact share.

The points are run in parts that survive a kill, by one process or by several.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from gdstab import basins, ensembles, figures, records, stability, updates
from gdstab._validate import check_count, check_loss, check_positive, check_step_sizes
from gdstab.estimators.intervals import check_confidence
from gdstab.outcomes import StoppingRule
from gdstab.studies import building
from gdstab.studies.basin import distributions
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Basin, describe, parse_range
from gdstab.studies.phases import SAVING, Phase, enter
from gdstab.studies.teams import Team

_ALONE = Team()
_CHUNK, _PARTS = 2**17, 2**10
_FINE = 400  # step sizes on the exact curve of the figure


class Study(NamedTuple):
    """A complete run on disk, and its measure where it was made just now."""

    record: records.Record
    measure: basins.Measure | None


def run(options: Basin, *, progress: Callable[[int, int], None] | None = None, team: Team = _ALONE) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    With a team every process calls this with the same options. Each runs its share of the points; the leading one
    writes the result, and has a complete record.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Basin(samples=2000, step_sizes="0.3,0.6", max_steps=1000, out=Path(folder)))
    >>> row = study.record.summary["rows"][0]
    >>> row["interval"][0] < row["exact"] < row["interval"][1]
    True
    """
    begin = time.perf_counter()
    setting = prepare(options)
    length = "samples" if options.chunk is None else "chunk"
    check_memory(**{length: points_at_once(options) * (setting.dim + 1) * options.precision // 8})
    record = team.in_turn(
        lambda: records.begin(
            options.out,
            building.configuration(options),
            overwrite=options.overwrite,
            resume=options.resume,
            process=team.number,
        )
    )
    if team.told(record.complete):
        record.retire()
        return Study(record, None)
    enter(progress, "orbits")
    measured, stopped = team.together(lambda: _measure(options, setting, record, progress, team))

    def write():
        enter(progress, SAVING)
        earlier = record.seconds_before()
        summary = summarise(options, measured, stopped, time.perf_counter() - begin + earlier)
        summary["run_seconds"] += earlier
        record.write_dataset(measured.to_xarray().assign_attrs(provenance=summary["provenance"]))
        with records.writing(record.path):
            figures.save(figures.draw_basin(picture(options, summary)), record, note=describe(options))
        return record.finish(summary)

    record = team.together(lambda: write() if team.leads else record)
    record.retire()
    return Study(record, measured)


def phases(options: Basin, size: int = 1) -> dict[str, Phase]:
    """What one of so many processes goes through."""
    lanes = max(options.samples, 0) * len(parse_range(options.step_sizes)) // size
    return {"orbits": Phase(10, lanes), SAVING: Phase(1)}


class Setting(NamedTuple):
    """What the options stand for."""

    loss: Callable
    dim: int
    step_sizes: np.ndarray
    source: Callable
    volume: float | None
    stopping: StoppingRule


def prepare(options: Basin) -> Setting:
    """Build and check everything, so that a mistake leaves no directory behind."""
    dtype = building.check_precision(options.precision)
    stopping = building.build_stopping(options)
    loss, dim = building.build_loss(options.loss)
    step_sizes = check_step_sizes(parse_range(options.step_sizes), dtype)  # [steps]
    check_count(options.samples, "samples")
    check_confidence(options.confidence)
    if options.chunk is not None:
        check_count(options.chunk, "chunk")
    source, volume = distributions.build_source(options, dim, dtype)
    if options.width is not None:
        check_positive(options.width, "width")
        if getattr(source, "design", "independent") != "independent":
            raise ValueError(
                f"--width stops as soon as an interval is narrow, which needs independent points: it goes with "
                f"--distribution box, not {options.distribution}"
            )
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    building.check_tolerances(options, loss, dim)
    return Setting(loss, dim, step_sizes, source, volume, stopping)


def _measure(options: Basin, setting: Setting, record: records.Record, progress, team: Team):
    """The measure of all processes, and how a sequential one came to stop (None otherwise)."""
    chunk, finished = points_at_once(options), record.found(basins.Tally.from_arrays)
    if options.chunk is None:  # pieces are known by their first points, however they were numbered
        finished = {tally.start: tally for tally in finished.values()}
    common = {
        "stopping": setting.stopping,
        "volume": setting.volume,
        "classify": stability.classify,
        "kinds": stability.Kind,
        "confidence": options.confidence,
        "progress": progress,
        "finished": finished,
        "on_chunk": lambda number, tally: record.commit(number, **tally.arrays()),
        "share": (team.number, team.size),
        "gather": team.gather,
        "chunk": chunk,
        "pace": ensembles.Pace(chunk) if options.chunk is None else None,
    }
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


def summarise(options: Basin, measured: basins.Measure, stopped, seconds: float) -> dict:
    """What `summary.json` holds: `rows`, one per step size, and what they have in common."""
    rows = measured.rows()
    for row in rows:
        exact = distributions.exact_share(options, row["step_size"])
        row["exact"] = exact
        row["exact_volume"] = None if None in {exact, measured.volume} else exact * measured.volume
    sequential = None
    if stopped is not None:
        sequential = {
            "width": options.width,
            "reached": stopped.reached.tolist(),
            "widths": stopped.widths.tolist(),
            "looks": int(stopped.look),
            "confidence_of_each_look": measured.confidence,
        }
    return {
        "samples": measured.samples,
        "distribution": options.distribution,
        "design": measured.design,
        "confidence": options.confidence,
        "volume": measured.volume,
        "critical_step": distributions.critical_step(options.loss),
        "rows": rows,
        "differences": measured.differences(),
        "sequential": sequential,
        "lane_steps": int(measured.tally.lane_steps.sum()),
        "compile_seconds": measured.compile_seconds,
        "run_seconds": measured.run_seconds,
        "seconds": seconds,
        "provenance": records.provenance(f"float{options.precision}", seed=options.seed),
    }


def picture(options: Basin, summary: dict) -> figures.Shares:
    """What is drawn; the exact share also between the step sizes that were run."""
    rows = sorted(summary["rows"], key=lambda row: row["step_size"])
    eta = np.array([row["step_size"] for row in rows])
    fine = np.linspace(eta[0], eta[-1], _FINE)
    critical = summary["critical_step"]
    if critical is not None and eta[0] <= critical <= eta[-1]:
        fine = np.union1d(fine, [critical, math.nextafter(critical, math.inf)])
    exact = np.array([distributions.exact_share(options, float(step)) for step in fine], float)
    shares = {name: np.array([row["counts"][name] / row["samples"] for row in rows]) for name in rows[0]["counts"]}
    return figures.Shares(
        step_sizes=eta,
        converged=np.array([row["share"] for row in rows]),
        interval=np.array([row["interval"] for row in rows]),
        cycling=shares["cycling"],
        undecided=np.array([row["undecided_bounds"][1] - row["undecided_bounds"][0] for row in rows]),
        confidence=summary["confidence"],
        exact=np.array([row["exact"] for row in rows], float),
        curve=(fine, exact) if np.isfinite(exact).any() and len(eta) > 1 else None,
        critical_step=critical,
        left=shares["diverged"] + shares["nonfinite"],
    )
