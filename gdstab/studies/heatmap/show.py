"""The table of a heatmap, and its figure: minima, their stable part and the exact edge laid over it."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax

from gdstab import basins, curvature, ensembles, figures, records, sampling
from gdstab._numerics import tolerance
from gdstab.minima.manifold import correct
from gdstab.studies import building, labels
from gdstab.studies.heatmap import Heatmap
from gdstab.studies.heatmap.study import hyperbola_in
from gdstab.studies.options import read
from gdstab.studies.tables import columns, counted, timing
from gdstab.theory import known, scalar

_MOST_PARAMETERS, _SEEKERS, _CORRECTIONS = 32, 40, 30  # of the search for minima in the plane


def table(summary: dict) -> str:
    """How many cells ended in which way, and what theory says of them."""
    rows = [("", "cells", "share")]
    rows += [(name, f"{count:,}", f"{summary['fractions'][name]:.6f}") for name, count in summary["counts"].items()]
    low, high = summary["area_bracket"]
    found = ["", labels.table(summary, summary["cells"])] if "attractors" in summary else []
    lines = [columns(rows), *found, "", f"converged to: {counted(summary['kinds'])}"]
    lines.append(f"area that converged: {summary['area']:.6g}, between {low:.6g} and {high:.6g}")
    known = summary["theory"]
    if known["exact_area"] is not None:
        lines.append(f"exact basin of the minima: {known['exact_area']:.6g}, share {known['exact_share']:.6f}")
    if known["contradictions"] is not None:
        lines.append(
            f"verdicts against the theory: {known['contradictions']}, of them further than a cell diagonal from the "
            f"boundary: {known['contradictions_beyond_one_diagonal']}"
        )
    return "\n".join([*lines, timing(summary)])


def draw(record: records.Record) -> dict:
    """The heatmap, with what is known in its plane."""
    options = read(record.configuration)
    loss, dim = building.build_loss(options.loss)
    plane = building.build_plane(options.plane, dim)
    result = basins.Heatmap.from_xarray(record.dataset, box=options.box, plane=plane, dim=dim)
    return {"figure": figures.draw_heatmap(result, overlay(options, loss, dim))}


def overlay(options: Heatmap, loss, dim: int) -> figures.Overlay:
    """Minima, their stable part, and the trapping ellipse if it is asked for."""
    product = hyperbola_in(options, loss)
    if product is None:
        places, stable = minima_in_plane(options, loss, dim)
        return figures.Overlay(spots=places[~stable], stable_spots=places[stable])
    minima, stable = known(loss).minima(options.box, options.step_size)
    curve = scalar.ellipse_curve(options.step_size, product.target, product.scale)
    return figures.Overlay(minima, stable, [curve] if options.ellipse and len(curve) else [])


def minima_in_plane(options: Heatmap, loss, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Minima in the plane `[found, 2]`, by Gauss and Newton's method from a grid, and whether each is stable.

    None where the loss does not say its `residual`, or has many parameters.
    """
    nothing = np.zeros((0, 2)), np.zeros(0, bool)
    if not hasattr(loss, "residual") or dim > _MOST_PARAMETERS:
        return nothing
    origin, directions, _ = basins.parse_plane(building.build_plane(options.plane, dim), dim)
    origin, directions = jnp.asarray(origin), jnp.asarray(directions)

    def place(s):
        return origin + jnp.matmul(s, directions, precision="highest")

    def seek(start):
        residual = eqx.Partial(lambda s: loss.residual(place(s)).ravel())
        end = lax.fori_loop(0, _CORRECTIONS, lambda _, s: correct(residual, s), start)
        return end, jnp.linalg.norm(residual(end)), curvature.sharpness(loss, place(end))

    starts = sampling.grid(options.box, (_SEEKERS, _SEEKERS), dtype=origin.dtype)
    ends, off, sharpness = ensembles.map_points(seek, np.asarray(starts))
    (left, right), (bottom, top) = options.box
    inside = (ends > (left, bottom)).all(axis=1) & (ends < (right, top)).all(axis=1)
    found = inside & (off <= tolerance(off.dtype)) & np.isfinite(sharpness)
    return ends[found], options.step_size * sharpness[found] < 2
