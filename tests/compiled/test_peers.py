"""Peers, by a stand-in that is compiled as they are: in a process of its own, at two depths, and timed as ours."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from builders.points import point as build_point

from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_group, load_model
from engines.compiled.peers.engine import SCRIPTS, PeerEngine
from engines.core.errors import InvalidRequest

pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
pytestmark = pytest.mark.slow

STAND_IN = f"""
import sys; sys.path.insert(0, {str(SCRIPTS)!r})
from absent import Refused, bytes_on_a_device, main

def build(asked, devices, layers):
    import jax, jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    open(asked["log"], "a").write(f"{{layers}}\\n")
    if asked["batch_size"] == 3:
        raise Refused("batch_size=3: the stand-in takes even batches; use 4")
    if asked["batch_size"] == 5:
        raise ValueError("no batch of\\n5")
    # Devices in another order than the slice's: what is sent along y goes over other links than along x.
    mesh = jax.make_mesh((2, 4), ("a", "b"), devices=devices, axis_types=(AxisType.Auto,) * 2)
    width = asked["model"]["d_model"]
    split = lambda *spec: NamedSharding(mesh, P(*spec))
    shape = jax.ShapeDtypeStruct
    weights = [(shape((width, 4 * width), jnp.bfloat16, sharding=split(None, ("a", "b"))),
                shape((4 * width, width), jnp.bfloat16, sharding=split(("a", "b"), None))) for _ in range(layers)]
    def step(x, weights):
        for first, second in weights:
            x = jax.lax.with_sharding_constraint(x + jax.nn.gelu(x @ first) @ second, split())
        return x
    x = shape((asked["batch_size"], width), jnp.bfloat16, sharding=split())
    held = {{"weights": bytes_on_a_device(weights), "cache": 0}}
    return jax.jit(step).lower(x, weights), mesh, held

if __name__ == "__main__":
    main(build, ("jax", "libtpu"))
"""
SMALL = replace(load_model("llama-3-8b"), num_layers=12, d_model=2048)
point = partial(
    build_point,
    model=SMALL,
    hw="tpu-v5e",
    engine="stand-in",
    phase="decode",
    num_chips=8,
    batch_size=16,
    input_len=100,
    output_len=4,
    weight_dtype="bfloat16",
)


@pytest.fixture
def stand_in(tmp_path):
    """The stand-in with these settings; ``log`` has a line for each depth that its process was asked for."""
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(STAND_IN)

    class StandIn(PeerEngine):
        name, libraries, packages = "stand-in", ("jax", "libtpu"), ("jax", "libtpu")

        def asked(self, point):
            return {"log": str(log)}

    StandIn.script, StandIn.log = script, log
    settings = {"python": None, "depths": [2, 5], "compiler_options": None, "run_timeout_s": 240}
    return lambda **changes: StandIn(**{**settings, "cache_dir": str(tmp_path / "cache"), **changes})


def one(engine, **changes):
    (answer,) = engine.estimate([point(**changes)])
    return answer


def test_the_line_through_two_depths_is_the_whole_program_compiled_once_and_known_without_compiling(stand_in):
    engine = stand_in()
    known = engine.program_id(point())
    assert not engine.log.exists()
    line = one(engine)
    assert line.facts.program_id == known
    assert one(stand_in()).latency_s == line.latency_s
    assert engine.log.read_text().split() == ["2", "5"]
    whole = one(stand_in(depths=[2, 12]))
    assert line.status == whole.status == "ok", line.error or whole.error
    assert line.step_time_s == pytest.approx(whole.step_time_s, rel=0.02)
    assert line.latency_s == pytest.approx(4 * line.step_time_s)
    assert line.facts.weights_bytes == whole.facts.weights_bytes == 12 * 2 * 4 * 2048**2 * 2 / 8
    assert line.facts.peak_hbm_bytes == pytest.approx(whole.facts.peak_hbm_bytes, rel=0.02)
    assert "line through its programs of 2 and 5 layers" in line.facts.details["compiled_program"]
    assert "all 12 layers" in whole.facts.details["compiled_program"]
    facts = line.facts
    parts = facts.compute_s + facts.communication_s - facts.overlapped_s + facts.overhead_s
    assert parts == pytest.approx(line.latency_s, rel=0.02)
    assert facts.details["exposed_s"] > 0  # each layer's sum is waited for
    engine.script.write_text(engine.script.read_text() + "# another\n")
    assert engine.program_id(point()) != known


@pytest.mark.parametrize(
    ("changes", "settings", "status", "says"),
    [
        ({"batch_size": 3}, {}, "unsupported", "batch_size=3: the stand-in takes even batches; use 4"),
        ({"batch_size": 5}, {}, "failed", "ValueError: no batch of 5"),
        ({"hw": "h100-80gb"}, {}, "unsupported", "hw=h100-80gb: engine=stand-in is compiled for TPUs"),
        ({"ffn_layout": "ws_2d"}, {}, "unsupported", "ffn_layout=ws_2d: engine=stand-in partitions its program itself"),
        ({"partitioner": "gspmd"}, {}, "unsupported", "partitioner=gspmd: engine=stand-in partitions"),
        ({}, {"python": "no-such-python"}, "unsupported", "engine.python=no-such-python: is no program here"),
        ({"model": replace(SMALL, d_model=16384, num_layers=400)}, {}, "oom", "on the line through [2, 5] layers"),
    ],
)
def test_what_has_no_time_is_one_sentence(stand_in, changes, settings, status, says):
    answer = one(stand_in(**settings), **changes)
    assert answer.status == status
    assert says in answer.error
    assert "\n" not in answer.error


def test_a_python_without_the_peer_says_what_it_lacks(stand_in):
    engine = stand_in()
    type(engine).packages = ("jax", "no-such-package")
    assert (
        one(engine).error == f"engine.python={sys.executable}: lacks no-such-package; give a Python that has stand-in"
    )


@pytest.mark.parametrize("depths", [[4], [4, 4], [8, 4], [0, 4], [1.5, 4]])
def test_depths_are_two_numbers_in_order(depths):
    with pytest.raises(InvalidRequest, match=r"engine\.depths="):
        make_engine({**load_group("engine", "maxtext"), "depths": depths})


@pytest.mark.parametrize(
    ("engine", "settings", "changes", "says"),
    [
        ("jax-llm-examples", {}, {}, "engine.folder=: is not given"),
        ("jax-llm-examples", {"folder": "/"}, {}, "has no llama3/llama3_jax/model.py"),
        ("jax-llm-examples", {}, {"model": "palm-8b"}, "engine=jax-llm-examples has Llama's architecture alone"),
        ("jax-llm-examples", {}, {"weight_dtype": "int4"}, "engine=jax-llm-examples has bfloat16 and int8"),
        ("jax-llm-examples", {"mesh": [1, 2, 2]}, {}, "engine.mesh=[1,2,2]: has not 8 devices"),
        ("maxtext", {}, {"phase": "prefill", "output_len": 0}, "engine=maxtext compiles its decode step alone"),
        ("maxtext", {}, {"model": "gpt-6.7b"}, "engine=maxtext has Llama's architecture alone"),
    ],
)  # fmt: skip
def test_what_a_peer_has_no_program_for(engine, settings, changes, says):
    made = make_engine({**load_group("engine", engine), **settings})
    (answer,) = made.estimate([point(engine=engine, **changes)])
    assert answer.status == "unsupported"
    assert says in answer.error


@pytest.mark.parametrize(("kv_heads", "chips", "mesh"), [(8, 16, (1, 8, 2)), (8, 4, (1, 4, 1)), (6, 8, (1, 2, 4))])
def test_key_value_heads_are_not_cut(kv_heads, chips, mesh, tmp_path):
    (tmp_path / "llama3" / "llama3_jax").mkdir(parents=True)
    (tmp_path / "llama3" / "llama3_jax" / "model.py").touch()
    made = make_engine({**load_group("engine", "jax-llm-examples"), "folder": str(tmp_path)})
    heads = replace(SMALL, num_heads=48, num_kv_heads=kv_heads)
    assert made.asked(point(model=heads, num_chips=chips))["mesh"] == list(mesh)


PLACES = f"""
import json, sys; sys.path.insert(0, {str(SCRIPTS)!r})
from absent import devices_of, mesh_of
for asked in json.loads(sys.argv[1]):
    mesh = mesh_of(asked["shape"], ("x", "y", "z"), devices_of(asked["target"]))
    print(json.dumps([list(mesh.devices.shape), len({{each.id for each in mesh.devices.flat}})]))
"""


def test_a_mesh_is_placed_whether_its_axes_are_sides_of_the_torus_or_not(stand_in):
    engine, shapes = stand_in(), ([1, 8, 2], [1, 4, 4])
    targets = [engine._question(point(hw=hw, num_chips=16), "decode")["target"] for hw in ("tpu-v5e", "tpu-v6e")]
    asked = [{"shape": shape, "target": target} for target in targets for shape in shapes]
    words, environment = [sys.executable, "-c", PLACES, json.dumps(asked)], engine.environment([])
    found = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=True).stdout
    assert [json.loads(each) for each in found.splitlines()[-4:]] == [[each["shape"], 16] for each in asked]
