"""Jobs are composed fast, and as Hydra composes them."""

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bench.sweep.catalog import conf_dir
from bench.sweep.composer import Composer
from bench.sweep.config_dirs import in_use
from bench.sweep.overrides import in_grammar
from engines.core.errors import ShardbenchError

RECIPE = """\
# @package _global_
defaults:
  - override /model: tiny
scale: 2
batch_size: ${scale}
sweep_name: ${model.name}-${oc.env:SHARDBENCH_TEST,x}
model:
  num_layers: ${scale}
engine:
  timeout_s: ${batch_size}
points:
  - {batch_size: ["${scale}", 64], model: "${model.name}"}
"""
ASKING = """\
# @package _global_
sweep_name: ${hydra:runtime.choices.model}
input_len: ${hydra:job.name}
"""
WORDS = (
    "model=tiny", "model=palm-8b", "hw=cpu", "engine=jax", "engine=compiled", "timing=default", "+sweep=own",
    "+sweep=asking", "+sweep=study-attention", "batch_size=3", "batch_size=[1,2]", "batch_size={a:1}",
    "batch_size=${input_len}", "++scale=5", "+scale=5", "scale=4", "model.num_layers=7", "~model.num_layers",
    "+model.experts=3", "~model", "model={num_layers:9}", "model.name='a b'", "engine.timeout_s=null",
    "++engine.tolerance.int8=0.5", "engine={a:{b:1}}", "+engine.a.b=2", "~engine.timeout_s", "~engine.timeout_s=3",
    "mesh_shape=[2,2,2]", "points=[{batch_size:1}]", "points=null", "retry=[]", "sweep_name=${hw.name}",
    "sweep_name=${hydra:job.name}", "no_such_key=1", "print=???", "hydra.job.name=other", "timing.min_samples=3",
    "wandb.mode=offline",
)  # fmt: skip


@pytest.fixture(scope="module")
def composer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "sweep").mkdir()
    (folder / "sweep" / "own.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "sweep" / "asking.yaml").write_text(ASKING, encoding="utf-8")
    with in_use([str(folder)]), Composer().ready() as found:
        yield found


def by_hydra(words):
    """The plain values by Hydra's own public function, resolved as in a job; None where it refuses."""
    try:
        config = hydra.compose("config", overrides=list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with_hydra = OmegaConf.to_container(config, resolve=False)
        del with_hydra["hydra"]
        with pytest.MonkeyPatch.context():
            return OmegaConf.to_container(OmegaConf.create(with_hydra), resolve=True, throw_on_missing=True)
    except Exception:
        return None
    finally:
        HydraConfig.instance().cfg = None


def by_us(composer, words):
    try:
        return composer.content(words)
    except ShardbenchError:
        return None


@pytest.mark.slow
@examples(max_examples=10)
@given(words=st.lists(st.sampled_from(WORDS), max_size=6))
def test_a_job_is_what_hydra_composes(composer, words):
    assert by_us(composer, words) == by_hydra(words)


def test_the_property_sees_both_outcomes(composer):
    assert by_us(composer, ["+sweep=own", "scale=4"])["engine"]["timeout_s"] == 4
    assert by_us(composer, ["no_such_key=1"]) is None
    assert by_us(composer, ["+sweep=asking", "model=tiny", "input_len=3"])["sweep_name"] == "tiny"


def test_a_thousand_jobs_read_their_files_once(composer, monkeypatch):
    composed = []
    original = type(composer.loader).load_configuration
    monkeypatch.setattr(
        type(composer.loader),
        "load_configuration",
        lambda self, *given, **more: composed.append(1) or original(self, *given, **more),
    )
    for index in range(1000):
        words = [
            f"batch_size={index + 1}",
            f"model={('tiny', 'palm-62b')[index % 2]}",
            f"timing.min_samples={index % 3 + 1}",
        ]
        assert composer.content(words)["batch_size"] == index + 1
    assert len(composed) <= 2


def test_our_own_configs_are_found(composer):
    assert composer.config_dir == str(conf_dir())
    assert in_grammar(["sweep=own"], multirun=False) == ["+sweep=own"]
