"""What XLA:TPU's kernel for ``lax.ragged_dot`` takes.

The compiler states its operations as if every row of the buffer were some expert's, and its bytes as if every expert
had rows. The kernel visits a tile of rows once for each expert that has rows in it, and multiplies the whole tile each
time; it reads the matrix of an expert when it comes to its first tile. How many rows and experts there are is known
when it runs. Programs of this project state what is expected of balanced routing in the name of the scope
(:func:`engines.core.routing.balanced_scope`); where nothing is stated, every row and every expert counts.
"""

import math
import re
from typing import Final

from engines.compiled.hlo.parser import Computation, Instruction
from engines.core.routing import BALANCED

_TILING: Final = re.compile(r'ragged_dot_tiling="?(\d+),(\d+),(\d+)')
_MATRICES: Final = 3
"""Dimensions of the operand that holds the matrices of all experts."""


def ragged_dot_cost(computation: Computation, each: Instruction) -> tuple[float, float] | None:
    """(operations, bytes of HBM) of the kernel; None of another instruction."""
    tiling = _TILING.search(each.attributes.get("frontend_attributes", ""))
    if tiling is None or each.is_tuple:
        return None
    row_tile, in_tile, out_tile = map(int, tiling.groups())
    read = [computation.by_name[name].shapes[0] for name in each.operands if name in computation.by_name]
    matrices = next((shape for shape in read if len(shape.dims) == _MATRICES), None)
    rows = next((shape for shape in read if len(shape.dims) == _MATRICES - 1), None)
    if matrices is None or rows is None:
        return None
    (experts, inward, outward), (given, _) = matrices.dims, rows.dims
    stated = BALANCED.search(each.attributes.get("metadata", ""))
    used = min(float(stated[1]), given) if stated else float(given)
    hit = min(float(stated[2]), experts) if stated else float(experts)
    visits = math.ceil(used / row_tile) + max(0.0, hit - 1)
    padded = math.ceil(inward / in_tile) * in_tile * math.ceil(outward / out_tile) * out_tile
    result = each.shapes[0].bytes * used / given
    passes = math.ceil(outward / out_tile)
    moved = hit / experts * matrices.bytes + passes * rows.bytes * used / given + result
    return 2.0 * visits * row_tile * padded, moved
