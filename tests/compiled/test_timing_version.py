"""Stored schedules take the time of their version, and a change of the model costs the programs that it changes."""

import gzip
import json
import os
from pathlib import Path

import pytest
import test_gpu_stored_schedules as on_gpu
import test_stored_schedules as on_tpu
from versioned_answers import rounded

from engines.compiled.cost import version
from engines.compiled.cost.timeline import walk
from engines.compiled.hlo.opcodes import label_of
from engines.compiled.hlo.parser import parse_module

DATA = Path(__file__).with_name("data")
TABLE = DATA / "schedule_times.json"
SUMS = ("total_s", "compute_s", "communication_s", "exposed_s", "memory_s")


def labels_of(name):
    module = parse_module(gzip.decompress((DATA / f"{name}.hlo.gz").read_bytes()).decode())
    return {label_of(each) for part in module.computations.values() for each in part.instructions}


def test_the_versions_stand_for_the_times():
    timed = {name: walk(on_tpu.schedule_of(name), on_tpu.machine_of(name)).account for name in on_tpu.TORI}
    timed |= {name: walk(on_gpu.schedule_of(name), on_gpu.MACHINE).account for name in on_gpu.NAMES}
    now = {
        name: {
            "version": version.version_of(labels_of(name)),
            "seconds": [rounded(getattr(account, each)) for each in SUMS],
        }
        for name, account in timed.items()
    }
    before = json.loads(TABLE.read_text())
    for name, stored in before.items():
        if now[name]["seconds"] != pytest.approx(stored["seconds"], rel=1e-12, abs=0):
            told = f"{name} takes {now[name]['seconds']} and took {stored['seconds']}"
            assert now[name]["version"] > stored["version"], f"{told}: add what is timed otherwise to CHANGES"
    if os.environ.get("WRITE_ANSWERS"):
        TABLE.write_text(json.dumps(now, indent=1) + "\n")
    else:
        same = {
            name: each | {"seconds": pytest.approx(each["seconds"], rel=1e-12, abs=0)} for name, each in now.items()
        }
        assert before == same, f"WRITE_ANSWERS=1 pytest {Path(__file__).name} writes {TABLE.name} anew"


def test_a_change_concerns_the_programs_that_have_the_instruction(monkeypatch):
    plain, scattering = version.timing_model(["fusion"]), version.timing_model(["fusion", "scatter"])
    assert version.is_present(plain)
    assert version.is_present(scattering)
    assert version.stored_version(plain) < version.stored_version(scattering)
    monkeypatch.setattr(version, "CHANGES", {**version.CHANGES, 4: ("sort", "scatter")})
    assert version.is_present(plain)
    assert not version.is_present(scattering)
    monkeypatch.setattr(version, "CHANGES", {**version.CHANGES, 5: (version.EVERY_PROGRAM,)})
    assert not version.is_present(plain)
    assert version.version_of([]) == 5


def test_what_tells_no_instructions_is_not_present_and_each_version_is_asked_for_once():
    answers = [version.timing_model(each) for each in (["dot"], ["scatter"], ["add"])]
    asked = []
    assert version.by_version([*answers, {}], lambda number: asked.append(number) or f"id {number}") == [
        "id 2",
        "id 3",
        "id 2",
        None,
    ]
    assert sorted(asked) == [2, 3]
    assert not version.is_present({})
    assert version.stored_version({}) is None
