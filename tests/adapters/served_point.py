"""A point of a server under load, and its row."""

from functools import partial

from builders.points import point as build_point

from bench.measure.timing import TimingConfig
from bench.run.make_row import PointTask
from bench.run.worker import answer

point = partial(
    build_point,
    model="tiny",
    hw="cpu",
    engine="serving",
    phase="serve",
    num_chips=2,
    batch_size=0,
    input_len=32,
    output_len=8,
    weight_dtype="float32",
    request_rate_per_s=20.0,
    num_requests=200,
)


def row_of(engine, of):
    return answer(engine, PointTask(point=of, point_id="x", source="measured", sweep=None), TimingConfig())
