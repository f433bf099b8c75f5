"""Every public module and every command at a tiny size, where only what the package itself depends on is installed."""

import importlib
import pkgutil
import sys
import tempfile
from pathlib import Path

import gdstab
from gdstab.cli import commands, main

TINY = {
    "heatmap": "--resolution 8 8 --max-steps 50",
    "orbit": "--num-steps 5 --max-steps 50",
    "critical": "--samples 20 --starts 1 --step-sizes 0.3,0.6 --resolution 8 8 --max-steps 50",
    "critical-map": "--resolution 4 4 --scan 4 --rtol 1e-2 --max-steps 50",
    "spectrum": "--num-steps 2",
    "overfitting": "--hidden-layers 1 --datasets 1 --starts 8 --flow-starts 2 --special-starts 2 "
    "--lingering-spreads 0.1 --lingering-starts 2 --time 100",
    "escape": "--samples 20 --step-sizes 0.3 --max-steps 100 --cells 4 --ball-starts 2 --manifold-cells 0 "
    "--walk-steps 50",
    "flow": "--time 0.2 --ratios 2 --points 4 --samples 2 --curvature-points 2 loss:quadratic",
    "basin": "--samples 200 --step-sizes 0.3 --max-steps 50",
    "boundary": "--resolution 64 64 --samples 64 --scales 3 6 --max-steps 50",
    "multipliers": "--resolution 3 2 --num-steps 20 --max-steps 50",
    "bifurcation": "--step-sizes 0.45:0.55:5 --starts 4 --transient 100 --doublings 0 --hysteresis 0 --max-steps 100",
    "cycle": "--starts 8 --follow 0 --doublings 0 --max-steps 2000",
    "lyapunov": "--step-sizes 0.7,0.8 --starts 4 --resolution 4 4 --line-starts 2 --line-steps 200 --num-steps 200 "
    "--max-steps 200 --max-period 2",
    "reproduce": "A.2 --num-steps 5 --max-steps 50",
    "claims": "--only C.lem6.1",
    "draw": "",
    "info": "",
}

if __name__ == "__main__":
    for module in pkgutil.walk_packages(gdstab.__path__, "gdstab."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in dir(gdstab):
        getattr(gdstab, name)
    assert set(TINY) == set(commands()), "a command has no tiny run here"
    with tempfile.TemporaryDirectory() as folder:
        for name, options in TINY.items():
            out = {"info": [], "draw": [str(Path(folder, "heatmap"))]}.get(name, ["--out", str(Path(folder, name))])
            words = [name, *options.split(), *out]
            print("+ gdstab", *words, flush=True)
            code = main(words)
            if code:
                sys.exit(f"gdstab {name}: exit code {code}")
