"""Collectives between slices: what the text says of them, and their time by hand."""

import pytest
from builders import hlo_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.sweep.catalog import load_chip
from engines.compiled.compile.cache import CompiledProgram
from engines.compiled.program.estimate import Settings, estimate_compiled
from engines.compiled.program.placement import Placement
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.slice import slice_of

V5E = load_chip("tpu-v5e")
RATE = 3.125e9  # bytes/s of a chip: 6.4 Tb/s a pod of 256
BYTES = 1024 * 1024 * 2


def estimated(text, num_slices=2, chip=V5E):
    placement = Placement(axes={"data": num_slices, "model": 4}, places=(0, 1, 2, 3))
    compiled = CompiledProgram(text=text, memory={}, compile_s=0.0)
    return estimate_compiled("step", compiled, slice_of(chip, 4), placement, Settings(num_slices=num_slices), "k", {})


@given(
    kind=st.sampled_from(["ALL_REDUCE", "ALL_GATHER", "REDUCE_SCATTER", "ALL_TO_ALL", "COLLECTIVE_PERMUTE"]),
    count=st.integers(2, 16),
    by_groups=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_bytes_cross_the_network_as_each_kind_sends_them(kind, count, by_groups):
    numbers = ",".join(str(each + 1) for each in range(count))
    target = f"{{{{{numbers}}}}}" if by_groups else f'"{{{numbers}}}x{{0:3}}"'
    if kind == "COLLECTIVE_PERMUTE":
        target = "{{100000->200000},{200000->100000}}"
    found = estimated(hlo_texts.between_slices(kind, target), count)
    (sent,) = found.collectives
    share = {"ALL_REDUCE": 2 * (count - 1) / count, "COLLECTIVE_PERMUTE": 1.0}.get(kind, (count - 1) / count)
    assert sent.opcode == kind.lower().replace("_", "-")
    assert sent.axes == ("data",)
    assert sent.seconds == pytest.approx(share * BYTES / RATE)
    assert found.exposed_s == pytest.approx(sent.seconds - (found.compute_s if found.compute_s else 0.0), rel=1e-3)


def test_the_larger_side_counts():
    found = estimated(hlo_texts.between_slices("ALL_GATHER", got=hlo_texts.GATHERED))
    assert found.collectives[0].seconds == pytest.approx(4 * BYTES / 2 / RATE)


def test_work_between_send_and_recv_overlaps_it():
    alone = estimated(hlo_texts.between_slices())
    beside = estimated(hlo_texts.between_slices(beside=600_000))
    assert beside.compute_s > alone.compute_s
    assert beside.step_time_s == pytest.approx(alone.step_time_s)
    assert "at the network's bandwidth, the least that they can" in beside.explain()


def test_a_program_of_more_slices_than_asked_is_refused():
    with pytest.raises(InvalidRequest, match=r"num_slices=1: is fewer than the 2 slices .*; use num_slices=2"):
        estimated(hlo_texts.between_slices(), 1)


def test_a_chip_whose_network_nobody_states_is_refused():
    with pytest.raises(Unsupported, match="hw=tpu-v4: no datasheet states its bandwidth between slices"):
        estimated(hlo_texts.between_slices(), chip=load_chip("tpu-v4"))
