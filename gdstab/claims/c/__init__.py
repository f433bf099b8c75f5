"""The statements of paper C: shallow ReLU networks."""
