"""Weights fetched from a server on this machine: whole, continued, refused, two at once."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from visionkit.errors import ModelError, OutputError
from visionkit.weights import Weights, fetch, load_card, obtain
from visionkit.weights.fetch import _Download, make_opener

DATA = np.random.RandomState(0).bytes(3_000_000)
SHA = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves DATA under any name; `mode` says with which fault, `requests` what was asked."""

    daemon_threads = True
    mode = "good"
    location = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tiny.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        mode, asked = self.server.mode, self.headers.get("Range", "")
        self.server.requests.append(asked)
        first = len(self.server.requests) == 1
        if mode == "redirect":
            self.answer(302, b"", Location=self.server.location)
        elif mode == "missing":
            self.answer(404, b"no")
        elif mode == "busy" and first:
            self.answer(503, b"later")
        elif mode == "page":
            self.answer(200, b"<!DOCTYPE html><html>sign in</html>")
        elif mode == "huge":
            self.answer(200, b"x" * 100, length=10**12)
        elif mode == "endless":
            self.answer(200, DATA * 3, length=None)
        elif mode == "no-range":
            self.answer(200, DATA[: 1_000_000 if first else None], length=len(DATA))
        elif mode == "never":
            self.answer(200, b"", length=len(DATA))
        else:
            self.ranged(asked, cut=mode == "cut" and len(self.server.requests) < 3)

    def ranged(self, asked: str, cut: bool) -> None:
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(DATA):
            self.answer(416, b"")
            return
        body = DATA[start : start + 1_000_000] if cut else DATA[start:]
        where = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if asked else {}
        self.answer(206 if asked else 200, body, length=len(DATA) - start, **where)

    def answer(self, code: int, body: bytes, length: int | None = -1, **headers: str) -> None:
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def get(server: Server, progress=None, sha256: str = SHA, **sizes: int) -> Path:
    """`fetch` of the server's file for a card that is otherwise resnet18's."""
    entry = Weights(None, server.url, sha256, "torchvision", **sizes)
    card = dataclasses.replace(load_card("resnet18"), weights=(entry,))
    return fetch(card, entry, progress, opener=make_opener(("http",)))


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_once_and_kept(server, cache):
    seen = []
    path = get(server, lambda done, total: seen.append((done, total)))
    assert path == cache / f"{SHA[:8]}-tiny.pth"
    assert path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert get(server) == path
    assert (len(server.requests), left(cache)) == (1, [path.name])


def test_eight_digits_of_the_hash_are_enough(server, cache):
    assert get(server, sha256=SHA[:8]).read_bytes() == DATA


def test_a_lost_connection_is_continued(server, cache):
    server.mode = "cut"
    assert get(server).read_bytes() == DATA
    assert server.requests == ["", "bytes=1000000-", "bytes=2000000-"]


def test_a_server_that_cannot_continue_starts_again(server, cache):
    server.mode = "no-range"
    assert get(server).read_bytes() == DATA
    assert server.requests == ["", "bytes=1000000-"]


def test_an_interrupted_download_is_continued_by_the_next(server, cache):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, stop)
    assert left(cache) == [f".{SHA[:8]}-tiny.pth.part"]
    assert get(server).read_bytes() == DATA
    assert server.requests[1].startswith("bytes=1048576-")


def test_what_lay_here_of_another_file_is_dropped(server, cache):
    cache.mkdir(parents=True)
    part = cache / f".{SHA[:8]}-tiny.pth.part"
    for wrong in (b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 9)):
        part.write_bytes(wrong)
        assert get(server).read_bytes() == DATA
        assert left(cache) == [f"{SHA[:8]}-tiny.pth"]
        (cache / f"{SHA[:8]}-tiny.pth").unlink()


def test_a_wrong_file_under_the_final_name_is_replaced(server, cache):
    cache.mkdir(parents=True)
    (cache / f"{SHA[:8]}-tiny.pth").write_bytes(b"wrong")
    assert get(server).read_bytes() == DATA


def test_a_busy_server_is_asked_again(server, cache):
    server.mode = "busy"
    assert get(server).read_bytes() == DATA


@pytest.mark.parametrize(
    ("mode", "sizes", "slug", "words"),
    [
        ("missing", {}, "fetch-failed", ("the server answers 404",)),
        ("never", {}, "fetch-failed", (f"it ended after 0 of {len(DATA)} bytes",)),
        ("page", {}, "hash-mismatch", ("is a web page", "Nothing of it was kept")),
        ("huge", {}, "fetch-failed", ("gives 1000000000000 bytes or more",)),
        ("huge", {"about_bytes": len(DATA)}, "fetch-failed", ("gives 1000000000000 bytes or more",)),
        ("endless", {"bytes": len(DATA)}, "fetch-failed", ("bytes or more, and the card says 3000000",)),
        ("endless", {}, "hash-mismatch", ("no format that is known here (9000000 bytes)",)),
    ],
)
def test_what_is_not_the_file_is_refused(server, cache, mode, sizes, slug, words):
    server.mode = mode
    with pytest.raises(ModelError) as caught:
        get(server, **sizes)
    assert caught.value.slug == slug
    for word in (*words, server.url):
        assert word in caught.value.message
    assert [name for name in left(cache) if not name.endswith(".part")] == []
    assert slug != "hash-mismatch" or left(cache) == []


def test_without_a_network_the_way_by_hand_is_told(server, cache):
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelError) as caught:
        get(server)
    assert caught.value.slug == "fetch-failed"
    for words in (
        f"{server.url}: it cannot be reached",
        f"put it in the folder {cache} under the name {SHA[:8]}-tiny.pth",
        "`visionkit models import resnet18 FILE`",
        "No download is needed for:",
        "siambox_light",
    ):
        assert words in caught.value.message
    cache_file = cache / f"{SHA[:8]}-tiny.pth"
    cache_file.write_bytes(DATA)
    assert get(server) == cache_file  # what the message says does help


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/x", "https://example.org/x", "file:///etc/passwd"])
def test_no_other_scheme_is_followed(server, cache, place):
    server.mode, server.location = "redirect", place
    with pytest.raises(ModelError, match=f"leads on to {place}, which is not http|'{place}' is not allowed"):
        get(server)
    assert left(cache) == []


def test_without_being_told_otherwise_only_https_is_opened(server, cache):
    card = load_card("resnet18")
    for place in (server.url, "ftp://127.0.0.1/x", "file:///etc/passwd"):
        with pytest.raises(ModelError, match="unknown url type"):
            fetch(card, Weights(None, place, SHA, "torchvision"))
    assert server.requests == []
    assert left(cache) == []


def test_two_fetches_at_once_make_one_download(server, cache):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: get(server), range(4)))
    assert len(set(paths)) == 1
    assert len(server.requests) == 1


def test_a_folder_that_may_not_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="cannot be used: Not a directory") as caught:
        get(server)
    assert caught.value.slug == "cache-unwritable"
    assert server.requests == []


def test_a_full_disk(server, cache, monkeypatch):
    real = _Download._put

    def put(self, file, chunk):
        class Full:
            def write(self, _):
                raise OSError(28, os.strerror(28))

        real(self, Full() if file.tell() else file, chunk)

    monkeypatch.setattr(_Download, "_put", put)
    with pytest.raises(OutputError, match="is full") as caught:
        get(server)
    assert caught.value.slug == "disk-full"
    assert left(cache) == []


def test_weights_are_fetched_when_first_used(server, cache, monkeypatch):
    entry = Weights(None, server.url, SHA, "torchvision", bytes=len(DATA))
    card = dataclasses.replace(load_card("resnet18"), weights=(entry,))
    said = []
    opener = make_opener(("http",))
    monkeypatch.setenv("VISIONKIT_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"VISIONKIT_OFFLINE is set\. Fetch http") as caught:
        obtain(card, notice=said.append, opener=opener)
    assert (caught.value.slug, said, server.requests) == ("weights-missing", [], [])
    monkeypatch.delenv("VISIONKIT_OFFLINE")
    path = obtain(card, notice=said.append, opener=opener)
    assert path.read_bytes() == DATA
    assert said[0].startswith("resnet18: 3.0 MB from 127.0.0.1, licence BSD-3-Clause (BSD-3-Clause is torchvision's")
    assert obtain(card, notice=said.append, opener=opener) == path
    assert (len(said), len(server.requests)) == (1, 1)
    path.write_bytes(b"other")
    with pytest.raises(ModelError, match="are not those of the card") as caught:
        obtain(card, opener=opener)
    assert caught.value.slug == "hash-mismatch"
