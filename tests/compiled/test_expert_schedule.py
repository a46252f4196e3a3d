"""What a compiled schedule says of experts: how often a loop over them turns, and which weights a kernel reads."""

import pytest
from builders.models import moe_model
from builders.points import point
from compiled_cases import ask, loop_of

from engines.compiled.compile.cache import Cache, CompiledProgram
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

ON_GPU = """HloModule m, is_scheduled=true
%less (a: s32[], b: s32[]) -> pred[] {{
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %lt = pred[] compare(%a, %b), direction=LT
}}
%cond (c: (s32[], bf16[16,64], s32[])) -> pred[] {{
  %c = (s32[], bf16[16,64]{{1,0}}, s32[]) parameter(0)
  %number = s32[] get-tuple-element(%c), index=0
  %blocks = s32[] get-tuple-element(%c), index=2
  ROOT %wrapped_compare = pred[] fusion(%number, %blocks), kind=kLoop, calls=%less
}}
%inner_body (i: (s32[], s32[])) -> (s32[], s32[]) {{
  %i = (s32[], s32[]) parameter(0)
  ROOT %same.1 = (s32[], s32[]) copy(%i)
}}
%inner_cond (j: (s32[], s32[])) -> pred[] {{
  %j = (s32[], s32[]) parameter(0)
  %part = s32[] get-tuple-element(%j), index=0
  %end = s32[] get-tuple-element(%j), index=1
  ROOT %wrapped_compare.1 = pred[] fusion(%part, %end), kind=kLoop, calls=%less
}}
%body (b: (s32[], bf16[16,64], s32[])) -> (s32[], bf16[16,64], s32[]) {{
  %b = (s32[], bf16[16,64]{{1,0}}, s32[]) parameter(0)
  %at = s32[] get-tuple-element(%b), index=0
  %parts = (s32[], s32[]) tuple(%at, %at)
  %inner = (s32[], s32[]) while(%parts), condition=%inner_cond, body=%inner_body, {inner}
  ROOT %same = (s32[], bf16[16,64]{{1,0}}, s32[]) copy(%b)
}}
ENTRY %main (p: (s32[], bf16[16,64], s32[])) -> (s32[], bf16[16,64], s32[]) {{
  %p = (s32[], bf16[16,64]{{1,0}}, s32[]) parameter(0)
  ROOT %loop = (s32[], bf16[16,64]{{1,0}}, s32[]) while(%p), condition=%cond, body=%body, {outer}
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


def request_of(asked, input_len):
    """Its decode of one step, in the layout that is chosen first."""
    target = target_of(asked.slice())
    plan = plan_of(target.resolve(asked), mesh_shape=target.device_mesh)
    return CompileRequest(plan, target, compiler_for(asked.chip).libraries, "decode", input_len, 1)


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_loop_over_experts_turns_as_often_as_the_program_states(turns):
    # What is outermost is another loop's.
    scope = f"{turns_scope(7)}/while/body/{turns_scope(turns)}/"
    assert step_of(LOOP.format(scope=scope), "loop").trips == turns


def test_a_loop_that_states_nothing_is_refused():
    with pytest.raises(UnreadableHlo, match="trip count"):
        read_schedule(parse_module(LOOP.format(scope="")))


def test_a_gpu_s_loop_over_blocks_states_its_own_turns_and_none_of_a_loop_inside_it():
    outer = f'metadata={{op_name="jit(f)/{turns_scope(7)}/while"}}'
    inside = f'metadata={{op_name="jit(f)/{turns_scope(7)}/while/body/while"}}'
    known = 'backend_config={"known_trip_count":{"n":"64"},"dynamic_variables":[]}'
    text = ON_GPU.format(outer=outer, inner=f"{inside}, {known}")
    assert (step_of(text, "loop").trips, step_of(text, "inner").trips) == (7, 64)
    with pytest.raises(UnreadableHlo, match="loop inner: its trip count"):
        read_schedule(parse_module(ON_GPU.format(outer=outer, inner=inside)))


def test_the_kernel_is_computation_and_reads_the_experts_that_have_rows():
    matrix, row_in, row_out = 2 * 512 * 1024, 2 * 512, 2 * 1024
    whole = step_of(RAGGED.format(stated=STATED.format("")), "kernel")
    assert whole.kind is Kind.COMPUTE
    assert whole.stated.bytes == 8 * matrix + 256 * (row_in + row_out)
    # 16 rows of 3 experts: the tile of 128 rows that has them is multiplied once for each.
    some = step_of(RAGGED.format(stated=STATED.format(f"{balanced_scope(16, 3)}/")), "kernel")
    assert some.stated.bytes == 3 * matrix + 16 * (row_in + row_out)
    assert some.stated.flops == 3 * 2 * 128 * 512 * 1024


def test_a_gpu_reads_an_expert_once_a_block_also_where_a_program_was_kept_that_did_not_state_it(tmp_path):
    pytest.importorskip("jax_plugins.xla_cuda12", reason="the compiler comes with shardbench[gpu-compiler]")
    sizes = {"d_model": 512, "num_heads": 8, "head_dim": 64, "num_experts": 16, "expert_d_ff": 1024}
    asked = point(
        moe_model(num_layers=5, experts_per_token=2, **sizes),
        *("h100-80gb",),
        num_chips=2,
        engine="compiled",
        phase="decode",
        batch_size=8,
        input_len=15,
        output_len=1,
    )
    cache, request = Cache(str(tmp_path)), request_of(asked, 15)
    key = Compiler(cache, {}).key(request)
    memory = dict.fromkeys(("argument", "output", "alias", "temp", "generated_code"), 1.0)
    cache.put(key, CompiledProgram(text=LOOP.format(scope=""), memory=memory, compile_s=0.0))
    answer, engine = ask(asked, cache_dir=str(tmp_path))
    assert answer.status == "ok", answer.error
    assert engine.compiler.compilations == 1
    # A block has 8 rows, all that there may be of one expert. Of 16 experts 8 tokens hit 10.5, of 8 on a chip 5.25.
    turns = 6
    assert turns - 1 < distinct_experts(16, 2, 8) / 2 <= turns
    schedule = read_schedule(parse_module(cache.get(key).text))
    body = loop_of(schedule, turns)
    assert not any(step.kind is Kind.LOOP for step in body)  # a GPU starts one kernel for a matrix
    read = sum(move.bytes for step in body for move in step.transfers)
    assert read >= 3 * 512 * 1024 * 2


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
    schedule = read_schedule(parse_module(Compiler(Cache(None), {}).compile(request_of(asked, 63)).text))
    # Of 8 experts on a chip a batch of 4 hits 1.8.
    turns = 2
    assert turns - 1 < distinct_experts(32, 2, 4) / 4 <= turns
    body = loop_of(schedule, turns)
    matrices = sum(move.bytes for step in body for move in step.transfers)
    expert = 3 * 1024 * 512
    assert expert <= matrices < 1.2 * expert
    assert {step.kind for step in body if step.hbm_bytes > expert / 4} == {Kind.COMPUTE}
