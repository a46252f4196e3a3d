"""Prices of chips: what a chip-second costs, whose figure that is, and of which day."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.sweep.catalog import load_group, names
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.typed import check_types, types_of

SECONDS_AN_HOUR: Final = 3600.0
TOKENS_OF_MTOK: Final = 1e6
TERMS: Final = ("on_demand", "spot", "reserved", "own")
NO_PRICES: Final = "none"
FILES: Final = (".yaml", ".yml")
DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """A file of ``conf/price``: US dollars for one chip and hour, by the names of ``conf/hw``.

    ``typed`` are prices of the command itself. They come first, and no file says whose they are.

    Raises:
        InvalidRequest: a price is no number > 0, a chip is not known, or nobody says whose prices these are and when.
    """

    name: str
    terms: str
    source: str
    date: str | None
    usd_per_chip_hour: Mapping[str, float] = field(default_factory=dict)
    typed: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_chips({**self.usd_per_chip_hour, **self.typed})
        if not self.usd_per_chip_hour:
            return
        for key, fits, law, remedy in (
            ("terms", self.terms in TERMS, "is not known", f"use one of {', '.join(TERMS)}"),
            ("source", bool(self.source.strip()), "says nothing", "say whose prices these are"),
            ("date", bool(DAY.fullmatch(self.date or "")), "is no day", "write the day of the prices, as 2026-01-31"),
        ):
            if not fits:
                raise InvalidRequest(f"price.{key}", getattr(self, key), law, remedy)

    @property
    def label(self) -> str:
        """What a row says of them: ``mine (spot, 2026-01-31; the bill of our cloud), tpu-v4 at 3.2 as typed``."""
        file = f"{self.name} ({self.terms}, {self.date}; {self.source.rstrip('.')})"
        typed = [f"{hw} at {usd:g} as typed" for hw, usd in self.typed.items()]
        return ", ".join([file] * bool(self.usd_per_chip_hour) + typed)

    @property
    def note(self) -> str:
        """A sentence for a report; empty without prices."""
        if not self.usd_per_chip_hour and not self.typed:
            return ""
        return f"Dollars are by price={self.label}."

    def usd_per_chip_hour_of(self, hw: str) -> float | None:
        """The price of a row's chip; one that was changed (``h100-80gb+power_limit_w=500``) costs as the original."""
        known = {**self.usd_per_chip_hour, **self.typed}
        return known.get(hw, known.get(hw.partition("+")[0]))

    def usd_per_mtok(self, hw: str, cost_chip_s_per_token: float | None) -> float | None:
        """US dollars for a million tokens: chip-seconds a token · USD a chip-hour / 3600 · 10⁶; None if not known."""
        usd = self.usd_per_chip_hour_of(hw)
        if usd is None or cost_chip_s_per_token is None:
            return None
        return cost_chip_s_per_token * usd / SECONDS_AN_HOUR * TOKENS_OF_MTOK


def _check_chips(usd_per_chip_hour: Mapping[str, float]) -> None:
    chips = names("hw")
    for hw, usd in usd_per_chip_hour.items():
        if hw not in chips:
            near = difflib.get_close_matches(hw, chips, n=1)
            remedy = f"did you mean {near[0]}" if near else "use a name of conf/hw"
            raise InvalidRequest(f"price.usd_per_chip_hour.{hw}", usd, "is of no known chip", remedy)
        if not 0 < usd < math.inf:
            raise InvalidRequest(f"price.usd_per_chip_hour.{hw}", usd, "must be a number > 0", "give US dollars")


def prices_from(content: Mapping[str, Any]) -> Prices:
    """The prices of a file's plain values.

    Raises:
        InvalidRequest: a key is missing, unknown or wrong.
    """
    remedy = "compare it with conf/price/example.yaml"
    known = types_of(Prices)
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise InvalidRequest(
                f"price.{key}", content[key], "is not a key of prices", f"did you mean {near[0]}" if near else remedy
            )
    # YAML makes a date of 2026-01-31.
    content = {**content, "date": None if content.get("date") is None else str(content["date"])}
    check_types("price.", content, known, remedy)
    missing = [key for key in known if key not in content and key != "typed"]
    if missing:
        raise InvalidRequest(f"price.{missing[0]}", "", "is missing", remedy)
    return Prices(**content)


def load_prices(named: str) -> Prices:
    """The prices of a choice of ``conf/price``, or of a file ``*.yaml``.

    Raises:
        InvalidRequest: there is no such choice or file, or its content is wrong.
        ShardbenchError: the file is not a YAML mapping.
    """
    if not named.endswith(FILES):
        return prices_from(load_group("price", named))
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(Path(named).expanduser()), resolve=True)
    except OSError as error:
        reason = error.strerror or "it is no file"
        raise InvalidRequest(
            "price", named, f"cannot be read ({reason})", "use a choice of conf/price, or a file"
        ) from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise ShardbenchError(f"{named}: is not valid YAML ({str(error).splitlines()[0]}); fix its syntax") from None
    if not isinstance(content, dict):
        raise ShardbenchError(f"{named}: must be a YAML mapping; compare it with conf/price/example.yaml")
    return prices_from({str(key): value for key, value in content.items()})
