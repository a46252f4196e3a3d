"""Versions stand for plans and their times: one is raised where a plan comes out differently."""

from pathlib import Path

import versioned_answers
from alpa_cases import a_point
from versioned_answers import rounded

from engines.analytic.alpa.estimate import ALPA_VERSION, PLANNED_EXPERTS_VERSION
from engines.analytic.alpa.exported import choice_of_shardings
from engines.analytic.alpa.planner import evaluated, planned
from engines.core.shardings import Shardings, sharded_values

DATA = Path(__file__).parent / "data"


def test_answers_are_those_of_the_version():
    """Seconds of the best plan, of the named layouts and of shardings that no plan has."""
    answers = {}
    for model in ("palm-8b", "gpt-j-6b", "llama-3-8b"):
        for phase in ("prefill", "decode", "generate"):
            if model == "llama-3-8b" and phase != "decode":
                continue
            point = a_point(model, 4, mesh_shape=(1, 2, 2), phase=phase, planner="alpa")
            plan = planned(point)
            stages = plan.pipeline.seconds if plan.pipeline else 0.0
            answers[f"{model} {phase}"] = [rounded(each) for each in (plan.seconds, stages, *plan.named_s.values())]
    plan = planned(a_point(hw="h100-80gb", weight_dtype="bfloat16", planner="alpa"))
    answers["llama-3-8b decode on GPUs"] = [rounded(each) for each in (plan.seconds, *plan.named_s.values())]
    point = a_point("palm-8b", 8, mesh_shape=(2, 2, 2))
    odd = {name: ("x", "y", "z")[:dims] for name, dims in sharded_values(point.model).items()}
    found = evaluated(point, choice_of_shardings(Shardings.of(odd)))["decode"]
    answers["palm-8b odd shardings"] = [rounded(found.seconds), rounded(found.peak_bytes)]
    versioned_answers.check(DATA / "answers_by_alpa.json", "ALPA_VERSION", ALPA_VERSION, answers)


def test_answers_of_experts_are_those_of_their_version():
    answers = {}
    for chip, count in (("h100-80gb", 8), ("tpu-v5e", 16)):
        plan = planned(a_point("mixtral-8x7b", count, hw=chip, batch_size=16, planner="alpa"), stages=False)
        named = [rounded(each) for each in sorted(plan.named_s.values())[:4]]
        answers[f"mixtral-8x7b decode on {chip}"] = [rounded(plan.seconds), *named]
    table = DATA / "answers_of_planned_experts.json"
    versioned_answers.check(table, "PLANNED_EXPERTS_VERSION", PLANNED_EXPERTS_VERSION, answers)
