"""Reading a program takes time in proportion to its length."""

import time

from builders import hlo_texts

from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import read_schedule
from engines.compiled.hlo.source import read_sources
from engines.compiled.program.breakdown import runs_of
from engines.compiled.program.repeated import repeated


def long_program(count):
    lines = [f"  %v.0 = {hlo_texts.BOX} parameter(0)"]
    lines += [
        f"  %v.{number} = {hlo_texts.BOX} copy(%v.{number - 1}), {hlo_texts.cycles(3000)}, {hlo_texts.at(1)}"
        for number in range(1, count)
    ]
    lines.append(f"  ROOT %last = {hlo_texts.BOX} copy(%v.{count - 1}), {hlo_texts.cycles(3000)}, {hlo_texts.at(2)}")
    return hlo_texts.module("ENTRY %main (v.0: bf16[1024,1024]) -> bf16[1024,1024] {\n" + "\n".join(lines) + "\n}\n")


def seconds(count):
    text = long_program(count)
    start = time.process_time()
    module = parse_module(text)
    schedule = read_schedule(module)
    runs_of(schedule)
    repeated(module, schedule)
    read_sources(module).named(module, schedule.computations)
    return time.process_time() - start


def test_four_times_the_instructions_take_about_four_times_as_long():
    seconds(1_000)
    few, many = min(seconds(2_000) for _ in range(3)), min(seconds(8_000) for _ in range(3))
    assert many < 8 * few
