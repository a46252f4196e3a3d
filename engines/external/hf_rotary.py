"""Rotary positions as the keys of a ``config.json``."""

from typing import Any

from engines.core.model import Model

Content = dict[str, Any]


def rope(model: Model) -> Content:
    """Base and scaling, under the names of transformers."""
    found: Content = {"rope_theta": model.rotary_base}
    original = model.rotary_original_positions
    scaling: Content = {"factor": model.rotary_factor, "original_max_position_embeddings": original}
    match model.rotary_scaling:
        case "yarn":
            scaling |= {
                "rope_type": "yarn",
                "beta_fast": model.rotary_high_factor,
                "beta_slow": model.rotary_low_factor,
                "truncate": model.rotary_truncated,
                "attention_factor": model.rotary_attention_factor or 1.0,
            }
        case "long":
            scaling |= {
                "rope_type": "longrope",
                "short_factor": list(model.rotary_short_factors or ()),
                "long_factor": list(model.rotary_long_factors or ()),
                "attention_factor": model.rotary_attention_factor or 1.0,
            }
        case "dynamic":
            scaling = {"rope_type": "dynamic", "factor": model.rotary_factor}
        case _ if original is not None:
            scaling |= {
                "rope_type": "llama3",
                "low_freq_factor": model.rotary_low_factor,
                "high_freq_factor": model.rotary_high_factor,
            }
        case _ if model.rotary_factor != 1:
            scaling = {"rope_type": "linear", "factor": model.rotary_factor}
        case _:
            return found
    return found | {"rope_scaling": scaling}
