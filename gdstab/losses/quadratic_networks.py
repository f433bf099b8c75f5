r"""Shallow networks with quadratic activation, and phase retrieval, which is the one with a single neuron.

Sections 3.1 and 3.3 of paper C (Cheridito, Jentzen and Rossmannek).
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from gdstab._numerics import as_floats, identity_tolerance, matmul, tree_sum
from gdstab._types import Point
from gdstab._validate import check_count, whole
from gdstab.losses.sensing import Planted, check_chosen

MAX_DESIGN_DIM = 12
"""Largest dimension of `gaussian_design`, which has 2^(dim - 1) + dim vectors."""


class QuadraticNetwork(Planted):
    r"""Shallow network with quadratic activation, $L(W) = c \sum_i \varphi(\sum_j (w_j \cdot x_i)^2 - y_i)$.

    The output weights are 1, as in Du and Lee (2018). Parameters are flat: $w_1$, then $w_2$, ...

    Parameters
    ----------
    inputs
        The vectors $x_i$, **one row each**, [num, features].
    values
        The numbers $y_i$, [num].
    neurons
        Number of $w_j$.
    scale, norm, at_zero
        The factor $c > 0$, "l2" for $\varphi(r) = r^2$ or "l1" for $|r|$, and the slope of $|r|$ at $r = 0$
        (`sensing.Sensing`).
    truth
        The point that was measured, [dim], if it is known.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = QuadraticNetwork.planted(jnp.eye(2), [1.0, 0.0, 0.0, 2.0], neurons=2)
    >>> loss.values.tolist(), float(loss(jnp.ones(4)))
    ([1.0, 4.0], 2.5)
    """

    inputs: Float[Array, "num features"] = eqx.field(converter=as_floats)
    values: Float[Array, " num"] = eqx.field(converter=as_floats)
    neurons: int = eqx.field(default=1, static=True, converter=whole)
    scale: ArrayLike = 0.5
    norm: str = eqx.field(default="l2", static=True)
    at_zero: ArrayLike = 0.0
    truth: Float[Array, " dim"] | None = eqx.field(default=None, converter=as_floats)

    def __check_init__(self):
        check_count(self.neurons, "neurons")
        self._check_planted("inputs", self.inputs, 2)

    @classmethod
    def random(cls, key: PRNGKeyArray, features: int, num: int, *, neurons: int = 1, **options):
        """Planted problem with normal inputs of variance 1 and a normal truth of norm 1.

        `options` are `scale` (by default 1 / (2 num), a mean), `norm`, `at_zero`.

        Examples
        --------
        >>> import jax
        >>> loss = QuadraticNetwork.random(jax.random.key(0), 3, 20, neurons=2)
        >>> loss.dim, float(loss(loss.minimum()))
        (6, 0.0)
        """
        key_inputs, key_truth = jax.random.split(key)
        shape = (check_count(num, "num"), check_count(features, "features"))
        truth = jax.random.normal(key_truth, (check_count(neurons, "neurons") * features,), float)
        options = {"scale": 0.5 / num, **options}
        inputs = jax.random.normal(key_inputs, shape, float)
        return cls.planted(inputs, truth / jnp.linalg.norm(truth), neurons=neurons, **options)

    @classmethod
    def population(cls, truth, *, neurons: int = 1, **options):
        r"""The problem whose "l2" loss is the expected one over normal inputs, exactly, by `gaussian_design`.

        With $D = W^T W - N$, $N = T^T T$ and `truth` = T it is $L = c\,(2 \|D\|_F^2 + (\operatorname{tr} D)^2)$: its
        critical points are known. `options` are `scale` and `at_zero`.

        Examples
        --------
        >>> loss = QuadraticNetwork.population([1.0, 0.0])
        >>> round(float(2 * loss(np.zeros(2))), 12)  # E (x_1^2)^2
        3.0
        """
        truth = as_floats(truth)
        neurons = check_count(neurons, "neurons")
        if truth.ndim != 1 or truth.size == 0 or truth.size % neurons:
            raise ValueError(f"truth: expected a flat point with {neurons} rows, got shape {truth.shape}; ravel it")
        return cls.planted(
            gaussian_design(truth.size // neurons).astype(truth.dtype), truth, neurons=neurons, **options
        )

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return self.neurons * self.inputs.shape[1]

    def predictions(self, theta: Float[Array, "dim *lanes"]) -> Float[Array, "num *lanes"]:
        r"""The outputs $\sum_j (w_j \cdot x_i)^2$."""
        weights = theta.reshape(self.neurons, self.inputs.shape[1], *theta.shape[1:])
        inputs = self.inputs.astype(theta.dtype)
        seen = matmul(inputs.reshape(*inputs.shape, *[1] * (theta.ndim - 1)), weights.swapaxes(0, 1))
        return tree_sum(jnp.square(seen), axis=1)

    def origin_spectrum(self) -> Float[Array, " dim"]:
        r"""Eigenvalues of the Hessian at 0, which is critical: $2c$ times those of $\sum_i \varphi'(-y_i) x_i x_i^T$.

        Ascending, `neurons` times each. For $y_i \ge 0$, not all 0, the origin is a strict saddle (or a maximum).
        """
        slopes = self._origin_slopes()
        inputs = self.inputs.astype(slopes.dtype)
        weighted = jnp.matmul(inputs.T * slopes[None, :], inputs, precision="highest")
        scale = jnp.asarray(self.scale, slopes.dtype)
        return jnp.sort(jnp.tile(2 * scale * jnp.linalg.eigvalsh(weighted), self.neurons))

    def critical_point(self, chosen: tuple[int, ...]) -> Point:
        r"""Critical point of a `population` problem along the eigenvectors `chosen` of $N = T^T T$, largest first.

        $w_j = \sqrt{\mu_j}\,q_j$ with $\mu_j = \nu_j + \sum_{i \notin S} \nu_i / (2 + |S|)$, the rest of the neurons 0.
        A strict saddle unless nothing is missed that is larger than what is fitted, or than 0 if neurons are left over.

        Raises
        ------
        ValueError
            If the inputs are no Gaussian design, the loss is not "l2", or no truth is known.

        Examples
        --------
        >>> loss = PhaseRetrieval.population([3.0**0.5, 0.0])
        >>> [round(abs(x), 6) for x in loss.critical_point((1,)).tolist()]  # orthogonal to the truth, |z| / sqrt(3)
        [0.0, 1.0]
        """
        vectors, sizes, _, kept = self._population(chosen)
        index = jnp.array(kept, int)
        rows = (vectors[:, index] * jnp.sqrt(sizes)[None, :]).T
        return jnp.pad(rows, ((0, self.neurons - len(kept)), (0, 0))).ravel()

    def critical_spectrum(self, chosen: tuple[int, ...]) -> Float[Array, " dim"]:
        r"""Eigenvalues of the Hessian at `critical_point(chosen)`, ascending, in closed form.

        With $t = \operatorname{tr} D = -2 \sum_{i \notin S} \nu_i / (2 + |S|)$ and $\mu_j = 0$ for idle neurons:
        $c\,(8\mu_j - 8\nu_i + 4t)$ for every neuron j and missed i; $8c(\mu_a + \mu_b)$ for $a < b$ in S; those of
        $c\,(16 \operatorname{diag} \mu + 8 \sqrt\mu \sqrt\mu^T)$ on S; 0 for the rest.
        """
        _, sizes, missed, kept = self._population(chosen)
        trace = -2 * jnp.sum(missed) / (2 + len(kept))
        columns = jnp.pad(sizes, (0, self.neurons - len(kept)))
        swaps = 8 * (columns[:, None] - missed[None, :]) + 4 * trace
        sums = 8 * (sizes[:, None] + sizes[None, :])[jnp.triu_indices(len(kept), 1)]
        roots = jnp.sqrt(sizes)
        parts = [swaps.ravel(), sums]
        if kept:
            parts.append(jnp.linalg.eigvalsh(16 * jnp.diag(sizes) + 8 * roots[:, None] * roots[None, :]))
        found = jnp.concatenate(parts)
        return jnp.sort(jnp.asarray(self.scale, found.dtype) * jnp.pad(found, (0, self.dim - found.size)))

    def _population(self, chosen):
        """Eigenvectors of N in descending order, the squared norms of the neurons, what is missed, and the choice."""
        if self.norm == "l1":
            raise ValueError("critical points are known for norm='l2', got 'l1'; ask for those of the l2 loss")
        truth, features = self.minimum(), self.inputs.shape[1]
        design = self.inputs.astype(truth.dtype)
        moments = jnp.einsum("mi,mj,mk,ml->ijkl", design, design, design, design, precision="highest")
        eye = jnp.eye(features, dtype=truth.dtype)
        normal = sum(jnp.einsum(f"{pair},{other}->ijkl", eye, eye) for pair, other in _PAIRINGS)
        if not bool(jnp.allclose(moments, normal, rtol=0, atol=identity_tolerance(truth.dtype))):
            raise ValueError("expected inputs with the fourth moments of normal ones; build the loss by `population`")
        kept = check_chosen(chosen, features, min(self.neurons, features))
        weights = truth.reshape(self.neurons, features)
        sizes, vectors = jnp.linalg.eigh(jnp.matmul(weights.T, weights, precision="highest"))
        sizes, vectors = jnp.maximum(sizes[::-1], 0), vectors[:, ::-1]
        missed = sizes[jnp.array([i for i in range(features) if i not in kept], int)]
        return vectors, sizes[jnp.array(kept, int)] + jnp.sum(missed) / (2 + len(kept)), missed, kept


_PAIRINGS = (("ij", "kl"), ("ik", "jl"), ("il", "jk"))


class PhaseRetrieval(QuadraticNetwork):
    r"""Real phase retrieval, $L(x) = c \sum_i \varphi((a_i \cdot x)^2 - y_i)$: a `QuadraticNetwork` of one neuron.

    Sun, Qu and Wright (2018) for "l2", Davis, Drusvyatskiy and Paquette (2020) for "l1". In the population
    (`PhaseRetrieval.population(z)`) $L = c\,(3|x|^4 + 3|z|^4 - 2|x|^2|z|^2 - 4 (x \cdot z)^2)$. Its critical points are
    the maximum 0, the minima $\pm z$ with sharpness $24 c |z|^2$, and the strict saddles $x \perp z$,
    $|x| = |z|/\sqrt3$, with eigenvalues $8c|z|^2$, $-8c|z|^2$ and zeros.

    Parameters as for `QuadraticNetwork`, whose `inputs` are the $a_i$; `neurons` is 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = PhaseRetrieval(jnp.eye(2), [1.0, 4.0])
    >>> float(loss(jnp.array([1.0, -2.0]))), float(loss(jnp.zeros(2))), loss.origin_spectrum().tolist()
    (0.0, 8.5, [-8.0, -2.0])
    """

    def __check_init__(self):
        if self.neurons != 1:
            raise ValueError(f"neurons: phase retrieval has one, got {self.neurons}; use QuadraticNetwork for more")


def gaussian_design(features: int) -> Float[Array, "num features"]:
    r"""Vectors with $\sum_i x_i^{\otimes 4} = E\, g^{\otimes 4}$, $g$ standard normal: $2^{d-1}$ signs and $d$ axes.

    The sign vectors with first sign +, of weight $2^{1-d}$, and the axes, of weight 2; weights enter as fourth roots.
    Every even quartic moment of the signs is 1, and $E g_1^4 = 3$ asks for 2 more on the axes.

    Examples
    --------
    >>> x = gaussian_design(3)
    >>> x.shape, round(float((x[:, 0] ** 4).sum()), 6), round(float((x[:, 0] ** 2 * x[:, 1] ** 2).sum()), 6)
    ((7, 3), 3.0, 1.0)
    """
    if check_count(features, "features") > MAX_DESIGN_DIM:
        raise ValueError(f"features: expected at most {MAX_DESIGN_DIM}, got {features}; use `random` with many inputs")
    signs = np.array([(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=features - 1)])
    return jnp.asarray(np.concatenate([signs * 2.0 ** ((1 - features) / 4), 2.0**0.25 * np.eye(features)]))
