"""Paper D, section 4 and Appendix C: the least Hessian eigenvalue of deep networks, in general and along the flow."""

from collections.abc import Callable
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gdstab import flow
from gdstab._numerics import sum_squares
from gdstab.claims.registry import Finding, Verdict, claim, judge, require
from gdstab.theory import hessian_bounds as hb

LINEAR, RELU, LEAKY = (1.0, 1.0), (1.0, 0.0), (1.0, -0.3)
WIDTHS = (2, 3, 2, 2)
PATTERNS = (
    hb.convolution_pattern(5, 2, channels=(1, 2)),
    hb.convolution_pattern(4, 3, channels=(2, 1)),
    hb.dense_pattern(2, 2),
)
DENSE = tuple((above, below) for below, above in pairwise(WIDTHS))
SHARED = tuple((int(pattern.max()) + 1,) for pattern in PATTERNS)
INSTANCES = 1000
CURVATURES = (1.0, 1e2, 1e4)


def square(prediction, target):
    """Half the squared distance."""
    return 0.5 * jnp.sum((prediction - target) ** 2)


def cross_entropy(prediction, target):
    """Of a softmax, the target being a distribution or any other vector of weights."""
    return jnp.sum(target) * jax.nn.logsumexp(prediction) - prediction @ target


class Network(eqx.Module):
    """The mean loss of a homogeneous network, dense or with shared weights, written apart from what is tested."""

    inputs: Float[Array, "*many d_in samples"]
    targets: Float[Array, "*many samples d_out"]
    slopes: tuple[float, float] = eqx.field(static=True)
    output_loss: Callable = eqx.field(static=True)
    shared: bool = eqx.field(static=True, default=False)

    def __call__(self, theta):
        """The loss at one point."""
        value, layers = self.inputs, self.layers(theta)
        for W in layers[:-1]:
            value = W @ value
            value = self.slopes[0] * jnp.maximum(value, 0) + self.slopes[1] * jnp.minimum(value, 0)
        return jnp.mean(jax.vmap(self.output_loss)((layers[-1] @ value).T, self.targets))

    def layers(self, theta):
        """The matrices."""
        return hb.realise(PATTERNS, theta) if self.shared else theta


def instances(key, slopes, output_loss, shared=False):
    """Random data, weights (each layer with a scale of its own) and directions, a thousand of each."""
    keys = jax.random.split(key, 5)
    x = jax.random.normal(keys[0], (INSTANCES, 5 if shared else WIDTHS[0], 3))
    y = jax.nn.softmax(2 * jax.random.normal(keys[1], (INSTANCES, 3, 2)))

    def draw(key):
        shapes = SHARED if shared else DENSE
        scale = jnp.exp(0.7 * jax.random.normal(key, (INSTANCES, len(shapes))))
        return tuple(
            jax.random.normal(k, (INSTANCES, *s)) * scale[:, i].reshape(-1, *[1] * len(s))
            for i, (k, s) in enumerate(zip(jax.random.split(key, len(shapes)), shapes, strict=True))
        )

    return Network(x, y, slopes, output_loss, shared), draw(keys[2]), draw(keys[3])


@eqx.filter_jit
def survey(losses, points, directions):
    """At every instance the Hessian, the form along the direction by it and by the lemma, and the bounds."""

    def at(loss, theta, direction):
        flat, unravel = ravel_pytree(theta)
        hessian = jax.hessian(lambda z: loss(unravel(z)))(flat)
        step = ravel_pytree(direction)[0]
        return step @ hessian @ step, hessian, *by_the_lemmas(loss, theta, direction)

    return jax.vmap(at)(losses, points, directions)


def by_the_lemmas(loss, theta, direction):
    """The quadratic form, and the bound as printed and in a sharper norm."""
    x, layers = loss.inputs, loss.layers(theta)
    if loss.slopes == LINEAR:
        phi = lambda W: jnp.mean(jax.vmap(loss.output_loss)((W @ x).T, loss.targets))  # noqa: E731
        product = layers[2] @ layers[1] @ layers[0]
        pull, curve = jax.grad(phi)(product), jax.hessian(phi)(product)
        form = hb.linear_form(theta, direction, pull, lambda D: jnp.einsum("ij,ijkl,kl->", D, curve, D))
        return form, jnp.stack([hb.linear_bound(theta, pull, gradient_norm=n) for n in ("frobenius", "nuclear")])
    gates, out = hb.activation_gates(layers, x, loss.slopes), hb.outputs(layers, x, loss.slopes)
    slope = jax.vmap(jax.grad(loss.output_loss))(out.T, loss.targets).T
    curve = jax.vmap(jax.hessian(loss.output_loss))(out.T, loss.targets)
    if loss.shared:
        form = hb.shared_form(PATTERNS, theta, direction, gates, x, slope, curve)
        return form, jnp.stack([hb.shared_bound(PATTERNS, theta, slope, x, loss.slopes)])
    form = hb.gated_form(theta, direction, gates, x, slope, curve)
    norms = ("frobenius", "spectral")
    return form, jnp.stack([hb.homogeneous_bound(theta, slope, x, loss.slopes, layer_norm=n) for n in norms])


def form_finding(key, slopes, output_loss, shared=False):
    """The form of the lemma against the Hessian of autodiff."""
    exact, _, form, _ = map(np.asarray, survey(*instances(key, slopes, output_loss, shared)))
    error = float(np.max(np.abs(form - exact) / (1 + np.abs(exact))))
    return Finding(judge(error < 1e-10), {"instances": INSTANCES, "largest relative error": error})


def bound_finding(key, slopes, output_loss, sharper=None, shared=False):
    """The bounds against the least eigenvalue: violations, and how much larger they are where that is negative."""
    _, hessians, _, bounds = map(np.asarray, survey(*instances(key, slopes, output_loss, shared)))
    least = np.linalg.eigvalsh(hessians)[:, :1]
    violated = (bounds > least + 1e-10 * np.abs(bounds)).sum(axis=0)
    negative = least[:, 0] < -1e-9
    ratios = bounds[negative] / least[negative]
    numbers = {"instances": INSTANCES, "with a negative eigenvalue": len(ratios), "violations": int(violated[0])}
    for name, values in zip(("as printed", sharper), ratios.T, strict=False):
        numbers[f"bound over eigenvalue, {name}"] = dict(
            zip(("least", "median", "largest"), np.quantile(values, (0, 0.5, 1)).tolist(), strict=True)
        )
    require(not violated[1:].any(), "the sharper bound is violated")
    return Finding(judge(violated[0] == 0), numbers, f"It holds with {sharper} as well." if sharper else "")


@claim(
    "D.lem5",
    source="Lemma 5",
    expected=Verdict.HOLDS,
    statement="The Hessian of a deep linear network is the quadratic form (12).",
)
def linear_hessian(key):
    """A thousand networks, data and directions."""
    return form_finding(key, LINEAR, cross_entropy)


@claim(
    "D.lem7",
    source="Lemma 7",
    expected=Verdict.HOLDS,
    statement="The least eigenvalue of a deep linear network is no less than (13).",
)
def linear_lower_bound(key):
    """A thousand networks and data."""
    return bound_finding(key, LINEAR, cross_entropy, "the nuclear norm of the gradient")


@claim(
    "D.lem9",
    source="Lemma 9",
    expected=Verdict.HOLDS,
    statement="On a region of differentiability the Hessian is the form (16).",
)
def homogeneous_hessian(key):
    """A thousand leaky networks, data and directions."""
    return form_finding(key, LEAKY, cross_entropy)


@claim(
    "D.lem11",
    source="Lemma 11",
    expected=Verdict.HOLDS,
    statement="The least eigenvalue of a homogeneous network is no less than (17).",
)
def homogeneous_lower_bound(key):
    """A thousand leaky networks and data."""
    return bound_finding(key, LEAKY, cross_entropy, "spectral norms of the layers")


@claim(
    "D.lem21", source="Lemma 21", expected=Verdict.HOLDS, statement="With shared weights the Hessian is the form (30)."
)
def shared_hessian(key):
    """A thousand convolutional ReLU networks, data and directions."""
    return form_finding(key, RELU, cross_entropy, shared=True)


@claim(
    "D.lem23",
    source="Lemma 23",
    expected=Verdict.HOLDS,
    statement="With shared weights the least eigenvalue is no less than (31).",
)
def shared_lower_bound(key):
    """A thousand convolutional ReLU networks and data."""
    return bound_finding(key, RELU, cross_entropy, shared=True)


@eqx.filter_jit
def _hessian(loss, theta):
    flat, unravel = ravel_pytree(theta)
    return jax.hessian(lambda z: loss(unravel(z)))(flat)


def construction_finding(loss, build, exact=False):
    """Curvatures asked for, and the least eigenvalue that autodiff finds at the points constructed."""
    found = [float(np.linalg.eigvalsh(np.asarray(_hessian(loss, build(c).theta)))[0]) for c in CURVATURES]
    numbers = {"curvature asked for": CURVATURES, "least eigenvalue": found}
    require(not exact or np.allclose(found, -np.array(CURVATURES)), "the least eigenvalue is not what it should be")
    return Finding(judge(all(v <= -c * (1 - 1e-9) for c, v in zip(CURVATURES, found, strict=True))), numbers)


def _single(key, slopes, shared=False):
    """One set of data, and weights of which no neuron is dead."""
    keys = jax.random.split(key, 5)
    x = jax.random.uniform(keys[0], (5 if shared else WIDTHS[0], 6), minval=0.2, maxval=1.5)
    y = jax.random.uniform(keys[1], (6, 2), minval=0.5, maxval=8.0)
    shapes = SHARED if shared else DENSE
    weights = tuple(jax.random.uniform(k, s) for k, s in zip(keys[2:], shapes, strict=True))
    return Network(x, y, slopes, square, shared), weights


@claim(
    "D.prop6",
    source="Proposition 6",
    expected=Verdict.HOLDS,
    statement="Deep linear networks: the least eigenvalue is unbounded below.",
)
def linear_unbounded(key):
    """The points of the proof."""
    loss, _ = _single(key, LINEAR)
    gradient = -loss.targets.T @ loss.inputs.T / loss.inputs.shape[1]
    return construction_finding(loss, lambda c: hb.linear_concave_point(gradient, WIDTHS, c), exact=True)


@claim(
    "D.prop10",
    source="Proposition 10",
    expected=Verdict.HOLDS,
    statement="Homogeneous networks: the least eigenvalue is unbounded below.",
)
def homogeneous_unbounded(key):
    """The points of the proof, for a ReLU network."""
    loss, weights = _single(key, RELU)
    return construction_finding(
        loss, lambda c: hb.homogeneous_concave_point(square, weights, loss.inputs, loss.targets, c, RELU)
    )


@claim(
    "D.prop22",
    source="Proposition 22",
    expected=Verdict.HOLDS,
    statement="Shared weights: the least eigenvalue is unbounded below.",
)
def shared_unbounded(key):
    """The points of the proof, for a convolutional ReLU network."""
    loss, weights = _single(key, RELU, True)
    return construction_finding(
        loss, lambda c: hb.shared_concave_point(PATTERNS, square, weights, loss.inputs, loss.targets, c, RELU)
    )


def near_zero_finding(key, slopes, bound, shared=False, radius=0.15, starts=8):
    """Flow from near zero; the bound and the least eigenvalue along it."""
    loss, _ = _single(key, slopes, shared)
    shapes = SHARED if shared else DENSE
    points = tuple(
        jax.random.uniform(k, (starts, *s)) for k, s in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
    )
    times = jnp.linspace(0, 20.0, 41)

    @eqx.filter_jit
    def follow(theta):
        size = jnp.sqrt(sum_squares(theta))
        begin = jax.tree.map(lambda W: radius * W / size, theta)
        path = flow.gradient_flow(loss, begin, times[-1], save_at=times, rtol=1e-7, atol=1e-9).observed

        def at(theta):
            layers = loss.layers(theta)
            slope = hb.outputs(layers, loss.inputs, slopes) - loss.targets.T
            return loss(theta), _hessian(loss, theta), bound(loss, theta, slope, radius)

        return jax.vmap(at)(path)

    values, hessians, bounds = map(np.asarray, jax.vmap(follow)(points))
    least = np.linalg.eigvalsh(hessians)[..., 0]
    require(bool((values[:, -1] < 0.8 * values[:, 0]).all()), "the flow did not leave the saddle at the origin")
    negative = least < -1e-6
    numbers = {
        "flows": starts,
        "times on each": len(times),
        "violations": int((bounds > least + 1e-9).sum()),
        "least eigenvalue met": least.min(),
        "least eigenvalue at the end": least[:, -1].min(),
        "median of bound over eigenvalue where negative": float(np.median((bounds / least)[negative])),
    }
    return Finding(judge(numbers["violations"] == 0), numbers)


@claim(
    "D.prop8",
    source="Proposition 8",
    expected=Verdict.HOLDS,
    statement="On a linear network's flow from near zero (14) bounds from below.",
)
def linear_flow_is_roughly_convex(key):
    """Eight flows; the gradient of phi is that of the mean square loss."""
    return near_zero_finding(
        key,
        LINEAR,
        lambda loss, theta, slope, radius: hb.linear_bound_near_zero(
            theta, slope @ loss.inputs.T / loss.inputs.shape[1], radius
        ),
    )


@claim(
    "D.prop12",
    source="Proposition 12",
    expected=Verdict.HOLDS,
    statement="On a homogeneous network's flow from near zero (18) bounds it.",
)
def homogeneous_flow_is_roughly_convex(key):
    """Eight flows of a ReLU network."""
    return near_zero_finding(
        key,
        RELU,
        lambda loss, theta, slope, radius: hb.homogeneous_bound_near_zero(theta, slope, loss.inputs, radius, RELU),
    )


@claim(
    "D.prop24", source="Proposition 24", expected=Verdict.HOLDS, statement="With shared weights the same bound is (32)."
)
def shared_flow_is_roughly_convex(key):
    """Eight flows of a convolutional leaky network."""
    return near_zero_finding(
        key,
        LEAKY,
        lambda loss, theta, slope, radius: hb.shared_bound_near_zero(
            PATTERNS, theta, slope, loss.inputs, radius, LEAKY
        ),
        shared=True,
    )
