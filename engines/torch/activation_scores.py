"""How much the parts of a model matter on a text, by the reference in PyTorch: what pruning by activations keeps.

A head's score is the mean square of what it adds to the residual stream; a column's that of its activation times the
squared norm of its row of the output matrix (Wanda's score summed over the row, Sun et al. 2023, arXiv 2306.11695); a
layer's is 1 minus the mean cosine of its input and output (block influence, Men et al. 2024, arXiv 2403.03853).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engines.core.feed_forward import FeedForward
from engines.core.layer_kind import LayerKind
from engines.core.model import Model
from engines.torch.reference import embedded, half_input, hidden, layer, layer_weights, outer_weights
from engines.torch.reference_attention import Weights, attended
from engines.weights.pruned.scores import LayerScores, by_unit, leads
from engines.weights.random import Source


@torch.inference_mode()
def by_activation(
    model: Model, source: Source, tokens: NDArray[np.int32], device: torch.device | None = None
) -> list[LayerScores]:
    """The scores of every layer over ``tokens`` [batch, time]; on the CPU by default."""
    device = device or torch.device("cpu")
    x = embedded(model, outer_weights(model, source, device), torch.from_numpy(tokens).long().to(device))
    found = []
    for number, kind in enumerate(model.layer_kinds):
        w = layer_weights(model, source, number, device)
        after = layer(model, kind, w, x, tokens.shape[1])
        added = _added_by_heads(model, kind, w, x)
        # A serial feed-forward reads the stream after attention; the columns that a text uses differ little by it.
        fed = half_input(model, w, "ffn", x if model.block == "parallel" else x + added.sum(2) * model.residual_scale)
        columns = {lead: _numpy(_columns(model, w, lead, fed)) for lead in leads(w)}
        heads = by_unit(model, _numpy(added.square().mean((0, 1, 3))))
        found.append(LayerScores(heads, columns, 1 - float(F.cosine_similarity(x, after, dim=-1).mean())))
        x = after
    return found


def _added_by_heads(model: Model, kind: LayerKind, w: Weights, x: Tensor) -> Tensor:
    """What each head adds to the residual stream, [batch, time, heads, embed]."""
    taken = attended(model, kind, w, half_input(model, w, "attn", x), x.shape[1])
    return torch.einsum("bhtd,hde->bthe", taken, w["o"])


def _columns(model: Model, w: Weights, lead: str, x: Tensor) -> Tensor:
    """The scores of the columns of a feed-forward, of experts [experts, columns]."""
    own = {name.removeprefix(lead): each for name, each in w.items() if name.startswith(lead)}
    ffn = _of(model, lead)
    if lead == "experts.":
        each = [{name: value[number] for name, value in own.items()} for number in range(own["wo"].shape[0])]
        made = torch.stack([hidden(ffn, one, "", x) for one in each])
    else:
        made = hidden(ffn, own, "", x)
    return made.square().mean((-3, -2)) * own["wo"].square().sum(-1)


def _of(model: Model, lead: str) -> FeedForward:
    if not lead:
        return model.ffn
    assert model.experts is not None
    found = model.experts.expert if lead == "experts." else model.experts.shared
    assert found is not None
    return found


def _numpy(x: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = x.double().cpu().numpy()
    return found
