"""All critical points in a box, against roots of polynomials and against what is known of test functions."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from gdstab import basins, figures, losses
from gdstab.basins import CriticalKind, critical_points


def camel(t):
    """The six-hump camel."""
    return (4 - 2.1 * t[0] ** 2 + t[0] ** 4 / 3) * t[0] ** 2 + t[0] * t[1] + (-4 + 4 * t[1] ** 2) * t[1] ** 2


def camels_roots():
    """Real roots of the gradient: $y$ from the first equation, which is a polynomial in $x$, put into the second."""
    x = np.polynomial.Polynomial([0, 1])
    y = -(8 * x - 8.4 * x**3 + 2 * x**5)
    roots = (x - 8 * y + 16 * y**3).roots()
    real = roots[np.abs(roots.imag) < 1e-7].real
    pairs = [(a, float(y(a))) for a in real if abs(a) <= 3 and abs(y(a)) <= 2]
    for _ in range(5):  # Newton's method, on the two equations as they stand
        pairs = [newton(*pair) for pair in pairs]
    return np.array(pairs)


def newton(x, y):
    slope = [8 * x - 8.4 * x**3 + 2 * x**5 + y, x - 8 * y + 16 * y**3]
    return np.array([x, y]) - np.linalg.solve([[8 - 25.2 * x**2 + 10 * x**4, 1], [1, 48 * y**2 - 8]], slope)


@pytest.fixture(scope="module")
def humps():
    return critical_points(camel, ((-3, 3), (-2, 2)), starts=512)


def test_all_fifteen_of_the_six_hump_camel(humps):
    exact = camels_roots()
    assert len(exact) == humps.num == 15
    gaps = np.abs(humps.point[:, None] - exact[None]).max(axis=2)
    assert gaps.min(axis=1).max() < 1e-12
    assert len(set(gaps.argmin(axis=1))) == 15
    assert np.bincount(humps.kind, minlength=4).tolist() == [6, 7, 2, 0]
    assert humps.negative.tolist() == [{0: 0, 1: 1, 2: 2}[kind] for kind in humps.kind]
    assert (np.diff(humps.loss) > -1e-9).all()
    assert humps.hits.sum() == 512
    assert humps.unseen == 0


def test_rows_table_and_dataset_say_the_same(humps):
    data = humps.to_xarray()
    assert dict(data.sizes) == {"critical_point": 15, "coordinate": 2, "eigenvalue": 2}
    rows = humps.rows()
    assert [row["kind"] for row in rows] == [CriticalKind(kind).name.lower() for kind in data["kind"].values]
    assert len(data["loss"].to_dataframe()) == 15
    lines = humps.table().splitlines()
    assert len(lines) == 17
    assert lines[-2].startswith("maximum          2.4962954")


def test_they_are_drawn_by_kind(humps):
    figure = figures.draw_critical_points(humps, camel, ((-3, 3), (-2, 2)))
    (axes,) = figure.axes
    shown = sum(len(path.get_offsets()) for path in axes.collections if len(np.atleast_2d(path.get_offsets())) > 1)
    assert shown == 15
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["6 minima", "7 saddles", "2 maxima"]
    other = Figure().add_subplot()
    assert figures.draw_critical_points(humps, camel, ((-3, 3), (-2, 2)), ax=other, title="humps") is other.figure
    assert other.get_title() == "humps"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_known_of_test_functions(dtype):
    found = critical_points(losses.Himmelblau(), ((-5, 5), (-5, 5)), starts=512, dtype=dtype)
    assert np.bincount(found.kind, minlength=4).tolist() == [4, 4, 1, 0]
    assert found.point.dtype == dtype
    known = np.sort(losses.Himmelblau().minima(), axis=0)
    np.testing.assert_allclose(np.sort(found.point[:4], axis=0), known, atol=100 * np.finfo(dtype).eps ** 0.75)


def test_sets_and_singular_points_are_one_row_each():
    hat = critical_points(lambda t: (jnp.sum(t**2) - 1) ** 2, ((-2, 2), (-2, 2)), starts=256)
    assert [CriticalKind(kind).name for kind in hat.kind] == ["MINIMUM", "MAXIMUM"]
    assert hat.extent[0] == pytest.approx(2, rel=0.02)  # a circle
    assert hat.extent[1] == 0
    assert "*" in hat.table()
    flat = critical_points(lambda t: t[0] ** 2 - t[1] ** 4, ((-1, 1), (-1, 1)), starts=64)
    assert [CriticalKind(kind).name for kind in flat.kind] == ["DEGENERATE"]


@pytest.mark.parametrize(("height", "width", "dtype"), [(1e-12, 1e3, "float32"), (1e20, 1e-8, "float64")])
@pytest.mark.slow
def test_units_of_the_loss_and_of_the_parameters_do_not_matter(height, width, dtype):
    box = ((-3 * width, 3 * width), (-2 * width, 2 * width))
    found = critical_points(lambda t: height * camel(t / width), box, starts=256, dtype=dtype)
    assert np.bincount(found.kind, minlength=4).tolist() == [6, 7, 2, 0]
    assert found.lost == 0


@pytest.mark.slow
def test_saddles_of_rosenbrocks_valley_in_four_dimensions():
    """Shang and Qiu 2006: the global minimum, one local minimum near (-1, 1, 1, 1), and a saddle between them."""
    found = critical_points(losses.Rosenbrock(), ((-2, 2),) * 4, starts=1024)
    assert found.kind.tolist() == [CriticalKind.MINIMUM, CriticalKind.MINIMUM, CriticalKind.SADDLE]
    assert found.loss[1] == pytest.approx(3.70142, abs=1e-5)


def test_pytrees_and_what_lies_outside():
    found = critical_points(
        lambda t: (t["a"] ** 2 - 1) ** 2 + t["b"] ** 2, (-0.5, 1.5), starts=64, like={"a": 0.0, "b": 0.0}
    )
    np.testing.assert_allclose(found.point, [[1, 0], [0, 0]], atol=1e-12)
    assert found.outside > 0
    assert found.starts == 64 == found.hits.sum() + found.outside + found.lost


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"expected at most 200 parameters, got 201.*hold the others by"):
        critical_points(lambda t: jnp.sum(t**2), ((-1, 1),) * 201)
    with pytest.raises(ValueError, match="the loss reads entry 5 of an array of shape"):
        critical_points(lambda t: t[5], ((-1, 1),))
    with pytest.raises(ValueError, match="expected critical points in the plane, got 1 parameters"):
        figures.draw_critical_points(basins.critical_points(losses.DoubleWell(), ((-2, 2),), starts=64))
