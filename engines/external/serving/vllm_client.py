"""``vllm bench serve``: its command line, and what its result file says beside its figures."""

import json
from pathlib import Path
from typing import Any, ClassVar, Final

from engines.core.load_test import ClientResult
from engines.external.serving.settings import ClientRun
from engines.host.program import ProgramFailed, output_tail

FILE: Final = "serve.json"


class VllmClient:
    """Random prompts of exactly ``input_len`` tokens; the server is asked not to stop before ``output_len``."""

    program: ClassVar[str] = "vllm"
    timed_by: ClassVar[str] = "vllm bench serve"
    file_format: ClassVar[str] = "vllm-serve"
    library: ClassVar[str] = "vllm"

    def command(self, program: str, run: ClientRun) -> list[str]:
        """The command line of one run."""
        point, settings = run.point, run.settings
        options = {
            "--backend": "openai",
            "--endpoint": "/v1/completions",
            "--base-url": run.url,
            "--model": run.model,
            "--tokenizer": run.tokenizer,
            "--dataset-name": "random",
            "--random-input-len": point.input_len,
            "--random-output-len": point.output_len,
            "--random-range-ratio": 0,
            "--num-prompts": run.requests,
            "--request-rate": "inf" if run.requests_per_s is None else repr(run.requests_per_s),
            # Gamma intervals of this shape: 1 is a Poisson process, and the limit of large shapes is even intervals.
            "--burstiness": 1 if settings.arrivals == "poisson" else 1e6,
            "--percentile-metrics": "ttft,tpot,itl,e2el",
            "--metric-percentiles": ",".join(f"{each:g}" for each in sorted({50, 90, 99, 100 * settings.share})),
            "--seed": settings.seed,
            "--result-dir": str(run.folder),
            "--result-filename": FILE,
        }
        words = [str(word) for option in options.items() for word in option]
        if settings.warmup_requests:  # an option of newer versions
            words += ["--num-warmups", str(settings.warmup_requests)]
        if point.batch_size:
            words += ["--max-concurrency", str(point.batch_size)]
        limits = [
            f"{name}:{1e3 * limit:g}"
            for name, limit in (("ttft", point.ttft_limit_s), ("tpot", point.tpot_limit_s))
            if limit is not None
        ]
        goodput = ["--goodput", *limits] if limits else []
        flags = ["--ignore-eos", "--disable-tqdm", "--save-result", "--save-detailed"]
        return [program, "bench", "serve", *words, *flags, *settings.arguments, *goodput]

    def result(self, run: ClientRun, output: str) -> ClientResult:
        """What it left.

        Raises:
            ProgramFailed: no request was answered, or there is no result.
        """
        content = read_json(run.folder / FILE, self.timed_by, output)
        if not content.get("completed"):
            said = next((str(each) for each in content.get("errors") or [] if each), "it does not say why")
            raise ProgramFailed(f"all {run.requests} requests failed: {' '.join(said.split())[-300:]}")
        return ClientResult(
            file=run.folder / FILE, format=self.file_format, sent_per_s=rate_of(content.get("start_times"))
        )


def read_json(path: Path, who: str, output: str) -> dict[str, Any]:
    """The mapping in a client's file; raises ProgramFailed, with the end of its output, where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise ProgramFailed(f"{who} wrote no readable {path.name}{output_tail(output)}")
    return content


def rate_of(starts_s: object) -> float | None:
    """The rate of events at the times [events] in seconds; None for fewer than two, or what are no times."""
    if not isinstance(starts_s, list) or not all(isinstance(each, (int, float)) for each in starts_s):
        return None
    if len(starts_s) < 2 or max(starts_s) <= min(starts_s):
        return None
    return (len(starts_s) - 1) / float(max(starts_s) - min(starts_s))
