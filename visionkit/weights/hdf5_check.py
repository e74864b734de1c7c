"""HDF5 files looked through before Keras reads them: nothing outside of the file, nothing larger than it can be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from visionkit.errors import ModelError
from visionkit.weights.file_kind import file_kind, open_size

__all__ = ["Hdf5Facts", "check_hdf5"]

MAX_OBJECTS = 100_000
MAX_DEPTH = 32
MAX_RATIO = 20  # bytes declared to bytes stored: zeros pack better, trained weights never do
MAX_ATTRIBUTE_BYTES = 1 << 20
MAX_ITEM_BYTES = 8
SMALL = 4096  # bytes of a dataset that may be all fill value
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}


@dataclass(frozen=True, slots=True)
class Hdf5Facts:
    """What a checked file holds.

    Args:
        shapes: path of each dataset -> its shape.
        names: path of each group -> the layer's name that Keras wrote there, if it did.
        legacy: whether it is Keras's older layout, in which Keras applications are published.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    legacy: bool = False


def check_hdf5(path: Path) -> Hdf5Facts:
    """What the file holds, after its structure (never its numbers) was read.

    Raises:
        ModelError: `model-unsafe` if it refers to other files or declares far more than it stores; `model-corrupt` if
            it is damaged or no HDF5 file, and then the message says what it is; `weights-missing` if it cannot be read.
    """
    size = open_size(path)
    with path.open("rb") as file:
        head = file.read(8)
    if head != b"\x89HDF\r\n\x1a\n":
        raise ModelError(
            "model-corrupt", f"{path} is not HDF5, as Keras's weights are, but {file_kind(path)}. Give another file."
        )
    import h5py

    try:
        with h5py.File(path, "r") as opened:
            walk = _Walk(path, size, h5py)
            walk.group(opened.id, "", 0)
            legacy = "layer_names" in opened.attrs or "model_weights" in opened
            return Hdf5Facts(walk.shapes, walk.names, legacy)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            "model-corrupt",
            f"{path} is an HDF5 file ({size} bytes) that ends early or is damaged: {reason}. Fetch or save it again.",
        ) from error


class _Walk:
    """Every object of a file once, by the low-level calls that follow no link by themselves."""

    def __init__(self, path: Path, size: int, h5py: Any) -> None:
        self._path, self._size, self._h5 = path, size, h5py
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.names: dict[str, str] = {}
        self._seen: set[int] = set()
        self._declared = 0

    def _unsafe(self, what: str) -> NoReturn:
        raise ModelError("model-unsafe", f"{self._path} {what}. Keras writes no such weights: do not use the file.")

    def group(self, group: Any, place: str, depth: int) -> None:
        h5 = self._h5
        self._enter(group, place, depth)
        children: list[bytes] = []
        group.links.iterate(children.append)
        for name in children:
            inner = f"{place}/{name.decode('utf-8', 'replace')}".lstrip("/")
            kind = group.links.get_info(name).type
            if kind == h5.h5l.TYPE_EXTERNAL:
                self._unsafe(f"has a link to another file at {inner[:200]!r}")
            if kind != h5.h5l.TYPE_HARD:
                self._unsafe(f"has a symbolic link at {inner[:200]!r}")
            item = h5.h5o.open(group, name)
            if isinstance(item, h5.h5g.GroupID):
                self.group(item, inner, depth + 1)
            elif isinstance(item, h5.h5d.DatasetID):
                self._enter(item, inner, depth)
                self._dataset(item, inner)
            else:
                self._unsafe(f"has a named type at {inner[:200]!r}")

    def _enter(self, item: Any, place: str, depth: int) -> None:
        address = self._h5.h5o.get_info(item).addr
        if address in self._seen:
            self._unsafe(f"holds the same object twice, at {place[:200]!r}")
        self._seen.add(address)
        if len(self._seen) > MAX_OBJECTS or depth > MAX_DEPTH:
            self._unsafe(f"has more than {MAX_OBJECTS} objects or {MAX_DEPTH} levels")
        self._attributes(item, place)

    def _attributes(self, item: Any, place: str) -> None:
        h5 = self._h5
        for index in range(h5.h5a.get_num_attrs(item)):
            attribute = h5.h5a.open(item, index=index)
            if attribute.get_space().get_simple_extent_npoints() == 0:
                continue  # HDF5 has no size for nothing, such as the `weight_names` of a pooling
            if attribute.get_storage_size() > MAX_ATTRIBUTE_BYTES or index > 1000:
                self._unsafe(f"has an attribute of {attribute.get_storage_size()} bytes at {place[:200]!r}")
            if attribute.name == b"name" and isinstance(item, h5.h5g.GroupID):
                value = h5.Group(item).attrs["name"]
                self.names[place] = str(value)[:200]

    def _dataset(self, dataset: Any, place: str) -> None:
        h5 = self._h5
        plist, kind = dataset.get_create_plist(), dataset.get_type()
        if plist.get_external_count():
            self._unsafe(f"keeps the numbers of {place[:200]!r} in another file")
        if plist.get_layout() == h5.h5d.VIRTUAL:
            self._unsafe(f"takes the numbers of {place[:200]!r} from other files (a virtual dataset)")
        if kind.get_class() not in (h5.h5t.FLOAT, h5.h5t.INTEGER, h5.h5t.ENUM) or kind.get_size() > MAX_ITEM_BYTES:
            self._unsafe(f"has {place[:200]!r} of a type that is no number")
        filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
        if unknown := [code for code in filters if code not in FILTERS]:
            self._unsafe(f"has {place[:200]!r} packed by filter {unknown[0]}; {', '.join(FILTERS.values())} are known")
        shape = tuple(dataset.shape)
        declared, stored = math.prod(shape) * kind.get_size(), dataset.get_storage_size()
        limit = max(SMALL, stored * (MAX_RATIO if filters else 1))
        chunk = math.prod(plist.get_chunk()) * kind.get_size() if plist.get_layout() == h5.h5d.CHUNKED else 0
        self._declared += declared
        if declared > limit or chunk > max(limit, SMALL) or self._declared > MAX_RATIO * self._size:
            self._unsafe(
                f"declares {declared} bytes for {place[:200]!r} and stores {stored}, in a file of {self._size} bytes"
            )
        self.shapes[place] = shape
