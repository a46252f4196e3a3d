"""What attention sends, in closed form: over heads, the batch or the sequence, and of latent vectors."""

from collections.abc import Iterator

from engines.core.dtypes import BYTES_PER_ELEMENT, LARGEST
from engines.core.volume import Exchange, sequence_prompt, sequence_step
from engines.transformer.comm.transfer import Transfer, parts_of_a_weight, transfer
from engines.transformer.params.quantize import stream_dtype
from engines.transformer.partition.kv_heads import kv_slots
from engines.transformer.partition.plan import Plan


def attention_transfers(plan: Plan, tokens: int, time: int, limit: int) -> Iterator[Transfer]:
    """Beside its projections; ``tokens`` are a chip's, ``time`` of a sequence, and attend to ``limit`` positions."""
    element = BYTES_PER_ELEMENT[stream_dtype(plan)]
    if plan.model.attention.is_latent:
        yield from _latent_attention(plan, tokens, element, time, limit)
    elif plan.axes.positions:
        yield from _over_positions(plan, tokens, element, time, limit)
    else:
        yield from _by_head(plan, tokens, element)


def _by_head(plan: Plan, tokens: int, element: float) -> Iterator[Transfer]:
    axes, padded = plan.axes, plan.padded
    both = 2 * padded.kv_width
    there = element * tokens * plan.local_chunks * (padded.q_width + both)
    yield transfer("all-to-all", axes.attention, there, "attention")
    yield transfer("all-to-all", axes.attention, element * tokens * plan.local_chunks * padded.q_width, "attention")
    if not padded.kv_splits_by_head:
        own = tokens // axes.size(axes.attention)
        yield transfer("all-gather", axes.head, element * own * plan.chips * both, "attention")


def _over_positions(plan: Plan, tokens: int, element: float, time: int, limit: int) -> Iterator[Transfer]:
    axes, padded = plan.axes, plan.padded
    shared, prompt = axes.size(axes.positions), 1 < time == limit
    if prompt:
        tokens = tokens // time * -(-time // shared) * shared
    chunks, slots = plan.local_chunks * shared, len(kv_slots(plan)[0][0])
    columns = {"query": chunks * padded.q_width, "new": chunks * 2 * padded.kv_width, "value": chunks * padded.o_width}
    if prompt:
        exchanges = sequence_prompt(chips=shared, tokens=tokens, **columns, held=slots)
    else:
        exchanges = sequence_step(chips=shared, tokens=tokens, **columns, heads=columns["query"] // plan.model.head_dim)
    for each in exchanges:
        if each.of == "cached":
            yield from _ring_of_cached(plan, each)
        else:
            yield _exchanged(plan, each, element)
    if not padded.kv_splits_by_head:
        own = tokens // shared if prompt else tokens
        yield transfer("all-gather", axes.head, element * own * plan.chips * 2 * padded.kv_width, "attention")


def _ring_of_cached(plan: Plan, each: Exchange) -> Iterator[Transfer]:
    """Permutes of keys and of values, and of the scales of quantized ones; ``each`` counts heads."""
    sizes = [dim * BYTES_PER_ELEMENT[plan.kv_dtype] for dim in plan.cached_dims]
    sizes += [4.0, 4.0] if plan.kv_dtype in LARGEST else []
    for _ in range(each.times):
        for size in sizes:
            yield transfer(each.kind, plan.axes.positions, each.elements * size, "attention")


def _exchanged(plan: Plan, each: Exchange, element: float) -> Transfer:
    size = 4 if each.of == "statistics" else element
    return transfer(each.kind, plan.axes.positions, each.elements * size, "attention")


def _latent_attention(plan: Plan, tokens: int, element: float, time: int, limit: int) -> Iterator[Transfer]:
    """Columns of latent vectors, up-projections where a chip has not all that it reads, and attention's exchange."""
    axes, padded, model, attention = plan.axes, plan.padded, plan.model, plan.model.attention
    absorbs, prompt = plan.absorbs(time, limit), 1 < time == limit
    # Of a whole prompt every chip has all latent vectors, and attends with its own heads.
    moved = () if axes.positions and prompt else axes.moved
    down = sum(width for name, width in padded.latent_widths.items() if name != "q")
    yield transfer("all-gather", axes.column, element * tokens * plan.chips * down, "latents")
    latent, shared = plan.cached_dims
    heads = plan.local_chunks * padded.heads // plan.chips
    up = {"k_b": (latent, model.head_dim - shared), "v_b": (latent, attention.value_dim)}
    if model.q_latent_dim is not None:
        up["q_b"] = (model.q_latent_dim, model.head_dim)
    for name, (rows, dim) in up.items():
        for over, more in ((axes.vector[0], 1), (moved, axes.size(moved))):
            if more > 1 and (absorbs or name == "q_b"):
                continue
            for part, size in parts_of_a_weight(plan).items():
                yield transfer("all-gather", over, size * rows * heads * dim * more, f"{name} {part}")
            if plan.weight_dtype in LARGEST and plan.weight_group_size is None:
                yield transfer("all-gather", over, 4 * heads * dim * more, f"{name} vectors")
    there, back = (latent + shared, latent) if absorbs else (model.head_dim, attention.value_dim)
    if axes.positions:
        if not prompt:
            count = axes.size(axes.positions)
            sizes = {"query": count * heads * there, "new": 0, "value": count * heads * back, "heads": count * heads}
            yield from (_exchanged(plan, each, element) for each in sequence_step(chips=count, tokens=tokens, **sizes))
        return
    for dim in (there, back):
        yield transfer("all-to-all", axes.attention, element * tokens * heads * dim, "attention")
