"""Instances on which claims are tested: whitened problems with chosen singular values, and ways to look at them."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from gdstab import curvature, ensembles, stability, theory, updates
from gdstab._numerics import matmul
from gdstab._types import Theta
from gdstab.claims.registry import require
from gdstab.estimators import clopper_pearson_interval
from gdstab.losses import LinearNetwork
from gdstab.outcomes import StoppingRule
from gdstab.theory.factorisations import Layers

ARCHITECTURES = (
    (2, 2, 2), (3, 2, 2), (2, 4, 3), (2, 2, 2, 2), (2, 3, 3, 2), (1, 1, 1, 1),
    (3, 1, 3), (4, 2, 3), (3, 1, 2, 2), (3, 2, 2, 3),
)  # fmt: skip
"""Widths, filling ones first; the last four are non-filling."""


SINGULAR_VALUES = (1.5, 1.0)
WIDTHS, DEEP_WIDTHS = (2, 2, 2), (2, 3, 3, 2)
SCALE = 1.0
"""Of the small whitened problems on which paper A's claims are tested."""
DESCENT = updates.gradient_descent()


class Shallow(eqx.Module):
    r"""Loss $c\,\|Y - W_2\,\varphi(W_1 X) - b\|^2$ of one hidden layer; theta is (W_1, W_2), or (W_1, W_2, b)."""

    inputs: Float[Array, "d_in samples"]
    targets: Float[Array, "d_out samples"]
    activation: Callable = eqx.field(static=True)
    scale: float = 0.5

    def __call__(self, theta):
        """The loss at one point."""
        return self.scale * jnp.sum(self.residual(theta) ** 2)

    def residual(self, theta):
        """Outputs minus targets, flattened; zero on the minima of a network that interpolates."""
        W_1, W_2, *bias = theta
        outputs = matmul(W_2, self.activation(matmul(W_1, self.inputs)))
        return (outputs + (bias[0][:, None] if bias else 0.0) - self.targets).ravel()

    def points(self, key: PRNGKeyArray, num: int, width: int, *, bias: bool = False, spread: float = 1.0):
        """Gaussian parameters, leaves [num, ...]."""
        d_in, d_out = self.inputs.shape[0], self.targets.shape[0]
        shapes = [(width, d_in), (d_out, width), *([(d_out,)] if bias else [])]
        keys = jax.random.split(key, len(shapes))
        return tuple(spread * jax.random.normal(k, (num, *shape)) for k, shape in zip(keys, shapes, strict=True))


def with_singular_values(key: PRNGKeyArray, shape: tuple[int, int], values: Sequence[float]) -> Float[Array, "_ _"]:
    """A random matrix of that shape with those singular values."""
    left, right = (jax.random.orthogonal(k, n) for k, n in zip(jax.random.split(key), shape, strict=True))
    return (left[:, : len(values)] * jnp.asarray(values)[None, :]) @ right[: len(values)]


def teacher(key: PRNGKeyArray, widths: Sequence[int]) -> Float[Array, "d_out d_in"]:
    """A target of full rank with well separated singular values 2, 2 / 1.6, 2 / 1.6^2, ..."""
    shape = (widths[-1], widths[0])
    return with_singular_values(key, shape, [2 / 1.6**i for i in range(min(shape))])


def whitened(target: Float[Array, "d_out d_in"], scale: float = 1.0) -> LinearNetwork:
    """The loss c || T - W_h ... W_1 ||^2: inputs are the unit vectors."""
    return LinearNetwork(jnp.eye(target.shape[1]), target, scale)


def random_minima(key: PRNGKeyArray, target: Float[Array, "d_out d_in"], widths: Sequence[int], num: int) -> Theta:
    """Exact random minima for whitened data, leaves [num, ...]."""
    random = theory.factorisations.random_factorisation
    draw = jax.jit(jax.vmap(lambda k: random(k, target, widths)))  # as one program: it compiles faster
    return draw(jax.random.split(key, num))


def nearby(key: PRNGKeyArray, theta: Layers, num: int, spread: float) -> Theta:
    """Gaussian points around one point, leaves [num, ...]."""
    flat, unravel = ravel_pytree(theta)
    return jax.vmap(unravel)(flat[None, :] + spread * jax.random.normal(key, (num, flat.size)))


def norm(theta) -> float:
    """Euclidean norm over all entries."""
    return float(jnp.linalg.norm(ravel_pytree(theta)[0]))


def residual_jacobian(loss: LinearNetwork, theta: Layers) -> np.ndarray:
    """The Jacobian of the residual, [outputs, n], on the host."""
    flat, unravel = ravel_pytree(theta)
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(jax.jacrev(lambda x: loss.residual(unravel(x))))(flat))


def positive_spectrum(loss: LinearNetwork, theta: Layers) -> np.ndarray:
    r"""Hessian eigenvalues that are not zero at a minimum of a filling network, ascending: $2 c \, s_i(Dr)^2$.

    The singular values of the Jacobian resolve what the rounding of the Hessian hides where the largest eigenvalue is
    many orders above the least.
    """
    return 2 * float(loss.scale) * np.linalg.svd(residual_jacobian(loss, theta), compute_uv=False)[::-1] ** 2


def distance_off(loss: LinearNetwork, theta: Layers) -> float:
    """Norm of the residual over 1 + |theta|: rounding on M."""
    return float(jnp.linalg.norm(loss.residual(theta))) / (1 + norm(theta))


def spectra(loss, points) -> np.ndarray:
    """All Hessian eigenvalues at many points, [num, n], ascending."""
    return ensembles.map_points(lambda theta: curvature.eigenvalues(loss, theta), points)


def share(hits: int, num: int) -> dict:
    """A share with its exact 95 % interval."""
    low, high = clopper_pearson_interval(hits, num)
    return {"share": hits / num, "interval": [float(low), float(high)], "of": num}


def image_of_descent(loss, points, step_size):
    """The points after one step."""
    return ensembles.run(DESCENT, loss, points, step_size, StoppingRule(loss_tol=None, max_steps=1)).theta


def singularity(loss, points, step_size) -> dict:
    """What sampled Jacobians of the map say, as a dictionary."""
    return stability.non_singularity(loss, points, step_size, map_points=ensembles.map_points)._asdict()


def small_problem(key):
    """A whitened 2 x 2 target and its loss, as in the body of the paper (c = 1)."""
    target = with_singular_values(key, (2, 2), SINGULAR_VALUES)
    return target, whitened(target, SCALE)


def decoupled_network():
    """A tanh network with output bias on inputs +1 and -1: whatever the rest, the bias has the curvature 4c."""
    return Shallow(jnp.array([[1.0, -1.0]]), jnp.array([[0.7, -0.1]]), jnp.tanh)


def vanishing_path(key, stretches):
    """Along the path of minima: norm, least and largest positive eigenvalue, distance from M."""
    target, loss = small_problem(key)
    rows = []
    for stretch in stretches:
        theta = theory.counterexamples.vanishing_eigenvalue_path(target, WIDTHS, float(stretch))
        values = positive_spectrum(loss, theta)
        require(distance_off(loss, theta) < 1e-12, f"the path leaves M at stretch {stretch:g}")
        require(values.size == 4 and values[0] > 0, "an eigenvalue that is positive by Theorem 10 vanishes")
        rows.append((norm(theta), values[0], values[-1]))
    return np.array(rows)
