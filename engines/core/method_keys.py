"""The keys of a point about methods beyond layouts: what is left out, proposed ahead, or kept elsewhere."""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from engines.core.keys import Choice, Integer, Named, Number, Text, about
from engines.core.model import Model
from engines.core.needs import With
from engines.core.point_keys import PointKeys
from engines.core.pruning import NONE, PruningText
from engines.core.shardings import PATTERN

Lengths = Literal["equal", "uniform", "lognormal", "trace"]
LENGTHS: Final[tuple[str, ...]] = get_args(Lengths)
Padding = Literal["padded", "packed"]
PADDINGS: Final[tuple[str, ...]] = get_args(Padding)
SequenceParallel = Literal["none", "norms"]
SEQUENCE_PARALLELS: Final[tuple[str, ...]] = get_args(SequenceParallel)
MOVED: Final = {
    "engine.lengths": "use lengths=uniform, lognormal or trace",
    "engine.packed": "use padding=packed with lengths=uniform, lognormal or trace",
}
"""Settings of before they were keys of a point, and what to ask instead."""
Speculative = Literal["none", "draft", "self", "ngram"]
SPECULATIVES: Final[tuple[str, ...]] = get_args(Speculative)
Planner = Literal["auto", "alpa"]
PLANNERS: Final[tuple[str, ...]] = get_args(Planner)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodKeys(PointKeys):
    """Further fields of :class:`engines.core.point.Point`; an engine that does not read one runs its default alone."""

    pruning: str = field(
        default=NONE,
        metadata=about(
            PruningText(),
            "fraction of heads, feed-forward columns or layers that is left out, or two of four weights (2:4)",
            extends=True,
            is_off=True,
        ),
    )
    speculative: Speculative = field(
        default="none",
        metadata=about(
            Choice(SPECULATIVES),
            "what proposes tokens that the model then verifies together: a draft model, the model's own first layers, "
            "or the tokens that followed the same n-gram before",
            extends=True,
            is_off=True,
        ),
    )
    draft_model: Model | None = field(
        default=None,
        metadata=about(
            Named("model"),
            "the model that proposes tokens, of the same vocabulary",
            extends=True,
            needs=With("speculative", ("draft",)),
        ),
    )
    draft_len: int | None = field(
        default=None,
        metadata=about(
            Integer(1), "tokens proposed a turn; auto is 4", extends=True, needs=With("speculative", SPECULATIVES[1:])
        ),
    )
    draft_layers: int | None = field(
        default=None,
        metadata=about(
            Integer(1),
            "first layers of the model that propose; auto is a quarter of them",
            extends=True,
            needs=With("speculative", ("self",)),
        ),
    )
    acceptance_rate: float | None = field(
        default=None,
        metadata=about(
            Number(0.0, at_least=True),
            "probability that a proposed token is accepted; a measurement that is given one forces it",
            engine_chooses=True,
            extends=True,
            needs=With("speculative", SPECULATIVES[1:]),
        ),
    )
    exit_threshold: float | None = field(
        default=None,
        metadata=about(
            Number(0.0), "probability of its likeliest token from which a token leaves at an exit layer", extends=True
        ),
    )
    exit_every: int | None = field(
        default=None,
        metadata=about(
            Integer(1),
            "layers between two exit layers; auto is a quarter of them",
            extends=True,
            needs=With("exit_threshold"),
        ),
    )
    exit_rate: float | None = field(
        default=None,
        metadata=about(
            Number(0.0, at_least=True),
            "probability that a token leaves at an exit layer it comes to; a measurement that is given one forces it",
            engine_chooses=True,
            extends=True,
            needs=With("exit_threshold"),
        ),
    )
    planner: Planner = field(
        default="auto",
        metadata=about(
            Choice(PLANNERS),
            "who plans: auto chooses among the named layouts, alpa shardings of every operator by integer programming",
            extends=True,
        ),
    )
    shardings: str | None = field(
        default=None,
        metadata=about(
            Text(PATTERN, "use what plan planner=alpa out=FILE wrote, or the FILE"),
            "shardings of every operator, as plan planner=alpa writes them to a file, or that file; auto is a layout's",
            extends=True,
        ),
    )
    lengths: Lengths = field(
        default="equal",
        metadata=about(
            Choice(LENGTHS), "law of the prompts' lengths, of which input_len is the longest", extends=True, is_off=True
        ),
    )
    padding: Padding = field(
        default="padded",
        metadata=about(
            Choice(PADDINGS),
            "whether shorter prompts are padded or packed without padding",
            extends=True,
            needs=With("lengths", LENGTHS[1:]),
        ),
    )
    sequence_parallel: SequenceParallel = field(
        default="none",
        metadata=about(
            Choice(SEQUENCE_PARALLELS),
            "whether tensor-parallel ranks split the tokens of norms and residual, as Megatron does (norms)",
            extends=True,
            is_off=True,
        ),
    )
    micro_batches: int | None = field(
        default=None,
        metadata=about(Integer(1), "parts of the batch that follow each other through a pipeline", extends=True),
    )
