"""NVIDIA AIPerf: its command line, and what its files say beside the figures of the result."""

import json
from pathlib import Path
from typing import Any, ClassVar, Final

from engines.core.load_test import ClientResult
from engines.external.serving.settings import ClientRun
from engines.external.serving.vllm_client import rate_of, read_json
from engines.host.program import ProgramFailed

FILE: Final = "profile_export_aiperf.json"
RECORDS: Final = "profile_export.jsonl"


class AiperfClient:
    """Synthetic prompts of ``input_len`` tokens; the server is asked not to stop before ``output_len``."""

    program: ClassVar[str] = "aiperf"
    timed_by: ClassVar[str] = "aiperf"
    file_format: ClassVar[str] = "aiperf"
    library: ClassVar[str] = "aiperf"

    def command(self, program: str, run: ClientRun) -> list[str]:
        """The command line of one run."""
        point, settings = run.point, run.settings
        options = {
            "--model": run.model,
            "--url": run.url,
            "--endpoint-type": "completions",
            "--tokenizer": run.tokenizer,
            "--synthetic-input-tokens-mean": point.input_len,
            "--synthetic-input-tokens-stddev": 0,
            "--output-tokens-mean": point.output_len,
            "--output-tokens-stddev": 0,
            "--request-count": run.requests,
            "--random-seed": settings.seed,
            "--artifact-dir": str(run.folder),
            "--ui": "none",
        }
        if settings.warmup_requests:
            options["--warmup-request-count"] = settings.warmup_requests
        if run.requests_per_s is not None:
            options |= {"--request-rate": repr(run.requests_per_s), "--arrival-pattern": settings.arrivals}
        if point.batch_size:
            options["--concurrency"] = point.batch_size
        limits = [
            f"{name}:{1e3 * limit:g}"
            for name, limit in (
                ("time_to_first_token", point.ttft_limit_s),
                ("inter_token_latency", point.tpot_limit_s),
            )
            if limit is not None
        ]
        if limits:
            options["--goodput"] = " ".join(limits)
        words = [str(word) for option in options.items() for word in option]
        exactly = ["--extra-inputs", "ignore_eos:true", "--extra-inputs", f"min_tokens:{point.output_len}"]
        return [program, "profile", *words, *exactly, "--streaming", *settings.arguments]

    def result(self, run: ClientRun, output: str) -> ClientResult:
        """What it left.

        Raises:
            ProgramFailed: no request was answered, or there is no result.
        """
        content = read_json(run.folder / FILE, self.timed_by, output)
        if not content.get("request_count"):
            raise ProgramFailed(f"all {run.requests} requests failed: {_first_error(content)}")
        starts_s = [each * 1e-9 for each in _starts_ns(run.folder / RECORDS)]
        return ClientResult(file=run.folder / FILE, format=self.file_format, sent_per_s=rate_of(starts_s))


def _starts_ns(path: Path) -> list[float]:
    """When requests of the run were sent, those of the warm-up left out; none where no file says."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found: list[Any] = [json.loads(line).get("metadata", {}) for line in lines]
    except (OSError, ValueError, AttributeError):
        return []
    timed = [each for each in found if each.get("benchmark_phase", "profiling") == "profiling"]
    return [each["request_start_ns"] for each in timed if isinstance(each.get("request_start_ns"), int)]


def _first_error(content: dict[str, Any]) -> str:
    errors = content.get("error_summary")
    if not isinstance(errors, list) or not errors or not isinstance(errors[0], dict):
        return "it does not say why"
    return " ".join(str(errors[0].get("error_details", errors[0])).split())[:300]
