"""The version of the timing model: what a schedule's seconds are, beside the figures of the device."""

from typing import Final

TIMING_VERSION: Final = 3
"""Raised when the model gives the same schedule on the same device another time; a test ties it to stored schedules."""
