"""The paper's own arithmetic."""
