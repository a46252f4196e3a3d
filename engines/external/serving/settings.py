"""The settings of ``engine=serving``, and what a client is asked to do in one run."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from engines.core.errors import InvalidRequest
from engines.core.load_test import LoadRules
from engines.core.point import Point

ASKED: Final = ("client", "system", "served_model", "model_path", "server", "server_arguments", "arrivals", "share")
"""Settings that are part of what is asked: which server, by which client and by which law. An address is not."""
ARRIVALS: Final = ("poisson", "constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """The keys of ``conf/engine/serving.yaml``, which describes each of them.

    Raises:
        InvalidRequest: a value is not known or out of its range.
    """

    client: str = "vllm"
    program: str | None = None
    arguments: Sequence[str] = ()
    url: str | None = None
    system: str | None = None
    served_model: str | None = None
    tokenizer: str | None = None
    model_path: str | None = None
    server: Sequence[str] | None = None
    server_arguments: Sequence[str] = ()
    start_timeout_s: float = 1200.0
    arrivals: str = "poisson"
    warmup_requests: int = 10
    share: float = 0.99
    first_rate_per_s: float = 1.0
    rate_tolerance: float = 0.05
    max_runs: int = 20
    min_time_s: float = 60.0
    min_requests: int = 100
    seed: int = 0
    run_timeout_s: float = 3600.0
    nvidia_smi: str = "nvidia-smi"

    def __post_init__(self) -> None:
        if self.arrivals not in ARRIVALS:
            raise InvalidRequest("engine.arrivals", self.arrivals, "is not known", f"use {' or '.join(ARRIVALS)}")
        if self.warmup_requests < 0:
            raise InvalidRequest("engine.warmup_requests", self.warmup_requests, "must be ≥ 0", "use 0 for none")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise InvalidRequest("engine.url", self.url, "is no address", "use one such as http://10.0.0.2:8000")
        _ = self.rules

    def options(self) -> dict[str, Any]:
        """Those of :data:`ASKED` that are not at their defaults, as plain values."""
        return {name: value for name, value in self.stated().items() if name in ASKED}

    def stated(self) -> dict[str, Any]:
        """All settings that are not at their defaults, as plain values."""
        found = {each.name: (_plain(getattr(self, each.name)), _plain(each.default)) for each in fields(self)}
        return {name: value for name, (value, default) in found.items() if value != default}

    @property
    def rules(self) -> LoadRules:
        """How rates are chosen, and how long each is kept."""
        return LoadRules(**{each.name: getattr(self, each.name) for each in fields(LoadRules)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRun:
    """What a client shall do: ``requests`` to the ``model`` at ``url``; ``requests_per_s`` None is all at once.

    ``folder`` is empty and for its files alone.
    """

    point: Point
    url: str
    model: str
    requests_per_s: float | None
    requests: int
    folder: Path
    settings: ServingSettings

    @property
    def tokenizer(self) -> str:
        """What tokens are counted by."""
        return self.settings.tokenizer or self.settings.model_path or self.model


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
