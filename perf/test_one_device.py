"""One processor device: the jax engine against its compiler-partitioned self and against transformers on torch."""

import statistics

import pytest
from contestants import Field


@pytest.fixture(scope="module", params=["llama float32", "llama bfloat16", "mixtral float32", "mixtral bfloat16"])
def field(request):
    options, (family, dtype) = request.config, request.param.split()
    compiled = not options.getoption("--without-compile")
    made = Field(options.getoption("--size"), dtype, compiled=compiled, family=family)
    made.family, made.dtype = family, dtype
    return made


def test_all_generate_the_same_tokens(field):
    for each in field.everyone.values():
        for phase in ("prefill", "decode"):
            each.run[phase]()
    tokens = {name: each.tokens() for name, each in field.everyone.items()}
    assert all(len(each) == field.steps for each in tokens.values()), tokens
    # Two roundings of bfloat16 may prefer different tokens from some step on.
    compared = field.steps if field.dtype == "float32" else 1
    assert len({tuple(each[:compared]) for each in tokens.values()}) == 1, tokens


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_tokens_per_second(field, phase, benchmark, request, say):
    times = field.times(phase, request.config.getoption("--seconds"))
    count = field.steps if phase == "decode" else field.prompt_len
    wall, busy = (
        {name: count / statistics.median(run[clock] for run in runs) for name, runs in times.items()}
        for clock in (0, 1)
    )
    best = max((name for name in wall if name.startswith("torch")), key=wall.__getitem__)
    millions = field.parameters / 1e6
    say(f"{phase}, {field.family}, {field.dtype}, {millions:.0f}M parameters, {field.threads} threads, batch 1")
    for name, rate in wall.items():
        say(f"  {name:14} {rate:9.1f}   {busy[name]:9.1f} a second of processor time   {len(times[name])} runs")
    for name, reason in field.left_out.items():
        say(f"  {name:14} left out: {reason}")
    say(f"  jax / {best}: {wall['jax'] / wall[best]:.2f}, by processor time {busy['jax'] / busy[best]:.2f}")
    benchmark.group = f"{phase} {field.family} {field.dtype}"
    benchmark.extra_info.update({"tokens_per_s": wall, "tokens_per_processor_s": busy, "left_out": field.left_out})
    benchmark.pedantic(field.everyone["jax"].run[phase], rounds=5)
