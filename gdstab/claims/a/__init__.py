"""The statements of paper A: the stability of minima and the set that converges."""
