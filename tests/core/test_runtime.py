"""A runtime is a key of a point: what it cannot run is one sentence, and what it wastes identifies no question."""

from dataclasses import fields, replace

import pytest
from builders.points import point as build_point

from bench.run.keys import code_id_of
from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_chip, load_group, names
from bench.sweep.runtimes import load_runtime
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.point import Point
from engines.core.runtime import Constant, Limits, Runtime, shipped

RUNTIMES = [name for name in names("runtime") if name != "auto"]
ENGINES = {"jax": "xla", "compiled": "xla", "torch": "torch-eager", "vllm": "vllm", "trtllm": "tensorrt-llm"}


def point(runtime=None, model="gpt-20b", hw="a100-80gb", **changes):
    sizes = {"engine": "analytic", "num_chips": 8, "phase": "decode", "batch_size": 8, "input_len": 64, "output_len": 8}
    return build_point(model, hw, runtime, **{**sizes, "weight_dtype": "float16", **changes})


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_says_what_it_runs_on_and_why_its_constants_are_what_they_are(name):
    runtime = shipped(name)
    assert runtime == load_runtime(name)
    assert runtime.name == name
    assert set(runtime.limits.kinds) <= {"gpu", "tpu", "cpu"}
    assert runtime.limits.kinds
    assert set(runtime.limits.chips or ()) | set(runtime.limits.except_chips) <= set(names("hw"))
    assert all(constant.value >= 0 and constant.source for constant in runtime.constants.values())
    kind = next(iter(runtime.limits.kinds))
    hw = (runtime.limits.chips or ({"gpu": "h100-80gb", "tpu": "tpu-v4", "cpu": "cpu"}[kind],))[0]
    point(name, hw=hw, weight_dtype="bfloat16", model="gpt-j-6b", num_chips=8 if kind == "gpu" else 16).check()


@pytest.mark.parametrize(
    ("name", "changes", "key", "said"),
    [
        ("vllm", {"hw": "tpu-v4", "num_chips": 16}, "runtime", "does not run on hw=tpu-v4"),
        ("xla-2022", {"hw": "tpu-v5e", "num_chips": 16}, "runtime", "does not run on hw=tpu-v5e"),
        ("tensorrt-llm", {"hw": "mi300x"}, "runtime", "does not run on hw=mi300x"),
        ("fastertransformer", {"model": "llama-3-70b"}, "runtime", "8 key/value heads for 64 query heads"),
        ("gpt-fast", {"model": "gpt-20b"}, "runtime", "has no learned positions"),
        ("gpt-fast", {"model": "llama-3-70b", "pipeline_parallel": 2}, "pipeline_parallel", "has no pipeline"),
        ("gpt-fast", {"model": "llama-3-70b", "num_chips": 16}, "num_chips", "more than the 8 of a node"),
        ("fastertransformer", {"weight_dtype": "int4"}, "weight_dtype", "is not a format of runtime=fastertransformer"),
        ("megatron", {"weight_dtype": "int8"}, "weight_dtype", "is not a format of runtime=megatron"),
    ],
)
def test_what_a_runtime_cannot_run_is_refused_in_a_sentence_with_a_remedy(name, changes, key, said):
    asked = point(name, **changes)
    with pytest.raises(InvalidRequest, match=said) as refused:
        asked.check()
    assert refused.value.key == key
    assert refused.value.remedy
    replace(asked, runtime=None).check()


def test_fp8_on_a_chip_without_it_is_refused_whatever_the_runtime():
    for runtime in (None, "tensorrt-llm"):
        asked = point(runtime, weight_dtype="float8_e4m3", act_dtype="float8_e4m3")
        [answer] = make_engine(load_group("engine", "analytic")).estimate([asked])
        assert (answer.status, "float8_e4m3" in answer.error) == ("unsupported", True)


@pytest.mark.parametrize(("engine", "runtime"), ENGINES.items())
def test_an_engine_refuses_a_runtime_that_it_is_not(engine, runtime):
    made = make_engine(load_group("engine", engine))
    made.check_runtime(point(None))
    made.check_runtime(replace(point(None), runtime=shipped(runtime)))
    other = "deepspeed"
    with pytest.raises(Unsupported, match=f"runtime={other}: engine={engine} is runtime={runtime}"):
        made.check_runtime(replace(point(None), runtime=shipped(other)))


def test_auto_is_the_question_that_was_asked_before_there_were_runtimes():
    asked = build_point(
        "palm-540b",
        "tpu-v4",
        engine="analytic",
        num_chips=64,
        phase="decode",
        batch_size=64,
        input_len=1984,
        output_len=64,
    )
    engine = make_engine(load_group("engine", "analytic"))
    assert asked.fingerprint('["predicted", {}]') == "32f9fe54cf7d6f8d"
    assert engine.source == "predicted"


def test_a_runtime_is_part_of_the_question_and_its_constants_of_the_program():
    ours, changed = shipped("vllm"), load_runtime("vllm+layer_s=2e-05")
    other = replace(ours, constants={}, limits=Limits(kinds=("gpu",)), sources={})
    asked = [point(runtime).fingerprint("a") for runtime in (None, ours, changed, other)]
    assert len(set(asked)) == 3
    assert asked[1] == asked[3]
    engine = make_engine(load_group("engine", "analytic"))
    assert code_id_of(engine, "code", point(ours)) != code_id_of(engine, "code", point(other))


def test_a_changed_constant_is_in_the_name_and_the_name_brings_it_back():
    changed = load_runtime("vllm+layer_s=2e-05+h200.hbm_efficiency=0.8")
    assert changed.name == "vllm+layer_s=2e-05+h200.hbm_efficiency=0.8"
    assert changed.values("h200")["layer_s"] == 2e-5
    assert changed.values("h200")["hbm_efficiency"] == 0.8
    assert "hbm_efficiency" not in changed.values("a100-80gb")
    for wrong in ("vllm+nothing=1", "vllm+layer_s=fast", "vlm"):
        with pytest.raises(InvalidRequest):
            load_runtime(wrong)


def test_a_users_runtime_is_found_in_his_folder_and_inherits_what_he_does_not_state(tmp_path, monkeypatch):
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "mine.yaml").write_text("defaults: [vllm]\nname: mine\nconstants: {layer_s: 1.0e-6}\n")
    (tmp_path / "runtime" / "vllm.yaml").write_text("defaults: [best]\nname: vllm\nconstants: {layer_s: 1.0e-6}\n")
    monkeypatch.setenv("SHARDBENCH_CONFIG_DIR", str(tmp_path))
    assert load_runtime("mine").values("h200")["layer_s"] == 1e-6
    assert load_runtime("vllm").name.startswith("vllm+layer_s=1e-06"), "a changed runtime never passes as ours"


@pytest.mark.parametrize(
    "content",
    [
        {"name": "mine"},
        {"name": "mine", "limits": {"kinds": ["gpu"], "colour": "red"}},
        {"name": "mine", "limits": {"kinds": "gpu"}},
        {"name": "mine", "limits": {"kinds": ["gpu"]}, "constants": {"layer_s": "fast"}},
        {"name": "mine", "limits": {"kinds": ["gpu"]}, "constants": {"layer_s": {"prior": 1.0}}},
        {"name": "mine", "limits": {"kinds": ["gpu"]}, "speed": 1},
    ],
)
def test_a_faulty_file_is_refused_by_its_key(content):
    with pytest.raises(InvalidRequest, match="runtime"):
        Runtime.from_config(content)


def test_a_plain_number_is_a_constant():
    made = Runtime.from_config({"name": "mine", "limits": {"kinds": ["gpu"]}, "constants": {"layer_s": 1e-5}})
    assert made.constants == {"layer_s": Constant(value=1e-5)}
    assert hash(made) == hash(replace(made, constants={}))


def test_a_row_has_the_runtime_after_the_engine():
    assert list(point("vllm").axes())[:5] == ["model", "hw", "num_chips", "engine", "runtime"]
    assert (point().axes()["runtime"], point("vllm").axes()["runtime"]) == ("auto", "vllm")
    assert "runtime" in [each.name for each in fields(Point)]
    assert load_chip("tpu-v4").kind == "tpu"
