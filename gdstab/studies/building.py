"""From options to the things themselves: the loss and its number of parameters, the stopping rule, the plane."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, losses, minima, sampling, theory, updates
from gdstab._numerics import check_precision, tolerance
from gdstab._types import LossFn
from gdstab._validate import check_box, check_count, check_loss
from gdstab.losses.pullback import Identity, Pullback, Unravel
from gdstab.minima.manifold import flat_residual, jacobian, residual_size
from gdstab.outcomes import StoppingRule, check_range, resolution
from gdstab.studies import options as opt
from gdstab.studies import training, user_files


def build_loss(loss: opt.Loss) -> tuple[LossFn, int]:
    """The loss as a function of one vector, and the length of that vector.

    >>> build_loss(opt.Vector(dim=3))[1]
    6
    """
    if hasattr(loss, "python"):
        return getattr(losses, loss.python)(**dataclasses.asdict(loss)), loss.parameters
    if type(loss) not in _BUILDERS:
        raise ValueError(f"expected the options of a loss, such as options.Scalar(), but got {loss!r}")
    return _BUILDERS[type(loss)](loss)


def problem(options) -> tuple[LossFn, int, np.dtype]:
    """The loss, its number of parameters and their dtype, checked as every study does.

    Refused are 64 bits where JAX has none, what is no loss, and tolerances that 32 bits cannot meet.
    """
    dtype = check_precision(options.precision)
    loss, dim = build_loss(options.loss)
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    if hasattr(options, "loss_tol"):
        check_tolerances(options, loss, dim)
    return loss, dim, dtype


def under_descent(options: Any, loss: LossFn) -> theory.Product | None:
    """The numbers of the loss where it is such a product, and the rule is descent without weight decay."""
    return theory.known(loss).hyperbola if options.rule == "descent" and not options.weight_decay else None


GRADIENT_32 = 1e-7
"""What rounding leaves of a gradient in 32 bits, at the least."""


def build_stopping(options) -> StoppingRule:
    """The rule that ends every orbit."""
    names = ("loss_tol", "grad_tol", "escape_radius", "max_steps", "max_period")
    stopping = StoppingRule(**{name: getattr(options, name) for name in names})
    check_range(stopping, f"float{options.precision}")
    return stopping


def check_tolerances(options, loss: LossFn | None = None, dim: int = 0) -> None:
    r"""Refuse tolerances that rounding in 32 bits keeps every orbit from meeting.

    Of the loss rounding leaves half the distance of numbers at its floor, and $\epsilon^2$ times its size at 0, for it
    is taken to be a sum of squares. Without a loss only that of the gradient counts.
    """
    if options.precision != 32 or (options.grad_tol or 0) >= GRADIENT_32:
        return
    loss_tol = None if loss is None else options.loss_tol
    finest = 0.0
    if loss_tol is not None:
        eps, size = float(np.finfo(np.float32).eps), abs(float(loss(jnp.zeros(dim, np.float32))))
        finest = max(resolution(float(getattr(loss, "loss_floor", 0.0)), np.float32), eps**2 * size)
        if loss_tol >= finest:
            return
    leaves, asked = [f"gradients of about {GRADIENT_32:g}"], [f"--grad-tol {options.grad_tol}"]
    if loss_tol is not None:
        asked.append(f"--loss-tol {loss_tol}")
        leaves.append(f"of this loss about {finest:.1g}")
    raise ValueError(
        f"{' and '.join(asked)} cannot be met in 32 bits, where rounding leaves {' and '.join(leaves)}, or more; pass "
        "--grad-tol 1e-5, or --precision 64"
    )


def build_rule(options: opt.Update) -> updates.UpdateRule:
    """The update rule that `--rule` and its numbers name; the same object for the same numbers.

    >>> build_rule(opt.Update("heavy-ball", beta=0.5)) is build_rule(opt.Update("heavy-ball", beta=0.5))
    True
    """
    return updates.named(options.rule, **rule_numbers(options))


def rule_numbers(options: opt.Update) -> dict[str, float]:
    """What `updates.named` takes beside the name."""
    return {name: getattr(options, name) for name in ("beta", "beta2", "eps", "weight_decay")}


def build_plane(plane: tuple[float, ...], dim: int):
    """Two indices, or a point and two directions, from the numbers of `--plane`; None for the first two parameters."""
    if not plane:
        return None
    if len(plane) == 2:
        if any(number != int(number) for number in plane):
            raise ValueError(f"--plane with two numbers takes two indices of parameters, but got {plane}")
        return tuple(int(number) for number in plane)
    if len(plane) != 3 * dim:
        raise ValueError(
            f"--plane takes two indices, or a point and two directions of {dim} numbers each ({3 * dim} in all), "
            f"but got {len(plane)} numbers"
        )
    return tuple(np.reshape(plane, (3, dim)))


def expand_box(numbers: tuple[float, ...], dim: int) -> tuple[tuple[float, float], ...]:
    """A pair for every parameter, from one pair for all or from one after the other.

    >>> expand_box((-1.0, 1.0), 2), expand_box((-1.0, 1.0, 0.0, 2.0), 2)
    (((-1.0, 1.0), (-1.0, 1.0)), ((-1.0, 1.0), (0.0, 2.0)))
    """
    if len(numbers) not in {2, 2 * dim}:
        raise ValueError(
            f"--box takes a low and a high end for all parameters, or for each of them: 2 or {2 * dim} numbers, but "
            f"got {len(numbers)}"
        )
    box = (numbers * dim)[: 2 * dim]
    return tuple((float(low), float(high)) for low, high in check_box(list(zip(box[::2], box[1::2], strict=True)), dim))


def given_points(options, dim: int, dtype) -> np.ndarray:
    """The points of `--start`, `[points, dim]`; none where none are given."""
    if len(options.start) % dim:
        raise ValueError(f"--start takes {dim} numbers for each point, but got {len(options.start)}; give whole points")
    return np.asarray(options.start, dtype).reshape(-1, dim)


def one_start(options, dim: int, dtype) -> np.ndarray:
    """The point of `--start`, or a normal one of standard deviation `--spread`, `[dim]`."""
    if not options.start:
        key = jax.random.key(options.seed)
        return np.asarray(sampling.gaussian(key, 1, dim, options.spread, dtype=dtype))[0]
    if len(options.start) != dim:
        raise ValueError(f"--start takes the {dim} parameters of the loss, but got {len(options.start)} numbers")
    return np.asarray(options.start, dtype)


def configuration(options) -> dict:
    """As `options.configuration`; a user's own loss is known by its text and that of what lies beside it."""
    found = opt.configuration(options)
    if isinstance(getattr(options, "loss", None), opt.Custom):
        found["loss"]["sha256"] = user_files.digest(options.loss.path)
    return found


def _custom(options: opt.Custom) -> Pullback:
    """A user's loss, looked at where numbers of parameters that are wrong, and a floor that is none, show."""
    loss = user_files.load_function(options.path)
    dim = check_count(options.dim, "--loss.dim")
    points = np.random.default_rng(0).normal(size=(64, dim))
    try:
        jax.eval_shape(loss, jax.ShapeDtypeStruct((dim,), jnp.result_type(float)))
        values = _values(loss, points)
    except IndexError as error:
        raise ValueError(
            f"{options.path} takes another number of parameters than --loss.dim {dim} gives: "
            f"{user_files.complaint(error)}; set --loss.dim"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{options.path} does not take a vector of {dim} parameters (--loss.dim): {user_files.complaint(error)}; "
            "write it in jax.numpy for one vector theta[0], theta[1], ..."
        ) from error
    lowest = np.nanmin(values, initial=np.inf) if values.dtype.kind == "f" and values.ndim == 1 else np.inf
    sizes = np.abs(values[np.isfinite(values) & (values != 0)]) if np.isfinite(lowest) else np.zeros(0)
    large = float(np.quantile(sizes, 0.9)) if sizes.size else 0.0
    if lowest < options.floor - 1e-6 * max(large, abs(options.floor)):  # by more than rounding in single precision
        raise ValueError(
            f"{options.path} takes the value {lowest:.6g}, below its floor {options.floor:g}, where all that is near "
            "counts as converged; set --loss.floor to its infimum, or to -1e300 if it has none"
        )
    return Pullback(loss, Identity(), options.floor)


def _values(loss: Callable, points: np.ndarray) -> np.ndarray:
    """At points of NumPy, which unlike JAX refuses an index that is out of range; none where it takes only JAX's."""
    try:
        return np.array([np.asarray(loss(point)) for point in points])
    except IndexError:
        raise
    except Exception:
        return np.zeros(0)


def _linear_network(options: opt.Linear) -> tuple[LossFn, int]:
    """Inputs are the unit vectors, so that X X^T = I; the teacher has normal entries of variance 1 / d_in."""
    widths = options.widths
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"--loss.widths takes at least two positive widths, from inputs to outputs, but got {widths}")
    dtype = jnp.result_type(float)
    network = losses.LinearNetwork(jnp.eye(widths[0], dtype=dtype), jnp.asarray(teacher(options), dtype), options.scale)
    layers = Unravel.of(zip(widths[1:], widths[:-1], strict=True))
    floor = float(network.floor(tuple(jnp.zeros(shape, dtype) for shape in layers.shapes)))
    return Pullback(network, layers, floor), layers.size


def teacher(options: opt.Linear) -> np.ndarray:
    """The matrix that a linear network is to learn, [d_out, d_in]."""
    widths = options.widths
    return np.random.default_rng(options.seed).standard_normal((widths[-1], widths[0])) / math.sqrt(widths[0])


def _factorisation(options: opt.Factorisation) -> tuple[LossFn, int]:
    target = jnp.diag(jnp.asarray(options.diagonal, jnp.result_type(float)))
    loss = losses.MatrixFactorisation(target, options.rank, options.symmetric, options.scale, options.norm)
    return loss, loss.dim


def _recovery(options: opt.Recovery) -> tuple[LossFn, int]:
    """Normal measurements of variance 1 / num, and a truth with normal entries."""
    rows, columns = options.shape
    if min(rows, columns, options.num) < 1 or options.rank < 0:
        raise ValueError(f"expected a shape and --loss.num of at least 1, and a rank of at least 0, but got {options}")
    rank = options.rank or None
    dim = rows * columns if rank is None else rank * (columns + (0 if options.symmetric else rows))
    rng = np.random.default_rng(options.seed)
    truth = rng.standard_normal(dim)
    data = rng.standard_normal((options.num, rows, columns)) / math.sqrt(options.num)
    asked = {"rank": rank, "symmetric": options.symmetric, "scale": options.scale, "norm": options.norm}
    return losses.MatrixRecovery.planted(data, truth, **asked), dim


def _quadratic_network(kind, features: int, neurons: int, options: opt.Phase | opt.Quadnet) -> tuple[LossFn, int]:
    """Normal inputs, or the expectation over them; the truth is uniform on the unit sphere."""
    if min(features, neurons) < 1 or options.num < 0:
        raise ValueError(f"expected sizes of at least 1, and --loss.num of at least 0, but got {options}")
    if not options.num and options.norm == "l1":
        raise ValueError("the expected loss is known for --loss.norm l2, but got l1: give a number by --loss.num")
    rng = np.random.default_rng(options.seed)
    truth = rng.standard_normal(neurons * features)
    truth = truth / np.linalg.norm(truth)
    if not options.num:
        return kind.population(truth, neurons=neurons, scale=options.scale), truth.size
    inputs = rng.standard_normal((options.num, features))
    scale = options.scale / options.num
    return kind.planted(inputs, truth, neurons=neurons, scale=scale, norm=options.norm), truth.size


def sample_minima(options: opt.Loss, num: int, spread: float, seed: int, dtype) -> np.ndarray:
    """Random global minima `[num, dim]`: exact factorisations of a teacher, else projections of normal points.

    Raises
    ------
    ValueError
        If the loss does not say `residual(theta)`, or a projection does not reach the minima.
    """
    key = jax.random.key(seed)
    loss, dim = build_loss(options)
    inside = getattr(loss, "loss", None)
    if isinstance(inside, losses.LinearNetwork):
        target, widths = jnp.asarray(inside.targets, dtype), theory.known(loss).widths

        def draw(number):
            layers = theory.factorisations.random_factorisation(jax.random.fold_in(key, number), target, widths, spread)
            return jnp.concatenate([layer.ravel() for layer in layers])

        return np.asarray(ensembles.map_points(draw, np.arange(num, dtype=np.uint32)))
    found = minima.sample(loss, key, num, jnp.zeros(dim, dtype), spread=spread, map=ensembles.map_points)
    r = flat_residual(loss, jnp.zeros(dim, dtype), None)[0]
    sizes = ensembles.map_points(lambda x: residual_size(r, x, jacobian(r, x)), found.theta)
    missed = ~(np.asarray(found.residual_norm) <= tolerance(dtype) * np.asarray(sizes))
    if missed.any():
        raise ValueError(f"{int(missed.sum())} of {num} points could not be moved to the minima: try another --spread")
    return np.asarray(found.theta)


_BUILDERS = {
    opt.Linear: _linear_network,
    opt.Factorisation: _factorisation,
    opt.Recovery: _recovery,
    opt.Phase: lambda o: _quadratic_network(losses.PhaseRetrieval, o.dim, 1, o),
    opt.Quadnet: lambda o: _quadratic_network(losses.QuadraticNetwork, o.features, o.neurons, o),
    opt.Quadratic: lambda o: (losses.Quadratic(jnp.diag(jnp.asarray(o.curvatures, float))), len(o.curvatures)),
    opt.Network: training.build_network,
    opt.Custom: lambda o: (_custom(o), o.dim),
}
