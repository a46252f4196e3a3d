"""Prefill, the decode loop, sampling and prompt lengths."""
