"""Alpa's plan and the closed forms' choice, printed."""

import json

from bench.planner.alpa import Comparison, compare, sentence, sharding_rows, write_plan
from bench.planner.search import SearchResult
from bench.planner.shortfall import shortfall
from bench.planner.workload import Workload
from engines.core.text import significant


def show(workload: Workload, *, out: str | None, as_json: bool) -> int:
    """Plan, print and write to ``out``. Returns 1 where nothing fits.

    Raises:
        InvalidRequest, Unsupported, OutOfMemory: there is no plan, or the file cannot be written.
    """
    found = compare(workload)
    if isinstance(found, SearchResult):
        missing = shortfall(found)
        print(json.dumps({"plan": None, **missing.to_dict()}) if as_json else missing.message)
        return 1
    if out is not None:
        write_plan(found, out)
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        _print(found)
        if out is not None:
            print(f"plan in {out}; run it with shardings={out} partitioner=gspmd")
    return 0


def _print(found: Comparison) -> None:
    from bench.run import terminal

    point, plan, console = found.point, found.plan, terminal.console()
    mesh = "×".join(map(str, point.mesh))
    console.print(
        f"{point.model.name} on {point.num_chips} {point.chip.name} ({mesh}), {point.phase}, batch {point.batch_size}, "
        f"{point.input_len} in, {point.weight_dtype}"
    )
    table = terminal.table()
    what = {"decode": "step", "prefill": "prefill", "generate": "generation"}[point.phase]
    for heading in ("planner", "plan", "partitioned by", f"{what}, closed form", f"{what}, by operator", "planning"):
        table.add_column(heading)
    table.add_row("auto", found.choice, "manual", _ms(found.manual_s), "", f"{significant(found.closed_form_s)} s")
    table.add_row("auto", found.choice, "gspmd", _ms(found.gspmd_s), _ms(found.named_s), "")
    best = plan.best_named
    if best is not None and "/".join(best) != found.choice:
        table.add_row("best named", "/".join(best), "gspmd", "", _ms(plan.named_s[best]), "")
    own = "/".join(plan.name) if plan.name else f"shardings {plan.shardings.digest}"
    table.add_row("alpa", own, "gspmd", "", _ms(plan.seconds), f"{significant(plan.planning_s)} s", style="bold")
    console.print(table)
    console.print(sentence(found))
    cuts = terminal.table()
    for heading in ("value", "split", "matrix in memory"):
        cuts.add_column(heading)
    for row in sharding_rows(found):
        cuts.add_row(row["value"], row["split"], row["matrix in memory"])
    console.print(cuts)
    if plan.pipeline is not None:
        stages = ", ".join(f"{n} layers on {'×'.join(map(str, mesh))}" for n, mesh in plan.pipeline.stages)
        count = plan.pipeline.micro_batches
        more = f" in {count} micro-batches" if count > 1 else ""
        console.print(f"stages: {stages}{more}, {_ms(plan.pipeline.seconds)}")


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{significant(seconds * 1e3, 4)} ms"
