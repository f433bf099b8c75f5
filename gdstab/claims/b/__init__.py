"""The statements of paper B: deep linear networks."""
