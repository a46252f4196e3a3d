"""The configs that authors released, in ``released/``: one file a family.

Each entry has the config, its source, the parameters of the published weights with their source, and, for a model that
is refused, what the refusal must name (``lacks``). Long lists are cut where ``cut`` is set; versions and ids of tokens
may be left out.
"""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parent / "released"
RELEASED = {
    name: {**entry, "family": path.stem}
    for path in sorted(FOLDER.glob("*.yaml"))
    for name, entry in yaml.safe_load(path.read_text()).items()
}
READ = [name for name, entry in RELEASED.items() if "lacks" not in entry]
REFUSED = [name for name, entry in RELEASED.items() if "lacks" in entry]


def transformers_params(config):
    """Parameters as transformers builds the model on no device, a tied table counted once; None without a class."""
    import torch
    import transformers

    if not _known(config):
        return None
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers_config(config))
    return sum({id(each): each.numel() for each in model.parameters()}.values())


def transformers_config(config):
    """The config as transformers reads it, which refuses many values without making a model."""
    import transformers

    kind = transformers.CONFIG_MAPPING[config["model_type"]]
    left_out = ("model_type", "auto_map", "quantization_config")
    return kind.from_dict({key: value for key, value in config.items() if key not in left_out})


def counted_besides(family, model):
    """Parameters that transformers counts besides the model's; less than 0 where it counts fewer."""
    if model.router_correction:  # a buffer there
        return -model.num_experts * sum(kind.has_experts for kind in model.layer_kinds)
    return 2 * model.d_model if family == "opt" else 0  # rows of its positions that no token has


def published(entry):
    """The published number of parameters, to compare with: exact to 0.1%, or to half of what it was rounded to."""
    rounded = entry.get("rounded_to")
    return (
        pytest.approx(entry["params"], rel=1e-3) if rounded is None else pytest.approx(entry["params"], abs=rounded / 2)
    )


def _known(config):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config["model_type"] in CONFIG_MAPPING_NAMES.keys() & MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
