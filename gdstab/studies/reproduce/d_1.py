"""Figures 1 and 3 of paper D: descent with smaller and smaller steps on networks; and, which is not there, the flow."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from gdstab import data, ensembles, figures, flow, records
from gdstab._numerics import check_precision
from gdstab.losses import ConvolutionalNetwork, FullyConnected, NetworkRisk
from gdstab.studies import training
from gdstab.studies.flow.study import drifts, itself, order
from gdstab.studies.options.reproduce import FigureD1
from gdstab.studies.phases import SAVING, Phase, count
from gdstab.studies.reproduce.study import Row
from gdstab.studies.work import Needs, Work

_WIDTH = 50
_TRAINING = "training both networks, and their flows"


class Setting(NamedTuple):
    """What the options stand for."""

    shown: data.Dataset
    models: dict  # by their titles
    step_sizes: np.ndarray
    dtype: np.dtype
    needs: Needs = Needs()


class Trained(NamedTuple):
    """A network, its descents with the largest step size first, and the flow beside them."""

    title: str
    found: flow.Deviation
    drift: np.ndarray  # [steps, times], from descent with the largest step size
    accuracy: float  # of the flow's last point, on the images


def prepare(options: FigureD1) -> Setting:
    """Check everything, read the images, draw both networks."""
    dtype, step_sizes = check_precision(options.precision), check_options(options)
    shown = training.images(options.data, options.folder, options.samples, options.seed, balanced=False)
    return Setting(shown, networks(options, shown), step_sizes, dtype)


def phases(_: FigureD1) -> dict[str, Phase]:
    """What a run goes through; it counts networks."""
    return {_TRAINING: Phase(20, 2), SAVING: Phase(1)}


def measure(options: FigureD1, setting: Setting, work: Work):
    """Train both networks of a figure with every step size, follow the flow, and compare the distances."""
    work.enter(_TRAINING)
    each = partial(train, shown=setting.shown, step_sizes=setting.step_sizes, options=options, dtype=setting.dtype)
    with ensembles.worker_pool(len(setting.models)) as pool:  # what calls LAPACK waits for its turn: `_guard.turn`
        jobs = [pool.submit(each, title, model) for title, model in setting.models.items()]
        for job in jobs:
            job.add_done_callback(lambda _: count(work.progress))
        trained = [job.result() for job in jobs]
    return to_dataset(trained), {"networks": {one.title: summarise(one) for one in trained}}


def shows(options: FigureD1) -> str:
    """What is drawn."""
    return (
        f"Training loss of descent with step sizes eta = {options.step_size:g} and eta/r, and of the flow, on "
        f"{options.samples} images of {options.data}; and distances in weight space from the start, from descent with "
        "eta/r, and from the flow, which the paper does not have, with its error."
    )


def check_options(options: FigureD1) -> np.ndarray:
    """The step sizes, the largest first; refuses what cannot be run."""
    if not options.ratios:
        raise ValueError("--ratios takes whole numbers of at least 2, but got none; give at least one")
    return options.step_size / np.array([1, *sorted(set(options.ratios))])


def networks(options: FigureD1, shown: data.Dataset) -> dict:
    """Both networks of the figure, by their titles, drawn by seed."""
    side = shown.inputs.shape[1]
    first, second = jax.random.split(jax.random.key(options.seed))
    if options.networks == "convolutional":
        return {
            "convolutional, max pooling": ConvolutionalNetwork.tutorial(first, side),
            "convolutional, subsampling": ConvolutionalNetwork.adapted(second, side),
        }
    widths = (side * side, _WIDTH, _WIDTH, shown.classes)
    return {
        "fully connected, linear": FullyConnected.xavier(first, widths, "linear"),
        "fully connected, ReLU": FullyConnected.xavier(second, widths, "relu"),
    }


def train(
    title: str, model, *, shown: data.Dataset, step_sizes: np.ndarray, options: FigureD1, dtype: np.dtype
) -> Trained:
    """One network; every point that is recorded is kept, for the distances between descents."""
    loss = NetworkRisk(model, shown.inputs.astype(dtype), shown.labels)
    start = jax.tree.map(lambda leaf: leaf.astype(dtype), loss.theta0)
    smooth = isinstance(model, FullyConnected) and model.activation == "linear"
    found = flow.deviation(
        loss, start, step_sizes, options.num_steps * options.step_size, points=options.points, estimate_error=True,
        observe=itself, rtol=options.rtol, atol=options.atol,
        step=None if smooth else options.step_size / options.flow_steps,
    )  # fmt: skip
    accuracy = float(loss.accuracy(found.flow_theta))
    found = jax.tree.map(np.asarray, found)
    return Trained(title, found, drifts(found.observed), accuracy)


def to_dataset(trained: list[Trained]) -> xr.Dataset:
    """Distances and losses of all networks over time."""
    along = ("network", "step_size", "time")
    names = ("distance", "travelled", "loss")
    table = {name: (along, np.stack([getattr(one.found, name) for one in trained])) for name in names}
    table["drift"] = (along, np.stack([one.drift for one in trained]))
    table["distance_error"] = (along, np.stack([one.found.distance_error for one in trained]))
    for name in ("flow_loss", "flow_error"):
        table[name] = (along[::2], np.stack([getattr(one.found, name)[0] for one in trained]))
    first = trained[0].found
    titles = [one.title for one in trained]
    return xr.Dataset(table, {"network": titles, "step_size": first.step_sizes, "time": first.times[0]})


def summarise(one: Trained) -> dict:
    """The numbers of one network."""
    found = one.found
    far, error = found.distance.max(axis=1), found.flow_error.max()
    clear = np.isfinite(far) & (far > 10 * error)  # of the flow's own error
    steps = zip(
        found.step_sizes, found.travelled, found.distance, found.distance_error, one.drift, found.loss, strict=True
    )
    return {
        "flow": {
            "status": flow.FlowStatus(int(found.status)).name.lower(), "time": float(found.time),
            "steps": int(found.num_steps), "loss": float(found.flow_loss[0, -1]),
            "error": float(error), "accuracy": one.accuracy,
        },
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(found.flow_theta)),
        "start_loss": float(found.loss[0, 0]),
        "order": order(found.step_sizes[clear], far[clear]),
        "rows": [
            {
                "step_size": float(eta), "travelled": float(travelled[-1]), "from_flow": float(apart.max()),
                "from_flow_error": float(change.max()), "drift": float(drift.max()), "loss": float(loss[-1]),
            }
            for eta, travelled, apart, change, drift, loss in steps
        ],
    }  # fmt: skip


def compare(options: FigureD1, summary: dict, dataset: xr.Dataset) -> list[Row]:
    """What the caption says, and what came out."""
    del options
    ratios = (dataset["step_size"][0] / dataset["step_size"]).values
    rows = []
    for title, found in summary["networks"].items():
        one = {name: values.values for name, values in dataset.sel(network=title).items()}
        travelled, apart, loss = one["travelled"][0], one["distance"][0], one["loss"][0]
        rows += [
            Row(f"{title}: loss, from, to", "falls", f"{loss[0]:.4f}, {loss[-1]:.4f}"),
            Row("distance travelled with eta", "-", f"{travelled[-1]:.4f}"),
            Row(
                f"largest drift between eta and eta/{ratios[-1]:.0f}", "minor", _share(one["drift"][-1], travelled[-1])
            ),
            Row("largest distance of eta from the flow", "-", _share(apart, travelled[-1])),
            Row("the same for the smallest step size", "-", _share(one["distance"][-1], travelled[-1])),
            Row("error of the flow, against another solve", "-", _share(one["flow_error"], apart.max())),
            Row("change of both distances with that other", "-", _changes(one["distance_error"], one["distance"])),
            Row(
                "largest gap of the loss from that of the flow",
                "slight",
                f"{np.abs(loss - one['flow_loss']).max():.2g}",
            ),
        ]
        if not np.isfinite(apart).all():
            rows.append(Row("the flow stopped early", "-", f"{found['flow']['time']:.4g}"))
    return rows


def draw(record: records.Record) -> dict:
    """A row of panels for each network."""
    dataset = record.dataset
    titles = dataset["network"].values.tolist()
    return {"figure": figures.draw_closeness([picture(title, dataset.sel(network=title)) for title in titles])}


def picture(title: str, one: xr.Dataset) -> figures.Closeness:
    """What the panels of a network show."""
    steps, values = one["step_size"].values, {name: values.values for name, values in one.items()}
    return figures.Closeness(
        title=title, step_sizes=steps, iterations=np.round(one["time"].values / steps[0]), loss=values["loss"],
        flow_loss=values["flow_loss"], travelled=values["travelled"][0], drift=values["drift"],
        distance=values["distance"][0], finest=values["distance"][-1], flow_error=values["flow_error"],
    )  # fmt: skip


def _share(values: np.ndarray, whole: float) -> str:
    """The largest of some distances, and its share of another."""
    with np.errstate(invalid="ignore"):  # of descents that overflow
        return f"{values.max():.3g}, {100 * values.max() / whole:.2g}%"


def _changes(errors: np.ndarray, distances: np.ndarray) -> str:
    """How much the distances of the largest and the smallest step size change with the second flow, at the most."""
    with np.errstate(invalid="ignore"):
        shares = 100 * errors.max(axis=1) / distances.max(axis=1)
    return f"{shares[0]:.2g}%, {shares[-1]:.2g}%"
