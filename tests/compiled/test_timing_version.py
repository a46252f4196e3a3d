"""The timing model gives the stored schedules the times that its version stands for."""

from pathlib import Path

import test_gpu_stored_schedules as on_gpu
import test_stored_schedules as on_tpu
from versioned_answers import check, rounded

from engines.compiled.cost.timeline import walk
from engines.compiled.cost.version import TIMING_VERSION

TABLE = Path(__file__).with_name("data") / "schedule_times.json"


def test_the_version_stands_for_the_times():
    timed = {name: walk(on_tpu.schedule_of(name), on_tpu.machine_of(name)).account for name in on_tpu.TORI}
    timed |= {name: walk(on_gpu.schedule_of(name), on_gpu.MACHINE).account for name in on_gpu.NAMES}
    answers = {
        name: [
            rounded(each)
            for each in (
                account.total_s,
                account.compute_s,
                account.communication_s,
                account.exposed_s,
                account.memory_s,
            )
        ]
        for name, account in timed.items()
    }
    check(TABLE, "TIMING_VERSION", TIMING_VERSION, answers)
