"""Networks and the images that they are trained on: from options to losses, of one vector or of a tree."""

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray

from gdstab import data
from gdstab._validate import check_count
from gdstab.losses import ConvolutionalNetwork, FullyConnected, NetworkRisk
from gdstab.losses.pullback import Pullback, Unravel
from gdstab.studies.options.losses import Network

_READERS = {"digits": lambda _: data.digits(), "mnist": data.mnist, "fashion-mnist": data.fashion_mnist}


def images(name: str, folder: str, samples: int, seed: int, *, balanced: bool = True) -> data.Dataset:
    """Some images of a data set, all pixels shifted and scaled to mean 0 and deviation 1 before (paper D, H.2).

    Raises
    ------
    ValueError, FileNotFoundError
        If there are not as many, or the files are missing or damaged.
    """
    whole = data.normalised(_READERS[name](folder or None))
    return data.subset(whole, samples, seed, balanced=balanced)


def build_network(options: Network) -> tuple[Pullback, int]:
    """The training loss as one of a vector, and the length of that; the network inside is there for its shapes."""
    shown = images(options.data, options.folder, options.samples, options.seed)
    model = draw_model(options, shown.inputs.shape[1], jax.random.key(0), 1.0)
    targets = shown.labels if options.criterion == "cross-entropy" else shown.one_hot
    risk = NetworkRisk(model, shown.inputs, targets, loss=options.criterion.replace("-", "_"))
    leaves = Unravel.like(risk.theta0)
    return Pullback(risk, leaves), leaves.size


def random_networks(options: Network, loss: Pullback, num: int, spread: float, seed: int, dtype) -> np.ndarray:
    """Parameters as PyTorch draws them, Xavier-uniform, times `spread`, [num, parameters]."""
    side, keys = loss.loss.inputs.shape[1], jax.random.split(jax.random.key(seed), num)
    models = [draw_model(options, side, key, spread) for key in keys]
    return np.stack([np.asarray(ravel_pytree(loss.loss.parameters(model))[0], dtype) for model in models])


def draw_model(options: Network, side: int, key: PRNGKeyArray, scale: float):
    """A network for square images, with random parameters."""
    if options.model == "tutorial":
        return ConvolutionalNetwork.tutorial(key, side, scale=scale)
    if options.model == "adapted":
        return ConvolutionalNetwork.adapted(key, side, scale=scale)
    hidden = (check_count(options.width, "--loss.width"),) * (check_count(options.depth, "--loss.depth") - 1)
    activation = options.activation.replace("-", "_")
    return FullyConnected.xavier(key, (side * side, *hidden, 10), activation, biases=options.biases, scale=scale)
