"""Deep linear networks: the square loss of a product of weight matrices on a data set."""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gdstab._numerics import UNROLL_LIMIT, as_floats, matmul, rounding, tree_sum, truncate
from gdstab._types import Scalar
from gdstab._validate import check_positive, is_concrete

Weights = tuple[Float[Array, "_ _"], ...]


class LinearNetwork(eqx.Module):
    r"""Deep linear network, $L(W_1, \ldots, W_h) = c\,\|Y - W_h \cdots W_1 X\|_F^2$.

    The loss does not know the widths: they are read off `theta` = $(W_1, \ldots, W_h)$, with $W_1$ of shape
    [d_1, d_in] and $W_h$ of shape [d_out, d_(h-1)]. Paper A uses $c = 1$ in its body and $c = 1/2$ in its Appendix B;
    papers B and D use $c = 1/2$.

    Parameters
    ----------
    inputs
        The data $X$, one column per sample, [d_in, samples].
    targets
        The labels $Y$, [d_out, samples].
    scale
        The factor $c > 0$.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = LinearNetwork(jnp.eye(2), jnp.diag(jnp.array([2.0, 1.0])))
    >>> float(loss((jnp.eye(2), jnp.eye(2))))
    0.5
    """

    inputs: Float[Array, "d_in samples"] = eqx.field(converter=as_floats)
    targets: Float[Array, "d_out samples"] = eqx.field(converter=as_floats)
    scale: ArrayLike = 0.5

    def __check_init__(self):
        for name, value in (("inputs", self.inputs), ("targets", self.targets)):
            if jnp.ndim(value) != 2 or 0 in jnp.shape(value):
                raise ValueError(f"{name}: expected a matrix with a column per sample, got shape {jnp.shape(value)}")
            if is_concrete(value) and not bool(jnp.isfinite(value).all()):
                raise ValueError(f"{name}: expected finite numbers, got inf or NaN; clean the data")
        if self.inputs.shape[1] != self.targets.shape[1]:
            raise ValueError(
                f"expected as many targets as inputs, got {self.targets.shape[1]} and {self.inputs.shape[1]} columns; "
                "samples are columns: transpose if yours are rows"
            )
        if is_concrete(self.scale):
            check_positive(self.scale, "scale")

    def __call__(self, theta: Weights) -> Scalar:
        """The loss at one point."""
        return self.on_lanes(theta)

    def on_lanes(self, theta: tuple[Float[Array, "_ _ *lanes"], ...]) -> Float[Array, "*lanes"]:
        """The loss at many points, the lanes on a trailing axis of every weight: what the engine runs fastest."""
        dtype, lanes = theta[0].dtype, (1,) * (theta[0].ndim - 2)
        inputs, targets = (data.astype(dtype).reshape(*data.shape, *lanes) for data in (self.inputs, self.targets))
        residual = targets - matmul(self.product(theta), inputs)
        return jnp.asarray(self.scale, dtype) * tree_sum(jnp.square(residual).reshape(-1, *residual.shape[2:]))

    def product(self, theta: tuple[Float[Array, "_ _ *lanes"], ...]) -> Float[Array, "d_out d_in *lanes"]:
        r"""The end-to-end matrix $W_h \cdots W_1$, multiplied from the output side."""
        widths = [self.inputs.shape[0], *(weight.shape[0] for weight in theta)]
        fits = [weight.shape[:2] for weight in theta] == list(zip(widths[1:], widths[:-1], strict=True))
        if not theta or not fits or widths[-1] != self.targets.shape[0]:
            raise ValueError(
                f"expected weights (W_1, ..., W_h) that lead from {self.inputs.shape[0]} inputs to "
                f"{self.targets.shape[0]} outputs, got shapes {[weight.shape for weight in theta]}; W_1 comes first"
            )
        result = theta[-1]
        for weight in theta[-2::-1]:
            result = matmul(result, weight)
        return result

    def residual(self, theta: Weights) -> Float[Array, " outputs"]:
        r"""Whitened distance of the product from the best attainable fit, flattened; zero exactly on the minima.

        With $X = U S V^T$ the loss is $c\,\|Y - Y V V^T\|^2 + c\,\|W U S - Y V\|^2$, $W = W_h \cdots W_1$. The residual
        is $W U S - [Y V]_r$ with $r$ the smallest width: for invertible $X X^T$ and no bottleneck it vanishes at
        $W^* = Y X^T (X X^T)^{-1}$, with a bottleneck at the optimum of reduced-rank regression. That one is unique only
        if the singular values of $Y V$ have a gap after the $r$-th; where they have none, other minima exist.
        """
        dtype = theta[0].dtype
        left, right, _ = self._whitened()
        best = truncate(right, self._rank(theta)) if self._rank(theta) < min(right.shape) else right
        return (matmul(self.product(theta), left.astype(dtype)) - best.astype(dtype)).ravel()

    def one_block(self, theta) -> bool:
        """Whether rounding depends on the lanes side by side: beyond what `matmul` writes out. See `ensembles.run`."""
        return max(size for weight in theta for size in jnp.shape(weight)) > UNROLL_LIMIT

    @property
    def loss_floor(self) -> Scalar:
        r"""The exact least-squares floor $c\,\|Y - W^* X\|^2$ of networks **without bottleneck**.

        The widths belong to `theta`, so a bottleneck is not seen here: use `floor(theta)` then.
        """
        _, _, floor = self._whitened()
        return floor

    def floor(self, theta: Weights) -> Scalar:
        r"""The infimum over networks with the widths of `theta`: `loss_floor` plus $c \sum_{i > r} \sigma_i(Y V)^2$.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> loss = LinearNetwork(jnp.eye(2), jnp.diag(jnp.array([2.0, 1.0])))
        >>> float(loss.loss_floor), float(loss.floor((jnp.ones((1, 2)), jnp.ones((2, 1)))))
        (0.0, 0.5)
        """
        _, right, floor = self._whitened()
        lost = jnp.linalg.svd(right, compute_uv=False)[self._rank(theta) :]
        return floor + jnp.asarray(self.scale, right.dtype) * jnp.sum(lost * lost)

    def _rank(self, theta):
        return min(min(weight.shape) for weight in theta)

    def _whitened(self):
        """`U S` and `Y V` on the directions that the data span, and the floor of the loss."""
        dtype = jnp.promote_types(self.inputs.dtype, self.targets.dtype)
        inputs, targets = self.inputs.astype(dtype), self.targets.astype(dtype)
        u, s, vt = jnp.linalg.svd(inputs, full_matrices=False)
        s = jnp.where(s > rounding(inputs.shape, dtype) * s[0], s, 0)
        right = jnp.matmul(targets, vt.T, precision="highest") * (s > 0).astype(dtype)[None, :]
        missed = targets - jnp.matmul(right, vt, precision="highest")
        return u * s[None, :], right, jnp.asarray(self.scale, dtype) * jnp.sum(missed * missed)
