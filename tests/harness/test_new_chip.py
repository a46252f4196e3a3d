"""A new generation of chips is one file in ``conf/hw``: nothing else of the project knows a chip by name."""

import ast
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from builders.points import point as build_point

from bench.cli.main import main
from bench.sweep import catalog
from bench.sweep.hw_here import hw_here
from engines.analytic.engine import AnalyticEngine
from engines.compiled.cost.select import cost_model_of
from engines.compiled.target.select import target_of
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.slice import chip_counts, slice_of
from engines.host.nvidia import check_present
from engines.jax.devices import mesh_of
from engines.transformer.partition.resolve import plan_of

ROOT = Path(__file__).parents[2]
TPU = """
name: tpu-x
kind: tpu
peak_flops_per_s: {bfloat16: 1000e12, int8: 2000e12}
hbm_bytes: 64e9
hbm_bytes_per_s: 4e12
clock_hz: 2e9
torus_dims: 2
max_chips: 64
link_bytes_per_s: 200e9
slices: {shapes: [[1, 1], [1, 3], [3, 3]], ring_multiple: 3}
device_names: [TPU X]
xla: {name: v5e, cores: 1}
link_constants: {link_efficiency: 0.5, hop_s: 2.0e-6, launch_s: 1.0e-6}
sources: {link_constants: measured by hand}
"""
GPU = """
name: gpu-x
kind: gpu
peak_flops_per_s: {float16: 4000e12, bfloat16: 4000e12}
hbm_bytes: 288e9
hbm_bytes_per_s: 13e12
max_chips: 64
node_size: 4
node_bytes_per_s: 1800e9
network_bytes_per_s: 100e9
device_names: [NVIDIA X100]
cuda:
  compute_capability: [11, 0]
  multiprocessors: 200
  l2_bytes: 200000000
  float32_lanes: 128
  tensor_flops_per_cycle: 16384
  shared_memory_bytes: 233472
  shared_memory_bytes_per_block: 232448
sources: {}
"""


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of conf/ with two files more, in place of the project's own."""
    folder = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", folder)
    (folder / "hw" / "tpu-x.yaml").write_text(TPU)
    (folder / "hw" / "gpu-x.yaml").write_text(GPU)
    monkeypatch.setattr(catalog, "conf_dir", lambda: folder)
    return folder


point = partial(
    build_point,
    model="llama-3-8b",
    engine="analytic",
    phase="decode",
    num_chips=1,
    batch_size=4,
    input_len=128,
    output_len=8,
)


@pytest.mark.parametrize(("hw", "num_chips"), [("tpu-x", 9), ("gpu-x", 4)])
def test_a_new_chip_is_predicted_and_described_to_its_compiler(conf, hw, num_chips):
    asked = point(hw=hw, num_chips=num_chips)
    [answer] = AnalyticEngine().estimate([asked])
    assert answer.status == "ok", answer.error
    # Reading the weights is the least that a step takes.
    assert answer.step_time_s > 2 * asked.model.params * 0.9 / (num_chips * asked.chip.hbm_bytes_per_s)
    target, cost = target_of(asked.slice()), cost_model_of(asked.slice())
    assert (target.topology_name, cost.hbm_bytes_per_s) == (
        {"tpu-x": "v5e:3x3", "gpu-x": "gpu-x"}[hw],
        asked.chip.hbm_bytes_per_s,
    )


def test_a_new_gpu_s_description_holds_its_cuda_figures(conf):
    text = target_of(slice_of(catalog.load_chip("gpu-x"), 4)).text
    for line in ("core_count: 200", "major: 11 minor: 0", "l2_cache_size: 200000000", "clock_rate_ghz: 1.2207"):
        assert line in text


def test_a_new_tpu_s_slices_rings_and_links_are_its_own(conf):
    chip = catalog.load_chip("tpu-x")
    assert chip_counts(chip) == [1, 3, 9]
    assert slice_of(chip, 9).wrap == (True, True, False)
    constants = cost_model_of(slice_of(chip, 9)).describe()["constants"]
    assert (constants["link_efficiency"], constants["set_by"]) == (0.5, ["measured by hand"])


@pytest.mark.parametrize(("hw", "platform", "name"), [("tpu-x", "tpu", "TPU X"), ("gpu-x", "gpu", "NVIDIA X100")])
def test_a_new_chip_s_devices_are_recognised(conf, monkeypatch, hw, platform, name):
    def devices_called(device_kind):
        device = SimpleNamespace(platform=platform, device_kind=device_kind)
        monkeypatch.setattr(jax, "devices", lambda *_: [device])

    monkeypatch.setattr(jax, "make_mesh", lambda *_, devices, **__: devices)
    devices_called(name)
    assert [each.device_kind for each in mesh_of(point(hw=hw), plan_of(point(hw=hw)))] == [name]
    devices_called("TPU v4" if platform == "tpu" else "NVIDIA H200")
    with pytest.raises(Unsupported, match=f"hw={hw} is not on this machine"):
        mesh_of(point(hw=hw), plan_of(point(hw=hw)))


def test_a_new_gpu_is_found_by_the_driver_s_name(conf, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA X100\n")
    program.chmod(0o755)
    assert hw_here(str(program)) == "gpu-x"
    check_present(catalog.load_chip("gpu-x"), ["NVIDIA X100"])


def test_the_command_line_runs_a_chip_of_the_user_s_own_folder(tmp_path, capsys):
    (tmp_path / "hw").mkdir()
    (tmp_path / "hw" / "tpu-x.yaml").write_text(TPU)
    words = ["model=llama-3-8b", "hw=tpu-x", "num_chips=9", "engine=analytic", "print=json"]
    results = f"results_dir={tmp_path / 'results'}"
    assert main(["run", "--config-dir", str(tmp_path), *words, results]) == 0
    assert "tpu-x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("slices: {shapes: [[1, 1, 1]], ring_multiple: 3}", "hw.slices.shapes=.*torus_dims=2"),
        ("slices: {shapes: [[3, 1]], ring_multiple: 3}", "hw.slices.shapes=.*ascending"),
        ("slices: {shapes: [[1, 1]], ring_multiple: 0}", "hw.slices.ring_multiple=0: must be an integer ≥ 2"),
        ("slices: {shapes: [[1, 1]], rings: 3}", "hw=tpu-x: .*rings.*compare it with conf/hw/tpu-v4.yaml"),
        ("slices: null", "hw.slices=null"),
    ],
)
def test_a_file_that_describes_no_chip_is_one_sentence(conf, line, words):
    path = conf / "hw" / "tpu-x.yaml"
    path.write_text(re.sub("slices: .*", line, TPU))
    with pytest.raises(InvalidRequest, match=words) as caught:
        catalog.load_chip("tpu-x")
    assert "\n" not in str(caught.value)


def test_no_module_knows_a_generation_by_name():
    """Engines branch on facts of a chip, never on its name; a kind's calibrated constants are stored under one."""
    names = re.compile(r"^(tpu-\w+|[abh]\d00(-80gb)?|TPU v?\d.*|NVIDIA [ABH]\d00.*)$")
    allowed = {"engines/analytic/constants.py"}
    found = set()
    for path in sorted((ROOT / "engines").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and names.match(node.value):
                found.add(str(path.relative_to(ROOT)))
    assert found <= allowed
