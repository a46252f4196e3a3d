"""Which key/value heads each chip keeps, and which of them its query heads read."""

import itertools

from engines.transformer.partition.plan import Plan


def kv_slots(plan: Plan) -> tuple[list[list[int]], list[list[int]], bool]:
    """Which key/value heads each chip keeps, which of them each of its query heads reads, and whether evenly.

    Chips count in ``axes.head`` order. Evenly: every chip's query heads fall into equal runs, one run a slot, so
    that grouping them is a reshape.
    """
    kept, read, even = [], [], True
    per_chunk = plan.padded.heads // plan.chips
    for place in itertools.product(*(range(plan.axes.size((axis,))) for axis in plan.axes.head)):
        ids = _chunk_ids(plan, {**dict.fromkeys("xyz", 0), **dict(zip(plan.axes.head, place, strict=True))})
        wanted = [(chunk * per_chunk + each) // plan.padded.group for chunk in ids for each in range(per_chunk)]
        slots = sorted(set(wanted))
        reads = [slots.index(head) for head in wanted]
        run = len(reads) // len(slots)
        even &= reads == [each // run for each in range(len(reads))]
        kept.append(slots)
        read.append(reads)
    most = max(map(len, kept))
    even &= all(len(slots) == most for slots in kept)
    return [slots + [slots[-1]] * (most - len(slots)) for slots in kept], read, even


def folds(plan: Plan) -> bool:
    """Whether the cache keeps a chip's slots among its sequences, each slot of each as a sequence of its own.

    A TPU lays the cache out in tiles of a head's dimensions and of what new tokens bring side by side: the few
    slots of a sequence would fill a fraction of each. Not where the compiler splits whole arrays, a prefix is kept
    for all sequences, or heads share slots unevenly.
    """
    kept, _, even = kv_slots(plan)
    return even and len(kept[0]) > 1 and plan.partitioner == "manual" and not plan.prefill.prefix


def _chunk_ids(plan: Plan, coordinates: dict[str, int]) -> list[int]:
    """Which chunks' heads a chip at {x, y, z} attends with, ascending."""
    ids: list[int] = []
    gathered = tuple(axis for axis in plan.axes.column if axis in plan.axes.attention)
    for moved in itertools.product(*(range(plan.axes.size((axis,))) for axis in gathered)):
        at = {**coordinates, **dict(zip(gathered, moved, strict=True))}
        index = 0
        for axis in plan.axes.column:
            index = index * plan.axes.size((axis,)) + at[axis]
        ids += range(index * plan.local_chunks, (index + 1) * plan.local_chunks)
    return sorted(ids)
