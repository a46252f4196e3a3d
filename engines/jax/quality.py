"""A smaller model's weights and its quality (:mod:`engines.weights.quality`), by the reference in JAX."""

from dataclasses import fields

from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.activation_scores import by_activation
from engines.transformer.reference import reference_logits
from engines.weights import quality
from engines.weights.quality import Quality, QualitySettings
from engines.weights.random import Source


def pruned_source(asked: Point, settings: Settings, source: Source) -> Source:
    """See :func:`engines.weights.quality.pruned_source`."""
    return quality.pruned_source(asked, _of(settings), source, by_activation)


def quality_of(asked: Point, run: Point, settings: Settings, whole: Source, source: Source) -> Quality | None:
    """See :func:`engines.weights.quality.quality_of`."""
    return quality.quality_of(asked, run, _of(settings), whole, source, reference_logits)


def _of(settings: Settings) -> QualitySettings:
    return QualitySettings(**{each.name: getattr(settings, each.name) for each in fields(QualitySettings)})
