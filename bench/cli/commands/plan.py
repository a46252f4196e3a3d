"""``shardbench plan``: the best way to cut a model over chips for a workload."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bench.cli.args import PRINT, Key
from engines.core.errors import InvalidRequest
from engines.core.layout import COLLECTIVES

if TYPE_CHECKING:
    from bench.planner.crossovers import Crossover
    from bench.planner.search import Candidate, SearchResult
    from bench.planner.workload import Workload

SUMMARY: Final = "pick chips, mesh, layouts and dtype for a workload, and say what the runners-up lose"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key("model", None, "the model, one of conf/model", required=True),
    Key("hw", "tpu-v4", "the chip, one of conf/hw"),
    Key("phase", "generate", "the workload's phase", ("prefill", "decode", "generate")),
    Key("objective", "latency", "what is to be best; limits hold for each", ("latency", "cost", "throughput")),
    Key("input_len", 2048, "tokens of the prompt, or in the cache of a decode"),
    Key("output_len", 64, "tokens generated"),
    Key("batch_size", "auto", "sequences: a number, a list to choose from, or auto (1 to 1024)"),
    Key("num_chips", "auto", "chips: a number, a list to choose from, or auto (up to max_chips)"),
    Key("max_chips", 256, "the most chips that num_chips=auto considers"),
    Key("weight_dtype", ["bfloat16", "int8"], "number format of the weights, or a list to choose from"),
    Key("collectives", "auto", "how TPU collectives run", COLLECTIVES),
    Key("latency_limit_s", None, "the longest that the whole phase may take, in seconds"),
    Key("step_limit_s", None, "the longest that a decode step may take, in seconds"),
    Key("hbm_limit_bytes", None, "the most memory that a chip may give"),
    Key("runners", 8, "runners-up to show"),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench plan model=palm-540b num_chips=64 phase=decode batch_size=64 input_len=1984 weight_dtype=int8",
    "shardbench plan model=palm-62b objective=cost latency_limit_s=3",
    "shardbench plan model=llama-3-70b hw=h100-80gb objective=throughput step_limit_s=0.03 weight_dtype=bfloat16",
)
SHORT: Final = {"compute_s": "compute", "memory_s": "memory", "communication_s": "links", "overhead_s": "fixed costs"}


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Search and print. Returns 1 where no plan fits, with what is missing and what would fit."""
    from bench.planner.crossovers import crossovers
    from bench.planner.search import search
    from bench.planner.shortfall import shortfall

    del verb
    found = search(workload_from(settings), runners=_integers("runners", settings["runners"])[0])
    as_json = settings["print"] == "json"
    if found.chosen is None:
        missing = shortfall(found)
        if as_json:
            print(json.dumps({"chosen": None, "runners_up": [], "crossovers": [], **missing.to_dict()}))
        else:
            print(missing.message)
        return 1
    turns = crossovers(found.chosen)
    if as_json:
        content = {
            "objective": found.workload.objective,
            "chosen": found.chosen.to_dict(),
            "runners_up": [plan.to_dict() for plan in found.runners_up],
            "crossovers": [each.to_dict() for each in turns],
        }
        print(json.dumps(content))
    else:
        _print(found, found.chosen, turns)
    return 0


def workload_from(settings: Mapping[str, Any]) -> "Workload":
    """The workload of a command's keys; those that a command does not have take plan's defaults.

    Raises:
        InvalidRequest: a name is unknown, or a number is none that suits.
    """
    from bench.planner.workload import Workload, counts_up_to
    from bench.sweep.catalog import load_chip, load_model

    asked = {key.name: key.default for key in KEYS} | dict(settings)
    chip = load_chip(str(asked["hw"]))
    counts, batches, dtypes = asked["num_chips"], asked["batch_size"], asked["weight_dtype"]
    most = _integers("max_chips", asked["max_chips"])[0]
    return Workload(
        model=load_model(str(asked["model"])),
        chip=chip,
        phase=asked["phase"],
        objective=asked["objective"],
        batch_sizes=tuple(2**power for power in range(11)) if batches == "auto" else _integers("batch_size", batches),
        input_len=_integers("input_len", asked["input_len"])[0],
        output_len=_integers("output_len", asked["output_len"])[0],
        weight_dtypes=tuple(str(dtype) for dtype in (dtypes if isinstance(dtypes, list) else [dtypes])),
        num_chips=counts_up_to(chip, most) if counts == "auto" else _integers("num_chips", counts),
        collectives=asked["collectives"],
        latency_limit_s=_positive("latency_limit_s", asked["latency_limit_s"]),
        step_limit_s=_positive("step_limit_s", asked["step_limit_s"]),
        hbm_limit_bytes=_positive("hbm_limit_bytes", asked["hbm_limit_bytes"]),
    )


def _integers(key: str, value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not isinstance(each, int) or isinstance(each, bool) or each < (0 if key in ("runners", "input_len") else 1):
            raise InvalidRequest(key, value, "must be an integer in range", "give one such as 64, or a list")
    if not values:
        raise InvalidRequest(key, value, "is empty", "give a number, or a list such as [1,64]")
    return tuple(values)


def _positive(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
        raise InvalidRequest(key, value, "is no limit", "give a number above 0, or leave it out")
    return float(value)


def _print(found: "SearchResult", chosen: "Candidate", turns: "Sequence[Crossover]") -> None:
    from rich.console import Console
    from rich.table import Table

    workload = found.workload
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(
        f"{workload.model.name} on {workload.chip.name}, {workload.phase}, {workload.input_len} in, "
        f"{workload.output_len if workload.phase != 'prefill' else 0} out: the best for {workload.objective}"
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    headings = (
        *("loss", "chips", "mesh", "weights", "batch", "layouts"),
        *("latency", "step", "chip-s/token", "tokens/s", "GB/chip", "binds", "loses by"),
    )
    for heading in headings:
        table.add_column(heading)
    for plan in (chosen, *found.runners_up):
        table.add_row(*_cells(plan), style="bold" if plan is chosen else None)
    console.print(table)
    for each in turns:
        closed = "" if each.closed_form is None else f" (volume alone: {each.closed_form:,.0f})"
        console.print(f"{each.before} → {each.after} from {each.at:,.0f} {each.unit}{closed}")


def _cells(plan: "Candidate") -> list[str]:
    point = plan.point
    gpu = point.chip.kind == "gpu"
    mesh = f"tp{point.tensor_degree} pp{point.pipeline_degree}" if gpu else "×".join(map(str, point.mesh))
    layouts = [f"{phase} {layout}/{attention}" for phase, (layout, attention) in plan.layouts.items()]
    return [
        "best" if plan.worse_term is None else f"+{plan.loss:.1%}",
        str(point.num_chips),
        mesh,
        point.weight_dtype,
        str(point.batch_size),
        "" if point.num_chips == 1 else ", ".join(layouts),
        f"{plan.latency_s:.4g} s",
        "" if plan.step_time_s is None else f"{plan.step_time_s * 1e3:.3g} ms",
        f"{plan.cost_chip_s_per_token:.3g}",
        f"{plan.tokens_per_s:,.0f}",
        f"{plan.peak_hbm_bytes / 1e9:.1f}",
        SHORT[plan.binding_term],
        "" if plan.worse_term is None else SHORT[plan.worse_term],
    ]
