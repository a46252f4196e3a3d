"""Files of other harnesses in ``tests/importers/files``: their real keys, with figures that a reader can check by hand.

The MLPerf summaries are LoadGen's own (version 6.0.17), of a program that sleeps.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.importers.files import read_file

FILES: Final = Path(__file__).parents[1] / "importers" / "files"
MODEL: Final = "model=llama-3-8b"
SERVED: Final = f"{MODEL} hw=h100-80gb num_chips=1 weight_dtype=bfloat16"
ON_TPU: Final = f"{MODEL} hw=tpu-v5e"


class File(NamedTuple):
    """A file that imports: its format, its name, the words that the user gives, and how many results it holds."""

    format: str
    name: str
    words: str
    results: int = 1

    @property
    def path(self) -> Path:
        return FILES / self.name

    def result(self, number: int) -> dict[str, Any]:
        """One result of the file, as the reader of its format gets it."""
        return dict(read_file(self.path)[number].values)


OTHERS: Final = (
    File("vllm-latency", "vllm_latency.pytorch.json", f"{MODEL} hw=h100-80gb"),
    File("vllm-throughput", "vllm_throughput.json", SERVED),
    File("vllm-throughput", "vllm_throughput.pytorch.json", f"{MODEL} hw=h100-80gb"),
    File("vllm-serve", "vllm_serve.pytorch.json", f"{MODEL} hw=h100-80gb weight_dtype=bfloat16"),
    File("sglang-one-batch", "sglang_one_batch.jsonl", SERVED),
    File("sglang-one-batch", "sglang_one_batch_server.jsonl", SERVED),
    File("sglang-throughput", "sglang_offline.jsonl", SERVED),
    File("sglang-serve", "sglang_serve.jsonl", SERVED, 2),
    File("trtllm-bench", "trtllm_bench.json", f"{MODEL} act_dtype=float8_e4m3"),
    File("llama-bench", "llama_bench.json", MODEL, 4),
    File("llama-bench", "llama_bench.jsonl", MODEL, 4),
    File("llama-bench", "llama_bench.csv", MODEL, 4),
    File("llama-bench", "llama_bench.sql", MODEL, 4),
    File("llama-bench", "llama_bench.md", f"{MODEL} hw=h100-80gb num_chips=1", 4),
    File("aiperf", "profile_export_aiperf.json", SERVED),
    File("aiperf", "profile_export_genai_perf.json", SERVED),
    File("guidellm", "guidellm.json", SERVED, 2),
    File("llmperf", "llmperf_summary.json", SERVED),
    File("jetstream", "jetstream.json", "hw=tpu-v5e num_chips=8 weight_dtype=bfloat16"),
    File("maxtext-sweep", "maxtext_sweep.jsonl", f"{ON_TPU} phase=prefill", 2),
    File("maxtext-sweep", "maxtext_sweep.jsonl", f"{ON_TPU} phase=decode input_len=1024", 2),
    File("asv", "asv.json", "", 2),
    File("mlperf", "mlperf_server.txt", SERVED),
    File("mlperf", "mlperf_offline.txt", SERVED),
    File("mlperf", "mlperf_single_stream.txt", SERVED),
)

BY_NAME: Final = {f"{each.name} {each.words.partition('phase=')[2]}".strip(): each for each in OTHERS}
"""Name, and the phase where a file is imported by phases → file."""
