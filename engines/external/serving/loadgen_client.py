"""MLPerf LoadGen: how the program that drives it is started, and what it left."""

import json
from pathlib import Path
from typing import ClassVar, Final

from engines.core.load_test import ClientResult
from engines.external.serving import loadgen_driver
from engines.external.serving.settings import ClientRun
from engines.external.serving.vllm_client import rate_of, read_json
from engines.host.program import ProgramFailed
from engines.host.python import python_of, script_words

SUMMARY: Final = "mlperf_log_summary.txt"
LONGEST_S: Final = 3600.0
"""The limit of a latency that has none: LoadGen judges every run by some."""


class LoadgenClient:
    """Prompts of random token ids, exactly ``input_len``; LoadGen sets when they are sent, and writes the figures."""

    program: ClassVar[str] = python_of(None)
    timed_by: ClassVar[str] = "MLPerf LoadGen"
    file_format: ClassVar[str] = "mlperf"
    library: ClassVar[str] = "mlcommons-loadgen"

    def command(self, program: str, run: ClientRun) -> list[str]:
        """The command line of one run; writes what the driver reads."""
        point = run.point
        asked = {
            "url": run.url,
            "model": run.model,
            "input_len": point.input_len,
            "output_len": point.output_len,
            "vocab": point.model.vocab_size,
            "requests": run.requests,
            "requests_per_s": run.requests_per_s,
            "in_flight": point.batch_size or None,
            "ttft_limit_s": point.ttft_limit_s or LONGEST_S,
            "tpot_limit_s": point.tpot_limit_s or LONGEST_S,
            "share": run.settings.share,
            "seed": run.settings.seed,
        }
        (run.folder / loadgen_driver.ASKED).write_text(json.dumps(asked, sort_keys=True), encoding="utf-8")
        return [*script_words(program, loadgen_driver.__file__, str(run.folder)), *run.settings.arguments]

    def result(self, run: ClientRun, output: str) -> ClientResult:
        """What it left.

        Raises:
            ProgramFailed: no request was answered, or there is no result.
        """
        said = read_json(run.folder / loadgen_driver.SAID, self.timed_by, output)
        if said["failed"] == run.requests:
            raise ProgramFailed(f"all {run.requests} requests failed: {said['error']}")
        return ClientResult(
            file=Path(run.folder / SUMMARY),
            format=self.file_format,
            sent_per_s=rate_of(said["starts_s"]) if run.requests_per_s is not None else None,
            failed=said["failed"],
        )
