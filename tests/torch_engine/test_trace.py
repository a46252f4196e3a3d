"""What a row of the torch engine says that it ran: its ranks' operations, traced without values."""

from dataclasses import replace

import pytest
from torch_cases import ARCHITECTURES, point

from engines.torch.engine import TorchEngine
from engines.torch.job import Job
from engines.torch.trace import program_id_of, traced

VERSIONS = {"torch": "1"}


def job(asked, decode="eager", seed=0):
    return Job(point=asked, seed=seed, decode=decode)


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_the_same_point_is_traced_alike_and_its_seed_is_no_part_of_it(model):
    one = list(traced(job(point(model))))
    assert one == list(traced(job(point(model), seed=5)))
    products = sum(line.startswith("aten.linear") for line in one)
    assert products == 3 * (3 * 4 + 1)  # the prompt and two steps: four products a layer, and the logits


def test_whatever_changes_what_runs_changes_it():
    one = point("llama")
    ids = [
        program_id_of(each, VERSIONS)
        for each in (
            job(one),
            job(one, decode="compile"),
            job(point("palm")),
            job(point("llama", tensor=2)),
            job(point("llama", pipeline=2)),
            job(replace(one, batch_size=4)),
            job(replace(one, input_len=9)),
            job(replace(one, phase="decode")),
            job(replace(one, weight_dtype="int8")),
            job(replace(one, output_len=9)),
        )
    ]
    assert len(set(ids)) == len(ids)
    assert program_id_of(job(one), {"torch": "2"}) != ids[0]


@pytest.mark.parametrize(("tensor", "sums"), [(1, 0), (2, 3 * 3)])
def test_every_layer_of_a_parallel_block_sums_once_and_the_embedding_too(tensor, sums):
    """palm: three layers, in the prompt and in two steps; the embedding's sum comes on top."""
    lines = list(traced(job(point("palm", tensor=tensor))))
    found = sum(line.startswith("all_reduce") for line in lines)
    assert found == (sums + 3 if tensor > 1 else 0)


def test_stages_hand_over_what_the_next_one_takes():
    lines = list(traced(job(point("llama", pipeline=2))))
    sent = [line.removeprefix("send_activations") for line in lines if line.startswith("send_activations")]
    taken = [line.removeprefix("receive_activations") for line in lines if line.startswith("receive_activations")]
    assert sent == taken != []


def test_a_program_says_what_the_engine_says():
    one = point("gpt")
    program = TorchEngine().prepare(one)
    assert program.facts().program_id == TorchEngine().program_id(one) == TorchEngine(seed=3).program_id(one)
    program.close()
