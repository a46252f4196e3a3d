"""A smaller model's weights and its quality (:mod:`engines.weights.quality`), by the reference in JAX."""

from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.activation_scores import by_activation
from engines.transformer.reference import reference_logits
from engines.weights import quality
from engines.weights.quality import Quality
from engines.weights.random import Source


def pruned_source(asked: Point, settings: Settings, source: Source) -> Source:
    """See :func:`engines.weights.quality.pruned_source`."""
    return quality.pruned_source(asked, settings, source, by_activation)


def quality_of(asked: Point, run: Point, settings: Settings, whole: Source, source: Source) -> Quality | None:
    """See :func:`engines.weights.quality.quality_of`."""
    return quality.quality_of(asked, run, settings, whole, source, reference_logits)
