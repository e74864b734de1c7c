"""PyTorch's format before 1.6, in which several of torchvision's official checkpoints still are.

Five pickles one after another (magic number, protocol, facts of the machine, the state dict, the order of the
storages), then each storage: its count as int64, its elements.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.weights.torch_pickle import MAX_PICKLE_BYTES, StorageRef, unpickle
from visionkit.weights.torch_tensors import item_size, make_arrays, state_of

__all__ = ["is_legacy", "read_legacy"]

Bytes = npt.NDArray[np.uint8]
MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that is the first pickle, and its end
PROTOCOL = 1001


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins with `head` (64 bytes) is of this format."""
    return head.startswith(b"\x80") and MAGIC in head[:32]


def read_legacy(path: Path) -> dict[str, np.ndarray]:
    """The tensors of the file `path`, of this format, as `torch_zip.read_checkpoint` gives them.

    Raises:
        ModelError: `model-unsafe` or `model-corrupt`, as there.
    """
    where = str(path)
    raw: Bytes = np.memmap(path, np.uint8, "r")
    stream = io.BytesIO(raw[:MAX_PICKLE_BYTES].tobytes())
    refs: list[StorageRef] = []
    _, protocol, machine, value, keys = (unpickle(stream, where, refs) for _ in range(5))
    if protocol != PROTOCOL or not isinstance(machine, dict) or not isinstance(keys, list):
        raise _corrupt(where, "it is of a protocol that torch.save never had")
    byteorder = "little" if machine.get("little_endian", True) else "big"
    state = state_of(value, where)
    storages = _Storages(where, raw, _by_key(refs, where))
    storages.walk(keys, stream.tell(), byteorder)
    return make_arrays(state, storages.get, file_bytes=raw.size, byteorder=byteorder, where=where)


def _corrupt(where: str, what: str) -> ModelError:
    return ModelError("model-corrupt", f"{where} cannot be read as a PyTorch checkpoint: {what}. Fetch it again.")


def _by_key(refs: list[StorageRef], where: str) -> dict[str, StorageRef]:
    """The storages that the pickle names, of the state dict and of what lies beside it; it must agree on each."""
    found: dict[str, StorageRef] = {}
    for ref in refs:
        other = found.setdefault(ref.key, ref)
        if (other.dtype, other.count) != (ref.dtype, ref.count):
            raise _corrupt(where, f"two tensors disagree on the size of the storage {ref.key[:80]!r}")
    return found


class _Storages:
    """Where each storage lies."""

    def __init__(self, where: str, raw: Bytes, known: dict[str, StorageRef]) -> None:
        self._where, self._raw, self._known = where, raw, known
        self._found: dict[str, Bytes] = {}

    def walk(self, keys: list[Any], position: int, byteorder: str) -> None:
        """Find every storage of `keys`, which follow each other from `position`; each holds what it claims."""
        for key in keys:
            ref = self._known.get(key) if isinstance(key, str) else None
            if ref is None or key in self._found:
                raise _corrupt(self._where, "its list of storages is not that of its tensors")
            start = position + 8
            count = int.from_bytes(self._raw[position:start].tobytes(), "little" if byteorder == "little" else "big")
            end = start + count * item_size(ref.dtype)
            if count != ref.count or end > self._raw.size:
                raise _corrupt(
                    self._where,
                    f"the storage {key[:80]!r} of {ref.count} {ref.dtype} has {count}, in a file of "
                    f"{self._raw.size} bytes",
                )
            self._found[key] = self._raw[start:end]
            position = end

    def get(self, ref: StorageRef) -> Bytes:
        whole = self._found.get(ref.key)
        if whole is None:
            raise _corrupt(self._where, f"the storage {ref.key[:80]!r} is not there")
        if ref.view is None:
            return whole
        _, offset, count = ref.view
        if not 0 <= offset <= offset + count <= ref.count:
            raise _corrupt(self._where, f"a part of the storage {ref.key[:80]!r} does not lie in it")
        size = item_size(ref.dtype)
        return whole[offset * size : (offset + count) * size]
