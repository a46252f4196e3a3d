"""Weights in host memory: what a scheduled program fetches of them, when, and how long the host's link takes."""

from dataclasses import replace

import pytest
from builders.points import point

from bench.sweep.catalog import load_chip
from engines.compiled.cost.select import cost_model_of
from engines.compiled.cost.timeline import HOST_LINK, walk
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import Kind, read_schedule
from engines.compiled.offload import check_offload, host_rate
from engines.core.errors import Unsupported
from engines.offload.host_link import HOST_LINK_SHARE

LAYER = "bf16[1,1024,1024]{2,1,0:T(8,128)(2,1)}"
STACK = "bf16[4,1024,1024]{2,1,0:T(8,128)(2,1)S(5)}"
NUMBER = "s32[]{:T(128)}"
START = f"(({STACK}, {NUMBER}, {NUMBER}, {NUMBER}), {LAYER}, u32[]{{:S(2)}})"
PROGRAM = f"""HloModule fetched, is_scheduled=true

ENTRY %main (p0: bf16[4,1024,1024], p1: s32[]) -> bf16[1,1024,1024] {{
  %p0 = {STACK} parameter(0)
  %p1 = {NUMBER} parameter(1)
  %dynamic-slice-start = {START} dynamic-slice-start(%p0, %p1, %p1, %p1), dynamic_slice_sizes={{1,1024,1024}}
  ROOT %dynamic-slice-done = {LAYER} dynamic-slice-done(%dynamic-slice-start)
}}
"""
LAYER_BYTES = 1024 * 1024 * 2
KEYS = {"model": "llama-2-7b", "num_chips": 4, "phase": "decode", "batch_size": 16, "input_len": 240, "output_len": 16}


def asked(hw="tpu-v5e", **keys):
    return point(hw=hw, engine="compiled", **{**KEYS, "offload": "host", **keys})


def test_a_fetched_slice_counts_with_its_own_bytes_and_takes_the_link():
    schedule = read_schedule(parse_module(PROGRAM))
    (start,) = [each for each in schedule.computations[schedule.entry] if each.kind is Kind.START]
    assert (start.moved_bytes, start.with_host) == (LAYER_BYTES, True)
    timeline = walk(schedule, cost_model_of(asked().slice()), host_bytes_per_s=1e9)
    account = timeline.account
    assert account.total_s == pytest.approx(LAYER_BYTES / 1e9)
    assert account.exposed_s == pytest.approx(account.communication_s) == pytest.approx(LAYER_BYTES / 1e9)
    assert [each.lane for each in timeline.events if each.lane == HOST_LINK] == [HOST_LINK]
    assert not account.unestimated_s


def test_without_a_rate_a_fetch_is_only_bounded_by_hbm():
    schedule = read_schedule(parse_module(PROGRAM))
    account = walk(schedule, cost_model_of(asked().slice())).account
    assert account.at_least_s == pytest.approx(LAYER_BYTES / 819e9)


def test_the_rate_is_the_chips_and_what_no_compiler_knows_is_refused():
    assert host_rate(asked()) == HOST_LINK_SHARE * 15e9
    assert host_rate(asked(offload="none")) is None
    # The two cores of a chip are a device each, and share its link.
    linked = replace(load_chip("tpu-7x"), host_link_bytes_per_s=32e9)
    assert host_rate(asked(hw=linked)) == HOST_LINK_SHARE * 16e9
    check_offload(asked())
    for keys, named in (
        ({"offload": "nvme"}, "offload=nvme"),
        ({"hw": "h100-80gb"}, "hw=h100-80gb is told of no host memory"),
        ({"partitioner": "gspmd"}, "partitioner=gspmd"),
    ):
        with pytest.raises(Unsupported, match=named):
            check_offload(asked(**keys))
