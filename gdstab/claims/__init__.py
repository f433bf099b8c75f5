"""Every numbered statement of the papers as a small function that computes a verdict.

`run` returns the rows, `run_report` writes them down with figures; `claim` registers another one: in any module of the
folder of its paper.
"""

import importlib
import pkgutil

from gdstab.claims.registry import Claim as Claim
from gdstab.claims.registry import ClaimError as ClaimError
from gdstab.claims.registry import Finding as Finding
from gdstab.claims.registry import Verdict as Verdict
from gdstab.claims.registry import claim as claim
from gdstab.claims.registry import exit_code as exit_code
from gdstab.claims.registry import registered as registered
from gdstab.claims.registry import run as run
from gdstab.claims.registry import unexpected as unexpected
from gdstab.claims.report import run_report as run_report

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

for _found in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_found.name)
