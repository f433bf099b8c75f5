"""One recipe for long calculations: interrupted anywhere, they end where an uninterrupted one ends."""

import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdstab as gd
from gdstab.records import RunError, resumable

DESCENT, BOX = gd.gradient_descent(), ((-4.0, 4.0), (-4.0, 4.0))
STOP = gd.StoppingRule(loss_tol=1e-8, max_steps=300)


def loss(theta):
    return (1 - theta[0] * theta[1]) ** 2


def network(theta):
    """A tanh network with a dictionary as theta, on one sample."""
    return jnp.sum((theta["out"] @ jnp.tanh(theta["in"] @ jnp.array([1.0, -0.5])) - 0.3) ** 2)


SOURCE = gd.sampling.RandomSource.box(jax.random.key(3), 3000, BOX)
CALLS = {
    "measure": lambda run, **more: run(gd.basins.measure, DESCENT, loss, [0.1, 0.3], SOURCE, stopping=STOP, **more),
    "heatmap": lambda run, **more: run(
        gd.basins.heatmap, DESCENT, loss, 0.3, box=BOX, resolution=(64, 64), stopping=STOP, **more
    ),
    "critical_step": lambda run, **more: run(
        gd.boundaries.critical_step, DESCENT, loss, np.asarray(SOURCE(jnp.arange(2500))), low=0.05, high=1.0,
        stopping=STOP, scan=3, rtol=0.3, undecided_rtol=0.3, **more,
    ),
}  # fmt: skip
ARRAYS = {
    "measure": lambda found: (found.counts, found.tally.histogram),
    "heatmap": lambda found: (found.outcome, found.steps),
    "critical_step": lambda found: (found.low, found.high),
}


AFTER = {"measure": (12, 6), "heatmap": (3, 2), "critical_step": (12, 6)}


def plainly(function, *args, **options):
    return function(*args, **options)


class Killed(Exception):
    pass


def dying(after):
    """Progress that stands for a kill."""
    calls = iter(range(10**6))

    def progress(*_):
        if next(calls) == after:
            raise Killed

    return progress


@pytest.mark.parametrize("name", [pytest.param("critical_step", marks=pytest.mark.slow), "measure", "heatmap"])
def test_interrupted_and_taken_up_again_it_is_the_same(name, tmp_path):
    whole = CALLS[name](plainly)
    told = {"rule": DESCENT, "loss": loss, "stopping": STOP, "what": name}
    kept = []
    for after in (*AFTER[name], None):
        with resumable(tmp_path / "run", **told) as run:
            if after is None:
                found = CALLS[name](run)
            else:
                with pytest.raises(Killed):
                    CALLS[name](run, progress=dying(after))
        kept.append(len(list((tmp_path / "run" / "parts").glob("*.npz"))))
    assert 0 < kept[0] <= kept[1] < kept[2]
    for one, two in zip(ARRAYS[name](whole), ARRAYS[name](found), strict=True):
        np.testing.assert_array_equal(one, two)
    with resumable(tmp_path / "run", **told) as run:  # at the end nothing is run
        again = CALLS[name](run, progress=dying(0))
    np.testing.assert_array_equal(ARRAYS[name](again)[0], ARRAYS[name](whole)[0])


def test_tiles_of_a_dictionary(tmp_path):
    rng = np.random.default_rng(0)
    points = {"in": rng.standard_normal((700, 2, 2)), "out": rng.standard_normal((700, 2))}
    sizes = [0.05, 0.2]
    whole = gd.run(DESCENT, network, points, sizes, STOP)
    told = {"rule": DESCENT, "loss": network, "stopping": STOP, "step_sizes": sizes}
    more = {"keep": ("theta", "loss")}
    with pytest.raises(Killed), resumable(tmp_path, **told) as run:  # noqa: PT012 (it is the loop that dies)
        for number, _ in enumerate(run.tiles(DESCENT, network, points, sizes, STOP, **more)):
            if number == 2:
                raise Killed
    with resumable(tmp_path, **told) as run:
        tiles = list(run.tiles(DESCENT, network, points, sizes, STOP, **more))
    assert [tile.start for tile in tiles[1:]] == [tile.stop for tile in tiles[:-1]]
    np.testing.assert_array_equal(np.concatenate([tile.outcome for tile in tiles]), whole.outcome.ravel())
    np.testing.assert_array_equal(
        np.concatenate([tile.theta["in"] for tile in tiles]), whole.theta["in"].reshape(-1, 2, 2)
    )


def test_bad_input_is_refused(tmp_path):
    with resumable(tmp_path, rule=DESCENT, loss=loss, step_size=0.3) as run:
        with pytest.raises(ValueError, match=r"expected a function that can be continued, such as basins\.measure"):
            run(gd.run, DESCENT, loss, np.zeros((1, 2)), 0.3, STOP)
        with pytest.raises(RunError, match="holds one calculation: open another directory"):
            run(gd.basins.measure)
    with pytest.raises(RunError, match=r"another configuration; it differs in loss, step_size\."):  # noqa: SIM117
        with resumable(tmp_path, rule=DESCENT, loss=network, step_size=0.4):
            pass


@pytest.mark.slow
def test_a_killed_process_has_saved_all_but_the_last_half_minute(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent("""
        import jax, sys
        import gdstab as gd
        from gdstab.records import resumable

        def loss(theta):
            return (1 - theta[0] * theta[1]) ** 2

        rule, stop = gd.gradient_descent(), gd.StoppingRule(loss_tol=None, max_steps=40_000, escape_radius=1e30)
        source = gd.sampling.RandomSource.box(jax.random.key(3), 10**6, ((-1, 1), (-1, 1)))
        with resumable(sys.argv[1], rule=rule, loss=loss, stopping=stop, source=source) as run:
            run(gd.basins.measure, rule, loss, 0.1, source, stopping=stop)
    """)
    )
    process = subprocess.Popen([sys.executable, script, tmp_path / "run"])
    time.sleep(75)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = sorted((tmp_path / "run" / "parts").glob("*.npz"))
    assert parts
    assert time.time() - parts[-1].stat().st_mtime < 45
