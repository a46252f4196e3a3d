"""Logits of models with experts from a checkpoint, with experts split over chips, equal those of transformers."""

from typing import Any

import pytest
from checkpoint_cases import expected
from test_checkpoint_logits import difference, prefill

from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.source import Checkpoint

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

ONE, CUT, GATHERED = ((1, 1, 1), "ws_1d"), ((2, 2, 2), "ws_2d"), ((2, 2, 2), "wg_xyz")
SENT = {"expert_dispatch": "all_to_all"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.mark.parametrize(
    ("name", "layout", "keys"),
    [
        ("mixtral", ONE, {}),
        ("mixtral", CUT, {"expert_axes": "xz"}),
        ("qwen2-moe", CUT, {"expert_axes": "y", **SENT}),
        ("qwen3-moe", CUT, {"expert_axes": "x", **SENT}),
        ("qwen3-moe", GATHERED, {"expert_axes": "z"}),
        ("gpt-oss", CUT, {"expert_axes": "yz"}),
        ("gpt-oss", CUT, {"expert_axes": "xy", **SENT, "partitioner": "gspmd"}),
        ("deepseek-v3", ONE, {}),
        ("deepseek-v3", CUT, {"expert_axes": "xyz", **SENT}),
        ("deepseek-v3", GATHERED, {"expert_axes": "xy", **SENT}),
    ],
)
def test_experts_equal_those_of_transformers(
    name: str, layout: tuple[tuple[int, int, int], str], keys: dict[str, Any], folders: Any
) -> None:
    tokens, wanted = expected(name, folders / name)
    model = model_of(folders / name)
    output = prefill(Checkpoint(folders / name, model), model, tokens, *layout, **keys)
    assert difference(output, wanted[:, -1]) < 1e-4
