"""Which key/value heads each chip holds, and which of them its query heads read.

A *slot* is the place of one key/value head in a chip's cache.
"""

import itertools

from engines.transformer.partition.plan import Plan


def kv_slots(plan: Plan) -> tuple[list[list[int]], list[list[int]], bool]:
    """(head in each slot, slot that each query head reads) of every chip, and whether the slots are shared evenly.

    Chips are in ``axes.head`` order. Evenly means that each chip's query heads form equal runs, one run per slot, so
    that grouping them is a reshape. A chip with fewer heads than another repeats its last one.
    """
    if plan.model.attention.is_latent:
        chips = plan.axes.size(plan.axes.head)
        return [[0]] * chips, [[0] * (plan.padded.heads // plan.axes.size(plan.axes.head))] * chips, True
    kept, read, even = [], [], True
    for heads in query_heads(plan):
        wanted = [head // plan.padded.group for head in heads]
        slots = sorted(set(wanted))
        reads = [slots.index(head) for head in wanted]
        run = len(reads) // len(slots)
        even &= reads == [each // run for each in range(len(reads))]
        kept.append(slots)
        read.append(reads)
    most = max(map(len, kept))
    even &= all(len(slots) == most for slots in kept)
    return [slots + [slots[-1]] * (most - len(slots)) for slots in kept], read, even


def query_heads(plan: Plan) -> list[list[int]]:
    """The padded query heads with which every chip attends, in order; chips are in ``axes.head`` order."""
    found, per_chunk = [], plan.padded.heads // plan.chips
    for place in itertools.product(*(range(plan.axes.size((axis,))) for axis in plan.axes.head)):
        ids = _chunk_ids(plan, {**dict.fromkeys("xyz", 0), **dict(zip(plan.axes.head, place, strict=True))})
        found.append([chunk * per_chunk + each for chunk in ids for each in range(per_chunk)])
    return found


def folds_slots(plan: Plan) -> bool:
    """Whether the cache folds slots into the batch: each slot of a sequence is then stored as a sequence.

    A TPU stores the cache in tiles of [written together, head_dim]: the few slots of one sequence would fill only a
    fraction of each tile. Not where the compiler partitions, where a prefix is shared, where slots are shared
    unevenly, or of a cache in pages.
    """
    if plan.pages is not None:
        return False
    kept, _, even = kv_slots(plan)
    return even and len(kept[0]) > 1 and plan.partitioner == "manual" and not plan.prefill.prefix


def _chunk_ids(plan: Plan, coordinates: dict[str, int]) -> list[int]:
    """The chunks whose heads the chip at {x, y, z} holds in attention, ascending."""
    ids: list[int] = []
    gathered = tuple(axis for axis in plan.axes.column if axis in plan.axes.moved)
    for moved in itertools.product(*(range(plan.axes.size((axis,))) for axis in gathered)):
        at = {**coordinates, **dict(zip(gathered, moved, strict=True))}
        index = 0
        for axis in plan.axes.column:
            index = index * plan.axes.size((axis,)) + at[axis]
        ids += range(index * plan.local_chunks, (index + 1) * plan.local_chunks)
    return sorted(ids)
