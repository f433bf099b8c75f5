"""What must come out: closed forms and bounds, each citing its statement, without simulation."""

from gdstab.theory import counterexamples, factorisations, linear, scalar, strata

__all__ = ["counterexamples", "factorisations", "linear", "scalar", "strata"]
