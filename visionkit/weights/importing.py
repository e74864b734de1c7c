"""Weights that were brought by hand: checked, tried on the network, copied to where fetched ones lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from visionkit.errors import ModelError
from visionkit.weights.cache import kept_place, lock, not_the_weights, place_of, publish, same_hash, write_failed
from visionkit.weights.card import Card, sha256_of
from visionkit.weights.file_kind import open_size
from visionkit.weights.loading import build_network, load_weights, weights_format
from visionkit.weights.torch_zip import read_checkpoint

__all__ = ["import_weights", "try_weights"]

CHUNK = 1 << 20


def try_weights(card: Card, path: Path) -> None:
    """Build the card's network and load `path` into it."""
    load_weights(build_network(card), card, path)


def import_weights(
    card: Card,
    path: str | Path,
    *,
    allow_other: bool = False,
    attempt: Callable[[Card, Path], None] | None = try_weights,
) -> Path:
    """Path of a copy of the weights `path` in the cache, where the card finds them.

    They are read without executing anything, and loaded into the card's network, before they are copied.

    Args:
        card: the card they are for.
        path: the file.
        allow_other: also take weights of the card's network that are not the card's own, such as a user's fine-tuned
            checkpoint. They are kept apart, and used by giving the returned path as weights.
        attempt: loads them into the card's network, or raises; None where Keras is not installed.

    Raises:
        ModelError: `hash-mismatch` if they are not the card's and others are not allowed; `model-unsafe`,
            `model-corrupt`, `model-unfit` or `model-not-finite`, as `load_weights`.
        OutputError: `cache-unwritable` or `disk-full`.
    """
    source = Path(path)
    open_size(source)
    found = sha256_of(source)
    entry = next((item for item in card.weights if item.url and same_hash(found, item)), None)
    if entry is None and not allow_other:
        raise _other(card, source, found)
    if weights_format(source) == "torchvision":
        read_checkpoint(source)
    final = place_of(entry) if entry is not None else kept_place(f"{card.name}-{found[:8]}-{source.name}")
    if attempt is not None:
        attempt(card, source)
    with lock(final):
        _copy(source, final, found)
    return final


def _other(card: Card, source: Path, found: str) -> ModelError:
    addresses = [entry for entry in card.weights if entry.url]
    if not addresses:
        return ModelError(
            "hash-mismatch",
            f"The weights of {card.name!r} came with VisionKit and are not imported. To keep weights of your own for "
            "its network, add --allow-other-weights.",
        )
    wanted = " or ".join(f"{entry.sha256[:16]} ({entry.url})" for entry in addresses)
    return not_the_weights(
        str(source), found, wanted, "If they are your own weights of the same network, add --allow-other-weights."
    )


def _copy(source: Path, final: Path, wanted: str) -> None:
    """Copy and hash in one reading: what was checked is what is kept."""
    part = final.with_name(f".{final.name}.import")
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, part.open("wb") as writer:
            while chunk := reader.read(CHUNK):
                digest.update(chunk)
                writer.write(chunk)
        if digest.hexdigest() != wanted:
            raise ModelError("model-corrupt", f"{source} changed while it was imported. Import it again.")
        publish(part, final)
    except OSError as error:
        raise write_failed(final, error) from error
    finally:
        part.unlink(missing_ok=True)
