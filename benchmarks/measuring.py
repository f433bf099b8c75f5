"""What every benchmark shares: paired timings in one run, and rows with the machine and the answer beside the time."""

import datetime
import json
import pathlib
import platform
import statistics
import subprocess
import time

import jax

import gdstab as gd
from gdstab.records import available_cores

RESULTS = pathlib.Path(__file__).parent / "results"


def paired(ways: dict, repeats: int = 5) -> dict:
    """Time functions in turn, A B C A B C ..., so that a drift of the machine's speed meets all of them.

    The first call of each is kept apart: it compiles. Returns per name: first_call, minimum and median seconds, answer.
    """
    first, times, answers = {}, {name: [] for name in ways}, {}
    for name, call in ways.items():
        begin = time.perf_counter()
        answers[name] = call()
        first[name] = time.perf_counter() - begin
    for _ in range(repeats):
        for name, call in ways.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {
        name: {
            "first_call": first[name],
            "minimum": min(spent),
            "median": statistics.median(spent),
            "answer": answers[name],
        }
        for name, spent in times.items()
    }


def machine() -> dict:
    """Where and with what a row was measured."""
    device = jax.devices()[0]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=RESULTS.parent
    )
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "processor": _processor(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "gdstab": gd.__version__,
        "commit": commit.stdout.strip(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write(name: str, rows: list[dict]) -> None:
    """Append rows to `results/NAME.jsonl`, each with the machine, and print them."""
    RESULTS.mkdir(exist_ok=True)
    about = machine()
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        for row in rows:
            file.write(json.dumps({**row, **about}) + "\n")
            print(", ".join(f"{key} {_short(value)}" for key, value in row.items()))


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    lines = pathlib.Path("/proc/cpuinfo")
    if lines.exists():
        names = [line.split(":")[1].strip() for line in lines.read_text().splitlines() if line.startswith("model name")]
        return names[0] if names else platform.processor()
    return platform.processor()
