"""A program small enough to time by hand, and the machine that it is timed on."""

from engines.compiled.cost.torus import Torus
from engines.compiled.cost.tpu import TpuCostModel
from engines.core.chip import LinkConstants


def cycles(count):
    return f'backend_config={{"window_config":{{"estimated_cycles":"{count}"}}}}'


RING = "{{0,1},{1,2},{2,3},{3,0}}"
# A loop of five turns: each sends 1 MB one hop along z while a fusion of 1000 cycles runs, then 3000 cycles more.
PROGRAM = f"""\
HloModule jit_step, is_scheduled=true, entry_computation_layout={{(f32[262144])->f32[262144]}}, num_partitions=4

%work (p0: f32[262144]) -> f32[262144] {{
  %p0 = f32[262144]{{0}} parameter(0)
  ROOT %neg = f32[262144]{{0}} negate(%p0)
}}

%cond (c: (s32[], f32[262144])) -> pred[] {{
  %c = (s32[], f32[262144]{{0}}) parameter(0)
  %limit = s32[] constant(5)
  %at = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%at, %limit), direction=LT
}}

%body (b: (s32[], f32[262144])) -> (s32[], f32[262144]) {{
  %b = (s32[], f32[262144]{{0}}) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = f32[262144]{{0}} get-tuple-element(%b), index=1
  %send = (f32[262144]{{0}}, f32[262144]{{0}}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={RING}
  %beside = f32[262144]{{0}} fusion(%x), kind=kLoop, calls=%work, {cycles(1000)}
  %got = f32[262144]{{0}} collective-permute-done(%send)
  %after = f32[262144]{{0}} fusion(%got), kind=kLoop, calls=%work, {cycles(3000)}
  ROOT %out = (s32[], f32[262144]{{0}}) tuple(%next, %after)
}}

ENTRY %main (arg: f32[262144]) -> f32[262144] {{
  %arg = f32[262144]{{0}} parameter(0)
  %zero = s32[] constant(0)
  %state = (s32[], f32[262144]{{0}}) tuple(%zero, %arg)
  %loop = (s32[], f32[262144]{{0}}) while(%state), condition=%cond, body=%body
  ROOT %result = f32[262144]{{0}} get-tuple-element(%loop), index=1
}}
"""
TORUS = Torus(shape=(1, 1, 4), wrap=(False, False, True), link_bytes_per_s=50e9)
LINKS = LinkConstants(link_efficiency=0.8, hop_s=1e-6, launch_s=0.0)
MACHINE = TpuCostModel(clock_hz=1e9, hbm_bytes_per_s=1e13, torus=TORUS, links=LINKS)
MEGABYTE = 4 * 262144
