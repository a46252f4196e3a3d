"""MaxText's ``inference_microbenchmark`` results, with times in milliseconds.

``prefill`` holds one measurement, or one per prompt length. ``autoregressive`` holds the time of a decode step.
"""

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from engines.core.engine import Estimate, Facts
from engines.core.errors import ShardbenchError


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("autoregressive.step_in_ms") or bool(_prefills(content))


def entries(content: Content) -> list[ImportedResult]:
    """A prefill point per measured prompt length, and a decode point of one step."""
    facts = Facts(details={"timed_by": "MaxText inference_microbenchmark"})
    found = []
    for path, input_len in _prefills(content).items():
        prefill_s = content.seconds_of_ms(f"{path}.time_in_ms")
        stated = {} if input_len is None else {"input_len": input_len}
        estimate = Estimate(system="maxtext", latency_s=prefill_s, ttft_s=prefill_s, facts=facts)
        found.append(ImportedResult(phase="prefill", stated=stated, estimate=estimate))
    if content.has("autoregressive.step_in_ms"):
        step_s = content.seconds_of_ms("autoregressive.step_in_ms")
        estimate = Estimate(system="maxtext", latency_s=step_s, step_time_s=step_s, facts=facts)
        found.append(ImportedResult(phase="decode", stated={"output_len": 1}, estimate=estimate))
    if not found:
        raise ShardbenchError(
            f"{content.path}: prefill.time_in_ms and autoregressive.step_in_ms are missing; import an unmodified file"
        )
    return found


def _prefills(content: Content) -> dict[str, int | None]:
    """Path of each prefill measurement → its prompt length, None if the file does not state it."""
    if content.has("prefill.time_in_ms"):
        return {"prefill": None}
    lengths = [key for key in content.mapping("prefill") if key.isdigit() and int(key) > 0]
    return {f"prefill.{key}": int(key) for key in lengths if content.has(f"prefill.{key}.time_in_ms")}
