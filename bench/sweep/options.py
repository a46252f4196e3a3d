"""The settings of a whole ``shardbench run``: the store, the output, timing and W&B."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from bench.measure.timing import TimingConfig
from bench.rows.prices import Prices, prices_from
from bench.run.wandb_mode import MODES
from bench.sweep.paths import store_of
from engines.core.errors import InvalidRequest
from engines.core.typed import described, is_of

PRINT_FORMATS: Final = ("table", "json", "none")
ORDERS: Final = ("sequential", "interleaved")
LONGEST_S: Final = 1e6
RETRIABLE: Final = ("failed", "timeout", "oom", "unsupported", "invalid")
WANDB: Final[Mapping[str, Any]] = {
    "mode": str,
    "project": str,
    "entity": str | None,
    "sources": Sequence[str],
    "report": bool,
}
"""Keys of ``conf/wandb`` and their types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the whole command.

    ``asked_at`` is no key: a launched worker has from its command when that began, in UTC as rows have their time.
    """

    results_dir: str
    sweep_name: str | None
    resume: bool
    other_hosts: bool
    retry: Sequence[str]
    print: str
    timing: TimingConfig
    wandb: Mapping[str, Any]
    prices: Prices
    repeat: int = 1
    order: str = "sequential"
    max_parallel: int = 1
    grace_s: float = 0.0
    workers: int | None = None
    asked_at: str | None = None


def options_from(config: Mapping[str, Any]) -> Options:
    """The options of a composed config, which has all of their keys.

    Raises:
        InvalidRequest: a key is unknown, or its value is of another type or not known.
    """
    for key, wanted, remedy in (
        ("results_dir", str, "use a folder; quote one that looks like a number"),
        ("sweep_name", str | None, "use letters and digits, or null for no name"),
        ("resume", bool, "use resume=true or resume=false"),
        ("other_hosts", bool, "use other_hosts=true or other_hosts=false"),
    ):
        _check_type(key, config[key], wanted, remedy)
    if config["sweep_name"] == "":
        raise InvalidRequest("sweep_name", "", "is empty", "use a name, or null for none")
    workers = config["workers"]
    if workers is not None and (not is_of(workers, int) or workers < 1):
        raise InvalidRequest(
            "workers", workers, "must be an integer >= 1", "use null for one launched job a combination"
        )
    if config["print"] not in PRINT_FORMATS:
        raise InvalidRequest("print", config["print"], "is not known", f"use one of {', '.join(PRINT_FORMATS)}")
    for key in ("repeat", "max_parallel"):
        if not is_of(config[key], int) or config[key] < 1:
            raise InvalidRequest(key, config[key], "must be an integer ≥ 1", "the default is 1")
    if config["order"] not in ORDERS:
        raise InvalidRequest("order", config["order"], "is not known", f"use one of {', '.join(ORDERS)}")
    if config["repeat"] > 1 and config["max_parallel"] > 1:
        raise InvalidRequest(
            "max_parallel", config["max_parallel"], "would disturb the processes of repeat=", "leave out one of them"
        )
    retry = config["retry"] if isinstance(config["retry"], list) else [config["retry"]]
    for status in retry:
        if status not in RETRIABLE:
            raise InvalidRequest("retry", status, "is not known", f"use one or more of {', '.join(RETRIABLE)}")
    return Options(
        results_dir=store_of("results_dir", config["results_dir"]),
        sweep_name=config["sweep_name"],
        resume=config["resume"],
        other_hosts=config["other_hosts"],
        retry=retry,
        print=config["print"],
        timing=_timing(config["timing"]),
        wandb=_wandb(config["wandb"]),
        prices=_prices(config["price"]),
        repeat=config["repeat"],
        order=config["order"],
        max_parallel=config["max_parallel"],
        grace_s=_seconds("grace_s", config["grace_s"]),
        workers=workers,
    )


def _seconds(key: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= LONGEST_S:
        remedy = "use seconds such as 60, less than the batch system leaves before it kills; 0 for none"
        raise InvalidRequest(key, value, f"must be a number from 0 to {LONGEST_S:g}", remedy)
    return float(value)


def _timing(content: Any) -> TimingConfig:
    _check_keys("timing", content, [each.name for each in fields(TimingConfig)])
    return TimingConfig(**content)


def _prices(content: Any) -> Prices:
    if not isinstance(content, Mapping):
        raise InvalidRequest("price", content, "must be a mapping", "compare it with files of conf/price")
    return prices_from(content)


def _wandb(content: Any) -> Mapping[str, Any]:
    _check_keys("wandb", content, WANDB)
    for key, wanted in WANDB.items():
        _check_type(f"wandb.{key}", content.get(key), wanted, "see conf/wandb/default.yaml")
    if content["mode"] not in MODES:
        raise InvalidRequest("wandb.mode", content["mode"], "is not known", f"use one of {', '.join(MODES)}")
    if not content["project"]:
        raise InvalidRequest("wandb.project", "", "is empty", "use the name of a project")
    return dict(content)


def _check_keys(group: str, content: Any, known: Collection[str]) -> None:
    if not isinstance(content, Mapping):
        raise InvalidRequest(group, content, "must be a mapping", f"compare it with files of conf/{group}")
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"did you mean {group}.{near[0]}=" if near else f"use one of {', '.join(known)}"
            raise InvalidRequest(f"{group}.{key}", content[key], f"is not a key of conf/{group}", remedy)


def _check_type(key: str, value: object, wanted: Any, remedy: str) -> None:
    if not is_of(value, wanted):
        raise InvalidRequest(key, value, f"must be {described(wanted)}", remedy)
