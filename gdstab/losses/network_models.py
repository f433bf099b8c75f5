r"""Networks ready for `NetworkRisk`: fully connected ones, and both convolutional ones of paper D.

Both are written for one sample and hold nothing but their real arrays: `NetworkRisk(model, ...).theta0` is the model.
Without biases, and with an activation $\sigma(z) = \alpha \max\{z, 0\} - \bar\alpha \max\{-z, 0\}$, a network with n
layers is homogeneous of degree n, $h_{c \theta} = c^n h_\theta$ for c > 0, and of degree 1 in every layer.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gdstab._types import Scalar
from gdstab._validate import check_count, whole
from gdstab.losses.initialisation import near_balanced_layers, random_layers
from gdstab.sampling.networks import check_widths

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "sigmoid")
POOLINGS = ("max", "subsample")
WINDOW = 2
"""Side of a pooling window."""


class FeedForward(eqx.Module):
    """What both kinds of network have in common: layer after layer, an activation behind all but the last."""

    weights: eqx.AbstractVar[tuple[Float[Array, "..."], ...]]
    biases: eqx.AbstractVar[tuple[Float[Array, " _"], ...] | None]
    activation: eqx.AbstractVar[str]
    slope: eqx.AbstractVar[float]

    @property
    def depth(self) -> int:
        """Number n of layers."""
        return len(self.weights)

    @property
    def slopes(self) -> tuple[float, float] | None:
        r"""$(\alpha, \bar\alpha)$ of a homogeneous activation; None for tanh and sigmoid."""
        known = {"linear": (1.0, 1.0), "relu": (1.0, 0.0), "leaky_relu": (1.0, self.slope)}
        return known.get(self.activation)

    @property
    def degree(self) -> int | None:
        r"""The n of $h_{c \theta} = c^n h_\theta$ for all c > 0; None where biases or activation allow of none."""
        return self.depth if self.biases is None and self.slopes is not None else None

    def _activate(self, x):
        if self.activation == "linear":
            return x
        if self.activation == "leaky_relu":
            return jax.nn.leaky_relu(x, self.slope)
        return {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[self.activation](x)

    def _dense(self, x, first):
        """The layers from number `first` on, for a vector."""
        for number in range(first, self.depth):
            x = jnp.matmul(self.weights[number], x, precision="highest")
            x = x if self.biases is None else x + self.biases[number]
            x = x if number == self.depth - 1 else self._activate(x)
        return x

    def _check_layers(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if not self.weights:
            raise ValueError("expected at least one layer, got none; pass weights (W_1, ..., W_n)")
        rows = [jnp.shape(weight)[:1] for weight in self.weights]
        if self.biases is not None and [jnp.shape(bias) for bias in self.biases] != rows:
            raise ValueError(
                f"expected a bias for every output of every layer, shapes {rows}, got "
                f"{[jnp.shape(bias) for bias in self.biases]}; pass None for a network without"
            )


class FullyConnected(FeedForward):
    r"""Fully connected network, $h_\theta(x) = W_n \sigma(W_{n-1} \sigma(\cdots W_1 x))$ (paper D, eq. 8).

    Samples of any shape are flattened.

    Parameters
    ----------
    weights
        $(W_1, \ldots, W_n)$, $W_j$ of shape [d_j, d_(j-1)].
    biases
        Added behind each product, $(b_1, \ldots, b_n)$; None for none.
    activation
        "linear", "relu", "leaky_relu", "tanh" or "sigmoid", behind every layer but the last.
    slope
        Of "leaky_relu" on the negative side.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> model = FullyConnected.xavier(jax.random.key(0), (64, 50, 50, 10), "relu")
    >>> model(jnp.ones((8, 8))).shape, model.degree, model.widths
    ((10,), 3, (64, 50, 50, 10))
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...] | None = None
    activation: str = eqx.field(default="linear", static=True)
    slope: float = eqx.field(default=0.01, static=True)

    def __check_init__(self):
        self._check_layers()
        if any(above.shape[1] != below.shape[0] for below, above in pairwise(self.weights)):
            raise ValueError(
                f"expected weights (W_1, ..., W_n) that fit one on the other, got shapes "
                f"{[weight.shape for weight in self.weights]}; W_1 comes first"
            )

    @classmethod
    def xavier(
        cls, key: PRNGKeyArray, widths: Sequence[int], activation: str = "linear", *, biases: bool = False,
        slope: float = 0.01, scale: float = 1.0, dtype: Any = None,
    ):  # fmt: skip
        """Drawn as PyTorch draws: weights Xavier-uniform, biases by its default; all times `scale`.

        `widths` lead from the inputs to the outputs; (784, 50, 50, 10) are those of Figure 1.
        """
        sizes = check_widths(widths)
        shapes = [(after, before) for before, after in pairwise(sizes)]
        return cls(*random_layers(key, shapes, biases=biases, scale=scale, dtype=dtype), activation, slope)

    @classmethod
    def balanced(
        cls, key: PRNGKeyArray, widths: Sequence[int], activation: str = "linear", *, norm: float = 0.2,
        unbalancedness: float = 0.0, slope: float = 0.01, dtype: Any = None,
    ):  # fmt: skip
        """Without biases, balanced (paper D, Procedure 13) or nearly so; see `initialisation.near_balanced_layers`."""
        sizes = check_widths(widths)
        return cls(near_balanced_layers(key, sizes, norm, unbalancedness, dtype), None, activation, slope)

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, " outputs"]:
        """The outputs for one sample."""
        return self._dense(inputs.ravel(), 0)

    @property
    def widths(self) -> tuple[int, ...]:
        r"""From the inputs to the outputs, $(d_0, \ldots, d_n)$."""
        return (self.weights[0].shape[1], *(weight.shape[0] for weight in self.weights))


class ConvolutionalNetwork(FeedForward):
    r"""Two convolutions with pooling, then dense layers, for square images: the networks of paper D's Figure 3.

    `tutorial` is the network of PyTorch's "60 Minute Blitz", with biases and max pooling; `adapted` is the one without
    biases where of every pooling window the top-left entry is taken, so that the theory captures it. Images of 28 x 28
    are padded by two zeros on each side; two convolutions 5 x 5 with 6 and 16 channels, each pooled by 2 x 2 windows,
    leave 16 x 5 x 5 numbers, and dense layers of 120, 84 and 10 follow.

    On images below 12 x 12, such as the 8 x 8 digits, a second 5 x 5 convolution has no room. The kernels are 3 x 3
    there, and one zero is padded on each side: as before the first convolution keeps the size, the second pads nothing,
    and both are pooled (8, 4, 2, 1); what is left are 16 x 1 x 1 numbers. All else is the same.

    Pooling is part of the convolution: for "subsample" it takes every second position, for "max" the largest of its
    values at the four positions of a window, which are four kernels, shifted. It comes before the activation, which is
    the same for one that rises. Windows that stick out, as for odd sizes, are dropped.

    Parameters
    ----------
    weights
        Two kernels [channels, channels before, side, side], then matrices.
    biases
        As in `FullyConnected`; one per channel for the convolutions.
    padding
        Zeros on each side of the image.
    pooling
        "max" or "subsample".
    activation, slope
        As in `FullyConnected`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> model = ConvolutionalNetwork.adapted(jax.random.key(0), image_size=8)
    >>> model(jnp.ones((8, 8))).shape, model.degree, [weight.shape for weight in model.weights[:3]]
    ((10,), 5, [(6, 1, 3, 3), (16, 6, 3, 3), (120, 16)])
    """

    weights: tuple[Float[Array, "..."], ...]
    biases: tuple[Float[Array, " _"], ...] | None = None
    padding: int = eqx.field(default=0, static=True, converter=whole)
    pooling: str = eqx.field(default="max", static=True)
    activation: str = eqx.field(default="relu", static=True)
    slope: float = eqx.field(default=0.01, static=True)

    def __check_init__(self):
        self._check_layers()
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, got {self.pooling!r}; choose one")
        check_count(self.padding, "padding", least=0)
        if [weight.ndim for weight in self.weights[:3]] != [4, 4, 2]:
            raise ValueError(
                f"expected two kernels [channels, channels, side, side] and matrices behind them, got shapes "
                f"{[weight.shape for weight in self.weights]}; use `tutorial` or `adapted`"
            )

    @classmethod
    def tutorial(cls, key: PRNGKeyArray, image_size: int = 28, **options):
        """PyTorch's tutorial network: biases, max pooling, ReLU (Figure 3, left). Options as in `xavier`."""
        return cls.xavier(key, image_size, pooling="max", biases=True, **options)

    @classmethod
    def adapted(cls, key: PRNGKeyArray, image_size: int = 28, **options):
        """The same without biases, and with subsampling, homogeneous of degree 5 (Figure 3, right)."""
        return cls.xavier(key, image_size, pooling="subsample", biases=False, **options)

    @classmethod
    def xavier(
        cls, key: PRNGKeyArray, image_size: int, *, pooling: str, biases: bool, outputs: int = 10,
        channels: tuple[int, int, int] = (1, 6, 16), hidden: Sequence[int] = (120, 84), activation: str = "relu",
        slope: float = 0.01, kernels: str = "xavier", scale: float = 1.0, dtype: Any = None,
    ):  # fmt: skip
        """Weights and biases by `initialisation.random_layers`; kernels and padding chosen by the size of the image."""
        side = 5 if check_count(image_size, "image_size") >= 12 else 3
        rest = (image_size // WINDOW - side + 1) // WINDOW  # the padding keeps the size in the first convolution
        if rest < 1:
            raise ValueError(f"image_size: expected at least 8, for two convolutions, got {image_size}; pad the images")
        widths = check_widths((channels[2] * rest * rest, *hidden, outputs))
        shapes = [(after, before, side, side) for before, after in pairwise(check_widths(channels))]
        shapes += [(after, before) for before, after in pairwise(widths)]
        layers = random_layers(key, shapes, biases=biases, kernels=kernels, scale=scale, dtype=dtype)
        return cls(*layers, side // 2, pooling, activation, slope)

    def __call__(self, image: Float[Array, "..."]) -> Float[Array, " outputs"]:
        """The outputs for one image, [height, width] or [channels, height, width]."""
        x = image[None] if image.ndim == 2 else image
        x = jnp.pad(x, ((0, 0), (self.padding,) * 2, (self.padding,) * 2))
        for number in (0, 1):
            x = _convolve(self.weights[number], x, self.pooling)
            x = x if self.biases is None else x + self.biases[number][:, None, None]
            x = self._activate(x)
        return self._dense(x.ravel(), 2)


def homogeneity_error(
    model: FeedForward, inputs: Float[Array, "samples ..."], degree: int | None = None, factor: float = 2.0
) -> Scalar:
    r"""Largest $|h_{c \theta}(x) - c^n h_\theta(x)|$, over the samples, relative to the largest $|c^n h_\theta(x)|$.

    For a homogeneous model and c a power of two it is exactly 0. The degree n is `model.degree` if none is passed;
    any other equinox model will do, with a degree.

    >>> import jax, jax.numpy as jnp
    >>> model = FullyConnected.xavier(jax.random.key(0), (3, 4, 2), "leaky_relu")
    >>> float(homogeneity_error(model, jnp.ones((5, 3))))
    0.0
    """
    power = getattr(model, "degree", None) if degree is None else degree
    if power is None:
        raise ValueError("expected a homogeneous model, got one of no degree (biases? tanh?); pass a degree to try")
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    grown = eqx.combine(jax.tree.map(lambda leaf: factor * leaf, parameters), rest)
    expected = factor**power * jax.vmap(model)(inputs)
    return jnp.max(jnp.abs(jax.vmap(grown)(inputs) - expected)) / jnp.max(jnp.abs(expected))


def _convolve(kernel, x, pooling):
    """Cross-correlation and pooling in one: the kernel at one position of each window, or the largest of all four.

    The patches are sliced out and multiplied as a matrix: on CPU, inside of loops, where descent lives, gradients of
    XLA's convolutions were measured to be two to seven times slower (8 x 8 and 28 x 28 images, either precision).
    """
    rows, columns = ((size - kernel.shape[2] + 1) // WINDOW for size in x.shape[1:])
    if min(rows, columns) < 1:
        raise ValueError(
            f"expected images with room for a kernel of {kernel.shape[2]} and a window, got {x.shape}; pad them more"
        )
    spots = [(0, 0)] if pooling == "subsample" else list(np.ndindex(WINDOW, WINDOW))
    reach = max(spots)[0]
    shifted = [jnp.pad(kernel, ((0, 0), (0, 0), (i, reach - i), (j, reach - j))) for i, j in spots]
    kernels = jnp.concatenate(shifted)
    patches = [
        x[:, i : i + WINDOW * (rows - 1) + 1 : WINDOW, j : j + WINDOW * (columns - 1) + 1 : WINDOW]
        for i, j in np.ndindex(kernels.shape[2:])
    ]
    matrix = jnp.stack(patches, axis=1).reshape(-1, rows * columns)
    found = jnp.matmul(kernels.reshape(len(kernels), -1), matrix, precision="highest")
    return reduce(jnp.maximum, jnp.split(found.reshape(-1, rows, columns), len(spots)))
