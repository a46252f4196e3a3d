"""A W&B server on the loopback: as much of its GraphQL, file streams and uploads as ``wandb sync`` uses, in memory.

It was written from what the released client sends, so it holds what arrived, not what the real server would say of it.
"""

import gzip
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final


@dataclass
class Run:
    """What arrived of a run."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    streams: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {key: value["value"] for key, value in json.loads(self.fields["config"]).items() if key != "_wandb"}

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.streams["wandb-summary.json"][-1])


@dataclass
class Artifact:
    """An artifact: its manifest, and the files that were uploaded for it."""

    name: str
    kind: str
    run: str
    manifest: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False

    @property
    def content(self) -> dict[str, bytes]:
        """Name in the artifact → bytes, by way of the manifest alone."""
        return {name: self.files[name] for name in self.manifest["contents"]}


class Server(ThreadingHTTPServer):
    """The server's memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.views: list[dict[str, Any]] = []
        self.unknown: list[str] = []
        self.lock = threading.Lock()
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def artifact(self, name: str) -> Artifact:
        (found,) = (each for each in self.artifacts.values() if each.name == name)
        return found

    def upload(self, path: str) -> dict[str, Any]:
        return {"uploadUrl": f"{self.url}/upload/{path}", "uploadHeaders": []}

    def new_id(self) -> str:
        return f"id{next(self._numbers)}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client may go without a word."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._send({})

    def do_POST(self) -> None:
        body = self._body()
        with self.server.lock:
            if self.path == "/graphql":
                asked = json.loads(body)
                self._send({"data": _answer(self.server, asked["query"], asked.get("variables") or {})})
            else:
                _stream(self.server.runs[self.path.split("/")[-2]], json.loads(body))
                self._send({})

    def do_PUT(self) -> None:
        body, (kind, owner, name) = self._body(), self.path.removeprefix("/upload/").split("/", 2)
        with self.server.lock:
            if kind == "run":
                self.server.runs[owner].files[name] = body
            elif kind == "manifest":
                self.server.artifacts[owner].manifest = json.loads(body)
            else:
                self.server.artifacts[owner].files[name] = body
        self._send({})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Silent."""


def _answer(server: Server, query: str, given: dict[str, Any]) -> dict[str, Any]:
    """The data of one GraphQL request; empty for what is not known, which the client takes for an older server."""
    (name,) = re.findall(r"(?:query|mutation)\s+(\w+)", query)[:1]
    answer = ANSWERS.get(name)
    if answer is None:
        server.unknown.append(name)
        return {}
    return answer(server, given)


def _upsert_run(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    run = server.runs.setdefault(given["name"], Run())
    run.fields |= {key: value for key, value in given.items() if value is not None}
    entity = {"id": "entity", "name": given.get("entity") or "someone"}
    bucket = {
        **dict.fromkeys(("description", "sweepName")),
        "id": given["name"],
        "name": given["name"],
        "displayName": run.fields.get("displayName"),
        "config": run.fields["config"],
        "historyLineCount": 0,
        "project": {"id": "project", "name": given["project"], "entity": entity},
    }
    return {"upsertBucket": {"bucket": bucket, "inserted": True}}


def _create_artifact(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    asked, number = given["input"], server.new_id()
    server.artifacts[number] = Artifact(asked["artifactCollectionName"], asked["artifactTypeName"], asked["runName"])
    artifact = {"id": number, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
    return {"createArtifact": {"artifact": artifact}}


def _create_files(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    edges = []
    for spec in given["input"]["artifactFiles"]:
        place = server.upload(f"artifact/{spec['artifactID']}/{spec['name']}")
        node = {"id": server.new_id(), "name": spec["name"], "displayName": spec["name"], **place}
        edges.append({"node": node | {"storagePath": "", "uploadMultipartUrls": None, "artifact": {"id": "x"}}})
    return {"createArtifactFiles": {"files": {"edges": edges}}}


def _create_manifest(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    number, name = given["artifactID"], given["name"]
    file = {"id": number, "name": name, "displayName": name, **server.upload(f"manifest/{number}/{name}")}
    return {"createArtifactManifest": {"artifactManifest": {"id": number, "file": file}}}


def _update_manifest(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    number = given["artifactManifestID"]
    file = {"id": number, "name": "m", "displayName": "m", **server.upload(f"manifest/{number}/m")}
    return {"updateArtifactManifest": {"artifactManifest": {"id": number, "file": file}}}


def _commit(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    server.artifacts[given["artifactID"]].committed = True
    return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}


def _create_run_files(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    run = given["run"]
    files = [{"name": name, "uploadUrl": server.upload(f"run/{run}/{name}")["uploadUrl"]} for name in given["files"]]
    return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}


def _upsert_view(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    server.views.append(given)
    return {"upsertView": {"view": {"id": server.new_id(), "name": given["name"]}, "inserted": True}}


def _viewer(server: Server, given: dict[str, Any]) -> dict[str, Any]:
    teams = {"edges": []}
    names = {"id": "someone", "name": "Some One", "username": "someone", "email": "", "entity": "someone"}
    return {"viewer": names | {"flags": "{}", "admin": False, "deletedAt": None, "apiKeys": None, "teams": teams}}


ANSWERS: Final = {
    "UpsertView2": _upsert_view,
    "Viewer": _viewer,
    "GetDefaultEntity": _viewer,
    "UpsertBucket": _upsert_run,
    "CreateArtifact": _create_artifact,
    "CreateArtifactFiles": _create_files,
    "CreateArtifactManifest": _create_manifest,
    "UpdateArtifactManifest": _update_manifest,
    "CommitArtifact": _commit,
    "CreateRunFiles": _create_run_files,
}


def _stream(run: Run, sent: dict[str, Any]) -> None:
    for name, part in sent.get("files", {}).items():
        run.streams.setdefault(name, []).extend(part["content"])
    if "exitcode" in sent:
        run.exit_code = sent["exitcode"]


@contextmanager
def running() -> Iterator[Server]:
    """A server that is up while the block runs."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
