"""What a chip holds is a whole number of bytes, also where an engine takes a mean of prompts' lengths."""

from builders.points import point
from hypothesis import example, given
from hypothesis import strategies as st

from bench.run.make_row import PointTask, estimated
from engines.core.engine import Estimate, Facts

NAMES = ("peak_hbm_bytes", "weights_bytes", "kv_cache_bytes", "activations_bytes")


@given(held=st.floats(0, 1e12))
@example(held=3.0000000000000004)  # a sum's rounding is no byte
@example(held=1e11 / 3)
def test_bytes_of_a_row_are_whole_and_never_fewer_than_the_engine_found(held):
    sizes = {"num_chips": 64, "phase": "decode", "batch_size": 8, "input_len": 64, "output_len": 8}
    asked = point("palm-540b", "tpu-v4", engine="analytic", **sizes)
    answer = Estimate(status="ok", latency_s=10.0, facts=Facts(**dict.fromkeys(NAMES, held)))
    row = estimated(PointTask(point=asked, point_id="x", source="predicted", sweep=None), answer)
    for name in NAMES:
        stored = getattr(row, name)
        assert stored == int(stored)
        assert held - 1e-3 <= stored < held + 1
