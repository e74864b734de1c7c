"""What `auto` found, and the converted file it chose, kept between runs.

An entry is a small JSON file named after everything the choice depends on; the artifact beside it is named after its
own sha256. Both appear whole (temporary file, rename). Whatever is wrong with the cache, the answer is "not there".
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionkit.runtime.base import Signature
from visionkit.weights.artifact_store import put_file

__all__ = ["Cache", "Entry", "cache_root"]

LOG = logging.getLogger(__name__)
FORMAT = 1


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """`cache_dir`, else `$VISIONKIT_CACHE`, else `visionkit` in the user's cache folder; None without a home."""
    if cache_dir is not None:
        return Path(cache_dir)
    if os.environ.get("VISIONKIT_CACHE"):
        return Path(os.environ["VISIONKIT_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "visionkit"
    try:
        return Path.home() / ".cache" / "visionkit"
    except RuntimeError:
        return None


@dataclass(frozen=True)
class Entry:
    """A choice: the runtime, and what it needs to start without the Keras model (`suffix` None: it needs the model)."""

    runtime: str
    signature: Signature
    suffix: str | None = None
    artifact: bytes = b""
    timings: dict[str, float] | None = None
    rejected: dict[str, str] = field(default_factory=dict)


class Cache:
    """Entries under one folder; reads and writes never raise for what the disk holds or refuses."""

    def __init__(self, root: Path | None) -> None:
        self._folder = None if root is None else root / "runtime"

    def find(self, facts: Mapping[str, Any]) -> Entry | None:
        """The entry for these facts, its artifact checked against the sha256 noted for it."""
        if self._folder is None:
            return None
        try:
            data = json.loads((self._folder / f"{key_of(facts)}.json").read_bytes())
            if data["format"] != FORMAT or data["facts"] != dict(facts):
                return None
            entry = read_entry(data, self._folder)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            LOG.debug("cache entry not usable: %r", error)
            return None
        return entry

    def keep(self, facts: Mapping[str, Any], entry: Entry) -> None:
        """Stores the entry, or does nothing where the disk does not let us."""
        if self._folder is None:
            return
        digest = hashlib.sha256(entry.artifact).hexdigest()
        data = {
            "format": FORMAT,
            "facts": dict(facts),
            "runtime": entry.runtime,
            "signature": entry.signature.to_json(),
            "artifact": None if entry.suffix is None else {"suffix": entry.suffix, "sha256": digest},
            "timings": entry.timings,
            "rejected": entry.rejected,
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if entry.suffix is not None:
                put(self._folder / f"{digest}{entry.suffix}", entry.artifact)
            put(self._folder / f"{key_of(facts)}.json", json.dumps(data, indent=1).encode())
        except OSError as error:
            LOG.debug("cache not writable: %s", error)


def key_of(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:40]


def read_entry(data: Mapping[str, Any], folder: Path) -> Entry | None:
    artifact, suffix = b"", None
    if data["artifact"] is not None:
        suffix, digest = str(data["artifact"]["suffix"]), str(data["artifact"]["sha256"])
        artifact = (folder / f"{digest}{suffix}").read_bytes()
        if hashlib.sha256(artifact).hexdigest() != digest:
            return None
    timings = data["timings"]
    return Entry(
        runtime=str(data["runtime"]),
        signature=Signature.from_json(data["signature"]),
        suffix=suffix,
        artifact=artifact,
        timings=None if timings is None else {str(name): float(value) for name, value in timings.items()},
        rejected={str(name): str(reason) for name, reason in data["rejected"].items()},
    )


def put(target: Path, content: bytes) -> None:
    """Writes the whole file or leaves what was there."""
    put_file(target, [content])
