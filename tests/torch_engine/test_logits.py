"""The logits of one rank against those of JAX, for the same seed; and of many ranks against those of one."""

import dataclasses
import math
import re
import shutil

import numpy as np
import pytest
import torch
from forked_ranks import ForkedRanks
from processes import PATIENCE_S
from torch_cases import ARCHITECTURES, fed, logits, point, run

from engines.jax.engine import JaxEngine
from engines.torch.job import Job
from engines.torch.rank import Rank
from engines.torch.rank_group import InProcess
from engines.transformer.reference import reference_logits

pytestmark = [pytest.mark.usefixtures("plainly_prepared", "small_peaks", "small_torch_peaks"), pytest.mark.slow]

SEED = 11


def job(asked, decode="eager", threads=1):
    return Job(point=asked, seed=SEED, decode=decode, threads=threads)


@pytest.fixture(scope="module")
def of_one_rank():
    """Outputs of the model on one rank, once a model."""
    made = {}

    def call(model):
        if model not in made:
            made[model] = run(InProcess(job(point(model))))
        return made[model]

    return call


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("model", ARCHITECTURES)
def test_one_rank_gives_the_logits_of_the_jax_reference(of_one_rank, model):
    outputs = of_one_rank(model)
    tokens, positions = fed(point(model), outputs, SEED)
    expected = reference_logits(ARCHITECTURES[model], tokens, positions, SEED)
    assert logits(outputs).shape == expected.shape == (5, 3, ARCHITECTURES[model].vocab_size)
    assert np.abs(logits(outputs) - expected).max() < 1e-4
    # Greedy: each token is the most likely one of the logits before it.
    assert np.array_equal(outputs.first, expected[0].argmax(axis=-1))
    assert np.array_equal(outputs.generated[2:], expected[1:].argmax(axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "chips"), [("palm", 8), ("llama", 4)])
def test_one_rank_gives_the_logits_of_the_jax_engine_over_chips(of_one_rank, model, chips):
    # A generate point of JAX on hw=cpu has as many steps, from the same first token.
    asked = dataclasses.replace(
        point(model), engine="jax", num_chips=chips, tensor_parallel=None, pipeline_parallel=None
    )
    program = JaxEngine(seed=SEED).prepare(asked)
    assert program.verify().ok
    tokens, scores = (np.asarray(each) for each in program.decoded)
    outputs = of_one_rank(model)
    vocab = ARCHITECTURES[model].vocab_size
    assert np.array_equal(tokens, outputs.generated)
    assert np.abs(np.asarray(program.first_scores)[:, :vocab] - outputs.first_scores).max() < 1e-4
    assert np.abs(scores[..., :vocab] - outputs.kept).max() < 1e-4
    program.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tensor", "pipeline"),
    [("palm", 2, 1), ("gpt", 2, 1), ("llama", 1, 2), ("gpt-j", 2, 2), ("falcon", 4, 1)],
)
def test_ranks_give_the_logits_of_one_rank(of_one_rank, model, tensor, pipeline):
    """MQA, MHA and GQA; falcon's two key/value heads over four ranks, and an odd vocabulary over two."""
    group = ForkedRanks(job(point(model, tensor, pipeline)), PATIENCE_S)
    try:
        outputs = run(group)
        again = run(group)
    finally:
        group.close()
    one = of_one_rank(model)
    assert np.array_equal(outputs.first, one.first)
    assert np.array_equal(outputs.generated, one.generated)
    assert np.abs(logits(outputs) - logits(one)).max() < 1e-4
    assert np.array_equal(logits(outputs), logits(again))


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("recorded", [0, 256])
@pytest.mark.parametrize("model", ["palm", "llama"])
def test_steps_to_be_recorded_give_the_same(of_one_rank, model, recorded, monkeypatch):
    """What CUDA graphs hold: a step each, or one for all that reads the whole cache under a mask."""
    monkeypatch.setattr("engines.torch.rank.compiled", lambda work, *_: work)
    monkeypatch.setattr("engines.torch.rank.MOST_RECORDED", recorded)
    outputs = run(InProcess(job(point(model), decode="compile")))
    assert np.array_equal(outputs.generated, of_one_rank(model).generated)
    assert np.abs(outputs.kept - of_one_rank(model).kept).max() < 1e-5


def test_a_sequence_does_not_depend_on_its_batch(of_one_rank):
    alone = run(InProcess(job(point(batch_size=1))))
    assert np.abs(logits(alone)[:, 0] - logits(of_one_rank("palm"))[:, 0]).max() < 1e-5


def addresses(rank):
    """Of all that a recording reads and writes: it knows addresses and no names."""
    kept = (
        rank.prompt,
        rank.first,
        rank.first_scores,
        rank.token,
        rank.position,
        rank.number,
        rank.generated,
        rank.kept,
    )
    return [each.data_ptr() for each in (*kept, *(each for layer in rank.layers.cache for each in layer))]


class Replays:
    """Stands in for a recorder where there is no GPU: a replay runs the work again."""

    def __init__(self):
        self.recorded = 0

    def warm_up(self, work):
        work()

    def record(self, work):
        self.recorded += 1
        return work


@pytest.mark.parametrize(
    ("most", "phase", "recorded"), [(256, "generate", 1 + 6), (5, "generate", 1 + 1), (256, "decode", 6)]
)
def test_what_is_recorded_is_replayed_in_order(of_one_rank, monkeypatch, most, phase, recorded):
    recorder = Replays()
    monkeypatch.setattr("engines.torch.rank.recorder_of", lambda device: recorder)
    monkeypatch.setattr("engines.torch.rank.MOST_RECORDED", most)
    group = InProcess(job(dataclasses.replace(point("llama"), phase=phase), decode="graph"))
    assert recorder.recorded == recorded
    before = addresses(group.rank)
    for _ in range(2):
        outputs = run(group)
        assert np.array_equal(outputs.generated, of_one_rank("llama").generated)
        assert np.abs(logits(outputs) - logits(of_one_rank("llama"))).max() < 1e-5
    assert addresses(group.rank) == before


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("weight_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("model", ARCHITECTURES)
def test_all_is_on_the_device_and_no_value_is_on_the_host(monkeypatch, model, weight_dtype):
    """Tensors of the meta device have no values, and do not mix with those of the host."""
    monkeypatch.setattr("engines.torch.rank.device_of", lambda point, local_rank: torch.device("meta"))
    asked = point(model, weight_dtype=weight_dtype)
    rank = Rank(job(asked), 0, 0)
    rank.decode()
    assert (rank.generated.device.type, rank.kept.device.type) == ("meta", "meta")
    with pytest.raises(RuntimeError, match="meta"):
        rank.position.item()


@pytest.mark.parametrize("model", ["llama", "gpt-j"])
def test_prompt_and_step_are_traced_whole(model, monkeypatch):
    """Nothing in them needs a value on the host, and no step beyond the second needs another trace."""
    from torch._dynamo.testing import CompileCounter

    counters = {}

    def whole(work, *_):
        counters[work.__name__] = CompileCounter()
        return torch.compile(work, backend=counters[work.__name__], fullgraph=True)

    monkeypatch.setattr("engines.torch.rank.compiled", whole)
    asked = dataclasses.replace(point(model), model=dataclasses.replace(ARCHITECTURES[model], num_layers=1))
    eager, traced = (run(InProcess(job(asked, decode=decode))) for decode in ("eager", "compile"))
    assert np.abs(logits(traced) - logits(eager)).max() < 1e-5
    assert counters["_prompt"].frame_count == 1
    assert counters["_step"].frame_count <= 2


def test_decode_tells_the_host_nothing(of_one_rank):
    """No tensor becomes a number of Python, and none is copied, between the first step and the last."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Listening(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    group = InProcess(job(point()))
    with Listening():
        group.call("decode")
    assert "index_copy_" in seen
    assert "_local_scalar_dense" not in seen
    assert "nonzero" not in seen


def test_seeds_differ(of_one_rank):
    other = run(InProcess(Job(point=point(), seed=SEED + 1, decode="eager")))
    assert np.abs(logits(other) - logits(of_one_rank("palm"))).max() > 0.1


@pytest.mark.slow(seconds=20)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.thorough
def test_a_compiled_step_gives_the_same_and_writes_its_cache_in_place():
    from torch._inductor.utils import run_and_get_code

    model = dataclasses.replace(ARCHITECTURES["palm"], num_layers=1)
    asked = dataclasses.replace(point(phase="decode", output_len=60), model=model)
    eager = run(InProcess(job(asked)))
    compiled, sources = run_and_get_code(lambda: run(InProcess(job(asked, decode="compile"))))
    made = [shape for source in sources for shape in re.findall(r"empty_strided_cpu\(\(([\d, ]+)\)", source)]
    sizes = [math.prod(int(size) for size in shape.split(",") if size.strip()) for shape in made]
    # 3 sequences × 1 head × 67 positions × 32: no buffer is as large as the keys of the layer.
    assert 0 < max(sizes) < 3 * 67 * 32
    assert np.array_equal(eager.generated, compiled.generated)
    assert np.abs(eager.kept - compiled.kept).max() < 1e-5
