"""Attention over a static cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.torch.rope import Rope

Cache = tuple[Tensor, ...]
"""Keys and values of one layer, [batch, kv_heads, length, dim] each; or latent vectors, :mod:`latent_attention`."""
BLOCK: Final = 256
"""Queries of a prompt whose scores are in memory at once, where a kernel for the whole prompt doesn't know them."""


@dataclass(frozen=True, slots=True)
class Window:
    """The last ``width`` keys (or, if ``chunked``, those of the query's block of as many), in ``room`` of a cache.

    The key at position p lies in slot p mod ``room``, so that a new key takes the place of one that is seen no more.
    """

    width: int
    room: int
    chunked: bool = False

    def held(self, limit: int) -> int:
        """Slots that the query at position ``limit`` − 1 reads: the first ones."""
        return (limit - 1) % self.width + 1 if self.chunked else min(limit, self.room)

    def filled(self, position: int) -> int:
        """Slots that hold what the query at ``position`` sees, beside its own: the first ones."""
        return position % self.width if self.chunked else min(position, self.room)

    def first_seen(self, position: int) -> int:
        """The first position that the query at ``position`` sees."""
        return position // self.width * self.width if self.chunked else max(0, position - self.width + 1)

    def sees(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[queries, keys]: whether keys that are not later lie within the window, by positions."""
        if self.chunked:
            return queries[:, None] // self.width == keys[None, :] // self.width
        return queries[:, None] - keys[None, :] < self.width


class CausalMask:
    """Which cached tokens the new tokens see, and the rotary tables of the new tokens, in layers of one kind.

    ``positions`` [time] are those of the new tokens, on the device. ``limit`` is the number of cached positions to
    read: if ``exact``, all of them are seen; otherwise ``allowed`` [1, 1, 1, limit] masks those after the position.
    Positions of a prompt (``is_prompt``) begin at 0 and read one another.
    """

    def __init__(
        self, positions: Tensor, limit: int, exact: bool, rope: Rope | None = None, window: Window | None = None
    ) -> None:
        self.positions, self.window = positions, window
        self.slots = positions if window is None else positions % window.room
        self.limit = limit if window is None else window.held(limit) if exact else window.room
        self.allowed: Tensor | None = None
        if not exact:
            last = self.slots if window is not None and window.chunked else positions
            self.allowed = (torch.arange(self.limit, device=positions.device) <= last)[None, None, None, :]
        self.rope_tables = None if rope is None else rope.at(positions)
        self.is_prompt = len(positions) > 1

    def distances(self) -> Tensor:
        """[limit]: how far before the only new token each cached position lies."""
        slots = torch.arange(self.limit, device=self.positions.device)
        back = self.positions - slots
        return back if self.window is None else back % self.window.room

    def bias(self, scores: "Scores", kv_heads: int) -> Tensor | None:
        """ALiBi's part of the scores of the only new token."""
        return None if scores.slopes is None else scores.bias(self.distances()[None], kv_heads)

    def write(self, cache: Cache, new: Sequence[Tensor]) -> None:
        """Keep the new keys and values [batch, kv_heads, time, dim] at their positions."""
        room = cache[0].shape[2]
        for held, each in zip(cache, new, strict=True):
            if each.shape[2] > room:
                held.index_copy_(2, self.slots[-room:], each[:, :, -room:])
            else:
                held.index_copy_(2, self.slots, each)


class RowMask(CausalMask):
    """What one new token of each sequence sees, at a position of its own. ``positions``: [batch, 1]."""

    def __init__(self, positions: Tensor, limit: int, rope: Rope | None, window: Window | None) -> None:
        self.positions, self.window, self.limit = positions, window, limit
        keys = torch.arange(limit, device=positions.device)
        allowed = keys <= positions
        if window is not None:
            allowed = allowed & window.sees(positions[:, 0], keys)
        self.allowed = allowed[:, None, None, :]
        self.rows = torch.arange(len(positions), device=positions.device)
        self.is_prompt = False
        self.rope_tables = None
        if rope is not None:
            cos, sin = rope.at(positions[:, 0])
            self.rope_tables = cos[:, None], sin[:, None]

    def bias(self, scores: "Scores", kv_heads: int) -> Tensor | None:
        """[batch, kv_heads, heads of each, limit]: see :class:`CausalMask`."""
        if scores.slopes is None:
            return None
        back = self.positions - torch.arange(self.limit, device=self.positions.device)
        return -scores.slopes.view(1, kv_heads, -1, 1) * back[:, None, None, :]

    def write(self, cache: Cache, new: Sequence[Tensor]) -> None:
        """See :class:`CausalMask`."""
        for held, each in zip(cache, new, strict=True):
            held[self.rows, :, self.positions[:, 0]] = each[:, :, 0]


class PackedMask(CausalMask):
    """What tokens of several sequences in one row see: those of their own sequence, in one row of the cache.

    Tokens of sequence i are those of ``queries[i]`` (start, stop); they stand at the positions ``standing[i]``, and
    its cache begins at ``rooms[i]``. ``slots`` [tokens] are the tokens' places in the cache.
    """

    def __init__(
        self,
        positions: Tensor,
        slots: Tensor,
        queries: Sequence[tuple[int, int]],
        rooms: Sequence[int],
        standing: Sequence[range],
        rope: Rope | None,
        window: Window | None,
    ) -> None:
        self.positions, self.slots, self.window, self.allowed = positions, slots, window, None
        self.queries, self.rooms, self.standing = queries, rooms, standing
        self.is_prompt = any(len(each) > 1 for each in standing)
        self.rope_tables = None if rope is None else rope.at(positions)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cache: Cache, scores: "Scores") -> Tensor:
        """See :func:`attend`; q: [1, tokens, heads, dim]."""
        self.write(cache, (k, v))
        one = _causal if scores.plain and scores.slopes is None and self.window is None else _in_blocks
        out = []
        for each in self.parts(cache, (k, v)):
            own, (key, value) = q[:, each.queries], (part.to(q.dtype) for part in each.read)
            if each.is_prompt:
                out.append(one(own.transpose(1, 2), key, value, self.window, scores).transpose(1, 2))
                continue
            rows = own.reshape(1, k.shape[1], -1, q.shape[3])
            back = torch.arange(key.shape[2] - 1, -1, -1, device=q.device)
            bias = None if scores.slopes is None else scores.bias(back[None], k.shape[1])
            out.append(weighed(rows, key, value, None, bias, scores).reshape(own.shape))
        return torch.cat(out, dim=1).flatten(2)

    def parts(self, cache: Cache, new: Sequence[Tensor]) -> Iterator["PackedPart"]:
        """Sequence by sequence, once ``new`` [1, kv_heads, tokens, dim] is in the cache."""
        for (start, stop), room, at in zip(self.queries, self.rooms, self.standing, strict=True):
            queries = slice(start, stop)
            if at.start == 0 and len(at) > 1:
                yield PackedPart(queries, True, [each[:, :, queries] for each in new])
                continue
            first = 0 if self.window is None else self.window.first_seen(at.start)
            yield PackedPart(queries, False, [each[:, :, room + first : room + at.stop] for each in cache])


@dataclass(frozen=True, slots=True)
class PackedPart:
    """One sequence of several in a row: the places of its ``queries``, and what they ``read`` of each tensor.

    ``is_prompt``: each token of a whole prompt reads those up to itself; else one token reads all.
    """

    queries: slice
    is_prompt: bool
    read: Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class Scores:
    """What becomes of q·kᵀ before and in the softmax, for this rank's heads.

    ``scale`` multiplies it (None: dim^(−1/2)), ``softcap`` c makes a score s c·tanh(s/c), ``slopes`` [heads] times the
    distance are taken off, and ``sinks`` [heads] are scores that take weight and give no value.
    """

    scale: float | None = None
    softcap: float | None = None
    slopes: Tensor | None = None
    sinks: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether kernels know it: no softcap and no sinks."""
        return self.softcap is None and self.sinks is None

    def bias(self, distances: Tensor, kv_heads: int) -> Tensor | None:
        """ALiBi's part of the scores at ``distances`` [..., keys] → [1, kv_heads, heads of each · …, keys]."""
        if self.slopes is None:
            return None
        slopes = self.slopes.view(1, kv_heads, -1, *[1] * distances.ndim)
        return (-slopes * distances).flatten(2, -2)


PLAIN: Final = Scores()


def attend(q: Tensor, k: Tensor, v: Tensor, cache: Cache, mask: CausalMask, scores: Scores = PLAIN) -> Tensor:
    """q: [batch, time, heads, dim], k and v: [batch, time, kv_heads, dim] → [batch, time, heads · dim].

    ``cache`` is that of one layer, to which k and v are written. More than one new token is a prompt from position 0,
    which attends only to itself.
    """
    batch, time, heads, dim = q.shape
    new_k, new_v = (each.transpose(1, 2).to(cache[0].dtype) for each in (k, v))
    if isinstance(mask, PackedMask):
        return mask.attend(q, new_k, new_v, cache, scores)
    mask.write(cache, (new_k, new_v))
    if time > 1:
        of_prompt = _causal if scores.plain and scores.slopes is None and mask.window is None else _in_blocks
        out = of_prompt(q.transpose(1, 2), new_k.to(q.dtype), new_v.to(q.dtype), mask.window, scores)
        return out.transpose(1, 2).reshape(batch, time, heads * dim)
    # One new token: the query heads of a key/value head take the place of the time dimension, so that no key is copied.
    # On GPUs only the kernel without a mask splits a long context over the whole device.
    keys, values = (each[:, :, : mask.limit].to(q.dtype) for each in cache)
    rows = q.reshape(batch, k.shape[2], -1, dim)
    bias = mask.bias(scores, k.shape[2])
    return weighed(rows, keys, values, mask.allowed, bias, scores).reshape(batch, 1, heads * dim)


def weighed(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, bias: Tensor | None, scores: Scores) -> Tensor:
    """q: [batch, kv_heads, rows, dim], k and v: [batch, kv_heads, keys, dim] → as q, of v's dim.

    Rows are the query heads of a key/value head, each with all of its queries. ``allowed`` and ``bias`` are
    [1, 1 or kv_heads, 1 or rows, keys].
    """
    if scores.plain:
        given = allowed
        if bias is not None:
            given = (bias if allowed is None else bias.masked_fill(~allowed, -torch.inf)).to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=given, **_scaled(scores))
    found = (q @ k.mT).float() * (scores.scale or q.shape[-1] ** -0.5)
    if scores.softcap is not None:
        found = torch.tanh(found / scores.softcap) * scores.softcap
    if bias is not None:
        found = found + bias
    if allowed is not None:
        found = found.masked_fill(~allowed, -torch.inf)
    if scores.sinks is None:
        return found.softmax(dim=-1).to(v.dtype) @ v
    each = scores.sinks.float().view(1, k.shape[1], -1, 1)
    sinks = each.repeat_interleave(q.shape[2] // each.shape[2], dim=2).expand(q.shape[0], -1, -1, -1)
    return torch.cat([found, sinks], dim=-1).softmax(dim=-1)[..., :-1].to(v.dtype) @ v


def _causal(q: Tensor, k: Tensor, v: Tensor, window: Window | None, scores: Scores) -> Tensor:
    """A prompt without a window: q [batch, heads, time, dim], k and v [batch, kv_heads, time, dim] → as q."""
    return F.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1], **_scaled(scores)
    )


def _in_blocks(q: Tensor, k: Tensor, v: Tensor, window: Window | None, scores: Scores) -> Tensor:
    """As :func:`_causal`, block by block of queries, each with the keys that it sees."""
    batch, heads, time, dim = q.shape
    kv_heads, out = k.shape[1], []
    at = torch.arange(time, device=q.device)
    for start in range(0, time, BLOCK):
        stop = min(start + BLOCK, time)
        first = 0 if window is None else window.first_seen(start)
        queries, keys = at[start:stop], at[first:stop]
        distances = queries[:, None] - keys[None, :]
        allowed = distances >= 0
        if window is not None:
            allowed = allowed & window.sees(queries, keys)
        group = heads // kv_heads
        rows = q[:, :, start:stop].reshape(batch, kv_heads, -1, dim)
        each = allowed.repeat(group, 1)[None, None]
        bias = scores.bias(distances, kv_heads)
        part = weighed(rows, k[:, :, first:stop], v[:, :, first:stop], each, bias, scores)
        out.append(part.view(batch, heads, stop - start, -1))
    return torch.cat(out, dim=2)


def _scaled(scores: Scores) -> dict[str, Any]:
    return {} if scores.scale is None else {"scale": scores.scale}
