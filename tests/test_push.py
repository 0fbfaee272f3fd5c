"""compress --push-to-hub against a local stub of the hub's API."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.repocard import metadata_load


class Stub(BaseHTTPRequestHandler):
    """whoami, create, preupload, LFS and commit, as far as huggingface_hub asks for them."""

    files: dict[str, bytes]
    objects: dict[str, bytes]
    refuse: bool

    def do_GET(self) -> None:
        if self.path == "/api/whoami-v2":
            if "good-token" not in self.headers.get("authorization", ""):
                self.answer({"error": "Invalid user token."}, 401)
            else:
                self.answer({"name": "acme", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        elif self.server.refuse:  # type: ignore[attr-defined]
            self.answer({"error": "Repository not found"}, 404)
        else:
            self.answer({"siblings": [], "sha": "0" * 40, "id": "acme/small"})

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self.body()  # type: ignore[attr-defined]
        self.answer({})

    def do_POST(self) -> None:
        body = self.body()
        if self.path == "/api/repos/create":
            if self.server.refuse:  # type: ignore[attr-defined]
                self.answer({"error": "You don't have the rights to create a model under this namespace"}, 403)
            else:
                self.answer({"url": f"{self.address()}/acme/small", "id": "acme/small"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": self.mode(f["path"]), "shouldIgnore": False} for f in files]
            self.answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            actions = [{**o, "actions": {"upload": {"href": f"{self.address()}/put/{o['oid']}"}}} for o in objects]
            self.answer({"transfer": "basic", "objects": actions}, kind="application/vnd.git-lfs+json")
        elif "/commit/" in self.path:
            self.commit([json.loads(line) for line in body.splitlines()])
        else:
            self.answer({})

    def mode(self, path: str) -> str:
        return "lfs" if path.endswith(".safetensors") else "regular"

    def commit(self, lines: list[dict[str, Any]]) -> None:
        files, objects = self.server.files, self.server.objects  # type: ignore[attr-defined]
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = objects[line["value"]["oid"]]
        url = f"{self.address()}/acme/small/commit/{'1' * 40}"
        self.answer({"commitUrl": url, "commitOid": "1" * 40, "success": True})

    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def answer(self, value: Any, code: int = 200, kind: str = "application/json") -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.files, server.objects, server.refuse = {}, {}, False  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def environment(hub: ThreadingHTTPServer, token: str = "good-token") -> dict[str, str]:
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    return {"HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}


def test_every_file_arrives(cli: Callable[..., Any], hub: Any, small: Path, tmp_path: Path) -> None:
    (small / "README.md").write_text("---\nlicense: mit\n---\n# Small\n")
    out = tmp_path / "out"
    done = cli("compress", small, "-o", out, "--push-to-hub", "acme/small", **environment(hub))
    assert done.returncode == 0, done.stderr
    assert "/acme/small/commit/" in done.stdout
    local = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {name: data for name, data in hub.files.items() if name != ".gitattributes"} == local
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: transformers\ntags:\n- corecompress\n")
    assert "license: mit" in card


@pytest.mark.parametrize(
    ("card", "came_from", "base"),
    [
        ("---\nbase_model: acme/first\n---\n", "acme/second", "acme/first"),
        ("no front matter", "acme/second", "acme/second"),
        ("", "/home/me/model", None),
        ("", "./model", None),
        ("", "", None),
    ],
)
def test_the_card_of_a_local_folder_names_what_it_came_from(
    cli: Callable[..., Any], small: Path, tmp_path: Path, card: str, came_from: str, base: str | None
) -> None:
    (small / "README.md").write_text(card)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "_name_or_path": came_from}))
    assert cli("compress", small, "-o", tmp_path / "out").returncode == 0
    assert (metadata_load(tmp_path / "out" / "README.md") or {}).get("base_model") == base


def test_a_bad_token_is_said_before_any_work(
    refused: Callable[..., str], hub: Any, small: Path, tmp_path: Path
) -> None:
    said = refused("compress", small, "-o", tmp_path / "out", "--push-to-hub", "acme/small", **environment(hub, "bad"))
    assert "token" in said
    assert not (tmp_path / "out").exists()
    said = refused("compress", small, "-o", tmp_path / "out", "--push-to-hub", "a b/c", **environment(hub))
    assert "ORG/NAME" in said


def test_a_refused_push_keeps_the_folder(refused: Callable[..., str], hub: Any, small: Path, tmp_path: Path) -> None:
    hub.refuse = True
    said = refused("compress", small, "-o", tmp_path / "out", "-q", "--push-to-hub", "acme/small", **environment(hub))
    assert "is complete" in said
    assert (tmp_path / "out" / "corecompress.json").exists()
