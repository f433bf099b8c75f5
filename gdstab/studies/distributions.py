"""Where the initial points of a basin measure come from, and what share of them theory says must converge."""

import math
from itertools import pairwise

import jax
import numpy as np
from scipy import integrate, stats

from gdstab import sampling
from gdstab._validate import check_box, check_positive
from gdstab.studies import options as opt
from gdstab.studies.critical import closed_form
from gdstab.studies.options import Basin
from gdstab.theory import scalar

BOXES = ("box", "sobol", "stratified")
"""The distributions that are uniform in a box."""


def build_source(options: Basin, dim: int, dtype):
    """The source of initial points, and the volume of the set they are uniform in (None if there is no such set).

    Raises
    ------
    ValueError
        If the distribution does not fit the loss, say a box of as many axes as there are no parameters.

    Examples
    --------
    >>> source, volume = build_source(Basin(samples=100, box=(-1.0, 1.0)), 3, np.float32)
    >>> source.num_points, volume
    (100, 8.0)
    """
    key, num = jax.random.key(options.seed), options.samples
    if options.distribution in BOXES:
        box = expand_box(options.box, dim)
        return _in_box(options, key, num, box, dtype), math.prod(high - low for low, high in box)
    if options.distribution == "ball":
        source = sampling.RandomSource.ball(key, num, dim, options.radius, dtype=dtype)
        return source, ball_volume(dim, options.radius)
    if options.distribution == "gaussian":
        return sampling.RandomSource.gaussian(key, num, dim, options.spread, dtype=dtype), None
    widths = layer_widths(options.loss)
    if options.distribution == "xavier":
        return sampling.RandomSource.xavier(key, num, widths, dtype=dtype), None
    return sampling.RandomSource.balanced(key, num, widths, options.spread, dtype=dtype), None


def _in_box(options: Basin, key, num: int, box, dtype):
    if options.distribution == "sobol":
        return sampling.SobolSource(num, box, replicates=options.replicates, seed=options.seed, dtype=dtype)
    if options.distribution == "stratified":
        return sampling.StratifiedSource(key, num, box, _per_axis(options.cells, len(box)), dtype=dtype)
    return sampling.RandomSource.box(key, num, box, dtype=dtype)


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


def layer_widths(loss: opt.Loss) -> tuple[int, ...]:
    """The widths, from input to output, of the linear network that a product is.

    >>> layer_widths(opt.Scalar(depth=3)), layer_widths(opt.Vector(dim=2)), layer_widths(opt.Linear(widths=(3, 1, 2)))
    ((1, 1, 1, 1), (1, 2, 1), (3, 1, 2))
    """
    if isinstance(loss, opt.Linear):
        return loss.widths
    if isinstance(loss, opt.Scalar):
        return (1,) * (loss.depth + 1)
    if isinstance(loss, opt.Vector):
        return 1, loss.dim, 1
    raise ValueError(
        f"layers are drawn for products of scalars, vectors and matrices, but the loss is {type(loss).__name__}: "
        "choose another --distribution"
    )


def ball_volume(dim: int, radius: float) -> float:
    """Volume of a ball.

    >>> round(ball_volume(3, 1.0), 6)
    4.18879
    """
    return math.exp(dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)) * check_positive(radius, "radius") ** dim


def exact_share(options: Basin, step_size: float) -> float | None:
    """The share of the initial points that converges to a minimum, where a closed form or one integral says it.

    That is for products of two scalars or vectors and targets a > 0: in boxes and balls that contain the basin, in any
    rectangle for two scalars, and for normal points.

    Examples
    --------
    >>> round(exact_share(Basin(), 0.3), 6), exact_share(Basin(), 0.6), exact_share(Basin(loss=opt.Rosenbrock()), 0.3)
    (0.312176, 0.0, None)
    """
    found = _two_factors(options.loss)
    if found is None or options.distribution in {"xavier", "balanced"}:
        return None
    dim, target, scale = found
    curvature = 2 * scale * step_size  # k
    if curvature * target > 1:
        return 0.0
    if options.distribution == "gaussian":
        return _gaussian_share(dim, curvature, target, options.spread)
    basin = scalar.ellipsoid_volume(dim, step_size, target, scale)
    if options.distribution == "ball":
        inside = 2 * (2 + curvature * target) / curvature <= options.radius**2
        return basin / ball_volume(2 * dim, options.radius) if inside else None
    box = expand_box(options.box, 2 * dim)
    whole = math.prod(high - low for low, high in box)
    if dim == 1:
        return scalar.basin_area(step_size, target, scale, box) / whole
    reach = 2 / math.sqrt(curvature)  # of the ellipsoid along every axis
    return basin / whole if all(low <= -reach and high >= reach for low, high in box) else None


def critical_step(loss: opt.Loss) -> float | None:
    """The step size above which no minimum is stable, for products of scalars, vectors and matrices; None elsewhere.

    >>> critical_step(opt.Vector(dim=3, target=2.0)), critical_step(opt.Rosenbrock())
    (0.5, None)
    """
    flattest = closed_form(loss) if isinstance(loss, opt.Scalar | opt.Vector | opt.Linear) else 0
    return 2 / flattest if flattest else None


def _gaussian_share(dim: int, curvature: float, target: float, spread: float) -> float:
    r"""$P(|p|^2/A^2 + |q|^2/B^2 < 1)$ with $p = (u + v)/\sqrt 2$ and $q = (u - v)/\sqrt 2$ normal in $\mathbb{R}^d$."""
    along, across = (math.sqrt(2 * (2 + sign * curvature * target) / curvature) / spread for sign in (1, -1))

    def density(size):
        return stats.chi.pdf(size, dim) * stats.chi2.cdf((1 - (size / along) ** 2) * across**2, dim)

    end = min(along, stats.chi.isf(1e-18, dim))
    ends = np.linspace(0, end, 5)
    return float(sum(integrate.quad(density, low, high, epsabs=1e-14, epsrel=1e-11)[0] for low, high in pairwise(ends)))


def _two_factors(loss: opt.Loss) -> tuple[int, float, float] | None:
    """Length of the factors, target and scale of c (a - u.v)^2 with a > 0; None for any other loss."""
    if isinstance(loss, opt.Vector) and loss.target > 0:
        return loss.dim, loss.target, loss.scale
    if isinstance(loss, opt.Scalar) and loss.depth == 2 and loss.target > 0:
        return 1, loss.target, loss.scale
    return None


def _per_axis(cells: tuple[int, ...], dim: int) -> tuple[int, ...]:
    if len(cells) not in {1, dim}:
        raise ValueError(f"--cells takes one number for all axes, or {dim} of them, but got {len(cells)}")
    return tuple((cells * dim)[:dim])
