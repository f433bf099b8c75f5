"""Figure 2 of paper D: the hills of its worst case; and, which is not printed, how descent leaves the flow on them."""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from gdstab import figures, records
from gdstab._numerics import check_precision
from gdstab._validate import check_step_sizes
from gdstab.flow.separation import Separation, flow_error, follow, separate
from gdstab.losses import WorstCase
from gdstab.losses.worst_case import Hills, tabulate
from gdstab.studies.options import read
from gdstab.studies.options.reproduce import FigureD2
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.reproduce.study import Row
from gdstab.studies.work import Needs, Work

_SHOWN = 1 / 6  # a times the step size of the descent on the hill: the largest that Proposition 20 does not dismiss

_LEAST_REACH = 3  # of the hills, by Appendix B


class Setting(NamedTuple):
    """What the options stand for."""

    drawn: WorstCase
    loss: WorstCase  # on whose hills descent and flow separate
    step_sizes: np.ndarray
    needs: Needs = Needs()


def prepare(options: FigureD2) -> Setting:
    """Build and check everything."""
    dtype = check_precision(64)
    for name in ("extent", "reach"):
        if not getattr(options, name) >= _LEAST_REACH:
            raise ValueError(f"--{name} takes a number of at least 3, but got {getattr(options, name)}; raise it")
    step_sizes = np.atleast_1d(check_step_sizes(options.step_sizes, dtype))
    if (step_sizes > 1 / (6 * options.curvature)).any():
        raise ValueError(
            f"expected step sizes of at most 1 / (6 a) = {1 / (6 * options.curvature):.4g}, got {step_sizes.max():g}; "
            "above that the third coordinate diverges"
        )
    return Setting(*losses(options), step_sizes)


def losses(options: FigureD2) -> tuple[WorstCase, WorstCase]:
    """The hills that are drawn, and those on which descent and flow separate."""
    return tuple(WorstCase(options.curvature, end, options.accuracy) for end in (options.extent, options.reach))


def phases(_: FigureD2) -> dict[str, Phase]:
    """What a run goes through."""
    return {"hills and descent": Phase(2), "separation": Phase(2), SAVING: Phase(1)}


def measure(_: FigureD2, setting: Setting, work: Work):
    """The hills, descent beside the flow, and the exponent at which they part."""
    work.enter("hills and descent")
    hills, paths = tabulate(setting.drawn), follow(setting.loss, setting.step_sizes)
    work.enter("separation")
    separation = separate(setting.loss, setting.step_sizes, paths)
    dataset = _dataset(hills, separation)
    return dataset.assign(ways_in_the_plane(setting.loss, setting.step_sizes, paths) | on_the_hill(setting.drawn)), {
        "exponents": separation.exponents.tolist(),
        "flow_error": flow_error(setting.loss),
        "smoothness": setting.drawn.smoothness,
        "window": list(separation.window),
    }


def shows(options: FigureD2) -> str:
    """What is drawn."""
    return (
        "The two hills of the worst case as printed, with flow and descent on the second one; below, on hills of reach "
        f"b = {options.reach:g}, their ways in the plane, and the distance between the flow and descent."
    )


def compare(options: FigureD2, summary: dict, dataset: xr.Dataset) -> list[Row]:
    """What the appendix says of the hills and of the separation, and what came out."""
    a, window, (_, loss) = options.curvature, summary["window"], losses(options)
    times, step_sizes = dataset["time"].values, dataset["step_size"].values
    inside = (times >= window[0]) & (times <= window[1])
    excluded = step_sizes[:, None] >= loss.excluded_step(times)[None]
    least = np.where(excluded & inside[None], dataset["off"].values, np.inf).min()
    curvature = dataset["curvature"].values / a  # the hills that are drawn have the same curvature
    rows = [
        Row("least value of both hills", ">= 0", f"{dataset['value'].values.min():g}"),
        Row("least curvature of phi, of phi-bar, over a", "-1, -1", _both(curvature.min(axis=1))),
        Row("largest curvature of phi, of phi-bar, over a", "bounded", _both(curvature.max(axis=1))),
        Row("flow: closed form against the solver", "-", f"{summary['flow_error']:.1e}"),
    ]
    for eta, exponent, nearest in zip(step_sizes, summary["exponents"], dataset["nearest"].values, strict=True):
        words = f"step size {eta:g}: exponent over a, to the line of the iterates, to the nearest one"
        other = np.polyfit(times[inside], np.log(nearest[inside]), 1)[0]
        rows.append(Row(words, "1", f"{exponent / a:.6f}, {other / a:.3f}"))
    rows.append(Row("times of Proposition 20", "-", f"{window[0]:.4f} to {window[1]:.4f}"))
    if np.isfinite(least):
        rows.append(Row("least distance where it excludes the step size", f"> {loss.accuracy:g}", f"{least:.4g}"))
    return rows


def _both(values) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _dataset(hills: Hills, separation: Separation) -> xr.Dataset:
    table = {name: (("hill", "point"), getattr(hills, name)) for name in Hills._fields}
    apart = {name: (("step_size", "time"), getattr(separation, name)) for name in ("nearest", "off", "printed")}
    coordinates = {"step_size": separation.step_sizes, "time": separation.times, "hill": ["phi", "phi-bar"]}
    return xr.Dataset(table | apart, coordinates)


def ways_in_the_plane(loss: WorstCase, step_sizes: np.ndarray, paths: np.ndarray) -> dict:
    """Of the flow and of the two largest steps, the second entry counted from the top of its hill, as variables."""
    shift = np.array([0.0, float(loss.width) / 2 - 1])
    end = loss.arrivals(loss.start()).end
    chosen = np.argsort(step_sizes)[::-1][:2]
    shown = [path[: np.argmax(path[:, 1] >= loss.second_cut), :2] - shift for path in paths[chosen]]
    descents = np.full((len(shown), max(map(len, shown)), 2), np.nan)
    for row, path in zip(descents, shown, strict=True):
        row[: len(path)] = path
    flow_way = loss.flow(loss.start(), np.linspace(0, end, 400))[:, :2] - shift
    return {
        "flow_way": (("flow_point", "coordinate"), flow_way),
        "descent_way": (("descent", "iterate", "coordinate"), descents),
        "descent_step": (("descent",), step_sizes[chosen]),
    }


def on_the_hill(loss: WorstCase) -> dict:
    """Where flow and descent with the largest step are on the second hill at some times, as variables."""
    whole = math.floor(loss.curvature * loss.arrivals(loss.start()).isotropic)
    times = np.array([0, whole - 1, whole + 1, whole + 2]) / loss.curvature
    path = follow(loss, np.array([_SHOWN / loss.curvature]))[0]
    iterates = path[np.round(times * loss.curvature / _SHOWN).astype(int), 1]
    on = {"hill_time": times, "hill_flow": loss.flow(loss.start(), times)[:, 1], "hill_descent": iterates}
    return {name: (("moment",), values) for name, values in on.items()}


def draw(record: records.Record) -> dict:
    """Both hills, the ways in the plane, and the distances."""
    (drawn, loss), data = losses(read(record.configuration)), record.dataset
    step_sizes = data["step_size"].values
    if "flow_way" not in data:  # older runs lack what follows from their options at once
        data = data.assign(ways_in_the_plane(loss, step_sizes, follow(loss, step_sizes)) | on_the_hill(drawn))
    arrays = {name: values.values for name, values in data.items()}
    descents = [path[np.isfinite(path).all(axis=1)] for path in arrays["descent_way"]]
    a = float(loss.curvature)
    ways = figures.Paths(arrays["flow_way"], descents, arrays["descent_step"] * a, 2 - float(loss.width) / 2)
    separation = figures.Separation(
        a, float(loss.extent), step_sizes, data["time"].values, tuple(record.summary["window"]),
        float(loss.accuracy), arrays["nearest"], arrays["off"], arrays["printed"],
        np.array(record.summary["exponents"]),
    )  # fmt: skip
    return {"figure": figures.draw_worst_case(_picture(drawn, arrays), ways, separation)}


def _picture(loss: WorstCase, arrays: dict[str, np.ndarray]) -> figures.Hills:
    """The hills scaled for drawing; flow and descent of the largest step at some times."""
    width, cut = float(loss.width), loss.second_cut
    (z, second_z), (phi, phi_bar) = arrays["z"], arrays["value"] / loss.curvature
    at_foot = (z >= loss.cut - 1.01) & (z <= loss.cut + 2.01)
    foot = np.stack([z[at_foot] - loss.cut, phi[at_foot] / (loss.cut / 2)], axis=1)
    on = [np.stack([x, np.interp(x, second_z, phi_bar)], axis=1)
          for x in (arrays["hill_flow"], arrays["hill_descent"])]  # fmt: skip
    return figures.Hills(
        first=np.stack([z / loss.cut, phi / phi.max()], axis=1), foot=foot,
        second=np.stack([second_z, phi_bar], axis=1), steep=[(1, cut), (width - 2 - cut, width - 3)],
        step_size=_SHOWN, flow=on[0], descent=on[1],
        labels=[f"{time:.3g}" for time in loss.curvature * arrays["hill_time"]],
    )  # fmt: skip
