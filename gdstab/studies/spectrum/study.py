"""The spectrum of the Hessian at a point, along an orbit of descent, or at random minima; thresholds 2 / eta."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import curvature, ensembles, orbits, updates
from gdstab._types import LossFn, Point
from gdstab._validate import check_step_sizes
from gdstab.studies import building
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.spectrum import Spectrum
from gdstab.studies.work import Needs, Work


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    start: np.ndarray  # [dim]
    step_sizes: np.ndarray
    needs: Needs


def prepare(options: Spectrum) -> Setting:
    """Build and check everything."""
    loss, dim, dtype = building.problem(options)
    step_sizes = np.atleast_1d(check_step_sizes(options.step_sizes, dtype))
    start = building.one_start(options, dim, dtype)
    points = {"orbit": options.num_steps + 1, "minima": options.samples, "point": 1}[options.where]
    size = points * dim * dtype.itemsize
    needs = Needs({"samples" if options.where == "minima" else "num_steps": 2 * size}, 2 * size)
    return Setting(loss, start, step_sizes, needs)


def phases(_: Spectrum) -> dict[str, Phase]:
    """What a run goes through."""
    return {"points": Phase(1), "spectra": Phase(3), SAVING: Phase(1)}


def measure(options: Spectrum, setting: Setting, work: Work):
    """Find the points; then the spectrum at each, and the density at the last one where the Hessian is large.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gdstab.studies import run
    >>> from gdstab.studies.options import Quadratic
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Spectrum(where="point", loss=Quadratic(), out=Path(folder)))
    >>> study.record.summary["rows"][0]["largest"]
    10.0
    """
    loss = setting.loss
    work.enter("points")
    steps, points = _points(options, setting)
    work.enter("spectra")
    values = spectra(loss, points, options)
    density = None if points.shape[1] <= options.dense_limit else _density(loss, points[-1], options)
    losses = ensembles.map_points(loss, points)
    summary = summarise(options, steps, values, losses, setting.step_sizes, points.shape[1])
    return _dataset(steps, points, values, density), summary


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
    rows = [
        {
            "number": step, "loss": losses[i], "smallest": spectrum[0], "largest": spectrum[-1],
            "threshold": 2 / spectrum[-1] if spectrum[-1] > 0 else None,
            "inertia": [int(count) for count in curvature.count_signs(jnp.asarray(spectrum))] if dense else None,
            "above": [int((spectrum > 2 / eta).sum()) for eta in step_sizes],
        }
        for i, (step, spectrum) in enumerate(zip(steps, values, strict=True))
    ]  # fmt: skip
    tops = values[:, -1][np.isfinite(values[:, -1])]
    return {
        "where": options.where, "parameters": dim, "dense": dense, "thresholds": 2 / step_sizes,
        "largest": [tops.min(), tops.max()] if tops.size else None, "rows": rows,
    }  # fmt: skip


def _points(options: Spectrum, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the points, and the points `[points, dim]`."""
    start, dtype = setting.start, setting.start.dtype
    if options.where == "point":
        return np.zeros(1, int), start[None]
    if options.where == "minima":
        points = building.sample_minima(options.loss, options.samples, options.spread, options.seed, dtype)
        return np.arange(len(points)), points
    rule = updates.gradient_descent()
    eta = jnp.asarray(float(setting.step_sizes[0]), dtype)
    state = rule.init(jnp.asarray(start), eta)
    path = orbits.rollout(rule, options.num_steps)(setting.loss, state, eta)[1]
    steps = np.arange(0, options.num_steps + 1, options.every)
    return steps, np.concatenate([start[None], np.asarray(path)])[steps]


def _density(loss: LossFn, point: np.ndarray, options: Spectrum) -> curvature.SpectralDensity:
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
