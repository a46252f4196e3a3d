"""What decides a generated token beside the logits. Importing this module does not import JAX."""

from dataclasses import dataclass
from typing import Final

from engines.core.errors import InvalidRequest
from engines.core.model import Model

COOLEST: Final = 1e-6
HOTTEST: Final = 1e6
"""Bounds of a temperature other than 0: between them no logit of float32 divides into what is no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen: temperature, then the ``top_k`` likeliest ids, then the fewest that hold ``top_p``.

    ``temperature`` 0 is greedy, ``top_k`` 0 and ``top_p`` 1 keep every id. A sequence that has produced
    ``stop_token`` goes on producing it.

    Raises:
        InvalidRequest: a value is out of its range, or could change nothing.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop_token: int | None = None

    def __post_init__(self) -> None:
        for key, whole in (("temperature", False), ("top_k", True), ("top_p", False), ("seed", True)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "whole number" if whole else "number"
                raise InvalidRequest(f"engine.{key}", value, f"is no {kind}", f"give a {kind}")
        if self.temperature != 0 and not COOLEST <= self.temperature <= HOTTEST:
            raise InvalidRequest(
                "engine.temperature",
                self.temperature,
                f"is neither 0 nor within {COOLEST:g} and {HOTTEST:g}",
                "use 0 for greedy, 1 for the model's own distribution",
            )
        if self.top_k < 0:
            raise InvalidRequest("engine.top_k", self.top_k, "is less than 0", "use 0 to keep every id")
        if not 0 < self.top_p <= 1:
            raise InvalidRequest("engine.top_p", self.top_p, "is no share above 0", "use 1 to keep every id")
        for key, off in (("top_k", 0), ("top_p", 1)):
            if self.greedy and getattr(self, key) != off:
                raise InvalidRequest(
                    f"engine.{key}",
                    getattr(self, key),
                    "changes nothing with engine.temperature=0, which is greedy",
                    "set engine.temperature=1",
                )
        stop = self.stop_token
        if stop is not None and (isinstance(stop, bool) or not isinstance(stop, int) or stop < 0):
            raise InvalidRequest("engine.stop_token", stop, "is no id", "give a whole number from 0, or null")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest id is taken."""
        return self.temperature == 0

    def check(self, model: Model) -> None:
        """Check the settings against the model that they are for.

        Raises:
            InvalidRequest: the stop token is no id of the model.
        """
        if self.stop_token is not None and self.stop_token >= model.vocab_size:
            raise InvalidRequest(
                "engine.stop_token",
                self.stop_token,
                f"is beyond the vocabulary of {model.name}",
                f"use an id below {model.vocab_size}",
            )


GREEDY: Final = Sampling()
