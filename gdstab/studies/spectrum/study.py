"""The spectrum of the Hessian at a point, along an orbit of descent, or at random minima; thresholds 2 / eta."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import curvature, ensembles, figures, orbits, records, sampling, updates
from gdstab._types import LossFn, Point
from gdstab._validate import check_count, check_loss, check_positive, check_step_sizes
from gdstab.studies import building
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Spectrum, describe
from gdstab.studies.phases import SAVING, Phase, enter


class Study(NamedTuple):
    """A complete run on disk."""

    record: records.Record
    fresh: bool  # made just now, not read back


def run(options: Spectrum, *, progress: Callable | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gdstab.studies.options import Quadratic
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Spectrum(where="point", loss=Quadratic(), out=Path(folder)))
    >>> study.record.summary["rows"][0]["largest"]
    10.0
    """
    dtype = building.check_precision(options.precision)
    loss, dim = building.build_loss(options.loss)
    step_sizes = np.atleast_1d(check_step_sizes(options.step_sizes, dtype))
    for name in ("every", "samples", "num_matvecs"):
        check_count(getattr(options, name), name)
    for name, least in (("num_steps", 0), ("num_probes", 2), ("dense_limit", 0)):
        check_count(getattr(options, name), name, least=least)
    check_positive(options.spread, "spread")
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    start = _start(options, dim, dtype)
    points = {"orbit": options.num_steps + 1, "minima": options.samples, "point": 1}[options.where]
    check_memory(**{"samples" if options.where == "minima" else "num_steps": 2 * points * dim * dtype.itemsize})
    record = records.begin(
        options.out, building.configuration(options), overwrite=options.overwrite, resume=options.resume
    )
    if record.complete:
        return Study(record, fresh=False)
    enter(progress, "points")
    steps, points = _points(options, loss, start, float(step_sizes[0]), dtype)
    enter(progress, "spectra")
    values = spectra(loss, points, options)
    dense = dim <= options.dense_limit
    density = None if dense else _density(loss, points[-1], options)
    enter(progress, SAVING)
    provenance = records.provenance(dtype, seed=options.seed)
    dataset = _dataset(steps, points, values, density)
    record.write_dataset(dataset.assign_attrs(provenance=provenance))
    figure = figures.draw_spectrum(
        figures.Spectra(options.where, steps, values, step_sizes, density if density is None else tuple(density))
    )
    figures.save(figure, record, note=describe(options))
    summary = summarise(options, steps, values, np.asarray(ensembles.map_points(loss, points)), step_sizes, dim)
    return Study(record.finish({**summary, "provenance": provenance}), fresh=True)


PHASES = {"points": Phase(1), "spectra": Phase(3), SAVING: Phase(1)}
"""What a run goes through."""


def spectra(loss: LossFn, points: np.ndarray, options: Spectrum) -> np.ndarray:
    """All eigenvalues, ascending, `[points, n]`; above the dense limit the smallest and the largest, `[points, 2]`.

    A point that is not finite has NaN.
    """

    def ends(theta: Point):
        found = curvature.extreme_eigenvalues(
            loss, theta, dense_limit=options.dense_limit, num_matvecs=options.num_matvecs
        )
        return jnp.stack([found.smallest.value, found.largest.value])

    def dense(theta: Point):
        return curvature.eigenvalues(loss, theta)

    return np.asarray(ensembles.map_points(dense if points.shape[1] <= options.dense_limit else ends, points))


def summarise(options: Spectrum, steps, values: np.ndarray, losses: np.ndarray, step_sizes, dim: int) -> dict:
    """One row per point: loss, both ends of the spectrum, inertia where it is dense, eigenvalues above each 2 / eta."""
    dense = values.shape[1] == dim
    rows = []
    for i, (step, spectrum) in enumerate(zip(steps, values, strict=True)):
        counts = curvature.count_signs(jnp.asarray(spectrum)) if dense else None
        rows.append({
            "number": int(step), "loss": _number(losses[i]), "smallest": _number(spectrum[0]),
            "largest": _number(spectrum[-1]), "threshold": _number(2 / spectrum[-1]) if spectrum[-1] > 0 else None,
            "inertia": None if counts is None else [int(count) for count in counts],
            "above": [int((spectrum > 2 / eta).sum()) for eta in step_sizes],
        })  # fmt: skip
    tops = values[:, -1][np.isfinite(values[:, -1])]
    return {
        "where": options.where, "parameters": dim, "dense": dense, "thresholds": (2 / step_sizes).tolist(),
        "largest": [float(tops.min()), float(tops.max())] if tops.size else None, "rows": rows,
    }  # fmt: skip


def _number(value) -> float | None:
    return float(value) if np.isfinite(value) else None


def _start(options: Spectrum, dim: int, dtype) -> np.ndarray:
    if not options.start:
        key = jax.random.key(options.seed)
        return np.asarray(sampling.gaussian(key, 1, dim, options.spread, dtype=dtype))[0]
    if len(options.start) != dim:
        raise ValueError(f"--start takes the {dim} parameters of the loss, but got {len(options.start)} numbers")
    return np.asarray(options.start, dtype)


def _points(options: Spectrum, loss, start, step_size: float, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the points, and the points `[points, dim]`."""
    if options.where == "point":
        return np.zeros(1, int), start[None]
    if options.where == "minima":
        points = building.sample_minima(options.loss, options.samples, options.spread, options.seed, dtype)
        return np.arange(len(points)), points
    rule = updates.gradient_descent()
    eta = jnp.asarray(step_size, dtype)
    state = rule.init(jnp.asarray(start), eta)
    path = orbits.rollout(rule, options.num_steps)(loss, state, eta)[1]
    steps = np.arange(0, options.num_steps + 1, options.every)
    return steps, np.concatenate([start[None], np.asarray(path)])[steps]


def _density(loss, point, options: Spectrum) -> curvature.SpectralDensity:
    """By stochastic Lanczos quadrature, at one point."""
    key = jax.random.key(options.seed)
    found = curvature.spectral_density(
        loss, jnp.asarray(point), key, num_matvecs=options.num_matvecs, num_samples=options.num_probes
    )
    return curvature.SpectralDensity(*(np.asarray(part) for part in found))


def _dataset(steps, points, values, density) -> xr.Dataset:
    name = "eigenvalues" if density is None else "extreme_eigenvalues"
    variables = {name: (("point", "index"), values), "theta": (("point", "coordinate"), points)}
    coords = {"point": steps}
    if density is not None:
        coords["eigenvalue"] = np.asarray(density.grid)
        variables |= {key: ("eigenvalue", np.asarray(getattr(density, key))) for key in ("density", "sem")}
    return xr.Dataset(variables, coords)
