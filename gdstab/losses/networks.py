"""Any equinox model on a data set, as a loss over the arrays of the model: the training loss of a neural network."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from gdstab._numerics import as_floats, tree_sum
from gdstab._types import Scalar, Theta
from gdstab._validate import as_theta, check_one_dtype, is_concrete

LOSSES = ("cross_entropy", "mse")
REDUCTIONS = ("mean", "sum")


def _as_array(value):
    return jnp.asarray(value) if isinstance(value, list | tuple | np.ndarray) else value


class NetworkRisk(eqx.Module):
    r"""Training loss of a network, $L(\theta) = \frac{1}{m} \sum_{i=1}^m \ell(h_\theta(x_i), y_i)$ (paper D, eq. 9).

    $\theta$ is the model itself with all but its real arrays taken out: what `theta0` and `parameters(model)` give, and
    what `model(theta)` puts back in place. The model is written for one sample, and all samples are seen at every call.
    Products of matrices run at full precision, and the dtype of `theta`, one for all leaves, is that of the answer.

    Parameters
    ----------
    network
        Any equinox model that maps one sample to its outputs; `network_models` has some ready.
    inputs
        **One row per sample**, [samples, ...].
    targets
        Labels 0, 1, ... as integers [samples] for "cross_entropy"; [samples, *outputs] for "mse".
    loss
        "cross_entropy", $\ell = \log \sum_j e^{z_j} - z_y$, or "mse", the square loss with the one half of paper D,
        $\ell = \tfrac12 \|z - y\|^2$, a sum over the outputs.
    reduction
        "mean" over the samples, or their "sum": with "sum", "mse" on a linear network is `LinearNetwork` with c = 1/2.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    >>> risk = NetworkRisk(model, jnp.ones((4, 2)), jnp.array([0, 1, 2, 0]))
    >>> flat = jax.tree.map(jnp.zeros_like, risk.theta0)
    >>> print(f"{float(risk(flat)):.6f}", float(risk.accuracy(flat)))  # log 3, and the first class everywhere
    1.098612 0.5
    """

    network: Any
    inputs: Float[Array, "..."] = eqx.field(converter=as_floats)
    targets: Shaped[Array, "..."] = eqx.field(converter=_as_array)
    loss: str = eqx.field(default="cross_entropy", static=True)
    reduction: str = eqx.field(default="mean", static=True)

    def __check_init__(self):
        for name, value, known in (("loss", self.loss, LOSSES), ("reduction", self.reduction, REDUCTIONS)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}; choose one of them")
        if not jax.tree.leaves(self.theta0):
            raise ValueError(
                f"expected a model with arrays of real numbers to train, got {type(self.network).__name__} without "
                "any; build its layers as equinox Modules, and make integer arrays floats"
            )
        as_theta(self.theta0)
        check_one_dtype(self.theta0)
        samples, targets = jnp.shape(self.inputs), jnp.shape(self.targets)
        if not samples or 0 in samples or targets[:1] != samples[:1]:
            raise ValueError(
                f"expected inputs [samples, ...] and as many targets, got shapes {samples} and {targets}; samples are "
                "rows: transpose if yours are columns"
            )
        if is_concrete(self.inputs) and not bool(jnp.isfinite(self.inputs).all()):
            raise ValueError("inputs: expected finite numbers, got inf or NaN; clean the data")
        outputs = self._output_shape()
        check = _check_labels if self.loss == "cross_entropy" else _check_values
        check(self.targets, outputs)

    def __call__(self, theta: Theta) -> Scalar:
        """The loss at one point."""
        return self.of_outputs(self.outputs(theta))

    def of_outputs(self, outputs: Float[Array, "..."]) -> Scalar:
        r"""The loss as a function of the outputs of all samples, $\ell(z)$ of `curvature.operators`."""
        losses = jax.vmap(self._sample_loss)(outputs, self._targets(outputs))
        total = tree_sum(losses)
        return total / len(losses) if self.reduction == "mean" else total

    @property
    def theta0(self) -> Theta:
        """The parameters of the model that was passed."""
        return self.parameters(self.network)

    def parameters(self, model: Any) -> Theta:
        """The real arrays of a model of this structure; everything else of it becomes None."""
        return eqx.filter(model, eqx.is_inexact_array)

    def model(self, theta: Theta) -> Any:
        """The model with the parameters `theta`, ready to be called on a sample."""
        if jax.tree.structure(theta) != jax.tree.structure(self.theta0):
            raise ValueError(
                f"expected parameters as in `theta0`, {jax.tree.structure(self.theta0)}, got "
                f"{jax.tree.structure(theta)}; build them by `parameters(model)`"
            )
        return eqx.combine(theta, eqx.filter(self.network, eqx.is_inexact_array, inverse=True))

    def outputs(self, theta: Theta, inputs: Float[Array | np.ndarray, "..."] | None = None) -> Float[Array, "..."]:
        r"""$h_\theta(x)$ for every sample, [samples, *outputs]; for those of the data if none are passed."""
        samples = self.inputs if inputs is None else as_floats(inputs)
        model = self.model(theta)
        with jax.default_matmul_precision("highest"):
            return jax.vmap(model)(samples.astype(_dtype(theta)))

    def accuracy(
        self,
        theta: Theta,
        inputs: Float[Array | np.ndarray, "..."] | None = None,
        labels: Shaped[Array | np.ndarray, "samples *classes"] | None = None,
    ) -> Scalar:
        """Share of samples whose largest output is that of the label; on the data, or on others that are passed.

        Of targets [samples, classes] the largest entry counts, so that one-hot codes are understood.
        """
        if (inputs is None) != (labels is None) or (inputs is not None and len(inputs) != len(labels)):
            raise ValueError("expected inputs together with as many labels; pass both or none")
        outputs = self.outputs(theta, inputs)
        wanted = self.targets if labels is None else _as_array(labels)
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise ValueError(f"expected outputs [samples, classes], got {outputs.shape}; accuracy is for classifiers")
        if wanted.shape == outputs.shape:
            wanted = jnp.argmax(wanted, axis=-1)
        _check_labels(wanted, outputs.shape[1:])
        return jnp.mean((jnp.argmax(outputs, axis=-1) == wanted.astype(int)).astype(outputs.dtype))

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return len(self.inputs)

    def on_samples(self, indices: Int[Array, " batch"]):
        """The loss on some of the samples; of a sum, times how many there are over how many these are."""
        part = eqx.tree_at(
            lambda risk: (risk.inputs, risk.targets), self, (self.inputs[indices], self.targets[indices])
        )
        weight = 1.0 if self.reduction == "mean" else self.num_samples / len(indices)
        return part if weight == 1.0 else lambda theta: jnp.asarray(weight, _dtype(theta)) * part(theta)

    def output_gradients(self, theta: Theta) -> Float[Array, "..."]:
        r"""$\nabla \ell_i$, the gradient of every sample's loss in its outputs, [samples, *outputs] (paper D, Lemma 9).

        It carries no factor 1/m, whatever the reduction.
        """
        return jax.vmap(jax.grad(self._sample_loss))(self.outputs(theta), self._targets(theta))

    def residual(self, theta: Theta) -> Float[Array, " residuals"]:
        """Outputs minus targets, flattened, for "mse": zero exactly on the minima if the data can be fitted.

        ValueError for "cross_entropy", whose infimum is not attained.
        """
        if self.loss != "mse":
            raise ValueError("expected the square loss, got cross entropy, which no point minimises; use loss='mse'")
        return (self.outputs(theta) - self._targets(theta)).ravel()

    def one_block(self, theta) -> bool:
        """Whether rounding depends on the lanes side by side: it does. See `ensembles.run`."""
        del theta
        return True

    loss_floor: ClassVar[float] = 0.0
    """0, the infimum where every sample can be fitted (approached at infinity by cross entropy), else a bound."""

    def _sample_loss(self, outputs, target):
        return cross_entropy(outputs, target) if self.loss == "cross_entropy" else _half_square(outputs, target)

    def _targets(self, theta):
        return self.targets if self.loss == "cross_entropy" else self.targets.astype(_dtype(theta))

    def _output_shape(self):
        """The shape of the outputs of one sample, worked out without computing."""
        sample = jax.ShapeDtypeStruct(self.inputs.shape[1:], _dtype(self.theta0))
        try:
            found = eqx.filter_eval_shape(self.network, sample)
        except Exception as error:
            raise ValueError(
                f"the model does not take one sample of shape {sample.shape}: {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else 'no message'}; pass inputs [samples, ...] and a model "
                "that is written for one sample, in jax.numpy"
            ) from error
        if not hasattr(found, "shape"):
            raise ValueError(f"expected a model that returns one array, got {type(found).__name__}; return its outputs")
        return found.shape


def cross_entropy(logits: Float[Array, " classes"], label: Int[Array, ""]) -> Scalar:
    r"""$\ell(z, y) = \log \sum_j e^{z_j} - z_y$, to full relative accuracy however large or small it is.

    With $d_j = z_j - z_y$ and $m = \max(0, \max_j d_j)$ it is
    $m + \log(1 + (e^{-m} - 1) + \sum_{j \ne y} e^{d_j - m})$: no exponential overflows, and where the label wins,
    m = 0, nothing cancels, in the value or in the gradient. The usual difference of two large numbers has lost all
    digits by the time the loss is $10^{-16} |z_y|$.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> print(f"{float(cross_entropy(jnp.array([50.0, 0.0]), jnp.array(0))):.3e}")
    1.929e-22
    """
    right = jnp.arange(logits.shape[0], dtype=label.dtype) == label
    ahead = logits - tree_sum(jnp.where(right, logits, 0))
    shift = jax.lax.stop_gradient(jnp.maximum(jnp.max(ahead), 0))  # the value does not depend on it
    rivals = tree_sum(jnp.where(right, 0, jnp.exp(ahead - shift)))
    return shift + jnp.log1p(rivals + jnp.expm1(-shift))


def _half_square(outputs, target):
    return tree_sum(jnp.square(outputs - target).ravel()) / 2


def _dtype(theta):
    return jnp.result_type(*jax.tree.leaves(theta))


def _check_labels(labels, outputs):
    if len(outputs) != 1 or outputs[0] < 2:
        raise ValueError(f"expected a model with a vector of at least 2 outputs, got shape {outputs}; one per class")
    if jnp.ndim(labels) != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"expected integer labels [samples], got {labels.dtype} of shape {jnp.shape(labels)}; take the "
            "argmax of one-hot codes, or use loss='mse'"
        )
    if is_concrete(labels):
        values = np.asarray(labels)  # not jax.numpy, which would trace it inside jit
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= outputs[0]:
            raise ValueError(
                f"expected labels from 0 to {outputs[0] - 1}, one for each output of the model, got {low} to "
                f"{high}; count classes from 0, or give the model an output for every class"
            )


def _check_values(values, outputs):
    if jnp.shape(values)[1:] != outputs:
        raise ValueError(
            f"targets: expected shape {('samples', *outputs)} as the outputs of the model, got {jnp.shape(values)}; "
            "reshape them, or make labels one-hot codes"
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"targets: expected real floating numbers for loss='mse', got {values.dtype}; convert them")
    if is_concrete(values) and not bool(jnp.isfinite(values).all()):
        raise ValueError("targets: expected finite numbers, got inf or NaN; clean the data")
