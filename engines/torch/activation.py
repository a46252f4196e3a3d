"""Activations of a feed-forward."""

from torch import Tensor
from torch.nn import functional as F

from engines.core.feed_forward import GATED, Activation

LIMIT, GAIN = 7.0, 1.702
"""Of clamped SwiGLU, :class:`engines.core.feed_forward.FeedForward`."""


def activated(activation: Activation, inputs: Tensor) -> Tensor:
    """inputs: [..., columns of all inputs] → [..., hidden]; gate comes before up."""
    # Activations convert to float32 within their kernels; converting here would move three times the bytes.
    if activation not in GATED:
        if activation == "relu":
            return F.relu(inputs)
        return F.gelu(inputs, approximate="tanh" if activation == "gelu_tanh" else "none")
    gate, up = inputs.chunk(2, dim=-1)
    if activation == "geglu":
        return F.gelu(gate, approximate="tanh") * up
    if activation == "swiglu_clamped":
        gate, up = gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT)
        return gate * (gate * GAIN).sigmoid() * (up + 1)
    return F.silu(gate) * up
