"""Studies end to end at small sizes; their options agree with the interface; the check against the exact basin."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

from gdstab import basins, losses, records
from gdstab.losses.pullback import Identity, Pullback, Unravel
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.studies import building, heatmap, options, orbit
from gdstab.studies.heatmap import show
from gdstab.studies.heatmap import study as study_of_heatmaps
from gdstab.studies.orbit.study import CLOSE, WIDE
from gdstab.theory import scalar


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "heatmap"
    return heatmap.run(options.Heatmap(resolution=(200, 200), out=out))


def cells(study):
    """The cells of a run, from its dataset."""
    return basins.Heatmap.from_xarray(study.record.dataset, box=options.Heatmap().box, plane=None, dim=2)


def test_golden_heatmap_agrees_with_the_exact_basin(study):
    summary = study.record.summary
    theory = summary["theory"]
    assert theory["contradictions_beyond_one_diagonal"] == 0
    assert theory["exact_share"] == pytest.approx(0.3121758737)
    assert abs(summary["fractions"]["converged"] - theory["exact_share"]) < 0.001
    assert summary["counts"]["undecided"] == 0
    assert summary["kinds"] == {"minimum": 12416, "strict_saddle": 76, "degenerate": 0}
    assert summary["provenance"]["dtype"] == "float64"


def test_the_directory_holds_everything(study):
    names = {path.name for path in study.record.path.iterdir()}
    assert names == {"run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf"}
    dataset = records.load(study.record.path).dataset
    counts = {verdict.name.lower(): int((dataset["outcome"] == verdict).sum()) for verdict in Outcome}
    assert counts == study.record.summary["counts"]
    assert int(dataset["steps"].sum()) == study.record.summary["lane_steps"]
    assert dataset.attrs["provenance"]["gdstab"]


def test_a_complete_run_is_read_back(study):
    again = heatmap.run(options.Heatmap(resolution=(200, 200), out=study.record.path))
    assert (study.fresh, again.fresh) == (True, False)
    assert again.record.summary == study.record.summary
    with pytest.raises(records.RunError, match="differs in step_size"):
        heatmap.run(options.Heatmap(resolution=(200, 200), step_size=0.2, out=study.record.path))


@pytest.mark.usefixtures("unrendered")
def test_an_interrupted_heatmap_goes_on(tmp_path, monkeypatch, study):
    asked = options.Heatmap(resolution=(200, 200), out=tmp_path / "run")

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(basins, "refine", fail)
        with pytest.raises(KeyboardInterrupt):
            heatmap.run(asked)
    before = records.load(asked.out).seconds_before()
    seen = []
    resumed = heatmap.run(dataclasses.replace(asked, resume=True), progress=lambda *_: seen.append(1))
    assert not seen  # every patch was on disk
    assert resumed.record.summary["run_seconds"] >= before > 0  # what the patches took counts
    assert resumed.record.summary["counts"] == study.record.summary["counts"]
    assert resumed.record.summary["lane_steps"] == study.record.summary["lane_steps"]
    np.testing.assert_array_equal(resumed.record.dataset["steps"], study.record.dataset["steps"])


@pytest.mark.usefixtures("unrendered")
def test_above_the_critical_step_nothing_converges_to_a_minimum(tmp_path):
    summary = heatmap.run(
        options.Heatmap(step_size=0.6, resolution=(96, 96), max_steps=3000, out=tmp_path / "run")
    ).record.summary
    assert summary["kinds"]["minimum"] == 0
    bounded = summary["fractions"]["cycling"] + summary["fractions"]["undecided"] + summary["fractions"]["converged"]
    assert bounded == pytest.approx(summary["theory"]["trapped_area"] / 64, abs=0.01)
    assert summary["theory"]["exact_area"] == 0
    assert summary["theory"]["contradictions_beyond_one_diagonal"] == 0


OTHERS = (
    options.Vector(), options.Linear(), options.Quadratic(), options.Rosenbrock(), options.Himmelblau(),
    options.Doublewell(), options.Scalar(depth=3),
)  # fmt: skip
FEW = {options.Quadratic()}


def test_no_basin_but_that_of_two_factors_is_known():
    for kind in OTHERS:
        assert study_of_heatmaps.hyperbola_in(options.Heatmap(loss=kind), building.build_loss(kind)[0]) is None
    assert study_of_heatmaps.hyperbola_in(options.Heatmap(), building.build_loss(options.Scalar())[0])


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    "loss", [kind if kind in FEW else pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS]
)
def test_every_loss_has_a_heatmap_and_theory_is_null_where_unknown(loss, tmp_path):
    asked = options.Heatmap(loss=loss, step_size=0.001, resolution=(4, 4), max_steps=20, out=tmp_path / "run")
    assert set(heatmap.run(asked).record.summary["theory"].values()) == {None}


def test_a_wrong_verdict_is_found_and_its_distance(study):
    found = cells(study)
    outcome = found.outcome.copy()
    outcome[100, 100] = Outcome.DIVERGED  # deep inside
    outcome[0, 0] = Outcome.CONVERGED  # far outside
    row = np.flatnonzero(outcome[:, 100] == Outcome.CONVERGED)[0]
    outcome[row, 100] = Outcome.DIVERGED  # at the edge
    wrong = dataclasses.replace(found, outcome=outcome)
    none = np.zeros(0, np.int64)
    kinds = basins.Kinds({}, none, none.astype(np.int8), np.zeros((0, 3), np.int32))
    found = study_of_heatmaps.compare(wrong, kinds, 1.0, 1.0)
    assert (found["contradictions"], found["contradictions_beyond_one_diagonal"]) == (3, 2)


def test_distance_to_the_ellipse_against_a_dense_curve(rng):
    angle = np.linspace(0, 2 * np.pi, 200_001)
    for along, across in ((3.0, 1.0), (2.0, 2.0), (5.0, 0.1)):
        curve = np.stack([along * np.cos(angle), across * np.sin(angle)], axis=1)
        points = np.concatenate([rng.uniform(-6, 6, (20, 2)), [[0, 0], [1e-9, 0], [0, 0.05], [along, 0], [4.9, 0]]])
        dense = [np.linalg.norm(curve - point, axis=1).min() for point in points]
        np.testing.assert_allclose(study_of_heatmaps.distance_to_ellipse(points, along, across), dense, atol=1e-4)


def test_overlay_lies_on_the_minima():
    loss, dim = building.build_loss(options.Scalar())
    overlay = show.overlay(options.Heatmap(), loss, dim)
    bound = scalar.stable_minima(0.3, 1.0, 1.0).bound
    for line in (*overlay.minima, *overlay.stable):
        np.testing.assert_allclose(line.prod(axis=1), 1)
    assert max((line**2).sum(axis=1).max() for line in overlay.stable) == pytest.approx(bound)
    assert len(overlay.ellipse) == 1
    assert not show.overlay(options.Heatmap(ellipse=False), loss, dim).ellipse
    assert not show.overlay(options.Heatmap(step_size=0.6), loss, dim).stable


@pytest.mark.slow
def test_orbits_of_figure_2(tmp_path):
    study = orbit.run(options.Orbit(out=tmp_path / "orbit", num_steps=10))
    rows = study.record.summary["orbits"]
    below, above = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert {row["outcome"] for row in below} == {"converged"}
    assert {(row["outcome"], row["period"]) for row in above} == {("cycling", 2)}
    for row in below:
        assert np.prod(row["end"]) == pytest.approx(1, abs=1e-5)
        assert np.square(row["end"]).sum() < 2 / 0.4
    path = study.record.dataset["theta"].values
    assert path.shape == (2, 6, 11, 2)
    residual = 1 - path[..., :1, :].prod(axis=-1, keepdims=True)
    step = np.array([0.4, 1.1])[:, None, None, None] * residual * path[..., :1, ::-1]
    np.testing.assert_allclose(path[..., 1:2, :], path[..., :1, :] + step, rtol=1e-12)
    assert not orbit.run(options.Orbit(out=tmp_path / "orbit", num_steps=10)).fresh


@pytest.mark.slow
def test_one_orbit_of_many_parameters(tmp_path):
    asked = options.Orbit(
        step_sizes=(0.1,), boxes=(((-1.0, 1.0), (-1.0, 1.0)),), start=(1.0, 0.5, 0.2), loss=options.Scalar(depth=3),
        num_steps=3, out=tmp_path / "orbit",
    )  # fmt: skip
    assert orbit.run(asked).record.dataset["theta"].shape == (1, 1, 4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": (1.0, 2.0, 3.0)}, "takes 2 numbers for each point"),
        ({"step_sizes": (0.1, 0.2, 0.3), "boxes": (WIDE, CLOSE)}, "--boxes takes one box for all"),
        ({"loss": options.Scalar(depth=3)}, "--start"),
        ({"num_steps": -1}, "--num-steps"),
    ],
)
def test_bad_orbits_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        orbit.run(options.Orbit(out=tmp_path / "orbit", **change))
    assert not (tmp_path / "orbit").exists()


def defaults(callable_):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(callable_).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def test_options_have_the_names_and_defaults_of_the_interface():
    for ours, theirs in ((options.Scalar, losses.ScalarProduct), (options.Vector, losses.VectorProduct)):
        assert set(defaults(ours)) == set(inspect.signature(theirs).parameters)
        assert (defaults(theirs) | {"scale": defaults(ours)["scale"]}).items() <= defaults(ours).items()
    assert options.Scalar().scale == 1.0  # all commands draw (1 - xy)^2; in Python every loss has the factor 1/2
    assert options.Vector().scale == defaults(losses.ScalarProduct)["scale"] == defaults(losses.VectorProduct)["scale"]
    assert options.Linear().scale == defaults(losses.LinearNetwork)["scale"]
    assert set(defaults(options.Relu)) == set(inspect.signature(losses.ShallowReLU).parameters)
    assert defaults(losses.ShallowReLU).items() <= defaults(options.Relu).items()
    for ours, theirs, renamed in (
        (options.Factorisation, losses.MatrixFactorisation, {"diagonal"}),
        (options.Recovery, losses.MatrixRecovery, {"shape", "num", "seed"}),
        (options.Phase, losses.PhaseRetrieval, {"dim", "num", "seed"}),
        (options.Quadnet, losses.QuadraticNetwork, {"features", "num", "seed"}),
    ):
        names = set(defaults(ours))
        assert names - renamed <= set(inspect.signature(theirs).parameters)
        shared = {"symmetric", "scale", "norm"} & names
        assert {name: defaults(ours)[name] for name in shared} == {name: defaults(theirs)[name] for name in shared}
    stopping = defaults(StoppingRule)
    for study in (options.Heatmap, options.Orbit):
        names = {field.name for field in dataclasses.fields(study)}
        assert set(stopping) - names == {"cycle_tol", "until"}
        for name in ("loss_tol", "escape_radius"):
            assert defaults(study)[name] == stopping[name]
    names = {"step_size", "box", "resolution", "plane"}
    assert names <= set(inspect.signature(basins.heatmap).parameters)
    assert names <= {field.name for field in dataclasses.fields(options.Heatmap)}


def test_every_loss_on_offer_can_be_built():
    for kind in options.Loss.__args__:
        if kind is not options.Custom:
            loss, dim = building.build_loss(kind())
            assert jax.eval_shape(loss, jax.ShapeDtypeStruct((dim,), np.dtype(float))).shape == ()


def test_linear_network_with_a_bottleneck_knows_its_floor():
    loss, dim = building.build_loss(options.Linear(widths=(2, 1, 2)))
    assert dim == 4
    assert loss.loss_floor > 0.001


def test_precision_is_refused_where_it_is_disabled(tmp_path):
    with jax.enable_x64(False), pytest.raises(ValueError, match="JAX_ENABLE_X64"):
        heatmap.run(options.Heatmap(out=tmp_path / "run"))


def flat_losses():
    """With and without lanes, as they are and wrapped."""
    kinds = (options.Scalar(), options.Factorisation(), options.Linear(widths=(3, 2, 4, 2)))
    built = [building.build_loss(kind) for kind in kinds]
    return [*built, (Pullback(Own(), Identity(), 0.0), 3), (Pullback(lambda theta: theta @ theta, Identity(), 0.0), 3)]


class Own:
    """A loss of a user's own that can be evaluated on lanes."""

    lanes_together = 64

    def __call__(self, theta):
        return self.on_lanes(theta)

    def on_lanes(self, theta):
        return (1 - theta[0] * theta[1] * theta[2]) ** 2


@pytest.mark.slow
def test_wrapped_losses_can_do_what_the_losses_inside_can():
    """Exactly those that say so are evaluated on lanes, and what is forwarded is the same."""
    found = flat_losses()
    inside = [(getattr(loss, "loss", loss), loss, dim) for loss, dim in found]
    assert sum(hasattr(loss, "on_lanes") for _, loss, _ in inside) == 3
    for inner, loss, dim in inside:
        for name in ("on_lanes", "lanes_together"):
            assert hasattr(loss, name) == hasattr(inner, name), (inner, name)
        if inner is loss or not hasattr(loss, "on_lanes"):
            continue
        lanes = jax.random.normal(jax.random.key(0), (dim, 5))
        np.testing.assert_allclose(loss.on_lanes(lanes), [loss(lane) for lane in lanes.T], rtol=1e-12)
        assert loss.on_lanes == loss.on_lanes  # so that nothing compiles anew
    linear = next(loss for loss, _ in found if isinstance(getattr(loss, "map", None), Unravel))
    theta = jax.random.normal(jax.random.key(1), (linear.map.size,))
    np.testing.assert_array_equal(linear.residual(theta), linear.loss.residual(linear.map(theta)))
    assert found[-2][0].lanes_together == 64
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        linear.nonsense  # noqa: B018
