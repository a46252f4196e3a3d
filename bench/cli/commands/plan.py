"""``shardbench plan``: the best partitioning of a model over chips for a workload."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bench.cli.args import PRICE, PRINT, Key
from bench.cli.values import Choice, FilePath, Integer, ListOf, Number, Text
from engines.core.dtypes import BYTES_PER_ELEMENT
from engines.core.errors import InvalidRequest
from engines.core.layout import COLLECTIVES
from engines.core.method_keys import PLANNERS, SPECULATIVES
from engines.core.point_keys import FIRST_TOKENS, OFFLOADS, OFFLOADS_KV
from engines.core.text import significant

if TYPE_CHECKING:
    from bench.planner.chips import OfChip
    from bench.planner.crossovers import Crossover
    from bench.planner.search import Candidate, SearchResult
    from bench.planner.workload import Workload
    from bench.rows.prices import Prices

SUMMARY: Final = "choose chips, mesh, layouts and dtype for a workload, and compare it with the runners-up"
VERBS: Final[Mapping[str, str]] = {}
SIZES: Final = ListOf(Integer(1), words=("auto",))
WEIGHT_DTYPES: Final = ListOf(Choice(tuple(BYTES_PER_ELEMENT)))
KEYS: Final = (
    Key("model", None, "the model, one of conf/model", required=True),
    Key("hw", ["tpu-v4"], "the chip, one of conf/hw, or a list to choose from", kind=ListOf(Text())),
    Key("runtime", "auto", "the runtime to predict, one of conf/runtime; auto is best"),
    Key("phase", "generate", "the workload's phase", ("prefill", "decode", "generate")),
    Key(
        "objective",
        "latency",
        "what to optimise; limits apply to each; cost is in dollars with price=",
        ("latency", "cost", "throughput"),
    ),
    Key("input_len", 2048, "tokens of the prompt, or in the cache of a decode", kind=Integer(0)),
    Key("output_len", 64, "tokens generated", kind=Integer(1)),
    Key("first_token", "auto", "the pass that samples the first token; auto is decode", FIRST_TOKENS),
    Key("batch_size", "auto", "sequences: a number, a list to choose from, or auto (1 to 1024)", kind=SIZES),
    Key("num_chips", "auto", "chips: a number, a list to choose from, or auto (up to max_chips)", kind=SIZES),
    Key("max_chips", 256, "largest number of chips for num_chips=auto", kind=Integer(1)),
    Key("weight_dtype", ["bfloat16", "int8"], "dtype of the weights, or a list to choose from", kind=WEIGHT_DTYPES),
    Key("collectives", "auto", "how communication overlaps the MXU", COLLECTIVES),
    Key("latency_limit_s", None, "largest latency of the whole phase, in seconds", kind=Number(above=0)),
    Key("step_limit_s", None, "largest time of a decode step, in seconds", kind=Number(above=0)),
    Key("hbm_limit_bytes", None, "largest memory use of a chip, in bytes", kind=Number(above=0)),
    Key("micro_batches", "auto", "of a pipeline: a number, a list to choose from, or auto", kind=SIZES),
    Key("offload", "none", "where the layers' weights wait", OFFLOADS),
    Key("offload_kv", "none", "where the cache waits", OFFLOADS_KV),
    Key("speculative", "none", "what proposes tokens, on the chosen plan", SPECULATIVES),
    Key("draft_model", None, "speculative=draft: the model that proposes, one of conf/model"),
    Key("draft_layers", None, "speculative=self: first layers that propose", kind=Integer(1)),
    Key("draft_len", "auto", "tokens proposed a turn: a number, a list, or auto (1 to 16): the fastest", kind=SIZES),
    Key("acceptance_rate", None, "probability that a proposed token is accepted", kind=Number(minimum=0)),
    Key("planner", "auto", "auto searches named layouts; alpa plans shardings of every operator", PLANNERS),
    Key("out", None, "planner=alpa: the file of the plan, for shardings=FILE of run", kind=FilePath()),
    Key("runners", 8, "number of runners-up to show", kind=Integer(0)),
    PRICE,
    PRINT,
)
EXAMPLES: Final = (
    "shardbench plan model=palm-540b num_chips=64 phase=decode batch_size=64 input_len=1984 weight_dtype=int8",
    "shardbench plan model=palm-62b objective=cost latency_limit_s=3",
    "shardbench plan model=llama-3-70b hw=h100-80gb num_chips=8 phase=decode batch_size=1 speculative=draft "
    "draft_model=llama-3-8b acceptance_rate=0.8",
    "shardbench plan planner=alpa model=llama-3-70b num_chips=16 phase=decode batch_size=64 out=plan.json",
    "shardbench plan model=llama-3-70b hw=[h100-80gb,tpu-v6e] objective=cost price=example step_limit_s=0.03",
    "shardbench plan model=llama-3-70b hw=h100-80gb objective=throughput step_limit_s=0.03 weight_dtype=bfloat16",
)
SHORT: Final = {"compute_s": "compute", "memory_s": "memory", "communication_s": "links", "overhead_s": "fixed costs"}


NAMED_LAYOUTS: Final = {"micro_batches": "auto", "offload": "none", "offload_kv": "none", "speculative": "none"}
"""Keys that go with the search among named layouts alone, and their defaults."""


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Search and print. Returns 1 if no plan fits, and prints what is missing and what would fit."""
    from bench.planner.apart import with_intervals
    from bench.planner.chips import by_chip, check_comparable, dollars
    from bench.planner.crossovers import crossovers
    from bench.planner.drafts import drafted_as_asked
    from bench.planner.search import search
    from bench.planner.shortfall import shortfall
    from bench.rows.prices import load_prices

    del verb
    if settings["planner"] == "alpa":
        from bench.planner.alpa_print import show

        if len(settings["hw"]) > 1:
            raise InvalidRequest("hw", settings["hw"], "are several chips, and planner=alpa plans for one", "give one")
        for key, off in NAMED_LAYOUTS.items():
            if settings[key] != off:
                raise InvalidRequest(key, settings[key], "is not read with planner=alpa", "leave one of them out")
        one = workload_from({**settings, "hw": settings["hw"][0]})
        return show(one, out=settings["out"], as_json=settings["print"] == "json")
    if settings["out"] is not None:
        raise InvalidRequest("out", settings["out"], "is the file of a plan of planner=alpa", "use planner=alpa")
    prices = load_prices(settings["price"])
    check_comparable(settings["objective"], settings["hw"], prices)
    workloads = [workload_from({**settings, "hw": hw}) for hw in settings["hw"]]
    compared = by_chip([search(each, runners=settings["runners"]) for each in workloads], prices)
    found = with_intervals(compared[0].found)
    as_json = settings["print"] == "json"
    draft = None if found.chosen is None else drafted_as_asked(found.chosen, settings)
    if found.chosen is None:
        missing = shortfall(found)
        if as_json:
            print(json.dumps({"chosen": None, "runners_up": [], "crossovers": [], **missing.to_dict()}))
        else:
            print(missing.message)
        return 1
    found_crossovers = crossovers(found.chosen)
    if as_json:
        content = {
            "objective": found.workload.objective,
            "hw": compared[0].hw,
            "price": prices.label if prices.usd_per_chip_hour else None,
            "chosen": found.chosen.to_dict() | {"cost_usd_per_mtok": dollars(found.chosen, prices)},
            "runners_up": [plan.to_dict() | {"cost_usd_per_mtok": dollars(plan, prices)} for plan in found.runners_up],
            "other_hw": [each.to_dict() for each in compared[1:]],
            "not_told_apart": sum(plan.told_apart is False for plan in found.runners_up),
            "crossovers": [each.to_dict() for each in found_crossovers],
            **({} if draft is None else {"draft": draft.to_dict()}),
        }
        print(json.dumps(content))
    else:
        _print(found, found.chosen, found_crossovers, prices)
        _print_other_chips(compared)
        if draft is not None:
            print(draft.sentence)
    return 0


def workload_from(settings: Mapping[str, Any]) -> "Workload":
    """The workload given by a command's keys; keys that the command lacks have plan's defaults.

    Raises:
        InvalidRequest: a name is unknown.
    """
    from bench.planner.workload import Workload, counts_up_to
    from bench.sweep.catalog import load_chip, load_model
    from bench.sweep.runtimes import load_runtime

    values = {key.name: key.default for key in KEYS} | {"hw": "tpu-v4"} | dict(settings)
    chip = load_chip(values["hw"])
    counts, batches = values["num_chips"], values["batch_size"]
    return Workload(
        model=load_model(values["model"]),
        chip=chip,
        runtime=load_runtime(values["runtime"]),
        phase=values["phase"],
        objective=values["objective"],
        batch_sizes=tuple(2**power for power in range(11)) if batches == "auto" else tuple(batches),
        input_len=values["input_len"],
        output_len=values["output_len"],
        weight_dtypes=tuple(values["weight_dtype"]),
        num_chips=counts_up_to(chip, values["max_chips"]) if counts == "auto" else tuple(counts),
        first_token=values["first_token"],
        collectives=values["collectives"],
        micro_batches=None if values["micro_batches"] == "auto" else tuple(values["micro_batches"]),
        offload=values["offload"],
        offload_kv=values["offload_kv"],
        latency_limit_s=values["latency_limit_s"],
        step_limit_s=values["step_limit_s"],
        hbm_limit_bytes=values["hbm_limit_bytes"],
    )


def _print(found: "SearchResult", chosen: "Candidate", crossovers: "Sequence[Crossover]", prices: "Prices") -> None:
    from bench.planner.chips import dollars
    from bench.run import terminal

    workload = found.workload
    console = terminal.console()
    console.print(
        f"{workload.model.name} on {workload.chip.name}, {workload.phase}, {workload.input_len} in, "
        f"{workload.output_len if workload.phase != 'prefill' else 0} out: the best for {workload.objective}"
    )
    table = terminal.table()
    headings = (
        *("loss", "80%", "chips", "mesh", "weights", "batch", "layouts"),
        *("latency", "80%", "step", "chip-s/token", "tokens/s", "GB/chip", "bound by", "slower in"),
    )
    for heading in headings:
        table.add_column(heading)
    priced = dollars(chosen, prices) is not None
    if priced:
        table.add_column("USD/Mtok")
    for plan in (chosen, *found.runners_up):
        usd = [significant(dollars(plan, prices) or 0.0)] if priced else []
        table.add_row(*_cells(plan), *usd, style="bold" if plan is chosen else None)
    console.print(table)
    if priced:
        console.print(prices.note)
    _print_not_told_apart(found)
    for each in crossovers:
        closed = "" if each.closed_form is None else f" (by communication volume alone: {each.closed_form:,.0f})"
        console.print(f"{each.before} → {each.after} from {each.at:,.0f} {each.unit}{closed}")


def _print_other_chips(compared: "Sequence[OfChip]") -> None:
    """What the best plan on each other chip loses against the best of all."""
    best = compared[0].value
    for each in compared[1:]:
        if each.value is None or best is None:
            print(f"{each.hw}: no plan fits")
            continue
        usd = "" if each.cost_usd_per_mtok is None else f", {significant(each.cost_usd_per_mtok)} USD/Mtok"
        chosen = each.found.chosen
        assert chosen is not None
        print(
            f"{each.hw}: +{each.value / best - 1:.1%}, with {chosen.point.num_chips} chips in "
            f"{significant(chosen.latency_s, 4)} s{usd}"
        )


def _print_not_told_apart(found: "SearchResult") -> None:
    """Which runners-up may as well be the best, and by which rule."""
    from bench.validate.ratios import ratio_error

    close = [plan for plan in found.runners_up if plan.told_apart is False]
    known = ratio_error(found.workload.chip.kind)
    if close and known is not None:
        count = len(close)
        print(
            f"{count} of {len(found.runners_up)} runners-up cannot be told apart from the best: the 80% interval of "
            f"their loss holds 0. It follows from {known.pairs} pairs of published rows of one stack, whose predicted "
            "ratios are compared with the published ones."
        )


def _interval(ends: tuple[float, float] | None, unit: str) -> str:
    if ends is None:
        return ""
    return "{:+.0%} to {:+.0%}".format(*ends) if unit == "%" else f"{significant(ends[0])} to {significant(ends[1])} s"


def _choices(keys: Mapping[str, Any]) -> str:
    """``ws_2d/batch``, and in short what a model with latent vectors or experts runs: ``absorbed, experts xyz``."""
    words = ["/".join(str(keys[key]) for key in ("ffn_layout", "attn_sharding") if key in keys)]
    words += [str(keys["latent_attention"])] if "latent_attention" in keys else []
    for key, word in (("data_parallel", "dp"), ("expert_parallel", "ep"), ("expert_axes", "experts ")):
        words += [f"{word}{keys[key]}"] if key in keys else []
    words += ["all-to-all"] if keys.get("expert_dispatch") == "all_to_all" else []
    return " ".join(filter(None, words))


def _cells(plan: "Candidate") -> list[str]:
    point = plan.point
    gpu = point.chip.kind == "gpu"
    mesh = f"tp{point.tensor_degree} pp{point.pipeline_degree}" if gpu else "×".join(map(str, point.mesh))
    mesh += f" in {point.micro_batches}" if point.micro_batches else ""
    low, high = plan.latency_low_s, plan.latency_high_s
    layouts = [f"{phase} {_choices(keys)}" for phase, keys in plan.choices.items()]
    return [
        "best" if plan.worse_term is None else f"+{plan.loss:.1%}",
        _interval(plan.loss_interval, "%"),
        str(point.num_chips),
        mesh,
        point.weight_dtype,
        f"{plan.sequences}" + (f" as {point.batch_size}" if point.batch_size != plan.sequences else ""),
        ", ".join(layouts) if any(plan.choices.values()) else "",
        f"{significant(plan.latency_s, 4)} s",
        "" if low is None or high is None else _interval((low, high), "s"),
        "" if plan.step_time_s is None else f"{significant(plan.step_time_s * 1e3)} ms",
        significant(plan.cost_chip_s_per_token),
        f"{plan.tokens_per_s:,.0f}",
        f"{plan.peak_hbm_bytes / 1e9:.1f}",
        SHORT[plan.binding_term],
        "" if plan.worse_term is None else SHORT[plan.worse_term],
    ]
