"""Job files of clusters: what they run, and how each system writes it down."""
