"""A system names its runtime in any spelling and release; one that is not known has none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.published.systems import first_token_of, release_of, runtime_of
from engines.published.table import published_rows

SPELLINGS = {
    "tensorrt-llm": ("TensorRT-LLM", "tensorrt_llm", "TRT-LLM", "trtllm", "NIM", "NeMo", "Triton TensorRT-LLM"),
    "vllm": ("vLLM", "vllm"),
    "gpt-fast": ("gpt-fast", "gptfast", "torchao"),
    "fastertransformer": ("FasterTransformer", "Faster Transformer"),
    "megatron": ("megatron", "Megatron-LM", "NeMo Megatron"),
    "torch-eager": ("transformers", "Hugging Face transformers", "torch-eager", "PyTorch", "HF"),
    "deepspeed": ("DeepSpeed", "deepspeed-inference"),
    "lmdeploy": ("LMDeploy", "lmdeploy turbomind"),
    "xla": ("jax-llm-examples", "MaxText", "JetStream", "xla"),
    "xla-2022": ("paper", "xla-2022"),
    "best": ("best",),
}
RELEASE = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))


@given(release=RELEASE, data=st.data())
def test_a_release_and_the_case_change_no_runtime(release, data):
    runtime = data.draw(st.sampled_from([name for name in SPELLINGS if name not in ("best", "xla-2022")]))
    name = data.draw(st.sampled_from(SPELLINGS[runtime]))
    name = data.draw(st.sampled_from([name, name.upper(), name.lower()]))
    number = ".".join(map(str, release))
    system = data.draw(st.sampled_from(["{} {}", "{} v{}", "{}-{}", "{} ({})"])).format(name, number)
    assert runtime_of(system) == runtime_of(name) == runtime
    assert release_of(system) == release


@pytest.mark.parametrize("runtime", SPELLINGS)
def test_every_spelling_is_the_runtime(runtime):
    assert {runtime_of(each) for each in SPELLINGS[runtime]} == {runtime}


@pytest.mark.parametrize(
    "system", ["mine", "", "nimble", "transformer", "vllmx", "best of all", "newspaper", "SGLang 0.3"]
)
def test_a_system_that_is_not_known_has_no_runtime(system):
    assert runtime_of(system) is None


def test_two_names_in_one_system_are_the_kernels_that_ran():
    assert runtime_of("TensorRT-LLM (NeMo Megatron)") == "tensorrt-llm"
    assert runtime_of("DeepSpeed with transformers") == "deepspeed"


@pytest.mark.parametrize(
    ("system", "release"),
    [("tensorrt-llm 0.6.1", (0, 6, 1)), ("TensorRT-LLM v0.10", (0, 10)), ("trtllm", ()), ("tensorrt-llm 0.7a", (0, 7))],
)
def test_releases_are_numbers_to_order_by(system, release):
    assert release_of(system) == release
    assert (0, 9) < (0, 10)


@pytest.mark.parametrize(
    ("system", "first"),
    [("vLLM 0.6", "prefill"), ("NIM 1.0", "prefill"), ("sglang", "prefill"), ("paper", "decode"), ("MaxText", "decode"),
     ("mine", "decode")],
)  # fmt: skip
def test_which_pass_yields_the_first_token(system, first):
    assert first_token_of(system) == first


def test_every_published_system_has_a_runtime():
    assert all(row.stated["runtime"] == runtime_of(row.system) for row in published_rows())
