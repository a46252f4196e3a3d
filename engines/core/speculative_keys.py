"""The keys of a point about speculative decoding and early exit: what is filled in, and what goes together."""

from typing import TYPE_CHECKING, Any, Final

from engines.core.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from engines.core.point import Point

DRAFT_LEN: Final = 4
OTHER_PROGRAMS: Final = {"planner": "auto", "shardings": None}
"""Keys whose other values decode by programs of their own, and their default."""
SHARE: Final = 4
"""``draft_layers`` and ``exit_every`` are this part of the layers where they are left open."""


def filled_in(point: "Point") -> dict[str, Any]:
    """Key → value of what the point leaves open and needs."""
    found: dict[str, Any] = {}
    quarter = max(1, point.model.num_layers // SHARE)
    if point.speculative != "none" and point.draft_len is None:
        found["draft_len"] = DRAFT_LEN
    if point.speculative == "self" and point.draft_layers is None:
        found["draft_layers"] = quarter
    if point.exit_threshold is not None and point.exit_every is None:
        found["exit_every"] = quarter
    return found


def check_adaptive(point: "Point") -> None:
    """Check the keys about speculative decoding and early exit together.

    Raises:
        InvalidRequest: the phase has no step to decode, or the draft model's vocabulary or a number of layers does not
            fit.
    """
    for key, off in (("speculative", "none"), ("exit_threshold", None)):
        if getattr(point, key) != off and point.phase not in ("decode", "generate"):
            raise InvalidRequest(
                key, getattr(point, key), f"is a way to decode, and phase={point.phase}", "use phase=decode or generate"
            )
        if getattr(point, key) != off and not point.decode_steps:
            problem = f"is a way to decode, and the prompt's pass makes all of output_len={point.output_len}"
            raise InvalidRequest(key, getattr(point, key), problem, "use output_len=2 or more")
    if point.speculative != "none" and point.exit_threshold is not None:
        raise InvalidRequest(
            "exit_threshold",
            point.exit_threshold,
            f"changes the output that speculative={point.speculative} would keep",
            "use one of them",
        )
    if point.speculative != "none" or point.exit_threshold is not None:
        _check_others(point)
    if point.speculative == "draft":
        _check_draft(point)
    for key in ("draft_layers", "exit_every"):
        layers = getattr(point, key)
        if layers is not None and layers >= point.model.num_layers:
            raise InvalidRequest(
                key,
                layers,
                f"are not fewer than the {point.model.num_layers} layers of model={point.model.name}",
                f"use at most {point.model.num_layers - 1}",
            )
    for key in ("acceptance_rate", "exit_threshold", "exit_rate"):
        share = getattr(point, key)
        if share is not None and share > 1:
            raise InvalidRequest(key, share, "is a probability", "use a number up to 1")
    _check_positions(point)


def _check_others(point: "Point") -> None:
    """Keys that choose another program of decoding."""
    way = "exit_threshold" if point.speculative == "none" else f"speculative={point.speculative}"
    for key, off in OTHER_PROGRAMS.items():
        value = getattr(point, key, off)
        if value not in (off, None):
            raise InvalidRequest(key, value, f"is not supported with {way}", "leave one of them out")


def _check_draft(point: "Point") -> None:
    draft = point.draft_model
    if draft is None:
        raise InvalidRequest("draft_model", None, "is needed by speculative=draft", "name a small model of conf/model")
    if draft.vocab_size != point.model.vocab_size:
        raise InvalidRequest(
            "draft_model",
            draft.name,
            f"has a vocabulary of {draft.vocab_size}, and model={point.model.name} one of {point.model.vocab_size}",
            "use a draft of the same vocabulary",
        )
    draft.check_phase(point.phase)


def _check_positions(point: "Point") -> None:
    """The last turn proposes tokens behind the last one, which take positions too."""
    if point.draft_len is None:
        return
    tokens = point.input_len + point.output_len + point.draft_len
    for model in (point.model, point.draft_model):
        if model is not None and model.position == "learned" and tokens > model.max_positions:
            raise InvalidRequest(
                "draft_len" if model is point.model else "draft_model",
                point.draft_len if model is point.model else model.name,
                f"makes {tokens} tokens with those proposed, and {model.name} has {model.max_positions} positions",
                f"keep input_len + output_len + draft_len within {model.max_positions}",
            )


def check_rate(point: "Point") -> None:
    """Check that an engine that runs nothing is told what decides the number of turns, or of layers.

    Raises:
        Unsupported: it is not.
    """
    if point.speculative != "none" and point.acceptance_rate is None:
        raise Unsupported(
            f"acceptance_rate=auto: engine={point.engine} does not run speculative={point.speculative}; give "
            "acceptance_rate=0.8, or measure it with engine=jax"
        )
    if point.exit_threshold is not None and point.exit_rate is None:
        raise Unsupported(
            f"exit_rate=auto: engine={point.engine} does not run exit_threshold={point.exit_threshold}; give "
            "exit_rate=0.3, or measure it with engine=jax"
        )
