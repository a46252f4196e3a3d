"""How far other predictors of inference times are off, by those who say so: what an error here stands beside."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bench.validate.case import Case
from engines.core.chip import ChipKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The mean relative error of a predictor, a fraction or a range of them, on rows that its source chose."""

    name: str
    low: float
    high: float
    kinds: tuple[ChipKind, ...]
    rows: str
    source: str

    @property
    def error(self) -> str:
        """``15–17%``, or ``under 9%``."""
        if not self.low:
            return f"under {100 * self.high:.3g}%"
        ends = dict.fromkeys(f"{100 * end:.3g}" for end in (self.low, self.high))
        return "–".join(ends) + "%"


PEERS: Final = (
    Peer(
        name="aiconfigurator",
        low=0.15,
        high=0.17,
        kinds=("gpu",),
        rows="published static-batch rows of today's stacks on GPUs",
        source="as reported to shardbench for 421 such rows; not run here",
    ),
    Peer(
        name="LLMCompass",
        low=0.041,
        high=0.041,
        kinds=("gpu", "tpu"),
        rows="LLM inference on 4 A100, and on TPU v3 and MI210 for operators (10.9%)",
        source="Zhang et al., ISCA 2024 (arXiv 2312.03134), abstract, as remembered",
    ),
    Peer(
        name="Vidur",
        low=0.0,
        high=0.09,
        kinds=("gpu",),
        rows="vLLM on A100 and H100, after profiling the same chips",
        source="Agrawal et al., MLSys 2024 (arXiv 2405.05465), abstract, as remembered: less than 9%",
    ),
)
"""The first figure is of rows like those that come with shardbench, the others of rows that their authors measured."""


def peers_of(cases: Iterable[Case]) -> list[Peer]:
    """Those that predict chips of a kind that the cases are of."""
    kinds = {case.point.chip.kind for case in cases}
    return [peer for peer in PEERS if kinds & set(peer.kinds)]
