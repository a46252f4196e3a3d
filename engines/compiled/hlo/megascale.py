"""Collectives between slices, over the data-centre network: pairs of ``send`` and ``recv`` with the host.

The TPU compiler partitions a program over the devices of one slice, and leaves what joins slices to its megascale
runtime: a ``send`` hands the operand to it, the ``recv`` of the same rendezvous takes the result, and attributes of
both say what is done and between whom.
"""

import re
from typing import Final

from engines.compiled.hlo.parser import Computation, Instruction

RUNTIME: Final = "xla_megascale_runtime"
_RENDEZVOUS: Final = re.compile(r'_xla_host_transfer_rendezvous="([^"]*)"')
_TYPE: Final = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_SLICES: Final = re.compile(r'_xla_megascale_target="?\{([\d,]+)\}x')
_GROUP: Final = re.compile(r"_xla_megascale_target=\{\{([\d,]+)\}")
_PAIR: Final = 2


def joins_slices(each: Instruction) -> bool:
    """Whether an instruction is a part of a collective between slices."""
    return each.opcode in ("send", "recv", "send-done", "recv-done") and RUNTIME in each.rest


def kind_of(send: Instruction) -> str:
    """The collective's opcode, such as ``all-reduce``."""
    found = _TYPE.search(send.rest)
    kind = found[1].lower().replace("_", "-") if found else "collective-permute"
    return "collective-permute" if "permute" in kind or kind.startswith("one-to-") else kind


def slices_of(send: Instruction) -> int:
    """Slices that it joins: written as ``{1,2}x{0:3}``, as groups of devices or as pairs of them."""
    found = _SLICES.search(send.rest) or _GROUP.search(send.rest)
    return len(found[1].split(",")) if found else _PAIR


def bytes_of(computation: Computation, send: Instruction) -> tuple[float, float]:
    """Bytes that one device gives and gets; the tuple of a send or recv holds the value first."""
    received = next((other for other in computation.instructions if _pairs(send, other, "recv")), send)
    return send.shapes[0].bytes, received.shapes[0].bytes


def send_of(computation: Computation, done: Instruction) -> str:
    """Name of the send whose result a ``recv-done`` waits for; empty where it stands in another computation."""
    received = computation.by_name.get(done.operands[0]) if done.operands else None
    if received is None:
        return ""
    return next((each.name for each in computation.instructions if _pairs(received, each, "send")), "")


def _pairs(one: Instruction, other: Instruction, opcode: str) -> bool:
    if other.opcode != opcode or RUNTIME not in other.rest:
        return False
    mine, others = _RENDEZVOUS.search(one.rest), _RENDEZVOUS.search(other.rest)
    return mine is not None and others is not None and mine[1] == others[1]
