"""Storage as a client of NFS shows it: what others change is seen late, and its clock is another. No row is doubled.

The stand-in lies under :mod:`bench.storage`, where a client's caches lie: one of each host, over one real folder.
"""

import os
import threading
from pathlib import Path

from builders.rows import a_row
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.rows.claim import Claim, claim_of, superseded, without_superseded
from bench.rows.lease import LEASE_S, RENEW_S, Leases
from bench.rows.store import Store
from bench.storage.folder import Folders

STALE_S = 60.0
"""How long a client of NFS may answer from what it remembers of a folder (acdirmax)."""


class Host(Folders):
    """One host's view: lists of names are remembered, until this host changes the folder or they are too old.

    What is asked of the server is true: creating by O_EXCL, opening a file by name, changing a folder.
    """

    def __init__(self, now, skew_s):
        self._now, self._skew_s = now, skew_s
        self._remembered = {}

    def names(self, folder, *, fresh=False):
        at, names = self._remembered.get(folder, (-STALE_S, None))
        if fresh or names is None or self._now[0] - at >= STALE_S:
            names = super().names(folder, fresh=fresh)
            self._remembered[folder] = (self._now[0], names)
        return list(names)

    def create(self, path, content):
        self._remembered.pop(path.parent, None)
        super().create(path, content)
        at = (self._now[0] + self._skew_s) * 1e9
        os.utime(path, ns=(int(at), int(at)))

    def write(self, path, content):
        self._remembered.pop(path.parent, None)
        super().write(path, content)

    def remove(self, path):
        self._remembered.pop(path.parent, None)
        super().remove(path)

    def touch(self, path, content):
        at = int((self._now[0] + self._skew_s) * 1e9)
        os.utime(path, ns=(at, at))

    def now_ns(self, probe):
        return int((self._now[0] + self._skew_s) * 1e9)


class Writer:
    """A command on a host of its own that wants a row for one point."""

    def __init__(self, folder, now, skew_s, name):
        self.store = Store(folder)
        self.store.storage = Host(now, skew_s)
        self.leases = Leases(folder, monotonic=lambda: now[0])
        self.leases._storage = self.store.storage
        self.leases._renew = lambda: None  # by hand: `renew`
        self.name, self.measures, self.done = name, False, False

    def elsewhere(self):
        """What it holds is of another machine to the others."""
        for held in self.leases._held.values():
            text = held.path.read_text().replace('"machine": "', f'"machine": "{self.name} ')
            stat = held.path.stat()
            held.path.write_text(text)
            os.utime(held.path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))

    def take(self):
        if self.measures or self.done or not self.leases.take("p"):
            return
        self.elsewhere()
        if self.store.rows_of_others():
            self.leases.release("p")
            self.done = True
        else:
            self.measures = True

    def renew(self):
        for held in self.leases._held.values():
            if self.leases._is_mine(held.path):
                self.store.storage.touch(held.path, held.content)

    def finish(self, looks):
        """Store the row; without looking, as who fell asleep just after it has looked."""
        claim = self.leases.claim("p")
        if not self.measures or claim is None or (looks and not self.leases.holds("p")):
            self.measures = False
            return
        self.store.append([a_row(point_id="p", claim=str(claim), latency_s=1.0 + self.name)])
        self.leases.release("p", stored=True)
        self.measures, self.done = False, True

    def give_back(self):
        """It is told to end before it has a row."""
        self.leases.release("p")
        self.measures = False

    def sweep(self):
        """What a command does to the leases of others when it ends."""
        self.leases._sweep()


ACTIONS = ("take", "take", "finish", "finish", "late", "take over", "give back", "sweep", "look", "time")
STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ACTIONS)), min_size=4, max_size=30)
SLEEPS_AND_STORES = [(0, "take"), (1, "take over"), (1, "finish"), (0, "late")]
STORES_AND_IS_OVERTAKEN = [(0, "take"), (1, "take over"), (0, "late"), (1, "finish")]
ITS_SUCCESSOR_GIVES_BACK = [(0, "take"), (1, "take over"), (1, "give back"), (2, "take"), (2, "finish"), (0, "late")]
IT_IS_SWEPT_AWAY = [
    (0, "take"),
    (1, "take over"),
    (1, "give back"),
    (1, "sweep"),
    (2, "take"),
    (0, "late"),
    (2, "finish"),
]
SEES_AN_OLD_LIST = [(0, "look"), (1, "take"), (1, "finish"), (0, "take"), (0, "finish")]


@settings(max_examples=80)
@example(steps=SLEEPS_AND_STORES, skew_s=0.0)
@example(steps=STORES_AND_IS_OVERTAKEN, skew_s=0.0)
@example(steps=ITS_SUCCESSOR_GIVES_BACK, skew_s=0.0)
@example(steps=IT_IS_SWEPT_AWAY, skew_s=-3600.0)
@example(steps=SEES_AN_OLD_LIST, skew_s=0.0)
@given(steps=STEPS, skew_s=st.sampled_from([0.0, -3600.0, 86400.0]))
def test_one_row_a_point(tmp_path_factory, steps, skew_s):
    folder, now = tmp_path_factory.mktemp("store"), [1000.0]
    writers = [Writer(folder, now, skew_s, number) for number in range(3)]

    def goes_by(seconds, awake):
        for _ in range(int(seconds / RENEW_S)):
            now[0] += RENEW_S
            for each in awake:
                each.renew()

    for who, what in steps:
        writer = writers[who]
        if what == "time":
            goes_by(RENEW_S, writers)
        elif what == "look":
            writer.store.storage.names(writer.store.rows_dir)
        elif what == "take":
            writer.take()
        elif what == "give back":
            writer.give_back()
        elif what == "sweep":
            writer.sweep()
        elif what == "take over":  # the others sleep for longer than a lease lasts
            writer.take()
            goes_by(LEASE_S + 2 * RENEW_S, [writer])
            writer.take()
        else:
            writer.finish(looks=what == "finish")  # late: it fell asleep just after it had looked
        rows = Store(folder).load()
        assert len(rows) <= 1, [row.claim for row in rows]
    assert len(Store(folder).load()) == any(writer.done for writer in writers)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sampled_from("pq")), max_size=12),
    st.randoms(use_true_random=False),
)
def test_of_a_claim_the_last_generation_counts_in_any_order(stored, order):
    rows = [a_row(point_id=point, claim=f"{name}.{generation}") for name, generation, point in dict.fromkeys(stored)]
    order.shuffle(rows)
    rows.append(a_row(point_id="p"))  # of no claim: never another's
    kept = without_superseded(rows)
    best = {}
    for name, generation, point in stored:
        best[name, point] = max(best.get((name, point), 0), generation)
    assert sorted((row.claim or "", row.point_id) for row in kept) == sorted(
        [("", "p"), *((f"{name}.{generation}", point) for (name, point), generation in best.items())]
    )
    assert len(superseded(rows)) == len(rows) - len(kept)


def test_rows_of_two_programs_are_two_answers_whatever_their_claims():
    rows = [
        a_row(point_id="p", claim=f"a.{number}", program_id=name) for number, name in enumerate(["x", "y", "x", None])
    ]
    assert without_superseded(rows[:3]) == rows[1:3]
    assert without_superseded(rows) == rows[3:]  # it does not say which program ran


def test_what_is_no_claim_is_none():
    assert claim_of(a_row(claim="a.b.3")) == Claim("a.b", 3)
    for text in (None, "", "a", "a.", ".3", "a.-1"):
        assert claim_of(a_row(claim=text)) is None


def test_a_listing_is_asked_of_the_server_where_it_has_to_be_fresh(tmp_path, monkeypatch):
    """The change of a folder that makes a client of NFS ask anew; a folder that is not ours is read as it is."""
    changed = []
    monkeypatch.setattr(os, "utime", lambda path, *_, **__: changed.append(Path(path)))
    Folders().names(tmp_path)
    assert changed == []
    Folders().names(tmp_path, fresh=True)
    assert changed == [tmp_path]
    assert Folders().names(tmp_path / "none", fresh=True) == []
    assert threading.active_count() >= 1
