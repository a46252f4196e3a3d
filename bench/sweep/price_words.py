"""``price=FILE.yaml`` and ``price.usd_per_chip_hour.CHIP=USD`` of a command line, as overrides that Hydra reads.

A file's content is put in place of its path, so that a job that is launched elsewhere has the same prices.
"""

from typing import Final

from hydra.core.override_parser.types import Quote, QuotedString

from bench.rows.prices import FILES, load_prices
from engines.core.errors import InvalidRequest

FILE_KEYS: Final = ("name", "terms", "source", "date")
OF_CHIPS: Final = "price.usd_per_chip_hour."


def price_words(word: str) -> list[str] | None:
    """The overrides that a word about prices stands for; None for a word that Hydra reads as it is.

    Raises:
        InvalidRequest: the file is not there, or its content is wrong; a chip has no value.
    """
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if word.startswith("~") or not equals:
        return None
    if name.startswith(OF_CHIPS):
        chip = name.removeprefix(OF_CHIPS)
        if not value:
            raise InvalidRequest(name, value, "is empty", "give US dollars for one chip and hour")
        return [f"++price.typed.{chip}={value}"]
    path = value[1:-1] if value[:1] == value[-1:] and value[:1] in ("'", '"') else value
    if name != "price" or not path.endswith(FILES) or path.startswith(("[", "{")):
        return None
    prices = load_prices(path)
    texts = {each: _quoted(str(getattr(prices, each))) for each in FILE_KEYS}
    dollars = {f"usd_per_chip_hour.{chip}": repr(usd) for chip, usd in prices.usd_per_chip_hour.items()}
    return ["price=none", *(f"++price.{each}={text}" for each, text in (texts | dollars).items())]


def _quoted(text: str) -> str:
    return str(QuotedString(text, Quote.single).with_quotes())
