"""Whether a config is that of a causal language model of its family, run by the family's own code."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines.weights.checkpoint.config import Config, short
from engines.weights.checkpoint.files import CONFIG

OTHER_KINDS = {
    "ForSequenceClassification": "a classifier or reward model: its head gives scores and no tokens",
    "ForTokenClassification": "a classifier of tokens",
    "ForQuestionAnswering": "a model that marks answers in a text",
    "ForConditionalGeneration": "a model of several inputs, or an encoder with a decoder",
    "ForMultipleChoice": "a classifier of choices",
    "ForMaskedLM": "a model that fills in masked tokens",
    "RewardModel": "a reward model: its head gives scores and no tokens",
    "Eagle": "a draft model for speculative decoding",
    "Medusa": "heads for speculative decoding",
    "MTP": "layers that predict further tokens",
    "NextN": "layers that predict further tokens",
    "Speculator": "a draft model for speculative decoding",
    "DoubleHeadsModel": "a language model with a second head",
}
"""Part of an architecture's name → what it is."""


def check_architecture(config: Config, allowed: Sequence[str], own_code: Sequence[str]) -> None:
    """Check ``architectures``, and that ``auto_map`` names no code but that of ``own_code``.

    Raises:
        InvalidRequest: the config names another architecture, several, or none, or code that comes with the checkpoint.
    """
    config.read.update(("architectures", "auto_map"))
    named = config.content.get("architectures")
    if named in (None, []):
        raise config.refused(
            f"{CONFIG} has no architectures, so that it may be of another task",
            f'add "architectures": ["{allowed[0]}"] to it if it is a causal language model',
        )
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise config.wrong("architectures", f"must name one architecture: {' or '.join(allowed)}")
    if named[0] not in allowed:
        raise config.refused(
            f"{CONFIG} has architectures={named[0]}, {_kind(named[0], config.model_type, allowed)}",
            f"give a checkpoint of {' or '.join(allowed)}",
        )
    _check_own_code(config, own_code)


def _kind(architecture: str, family: str, allowed: Sequence[str]) -> str:
    found = [meaning for part, meaning in OTHER_KINDS.items() if part in architecture]
    if found:
        return found[0]
    if architecture.endswith("Model"):
        return "a model without an output of tokens, such as one that embeds texts"
    return f"which is not the causal language model of model_type={family} ({', '.join(allowed)})"


def _check_own_code(config: Config, own_code: Sequence[str]) -> None:
    given: Any = config.content.get("auto_map")
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise config.wrong("auto_map", "must be a mapping")
    for task, name in given.items():
        # "repository--module.Class", as a string or in a list of several
        for each in name if isinstance(name, list) else [name]:
            module = str(each).rpartition("--")[2].partition(".")[0]
            if each is not None and module not in own_code and not str(task).startswith("AutoTokenizer"):
                raise config.refused(
                    f"{CONFIG} has auto_map={short(each)}: the checkpoint runs code of its own, which may be any model",
                    "delete auto_map if transformers runs it without trust_remote_code",
                )
