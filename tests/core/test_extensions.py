"""What a model has and an engine does not run is refused by name; the closed forms answer it."""

import pytest
from builders.points import point

from bench.sweep.catalog import load_group
from bench.validate.errors import load_estimator
from engines.core.engine import Estimator, Runner
from engines.core.errors import InvalidRequest, Unsupported

REFUSED = {"bert-6b": "model.encoder=True"}
PREDICTED = ("bloom-176b", "opt-66b", "qwen3-8b", "bert-6b", "gemma-3-27b", "gpt-oss-120b", "mixtral-8x22b")


def asked(model, engine, hw="a100-80gb"):
    keys = {"batch_size": 1, "input_len": 128, "output_len": 0, "phase": "prefill", "weight_dtype": "bfloat16"}
    return point(model, hw, num_chips=8, engine=engine, **keys)


@pytest.mark.parametrize("engine", ["jax", "torch"])
@pytest.mark.parametrize("model", REFUSED)
def test_an_engine_that_runs_the_model_refuses_it_before_it_loads(engine, model):
    from bench.run.load_engine import make_engine

    runner = make_engine(load_group("engine", engine))
    assert isinstance(runner, Runner)
    with pytest.raises(Unsupported) as refused:
        runner.prepare(asked(model, engine, "cpu"))
    assert str(refused.value).startswith(f"{REFUSED[model]}: engine={engine} ")


@pytest.mark.parametrize("model", REFUSED)
def test_the_compiled_engine_refuses_it(model):
    engine = load_estimator("compiled")
    assert isinstance(engine, Estimator)
    [answer] = engine.estimate([asked(model, "compiled", "tpu-v4")])
    assert (answer.status, answer.latency_s) == ("unsupported", None)
    assert f"{REFUSED[model]}: engine=compiled " in answer.error


@pytest.mark.parametrize("model", PREDICTED)
def test_the_closed_forms_answer_it(model):
    [answer] = load_estimator("analytic").estimate([asked(model, "analytic")])
    assert answer.status == "ok"
    assert answer.latency_s > 0


def test_an_encoder_is_asked_for_a_prefill_alone():
    encoder = asked("bert-6b", "analytic")
    encoder.check()
    generating = point("bert-6b", "a100-80gb", num_chips=8, engine="analytic", phase="generate", batch_size=1,
                       input_len=128, output_len=8)  # fmt: skip
    with pytest.raises(InvalidRequest, match=r"phase=generate: generates tokens and bert-6b is an encoder; use phase"):
        generating.check()
