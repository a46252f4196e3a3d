"""No share of a peak is above 1: such a row is not valid whoever made it, and nothing shows it as an answer."""

import json
from dataclasses import replace
from functools import partial

import pytest
from builders.points import point as build_point
from builders.rows import a_row
from hypothesis import example, given
from hypothesis import strategies as st

from bench.rows.frontier import frontier
from bench.rows.labels import answered
from bench.rows.min_hbm_bytes import forward_passes, min_hbm_bytes
from bench.rows.plausible import LIMITS, MBU_WITHHELD, MEASURED_LIMITS, MEASURED_MOST, MFU_WITHHELD, plausible
from bench.rows.store import Store
from bench.rows.wrong_peaks import MBU, MFU, withhold_wrong_shares
from bench.run import environment, make_row
from bench.run.environment import read_environment
from bench.run.make_row import PointTask, estimated
from engines.core.engine import Estimate
from engines.core.pruning import as_run

point = partial(build_point, engine="published")
SOURCES = ("measured", "compiled", "predicted", "published")
MOST = {**dict.fromkeys(LIMITS, 1.0), **dict.fromkeys(MEASURED_LIMITS, MEASURED_MOST)}
shares = st.dictionaries(st.sampled_from(sorted(MOST)), st.none() | st.floats(0, 50, exclude_min=True))


@given(shares=shares, source=st.sampled_from(SOURCES), reason=st.none() | st.just("still warming up"))
@example(shares={"mfu": 43.55}, source="published", reason=None)
@example(shares={"mfu": 1.0001, "mfu_of_matmul": 1.0001}, source="measured", reason=None)
@example(shares={"mfu": 1.0, "mbu": 1.0}, source="published", reason=None)
def test_a_share_above_one_and_nothing_else_makes_a_row_invalid(shares, source, reason):
    row = a_row(source=source, valid=reason is None, invalid_reason=reason, latency_s=1.0, **shares)
    above = {name for name, value in shares.items() if value is not None and value > MOST[name]}
    judged = plausible(row)
    assert answered(judged) == (reason is None and not above)
    if not above:
        assert judged is row
    for value in {shares[name] for name in above}:
        assert f"={value:.4g} is above 1" in judged.invalid_reason
    if reason is not None:
        assert judged.invalid_reason.startswith(reason)
    assert plausible(judged) == judged  # judged again whenever it is read
    assert [getattr(judged, name) for name in MOST] == [getattr(row, name) for name in MOST]


@given(shares=shares, source=st.sampled_from(SOURCES))
def test_a_row_that_an_earlier_version_stored_as_valid_is_judged_when_it_is_read(tmp_path_factory, shares, source):
    row = a_row(source=source, valid=True, latency_s=1.0, **shares)
    store = Store(tmp_path_factory.mktemp("store"))
    store.write_part([json.dumps(row.to_dict())])
    assert store.load() == [replace(plausible(row), first_token=row.first_token)]


@pytest.mark.parametrize("source", ["published", "measured", "predicted", "compiled"])
def test_a_time_that_is_too_short_makes_no_valid_row(source):
    # 64 sequences · 2048 tokens · 2 · 540e9 FLOP / (64 chips · 275e12 FLOP/s) = 8.043 s at the peak, and 0.3% less
    # without the output matrix of tokens that none is chosen behind, and with attention.
    asked = point(
        model="palm-540b", hw="tpu-v4", num_chips=64, phase="prefill", batch_size=64, input_len=2048, output_len=0
    )
    made = {
        seconds: estimated(
            PointTask(point=asked, point_id="x", source=source, sweep=None), Estimate(status="ok", latency_s=seconds)
        )
        for seconds in (8.05, 8.0)
    }
    assert [row.valid for row in made.values()] == [True, False]
    assert made[8.0].invalid_reason.startswith("mfu=1.005 is above 1: no chip computes above its peak")
    assert frontier([replace(row, cost_chip_s_per_token=row.latency_s) for row in made.values()]) == [
        replace(made[8.05], cost_chip_s_per_token=8.05)
    ]


def test_tables_that_a_prompt_does_not_multiply_make_no_time_too_short():
    asked = {"model": "palm-8b", "hw": "tpu-v4", "num_chips": 1, "phase": "prefill", "batch_size": 64, "output_len": 0}
    few = point(**asked, input_len=1024, pruning="layers:0.95+columns:0.9")
    model = as_run(few).model
    # 64 prompts: the layers' matrices and attention of every token, the output matrix of the last, at 275 TFLOP/s.
    layers = 1024 * (model.matmul_flops_per_token - 2 * model.head_params)
    at_peak_s = 64 * (layers + 2 * model.head_params + model.attention_flops(1024, 1024)) / 275e12
    possible, short = (row_of(few, latency_s=factor * at_peak_s) for factor in (1.01, 0.99))
    assert possible.valid
    assert possible.mfu is None
    assert "of the embedding, which is looked up" in possible.details[MFU_WITHHELD]
    assert not short.valid
    assert short.mfu == pytest.approx(64 * 2 * model.params * 1024 / 275e12 / short.latency_s)


@pytest.mark.parametrize(("share", "peak"), [(MFU, 1e11), (MBU, 1e10)])
def test_a_measured_peak_that_one_row_exceeds_is_no_peak_of_the_others(share, peak):
    measured = {share.peak: peak, share.measured: peak}
    rows = [a_row(**measured, **{share.name: value}) for value in (1.1, 0.9)]
    rows += [a_row(**{share.peak: 2 * peak, share.measured: 2 * peak, share.name: 0.8})]
    found = withhold_wrong_shares(rows)
    assert [getattr(row, share.name) for row in found] == [None, None, 0.8]
    assert [share.withheld in row.details for row in found] == [True, True, False]
    assert [row.details.get(share.withheld) for row in found[:2]] == [share.reason] * 2


def row_of(asked, source="measured", latency_s=1.0):
    answer = Estimate(status="ok", latency_s=latency_s)
    return estimated(PointTask(point=asked, point_id="x", source=source, sweep=None), answer)


def of_gpu(**changes):
    asked = {"phase": "decode", "batch_size": 1, "input_len": 64, "output_len": 16, "num_chips": 2, **changes}
    return point(hw="h100-80gb", **asked)


def test_what_fits_the_l2_of_the_gpus_has_no_mbu():
    small, large = of_gpu(model="tiny", weight_dtype="bfloat16"), of_gpu(model="llama-3-8b")
    read = min_hbm_bytes(small) / forward_passes(small)
    assert read < 2 * small.chip.cuda.l2_bytes < min_hbm_bytes(large) / forward_passes(large)
    kept, withheld = row_of(large), row_of(small)
    assert kept.mbu > 0
    assert MBU_WITHHELD not in kept.details
    assert withheld.mbu is None
    assert withheld.valid
    assert f"the {read / 1e6:.3g} MB that a forward pass reads fit" in withheld.details[MBU_WITHHELD]
    # What was computed ran with no cache.
    assert row_of(small, "predicted").mbu > 0


@pytest.mark.parametrize(("cache_bytes", "fits"), [(None, False), (0.99, False), (1.0, True), (100.0, True)])
def test_what_fits_this_machine_s_cache_has_no_mbu(monkeypatch, cache_bytes, fits):
    asked = point(model="tiny", hw="cpu", num_chips=8, phase="decode", batch_size=8, input_len=64, output_len=16)
    read = min_hbm_bytes(asked) / forward_passes(asked)
    here = replace(read_environment(), cache_bytes=None if cache_bytes is None else cache_bytes * read)
    monkeypatch.setattr(make_row, "read_environment", lambda: here)
    answer = Estimate(status="ok", latency_s=1.0)
    answer = replace(answer, facts=replace(answer.facts, peak_flops_per_s=1e12, hbm_bytes_per_s=1e9))
    row = estimated(PointTask(point=asked, point_id="x", source="measured", sweep=None), answer)
    assert (row.mbu is None) == fits == (MBU_WITHHELD in row.details)
    # 16 steps in one second, each reading what a pass reads, on 8 devices of 1 GB/s.
    assert fits or row.mbu == pytest.approx(16 * read / (8 * 1e9))
    assert fits or row.valid == (row.mbu <= 1)


@pytest.mark.parametrize(
    ("caches", "expected"),
    [
        ({0: [(1, "0", "48K"), (3, "0-1", "1024K")], 1: [(1, "1", "48K"), (3, "0-1", "1024K")]}, 1024 * 1024),
        ({0: [(2, "0", "512K")], 1: [(2, "1", "512K")]}, 1024 * 1024),
        ({0: [], 1: []}, None),
        ({0: [(3, "0-1", "much")], 1: []}, None),
    ],
)
def test_a_cache_that_cores_share_counts_once(tmp_path, monkeypatch, caches, expected):
    for core, found in caches.items():
        for index, content in enumerate(found):
            folder = tmp_path / f"cpu{core}/cache/index{index}"
            folder.mkdir(parents=True)
            for name, text in zip(("level", "shared_cpu_list", "size"), content, strict=True):
                (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(environment, "CORES", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert environment._cache_bytes() == expected
