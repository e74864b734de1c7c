"""`visionkit inspect MODEL`: the table of a card's network, a .keras, a SavedModel or a .tflite."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.cli.inspect_artifact import artifact_json, artifact_rows
from visionkit.cli.inspect_request import Request, Subject, network_names
from visionkit.cli.inspect_table import layer_lines, note_lines, summary_json, total_lines
from visionkit.cli.text import emit, emit_json, file_size
from visionkit.errors import ModelError, UsageError
from visionkit.weights.artifact import has_description, read_artifact

if TYPE_CHECKING:
    from visionkit.runtime.files import ModelFile

__all__ = ["inspect_model", "sizes_of"]

Pair = tuple[int, int]
TIERS = {
    "data": "data: numbers put into a network that VisionKit builds; cannot run code",
    "restricted": "restricted: built-in layers or operations only; loaded in safe mode",
    "program": "program: this model can run code; use it only if you trust where it comes from",
}


def inspect_model(request: Request) -> int:
    """Tell what a model is made of; the exit code is 0."""
    _check(request)
    subject = _subject(request)
    found: dict[str, Any] = {}
    if request.looks_inside:
        from visionkit.cli.inspect_pictures import look_inside

        found = look_inside(request, subject)
    if request.as_json:
        table = {} if subject.summary is None else summary_json(subject.summary)
        told = {} if subject.artifact is None else {"artifact": artifact_json(subject.artifact)}
        emit_json({"model": subject.facts, **told, **table, **found})
        return 0
    _emit_text(request, subject, found)
    return 0


def _check(request: Request) -> None:
    for option, value in (("--class", request.class_name), ("--method", request.method), ("--out", request.out),
                          ("--layer", request.layer)):  # fmt: skip
        if value and not request.explain:
            raise UsageError("option-unfit", f"{option} belongs to --explain IMAGE, which was not given.")
    if request.layer and request.method == "guided":
        raise UsageError("option-unfit", "--layer is for gradcam; guided goes back to the pixels.")


def _subject(request: Request) -> Subject:
    from visionkit.weights.registry import card_names

    path = Path(request.target)
    if request.target in card_names() or path.name == "card.toml" or (path / "card.toml").is_file():
        return _card_subject(request)
    if not path.exists() and request.target in network_names():
        return _network_subject(request)
    from visionkit.runtime.files import ModelFile

    file = ModelFile(path)
    tell = {"tflite": _tflite_subject, "savedmodel": _saved_model_subject, "keras": _keras_subject}
    subject = tell.get(file.kind, _described_subject)(request, file)
    subject.artifact = read_artifact(path)
    return subject


def _card_subject(request: Request) -> Subject:
    from visionkit.runtime.quiet import import_keras
    from visionkit.weights.loading import build_network, load_weights
    from visionkit.weights.registry import card_names, load_card

    path = Path(request.target)
    if request.target not in card_names() and path.is_dir():
        path = path / "card.toml"
    card = load_card(path)
    if request.preset:
        raise UsageError("option-unfit", f"--preset is for models without a card; {card.name} has its own input rule.")
    import_keras()  # before what imports it loudly
    from visionkit.inspection import summarize

    model = build_network(card)
    if request.looks_inside:
        from visionkit.cli.download import DownloadBar, announce

        with DownloadBar(card.name) as bar:
            load_weights(model, card, notice=announce, progress=bar)
    facts = {
        "name": card.name,
        "kind": "card",
        "task": card.task,
        "network": card.network,
        "weights": card.state(),
        "trust": "data",
    }
    return Subject(facts, summarize(model, sizes_of(request.imgsz)), model, card)


def _network_subject(request: Request) -> Subject:
    """A network that has no card, as its builder makes it; at the size asked for where it takes any."""
    from visionkit.runtime.quiet import import_keras

    if request.looks_inside or request.preset:
        raise UsageError(
            "option-unfit", f"{request.target} is a network without weights: there is nothing to look at inside."
        )
    import_keras()  # before what imports it loudly
    from visionkit import nets
    from visionkit.inspection import summarize

    sizes = sizes_of(request.imgsz)
    size = {"size_hw": sizes} if isinstance(sizes, tuple) else {}  # paddings and crops are made for a size
    try:
        model = getattr(nets, request.target)(**size)
    except ValueError as error:
        raise UsageError("bad-imgsz", f"--imgsz: {error}") from error
    facts = {"name": request.target, "kind": "network", "network": request.target, "weights": "none", "trust": "data"}
    return Subject(facts, summarize(model, sizes), model)


def _keras_subject(request: Request, file: ModelFile) -> Subject:
    from visionkit.runtime.files import load_keras_file

    model = load_keras_file(file.path)
    from visionkit.inspection import summarize

    facts = _file_facts(file, file.path.stat().st_size, "restricted")
    return Subject(facts, summarize(model, sizes_of(request.imgsz)), model)


def _tflite_subject(request: Request, file: ModelFile) -> Subject:
    from visionkit.inspection.ops_summary import summarize_ops
    from visionkit.resources import cache_dir
    from visionkit.runtime.litert import open_litert
    from visionkit.runtime.tflite_graph import can_run_code, read_tflite_graph
    from visionkit.runtime.vet import vet_tflite

    _refuse_for_graphs(request, file.label)
    content = file.read()
    if not request.trust_model:
        vet_tflite(file.path, content, file.label, cache_dir(create=False))
    try:
        open_litert(content, threads=1, label=file.label).close()  # it checks every offset in the file
    except ModelError as error:
        if error.slug != "model-unsupported":
            raise
    graph = read_tflite_graph(content, label=file.label, name=file.path.stem)
    foreign = can_run_code(graph)
    facts = _file_facts(file, len(content), "program" if foreign else "restricted")
    if foreign:
        facts["foreign_operations"] = foreign
    return Subject(facts, summarize_ops(graph))


def _saved_model_subject(request: Request, file: ModelFile) -> Subject:
    from visionkit.runtime.saved_model_graph import read_saved_model

    _refuse_for_graphs(request, file.label)
    read = read_saved_model(file.path)
    facts = _file_facts(file, read.bytes, "program")
    facts |= {name: value for name, value in dataclasses.asdict(read).items() if name != "bytes"}
    facts["variables"] = dict(read.variables)
    facts["reaching"] = list(read.reaching)
    if not request.trust_model:
        return Subject(facts)
    from visionkit.inspection.ops_summary import summarize_ops
    from visionkit.runtime.tflite_graph import read_tflite_graph

    content = file.program(1, trust=True).artifact(".tflite", "float32")
    return Subject(facts, summarize_ops(read_tflite_graph(content, label=file.label, name=file.path.name)))


def _described_subject(request: Request, file: ModelFile) -> Subject:
    """An ONNX or OpenVINO file that says what it is; its layers are not told.

    Raises:
        ModelError: `model-format`, it says nothing.
    """
    _refuse_for_graphs(request, file.label)
    if not has_description(file.path):
        name = {"onnx": "an ONNX", "openvino": "an OpenVINO"}[file.kind]
        raise ModelError(
            "model-format",
            f"{file.label} is {name} file that VisionKit did not export; inspect tells of .keras, .tflite and "
            "SavedModel folders.",
        )
    return Subject(_file_facts(file, file.path.stat().st_size, "restricted"))


def _refuse_for_graphs(request: Request, label: str) -> None:
    if request.imgsz:
        raise UsageError("option-unfit", f"{label} has the size it was exported with; --imgsz is for .keras and cards.")
    if request.looks_inside:
        raise UsageError(
            "option-unfit",
            f"{label} is an exported graph; --activations, --filters and --explain need a .keras or a card.",
        )


def _file_facts(file: ModelFile, size: int, tier: str) -> dict[str, Any]:
    return {"name": file.path.name, "kind": file.kind, "bytes": size, "sha256": file.digest(), "trust": tier}


def sizes_of(texts: tuple[str, ...]) -> Pair | Mapping[str, Pair] | None:
    """`320`, `240,320` or `search=303` as (height, width), by the input's name where one is said.

    Raises:
        UsageError: `bad-imgsz`.
    """
    found: dict[str, Pair] = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:[,x]\s*(\d{1,6})\s*)?", size)
        values = [int(part) for part in match.groups() if part] if match else []
        if not values or min(values) < 1 or name in found:
            raise UsageError("bad-imgsz", f"--imgsz expected N or HEIGHT,WIDTH, once for an input. Received: {text!r}.")
        found[name] = (values[0], values[-1])
    if "" in found and len(found) > 1:
        raise UsageError("bad-imgsz", f"--imgsz: say the input's name with each size. Received: {', '.join(texts)}.")
    return found.get("", found or None)


def _emit_text(request: Request, subject: Subject, found: Mapping[str, Any]) -> None:
    summary = subject.summary
    if subject.artifact is not None:
        _emit_rows(artifact_rows(subject.artifact))
        emit()
    if summary is not None and not (request.looks_inside and not request.imgsz):
        for line in layer_lines(summary):
            emit(line)
        emit()
        for line in (*note_lines(summary), *summary.notes):
            emit(line)
        emit()
    rows = _facts_rows(subject)
    if summary is not None:
        rows += total_lines(summary)
    if found:
        from visionkit.cli.inspect_pictures import picture_rows

        rows += picture_rows(found)
    _emit_rows(rows)


def _emit_rows(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        emit(f"{name.ljust(width)}{value}")


def _facts_rows(subject: Subject) -> list[tuple[str, str]]:
    facts, card = subject.facts, subject.card
    rows = [("model", f"{facts['name']} ({facts['kind']})")]
    if card is not None:
        missing = f"not on this machine (visionkit models fetch {card.name}); sizes and counts need none"
        words = {"ok": "on this machine", "missing": missing, "none": "none in the card", "mismatch": "not the card's"}
        rows += [("network", card.network), ("weights", words.get(facts["weights"], facts["weights"]))]
    elif "bytes" in facts:
        rows += [("bytes", file_size(facts["bytes"]))]
    else:
        rows += [("weights", "none: the network as it is built, without a card")]
    if "signatures" in facts:
        rows += _saved_model_rows(facts, subject.summary is None)
    rows += [("trust", TIERS[facts["trust"]])]
    if facts.get("foreign_operations"):
        rows += [("foreign", ", ".join(facts["foreign_operations"]))]
    return rows


def _saved_model_rows(facts: Mapping[str, Any], alone: bool) -> list[tuple[str, str]]:
    rows = []
    for name, signature in facts["signatures"].items():
        sides = [
            ", ".join(_tensor(key, *value) for key, value in signature[side].items()) for side in ("inputs", "outputs")
        ]
        rows.append(("signature", f"{name}: {sides[0]} -> {sides[1]}"))
    counts = list(facts["operations"].items())
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts[:12])
    rows.append(("variables", f"{len(facts['variables'])}, {facts['parameters']:,} numbers"))
    rows.append(("operations", f"{sum(count for _, count in counts):,} of {len(counts)} kinds: {kinds}"))
    if facts["reaching"]:
        rows.append(("reaches out", f"{', '.join(facts['reaching'])}: reads or writes files, prints, or calls Python"))
    if alone:
        rows.append(("layers", "need it loaded, and it can run code: --trust-model"))
    return rows


def _tensor(name: str, kind: str, shape: list[int | None] | None) -> str:
    sizes = "?" if shape is None else "x".join("?" if size is None else str(size) for size in shape) or "scalar"
    return f"{name} {kind} {sizes}"
