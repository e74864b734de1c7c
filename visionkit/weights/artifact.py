"""An exported model that carries its description: the card as JSON, probes, what it was made from.

The description lies where the format has room for it (`artifact_store`): a zip behind the flatbuffer of a `.tflite`,
`assets.extra/` of a SavedModel, members of a `.keras`, properties of an `.onnx`, files beside an OpenVINO `.xml`. Other
tools ignore it there. Reading one needs neither TensorFlow nor any other runtime.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit import __version__
from visionkit.errors import ModelError
from visionkit.weights.artifact_npz import ProbesError, pack_probes, unpack_probes
from visionkit.weights.artifact_store import Damaged, artifact_format, stores
from visionkit.weights.card import Card
from visionkit.weights.card_file import parse_card
from visionkit.weights.schema import Field, SchemaError, check

__all__ = [
    "Artifact",
    "attach",
    "describe_artifact",
    "has_description",
    "model_bytes",
    "read_artifact",
    "retell",
    "written_artifact",
]

Array = npt.NDArray[Any]

SCHEMA = 1
MAX_JSON_BYTES = 1 << 20
MAX_PROBE_BYTES = 64 << 20
DEEPEST, LARGEST = 32, 1e300
# Of a card what says how to use the network; where weights come from does not matter to one that holds them.
CARD_TABLES = ("summary", "task", "network", "args", "input", "options", "licence", "licence_note", "paper")
FOREIGN = ("labels_file", "label_set", "weights")

_DESCRIPTION = {
    "visionkit": Field(int, required=True, test=lambda value: value >= 1, says="at least 1"),
    "version": Field(str, required=True),
    "name": Field(str, required=True, test=lambda value: 0 < len(value) <= 200 and value.isprintable(), says="a name"),
    "kind": Field(str, required=True, test=lambda value: 0 < len(value) <= 100 and value.isprintable(), says="a word"),
    "card": Field(dict, required=True),
    "parts": Field(dict, required=True),
    "made": Field(dict, required=True),
    "probes": Field(list, required=True),
    "sha256": Field(str, test=lambda value: len(value) == 64, says="64 hexadecimal digits"),
}
_MADE: dict[str, Callable[[Any], bool]] = {  # what `made` holds of these, where it has them; it may have others
    "checked": lambda value: _is_table(value, lambda outputs: _is_table(outputs, _is_number)),
    "raw_tolerance": lambda value: _is_number(value),
    "runtime": lambda value: isinstance(value, str),
    "select_tf_ops": lambda value: _is_words(value),
    "signatures": lambda value: _is_table(value, _is_words),
    "source": lambda value: isinstance(value, str),
    "source_sha256": lambda value: isinstance(value, str),
    "tolerances": lambda value: _is_table(value, _is_number),
    "versions": lambda value: _is_table(value, lambda version: isinstance(version, str)),
}


@dataclass(frozen=True)
class Artifact:
    """A model file or folder that says what it is.

    Args:
        path: of the file, or of a SavedModel's folder.
        format: `savedmodel`, `litert`, `keras`, `onnx` or `openvino`.
        card: of the model it was made from, with the artifact's own input size; without weights, its folder is the
            artifact's.
        kind: of its numbers, such as `float32`, `float16`, `dynamic`, `int8`, `int8-io`, `qat-int8`, `pruned`.
        parts: from the part of the network that a task asks for (empty for the whole) to the signature that is it.
        sha256: of the model without its description.
        made: versions, the name and sha256 of the model it was made from, notes of what was done to it.
        version: of the VisionKit that described it.
    """

    path: Path
    format: str
    card: Card
    kind: str
    parts: Mapping[str, str]
    sha256: str
    made: Mapping[str, Any] = field(default_factory=dict)
    probe_names: tuple[str, ...] = ()
    version: str = ""

    def probes(self) -> dict[str, Array]:
        """Stored inputs and what the network answered to them.

        By convention `image_0` uint8 (H, W, 3) RGB …, `raw/<signature>/<input or output name>/0` …,
        `serving/<output>/0` ….

        Raises:
            ModelError: `artifact-corrupt`.
        """
        if not self.probe_names:
            return {}
        try:
            raw = stores(self.format).read(self.path, "probes.npz", MAX_PROBE_BYTES)
            if raw is None:
                raise Damaged("its probes are missing")
            found = unpack_probes(raw, MAX_PROBE_BYTES)
            if tuple(sorted(found)) != self.probe_names:
                raise Damaged("its probes are not those of its description")
        except (Damaged, ProbesError, OSError) as error:
            raise _corrupt(self.path, str(error)) from error
        return found


def describe_artifact(
    card: Card,
    *,
    kind: str = "float32",
    parts: Mapping[str, str] | None = None,
    probes: Mapping[str, Array] | None = None,
    made: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The description that `attach` stores, ready for JSON.

    Args:
        card: what the artifact is, at its own input size.
        kind, parts, made: as `Artifact`; without `parts`, the whole network is the signature `raw`.
        probes: as they go to `attach`; their names are in the description.

    Raises:
        ModelError: `artifact-corrupt`; the card would not be read back, or something is no JSON.
    """
    table: dict[str, Any] = {key: getattr(card, key) for key in CARD_TABLES if getattr(card, key)}
    table |= {"heads": card.heads} if card.heads else {"labels": card.labels} if card.labels else {}
    table |= {"input": dict(card.input)}
    if card.metrics:
        table["metrics"] = [_given(metric) for metric in card.metrics]
    if card.trained is not None:
        table["trained"] = dataclasses.asdict(card.trained)
    description = {
        "visionkit": SCHEMA,
        "version": __version__,
        "name": card.name,
        "kind": kind,
        "card": table,
        "parts": dict({"": "raw"} if parts is None else parts),
        "made": dict(made or {}),
        "probes": sorted(probes or {}),
    }
    plain: dict[str, Any] = json.loads(_json_bytes(description))
    _parse(plain, Path(f"{card.name}.artifact"))
    return plain


def attach(path: Path, description: Mapping[str, Any], probes: Mapping[str, Array] | None = None) -> None:
    """Store a description in the artifact at `path`, in the place of any that is there.

    Args:
        path: a `.tflite`, `.keras`, `.onnx` or `.xml` file, or a SavedModel's folder, whole and closed.
        description: of `describe_artifact`; the model's sha256 is added.
        probes: arrays by name.

    Raises:
        ModelError: `artifact-corrupt`, the file is none, or what is to be stored is too large; `model-format`.
    """
    probes = probes or {}
    store = stores(_format(path))
    if sorted(probes) != list(description["probes"]):
        raise ValueError(f"`probes` must be {description['probes']}, as described. Received: {sorted(probes)}.")
    packed = pack_probes(probes)
    if sum(array.nbytes for array in probes.values()) > MAX_PROBE_BYTES or len(packed) > MAX_PROBE_BYTES:
        raise _corrupt(path, f"its probes are larger than {MAX_PROBE_BYTES >> 20} MiB")
    try:
        told = {**description, "sha256": store.sha256(path)}
        files = {"visionkit.json": _json_bytes(told), "labels.txt": _labels_text(description)}
        store.write(path, {**files, "probes.npz": packed} if probes else files)
    except Damaged as error:
        raise _corrupt(path, str(error)) from error


def read_artifact(path: str | Path) -> Artifact | None:
    """The artifact at `path`; None for what is no model file, or a model file that carries no description.

    Raises:
        ModelError: `artifact-corrupt`, it carries one that is damaged or of a later VisionKit; `hash-mismatch`, the
            model is not the one that was described.
    """
    place = Path(path)
    kind, table = _told(place)
    if kind is None or table is None:
        return None
    try:
        description = _parse(table, place)
        sha256 = stores(kind).sha256(place)
    except (Damaged, OSError) as error:
        raise _corrupt(place, str(error)) from error
    if description.get("sha256", sha256) != sha256:
        raise ModelError(
            "hash-mismatch",
            f"The model {place} is not the one that its description was made for: its sha256 is {sha256[:16]}…, the "
            f"description says {description['sha256'][:16]}…. Get it again.",
        )
    return Artifact(
        path=place,
        format=kind,
        card=description["card"],
        kind=description["kind"],
        parts=description["parts"],
        sha256=sha256,
        made=description["made"],
        probe_names=tuple(description["probes"]),
        version=description["version"],
    )


def retell(artifact: Artifact, kind: str, **made: Any) -> Artifact:
    """An artifact of another kind, with more to tell of how it was made; the model and its probes stay.

    Raises:
        ModelError: as `attach` and `read_artifact`.
    """
    probes, facts = artifact.probes(), {**artifact.made, **made}
    told = describe_artifact(artifact.card, kind=kind, parts=artifact.parts, probes=probes, made=facts)
    attach(artifact.path, told, probes)
    return written_artifact(artifact.path)


def written_artifact(path: Path) -> Artifact:
    """What was just written at `path`, read again. Raises ModelError as `read_artifact` and where there is none."""
    found = read_artifact(path)
    if found is None:
        raise _corrupt(path, "it does not tell what it is after it was written")
    return found


def has_description(path: Path) -> bool:
    """Whether there is a description at `path`, unchecked. Raises ModelError `artifact-corrupt` for a damaged one."""
    return _told(path)[1] is not None


def model_bytes(path: Path) -> bytes:
    """The content of a `.tflite`, `.keras` or `.onnx` without its description."""
    try:
        return stores(_format(path)).model(path)
    except Damaged as error:
        raise _corrupt(path, str(error)) from error


def _told(path: Path) -> tuple[str | None, Any]:
    """The format of what lies at `path`, and the description in it, unchecked; None for JSON of another kind."""
    kind = artifact_format(path)
    if kind is None:
        return None, None
    try:
        raw = stores(kind).read(path, "visionkit.json", MAX_JSON_BYTES)
        table = None if raw is None else _from_json(raw)
    except (Damaged, OSError) as error:
        raise _corrupt(path, str(error)) from error
    return kind, table if isinstance(table, dict) and "visionkit" in table else None


def _format(path: Path) -> str:
    found = artifact_format(path)
    if found is None:
        raise ModelError("model-format", f"{path} is no .tflite, .keras, .onnx, .xml or SavedModel; or is not there.")
    return found


def _parse(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The description with its card as a `Card`, all of it checked."""
    try:
        if isinstance(version := table.get("visionkit"), int) and version > SCHEMA:
            raise SchemaError(f"it was described by a later VisionKit ({table.get('version')!r}): install that one.")
        found = check(table, _DESCRIPTION, "the description")
        if not all(isinstance(name, str) for name in found["parts"].values()):
            raise SchemaError(f"`parts` must be names of signatures. Received: {found['parts']!r}.")
        if not all(isinstance(name, str) for name in found["probes"]) or found["probes"] != sorted(found["probes"]):
            raise SchemaError("`probes` must be names in order.")
        if unfit := [key for key, fits in _MADE.items() if key in found["made"] and not fits(found["made"][key])]:
            raise SchemaError(f"`{unfit[0]}` of `made` is not what it is to be. Received: {found['made'][unfit[0]]!r}.")
        if foreign := [key for key in FOREIGN if key in found["card"]]:
            raise SchemaError(f"the card of an artifact has no `{foreign[0]}`.")
        card = parse_card(found["card"], path.parent)
    except SchemaError as error:
        raise _corrupt(path, str(error)) from error
    return {**found, "card": dataclasses.replace(card, name=found["name"])}


def _is_table(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(fits(item) for item in value.values())


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST


def _from_json(raw: bytes) -> Any:
    try:
        table = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
        _check_depth(table)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Damaged(f"its description is not JSON ({error})") from error
    return table


def _finite(word: str) -> float:
    value = float(word)
    return value if math.isfinite(value) else _no_constant(word)


def _check_depth(value: Any, depth: int = 0) -> None:
    """Raises ValueError for tables in tables that nobody writes, and that cannot be written again."""
    if depth > DEEPEST:
        raise ValueError("its tables lie too deep in each other")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, depth + 1)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _json_bytes(table: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ModelError("artifact-corrupt", f"The description cannot be written as JSON: {error}.") from error
    raw = text.encode("utf-8")
    if len(raw) > MAX_JSON_BYTES:
        raise ModelError("artifact-corrupt", f"The description has {len(raw)} bytes; it may have {MAX_JSON_BYTES}.")
    return raw


def _plain(value: Any) -> Any:
    """What JSON can hold of values that cards and notes may have."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.name
    raise TypeError(f"{type(value).__name__} {value!r}")


def _given(metric: Any) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(metric).items() if value not in (None, "") and _real(value)}


def _real(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _labels_text(description: Mapping[str, Any]) -> bytes:
    """Class names, one a line, for tools that know no JSON; of several heads all of them, one after the other."""
    card = description["card"]
    names = [*card.get("labels", ()), *(name for head in card.get("heads", {}).values() for name in head)]
    return "".join(f"{name}\n" for name in names).encode("utf-8")


def _corrupt(path: Path, why: str) -> ModelError:
    return ModelError(
        "artifact-corrupt", f"The artifact {path} cannot be used: {why.rstrip('.')}. Get or make it again."
    )
