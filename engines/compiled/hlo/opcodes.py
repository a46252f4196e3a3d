"""What every opcode and every custom call is charged: nothing, the time of its work, or a bounded guess that is said.

Classes of instructions, and on what evidence each is charged:

=============  ======================================================  ==========================================
class          instructions                                            time
=============  ======================================================  ==========================================
bookkeeping    :data:`FREE`, :data:`FREE_CALLS`, scalars without       none: they name, address or join values
               cycles                                                  that lie where they are
work           :data:`WORK` and whatever carries the compiler's        the compiler's cycles; without them the
               cycles                                                  bytes and operations at the roofline
moves          :data:`MOVES` that run beside others (``-start``)       bytes at HBM bandwidth
collectives    :data:`COLLECTIVES`, alone, fused or asynchronous       the links' time
control        ``while``, ``call``, ``conditional``                    of what they call
unknown        every other opcode, and custom calls that are neither   between nothing and the bytes and operations
               listed here nor carry cycles                            at the roofline; counted and named in the row
=============  ======================================================  ==========================================
"""

from typing import Final

from engines.compiled.hlo.parser import Instruction

COLLECTIVES: Final = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast",
    "ragged-all-to-all",
)  # fmt: skip
MOVES: Final = ("copy", "slice", "dynamic-slice", "dynamic-update-slice")
FREE: Final = frozenset(
    {
        "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "partition-id", "replica-id", "after-all",
        "opt-barrier", "add-dependency", "domain", "get-dimension-size",
    }
)  # fmt: skip
"""Opcodes that take no time: they only name or address values."""
CUSTOM_CALL: Final = "custom-call"
FREE_CALLS: Final = {
    "ConcatBitcast": "joins the slices of a value that were fetched into adjacent on-chip memory: "
    "XLA's memory_space_assignment::kConcatBitcastCustomCall, a bitcast",
    "AssumeGatherIndicesInBound": "marks indices as in bounds and returns them",
    "AllocateBuffer": "names memory and writes none of it",
    "PrepareAsyncCallStart": "a scalar that orders the call of another core",
    "PrepareAsyncCallDone": "a token that orders the call of another core",
}
"""Targets of custom calls that take no time, with what they do."""
WORK: Final = frozenset(
    {
        "fusion", "convolution", "dot", "copy", "reduce", "broadcast", "reshape", "transpose", "slice", "dynamic-slice",
        "dynamic-update-slice", "concatenate", "pad", "iota", "convert", "select", "compare", "add", "subtract",
        "multiply", "divide", "maximum", "minimum", "negate", "exponential", "exponential-minus-one", "log", "rsqrt",
        "sqrt", "tanh", "power", "and", "or", "not", "xor", "clamp", "sine", "cosine", "tan", "atan2", "cbrt", "gather",
        "scatter", "sort", "reduce-window", "shift-left", "shift-right-logical", "shift-right-arithmetic", "remainder",
        "reverse", "map", "abs", "sign", "floor", "ceil", "logistic", "log-plus-one", "erf", "rng-bit-generator",
        "bitcast-convert", "round-nearest-even", "round-nearest-afz", "is-finite", "copy-fusion", "select-and-scatter",
        "reduce-precision", "popcnt", "clz", "topk",
    }
)  # fmt: skip
"""Opcodes whose time is that of their cycles or, without them, of their bytes and operations."""
SEVERAL_PASSES: Final = frozenset({"sort", "topk"})
"""Opcodes that go over their values several times: without cycles, their bytes' time is the least that they take."""
CUBLAS: Final = "__cublas"


def call_target(each: Instruction) -> str:
    """What a custom call calls; empty for another instruction."""
    return each.attributes.get("custom_call_target", "").strip('"') if each.opcode == CUSTOM_CALL else ""


def is_cublas(each: Instruction) -> bool:
    """Whether an instruction calls cuBLAS, whose operations and bytes follow from its shapes."""
    return call_target(each).startswith(CUBLAS)


def is_free(each: Instruction) -> bool:
    """Whether an instruction is bookkeeping."""
    return each.opcode in FREE or (each.opcode == CUSTOM_CALL and call_target(each) in FREE_CALLS)


def is_known(each: Instruction) -> bool:
    """Whether the time of a synchronous instruction that is no collective can be told, and not only bounded."""
    if each.cycles is not None:
        return True
    if each.opcode == CUSTOM_CALL:
        return is_cublas(each)
    return each.opcode in WORK


def label_of(each: Instruction) -> str:
    """How an instruction is counted: its opcode; of a custom call its target too."""
    return f"{CUSTOM_CALL} {call_target(each)}" if each.opcode == CUSTOM_CALL else each.opcode
