"""The number formats that harnesses name, as formats of a point."""

import re
from collections.abc import Callable
from typing import Final

from bench.importers.content import Content
from bench.importers.known import Known, by_rule, stated
from bench.importers.setting import Setting
from engines.core.dtypes import ACTIVATION_DTYPES, BYTES_PER_ELEMENT
from engines.core.errors import InvalidRequest
from engines.core.point import Point

WORDS: Final = {
    **dict.fromkeys(("float32", "fp32", "f32", "float"), "float32"),
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat16"),
    **dict.fromkeys(("float16", "fp16", "f16", "half"), "float16"),
    **dict.fromkeys(("float8_e4m3", "fp8_e4m3", "float8_e4m3fn", "fp8"), "float8_e4m3"),
    "int8": "int8",
    "int4": "int4",
}
"""A harness's word, in small letters → the format of a point."""
MOST_BITS_APART: Final = 1.5
"""Most that the bits of a number and those of the format that stands for it differ: scales add to the first."""
UNSTATED: Final = ("auto", "none", "null", "")
"""Words that leave the choice to the program, which is then not known."""


def number_format(content: Content, key: str) -> Known | None:
    """The format that a key names; None where the key is absent or leaves the choice open.

    Raises:
        ShardbenchError: it names a format that no point has.
    """
    known = content.value(key)
    if known is None or str(known.value).lower() in UNSTATED:
        return None
    word = str(known.value).lower().removeprefix("torch.")
    if word not in WORDS:
        known_words = ", ".join(dict.fromkeys(WORDS.values()))
        raise content.refused(key, "is a number format that no row has", f"use a file in one of {known_words}")
    return by_rule("precision", WORDS[word], known)


def of_weights(content: Content, dtype: str, quantisation: str) -> Setting:
    """The point's number formats by the keys ``dtype`` and ``quantisation``, and what the user must add of them.

    ``dtype`` is the format of the activations, and of the weights where nothing quantises them. The check refuses a
    user's format that quantised weights cannot have.
    """
    plain = number_format(content, dtype)
    scheme = content.value(quantisation)
    if scheme is None or str(scheme.value).lower() in (*UNSTATED, "no_quant"):
        return Setting(point=stated(weight_dtype=plain))
    word = str(scheme.value).lower()
    if word in WORDS and WORDS[word] not in ACTIVATION_DTYPES:
        weights = by_rule("precision", WORDS[word], scheme)
        # Products in eight bits or in sixteen: the word does not say, and MFU divides by that peak.
        why = f"{quantisation}={scheme.value} does not say what was multiplied"
        return Setting(point={"weight_dtype": weights}, needs={"act_dtype": why})
    what = f"{quantisation}={scheme.value}"
    needs = {"weight_dtype": f"{what} is no number format of a row by itself"}
    bits = re.search(r"w(\d+)|(?:fp|nf|int|q)(\d+)", word)
    return Setting(needs=needs, check=check_quantised(content, what, float(bits[1] or bits[2]) if bits else None))


def check_quantised(content: Content, what: str, bits: float | None) -> Callable[[Point], None]:
    """A check that the user's ``weight_dtype`` may stand for weights of ``bits`` bits (None: fewer than 16).

    ``what`` names them in messages, as the file does.
    """

    def check(point: Point) -> None:
        given = 8 * BYTES_PER_ELEMENT[point.weight_dtype]
        apart = 1.0 if bits is None else max(given / bits, bits / given)
        if point.weight_dtype in ACTIVATION_DTYPES or apart > MOST_BITS_APART:
            size = "quantised" if bits is None else f"{bits:.3g} bits a weight"
            raise InvalidRequest(
                "weight_dtype",
                point.weight_dtype,
                f"is {given:g} bits a weight, and {content.where} has {what}, {size}",
                "use the format that comes nearest, or leave the file out if none does",
            )

    return check
