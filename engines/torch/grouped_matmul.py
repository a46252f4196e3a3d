"""Rows times the matrix of their group, as one operation that a compiler and a trace see."""

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.library.custom_op("shardbench::grouped_matmul", mutates_args=())
def grouped_matmul(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """x: [rows, in], rows of a group together; weight: [groups, out, in] → [rows, out].

    ``ends`` [groups], int32 on x's device: the row after each group's last. Rows after the last group are undefined.
    """
    return F.grouped_mm(x, weight.mT, offs=ends)


@grouped_matmul.register_fake
def _(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])
