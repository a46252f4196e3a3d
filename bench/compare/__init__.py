"""Two stores, nights, the dashboard."""
