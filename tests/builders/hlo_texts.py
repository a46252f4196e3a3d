"""Small scheduled HLO texts whose times can be checked by hand."""

HEAD = "HloModule jit_step, is_scheduled=true, num_partitions={partitions}\n"
TABLES = """
FileNames
1 "/home/user/model.py"

FunctionNames
1 "layer"
2 "step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=12 end_line=12 column=4 end_column=9}
2 {file_name_id=1 function_name_id=2 line=30 end_line=30 column=4 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

"""


def cycles(count):
    return f'backend_config={{"window_config":{{"estimated_cycles":"{count}"}}}}'


def at(frame, operation="jit(step)/op"):
    return f'metadata={{op_name="{operation}" stack_frame_id={frame}}}'


def module(body, partitions=1, before=""):
    return HEAD.format(partitions=partitions) + TABLES + before + body


BOX = "bf16[1024,1024]{1,0:T(8,128)(2,1)}"
GATHERED = "bf16[4096,1024]{1,0:T(8,128)(2,1)}"
FOUR = "replica_groups={{0,1,2,3}}"


def gathers(*operands):
    """An entry that gathers each of these values, x or y or a copy of x."""
    lines = [
        f"  %x = {BOX} parameter(0), {at(1)}",
        f"  %y = {BOX} parameter(1), {at(1)}",
        f"  %moved = {BOX} copy(%x), {cycles(3000)}, {at(1)}",
    ]
    names = []
    for number, operand in enumerate(operands):
        names.append(f"%gather.{number}")
        lines.append(
            f"  %gather.{number} = {GATHERED} all-gather(%{operand}), channel_id={number + 1}, {FOUR}, "
            f"dimensions={{0}}, {at(1 + number % 2)}"
        )
    shapes = ", ".join(GATHERED for _ in names)
    lines.append(f"  ROOT %all = ({shapes}) tuple({', '.join(names)})")
    return module("ENTRY %main (x: bf16[1024,1024], y: bf16[1024,1024]) -> () {\n" + "\n".join(lines) + "\n}\n", 4)


def loop_that_gathers(turns=8, *, changes):
    """A loop of known trip count that gathers a value which its body passes on, or changes."""
    state = f"(s32[], {BOX}, {GATHERED})"
    passed = "%changed" if changes else "%value"
    body = f"""%body (state: (s32[], bf16[1024,1024], bf16[4096,1024])) -> (s32[], bf16[1024,1024], bf16[4096,1024]) {{
  %state = {state} parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %value = {BOX} get-tuple-element(%state), index=1
  %gather = {GATHERED} all-gather(%value), channel_id=1, {FOUR}, dimensions={{0}}, {at(1)}
  %changed = {BOX} fusion(%value), kind=kLoop, calls=%negated, {cycles(3000)}, {at(1)}
  %one = s32[] constant(1)
  %next = s32[] add(%count, %one)
  ROOT %result = {state} tuple(%next, {passed}, %gather)
}}

"""
    negated = f"""%negated (value.1: bf16[1024,1024]) -> bf16[1024,1024] {{
  %value.1 = {BOX} parameter(0)
  ROOT %negative = {BOX} negate(%value.1)
}}

"""
    condition = f"""%condition (state.1: (s32[], bf16[1024,1024], bf16[4096,1024])) -> pred[] {{
  %state.1 = {state} parameter(0)
  %count.1 = s32[] get-tuple-element(%state.1), index=0
  %bound = s32[] constant({turns})
  ROOT %less = pred[] compare(%count.1, %bound), direction=LT
}}

"""
    entry = f"""ENTRY %main (x: bf16[1024,1024], z: bf16[4096,1024]) -> () {{
  %x = {BOX} parameter(0)
  %z = {GATHERED} parameter(1)
  %zero = s32[] constant(0)
  %start = {state} tuple(%zero, %x, %z)
  ROOT %loop = {state} while(%start), condition=%condition, body=%body, {at(2)}
}}
"""
    return module(entry, 4, negated + body + condition)


def loop_of_unknown_turns():
    """A loop that ends when a value that it computes says so; a turn takes 15,000 cycles."""
    return module(
        f"""ENTRY %main (x: bf16[1024,1024]) -> bf16[1024,1024] {{
  %x = {BOX} parameter(0)
  ROOT %until = {BOX} while(%x), condition=%enough, body=%turn, {at(2)}
}}
""",
        before=f"""%turn (v: bf16[1024,1024]) -> bf16[1024,1024] {{
  %v = {BOX} parameter(0)
  ROOT %squared = {BOX} fusion(%v), kind=kLoop, calls=%body, {cycles(15000)}, {at(1)}
}}

%body (w: bf16[1024,1024]) -> bf16[1024,1024] {{
  %w = {BOX} parameter(0)
  ROOT %product = {BOX} multiply(%w, %w)
}}

%enough (u: bf16[1024,1024]) -> pred[] {{
  %u = {BOX} parameter(0)
  %zero = bf16[] constant(0)
  %sum = bf16[] reduce(%u, %zero), dimensions={{0,1}}, to_apply=%body
  ROOT %compared = pred[] compare(%sum, %zero), direction=LT
}}

""",
    )


def conditional(first=15000, second=60000):
    """A conditional whose branches take so many cycles."""
    branches = "".join(
        f"""%branch.{number} (v.{number}: bf16[1024,1024]) -> bf16[1024,1024] {{
  %v.{number} = {BOX} parameter(0)
  ROOT %work.{number} = {BOX} fusion(%v.{number}), kind=kLoop, calls=%body, {cycles(count)}, {at(1)}
}}

"""
        for number, count in enumerate((first, second))
    )
    body = f"""%body (w: bf16[1024,1024]) -> bf16[1024,1024] {{
  %w = {BOX} parameter(0)
  ROOT %product = {BOX} multiply(%w, %w)
}}

"""
    entry = f"""ENTRY %main (p: pred[], x: bf16[1024,1024]) -> bf16[1024,1024] {{
  %p = pred[] parameter(0)
  %x = {BOX} parameter(1)
  ROOT %chosen = {BOX} conditional(%p, %x, %x), true_computation=%branch.0, false_computation=%branch.1, {at(2)}
}}
"""
    return module(entry, before=body + branches)


def kernel(stated=True):
    """A Pallas kernel: 197 GFLOP and 81.9 MB by its own account, 1 ms and 0.1 ms on a v5e."""
    cost = (
        '"cost_estimate":{"flops":"197000000000","transcendentals":"0","bytes_accessed":"81900000"},' if stated else ""
    )
    config = f'backend_config={{"custom_call_config":{{{cost}"needs_layout_passes":true}}}}'
    return module(
        f"""ENTRY %main (x: bf16[1024,1024]) -> bf16[1024,1024] {{
  %x = {BOX} parameter(0)
  ROOT %attention = {BOX} custom-call(%x), custom_call_target="tpu_custom_call", {at(1)}, {config}
}}
"""
    )


def async_collective_fusion():
    """An all-gather that is sent while a matmul of 150,000 cycles computes, as XLA:TPU splits it into fusions."""
    mark = 'backend_config={"async_collective_fusion_config":{"flag_start":"2"}}'
    sent = f"all-gather(%a), channel_id=7, {FOUR}, dimensions={{0}}, {at(1)}, {mark}"
    state = f"({BOX}, {GATHERED}, u32[])"
    parts = f"""%start_of_it (a: bf16[1024,1024]) -> {state} {{
  %a = {BOX} parameter(0)
  %sent.0 = {GATHERED} {sent}
  ROOT %call.0 = {state} custom-call(%sent.0), custom_call_target="AsyncCollectiveStart"
}}

%beside_it (a: bf16[1024,1024], b: bf16[4096,1024], c: u32[], d: bf16[1024,1024]) -> {state} {{
  %a = {BOX} parameter(0)
  %b = {GATHERED} parameter(1)
  %c = u32[] parameter(2)
  %d = {BOX} parameter(3)
  %product = {BOX} convolution(%d, %d), dim_labels=bf_io->bf, {at(2)}
  %sent.1 = {GATHERED} {sent}
  ROOT %result.1 = ({BOX}, {GATHERED}, u32[], {BOX}) tuple(%a, %sent.1, %c, %product)
}}

%done_with_it (a: bf16[1024,1024], b: bf16[4096,1024], c: u32[]) -> bf16[4096,1024] {{
  %a = {BOX} parameter(0)
  %b = {GATHERED} parameter(1)
  %c = u32[] parameter(2)
  %sent.2 = {GATHERED} {sent}
  ROOT %call.2 = {GATHERED} custom-call(%a, %b, %sent.2, %c), custom_call_target="AsyncCollectiveDone"
}}

"""
    beside = f"kind=kOutput, calls=%beside_it, {at(2)}, {cycles(150000)}"
    entry = f"""ENTRY %main (x: bf16[1024,1024]) -> () {{
  %x = {BOX} parameter(0)
  %begun = {state} fusion(%x), kind=kCustom, calls=%start_of_it, {at(1)}
  %begun.0 = {BOX} get-tuple-element(%begun), index=0
  %begun.1 = {GATHERED} get-tuple-element(%begun), index=1
  %begun.2 = u32[] get-tuple-element(%begun), index=2
  %beside = ({BOX}, {GATHERED}, u32[], {BOX}) fusion(%begun.0, %begun.1, %begun.2, %x), {beside}
  %beside.0 = {BOX} get-tuple-element(%beside), index=0
  %beside.1 = {GATHERED} get-tuple-element(%beside), index=1
  %beside.2 = u32[] get-tuple-element(%beside), index=2
  %ended = {GATHERED} fusion(%beside.0, %beside.1, %beside.2), kind=kCustom, calls=%done_with_it, {at(1)}
  ROOT %result = ({GATHERED}) tuple(%ended)
}}
"""
    return module(entry, 4, parts)


def between_slices(kind="ALL_REDUCE", target='"{1,2}x{0:3}"', *, given=BOX, got=BOX, beside=0):
    """A collective that joins slices, with a computation of so many cycles between its send and the end of its recv."""
    told = (
        '_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="r_0",'
        f'_xla_megascale_target={target},_xla_megascale_transfer_type="{kind}"'
    )
    host = "is_host_transfer=true, frontend_attributes={"
    runtime = '_xla_host_transfer_handler_name="xla_megascale_runtime"}'
    body = f"""ENTRY %main (x: bf16[1024,1024]) -> bf16[1024,1024] {{
  %x = {given} parameter(0), {at(1)}
  %after-all = token[] after-all()
  %send = ({given}, u32[], token[]) send(%x, %after-all), channel_id=2, {host}{told}}}, {at(1)}
  %recv = ({got}, u32[], token[]) recv(%after-all), channel_id=1, {host}{told}}}, {at(1)}
  %beside = {BOX} copy(%x), {cycles(beside)}, {at(2)}
  %send-done = token[] send-done(%send), channel_id=2, {host}{runtime}
  %recv-done = ({got}, token[]) recv-done(%recv), channel_id=1, {host}{runtime}
  ROOT %result = {got} get-tuple-element(%recv-done), index=0
}}
"""
    return module(body, 4)
