"""Whether a config's weights are quantized in a way that can be read."""

from collections.abc import Mapping
from typing import Any, Final

from engines.weights.checkpoint.config import Config, same, short
from engines.weights.checkpoint.quantized import BLOCK

KEY: Final = "quantization_config"


def check_quantized(config: Config, method: str) -> None:
    """Check that ``quantization_config`` is absent, or of the ``method`` that the family's files are released in.

    Raises:
        InvalidRequest: it is another.
    """
    if not config.gives(KEY):
        return
    given = config.content[KEY]
    wanted: Mapping[str, Any] = {"fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]} if method == "fp8" else {}
    if not isinstance(given, Mapping) or given.get("quant_method") != method:
        raise config.wrong(KEY, f"is not supported: quantized weights other than {method}")
    for key, value in wanted.items():
        if not same(given.get(key), [value]):
            raise config.wrong(KEY, f"is not supported: its {key} must be {short(value)}")
    config.ignore(KEY)  # which numbers the files hold, and not which model they are
