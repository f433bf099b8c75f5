"""The statements of paper D: descent against gradient flow."""
