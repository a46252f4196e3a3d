"""Engines whose peaks are measured as ever, but with small matrices and for no longer than it takes to run them.

Measuring this machine's peaks takes more time than all else that a test's small point does, and then to compile well.
"""

import json

import pytest

from engines.jax.engine import JaxEngine
from engines.torch.engine import TorchEngine


def use_small_peaks(patch):
    """Until ``patch`` is undone, in engine=jax."""
    from engines.jax import peaks

    patch.setattr(peaks, "ON_HOST", peaks.Sizes((64,), 1 << 16, True, 1))
    patch.setattr(peaks, "MEASURE_S", 0.0)


def use_small_torch_peaks(patch):
    """Until ``patch`` is undone, in engine=torch."""
    from engines.torch import peaks

    patch.setattr(peaks, "MATRIX_SIZES", {**peaks.MATRIX_SIZES, "cpu": (64,)})
    patch.setattr(peaks, "COPY_BYTES", {**peaks.COPY_BYTES, "cpu": 1 << 16})
    patch.setattr(peaks, "MEASURE_S", 0.0)


FEW_RUNS = {
    "min_time_s": 0.0,
    "min_samples": 2,
    "max_samples": 4,
    "min_warmup_runs": 1,
    "warmup_window": 1,
    "warmup_tolerance": 100.0,
    "max_relative_ci": 100.0,
}
"""Keys of ``timing`` with which a measurement ends soon, and is valid whatever else this machine does."""


class QuickJaxEngine(JaxEngine):
    """For a process that runs nothing else."""

    def prepare(self, point):
        from compiling import prepare_plainly

        from engines.jax import peaks

        peaks.ON_HOST, peaks.MEASURE_S = peaks.Sizes((256,), 1 << 20, True, 1), 0.02
        with pytest.MonkeyPatch.context() as patch:
            prepare_plainly(patch)
            return super().prepare(point)


class QuickTorchEngine(TorchEngine):
    """Likewise, where the process is the only rank."""

    def prepare(self, point):
        from engines.torch import peaks

        peaks.MATRIX_SIZES, peaks.COPY_BYTES, peaks.MEASURE_S = {"cpu": (256,)}, {"cpu": 1 << 20}, 0.02
        return super().prepare(point)


def quick_config(folder):
    """A folder for ``--config-dir`` in which both engines are the quick ones, and a few runs are enough samples.

    What it says else is as in ours.
    """
    from bench.sweep.catalog import conf_dir, load_group

    for group in ("engine", "timing"):
        (folder / group).mkdir(parents=True)
    (folder / "timing" / "default.yaml").write_text(json.dumps({**load_group("timing", "default"), **FEW_RUNS}))
    for name, quick in (("jax", QuickJaxEngine), ("torch", QuickTorchEngine)):
        (ours,) = quick.__bases__
        text = (conf_dir() / "engine" / f"{name}.yaml").read_text(encoding="utf-8")
        replaced = text.replace(f"{ours.__module__}.{ours.__name__}", f"quick_engines.{quick.__name__}")
        assert replaced != text
        (folder / "engine" / f"{name}.yaml").write_text(replaced, encoding="utf-8")
    return folder
