"""A team of processes waits for a point that another command works on, longer than a point of its own may take."""

import threading
import time
from types import SimpleNamespace

from bench.measure.timing import TimingConfig
from bench.rows.lease import Leases
from bench.run import child
from bench.run.child import evaluate_lockstep
from engines.core.engine import JobProcess

FASTER = 15.0


def test_nobody_is_taken_for_hung_while_another_has_the_point(shardbench, monkeypatch):
    """By a clock that runs fast once the team asks for the point: it waits half as long again as ``timeout_s``."""
    (shardbench.folder / "meet").mkdir()
    words = shardbench.scripted("batch_size=[1,2]", "print=none")
    words[words.index("engine._target_=scripted_engine.ScriptedEngine")] = (
        "engine._target_=scripted_team.ScriptedTeamEngine"
    )
    words += [f"+engine.meet={shardbench.folder / 'meet'}", "engine.timeout_s=60", "engine.join_timeout_s=60"]
    asked, began = threading.Event(), []

    def clock():
        now = time.monotonic()
        if asked.is_set():
            began.append(now)
            return now + FASTER * (now - began[0])
        return now

    free = Leases.take

    def take(self, key):
        """Both points are another's until the team has waited for so long."""
        asked.set()
        if clock() - began[0] < 90:
            return False
        return free(self, key)

    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(Leases, "take", take)
    for name, value in shardbench.env.items():
        monkeypatch.setenv(name, value)
    config = {"_target_": "scripted_team.ScriptedTeamEngine", "name": "jax", "isolated": True, "timeout_s": 60}
    config |= {"log": str(shardbench.log), "meet": str(shardbench.folder / "meet"), "join_timeout_s": 60}
    ended = []

    def follow():
        """As the same command in the other process, by the same clock."""
        team = evaluate_lockstep(config | {"process_id": 1}, [], TimingConfig(), {}, JobProcess(1, 2))
        ended.append(list(team))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    assert shardbench.here(monkeypatch, *words, "engine.process_id=0") == 0
    follower.join(timeout=60)
    assert ended == [[]]
    assert [row["status"] for row in shardbench.stored()] == ["ok", "ok"]
    assert sorted(size for _, size in shardbench.executed()) == [1, 1, 2, 2]
