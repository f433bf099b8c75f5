"""Every numbered statement of the papers as a small function that computes a verdict.

`run` returns the rows, `run_report` writes them down with figures; `claim` registers another one.
"""

# The papers register their claims when they are imported: first come, first listed.
from gdstab.claims import paper_a_minima as paper_a_minima  # isort: skip
from gdstab.claims import paper_a_dynamics as paper_a_dynamics  # isort: skip
from gdstab.claims import paper_a_measure as paper_a_measure  # isort: skip
from gdstab.claims import paper_a_figures as paper_a_figures  # isort: skip
from gdstab.claims import past_threshold as past_threshold  # isort: skip
from gdstab.claims import at_threshold as at_threshold  # isort: skip
from gdstab.claims import paper_b_flow as paper_b_flow
from gdstab.claims import paper_b_landscape as paper_b_landscape
from gdstab.claims import paper_c_applications as paper_c_applications
from gdstab.claims import paper_c_escape as paper_c_escape
from gdstab.claims import paper_c_general as paper_c_general
from gdstab.claims import paper_c_gradient as paper_c_gradient
from gdstab.claims import paper_c_landscape as paper_c_landscape
from gdstab.claims import paper_c_leaky as paper_c_leaky
from gdstab.claims import paper_c_strict as paper_c_strict
from gdstab.claims import paper_d_balance as paper_d_balance
from gdstab.claims import paper_d_bounds as paper_d_bounds
from gdstab.claims import paper_d_curvature as paper_d_curvature
from gdstab.claims import paper_d_testbeds as paper_d_testbeds
from gdstab.claims import paper_e as paper_e
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
