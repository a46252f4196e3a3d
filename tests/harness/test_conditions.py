"""A measured row stands for its point only under the conditions that it was measured under."""

import json
import os
from dataclasses import asdict, replace
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from builders.rows import a_row
from hypothesis import given

from bench.measure.timing import TimingConfig
from bench.run import conditions as subject
from bench.run.conditions import conditions_of, hold, variables
from bench.run.environment import cpu_quota, read_environment
from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_group, names
from engines.core.versions import compiler_flags

MEASURING = [name for name in names("engine") if make_engine(load_group("engine", name)).source == "measured"]
HARMLESS = {
    *(
        "_target_",
        "name",
        "isolated",
        "timeout_s",
        "memory_limit_bytes",
        "run_timeout_s",
        "start_timeout_s",
        "rank_timeout_s",
    ),
    *("nvidia_smi", "coordinator", "process_id", "join_timeout_s"),
}
"""Settings of engines that change no answer: limits, where a tool is, who meets whom."""

STATES = {
    "xla_flags": ["", "--xla_cpu_enable_fast_math=true", "--xla_cpu_enable_fast_math=false"],
    "cpu_affinity": [[0], [0, 1], [1, 2]],
    "OMP_NUM_THREADS": [None, "1", "8"],
    "LIBTPU_INIT_ARGS": [None, "--xla_enable_async_collective_permute=true"],
    "JAX_DEFAULT_MATMUL_PRECISION": [None, "highest"],
    "TF_XLA_FLAGS": [None, "--tf_xla_auto_jit=2"],
    "tolerance": [1e-5, 1e-3],
    "max_samples": [200, 100],
    "seed": [0, 1],
    "cores": [None, 1],
    "processor": ["one", "other"],
    "driver": [None, "570.1", "580.2"],
    "gpus": [[], ["NVIDIA H100, 700.00 W"], ["NVIDIA H100, 350.00 W"]],
    "cpu_quota": [None, 1.5],
    "host": ["here", "there"],
}
ONE = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in STATES.items()})


class World:
    """This machine as a state of ``STATES`` has it: the row that is measured there, and whether another holds."""

    def __init__(self, state):
        self.state = state
        given = {name: value for name, value in state.items() if name.isupper() and value is not None}
        self.environ = {"XLA_FLAGS": state["xla_flags"], "HOME": "/anywhere", **given}
        self.timing = TimingConfig(max_samples=state["max_samples"], seed=state["seed"])
        self.config = load_group("engine", "torch") | {"cores": state["cores"]}
        self.config["tolerance"] = {"float32": state["tolerance"]}

    def _in_it(self, call):
        here = read_environment()
        driver = {} if self.state["driver"] is None else {"driver": self.state["driver"]}
        there = {name: self.state[name] for name in ("processor", "gpus", "cpu_quota", "host")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subject, "read_environment", lambda: replace(here, versions=driver, **there))
            patch.setattr(subject, "cpu_affinity", lambda: self.state["cpu_affinity"])
            patch.setattr(subject, "os", SimpleNamespace(environ=self.environ, cpu_count=os.cpu_count))
            return call(conditions_of(make_engine(self.config), self.config, self.timing))

    def row(self):
        own = {name: self.state[name] for name in ("xla_flags", "cpu_affinity", "host")}
        row = self._in_it(lambda found: a_row(conditions=found, **own))
        return type(row).from_dict(json.loads(json.dumps(row.to_dict())))  # as it is stored

    def reuses(self, row, **how):
        return self._in_it(lambda found: hold(row, found, self.environ, **how))


@given(ONE, st.sampled_from(sorted(STATES)), st.data())
def test_a_row_of_one_condition_is_never_taken_for_another(state, name, data):
    if name == "cpu_affinity":
        state = {**state, "cores": None}  # which of several cores it takes is chance: see below
    other = {**state, name: data.draw(st.sampled_from([each for each in STATES[name] if each != state[name]]))}
    row = World(state).row()
    assert World(state).reuses(row)
    assert not World(other).reuses(row)


@given(ONE, st.sampled_from(sorted(STATES)), st.data())
def test_where_other_hosts_count_only_the_host_may_differ(state, name, data):
    if name == "cpu_affinity":
        state = {**state, "cores": None}
    other = {**state, name: data.draw(st.sampled_from([each for each in STATES[name] if each != state[name]]))}
    row = World(state).row()
    assert World(other).reuses(row, other_hosts=True) == (name == "host")


@given(ONE)
def test_a_row_that_does_not_say_its_conditions_is_measured_again(state):
    row = World(state).row()
    for name in ("conditions", "xla_flags", "cpu_affinity"):
        assert not World(state).reuses(replace(row, **{name: None}))


@given(ONE, ONE)
def test_other_evidence_has_no_conditions(one, other):
    row = replace(World(one).row(), source="predicted", conditions=None, xla_flags=None, cpu_affinity=None)
    assert World(other).reuses(row)


def test_some_of_the_cores_are_as_good_as_others_where_the_engine_takes_some():
    state = {name: values[0] for name, values in STATES.items()} | {"cores": 1, "cpu_affinity": [0, 1, 2]}
    row = World(state).row()
    assert World(state).reuses(replace(row, cpu_affinity=[1]))
    assert not World(state).reuses(replace(row, cpu_affinity=[3]))
    assert not World(state).reuses(replace(row, cpu_affinity=[0, 1]))
    free = World(state | {"cores": None})
    assert not free.reuses(replace(free.row(), cpu_affinity=[1]))


def test_the_number_of_virtual_devices_is_no_flag_of_the_program():
    state = {name: values[0] for name, values in STATES.items()}
    row = replace(World(state).row(), xla_flags="--xla_force_host_platform_device_count=8")
    assert World(state).reuses(row)


@pytest.mark.parametrize("name", MEASURING)
def test_every_setting_of_an_engine_is_compared_or_part_of_what_ran_or_harmless(name):
    """A setting that an engine's file gains is compared until the engine says why it need not be."""
    config = load_group("engine", name)
    engine = make_engine(config)
    compared = conditions_of(engine, config, TimingConfig())["settings"]
    assert not set(compared) & HARMLESS
    left = set(config) - set(compared) - HARMLESS
    # These are in point_id (engine.options), where they are not the defaults; the number of processes too.
    changed = {"seed": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "stop_token": 2, "attention": "blockwise"}
    changed |= {
        "attention_block": 64,
        "prefill_chunk": 4,
        "shared_prefix": 2,
        "unroll_layers": True,
    }
    changed |= {"num_processes": 2, "decode": "eager", "pruning_by": "activation", "offload_dir": "x", "ngram": 3}
    files = {"checkpoint", "draft_checkpoint", "teacher", "text", "calibration_text"}  # by their content
    warm = {"temperature": 0.7} if "temperature" in config else {}  # without which other keys of sampling are refused
    for key in left - files:
        assert key in make_engine(config | warm | {key: changed[key]}).options, key


def test_a_stated_tolerance_and_the_timing_rules_are_recorded_in_full():
    config = load_group("engine", "jax")
    found = conditions_of(make_engine(config), config, TimingConfig(max_samples=50))
    later = {"max_background_share": 0.1, "max_gpu_others": 0}  # which rows stored before them do not state
    assert found["timing"] == {
        key: value for key, value in asdict(TimingConfig(max_samples=50)).items() if key not in later
    }
    stricter = conditions_of(make_engine(config), config, TimingConfig(max_background_share=0.05))
    assert stricter["timing"]["max_background_share"] == 0.05
    several = conditions_of(make_engine(config), config, TimingConfig(), 3, "interleaved")
    assert several["processes"] == {"repeat": 3, "order": "interleaved"}
    assert "processes" not in found
    assert found["settings"] == {"tolerance": config["tolerance"], "virtual_devices": config["virtual_devices"]}
    assert conditions_of(make_engine(load_group("engine", "analytic")), {}, TimingConfig()) is None


def test_secrets_logs_and_strangers_are_not_recorded():
    kept = {"OMP_NUM_THREADS": "2", "JAX_ENABLE_X64": "1", "LD_PRELOAD": "/lib/libtcmalloc.so", "NCCL_ALGO": "Ring"}
    others = ("HOME", "WANDB_API_KEY", "VLLM_API_KEY", "NVIDIA_API_KEY", "TF_VAR_password", "TF_TOKEN_host", "PATH")
    noise = ("JAX_PLATFORMS", "JAX_LOG_COMPILES", "TF_CPP_MIN_LOG_LEVEL", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    assert variables(kept | dict.fromkeys((*others, *noise), "x")) == kept


def test_variables_of_jax_are_part_of_what_ran(monkeypatch):
    """JAX traces another program under some of them, so the same source is not the same program."""
    for name in list(os.environ):
        if name.startswith("JAX_"):
            monkeypatch.delenv(name)
    plain = compiler_flags()
    assert set(plain) == {"XLA_FLAGS", "LIBTPU_INIT_ARGS"}
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert compiler_flags() == plain
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    assert compiler_flags() == plain | {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}


def test_the_least_quota_of_the_groups_around_counts(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/outer/inner\n")
    assert cpu_quota(tmp_path, own) is None
    for group, text in (("outer", "150000 100000"), ("outer/inner", "max 100000")):
        (tmp_path / group).mkdir()
        (tmp_path / group / "cpu.max").write_text(text)
    assert cpu_quota(tmp_path, own) == 1.5
    (tmp_path / "outer/inner/cpu.max").write_text("50000 100000")
    assert cpu_quota(tmp_path, own) == 0.5
    assert cpu_quota(tmp_path, tmp_path / "none") is None
