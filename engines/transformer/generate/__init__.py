"""Prefill, the decode loop and sampling."""
