"""Which devices a point runs on, what they reach, and what they cannot run."""

from types import SimpleNamespace

import jax
import pytest
from test_jax_engine import engine, point

from bench.sweep.catalog import load_model
from engines.core.errors import InvalidRequest, OutOfMemory, Unsupported
from engines.jax import peaks
from engines.jax.devices import mesh_of, out_of_memory
from engines.transformer.partition.resolve import plan_of

pytestmark = [pytest.mark.usefixtures("plainly_prepared"), pytest.mark.slow]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hw": "tpu-v4", "num_chips": 8}, "hw=tpu-v4 is not on this machine.*hw=cpu num_chips=8"),
        ({"num_chips": 512, "batch_size": 512}, "num_chips=512: JAX sees .* devices"),
        ({"act_dtype": "float8_e4m3"}, "act_dtype=float8_e4m3: a matmul in float8_e4m3 needs float8_e4m3 weights"),
        ({"kv_dtype": "int4"}, "kv_dtype=int4"),
        ({"act_dtype": "int8", "weight_dtype": "bfloat16"}, "act_dtype=int8: .* weight_dtype=bfloat16; use weight"),
    ],
)
def test_what_it_does_not_run(changes, says):
    if changes.get("num_chips") == 512:
        model = load_model("gpt-350m")
        changes = {**changes, "model": model}
    with pytest.raises(Unsupported, match=says):
        engine().prepare(point(**changes))


def test_a_mesh_that_cannot_carry_the_model_is_refused_before_memory_is_taken():
    before = len(jax.live_arrays())
    with pytest.raises(InvalidRequest, match=r"model.d_model=256.*3 chips"):
        engine().prepare(point(num_chips=3, batch_size=3))
    assert len(jax.live_arrays()) <= before  # those of a former test may be collected meanwhile


def test_only_resource_exhausted_is_out_of_memory():
    with pytest.raises(OutOfMemory, match=r"batch_size=8: tiny does not fit 8 × cpu"), out_of_memory(point()):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
    with pytest.raises(jax.errors.JaxRuntimeError), out_of_memory(point()):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_what_a_device_has_no_program_for_is_unsupported():
    asked = point(weight_dtype="int4")
    with pytest.raises(Unsupported, match=r"weight_dtype=int4 .* hw=cpu has no program for it"), out_of_memory(asked):
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: int4 in a dot")


def test_environment_for_virtual_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_cpu_enable_fast_math=false")
    found = engine().environment([point(), point(num_chips=64)])
    assert found == {
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=false --xla_force_host_platform_device_count=64",
        "JAX_PLATFORMS": "cpu",
    }
    assert engine().environment([point()])["XLA_FLAGS"].endswith("=8")
    assert engine().environment([point(hw="tpu-v4")]) == {}


@pytest.mark.parametrize(
    ("hw", "platform", "kind", "here"),
    [
        ("h100-80gb", "gpu", "NVIDIA H100 80GB HBM3", True),
        ("h100-80gb", "gpu", "NVIDIA H100 PCIe", False),
        ("h100-80gb", "gpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", False),
        ("h100-80gb", "gpu", "NVIDIA H200", False),
        ("h200", "gpu", "NVIDIA H200", True),
        ("a100-80gb", "gpu", "NVIDIA A100-SXM4-80GB", True),
        ("a100-80gb", "gpu", "NVIDIA A100-SXM4-40GB", False),
        ("tpu-v5p", "tpu", "TPU v5", True),
        ("tpu-v5p", "tpu", "TPU v5 lite", False),
        ("h100-80gb", "cpu", "cpu", False),
    ],
)
def test_a_device_is_the_chip_that_its_whole_name_says(monkeypatch, hw, platform, kind, here):
    """A board or a slice of a device with other figures is another chip."""
    devices = [SimpleNamespace(platform=platform, device_kind=kind)]
    monkeypatch.setattr(jax, "devices", lambda *_: devices)
    monkeypatch.setattr(jax, "make_mesh", lambda shape, names, axis_types, devices: devices)
    asked = point(hw=hw, num_chips=1, weight_dtype="bfloat16")
    if here:
        assert mesh_of(asked, plan_of(asked)) == devices
        return
    with pytest.raises(Unsupported, match=f"hw={hw} is not on this machine, which has 1 × {kind}"):
        mesh_of(asked, plan_of(asked))


def test_a_gpu_gives_jax_nearly_all_of_its_memory_unless_told_otherwise(monkeypatch):
    asked = [point(hw="h200", num_chips=1, weight_dtype="bfloat16")]
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert engine().environment(asked) == {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert engine().environment(asked) == {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in engine().environment([point()])
    assert engine().environment([point(hw="tpu-v4", weight_dtype="bfloat16")]) == {}


def test_peaks_are_measured_as_on_an_accelerator():
    """Chains of runs, on arrays of each device's own."""
    mesh = jax.make_mesh((2, 1, 1), ("x", "y", "z"), devices=jax.devices("cpu")[:2])
    flops, copied = peaks._peaks(mesh, "bfloat16", peaks.Sizes((64,), 1 << 16, False, 8))
    assert 0 < flops < 1e15
    assert 0 < copied < 1e13


def test_devices_that_share_a_processor_share_the_best_rate_that_any_matmul_reaches_on_it(monkeypatch):
    mesh = jax.make_mesh((2, 2, 1), ("x", "y", "z"), devices=jax.devices("cpu")[:4])
    sizes, own = peaks.Sizes((8,), 1 << 12, True, 1), (64, 8, 8)
    for best in ((4, (8, 8, 8)), (4, own), (1, (8, 8, 8)), (1, own)):

        def rate(mesh, product, *_, best=best):
            return (8e9 if mesh.size == 1 else 2e9) if (mesh.size, product) == best else 1e9

        monkeypatch.setattr(peaks, "_matmul_flops_per_s", rate)
        assert peaks._peaks.__wrapped__(mesh, "float32", sizes, own)[0] == 2e9


def test_peaks_are_unknown_where_memory_runs_out(monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1073741824 bytes.")

    mesh = jax.make_mesh((1, 1, 1), ("x", "y", "z"), devices=jax.devices("cpu")[:1])
    monkeypatch.setattr(peaks, "_peaks", full)
    assert peaks.measured_peaks(mesh, "float32", (8, 8, 8)) is None
