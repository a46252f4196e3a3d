"""Collectives of the layer loop of a compiled program, read from its HLO text. Run as a script, it prints them."""

import json
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from itertools import product

from builders.models import MODELS, moe_model
from builders.plans import mesh_of, plan_of
from compiling import plainly
from partitioned_case import STEPS, TIME

from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.replica_groups import parse_groups
from engines.compiled.hlo.trip_count import trip_count
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import abstract_arguments, make_decode, make_prefill

LONG_TIME = 13
"""Tokens of a prompt whose positions are split: no multiple of the chips."""
BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "s32": 4, "u32": 4}
LINE = re.compile(
    r" = (?P<shape>\([^)]*\)|\S+) (?P<kind>all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute)\("
)
GROUPS = re.compile(r"replica_groups=(mesh\[[^{]*\{[^}]*\}|\{\{.*?\}\}|\S+?)(?:, |$)")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def loop_collectives(text: str, mesh_shape, layers: int | None = None) -> Counter:
    """(kind, axes, payload in bytes) → how often, in bodies of while loops; a prefill has one, its layers.

    A permute names pairs rather than groups, so its axes are left empty. With ``layers`` only one turn of the loops of
    so many turns counts, with every turn of loops within them.
    """
    groups = {_groups(mesh_shape, axes): axes for axes in ("x", "y", "z", "xy", "xz", "yz", "xyz")}
    bodies = set(re.findall(r" while\(.*?body=(%[\w.\-]+)", text))
    times = dict.fromkeys(bodies, 1) if layers is None else _turns_a_layer(text, layers)
    found: Counter = Counter()
    inside = 0
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            inside = times.get(line.split()[0], 0)
        match = LINE.search(line)
        if not inside or not match:
            continue
        size = sum(
            BYTES[dtype] * math.prod(int(each) for each in dims.split(",") if each)
            for dtype, dims in ARRAY.findall(re.sub(r"/\*.*?\*/", "", match["shape"]))
        )
        if match["kind"] == "collective-permute":
            found["collective-permute", "", size] += inside
            continue
        members = parse_groups(GROUPS.search(line)[1], math.prod(mesh_shape))
        if match["kind"] == "reduce-scatter":
            size *= len(members[0])
        found[match["kind"], groups[_key(members)], size] += inside
    return found


def _turns_a_layer(text: str, layers: int) -> dict[str, int]:
    """Body of a loop → how often it runs for each turn of the loop over so many layers; not those outside of it."""
    module = parse_module(text)
    loops = [
        (computation.name, each.called("body")[0], trip_count(module, computation, each))
        for computation in module.computations.values()
        for each in computation.instructions
        if each.opcode == "while"
    ]
    found = {body: 1 for _, body, turns in loops if turns == layers}
    for _ in loops:
        found |= {body: found[outer] * turns for outer, body, turns in loops if outer in found}
    return {f"%{body}": turns for body, turns in found.items()}


def _key(members) -> frozenset:
    return frozenset(frozenset(part) for part in members)


def _groups(mesh_shape, axes: str) -> frozenset:
    """The groups of chips that differ along ``axes`` alone; chips count with z fastest."""
    parts: dict = {}
    for number, place in enumerate(product(*(range(size) for size in mesh_shape))):
        apart = tuple(at for axis, at in zip("xyz", place, strict=True) if axis not in axes)
        parts.setdefault(apart, []).append(number)
    return _key(parts.values())


def one_sequence_a_chip(model: str, mesh_shape, ffn_layout: str, attn_sharding: str, weight_dtype="float32") -> Plan:
    """A plan whose every dimension is a multiple of the number of chips."""
    chips, base = math.prod(mesh_shape), MODELS[model]
    kv = chips if base.num_kv_heads == base.num_heads else base.num_kv_heads
    sizes = {"d_model": 4 * chips, "d_ff": 8 * chips, "num_heads": chips, "vocab_size": 2 * chips}
    sized = replace(base, num_kv_heads=kv, **sizes)
    return plan_of(sized, mesh_shape, ffn_layout, attn_sharding, chips, cache_len=TIME, weight_dtype=weight_dtype)


def compiled_prefill(*layout) -> tuple[Plan, str]:
    """The plan of ``one_sequence_a_chip``, and the HLO text of its prefill."""
    plan = one_sequence_a_chip(*layout)
    mesh = mesh_of(plan.mesh_shape)
    lowered = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"])
    return plan, lowered.compile(plainly()).as_text()


def long_sequence(model: str, ffn_layout: str, batch_size: int, changes, mesh_shape) -> Plan:
    """A plan with attention over the sequence."""
    plan = one_sequence_a_chip(model, tuple(mesh_shape), "ws_1d", "batch")
    return plan_of(
        plan.model, plan.mesh_shape, ffn_layout, "sequence", batch_size, cache_len=LONG_TIME + STEPS, **changes
    )


def layer_collectives(plan: Plan, phase: str) -> Counter:
    """The collectives of a layer of a compiled prefill of :data:`LONG_TIME` tokens, or of a decode step."""
    mesh = mesh_of(plan.mesh_shape)
    program = make_prefill(plan, mesh) if phase == "prefill" else make_decode(plan, mesh, 2 * STEPS)
    lowered = program.lower(*abstract_arguments(plan, mesh, LONG_TIME)[phase])
    return loop_collectives(lowered.compile(plainly()).as_text(), plan.mesh_shape, plan.model.num_layers)


def experts_plan(mesh_shape, ffn_layout: str, expert_axes: str, expert_dispatch: str, changes=None, **rest) -> Plan:
    """A plan of a model with experts, every dimension a multiple of the chips and one sequence on each of them."""
    chips = math.prod(mesh_shape)
    sizes = {"d_model": 4 * chips, "num_heads": chips, "vocab_size": 2 * chips, "num_experts": chips}
    model = moe_model(**{**sizes, "expert_d_ff": 4 * chips, "num_kv_heads": chips, **(changes or {})})
    return plan_of(
        model,
        mesh_shape,
        ffn_layout,
        "heads",
        chips,
        cache_len=TIME,
        expert_axes=expert_axes,
        expert_dispatch=expert_dispatch,
        **rest,
    )


def compiled_experts(*layout, **rest) -> tuple[Plan, str]:
    """The plan of ``experts_plan``, and the HLO text of its prefill."""
    plan = experts_plan(*layout, **rest)
    mesh = mesh_of(plan.mesh_shape)
    lowered = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"])
    return plan, lowered.compile(plainly()).as_text()


def main() -> None:
    """Print, for each case given as JSON, its collectives: of a dense model by its name, of experts by a mesh.

    With ``long`` they are cases of :func:`long_sequence`.
    """
    if sys.argv[2:] == ["long"]:
        for *case, phase in json.loads(sys.argv[1]):
            found = layer_collectives(long_sequence(*case), phase)
            print(json.dumps(sorted([*key, count] for key, count in found.items() if count)))
        return
    for first, *rest in json.loads(sys.argv[1]):
        if isinstance(first, str):
            mesh_shape = tuple(rest[0])
            _, text = compiled_prefill(first, mesh_shape, *rest[1:])
        else:
            mesh_shape = tuple(first)
            *layout, settings = rest
            _, text = compiled_experts(mesh_shape, *layout, **settings)
        print(json.dumps(sorted([*key, count] for key, count in loop_collectives(text, mesh_shape).items())))


if __name__ == "__main__":
    main()
