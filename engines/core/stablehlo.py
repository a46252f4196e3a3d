"""StableHLO as text, without the names that it takes from the source."""

import re
from typing import Final

_DEFINED: Final = re.compile(r"func\.func (?:public |private )?@([\w.$]+)")
_SYMBOL: Final = re.compile(r"(?<!custom_call )@([\w.$]+)")
_RESULT_INFO: Final = re.compile(r'jax\.result_info = "[^"]*"')


def nameless(text: str) -> str:
    """The program with its module and functions numbered in the order in which they are defined.

    Jitted Python functions give a module its name and its functions theirs, and results are labelled with the keys
    under which Python holds them; none of that is compiled. Targets of custom calls keep their names.
    """
    numbered = {name: f"@f{number}" for number, name in enumerate(_DEFINED.findall(text))}
    body = re.sub(r"\Amodule @[\w.$]+", "module", text)
    body = _SYMBOL.sub(lambda found: numbered.get(found[1], found[0]), body)
    return _RESULT_INFO.sub("", body)
