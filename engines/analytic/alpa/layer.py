"""The graph of a pass: a layer's matmuls, what lies between them, attention, and the tables.

A layer is solved once and counts as often as it is repeated. Attention's windows count by their mean over layers, as in
the closed forms.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import gcd
from typing import Final

import numpy as np

from engines.analytic.alpa.costs import EVEN, Cost, Costs, Part, on_chip
from engines.analytic.alpa.experts import Routed
from engines.analytic.alpa.gpu_costs import costs_of
from engines.analytic.alpa.graph import Edge, Graph, Operator
from engines.analytic.alpa.network import Local, Network
from engines.analytic.alpa.roles import MATMUL, MATRIX, VALUE, assignments, having, renamed, sent
from engines.analytic.alpa.sums import TERM_BYTES, Product
from engines.analytic.grid import Grid
from engines.core.model import Model
from engines.core.shardings import hidden_columns, projections
from engines.core.slice import MeshShape

Renaming = tuple[tuple[str, str], ...]
AS_IT_IS: Final[Renaming] = (("t", "t"), ("c", "c"))
READ: Final[Renaming] = (("t", "t"), ("k", "c"))
"""What a matmul reads, as a value: the axes that contract split its columns."""
MATRIX_AS_VALUE: Final[Renaming] = (("k", "t"), ("n", "c"))
LOGIT_BYTES: Final = 4.0
NORM_BYTES: Final = 8.0
"""Of the sums of a token that a norm takes over its width."""


def graph_of(
    model: Model, grid: Grid, mesh: MeshShape, *, prefill: bool, tables: bool = True, micro_batches: int = 1
) -> Graph:
    """The graph of one forward pass of the one point of ``grid``, over a prompt or of one token a sequence.

    With ``tables`` the embedding and the output matrix are part of it. The layer is the one that runs: where attention
    and feed-forward read one norm, they share one matmul in and one out. The cache holds ``micro_batches`` batches.
    """
    return _Pass(model, mesh, costs_of(grid, prefill=prefill, micro_batches=micro_batches)).graph(tables)


def _free(roles: str) -> Cost:
    """What takes nothing in any sharding: the columns between two matmuls are part of these."""
    del roles
    return Cost()


class _Pass:
    def __init__(self, model: Model, mesh: MeshShape, costs: Costs) -> None:
        self.model, self.mesh, self.costs = model, mesh, costs
        self.network = Network(costs.grid, mesh)
        self.width = self.costs.d_model
        self.operators: dict[str, Operator] = {}
        self.edges: list[Edge] = []

    def graph(self, tables: bool) -> Graph:
        costs, model = self.costs, self.model
        serial = model.block == "serial"
        for name in ("residual", "middle") if serial else ("residual",):
            self._stream(name)
        attended: tuple[Part, ...] = (costs.queries(), costs.keys_and_values())
        inputs, hidden = (costs.ffn_inputs, EVEN), (costs.ffn_hidden, EVEN)
        mixed = costs.value("expert_layers") / costs.layers
        if projections(model) == ("fused",):
            self._projection("fused", (*attended, inputs), (costs.queries(), hidden), ("residual", "residual"), costs)
        else:
            middle = "middle" if serial else "residual"
            self._projection("attn", attended, (costs.queries(),), ("residual", middle), costs)
            if "ffn" in projections(model):
                self._projection("ffn", (inputs,), (hidden,), (middle, "residual"), costs.of_layers(costs.fed))
            if mixed:
                self._experts(middle, "residual", costs.of_layers(mixed))
        if serial:  # what each half's result is added to
            self._edge("residual", "middle", self._held(((self.width, EVEN),)))
            self._edge("middle", "residual", self._held(((self.width, EVEN),)))
        if tables:
            self._tables()
        value, chips = costs.value, self.network.size("xyz")
        return Graph(
            operators=tuple(self.operators.values()),
            edges=tuple(self.edges),
            fixed_s=costs.layers * (value("layer_s") + value("routing_s") * mixed),
            prefetch=costs.prefetch,
            usable_bytes=value("hbm_bytes") * value("hbm_usable"),
            constant_bytes=costs.judged * value("vocab") / chips * LOGIT_BYTES * tables,
        )

    def _operator(self, name: str, shardings: Sequence[str], cost: Callable[[str], Cost]) -> None:
        found = [cost(each) for each in shardings]
        columns = {field: np.asarray([getattr(each, field) for each in found]) for field in Cost._fields}
        self.operators[name] = Operator(name=name, shardings=tuple(shardings), **columns)

    def _edge(
        self,
        source: str,
        target: str,
        *held: Local,
        made: Renaming = AS_IT_IS,
        read: Renaming = AS_IT_IS,
        times: float | None = None,
        written_s: Callable[[str], float] | None = None,
        after: Callable[[str], float] | None = None,
    ) -> None:
        """What is sent of values of which a chip holds ``held`` bytes, and ``after`` that by the target's sharding.

        ``written_s`` is what HBM takes where the two differ.
        """
        network, count = self.network, self.costs.layers if times is None else times
        known: dict[tuple[str, str], float] = {}

        def pair(before: str, wanted: str) -> tuple[float, float]:
            ends = renamed(before, made), renamed(wanted, read)
            if ends not in known:
                known[ends] = count * sum(network.total_s(sent(*ends), each) for each in held)
            more = 0.0 if after is None else count * after(wanted)
            return known[ends] + more, written_s(wanted) if written_s is not None and ends[0] != ends[1] else 0.0

        self._join(source, target, pair)

    def _join(self, source: str, target: str, pair: Callable[[str, str], tuple[float, float]]) -> None:
        """An edge of which ``pair`` says (waiting, memory) in seconds by the shardings of its ends."""
        ends = self.operators[source].shardings, self.operators[target].shardings
        table = np.asarray([[pair(before, wanted) for wanted in ends[1]] for before in ends[0]])
        self.edges.append(Edge(ends=(source, target), waiting_s=table[..., 0], memory_s=table[..., 1]))

    def _product_edge(self, source: str, target: str, product: Product, held: Local) -> None:
        """What summing the terms of a matmul takes, and then sending what it made, ``held`` bytes on a chip."""
        count = product.costs.layers

        @cache
        def moved_s(before: str, wanted: str) -> float:
            return count * self.network.total_s(sent(before, wanted), held)

        def pair(before: str, wanted: str) -> tuple[float, float]:
            waiting, busy = product.seconds(before, wanted)
            return waiting + moved_s(product.left(before, wanted), wanted) + count * product.turned_s(
                before, wanted
            ), busy

        self._join(source, target, pair)

    def _shards(self, roles: str, letters: str) -> int:
        return self.network.size(having(roles, letters))

    def _held(self, parts: Sequence[Part], tokens: float | None = None, element: float | None = None) -> Local:
        rows = self.costs.tokens if tokens is None else tokens
        size = self.costs.act if element is None else element
        return lambda over, across: rows / over * on_chip(parts, across) * size

    def _values(self, columns: float | None) -> list[str]:
        """Shardings of a value: rows split by whole sequences, columns evenly."""
        return [
            each
            for each in assignments(VALUE, self.mesh)
            if self.costs.batch % self._shards(each, "t") == 0
            and (columns is None or columns % self._shards(each, "c") == 0)
        ]

    def _stream(self, name: str) -> None:
        """The residual stream, a norm of it and what is added to it."""
        held, costs = self._held(((self.width, EVEN),)), self.costs

        def cost(roles: str) -> Cost:
            over = self._shards(roles, "t")
            summed = self.network.seconds("all-reduce", having(roles, "c"), costs.tokens / over * NORM_BYTES)
            here = held(over, self._shards(roles, "c"))
            read_s = costs.stream_passes * here * costs.value("vector_passes") / costs.stream
            return Cost(memory_s=costs.layers * read_s, waiting_s=costs.layers * summed, held_bytes=here)

        self._operator(name, self._values(self.width), cost)

    def _projection(
        self, name: str, inputs: Sequence[Part], rows: Sequence[Part], ends: tuple[str, str], costs: Costs
    ) -> None:
        """A matmul in from the stream, what is between, and a matmul out to the stream at the other of its ``ends``."""
        (source, target), width = ends, ((self.width, EVEN),)
        hidden = None if name == "attn" else float(gcd(*hidden_columns(self.model)))
        into = self._matmul(f"{name}.in", width, inputs, hidden, costs)
        out = self._matmul(f"{name}.out", rows, width, hidden, costs)
        self._operator(
            f"{name}.columns",
            self._values(hidden),
            lambda roles: costs.between(self._shards(roles, "t"), self._shards(roles, "c"), hidden is not None),
        )
        self._edge(source, f"{name}.in", self._held(width), read=READ, times=costs.layers)
        self._product_edge(f"{name}.in", f"{name}.columns", into, self._held(inputs))
        last, read = f"{name}.columns", [(costs.ffn_hidden, EVEN)]
        if name != "ffn":
            self._operator(f"{name}.joined", self._values(hidden), _free)
            self._attention(f"{name}.columns", f"{name}.joined")
            if hidden is not None:
                self._edge(last, f"{name}.joined", self._held(read))
            last, read = f"{name}.joined", [(columns, EVEN) for columns, _ in rows]
        self._edge(last, f"{name}.out", self._held(read), read=READ, times=costs.layers)
        self._product_edge(f"{name}.out", target, out, self._held(width))

    def _matmul(
        self, name: str, rows: Sequence[Part], columns: Sequence[Part], hidden: float | None, costs: Costs
    ) -> Product:
        """The matmul, its matrix in memory, and the edge between them: gathering weights."""
        product = Product(costs, self.network, rows, columns, into=name.endswith(".in"))
        extents = (self.width, hidden) if product.into else (hidden, self.width)

        def splits(roles: str) -> bool:
            return all(
                extent is None or extent % self._shards(roles, letter) == 0
                for letter, extent in zip("kn", extents, strict=True)
            )

        def elements(roles: str) -> float:
            return float(np.prod(product.local(roles)[1:]))

        matmuls = [each for each in assignments(MATMUL, self.mesh) if splits(each)]
        self._operator(name, [each for each in matmuls if costs.batch % self._shards(each, "t") == 0], product.cost)
        weights = f"{name}.weights"
        stored = [each for each in assignments(MATRIX, self.mesh) if splits(each)]
        self._operator(weights, stored, lambda roles: costs.matrix(elements(roles)))
        element = costs.value("weight_bytes")
        self._edge(
            weights,
            name,
            lambda over, across: on_chip(rows, over) * on_chip(columns, across) * element,
            made=MATRIX_AS_VALUE,
            read=MATRIX_AS_VALUE,
            times=costs.layers,
            written_s=lambda roles: costs.written_s(elements(roles)),
        )
        return product

    def _experts(self, source: str, target: str, costs: Costs) -> None:
        routed = Routed(costs, self.network)
        arriving, leaving = cache(routed.arriving_s), cache(routed.leaving_s)
        self._operator("experts", routed.shardings, routed.cost)
        self._join(source, "experts", lambda before, wanted: (arriving(before, wanted), 0.0))
        self._join("experts", target, lambda before, wanted: (leaving(before, wanted), 0.0))

    def _attention(self, columns: str, joined: str) -> None:
        """Attention, queries, keys and values to it, and its result back.

        A compiler exchanges queries twice, with keys and values before they are rotated and alone behind that; and the
        result before it is divided by its sums of weights, with these, both as float32.
        """
        costs = self.costs
        self._operator(
            "attention",
            self._values(None),
            lambda roles: costs.attention(self._shards(roles, "t"), self._shards(roles, "c")),
        )
        queries, keys = costs.queries()[0], costs.keys_and_values()[0]
        heads = queries / costs.head_dim
        arrive = self._held(((queries + keys, EVEN),)), self._held(((queries, EVEN),))
        leave = (self._held(((each, EVEN),), element=TERM_BYTES) for each in (queries, heads))
        self._edge(columns, "attention", *arrive, after=self._copied_s)
        self._edge("attention", joined, *leave)

    def _copied_s(self, roles: str) -> float:
        """Gathering keys and values where more chips split the heads than there are key/value heads to split."""
        left, copied = int(self.costs.kv_heads), ""
        for axis in having(roles, "c"):
            if left % self.network.size(axis) == 0:
                left //= self.network.size(axis)
            else:
                copied += axis
        one = 2 * self.costs.head_dim * left * self.costs.tokens / self._shards(roles, "t")
        return self.network.seconds("all-gather", copied, one * self.costs.act) if copied else 0.0

    def _tables(self) -> None:
        """The embedding, whose rows a chip has in part are summed to the stream, and logits of each last token."""
        costs, network, vocab = self.costs, self.network, self.costs.value("vocab")
        last = self._held(((self.width, EVEN),), costs.batch)
        logits = self._held(((vocab, EVEN),), costs.batch, LOGIT_BYTES)
        matrices = [each for each in assignments(MATRIX, self.mesh) if self.width % self._shards(each, "k") == 0]

        def cost(roles: str) -> Cost:
            width = self.width / self._shards(roles, "k")
            return costs.table(width * vocab / self._shards(roles, "n"), width)

        self._operator("table", matrices, cost)
        self._edge("table", "residual", self._held(((self.width, EVEN),)), made=(("k", "c"), ("n", "u")), times=1.0)
        self._edge("residual", "table", last, read=(("k", "c"),), times=1.0)
        every = "".join("c" if size > 1 else "r" for size in self.mesh)
        table = self.operators["table"]
        waiting = [network.total_s(sent(renamed(each, (("n", "c"), ("k", "u"))), every), logits) for each in matrices]
        self.operators["table"] = Operator(
            **{field: getattr(table, field) for field in ("name", "shardings", *Cost._fields) if field != "waiting_s"},
            waiting_s=np.asarray(waiting),
        )
