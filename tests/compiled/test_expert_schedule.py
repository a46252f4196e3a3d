"""What a compiled schedule says of experts: how often a loop over them turns, and which weights a kernel reads."""

import pytest
from builders.models import moe_model
from builders.points import point
from compiled_cases import loop_of

from engines.compiled.compile.cache import Cache
from engines.compiled.compile.compiler import Compiler, CompileRequest
from engines.compiled.hlo.parser import UnreadableHlo, parse_module
from engines.compiled.hlo.schedule import Kind, read_schedule
from engines.compiled.target.installed import compiler_for
from engines.compiled.target.select import target_of
from engines.core.routing import balanced_scope, distinct_experts, turns_scope
from engines.transformer.partition.resolve import plan_of

LOOP = """HloModule m, is_scheduled=true
%cond (c: (s32[], s32[], f32[8])) -> pred[] {{
  %c = (s32[], s32[], f32[8]) parameter(0)
  %n = s32[] get-tuple-element(%c), index=0
  %bound = s32[] get-tuple-element(%c), index=1
  ROOT %less = pred[] compare(%n, %bound), direction=LT
}}
%body (b: (s32[], s32[], f32[8])) -> (s32[], s32[], f32[8]) {{
  %b = (s32[], s32[], f32[8]) parameter(0)
  ROOT %next = (s32[], s32[], f32[8]) copy(%b)
}}
ENTRY %main (p: (s32[], s32[], f32[8])) -> (s32[], s32[], f32[8]) {{
  %p = (s32[], s32[], f32[8]) parameter(0)
  ROOT %loop = (s32[], s32[], f32[8]) while(%p), condition=%cond, body=%body, metadata={{op_name="jit(f)/{scope}while"}}
}}
"""

RAGGED = """HloModule m, is_scheduled=true
ENTRY %main (rows: bf16[256,512], matrices: bf16[8,512,1024], sizes: s32[8]) -> bf16[256,1024] {{
  %rows = bf16[256,512] parameter(0)
  %matrices = bf16[8,512,1024] parameter(1)
  %sizes = s32[8] parameter(2)
  ROOT %kernel = bf16[256,1024] custom-call(%rows, %matrices, %sizes), custom_call_target="tpu_custom_call", {stated}
}}
"""
STATED = 'frontend_attributes={{ragged_dot_tiling="128,512,1024"}}, metadata={{op_name="jit(f)/{}ragged_dot"}}'


def step_of(text: str, name: str):
    schedule = read_schedule(parse_module(text))
    return next(step for steps in schedule.computations.values() for step in steps if step.name == name)


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_loop_over_experts_turns_as_often_as_the_program_states(turns):
    # What is outermost is another loop's.
    scope = f"{turns_scope(7)}/while/body/{turns_scope(turns)}/"
    assert step_of(LOOP.format(scope=scope), "loop").trips == turns


def test_a_loop_that_states_nothing_is_refused():
    with pytest.raises(UnreadableHlo, match="trip count"):
        read_schedule(parse_module(LOOP.format(scope="")))


def test_the_kernel_is_computation_and_reads_the_experts_that_have_rows():
    matrix, row_in, row_out = 2 * 512 * 1024, 2 * 512, 2 * 1024
    whole = step_of(RAGGED.format(stated=STATED.format("")), "kernel")
    assert whole.kind is Kind.COMPUTE
    assert whole.stated.bytes == 8 * matrix + 256 * (row_in + row_out)
    # 16 rows of 3 experts: the tile of 128 rows that has them is multiplied once for each.
    some = step_of(RAGGED.format(stated=STATED.format(f"{balanced_scope(16, 3)}/")), "kernel")
    assert some.stated.bytes == 3 * matrix + 16 * (row_in + row_out)
    assert some.stated.flops == 3 * 2 * 128 * 512 * 1024


def test_few_tokens_read_the_narrow_matrices_of_the_experts_that_they_choose():
    pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
    sizes = {"d_model": 1024, "num_heads": 8, "head_dim": 128, "num_experts": 32, "expert_d_ff": 512}
    asked = point(
        moe_model(num_layers=8, experts_per_token=2, **sizes),
        *("tpu-v5e",),
        num_chips=4,
        engine="compiled",
        phase="decode",
        batch_size=4,
        input_len=63,
        output_len=1,
        weight_dtype="int8",
    )
    target = target_of(asked.slice())
    plan = plan_of(target.resolve(asked), mesh_shape=target.device_mesh)
    request = CompileRequest(plan, target, compiler_for(asked.chip).libraries, "decode", 63, 1)
    schedule = read_schedule(parse_module(Compiler(Cache(None), {}).compile(request).text))
    # Of 8 experts on a chip a batch of 4 hits 1.8.
    turns = 2
    assert turns - 1 < distinct_experts(32, 2, 4) / 4 <= turns
    body = loop_of(schedule, turns)
    matrices = sum(move.bytes for step in body for move in step.transfers)
    expert = 3 * 1024 * 512
    assert expert <= matrices < 1.2 * expert
    assert {step.kind for step in body if step.hbm_bytes > expert / 4} == {Kind.COMPUTE}
