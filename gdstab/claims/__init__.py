"""Every numbered statement of the papers as a small function that computes a verdict.

`run` returns the rows, `run_report` writes them down with figures; `claim` registers another one: in any module of the
folder of its paper.
"""

import importlib
import pkgutil

from gdstab.claims.registry import Claim, ClaimError, Finding, Verdict, claim, exit_code, registered, run, unexpected
from gdstab.claims.report import run_report

__all__ = [
    "Claim",
    "ClaimError",
    "Finding",
    "Verdict",
    "claim",
    "exit_code",
    "registered",
    "run",
    "run_report",
    "unexpected",
]
__dir__ = __all__.copy  # nothing else is for users

for _found in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_found.name)
