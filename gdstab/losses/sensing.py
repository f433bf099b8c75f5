"""What recovery problems share: predictions held against measured values, in the square or the absolute value."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gdstab._numerics import UNROLL_LIMIT, as_floats, tree_sum
from gdstab._types import Point, Scalar
from gdstab._validate import check_positive, is_concrete

NORMS = ("l2", "l1")


class Sensing(eqx.Module):
    r"""Empirical risk $L(\theta) = c \sum_i \varphi(p_i(\theta) - y_i)$ of predictions quadratic (or linear) in theta.

    $\varphi(r) = r^2$ for the norm "l2", $|r|$ for "l1" (paper C, section 3). Where a residual is exactly 0 the
    derivative of $|r|$ is taken to be `at_zero`; every number in [-1, 1] gives an element of Clarke's subdifferential,
    since the predictions are smooth. Second derivatives of "l1" are those of the smooth piece,
    $c \sum_i \operatorname{sgn}(r_i) \nabla^2 p_i$, with the same convention.
    """

    values: eqx.AbstractVar[Float[Array, " num"]]
    scale: eqx.AbstractVar[ArrayLike]
    norm: eqx.AbstractVar[str]
    at_zero: eqx.AbstractVar[ArrayLike]

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Number of parameters."""

    @abc.abstractmethod
    def predictions(self, theta: Float[Array, "dim *lanes"]) -> Float[Array, "num *lanes"]:
        """The numbers p_i, for one point or with the lanes on a trailing axis."""

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point."""
        self._check_point(theta)
        return self.on_lanes(theta)

    def on_lanes(self, theta: Float[Array, "dim *lanes"]) -> Float[Array, "*lanes"]:
        """The loss at many points, the lanes on a trailing axis: what the engine runs fastest."""
        misfit = self._misfit(theta, self.values)
        sizes = jnp.square(misfit) if self.norm == "l2" else _absolute(misfit, jnp.asarray(self.at_zero, theta.dtype))
        return jnp.asarray(self.scale, theta.dtype) * tree_sum(sizes)

    def residual(self, theta: Point) -> Float[Array, " num"]:
        """Predictions minus values; zero exactly on the minima if the values can be met (they can if planted)."""
        self._check_point(theta)
        return self._misfit(theta, self.values)

    def one_block(self, theta) -> bool:
        """Whether rounding depends on the lanes side by side: beyond what `matmul` writes out. See `ensembles.run`."""
        return theta.shape[0] > UNROLL_LIMIT

    loss_floor: ClassVar[float] = 0.0
    """The infimum 0 if the values can be met, as planted ones can; else a lower bound."""

    def _misfit(self, theta, values):
        values = values.astype(theta.dtype)
        return self.predictions(theta) - values.reshape(values.shape + (1,) * (theta.ndim - 1))

    def _origin_slopes(self):
        r"""$\varphi'(-y_i)$: the Hessian at 0 is $c \sum_i \varphi'(-y_i) \nabla^2 p_i$, for $p_i$ is quadratic."""
        if self.norm == "l1" and is_concrete(self.values) and bool((self.values == 0).any()):
            raise ValueError(
                "expected values other than 0, got some that are 0: the l1 loss has a kink at the origin there; "
                "drop these measurements or use norm='l2'"
            )
        return -2 * self.values if self.norm == "l2" else -jnp.sign(self.values)

    def _check_point(self, theta):
        if theta.shape != (self.dim,):
            raise ValueError(
                f"expected theta of shape ({self.dim},), got {theta.shape}; pass one flat point, unbatched"
            )

    def _check_constants(self):
        if self.norm not in NORMS:
            raise ValueError(f"norm: expected 'l2' or 'l1', got {self.norm!r}; choose one of them")
        if is_concrete(self.scale):
            check_positive(self.scale, "scale")
        if is_concrete(self.at_zero) and not (jnp.shape(self.at_zero) == () and -1 <= float(self.at_zero) <= 1):
            raise ValueError(f"at_zero: expected one number from -1 to 1, got {self.at_zero}; 0 is the usual choice")


class Planted(Sensing):
    """Recovery from measurements, where the point that was measured, `truth`, may be known."""

    truth: eqx.AbstractVar[Float[Array, " dim"] | None]

    @classmethod
    def planted(cls, data, truth, **options):
        """The problem whose values are what the point `truth` predicts, so that it is a minimum with loss 0.

        Parameters
        ----------
        data
            As the first argument of the class.
        truth
            A point, [dim].
        options
            All other arguments of the class but `values`.
        """
        data, truth = as_floats(data), as_floats(truth)
        blank = cls(data, jnp.zeros(data.shape[0], truth.dtype), truth=truth, **options)
        return eqx.tree_at(lambda loss: loss.values, blank, blank.predictions(truth))

    def minimum(self, dtype=None) -> Point:
        """The point that was planted. ValueError if none is known."""
        if self.truth is None:
            raise ValueError("expected a planted problem, got one whose truth is unknown; build it by `planted`")
        return self.truth.astype(dtype or self.truth.dtype)

    def _check_planted(self, name, data, ndim):
        """Data, values and truth: shapes, and finite numbers."""
        self._check_constants()
        if jnp.ndim(data) != ndim or 0 in jnp.shape(data):
            raise ValueError(f"{name}: expected a non-empty array of {ndim} axes, one row each, got {jnp.shape(data)}")
        if jnp.shape(self.values) != jnp.shape(data)[:1]:
            raise ValueError(f"values: expected {jnp.shape(data)[0]}, one for each of {name}, got {self.values.shape}")
        for label, numbers in ((name, data), ("values", self.values), ("truth", self.truth)):
            if is_concrete(numbers) and not bool(jnp.isfinite(numbers).all()):
                raise ValueError(f"{label}: expected finite numbers, got inf or NaN; clean the data")
        if self.truth is not None and jnp.shape(self.truth) != (self.dim,):
            raise ValueError(f"truth: expected a flat point of shape ({self.dim},), got {jnp.shape(self.truth)}")


def check_chosen(chosen, num: int, most: int) -> tuple[int, ...]:
    """Distinct indices below `num`, at most `most` of them."""
    kept = tuple(sorted(set(chosen)))
    if len(kept) != len(tuple(chosen)) or len(kept) > most or any(not 0 <= i < num for i in kept):
        raise ValueError(f"chosen: expected at most {most} distinct indices from 0 to {num - 1}, got {chosen}")
    return kept


@jax.custom_jvp
def _absolute(residual, at_zero):
    """|r|; its slope at r = 0 is `at_zero`."""
    del at_zero
    return jnp.abs(residual)


@_absolute.defjvp
def _absolute_jvp(primals, tangents):
    residual, at_zero = primals
    slope = jnp.where(residual == 0, at_zero, jnp.sign(residual))
    return jnp.abs(residual), slope * tangents[0]
