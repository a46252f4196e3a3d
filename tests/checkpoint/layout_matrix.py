"""Every layout that a model admits on 2×2×2, and a way to run each, such that any two choices meet in some case."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engines.core.errors import InvalidRequest
from engines.core.layout import EXPERT_AXES, LAYOUTS, VARIANTS
from engines.core.model import Model
from engines.transformer.options import PrefillOptions
from engines.transformer.partition.plan import Plan

SHAPE = (2, 2, 2)
BATCH, TIME = 8, 12
Pair = frozenset[tuple[str, Any]]
"""Two choices: what is chosen, and its value."""
Options = dict[Any, dict[str, Any]]
"""Value → the fields of a plan that it sets."""
NO_PROMPT = "no prompt"
RUNS: Options = {name: {"collectives": name} for name in VARIANTS} | {"the compiler's": {"partitioner": "gspmd"}}
PROMPTS: Options = {
    NO_PROMPT: {},
    "at once": {"prefill": PrefillOptions()},
    "in chunks and blocks": {"prefill": PrefillOptions(chunk=4, attention="blockwise", block=3)},
}
LOOPS: Options = {"looped": {}, "unrolled": {"unrolled": True}}
FORMS: Options = {form: {"latent_attention": form} for form in ("absorbed", "expanded")}
SPLITS: Options = {axes: {"expert_axes": axes} for axes in EXPERT_AXES if axes not in ("auto", "none")}
SENDS: Options = {sent: {"expert_dispatch": sent} for sent in ("all_to_all", "gather")}


@dataclass(frozen=True)
class Case:
    """A plan, and what was chosen for it."""

    plan: Plan
    chosen: dict[str, Any]


@dataclass
class Covering:
    """``cases`` by model; the pairs of choices that were possible as cases were made, and those that some case has."""

    cases: dict[str, list[Case]] = field(default_factory=dict)
    possible: set[Pair] = field(default_factory=set)
    met: set[Pair] = field(default_factory=set)


def covering(models: Mapping[str, Model], everywhere: Collection[str]) -> Covering:
    """Cases, each such that most pairs of choices meet in it for the first time.

    A model of ``everywhere`` is in every layout, another in each feed-forward layout and with each attention sharding.
    """
    found = Covering()
    for name, model in models.items():
        found.cases[name] = []
        by_ffn = itertools.groupby(layouts_of(model), lambda plan: plan.ffn_layout)
        groups = [list(plans) for _, plans in by_ffn]
        alone = name not in everywhere
        for group in groups if alone else [[plan] for plans in groups for plan in plans]:
            chosen = {"model": name, "feed-forward": group[0].ffn_layout}
            plan = _choose(found, chosen, "attention", {plan.attn_sharding: plan for plan in group})
            for key, values in _ways(model).items():
                if key == "run":  # this and what follows is to meet every layout, and not each half of it alone
                    chosen["layout"] = plan.ffn_layout, plan.attn_sharding
                options = {value: made for value, fields in values.items() if (made := _admitted(plan, fields))}
                plan = _choose(found, chosen, key, options, without_model=alone or key in ("loop", "prompt"))
            found.cases[name].append(Case(plan, chosen))
    return found


def _choose(
    found: Covering, chosen: dict[str, Any], key: str, options: dict[Any, Plan], without_model: bool = False
) -> Plan:
    """Choose that of ``options`` of which most pairs with what is ``chosen`` are new; of those alike the first."""
    with_what = {other: has for other, has in chosen.items() if other != "model" or not without_model}
    pairs = {value: {frozenset({(key, value), each}) for each in with_what.items()} for value in options}
    if key == "prompt":  # every model reads one, whichever
        for value, own in pairs.items():
            own.add(frozenset({(key, value != NO_PROMPT), ("model", chosen["model"])}))
    best = max(options, key=lambda value: len(pairs[value] - found.met))
    found.possible |= set().union(*pairs.values())
    found.met |= pairs[best]
    chosen[key] = best
    return options[best]


def layouts_of(model: Model) -> list[Plan]:
    """A plan for each feed-forward layout and attention sharding that the model admits; of those alike the first."""
    found: dict[Any, Plan] = {}
    for ffn_layout, attn_sharding in itertools.product(LAYOUTS, ("sequence", "batch", "heads")):
        plan = Plan(
            model=model,
            mesh_shape=SHAPE,
            ffn_layout=ffn_layout,
            attn_sharding=attn_sharding,
            batch_size=BATCH,
            cache_len=TIME,
        )
        if _admitted(plan, {}):
            found.setdefault((ffn_layout, plan.axes.attention, plan.axes.positions), plan)
    return list(found.values())


def _ways(model: Model) -> dict[str, Options]:
    """What is left to choose of a layout."""
    found: dict[str, Options] = {}
    if model.experts is not None:
        found |= {"expert axes": SPLITS, "expert dispatch": SENDS}
    if model.attention.is_latent:
        found["form"] = FORMS
    return found | {"run": RUNS, "prompt": PROMPTS, "loop": LOOPS}


def _admitted(plan: Plan, fields: dict[str, Any]) -> Plan | None:
    """The plan with those fields, where it can be."""
    made = replace(plan, **fields)
    try:
        made.check()
    except InvalidRequest:
        return None
    return made
