r"""Matrices of low rank: factorisation of a matrix seen whole, and recovery from linear measurements of it.

Section 3.2 of paper C (Cheridito, Jentzen and Rossmannek), there with $p(U, V, X_i) = V U^T X_i$. Parameters are flat:
$V$ row by row, then $U$; $U$ alone for symmetric problems.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from gdstab._numerics import as_floats, matmul
from gdstab._types import Point, Scalar
from gdstab._validate import check_count, is_concrete, whole
from gdstab.losses.sensing import Planted, Sensing, check_chosen


class MatrixFactorisation(Sensing):
    r"""Low-rank factorisation, $L(V, U) = c\,\|V U^T - M\|^2$, or $c\,\|U U^T - M\|^2$ for a symmetric $M$.

    The norm is Frobenius' ("l2"), or the sum of absolute values, not squared ("l1": $c \sum_{ij} |(V U^T - M)_{ij}|$).

    Parameters
    ----------
    target
        The matrix $M$, [rows, columns].
    rank
        Number of columns of $U$ and of $V$, at least 1; it may exceed that of $M$.
    symmetric
        Whether $V = U$; $M$ must then be symmetric.
    scale, norm, at_zero
        The factor $c > 0$, "l2" or "l1", and the slope of $|r|$ at $r = 0$ (`sensing.Sensing`).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = MatrixFactorisation(jnp.diag(jnp.array([4.0, 1.0])), rank=1)
    >>> loss.minimum().tolist(), float(loss(loss.minimum())), float(loss.loss_floor)
    ([2.0, 0.0, 2.0, 0.0], 0.5, 0.5)
    """

    target: Float[Array, "rows columns"] = eqx.field(converter=as_floats)
    rank: int = eqx.field(static=True, converter=whole)
    symmetric: bool = eqx.field(default=False, static=True)
    scale: ArrayLike = 0.5
    norm: str = eqx.field(default="l2", static=True)
    at_zero: ArrayLike = 0.0

    def __check_init__(self):
        self._check_constants()
        check_count(self.rank, "rank")
        shape = jnp.shape(self.target)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"target: expected a matrix, got shape {shape}; pass one of shape [rows, columns]")
        if is_concrete(self.target) and not bool(jnp.isfinite(self.target).all()):
            raise ValueError("target: expected finite numbers, got inf or NaN; clean the data")
        if self.symmetric:
            _check_symmetric(self.target, "target")

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return _num_entries(self.target.shape, self.rank, self.symmetric)

    @property
    def values(self) -> Float[Array, " num"]:
        """The entries of M, row by row."""
        return self.target.ravel()

    def predictions(self, theta: Float[Array, "dim *lanes"]) -> Float[Array, "num *lanes"]:
        """The entries of the product, row by row."""
        return _product(theta, self.target.shape, self.rank, self.symmetric)

    def residual(self, theta: Point) -> Float[Array, " num"]:
        r"""Product minus the best approximation of $M$ of this rank (Eckart and Young); zero exactly on the minima.

        That approximation is unique only if the singular values have a gap after the last one kept. For "l1" no closed
        form is known and $M$ itself is taken: right where its rank is attainable.
        """
        self._check_point(theta)
        if self.norm == "l1":
            return self._misfit(theta, self.values)
        left, sizes, right = self._decomposed()
        best = jnp.matmul(left * self._fitted(sizes)[None, :], right.T, precision="highest")
        return self._misfit(theta, best.ravel())

    @property
    def loss_floor(self) -> ArrayLike:
        r"""The infimum $c \sum_{i > r} \sigma_i^2$, attained; symmetric: over all but the r top positive eigenvalues.

        For "l1" 0, a lower bound that is attained where the rank of $M$ is.
        """
        if self.norm == "l1":
            return 0.0
        _, sizes, _ = self._decomposed()
        missed = sizes - self._fitted(sizes)
        return jnp.asarray(self.scale, sizes.dtype) * jnp.sum(missed * missed)

    def minimum(self, dtype=None) -> Point:
        """The balanced minimum: singular vectors times the roots of their values. For "l1" if M has this rank."""
        left, sizes, right = self._decomposed()
        return self._assembled(left, self._fitted(sizes), right, range(min(self.rank, sizes.size))).astype(
            dtype or self.target.dtype
        )

    def critical_point(self, chosen: tuple[int, ...]) -> Point:
        r"""The balanced critical point of "l2" that fits the singular triplets, or eigenpairs, `chosen` and no other.

        $V = A_S \Sigma_S^{1/2}$, $U = B_S \Sigma_S^{1/2}$ for $M = A \Sigma B^T$, largest first; symmetric: eigenvalues
        in descending order, and only positive ones can be fitted. With it all $(V G, U G^{-T})$ are critical, G
        invertible; symmetric: all $U Q$, Q orthogonal. It is a strict saddle iff a missed value exceeds the least
        fitted one, or exceeds 0 with fewer than `rank` fitted; else a minimum (Baldi and Hornik 1989).

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> loss = MatrixFactorisation(jnp.diag(jnp.array([4.0, 1.0])), rank=1)
        >>> [abs(x) for x in loss.critical_point((1,)).tolist()], loss.critical_spectrum((1,)).tolist()
        ([0.0, 1.0, 0.0, 1.0], [-3.0, 0.0, 2.0, 5.0])
        """
        left, sizes, right = self._decomposed()
        return self._assembled(left, sizes, right, self._check_chosen(chosen, sizes))

    def critical_spectrum(self, chosen: tuple[int, ...]) -> Float[Array, " dim"]:
        r"""Eigenvalues of the Hessian at `critical_point(chosen)`, ascending, in closed form.

        With $\sigma_b$ the value that column b fits (0 if none), and i running over missed triplets:
        $2c(\sigma_b \pm \sigma_i)$; $2c(\sigma_a + \sigma_b)$ and 0 for every pair of fitted ones, in both orders;
        $2c\sigma_b$ for every further row or column of $M$; 0 twice for a fitted value in a free column. Symmetric:
        $4c(\lambda_b - \lambda_i)$; $4c(\lambda_a + \lambda_b)$ for $a \le b$; 0 for the rest.
        """
        _, sizes, _ = self._decomposed()
        kept = self._check_chosen(chosen, sizes)
        missed = sizes[jnp.array([i for i in range(sizes.size) if i not in kept], int)]
        fitted = sizes[jnp.array(kept, int)]
        columns = jnp.pad(fitted, (0, self.rank - len(kept)))
        sums = fitted[:, None] + fitted[None, :]
        if self.symmetric:
            parts = [2 * (columns[:, None] - missed[None, :]).ravel(), 2 * sums[jnp.triu_indices(len(kept))]]
        else:
            apart = abs(self.target.shape[0] - self.target.shape[1])
            swaps = [(columns[:, None] + sign * missed[None, :]).ravel() for sign in (1, -1)]
            parts = [*swaps, jnp.tile(columns, apart), sums.ravel()]
        found = jnp.concatenate(parts)
        return jnp.sort(2 * jnp.asarray(self.scale, sizes.dtype) * jnp.pad(found, (0, self.dim - found.size)))

    def _decomposed(self):
        """Left vectors, values in descending order, right vectors, as columns."""
        if self.symmetric:
            sizes, vectors = jnp.linalg.eigh(self.target)
            return vectors[:, ::-1], sizes[::-1], vectors[:, ::-1]
        left, sizes, right = jnp.linalg.svd(self.target, full_matrices=False)
        return left, sizes, right.T

    def _fitted(self, sizes):
        """The values that a minimum fits, 0 in place of the others."""
        return jnp.where(jnp.arange(sizes.size) < self.rank, jnp.maximum(sizes, 0), 0)

    def _assembled(self, left, sizes, right, kept):
        index = jnp.array(kept, int)
        roots = jnp.sqrt(sizes[index])[None, :]
        factors = [right[:, index] * roots] if self.symmetric else [left[:, index] * roots, right[:, index] * roots]
        return jnp.concatenate([jnp.pad(f, ((0, 0), (0, self.rank - len(kept)))).ravel() for f in factors])

    def _check_chosen(self, chosen, sizes):
        if self.norm == "l1":
            raise ValueError("critical points are known for norm='l2', got 'l1'; ask for those of the l2 loss")
        kept = check_chosen(chosen, sizes.size, min(self.rank, sizes.size))
        if kept and is_concrete(sizes) and not float(sizes[kept[-1]]) > 0:
            raise ValueError(f"chosen: expected values above 0, got {float(sizes[kept[-1]])}; leave that one out")
        return kept


class MatrixRecovery(Planted):
    r"""Recovery of a matrix from linear measurements, $L = c \sum_i \varphi(\langle A_i, X \rangle - y_i)$.

    $X$ itself is the parameter (dense, a convex problem), or $X = V U^T$, or $X = U U^T$ with `rank` columns. With
    $\varphi(r) = |r|$ it is the robust recovery of Li, Zhu, So and Vidal (2020).

    Parameters
    ----------
    measurements
        The matrices $A_i$, [num, rows, columns].
    values
        The numbers $y_i$, [num].
    rank
        Number of columns of the factors; None for the dense problem.
    symmetric
        Whether $X = U U^T$; takes square $A_i$ and a rank.
    scale, norm, at_zero
        The factor $c > 0$, "l2" or "l1", and the slope of $|r|$ at $r = 0$ (`sensing.Sensing`).
    truth
        The point that was measured, [dim], if it is known.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = MatrixRecovery.planted(jnp.eye(4).reshape(4, 2, 2), [1.0, 0.0, 2.0, 0.0], rank=1)
    >>> loss.values.tolist(), float(loss(jnp.ones(4))), float(loss(loss.minimum()))
    ([2.0, 0.0, 0.0, 0.0], 2.0, 0.0)
    """

    measurements: Float[Array, "num rows columns"] = eqx.field(converter=as_floats)
    values: Float[Array, " num"] = eqx.field(converter=as_floats)
    rank: int | None = eqx.field(default=None, static=True, converter=whole)
    symmetric: bool = eqx.field(default=False, static=True)
    scale: ArrayLike = 0.5
    norm: str = eqx.field(default="l2", static=True)
    at_zero: ArrayLike = 0.0
    truth: Float[Array, " dim"] | None = eqx.field(default=None, converter=as_floats)

    def __check_init__(self):
        if self.rank is not None:
            check_count(self.rank, "rank")
        self._check_planted("measurements", self.measurements, 3)
        if self.symmetric and (self.rank is None or self.measurements.shape[1] != self.measurements.shape[2]):
            raise ValueError(
                f"expected a rank and square measurements of a symmetric matrix, got rank {self.rank} and shape "
                f"{self.measurements.shape}; give both, or symmetric=False"
            )

    @classmethod
    def random(cls, key: PRNGKeyArray, shape: tuple[int, int], num: int, *, rank: int | None = None, **options):
        r"""Planted problem with normal $A_i$ of variance 1/num: $\sum_i \langle A_i, X \rangle^2 \approx \|X\|^2$.

        The truth has normal entries of variance 1; `options` are `symmetric`, `scale`, `norm`, `at_zero`.

        Examples
        --------
        >>> import jax
        >>> loss = MatrixRecovery.random(jax.random.key(0), (3, 2), 20, rank=1)
        >>> loss.dim, float(loss(loss.minimum()))
        (5, 0.0)
        """
        rows, columns = (check_count(size, "shape") for size in shape)
        key_data, key_truth = jax.random.split(key)
        data = jax.random.normal(key_data, (check_count(num, "num"), rows, columns), float) / jnp.sqrt(float(num))
        dim = _num_entries((rows, columns), rank, options.get("symmetric", False))
        return cls.planted(data, jax.random.normal(key_truth, (dim,), float), rank=rank, **options)

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return _num_entries(self.measurements.shape[1:], self.rank, self.symmetric)

    def predictions(self, theta: Float[Array, "dim *lanes"]) -> Float[Array, "num *lanes"]:
        r"""The numbers $\langle A_i, X \rangle$."""
        entries = _product(theta, self.measurements.shape[1:], self.rank, self.symmetric)
        flat = self._flat().astype(theta.dtype)
        return matmul(flat.reshape(*flat.shape, *[1] * (theta.ndim - 1)), entries[:, None])[:, 0]

    def residual(self, theta: Point) -> Float[Array, " num"]:
        """Predictions minus values (dense "l2": minus their best fit); zero exactly on the minima if planted."""
        self._check_point(theta)
        return self._misfit(theta, self._attainable())

    @property
    def loss_floor(self) -> Scalar | float:
        """Dense "l2": the floor of least squares. Else 0, the infimum if the values can be met, or a lower bound."""
        missed = self.values - self._attainable()
        return jnp.asarray(self.scale, missed.dtype) * jnp.sum(missed * missed)

    def origin_spectrum(self) -> Float[Array, " dim"]:
        r"""Eigenvalues of the Hessian at 0, a critical point of the factorised problems; ascending, in closed form.

        With $N = \sum_i \varphi'(-y_i) A_i$: $\pm c\,\sigma_k(N)$, `rank` times each, and zeros; symmetric: $2c$ times
        the eigenvalues of $(N + N^T)/2$. So 0 is a strict saddle unless $N = 0$; symmetric: unless $N + N^T$ is
        positive semidefinite. ValueError for the dense problem, where 0 is not critical.
        """
        if self.rank is None:
            raise ValueError("expected factors, got the dense problem, where 0 is no critical point; pass a rank")
        slopes = self._origin_slopes()
        weighted = jnp.einsum("m,mij->ij", slopes, self.measurements.astype(slopes.dtype), precision="highest")
        scale = jnp.asarray(self.scale, slopes.dtype)
        if self.symmetric:
            return jnp.sort(jnp.tile(scale * jnp.linalg.eigvalsh(weighted + weighted.T), self.rank))
        sizes = scale * jnp.tile(jnp.linalg.svd(weighted, compute_uv=False), self.rank)
        return jnp.sort(jnp.concatenate([-sizes, sizes, jnp.zeros(self.dim - 2 * sizes.size, sizes.dtype)]))

    def _flat(self):
        return self.measurements.reshape(self.measurements.shape[0], -1)

    def _attainable(self):
        """The values; their projection on what the dense problem can predict."""
        if self.rank is not None or self.norm == "l1":
            return self.values
        flat = self._flat().astype(self.values.dtype)
        return jnp.matmul(flat, jnp.linalg.lstsq(flat, self.values)[0], precision="highest")


def _num_entries(shape, rank, symmetric):
    rows, columns = shape
    return rows * columns if rank is None else rank * (columns if symmetric else rows + columns)


def _product(theta, shape, rank, symmetric):
    """The entries of X, V U^T or U U^T, row by row, [rows * columns, *lanes]."""
    if rank is None:
        return theta
    rows, columns = shape
    lanes = theta.shape[1:]
    left, right = (theta, theta) if symmetric else jnp.split(theta, [rows * rank])
    left, right = (left.reshape(-1, rank, *lanes), right.reshape(columns, rank, *lanes))
    return matmul(left, right.swapaxes(0, 1)).reshape(rows * columns, *lanes)


def _check_symmetric(matrix, name):
    if matrix.shape[0] != matrix.shape[1] or (is_concrete(matrix) and not bool((matrix == matrix.T).all())):
        raise ValueError(f"{name}: expected a symmetric matrix, got one that is not; pass (M + M.T) / 2")
