"""A command that is told to end finishes the present point, if it can within ``grace_s``, and begins no other."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from builders.rows import a_row
from processes import wait_for

from bench.run.grace import Grace
from bench.sweep.options import _seconds
from engines.core.errors import InvalidRequest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow(seconds=2)


def told(shardbench, number, *words, to_all=False, **more):
    """Start a sweep, send the signal once its second point (114: as long as it is barred) is under way."""
    barred = shardbench.log.with_name("barred")
    barred.touch()
    command = shardbench.start(*shardbench.scripted("batch_size=[1,114,3]", "print=none", *words))
    wait_for(lambda: len(shardbench.executed()) == 2)
    command.send_signal(number)
    if to_all:
        os.kill(shardbench.executed()[-1][0], number)
    return command, barred


def stored(shardbench):
    return [row["batch_size"] for row in shardbench.stored()]


def test_the_present_point_is_stored_and_no_other_begun(shardbench):
    command, barred = told(shardbench, signal.SIGTERM, "grace_s=200", to_all=True)
    with pytest.raises(Exception, match="timed out"):
        command.wait(timeout=0.3)
    barred.unlink()
    assert command.wait(timeout=60) == 143
    assert stored(shardbench) == [1, 114]
    assert [size for _, size in shardbench.executed()] == [1, 114]
    assert not (shardbench.results / "leases").exists()
    assert shardbench(*shardbench.scripted("batch_size=[1,114,3]", "print=none"))
    assert sorted(stored(shardbench)) == [1, 3, 114]


def test_a_team_ends_its_point_together(shardbench):
    """All processes of a job get the signal: each lets its child go on, and process 0 tells the others when it ends."""
    barred, meet = shardbench.log.with_name("barred"), shardbench.folder / "meet"
    barred.touch()
    meet.mkdir()
    words = shardbench.scripted("batch_size=[1,114,3]", "print=none", "grace_s=200", "engine.join_timeout_s=60")
    words[words.index("engine._target_=scripted_engine.ScriptedEngine")] = (
        "engine._target_=scripted_team.ScriptedTeamEngine"
    )
    team = [shardbench.start(*words, f"+engine.meet={meet}", f"engine.process_id={each}") for each in (0, 1)]
    wait_for(lambda: len(shardbench.executed()) == 4)
    for each in team:
        each.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    barred.unlink()
    assert [each.wait(timeout=60) for each in team] == [143, 143]
    assert stored(shardbench) == [1, 114]
    assert not (shardbench.results / "leases").exists()


def test_a_point_that_takes_longer_is_dropped(shardbench):
    command, _ = told(shardbench, signal.SIGTERM, "grace_s=0.3")
    assert command.wait(timeout=60) == 143
    assert stored(shardbench) == [1]


def test_the_same_signal_again_drops_it_at_once(shardbench):
    command, _ = told(shardbench, signal.SIGINT, "grace_s=200")
    time.sleep(0.2)
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=60) == 130
    assert stored(shardbench) == [1]


def test_where_the_present_point_is_the_last_all_is_done(shardbench):
    barred = shardbench.log.with_name("barred")
    barred.touch()
    command = shardbench.start(*shardbench.scripted("batch_size=[1,114]", "print=none", "grace_s=200"))
    wait_for(lambda: len(shardbench.executed()) == 2)
    command.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    barred.unlink()
    assert command.wait(timeout=60) == 0
    assert stored(shardbench) == [1, 114]


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Grace(5) as grace, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # nothing is under way
    with Grace(5) as grace:
        grace.begin("k")
        signal.raise_signal(signal.SIGINT)
        grace.end("k")
        with pytest.raises(KeyboardInterrupt):
            grace.check()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_what_several_children_have_under_way_ends_first():
    with Grace(5) as grace:
        for key in "ab":
            grace.begin(key)
        signal.raise_signal(signal.SIGINT)
        assert grace.is_ending
        grace.end("a")
        grace.check()
        kept = [a_row(), a_row(status="failed"), a_row(status="timeout"), a_row(status="oom")]
        assert [row.status for row in grace.kept(kept)] == ["ok", "oom"]  # what failed may have failed of the signal
        grace.end("b")
        with pytest.raises(KeyboardInterrupt):
            grace.check()


@pytest.mark.parametrize("value", [-1, True, "soon", float("nan"), None, 1e9])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(InvalidRequest, match="grace_s="):
        _seconds("grace_s", value)


def test_the_batch_script_of_the_documentation_queues_its_job_again(shardbench):
    page = (ROOT / "docs" / "how-to" / "several-hosts.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)
    command = shlex.join(shardbench.words(*shardbench.scripted("batch_size=[1,114,3]", "print=none", "grace_s=100")))
    script, changed = re.subn(
        r"^shardbench run .* grace_s=100 &$", lambda _: f"{command} &", script, flags=re.MULTILINE
    )
    assert changed == 1
    scontrol = shardbench.folder / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $* > {shardbench.folder}/queued\n")
    scontrol.chmod(0o755)
    barred = shardbench.log.with_name("barred")
    barred.touch()
    env = shardbench.env | {"PATH": f"{shardbench.folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    batch = subprocess.Popen(["bash", "-c", script], cwd=shardbench.folder, env=env)
    wait_for(lambda: len(shardbench.executed()) == 2)
    batch.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    barred.unlink()
    assert batch.wait(timeout=60) == 143
    assert (shardbench.folder / "queued").read_text() == "requeue 7\n"
    assert stored(shardbench) == [1, 114]
