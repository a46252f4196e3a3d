"""How near a model that was made smaller is to the whole one, and how well it predicts a text.

Both are run on one device in float32, so that only what was left out, or learned anew, tells them apart; what number
formats and partitioning add is the row's ``max_relative_error`` and ``kl_divergence``.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.model import Model
from engines.core.point import Point
from engines.core.pruning import NONE
from engines.jax.settings import Settings, digest_of_file
from engines.transformer.activation_scores import by_activation
from engines.transformer.reference import reference_logits
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.source import open_checked
from engines.weights.pruned.scores import by_magnitude
from engines.weights.pruned.source import PrunedWeights
from engines.weights.random import Source, prompt

WINDOW: Final = 128
"""Tokens of a piece of text that is read at once."""
WINDOWS: Final = 16
"""Pieces that are read, spread over the text."""
BYTES: Final = 256
LOGITS: Final = 1 << 27
"""Logits that are held at once."""


@dataclass(frozen=True, slots=True)
class Quality:
    """``kl``: mean KL(whole ‖ smaller) over positions in nats; ``agreement``: share of positions whose most likely next
    token is the same; ``perplexity``: of the text, exp of the mean negative log-likelihood of a next token."""

    kl: float | None
    agreement: float | None
    perplexity: float | None


def pruned_source(asked: Point, settings: Settings, source: Source) -> Source:
    """The weights of the model that is left of ``asked``; ``source`` are those of the whole.

    Raises:
        InvalidRequest: the calibration text cannot be read, or is the one that quality is measured on.
    """
    if asked.pruning == NONE:
        return source
    model = asked.model
    if settings.pruning_by == "magnitude":
        return PrunedWeights(model, asked.pruning, source, partial(by_magnitude, model, source))
    text = settings.calibration_text
    texts = [digest_of_file("text", each) for each in (text, settings.text) if each is not None]
    if len(texts) == 2 and texts[0] == texts[1]:
        problem = "is the text that quality is measured on, which must not choose what stays"
        raise InvalidRequest("engine.calibration_text", text, problem, "use another text")
    tokens = prompt(model, 4, WINDOW, settings.seed + 1) if text is None else windows_of(text, model, settings)
    return PrunedWeights(model, asked.pruning, source, by_activation(model, source, tokens).__getitem__)


def quality_of(asked: Point, run: Point, settings: Settings, whole: Source, source: Source) -> Quality | None:
    """The quality of ``run`` with the weights ``source``, against the teacher, or the whole model of ``asked``.

    None where nothing was left out and neither teacher nor text is given. Without a text, positions are those of
    random tokens, which say nothing of a model that learned from text.

    Raises:
        InvalidRequest: the teacher is no checkpoint or has another vocabulary, or the text has too few tokens.
        Unsupported: the text needs a tokenizer that is not installed.
    """
    pruned = asked.pruning != NONE
    if not pruned and settings.teacher is None and settings.text is None:
        return None
    teacher, weights = (asked.model, whole) if pruned else (None, None)
    if settings.teacher is not None:
        folder = Path(settings.teacher).expanduser()
        teacher = model_of(folder)
        if teacher.vocab_size != run.model.vocab_size:
            raise InvalidRequest(
                "engine.teacher", folder, f"has a vocabulary of {teacher.vocab_size}, the model {run.model.vocab_size}",
                "use a teacher of the same tokens",
            )  # fmt: skip
        weights = open_checked(folder, teacher)
    if settings.text is None:
        tokens = prompt(run.model, WINDOWS, min(WINDOW, run.model.max_positions), settings.seed + 2)
    else:
        tokens = windows_of(settings.text, run.model, settings)
    kl, same, likely = [], [], []
    at_once = max(1, LOGITS // (tokens.shape[1] * run.model.vocab_size))
    for start in range(0, len(tokens), at_once):
        part = tokens[start : start + at_once]
        ours = _log_probabilities(run.model, part, source)
        if teacher is not None and weights is not None:
            theirs = _log_probabilities(teacher, part, weights)
            kl.append((np.exp(theirs) * (theirs - ours)).sum(-1).ravel())
            same.append((theirs.argmax(-1) == ours.argmax(-1)).ravel())
        following = part.T[1:, :, None]
        likely.append(np.take_along_axis(ours[:-1], following, -1).ravel())
    return Quality(
        kl=float(np.concatenate(kl).mean()) if kl else None,
        agreement=float(np.concatenate(same).mean()) if same else None,
        perplexity=None if settings.text is None else float(np.exp(-np.concatenate(likely).mean())),
    )


def windows_of(path: str, model: Model, settings: Settings) -> NDArray[np.int32]:
    """Pieces of the text, [windows, time], evenly spread over it.

    Raises:
        InvalidRequest: there is no such file, nothing says what its tokens are, or it is shorter than one piece.
        Unsupported: the tokenizers package is not installed.
    """
    ids = _ids(Path(path).expanduser(), model, settings)
    time = min(WINDOW, model.max_positions)
    pieces = min(WINDOWS, len(ids) // time)
    if not pieces:
        raise InvalidRequest("engine.text", path, f"has {len(ids)} tokens", f"use a text of at least {time}")
    starts = np.linspace(0, len(ids) - time, pieces).astype(np.int64)
    return np.stack([ids[start : start + time] for start in starts])


def _ids(path: Path, model: Model, settings: Settings) -> NDArray[np.int32]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest("engine.text", path, "cannot be read", "use a text file") from error
    tokenizer = None if settings.checkpoint is None else Path(settings.checkpoint).expanduser() / "tokenizer.json"
    if tokenizer is not None and tokenizer.is_file():
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise Unsupported("engine.text needs tokenizers: pip install tokenizers") from None
        found = Tokenizer.from_file(str(tokenizer)).encode(content.decode("utf-8", "replace")).ids
        return np.asarray(found, np.int32)
    if model.vocab_size != BYTES:
        raise InvalidRequest(
            "engine.text", path, f"has no tokens for {model.vocab_size} ids without a tokenizer",
            "use a checkpoint with tokenizer.json, or a model of 256 byte values",
        )  # fmt: skip
    return np.frombuffer(content, np.uint8).astype(np.int32)


def _log_probabilities(model: Model, tokens: NDArray[np.int32], source: Source) -> NDArray[np.float64]:
    """[time, batch, vocabulary]."""
    logits = reference_logits(model, tokens, list(range(tokens.shape[1])), source).astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
