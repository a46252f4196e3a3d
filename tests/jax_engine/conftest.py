"""Eight virtual devices, asked for before JAX is imported, and peaks that are measured in no time."""

import os

import pytest

if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(autouse=True, scope="module")
def small_peaks():
    """Peaks are measured as ever, but with small matrices and for no longer than it takes to run them."""
    from engines.jax import peaks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peaks, "ON_HOST", peaks.Sizes((64,), 1 << 16, True, 1))
        patch.setattr(peaks, "MEASURE_S", 0.0)
        yield
