"""Rows of one question, padded and packed, and the closed bounds of what packing can gain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.rows.labels import answered, model_label
from engines.core.row import Row
from engines.weights.lengths import Moments, moments

SWEEP: Final = "packing"
LAWS: Final = ("uniform", "lognormal", "trace")
KEYS: Final = ("engine", "model", "hw", "num_chips", "phase", "input_len", "output_len", "weight_dtype", "lengths")


@dataclass(frozen=True, slots=True)
class PackingPair:
    """One question, answered with padding and without."""

    padded: Row
    packed: Row

    @property
    def ratio(self) -> float | None:
        """Padded over packed latency; None where either has no time."""
        if self.padded.latency_s is None or not self.packed.latency_s:
            return None
        return self.padded.latency_s / self.packed.latency_s

    @property
    def valid(self) -> bool:
        """Whether both times are."""
        return answered(self.padded) and answered(self.packed)

    @property
    def token_bound(self) -> float:
        """Padded over real tokens of this very batch where the row counts them, else L / E[length]."""
        real = self.packed.details.get("real_tokens")
        padded = self.packed.batch_size * self.packed.input_len
        return padded / real if real else self.packed.input_len / self.law.mean

    @property
    def score_bound(self) -> float:
        """L² / E[length²]: the most that attention's scores can gain, which are of pairs of tokens."""
        return self.packed.input_len**2 / self.law.mean_square

    @property
    def law(self) -> Moments:
        """The means of its law of lengths."""
        return moments(self.packed.lengths or "equal", self.packed.input_len)


def of_packing(rows: Sequence[Row]) -> list[Row]:
    """The rows of the sweep."""
    return [row for row in rows if row.sweep == SWEEP and row.lengths in LAWS]


def pairs_of(rows: Sequence[Row]) -> list[PackingPair]:
    """Each packed row with the padded one of the same engine and question, by question and batch."""
    found: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in of_packing(rows):
        key = (*(getattr(row, name) for name in KEYS), row.batch_size)
        found.setdefault(key, {})[row.padding or "padded"] = row
    both = [PackingPair(each["padded"], each["packed"]) for each in found.values() if len(each) == 2]
    return sorted(both, key=lambda pair: (question(pair), LAWS.index(pair.packed.lengths or ""), _batch(pair)))


def question(pair: PackingPair) -> str:
    """What is asked, without batch and law: ``PaLM 540B on 64 tpu-v4, prefill of 1984``."""
    row = pair.packed
    tokens = f"{row.input_len}" + (f" + {row.output_len}" if row.phase != "prefill" else "")
    return f"{model_label(row.model)} on {row.num_chips} {row.hw}, {row.phase} of {tokens}"


def _batch(pair: PackingPair) -> int:
    return pair.packed.batch_size
