"""Results as datasets and frames: where they come from, one row a lane, and what a store gives back."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import gdstab as gd
from gdstab._results import words

DESCENT = gd.gradient_descent()
STOP = gd.StoppingRule(loss_tol=1e-8, max_steps=200)
BOX = ((-2.0, 2.0), (-2.0, 2.0))
LOSS = gd.losses.ScalarProduct(scale=1.0)


def tree_loss(t):
    return (1 - t["a"] * t["b/c"][0]) ** 2


MAKE = {
    "run": lambda: gd.run(
        DESCENT, tree_loss, {"a": np.array([0.5, 1.0, 3.0]), "b/c": np.ones((3, 1))}, [0.1, 0.2], STOP
    ),
    "heatmap": lambda: gd.basins.heatmap(DESCENT, LOSS, 0.3, box=BOX, resolution=(6, 4), stopping=STOP),
    "labelled": lambda: gd.basins.heatmap(
        DESCENT, LOSS, 0.3, box=BOX, resolution=(6, 4), stopping=STOP, label=gd.basins.Found(0.5)
    ),
    "measure": lambda: gd.basins.measure(
        DESCENT, LOSS, [0.1, 0.3], gd.sampling.RandomSource.box(jax.random.key(0), 64, BOX), stopping=STOP
    ),
    "adaptive": lambda: gd.boundaries.adaptive_heatmap(
        DESCENT, LOSS, 0.3, box=BOX, resolution=16, coarse=4, stopping=STOP
    ),
}
ROWS = {"run": 6, "heatmap": 24, "labelled": 24, "measure": 2, "adaptive": 256}


@pytest.fixture(scope="module")
def results():
    return {name: make() for name, make in MAKE.items()}


@pytest.mark.parametrize("name", MAKE)
def test_a_result_says_where_it_comes_from(results, name):
    attrs = results[name].to_xarray().attrs
    assert attrs["rule"] == "gradient_descent()"
    assert attrs["loss"] == ("tree_loss" if name == "run" else "ScalarProduct(depth=2, target=1.0, scale=1.0)")
    assert "loss_tol=1e-08" in attrs["stopping"]
    assert attrs["dtype"] == "float64"
    assert attrs["jax_version"] == jax.__version__
    assert {f"{one}_version" for one in ("optax", "equinox", "diffrax", "numpy", "gdstab")} <= set(attrs)
    if name == "measure":
        assert attrs["source"].startswith("RandomSource(key=")


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("store", ["netcdf", "zarr"])
def test_stores_give_back_what_was_written(results, name, store, tmp_path):
    dataset = results[name].to_xarray()
    if store == "zarr":
        dataset.to_zarr(tmp_path / "result.zarr", consolidated=False)
        found = xr.open_zarr(tmp_path / "result.zarr", consolidated=False).load()
    else:
        found = xr.load_dataset(io.BytesIO(bytes(dataset.to_netcdf())))
    assert set(found.data_vars) == set(dataset.data_vars)
    for variable in dataset.data_vars:
        np.testing.assert_array_equal(found[variable].values, dataset[variable].values)
        assert found[variable].dims == dataset[variable].dims
    assert found.attrs["rule"] == dataset.attrs["rule"]


@pytest.mark.parametrize("name", MAKE)
def test_a_frame_has_one_row_a_lane(results, name):
    result = results[name]
    table = result.to_dataframe()
    assert len(table) == ROWS[name]
    if name == "run":
        assert [column for column in table if column.startswith("theta")] == ["theta['a']", "theta['b%2Fc'][0]"]
        np.testing.assert_array_equal(table["theta['a']"], result.theta["a"].ravel())
        np.testing.assert_array_equal(table["step_size"], np.repeat([0.1, 0.2], 3))
    elif name == "measure":
        np.testing.assert_array_equal(table["counts[converged]"], result.counts[:, gd.Outcome.CONVERGED])
        np.testing.assert_array_equal(table["share"], result.share().value)
    else:
        np.testing.assert_array_equal(table["outcome"], result.outcome.ravel())
        np.testing.assert_array_equal(table["x1"], np.tile(result.centres[1], len(result.centres[0])))


def test_rules_and_losses_in_words():
    assert words(gd.from_optax(optax.adam)) == "from_optax(adam)"
    assert words(gd.updates.named("heavy-ball", beta=0.8)).startswith("from_optax(named.lambda(name='heavy-ball'")
    assert "beta=0.8" in words(gd.updates.named("heavy-ball", beta=0.8))
    assert words(lambda theta: theta) == "test_rules_and_losses_in_words.lambda"
    big = gd.losses.Quadratic(jnp.eye(300))
    assert words(big) == "Quadratic(matrix=float64[300, 300], center=None)"
    assert len(words("x" * 10_000)) == 400
