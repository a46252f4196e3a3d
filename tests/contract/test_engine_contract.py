"""What every engine owes the harness, asked of every engine of ``conf/engine``.

Engines that run another program refuse here, where there is none, and owe a sentence for it like any refusal.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from builders.points import point as build_point

import engines
from bench.measure.timing import TimingConfig
from bench.rows.metrics import METRICS, derive
from bench.rows.plausible import MBU_WITHHELD
from bench.run.keys import code_id, point_id, program_id
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.worker import answer, answer_all
from bench.sweep.catalog import load_group, load_model, names
from engines.core.engine import Estimator, Runner
from engines.core.load_test import LoadTester
from engines.core.row import POINT_FIELDS, Row, Source, Status

pytestmark = pytest.mark.slow(seconds=0.2)

ENGINES = names("engine")
RUNNERS = ("jax", "torch")
TIMING = TimingConfig(min_samples=3, max_samples=3, min_time_s=0, min_warmup_runs=1, max_warmup_runs=6)


def point(engine, **changes):
    sizes = {"phase": "generate", "num_chips": 1, "batch_size": 2, "input_len": 6, "output_len": 4}
    return build_point(engine=engine, **{"model": "tiny", "hw": "cpu", "weight_dtype": "float32", **sizes, **changes})


def paper(engine, **changes):
    """A point of the paper's Table 2, the low-latency prefill and decode of PaLM 540B."""
    sizes = {"phase": "decode", "num_chips": 64, "batch_size": 64, "input_len": 1984, "output_len": 64}
    return point(engine, **{"model": "palm-540b", "hw": "tpu-v4", "weight_dtype": "int8", **sizes, **changes})


ANSWERED = {
    "published": [paper("published")],
    "analytic": [paper("analytic"), paper("analytic", phase="generate"), paper("analytic", phase="prefill")],
    "jax": [point("jax"), point("jax", phase="prefill"), point("jax", phase="decode")],
    "torch": [point("torch"), point("torch", phase="prefill"), point("torch", phase="decode")],
}
"""Points that an engine answers on any machine."""


LIBRARIES = {"jax": "jax", "torch": "torch", "compiled": "libtpu"}


def made(name):
    """The engine; the test is left out where its library is not installed."""
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    return make_engine(load_group("engine", name))


def asked(engine, of):
    return PointTask(point=of, point_id=point_id(engine, of), code_id=code_id(engine), source=engine.source, sweep=None)


@pytest.fixture(scope="module")
def rows(request, small_peaks, plainly_prepared):
    """The rows of an engine's points, asked once."""
    kept = {}

    def call(name):
        if name not in kept:
            if name == "torch":
                request.getfixturevalue("small_torch_peaks")
            engine = made(name)
            kept[name] = [answer(engine, asked(engine, each), TIMING) for each in ANSWERED[name]]
        return kept[name]

    return call


@pytest.mark.parametrize("name", ENGINES)
def test_it_is_one_kind_of_engine_and_says_which(name):
    engine = made(name)
    assert sum(isinstance(engine, kind) for kind in (Estimator, Runner, LoadTester)) == 1
    assert engine.name == name == load_group("engine", name)["name"]
    assert engine.source in get_args(Source)
    folder = Path(engines.__path__[0])
    assert engine.code
    assert all((folder / each / "__init__.py").is_file() for each in engine.code)
    assert {name, "external", "compiled"} & set(engine.code)
    assert code_id(engine) == code_id(made(name))
    assert (code_id(engine) is None) == (not engine.decided_by_source)
    # Only where its own options say so is an engine one of several processes, or in need of variables.
    assert engine.process() is None
    assert all(isinstance(value, str) for value in engine.environment([point(name)]).values())
    assert json.loads(json.dumps(dict(engine.options))) == dict(engine.options)
    # What measures or compiles may crash or hang, so it gets a process of its own, and a limit.
    config = load_group("engine", name)
    assert config["isolated"] == (engine.source in ("measured", "compiled"))
    assert config["timeout_s"] > 0


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_is_a_valid_row(rows, name):
    for of, row in zip(ANSWERED[name], rows(name), strict=True):
        assert row.status == "ok", row.error
        assert row.latency_s > 0
        assert row.engine == name
        assert (row.phase, row.batch_size, row.input_len) == (of.phase, of.batch_size, of.input_len)
        assert Row.from_dict(json.loads(json.dumps(row.to_dict(), allow_nan=False))) == row


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_names_the_program_that_would_answer_now(rows, name):
    """And so a stored row is known to be current without answering its point again."""
    for of, row in zip(ANSWERED[name], rows(name), strict=True):
        assert row.program_id == program_id(made(name), of)
        assert row.code_id == code_id(made(name))
    if name in RUNNERS:
        assert len({row.program_id for row in rows(name)}) == len(rows(name))


@pytest.mark.parametrize("name", ANSWERED)
def test_no_choice_is_left_open_that_the_engine_made(rows, name):
    for row in rows(name):
        assert set(row.chosen) <= set(POINT_FIELDS)
        assert all(getattr(row, key) not in (None, "auto") for key in row.chosen)


@pytest.mark.parametrize("name", ANSWERED)
def test_rates_are_by_the_one_formula(rows, name):
    for of, row in zip(ANSWERED[name], rows(name), strict=True):
        decode_s = None if row.step_time_s is None else row.step_time_s * of.decode_steps
        rates = derive(
            of,
            latency_s=row.latency_s,
            prefill_s=row.ttft_s,
            decode_s=decode_s,
            peak_flops_per_s=row.peak_flops_per_s,
            hbm_bytes_per_s=row.hbm_bytes_per_s,
            matmul_flops_per_s=row.measured_matmul_flops_per_s,
            copy_bytes_per_s=row.measured_copy_bytes_per_s,
        )
        if MBU_WITHHELD in row.details:  # so small a model fits most machines' caches
            rates |= {"mbu": None, "mbu_of_copy": None}
        for key, value in rates.items():
            assert getattr(row, key) == pytest.approx(value), key
        assert METRICS["mfu"].compute is not None
        by_hand = of.tokens * 2 * of.model.mfu_params / row.latency_s / (of.num_chips * row.peak_flops_per_s)
        assert row.mfu == pytest.approx(by_hand)
        assert row.peak_source


@pytest.mark.parametrize("name", RUNNERS)
def test_a_measured_row_has_samples_of_every_stage_and_was_checked(rows, name):
    for of, row in zip(ANSWERED[name], rows(name), strict=True):
        stages = {"prefill": ["prefill"], "decode": ["decode"], "generate": ["prefill", "decode"]}[of.phase]
        assert list(row.details["stages_s"]) == stages
        assert len(row.samples_s) == row.n == 3
        assert row.latency_s == row.median
        assert 0 < row.max_relative_error <= row.details["tolerance"]
        assert row.details["verified_against"] == "float32 on a single device"
        # Without a datasheet, what was measured is also what the rates are of.
        assert row.measured_matmul_flops_per_s == row.peak_flops_per_s
        assert row.measured_copy_bytes_per_s == row.hbm_bytes_per_s
        assert row.mbu_of_copy == row.mbu
        assert (row.mbu is None) == (MBU_WITHHELD in row.details)
        assert row.weights_bytes == pytest.approx(4 * of.model.params, rel=0.01)
        # k and v × 4 layers × 2 sequences × all tokens × 1 head × 32, 4 bytes.
        assert row.kv_cache_bytes == 2 * 4 * 2 * (of.input_len + of.output_len) * 32 * 4


def test_runners_run_the_same_steps_on_the_same_weights(rows):
    """Their errors against their own references are as small, and as many bytes are held."""
    for one, other in zip(rows("jax"), rows("torch"), strict=True):
        assert one.weights_bytes == other.weights_bytes
        assert one.kv_cache_bytes == other.kv_cache_bytes
        assert one.tokens_per_s * one.latency_s == pytest.approx(other.tokens_per_s * other.latency_s)


@pytest.mark.parametrize("name", [name for name in ANSWERED if name not in RUNNERS])
def test_an_estimator_says_the_same_twice_and_in_any_company(rows, name):
    points = ANSWERED[name]
    engine = made(name)
    forwards, backwards = engine.estimate(points), engine.estimate(points[::-1])[::-1]
    assert list(forwards) == list(backwards) == [made(name).estimate([each])[0] for each in points]
    together = answer_all(engine, [asked(engine, each) for each in points])
    assert [row.latency_s for row in together] == [row.latency_s for row in rows(name)]


@pytest.mark.parametrize("name", RUNNERS)
def test_a_runner_says_the_same_twice(name):
    errors = []
    for _ in range(2):
        program = made(name).prepare(point(name))
        errors.append(program.verify())
        program.close()
    assert errors[0] == errors[1]


UNLIKELY = {
    "another chip": {"hw": "b200", "weight_dtype": "bfloat16"},
    "another format": {"weight_dtype": "int4", "act_dtype": "bfloat16", "kv_dtype": "int4"},
    "no slice": {"hw": "tpu-v4", "num_chips": 7, "weight_dtype": "bfloat16"},
    "too long": {"model": load_model("tiny-gpt"), "input_len": 3000},
    "too large": {"batch_size": 1 << 22, "input_len": 2000},
}


# JAX on hw=cpu asks the machine itself for the memory, which belongs to others too.
UNLIKELY_OF = [(name, what) for name in ENGINES for what in UNLIKELY if (name, what) != ("jax", "too large")]


@pytest.mark.parametrize(("name", "what"), UNLIKELY_OF)
def test_a_point_that_it_cannot_run_is_a_row_with_a_sentence(name, what):
    """Never an exception, never a made-up time: refused, out of memory, or an answer that the engine can stand by."""
    of = point(name, **UNLIKELY[what])
    engine = made(name)
    row = answer(engine, asked(engine, of), TIMING)
    assert row.status in get_args(Status)
    assert row.status != "failed", row.error
    if row.status == "ok":
        assert row.source in ("predicted", "compiled", "published")
        assert row.latency_s > 0
        return
    assert row.latency_s is None
    assert not row.valid
    assert row.error == row.error.strip()
    assert "\n" not in row.error
    assert len(row.error) > 20
    assert Row.from_dict(json.loads(json.dumps(row.to_dict(), allow_nan=False))) == row


@pytest.mark.parametrize("name", ENGINES)
def test_a_changed_point_is_another_point(name):
    engine = made(name)
    one = point(name)
    ids = {asked(engine, each).point_id for each in (one, replace(one, batch_size=3), replace(one, kv_dtype="float16"))}
    assert len(ids) == 3
