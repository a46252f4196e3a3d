"""How near a model that was made smaller is to the whole one, and how well it predicts a text.

Both are run on one device in float32, by an engine's own reference, so that only what was left out, rounded or learned
anew tells them apart: the weights are those that the point's number formats hold (:mod:`engines.weights.rounded`). What
formats of activations and of the cache, and partitioning, add is in the row's ``max_relative_error`` and
``kl_divergence``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.core.point import Point
from engines.core.pruning import NONE, pruning_of
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.identity import identity, told_as
from engines.weights.checkpoint.source import open_checked
from engines.weights.held_out import WINDOW, WINDOWS, text_identity, windows_of
from engines.weights.logits import log_probabilities
from engines.weights.pruned.scores import BY, LayerScores, by_magnitude
from engines.weights.pruned.source import PrunedWeights
from engines.weights.random import Source, prompt
from engines.weights.rounded import RoundedWeights, rounds

LOGITS: Final = 1 << 27
"""Logits that are held at once."""
Logits = Callable[[Model, NDArray[np.int32], list[int], Source], NDArray[np.float32]]
"""A reference: a model's logits of tokens [batch, time] at positions → [positions, batch, vocabulary]."""
ByActivation = Callable[[Model, Source, NDArray[np.int32]], Sequence[LayerScores]]
"""The scores of every layer over tokens [batch, time]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySettings:
    """Settings of engines that run a smaller model, as in ``conf/engine``: what stays, and what it is compared with."""

    seed: int = 0
    checkpoint: str | None = None
    pruning_by: str = "magnitude"
    calibration_text: str | None = None
    teacher: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.pruning_by not in BY:
            raise InvalidRequest("engine.pruning_by", self.pruning_by, "is not known", f"use one of {', '.join(BY)}")

    def options(self) -> dict[str, Any]:
        """Those beside the weights that change a row, where they differ from the defaults; files by their content.

        Raises:
            InvalidRequest: a file cannot be read.
        """
        found: dict[str, Any] = {} if self.pruning_by == "magnitude" else {"pruning_by": self.pruning_by}
        if self.teacher is not None:
            with told_as("engine.teacher"):
                found["teacher"] = identity(Path(self.teacher).expanduser())
        for key in ("text", "calibration_text"):
            if (path := getattr(self, key)) is not None:
                found[key] = text_identity(key, path)
        return found


@dataclass(frozen=True, slots=True)
class Quality:
    """``kl``: mean KL(whole ‖ smaller) over positions in nats; ``agreement``: share of positions whose most likely next
    token is the same; ``perplexity``: of the text, exp of the mean negative log-likelihood of a next token."""

    kl: float | None
    agreement: float | None
    perplexity: float | None


def pruning_scores(
    asked: Point, settings: QualitySettings, source: Source, by_activation: ByActivation
) -> Callable[[int], LayerScores]:
    """What decides which parts of ``asked`` stay: the scores of a layer of the whole model, by its number.

    Raises:
        InvalidRequest: the calibration text cannot be read, or is the one that quality is measured on.
    """
    model = asked.model
    if settings.pruning_by == "magnitude" or not pruning_of(asked.pruning).by_parts:
        return partial(by_magnitude, model, source)
    text = settings.calibration_text
    named = (("calibration_text", text), ("text", settings.text))
    contents = [text_identity(key, each).rpartition("@")[2] for key, each in named if each is not None]
    if len(contents) == 2 and contents[0] == contents[1]:
        problem = "is the text that quality is measured on, which must not choose what stays"
        raise InvalidRequest("engine.calibration_text", text, problem, "use another text")
    if text is None:
        tokens = prompt(model, 4, WINDOW, settings.seed + 1)
    else:
        tokens = windows_of(text, model, settings.checkpoint, "calibration_text")
    return by_activation(model, source, tokens).__getitem__


def pruned_source(asked: Point, settings: QualitySettings, source: Source, by_activation: ByActivation) -> Source:
    """The weights of the model that is left of ``asked``; ``source`` are those of the whole.

    Raises:
        InvalidRequest: as :func:`pruning_scores`.
    """
    if asked.pruning == NONE:
        return source
    return PrunedWeights(asked.model, asked.pruning, source, pruning_scores(asked, settings, source, by_activation))


def quality_of(
    asked: Point, run: Point, settings: QualitySettings, whole: Source, source: Source, logits: Logits
) -> Quality | None:
    """The quality of ``run`` with the weights ``source``, against the teacher, or the whole model of ``asked``.

    The smaller model's weights are rounded to its number formats, the other's are in float32.

    None where nothing was left out and neither teacher nor text is given. Without a text, positions are those of
    random tokens, which say nothing of a model that learned from text.

    Raises:
        InvalidRequest: the teacher is no checkpoint or has another vocabulary, or the text has too few tokens.
        Unsupported: the text needs a tokenizer that is not installed.
    """
    pruned = asked.pruning != NONE
    if not pruned and settings.teacher is None and settings.text is None:
        return None
    teacher, weights = (asked.model, whole) if pruned or rounds(run) else (None, None)
    held = RoundedWeights(run, source) if rounds(run) else source
    if settings.teacher is not None:
        folder = Path(settings.teacher).expanduser()
        with told_as("engine.teacher"):
            teacher = model_of(folder)
        if teacher.vocab_size != run.model.vocab_size:
            raise InvalidRequest(
                "engine.teacher", folder, f"has a vocabulary of {teacher.vocab_size}, the model {run.model.vocab_size}",
                "use a teacher of the same tokens",
            )  # fmt: skip
        with told_as("engine.teacher"):
            weights = open_checked(folder, teacher)
    if settings.text is None:
        tokens = prompt(run.model, WINDOWS, min(WINDOW, run.model.max_positions), settings.seed + 2)
    else:
        tokens = windows_of(settings.text, run.model, settings.checkpoint)
    kl, same, likely = [], [], []
    at_once = max(1, LOGITS // (tokens.shape[1] * run.model.vocab_size))
    for start in range(0, len(tokens), at_once):
        part = tokens[start : start + at_once]
        ours = _log_probabilities(logits, run.model, part, held)
        if teacher is not None and weights is not None:
            theirs = _log_probabilities(logits, teacher, part, weights)
            kl.append((np.exp(theirs) * (theirs - ours)).sum(-1).ravel())
            same.append((theirs.argmax(-1) == ours.argmax(-1)).ravel())
        following = part.T[1:, :, None]
        likely.append(np.take_along_axis(ours[:-1], following, -1).ravel())
    return Quality(
        kl=float(np.concatenate(kl).mean()) if kl else None,
        agreement=float(np.concatenate(same).mean()) if same else None,
        perplexity=None if settings.text is None else float(np.exp(-np.concatenate(likely).mean())),
    )


def _log_probabilities(logits: Logits, model: Model, tokens: NDArray[np.int32], source: Source) -> NDArray[np.float64]:
    """[time, batch, vocabulary]."""
    found = logits(model, tokens, list(range(tokens.shape[1])), source).astype(np.float64)
    return log_probabilities(found)
