"""What of an ellipse or a hyperbola lies in a box, however small: from differences, never from large areas.

Corners are compared with the curve in rational numbers, so that a box whose sides are all but rounding of its place is
inside, outside or cut as it is, and what is cut off is measured in the box's own coordinates.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
from scipy.integrate import quad


def ellipse_area(k: float, target: float, axes: tuple[float, float], box) -> float:
    r"""Area of $x^2 + y^2 - k a x y + k a^2 - 4/k < 0$ in a box, a the target; semi-axes along (1, 1) and (-1, 1).

    On every side of the box the ellipse leaves an interval, by a quadratic equation. Their ends make a polygon, in the
    coordinates of the box; between one interval and the next the ellipse adds the segment over the chord.

    Examples
    --------
    >>> ellipse_area(2.0, 0.0, (2**0.5, 2**0.5), ((0, 3), (0, 3))) * 2 / math.pi  # a quarter of a disc
    1.0
    """
    reach = 2 * max(axes)
    (x0, x1), (y0, y1) = np.clip(np.asarray(box, float), -reach, reach)
    if x1 <= x0 or y1 <= y0:
        return 0.0
    width, height = x1 - x0, y1 - y0
    sides = [((0.0, 0.0), (1, 0), width), ((width, 0.0), (0, 1), height)]
    sides += [((width, height), (-1, 0), width), ((0.0, height), (0, -1), height)]
    places = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    inside = []
    for (corner, way, side), place in zip(sides, places, strict=True):
        interval = _inside(Fraction(k), Fraction(target), tuple(map(Fraction, place)), way, side)
        if interval is not None:
            inside.append([np.array([corner[i] + s * way[i] for i in (0, 1)]) for s in interval])
    if not inside:  # the ellipse lies in the box, with its centre, or they do not meet
        return math.pi * axes[0] * axes[1] if x0 < 0 < x1 and y0 < 0 < y1 else 0.0
    points = np.array([point for interval in inside for point in interval])
    edges = points - points[0]
    polygon = sum(a[0] * b[1] - a[1] * b[0] for a, b in itertools.pairwise(edges)) / 2
    following = [interval[0] for interval in inside[1:] + inside[:1]]
    segments = (
        _segment(leave, enter - leave, (x0, y0), axes)
        for (_, leave), enter in zip(inside, following, strict=True)
        if (enter != leave).any()
    )
    return float(polygon + sum(segments))


def _inside(k, target, place, way, side):
    """The interval of a side, by its distance from the corner it starts at, that is inside; None where there is none.

    With s the distance, the equation is s^2 + slope s + value = 0, its coefficients and discriminant exact.
    """
    (x, y), coupling = place, k * target
    value = x * x + y * y - coupling * x * y + k * target**2 - 4 / k
    slope = way[0] * (2 * x - coupling * y) + way[1] * (2 * y - coupling * x)
    discriminant = slope**2 - 4 * value
    if discriminant <= 0:
        return None
    far = -(float(slope) + math.copysign(math.sqrt(discriminant), slope)) / 2
    low, high = sorted((far, float(value) / far))
    low, high = max(low, 0.0), min(high, side)
    return (low, high) if low < high else None


def _segment(start, chord, corner, axes):
    """Area between a chord and the arc counter-clockwise over it, both mapped to the unit circle."""

    def mapped(x, y):
        return np.array([(x + y) / axes[0], (y - x) / axes[1]]) / math.sqrt(2)

    first, across = mapped(corner[0] + start[0], corner[1] + start[1]), mapped(*chord)
    turns_less = first[0] * across[1] - first[1] * across[0] >= 0  # than half a turn
    along = np.linalg.norm(2 * first + across)
    angle = 2 * math.atan2(np.linalg.norm(across), along if turns_less else -along)
    return axes[0] * axes[1] * _angle_less_sine(angle) / 2


def _angle_less_sine(angle: float) -> float:
    """Angle - sin(angle), by its series where the two cancel."""
    if angle > 0.5:
        return angle - math.sin(angle)
    term, total = angle**3 / 6, 0.0
    for n in range(4, 22, 2):
        total += term
        term *= -(angle**2) / (n * (n + 1))
    return total


def hyperbola_length(target: float, low: float, high: float, box) -> float:
    """Length of x y = target with low < |x| < high, inside a box.

    Examples
    --------
    >>> round(hyperbola_length(1.0, 0.0, math.inf, ((0.5, 2.0), (0.0, 9.0))), 6)
    2.264181
    """
    total = 0.0
    for sign in (1, -1):  # the third quadrant is the first one, mirrored with the box
        (x0, x1), (y0, y1) = np.sort(sign * np.asarray(box, float), axis=1).tolist()
        if x1 > 0 and y1 > 0:
            exact = Fraction(target)
            start = max(Fraction(low), Fraction(x0), exact / Fraction(y1))
            ends = [Fraction(end) for end in (high, x1) if math.isfinite(end)]
            stop = min([*ends, exact / Fraction(y0)] if y0 > 0 else ends)
            if start < stop:
                grows = stop / start - 1
                span = math.log1p(grows) if grows < 1 else _log(stop) - _log(start)
                total += arc_length(target, _log(start) - math.log(target) / 2, span)
    return total


def _log(x: Fraction) -> float:
    return math.log(x.numerator) - math.log(x.denominator)


def arc_length(target: float, start: float, span: float) -> float:
    """Length of x y = target for start < t < start + span, where x = sqrt(target) e^t tames both long ends.

    Examples
    --------
    >>> round(arc_length(1.0, 0.0, 1e-12) * 1e12, 9)
    1.414213562
    """
    ends = [0.0, -start, span] if 0 < -start < span else [0.0, span]
    return math.sqrt(target) * sum(
        quad(_arc_speed, *piece, args=(start,), epsabs=0, epsrel=1e-13)[0] for piece in itertools.pairwise(ends)
    )


def _arc_speed(t, start):
    far = abs(start + t)
    return math.exp(far) * math.sqrt(1 + math.exp(-4 * far))
