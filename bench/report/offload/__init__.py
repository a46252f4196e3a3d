"""The report on offloading: where weights and cache wait, what that costs, and what was measured of it."""
