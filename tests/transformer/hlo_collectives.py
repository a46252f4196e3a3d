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
from partitioned_case import TIME

from engines.compiled.hlo.replica_groups import parse_groups
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import abstract_arguments, make_prefill

BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "s32": 4, "u32": 4}
LINE = re.compile(
    r" = (?P<shape>\([^)]*\)|\S+) (?P<kind>all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute)\("
)
GROUPS = re.compile(r"replica_groups=(mesh\[[^{]*\{[^}]*\}|\{\{.*?\}\}|\S+?)(?:, |$)")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def loop_collectives(text: str, mesh_shape) -> Counter:
    """(kind, axes, payload in bytes) → how often, in bodies of while loops; a prefill has one, its layers.

    A permute names pairs rather than groups, so its axes are left empty.
    """
    groups = {_groups(mesh_shape, axes): axes for axes in ("x", "y", "z", "xy", "xz", "yz", "xyz")}
    bodies = set(re.findall(r" while\(.*?body=(%[\w.\-]+)", text))
    found: Counter = Counter()
    inside = False
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            inside = line.split()[0] in bodies
        match = LINE.search(line)
        if not inside or not match:
            continue
        size = sum(
            BYTES[dtype] * math.prod(int(each) for each in dims.split(",") if each)
            for dtype, dims in ARRAY.findall(re.sub(r"/\*.*?\*/", "", match["shape"]))
        )
        if match["kind"] == "collective-permute":
            found["collective-permute", "", size] += 1
            continue
        members = parse_groups(GROUPS.search(line)[1], math.prod(mesh_shape))
        if match["kind"] == "reduce-scatter":
            size *= len(members[0])
        found[match["kind"], groups[_key(members)], size] += 1
    return found


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
    """Print, for each case given as JSON, its collectives: of a dense model by its name, of experts by a mesh."""
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
