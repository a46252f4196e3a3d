"""A kind of feed-forward: which tensors it has and what can be counted from them."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from engines.core.layer_tensor import LayerTensor

Activation = Literal["swiglu", "swiglu_clamped", "geglu", "gelu", "gelu_tanh", "relu"]
GATED: Final[tuple[str, ...]] = ("swiglu", "swiglu_clamped", "geglu")
"""Activations of two input matrices."""


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Dense: hidden = act(x · inputs), out = hidden · output, with E = ``d_model`` and F = ``d_ff``.

    SwiGLU has two inputs, silu(x · gate) · (x · up), and so has GeGLU, with GELU (by tanh) in silu's place; GELU and
    ReLU have one. Clamped SwiGLU is gpt-oss's: g·sigmoid(1.702·g)·(u + 1), with g ≤ 7 and −7 ≤ u ≤ 7.
    """

    d_model: int
    d_ff: int
    activation: Activation
    has_bias: bool

    @property
    def gated(self) -> bool:
        """Whether it has two input matrices rather than one."""
        return self.activation in GATED

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input matrices, [E, F] each."""
        return ("gate", "up") if self.gated else ("wi",)

    @property
    def output(self) -> str:
        """Name of the output matrix, [F, E]."""
        return "wo"

    @property
    def stored_columns(self) -> int:
        """Columns of an input matrix and rows of the output matrix, as they are split over chips."""
        return self.d_ff

    @property
    def made_by_column(self) -> bool:
        """Whether a block of hidden columns needs that block of every input alone."""
        return all(each.shape[-1] == self.stored_columns for each in self.tensors if each.name in self.inputs)

    @property
    def input_columns(self) -> int:
        """Columns of all inputs together: what one token's input matmuls produce."""
        return len(self.inputs) * self.d_ff

    @property
    def hidden_columns(self) -> int:
        """Columns after the activation: what one token's output matmul reads."""
        return self.d_ff

    @property
    def matmul_params(self) -> int:
        """Elements of its matrices: 3 of E·F gated, else 2."""
        return sum(math.prod(each.shape) for each in self.tensors if each.fan_in)

    @property
    def active_params(self) -> int:
        """Elements of its matrices with which one token is multiplied."""
        return self.d_model * (self.input_columns + self.hidden_columns)

    @property
    def tensors(self) -> tuple[LayerTensor, ...]:
        """Every tensor of one layer, matrices first."""
        matrices = [LayerTensor(name, (self.d_model, self.d_ff), self.d_model, False) for name in self.inputs]
        matrices.append(LayerTensor(self.output, (self.d_ff, self.d_model), self.d_ff, True))
        if not self.has_bias:
            return tuple(matrices)
        biases = [LayerTensor(f"{each.name}_bias", each.shape[-1:], 0, each.joins_residual) for each in matrices]
        return tuple(matrices + biases)

    @property
    def params(self) -> int:
        """All its parameters: matrices and biases."""
        return sum(math.prod(each.shape) for each in self.tensors)
