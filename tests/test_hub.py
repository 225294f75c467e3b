"""Bundles are uploaded to a small local hub and loaded from it; no test uses the network."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest
from test_bundles import bundle, model  # noqa: F401 (fixtures)
from test_recommend import clicks, command, text_runs  # noqa: F401 (fixtures)

import adapter4rec
from adapter4rec import export
from adapter4rec.utils.errors import UserError

NAME, COMMIT = "someone/news", "c" * 40


class _Hub(ThreadingHTTPServer):
    """Just enough of the hub: one repository, its files as of the last commit."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Request)
        self.files: dict[str, bytes] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict] = []
        self.commits: list[dict] = []


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(with_body=False)

    def do_GET(self, *, with_body=True):
        path, files = self.path.partition("?")[0], self.server.files
        if path == f"/api/models/{NAME}/revision/main" and files:
            self.answer({"id": NAME, "sha": COMMIT, "siblings": []}, with_body)
        elif path in (f"/api/models/{NAME}/tree/{COMMIT}", f"/api/models/{NAME}/tree/main"):
            entries = [
                {"type": "file", "path": name, "size": len(raw), "oid": hashlib.sha1(raw).hexdigest()}
                for name, raw in files.items()
            ]
            self.answer(entries, with_body)
        elif (name := path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")) in files:
            etag = {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self.answer(files[name], with_body, **etag)
        else:
            self.answer({"error": "Repository not found"}, with_body, 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.answer({"url": f"{self.server.address}/{NAME}", "name": NAME, "id": NAME})
        elif path == "/api/validate-yaml":  # the metadata of the model card
            self.answer({"errors": [], "warnings": []})
        elif path == f"/api/models/{NAME}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self.answer({"files": modes})
        elif path == f"/api/models/{NAME}/commit/main":
            lines = [json.loads(line) for line in body.splitlines()]
            for value in (line["value"] for line in lines if line["key"] == "file"):
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            for value in (line["value"] for line in lines if line["key"] == "deletedFile"):
                del self.server.files[value["path"]]
            self.server.commits += [line["value"] for line in lines if line["key"] == "header"]
            self.answer(
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": f"{self.server.address}/{NAME}/commit/{COMMIT}",
                }
            )
        else:
            self.answer({"error": f"not expected: {path}"}, status=404)

    def answer(self, content, with_body=True, status=200, **headers):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(raw)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine, in place of the real one; neither token nor cache of the user are read."""
    server = _Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = server.address
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def test_a_bundle_is_uploaded_and_loaded_by_its_name(hub, bundle, model):
    address = adapter4rec.push_to_hub(bundle, NAME)
    assert address.endswith(f"{NAME}/commit/{COMMIT}")
    assert hub.created[0]["visibility"] == "private"
    assert set(hub.files) == {
        path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()
    }
    assert [commit["summary"] for commit in hub.commits] == ["Upload news"]
    loaded = adapter4rec.from_pretrained(NAME, device="cpu")
    assert loaded.recommend(["i1", "i2"]) == model.recommend(["i1", "i2"])


def test_the_command_uploads_a_bundle_in_place_of_an_earlier_one(hub, bundle, monkeypatch):
    hub.files |= {"backbone/merges.txt": b"of an earlier backbone", "NOTES.md": b"of its owner"}
    monkeypatch.setattr(sys, "argv", ["export", str(bundle), "--push", NAME])
    export.main()
    assert "backbone/merges.txt" not in hub.files
    assert {"NOTES.md", "backbone/config.json", "manifest.json"} <= hub.files.keys()


def test_the_command_reads_it_by_its_name(hub, bundle, monkeypatch, capsys):
    adapter4rec.push_to_hub(bundle, NAME)
    command(monkeypatch, NAME, "--history", "i1", "--top-k", "2", "--device", "cpu")
    assert "--history: recommended" in capsys.readouterr().out


def test_a_file_that_changed_on_the_hub_is_refused(hub, bundle):
    adapter4rec.push_to_hub(bundle, NAME)
    hub.files["items.tsv"] += b"i99\tan item of somebody else\n"
    with pytest.raises(UserError, match=r"items\.tsv: SHA-256 does not match"):
        adapter4rec.from_pretrained(NAME, device="cpu")


def test_an_unknown_name_is_refused(hub, tmp_path):
    with pytest.raises(UserError, match="download from the hub failed"):
        adapter4rec.from_pretrained("someone/else")
    with pytest.raises(UserError, match="expected its folder, or user/name"):
        adapter4rec.from_pretrained("nothing")
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UserError, match=r"a run, not a bundle; write one with: adapter4rec export"):
        adapter4rec.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="not a bundle, nor a run"):  # of a folder that exists
        adapter4rec.from_pretrained("adapter4rec/nothing")


def test_what_is_no_bundle_is_not_uploaded(hub, tmp_path):
    with pytest.raises(UserError, match="not a bundle"):
        adapter4rec.push_to_hub(tmp_path, NAME)
    assert not hub.created
