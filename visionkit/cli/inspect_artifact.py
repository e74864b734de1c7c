"""What an exported model says of itself, as `visionkit inspect` shows it. It is a stranger's word: nothing is believed,
everything is cut to length and made printable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visionkit.io.text import safe_text

if TYPE_CHECKING:
    from visionkit.weights.artifact import Artifact

__all__ = ["artifact_json", "artifact_rows"]

FIRST = 8  # of labels, signatures, outputs that are shown
DIGITS = 16  # of a sha256 where it is only told apart
TOLD = (
    "checked", "crf", "raw_tolerance", "runtime", "select_tf_ops", "signatures", "source", "source_sha256",
    "tolerances", "versions",
)  # fmt: skip


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    """The whole description as JSON can hold it."""
    card = artifact.card
    return {
        "name": card.name,
        "task": card.task,
        "summary": card.summary,
        "format": artifact.format,
        "kind": artifact.kind,
        "sha256": artifact.sha256,
        "visionkit": artifact.version,
        "network": card.network,
        "licence": card.licence,
        "labels": list(card.labels),
        "heads": {name: list(labels) for name, labels in card.heads.items()},
        "input": dict(card.input),
        "options": dict(card.options),
        "parts": dict(artifact.parts),
        "probes": list(artifact.probe_names),
        **{key: artifact.made[key] for key in TOLD if key in artifact.made},
        "notes": {key: value for key, value in artifact.made.items() if key not in TOLD},
    }


def artifact_rows(artifact: Artifact) -> list[tuple[str, str]]:
    """The same for people, as names and values; a name may come again."""
    card, made = artifact.card, artifact.made
    summary = f": {safe_text(card.summary)}" if card.summary else ""
    rows = [
        ("described", f"{safe_text(card.name)}, a model to {card.task}{summary}"),
        ("format", f"{artifact.format}, {safe_text(artifact.kind)}"),
        ("made", _made(artifact)),
        *_label_rows(card.labels, card.heads),
        ("input", _input(card.input)),
    ]
    if card.options:
        rows.append(("options", _pairs(card.options)))
    if "crf" in made:
        told = made["crf"]
        rows.append(("crf", f"inside: {_pairs(told) if isinstance(told, Mapping) else safe_text(told)}"))
    for name, takes in _items(made.get("signatures")):
        rows.append(("signature", f"{safe_text(name)} takes {_list(takes)}"))
    rows += _check_rows(made)
    if "checked" not in made and made.get("tolerances"):
        rows.append(("tolerances", _pairs(made["tolerances"])))
    images = sum(name.startswith("image_") for name in artifact.probe_names)
    by = f", when it was made, by {safe_text(made['runtime'])} alone" if made.get("runtime") else ""
    rows.append(("probes", f"{len(artifact.probe_names)} arrays, of {images} images{by}"))
    if artifact.format == "litert" and "select_tf_ops" in made:
        foreign = made["select_tf_ops"]
        rows.append(("needs", f"TensorFlow's kernels for {_list(foreign)}" if foreign else "builtin operations only"))
    if made.get("versions"):
        rows.append(("versions", _pairs(made["versions"])))
    notes = [(safe_text(key, 20), _pairs(value)) for key, value in made.items() if key not in TOLD]
    rows += notes[:FIRST]
    licence = safe_text(card.licence)
    return [*rows, ("licence", licence), ("sha256", f"{artifact.sha256} of the model without this description")]


def _made(artifact: Artifact) -> str:
    by = f"by VisionKit {safe_text(artifact.version)}" if artifact.version else "by VisionKit"
    source, digest = artifact.made.get("source"), artifact.made.get("source_sha256")
    told = f", its sha256 {safe_text(digest, DIGITS)}" if digest else ""
    return by if source is None else f"{by} from {safe_text(source)}{told}"


def _label_rows(labels: Sequence[str], heads: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    several = [("labels", f"of {safe_text(head)}, {len(names)}: {_list(names)}") for head, names in heads.items()]
    return several[:FIRST] or [("labels", f"{len(labels)}: {_list(labels)}" if labels else "none")]


def _input(told: Mapping[str, Any]) -> str:
    """`96 x 128 (height x width), shortest_side, preset torch`."""
    rest = dict(told)
    words = []
    if size := rest.pop("size_hw", None):
        words.append(f"{size[0]} x {size[1]} (height x width)")
    if "resize" in rest:
        words.append(safe_text(rest.pop("resize")))
    return ", ".join([*words, *([_pairs(rest)] if rest else [])])


def _check_rows(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How far each output was from Keras, and what it may be."""
    limits = made.get("tolerances", {})
    rows = []
    for signature, outputs in _items(made.get("checked")):
        found = [
            f"{safe_text(name if signature else 'output')} within {apart:.2g} of Keras"
            + (f" (at most {limits[name]:.2g})" if name in limits else "")
            for name, apart in _items(outputs)
        ]
        rows.append(("checked", f"{safe_text(signature) or 'network'}: {', '.join(found)}"))
    return rows


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return list(value.items())[:FIRST] if isinstance(value, Mapping) else []


def _list(values: Any) -> str:
    """The first of them, and that there are more."""
    if not isinstance(values, list | tuple):
        return _short(values)
    more = [f"… ({len(values) - FIRST} more)"] if len(values) > FIRST else []
    return ", ".join([*(safe_text(value, 60) for value in values[:FIRST]), *more]) or "nothing"


def _pairs(values: Any) -> str:
    if not isinstance(values, Mapping):
        return _short(values)
    return ", ".join(f"{safe_text(key, 60)} {_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    return safe_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
