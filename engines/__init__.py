"""What is benchmarked: a shared vocabulary, and one folder an engine."""
