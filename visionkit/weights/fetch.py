"""Weights fetched from the address on their card: over https, resumed, checked before they get their name."""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from visionkit import __version__
from visionkit.errors import ModelError, OutputError, VisionkitError
from visionkit.weights.cache import lock, not_the_weights, place_of, publish, same_hash, write_failed
from visionkit.weights.card import Card, Weights, fetched_path, sha256_of
from visionkit.weights.file_kind import file_kind
from visionkit.weights.registry import list_cards

__all__ = ["Progress", "fetch", "make_opener", "obtain"]

Progress = Callable[[int, int | None], None]  # bytes here, bytes in all if known

CHUNK = 1 << 20
ATTEMPTS = 4
TIMEOUT_S = 30.0
MAX_BYTES = 4 << 30  # where the card tells no size
OFFLINE = "VISIONKIT_OFFLINE"


def obtain(
    card: Card,
    entry: Weights | None = None,
    *,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    opener: Any = None,
) -> Path:
    """Path of weights of the card, checked; fetched if they are not on this machine.

    Args:
        card: the card.
        entry: which of its weights; without, the first that are here, else the first.
        notice: called with what is about to be fetched, its size and its licence, before the network is touched.
        progress: as `fetch` takes it.
        opener: as `fetch` takes it.

    Raises:
        ModelError: `weights-missing` if they are not here and the variable VISIONKIT_OFFLINE is set; as `fetch`.
    """
    here = [item for item in card.weights if card.find(item) is not None]
    entry = entry or next(iter([*here, *card.weights]), None)
    if entry is None or card.find(entry) is not None or not entry.url:
        return card.weights_path(entry.format if entry else None)
    if os.environ.get(OFFLINE):
        raise ModelError("weights-missing", f"{OFFLINE} is set. {by_hand(card, entry)}")
    if notice is not None:
        notice(offer(card, entry))
    return fetch(card, entry, progress, opener=opener)


def offer(card: Card, entry: Weights) -> str:
    """What a download is: `resnet18: 46.8 MB from host, licence BSD-3-Clause (…)`."""
    size = entry.bytes or entry.about_bytes
    about = "" if size is None else f"{size / 1e6:.1f} MB "
    note = f" ({card.licence_note})" if card.licence_note else ""
    return f"{card.name}: {about}from {urlsplit(entry.url or '').hostname}, licence {card.licence}{note}"


def fetch(card: Card, entry: Weights | None = None, progress: Progress | None = None, *, opener: Any = None) -> Path:
    """Path of weights fetched from the card's address, or found where they were fetched before.

    A download that was interrupted is continued where the server allows it. Two fetches of the same weights do not
    meet: the second waits for the first. No file has the final name before its sha256 was checked.

    Args:
        card: the card.
        entry: which of its weights; without, the first with an address.
        progress: called with the bytes that are here and the bytes there will be, if the server tells.
        opener: what has `open(request, timeout=)`, in the place of `make_opener()`.

    Raises:
        ModelError: `fetch-failed` if the address cannot be reached or does not give the file, and then the message says
            how to bring it by hand and what needs no download; `hash-mismatch` if it is another file;
            `weights-missing` if the card has no address.
        OutputError: `cache-unwritable` or `disk-full`.
    """
    if entry is None:
        entry = next((item for item in card.weights if item.url), None)
    if entry is None or not entry.url:
        raise ModelError("weights-missing", f"The card {card.name!r} has no address to fetch from: nothing to do.")
    final = place_of(entry)
    with lock(final):
        if final.is_file() and same_hash(sha256_of(final), entry):
            return final
        download = _Download(card, entry, final, opener or make_opener(), progress)
        try:
            download.run()
        except (OSError, http.client.HTTPException) as error:
            _close(error)
            raise ModelError("fetch-failed", f"{entry.url}: {_reason(error)}. {by_hand(card, entry)}") from error
        publish(download.part, final)
    return final


def by_hand(card: Card, entry: Weights) -> str:
    """How to bring the weights without this machine's network, and which models need none."""
    place = fetched_path(entry)
    where = f"the folder {place.parent} under the name {place.name}" if place else "the cache (set VISIONKIT_CACHE)"
    ready = _bundled(card)
    without = f"No download is needed for: {', '.join(ready)}." if ready else "No model of this kind needs no download."
    return (
        f"Fetch {entry.url} on any machine and put it in {where}, or give it to `visionkit models import {card.name} "
        f"FILE`. {without}"
    )


def _bundled(card: Card) -> list[str]:
    """Names of cards whose weights came with VisionKit, those of the same task first."""
    try:
        cards = [other for other in list_cards() if any(item.file and other.find(item) for item in other.weights)]
    except VisionkitError:  # a broken card is not what the user asked about
        return []
    return [other.name for other in sorted(cards, key=lambda other: other.task != card.task)]


def make_opener(schemes: tuple[str, ...] = ("https",)) -> urllib.request.OpenerDirector:
    """What opens addresses of these schemes only, and follows no address to another scheme."""

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if urlsplit(newurl).scheme not in schemes:
                fp.close()
                raise ModelError(
                    "fetch-failed",
                    f"{req.full_url} leads on to {newurl[:200]}, which is not {' or '.join(schemes)}. Nothing was "
                    "fetched. Is there a portal to sign in at between here and the network?",
                )
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler(), Redirects()]
    handlers += [urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor()]
    handlers += [urllib.request.UnknownHandler()]
    if "https" in schemes:
        handlers.append(urllib.request.HTTPSHandler())
    if "http" in schemes:
        handlers.append(urllib.request.HTTPHandler())
    for handler in handlers:
        opener.add_handler(handler)
    return opener


def _close(error: Exception) -> None:
    """An answer that is an error holds the connection."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} ({error.reason})"
    if isinstance(error, urllib.error.URLError):
        return f"it cannot be reached ({error.reason})"
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT_S:g} s"
    return f"the connection failed ({error or type(error).__name__})"


class _Download:
    """One download into `part`, which stays for the next attempt when the network fails."""

    def __init__(self, card: Card, entry: Weights, final: Path, opener: Any, progress: Progress | None) -> None:
        self._card, self._entry, self._opener = card, entry, opener
        self._progress = progress or (lambda done, total: None)
        self.part = final.with_name(f".{final.name}.part")

    def run(self) -> None:
        """Fetch until the whole file is there and has the card's sha256."""
        for continued in (self.part.exists(), False):
            self._until_whole()
            found = sha256_of(self.part)
            if same_hash(found, self._entry):
                return
            kind = file_kind(self.part)
            self.part.unlink()
            if not continued:  # else what lay here was the beginning of something else: once more from nothing
                raise not_the_weights(
                    f"What {self._entry.url} gives is {kind} and",
                    found,
                    self._entry.sha256[:16],
                    "Nothing of it was kept.",
                )

    def _until_whole(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            before = self._size()
            try:
                self._once(before)
                return
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # nothing behind what is here
                    self.part.unlink(missing_ok=True)
                elif attempt == ATTEMPTS or not self._worth_another(error, before):
                    raise
                _close(error)

    def _worth_another(self, error: Exception, before: int) -> bool:
        busy = isinstance(error, urllib.error.HTTPError) and error.code in (429, 500, 502, 503, 504)
        return busy or self._size() > before

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _once(self, start: int) -> None:
        headers = {"User-Agent": f"visionkit/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        request = urllib.request.Request(self._entry.url or "", headers=headers)  # noqa: S310 - the opener knows https only
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            given = response.headers.get("Content-Range", "")
            if not (response.status == 206 and given.startswith(f"bytes {start}-")):
                start = 0
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            self._check_size(start, total)
            self._write(response, start, total)

    def _check_size(self, start: int, total: int | None) -> None:
        limit = self._limit()
        if total is not None and total > limit:
            self._too_large(total, limit)
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - start > free:
            raise OutputError(
                "disk-full",
                f"The disk of {self.part.parent} has {free} bytes free, and {total - start} are to come. Free space, "
                "or set VISIONKIT_CACHE to another disk.",
            )

    def _limit(self) -> int:
        entry = self._entry
        return entry.bytes or (int(entry.about_bytes * 1.01) + CHUNK if entry.about_bytes else MAX_BYTES)

    def _too_large(self, size: int, limit: int) -> None:
        self.part.unlink(missing_ok=True)
        raise ModelError(
            "fetch-failed",
            f"{self._entry.url} gives {size} bytes or more, and the card says {limit}: not what it was. Nothing of it "
            "was kept.",
        )

    def _write(self, response: Any, start: int, total: int | None) -> None:
        done = start
        try:
            file = self.part.open("ab" if start else "wb")
        except OSError as error:
            raise write_failed(self.part, error) from error
        with file:
            while chunk := response.read(CHUNK):
                done += len(chunk)
                if done > self._limit():
                    self._too_large(done, self._limit())
                self._put(file, chunk)
                self._progress(done, total)
        if total is not None and done < total:
            raise ConnectionError(f"it ended after {done} of {total} bytes")

    def _put(self, file: IO[bytes], chunk: bytes) -> None:
        try:
            file.write(chunk)
            file.flush()
        except OSError as error:
            self.part.unlink(missing_ok=True)
            raise write_failed(self.part, error) from error
