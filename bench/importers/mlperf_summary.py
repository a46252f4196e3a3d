"""MLPerf Inference ``mlperf_log_summary.txt``, which LoadGen writes, with times in nanoseconds."""

import re
from collections.abc import Mapping
from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule
from bench.importers.request_statistics import statistics_of_keys
from bench.importers.served import Served
from bench.importers.serving import serve_result

TITLE: Final = "MLPerf Results Summary"
SECTIONS: Final = (TITLE, "Additional Stats", "Test Parameters Used")
WANTED: Final = (f"{TITLE}.Scenario", f"{TITLE}.Mode", f"{TITLE}.Result is")
SCENARIOS: Final = ("Offline", "Server", "SingleStream", "MultiStream")
LINE: Final = re.compile(r"\s*(.*?\S)\s*:\s+(\S.*)")
RULE_OFF: Final = re.compile(r"=+")
CONSTRAINT: Final = " satisfied"
REQUESTS_PER_S: Final = ("Samples per second", "Completed samples per second", "QPS w/ loadgen overhead")
OUTPUT_TOKENS_PER_S: Final = ("Tokens per second", "Completed tokens per second", "TPS w/ loadgen overhead")
STATISTICS: Final = {
    "e2el_s": ("latency (ns)", "percentile latency (ns)"),
    "ttft_s": ("First Token latency (ns)", "percentile first token latency (ns)"),
    "tpot_s": ("Time per Output Token (ns)", "percentile time to output token (ns)"),
}
"""Name in ``load`` → how its keys end: of Min, Max and Mean, and of percentiles."""


def parse(text: str) -> list[Mapping[str, Any]] | None:
    """The sections of a summary, each a mapping of its lines; None of another text."""
    lines = text.splitlines()
    if TITLE not in (line.strip() for line in lines[:5]):
        return None
    sections: dict[str, dict[str, Any]] = {}
    section: dict[str, Any] = {}
    for number, line in enumerate(lines):
        titled = 0 < number < len(lines) - 1 and all(
            RULE_OFF.fullmatch(lines[beside]) for beside in (number - 1, number + 1)
        )
        if titled:
            section = sections.setdefault(line.strip(), {})
        elif (found := LINE.fullmatch(line)) is not None and not found[1].startswith("*"):
            section.setdefault(found[1], _number(found[2]))
    return [sections]


def matches(content: Content) -> bool:
    """Whether the text has this format."""
    return content.has(f"{TITLE}.Scenario")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point, whose load is the scenario's; a result that MLPerf calls INVALID makes an invalid row."""
    scenario = content.required(f"{TITLE}.Scenario", content.one_of(f"{TITLE}.Scenario", *SCENARIOS))
    content.off(f"{TITLE}.Mode", "is no measurement of time", "PerformanceOnly")
    asked = content.number("Additional Stats.Scheduled samples per second")
    key = "Test Parameters Used.samples_per_query"
    at_once = content.required(key, content.integer(key))  # of the last section: the text was not cut before it
    unmet = _unmet(content)
    served = Served(
        limit=at_once if scenario.value in ("SingleStream", "MultiStream") else None,
        requests_per_s=_first(content, REQUESTS_PER_S),
        output_tokens_per_s=_first(content, OUTPUT_TOKENS_PER_S),
        request_rate_per_s=by_rule("all_at_once", "inf", scenario) if scenario.value == "Offline" else asked,
        statistics=_statistics(content),
        more={"scenario": scenario, "unmet_constraints": unmet},
    )
    reason = _invalid(content, unmet)
    content.keep(*(f"{section}.*" for section in SECTIONS))
    return [serve_result(content, served, timed_by="MLPerf LoadGen", system="a server", invalid_reason=reason)]


def _unmet(content: Content) -> Known:
    """The constraints of the scenario that were not met."""
    names = [name for name in content.names(TITLE) if name.endswith(CONSTRAINT)]
    said = {name: content.one_of(f"{TITLE}.{name}", "Yes", "NO") for name in names}
    unmet = [name.removesuffix(CONSTRAINT) for name, known in said.items() if known is not None and known.value == "NO"]
    return Known(unmet, f"file: {', '.join(f'{TITLE}.{name}' for name in names)}")


def _invalid(content: Content, unmet: Known) -> str | None:
    """Why MLPerf calls the result invalid, None if it is valid."""
    key = f"{TITLE}.Result is"
    result = content.required(key, content.one_of(key, "VALID", "INVALID"))
    if result.value == "INVALID":
        return f"MLPerf calls the result INVALID (not satisfied: {', '.join(unmet.value) or 'it does not say'})"
    if unmet.value:
        raise content.refused(key, f"is not so: {unmet.value[0]} is not satisfied", "import an unmodified file")
    return None


def _first(content: Content, names: tuple[str, ...]) -> Known | None:
    sections = (TITLE, "Additional Stats")
    keys = [f"{section}.{name}" for name in names for section in sections if content.has(f"{section}.{name}")]
    return content.number(keys[0]) if keys else None


def _statistics(content: Content) -> dict[str, Known]:
    section = "Additional Stats"
    found: dict[str, Known] = {}
    for name, (whole, percentile) in STATISTICS.items():
        keys = {word.lower(): f"{section}.{word} {whole}" for word in ("Min", "Max", "Mean")}
        for key in content.names(section):
            share = key.removesuffix(f" {percentile}")
            if share != key and re.fullmatch(r"\d+\.\d+", share):
                keys["median" if float(share) == 50 else f"p{float(share):g}"] = f"{section}.{key}"
        found |= statistics_of_keys(content, name, keys, scale=1e-9)
    return found


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text.strip()
