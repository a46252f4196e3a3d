"""Rows in S3: a stand-in (moto) on this machine, asked over HTTP by the same libraries as the real one."""

import json
import logging
import signal
import time

import pytest
from builders.rows import a_row
from processes import wait_for

from bench.cli.main import main
from bench.rows.lease import LEASE_S, Leases
from bench.rows.merge import merge
from bench.rows.probe import overwriting_storage
from bench.rows.repair import compact, inspect, repair
from bench.rows.store import Store
from bench.run.save import Saver
from bench.storage.choose import storage_of
from bench.storage.place import place_of
from engines.core.errors import InvalidRequest

moto_server = pytest.importorskip("moto.server", reason="moto is in the extra test")
for needed in ("s3fs", "upath"):
    pytest.importorskip(needed, reason="it is in the extra s3")
ANALYTIC = ["run", "model=palm-8b", "hw=tpu-v4", "num_chips=4", "engine=analytic", "wandb.mode=disabled", "print=none"]


class S3:
    """The stand-in, with the bucket ``kept``."""

    def __init__(self):
        logging.getLogger("werkzeug").disabled = True
        self.server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        self.environment = {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:{1}".format(*self.server.get_host_and_port()),
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        }


@pytest.fixture(scope="module")
def server():
    served = S3()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in served.environment.items():
            patch.setenv(name, value)
        storage_of(place_of("s3://kept/any"))._fs.mkdir("kept")
        yield served
    served.server.stop()


@pytest.fixture
def store(server, request):
    """A prefix of the test's own."""
    return Store(f"s3://kept/{request.node.name}")


def test_rows_are_written_listed_loaded_merged_and_compacted(store, tmp_path):
    rows = [a_row(batch_size=number) for number in (1, 2, 3)]
    for row in rows[:2]:
        part = store.append([row])
        assert str(part).startswith(f"{store.results_dir}/rows/")
    assert store.load() == rows[:2]
    local = Store(tmp_path)
    local.append(rows[2:])
    assert (merge(store, [tmp_path]).stored, merge(local, [str(store.results_dir)]).stored) == (1, 2)
    assert sorted(row.batch_size for row in local.load()) == [1, 2, 3]
    assert compact(store) == (3, 3)
    assert len(store.parts()) == 1
    assert Store(str(store.results_dir)).load() == store.load()


def test_a_damaged_object_is_told_and_repaired(store):
    rows = [a_row(batch_size=number) for number in (1, 2)]
    part = store.append(rows)
    content = store.storage.read(part)
    store.storage.touch(part, content[: len(content) // 2 + 9])
    with pytest.raises(Exception, match="results check repair=true results_dir=s3://kept/"):
        store.load()
    found = inspect(store)
    (moved,) = repair(store, found)
    assert moved.name == part.name
    assert store.load() == rows[:1]


def test_a_name_is_given_once(store):
    path = store.rows_dir / "name"
    store.storage.create(path, b"mine")
    store.storage.create(path, b"mine")  # as after an answer that was lost
    with pytest.raises(FileExistsError):
        store.storage.create(path, b"theirs")
    assert store.storage.touched(path).text == "mine"
    store.storage.remove(path)
    store.storage.remove(path)
    assert store.storage.names(store.rows_dir) == []


def test_a_store_that_overwrites_is_told(store, monkeypatch):
    """As emulators and older servers do."""
    assert overwriting_storage(store) is None
    put = store.storage._fs.pipe_file
    monkeypatch.setattr(store.storage._fs, "pipe_file", lambda path, content, mode=None: put(path, content))
    assert "no If-None-Match" in overwriting_storage(store)
    assert store.storage.names(store.results_dir) == []


def test_a_lease_is_one_writer_s_and_ends(store):
    now = [0.0]
    one, two = Leases(store.results_dir), Leases(store.results_dir, monotonic=lambda: now[0])
    assert one.take("k")
    held = one._held["k"]
    other_machine = json.dumps(json.loads(held.content) | {"machine": "another"}).encode()
    store.storage.touch(held.path, other_machine)
    assert not two.take("k")
    now[0] = LEASE_S + 1
    assert two.take("k")
    assert (one.holds("k"), two.holds("k")) == (False, True)
    assert (two.claim("k").id, two.claim("k").generation) == (held.claim.id, 1)
    store.storage.touch(held.path, other_machine)  # its former holder renews what it has lost
    assert two.holds("k")
    for each in (one, two):
        each.close()


@pytest.mark.slow(seconds=8)
def test_two_commands_share_a_sweep(server, shardbench, monkeypatch):
    words = shardbench.scripted("batch_size=[1,2,3,4,5,6]", "print=none", "+engine.pause_s=0.01")
    words.append("results_dir=s3://kept/shared")
    other = shardbench.start(*words)
    wait_for(lambda: other.poll() is not None or shardbench.executed())
    assert shardbench.here(monkeypatch, *words) == 0
    assert other.wait(timeout=60) == 0
    shared = Store("s3://kept/shared")
    assert sorted(row.batch_size for row in shared.load()) == [1, 2, 3, 4, 5, 6]
    assert sorted(size for _, size in shardbench.executed()) == [1, 2, 3, 4, 5, 6]
    assert shared.storage.names(shared.results_dir / "leases") == []
    # One is killed: the next has its points at once, since it was a process of this machine.
    killed = shardbench.start(*words, "resume=true", "batch_size=[7,103]")
    wait_for(lambda: shardbench.executed()[-1][1] == 103)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    began = time.monotonic()
    assert shardbench.here(monkeypatch, *words, "batch_size=[7,8]") == 0
    assert time.monotonic() - began < LEASE_S
    assert sorted(row.batch_size for row in shared.load()) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_reports_exports_and_checks_read_it(server, tmp_path, capsys):
    place = "results_dir=s3://kept/read"
    assert main([*ANALYTIC, "batch_size=[1,2]", place]) == 0
    assert main([*ANALYTIC, "batch_size=[1,2]", place, "print=json"]) == 0
    assert "2 of them already stored" in capsys.readouterr().err
    assert main(["results", "export", place, "format=jsonl"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["results", "check", place]) == 0
    assert main(["report", "pivot", place, f"out={tmp_path / 'r'}", "rows=batch_size", "value=latency_s"]) == 0
    assert main(["compare", "old=s3://kept/read", "new=s3://kept/read"]) == 0


@pytest.mark.parametrize(
    ("place", "environment", "told"),
    [
        ("s3://none/here", {}, "cannot be read (there is no bucket none)"),
        ("s3://", {}, "names no bucket; use s3://BUCKET/PREFIX"),
        ("ftp://kept/here", {}, "is in no storage known here (s3://, gs://"),
        ("s3://kept/here", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials"),
        ("s3://kept/here", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint URL"),
    ],
)
def test_what_is_wrong_is_one_sentence(server, monkeypatch, capsys, place, environment, told):
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([*ANALYTIC, f"results_dir={place}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"shardbench: results_dir={place}: ")
    assert told in said
    assert len(said.splitlines()) == 1
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("command", ["dashboard", "wandb sync", "nightly"])
def test_who_needs_a_folder_says_so(command, capsys):
    assert main([*command.split(), "results_dir=s3://kept/here"]) == 2
    assert "is a URL" in capsys.readouterr().err


def test_an_answer_that_the_store_refuses_is_printed(store, monkeypatch, capsys):
    """As where the bucket is read only, or its endpoint is gone in the middle of a sweep."""
    from botocore.exceptions import EndpointConnectionError

    def gone(*_args, **_more):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")

    saver = Saver(store, stdout_taken=False)
    rows = [a_row(batch_size=number) for number in (1, 2, 3)]
    saver.save(rows[:1])
    with monkeypatch.context() as patch:
        patch.setattr(store.storage._fs, "pipe_file", gone)
        saver.save(rows[1:2])
    with monkeypatch.context() as patch:
        patch.setattr(store.storage._fs, "pipe_file", lambda *_, **__: (_ for _ in ()).throw(PermissionError("denied")))
        saver.save(rows[2:])
    saver.close()
    said = capsys.readouterr()
    assert [json.loads(line)["batch_size"] for line in said.out.splitlines()] == [2, 3]
    assert "cannot be written (denied)" in said.err
    assert "check the bucket, the credentials and the endpoint" in said.err
    assert store.load() == rows[:1]


def test_without_its_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "upath", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'shardbench\[s3\]'"):
        Store("s3://kept/here")
