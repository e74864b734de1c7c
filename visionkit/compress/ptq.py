"""Quantization after training: from an exported float `.tflite` to one in fewer bits that says and does the same."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from visionkit.compress.graft import GraftError, graft, integer_ends
from visionkit.compress.operations import list_operations
from visionkit.compress.quantize_network import ENGINES, Quantized, quantize_network
from visionkit.errors import ModelError, UsageError
from visionkit.runtime.base import Array
from visionkit.runtime.tflite_file import merge_signatures, split_signatures
from visionkit.runtime.tflite_watch import Feed
from visionkit.weights.artifact import Artifact, attach, describe_artifact, model_bytes, read_artifact, written_artifact

if TYPE_CHECKING:
    from visionkit.compress.calibration import Calibration

__all__ = ["KINDS", "Rebuilt", "publish", "quantize_artifact", "rebuild"]

KINDS = ("float16", "dynamic", "int8", "int8-io")
STATIC = ("int8", "int8-io")
DEFAULT, IMAGE = "serving_default", "image"
SECOND = "tensorflow"  # the engine that `auto` takes where the other leaves something in float
HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
TOLERANCE = 1e-3  # of a second process with the plain runtime, in the share of the largest value


@dataclass(frozen=True)
class Rebuilt:
    """A file made of new networks and of what was around the old ones.

    Args:
        content: the `.tflite`.
        dropped: signatures that could not be made of the new networks, with the reason.
    """

    content: bytes
    dropped: dict[str, str] = field(default_factory=dict)


def quantize_artifact(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    kind: str,
    calibration: Calibration | None = None,
    keep_float: Sequence[str] = (),
    engine: str = "auto",
    overwrite: bool = False,
) -> Artifact:
    """Write the artifact in fewer bits, and give what was written.

    The network's signatures become what `quantize_network` makes of them. The others keep their preparation and results
    in float32 around the very same network (`graft`); one that cannot is left out, and the description says why. The
    file is run by the plain runtime in another process before it gets its name.

    Args:
        source: a float `.tflite` that `export_model` wrote.
        path: of the new one.
        kind: `float16` (weights), `dynamic` (weights of 8 bits, arithmetic by what the runtime has), `int8` (integers
            between float inputs and outputs of the network), `int8-io` (integer inputs and outputs, too).
        calibration: for the last two, the images on which ranges are measured; its faults are found before.
        keep_float: regular expressions; layers that one of them matches wholly stay in float32.
        engine: `ai-edge`, `tensorflow` or `auto` (`quantize_network`).
        overwrite: replace what is there, once the new one is complete.

    Raises:
        UsageError: `kind-unknown`, `engine-unknown`, `layer-unknown`, `calibration-missing`; `calibration-range`,
            `calibration-normalised-twice`, `calibration-channel-order`, `calibration-shape`.
        ModelError: `artifact-missing`, `model-unfit`, `quantizer-missing`, `quantization-failed`.
        OutputError: `exists`, `output-unwritable`, `disk-full`.
    """
    from visionkit.export.destination import check_target

    if kind not in KINDS:
        raise UsageError("kind-unknown", f"kind must be one of {', '.join(KINDS)}. Received: {kind!r}.")
    if engine not in ENGINES:
        raise UsageError("engine-unknown", f"engine must be one of {', '.join(ENGINES)}. Received: {engine!r}.")
    artifact = _float_artifact(Path(source))
    if kind in STATIC and calibration is None:
        raise UsageError("calibration-missing", f"{kind} needs a calibration: images on which ranges are measured.")
    target = check_target(path, ".tflite", overwrite=overwrite)
    parts = split_signatures(model_bytes(artifact.path))
    _check_patterns([parts[name] for name in artifact.parts.values() if name in parts], keep_float)
    if kind in STATIC and calibration is not None:
        networks, unjudged = _static_networks(artifact, parts, calibration, keep_float, engine)
        rebuilt = rebuild(parts, {name: one.content for name, one in networks.items()}, integer_io=kind == "int8-io")
    else:
        networks = {
            name: quantize_network(one, kind=kind, keep_float=_known(one, keep_float), engine=engine)
            for name, one in parts.items()
        }
        rebuilt = Rebuilt(merge_signatures({name: one.content for name, one in networks.items()}))
        unjudged = ""
    notes = _notes(artifact, kind, networks, rebuilt, calibration)
    if unjudged:
        notes["quantization"]["calibration"]["unjudged"] = unjudged
    return publish(artifact, rebuilt, target, kind=kind, notes=notes, overwrite=overwrite)


def publish(
    artifact: Artifact,
    rebuilt: Rebuilt,
    target: Path,
    *,
    kind: str,
    notes: Mapping[str, Any],
    overwrite: bool = False,
) -> Artifact:
    """Write what was made of a float artifact, with its description and the answers to its probes.

    Args:
        artifact: the float one.
        rebuilt: the new file.
        target: its name, which it gets when another process with the plain runtime answered alike.
        kind, notes: of the description.
        overwrite: replace what is there.
    """
    from visionkit.export.destination import destination

    with destination(target, ".tflite", overwrite=overwrite) as made:
        made.write_bytes(rebuilt.content)
        probes = _probes(artifact, rebuilt.content, made)
        card = dataclasses.replace(artifact.card, metrics=(), weights=())
        kept = {part: name for part, name in artifact.parts.items() if name not in rebuilt.dropped}
        description = describe_artifact(card, kind=kind, parts=kept, probes=probes, made=notes)
        attach(made, description, probes)
    return written_artifact(target)


def rebuild(parts: Mapping[str, bytes], networks: Mapping[str, bytes], *, integer_io: bool = False) -> Rebuilt:
    """One file of new networks and of the old signatures around them.

    Args:
        parts: the float file's signatures (`split_signatures`).
        networks: by signature, what took the place of some of them: float inputs and outputs, as they had.
        integer_io: give the networks' own signatures integer inputs and outputs.
    """
    made: dict[str, bytes] = {}
    dropped: dict[str, str] = {}
    for name, part in parts.items():
        if name in networks:
            made[name] = integer_ends(networks[name]) if integer_io else networks[name]
            continue
        try:
            made[name] = _grafted(part, parts, networks)
        except GraftError as error:
            dropped[name] = str(error)
    return Rebuilt(merge_signatures(made), dropped)


def _grafted(host: bytes, parts: Mapping[str, bytes], networks: Mapping[str, bytes]) -> bytes:
    """The host with networks replaced until none of its heavy operations stays in float that did not in them."""
    failures = []
    for name, network in networks.items():
        try:
            host = graft(host, parts[name], network)
        except GraftError as error:
            failures.append(f"{name}: {error}")
            continue
        if not (left := _left_in_float(host, networks)):
            return host
        failures.append(f"{left} would stay in float")
    raise GraftError("; ".join(failures))


def _left_in_float(host: bytes, networks: Mapping[str, bytes]) -> str:
    """The first layer with weights that computes in float, and does not in the networks; empty if there is none."""
    kept = {(row.kind, row.layer) for one in networks.values() for row in list_operations(one) if row.is_float}
    heavy = [row for row in list_operations(host) if row.kind in HEAVY and row.is_float]
    left = [row for row in heavy if (row.kind, row.layer) not in kept]
    return left[0].layer or left[0].name if left else ""


def _float_artifact(path: Path) -> Artifact:
    artifact = read_artifact(path)
    if artifact is None:
        raise ModelError(
            "artifact-missing", f"{path} carries no description: give a .tflite that `visionkit export` wrote."
        )
    if artifact.format != "litert" or artifact.kind != "float32":
        raise ModelError(
            "model-unfit", f"{path} is {artifact.kind} in {artifact.format}; quantized are float32 .tflite artifacts."
        )
    if artifact.made.get("select_tf_ops"):
        raise ModelError("model-unfit", f"{path} has operations of TensorFlow, which no quantizer takes.")
    return artifact


def _static_networks(
    artifact: Artifact, parts: Mapping[str, bytes], calibration: Calibration, keep_float: Sequence[str], engine: str
) -> tuple[dict[str, Quantized], str]:
    """The networks of the artifact's parts in integers, and why the channels' order could not be judged."""
    from visionkit.compress.feeds import checked_feeds

    feeds, unjudged = checked_feeds(artifact, parts, calibration)
    found = {}
    for name, examples in feeds.items():
        patterns = _known(parts[name], keep_float) if len(feeds) > 1 else keep_float
        found[name] = quantize_network(parts[name], examples, kind="int8", keep_float=patterns, engine=engine)
    if len({one.engine for one in found.values()}) > 1:
        # engines round a few weights apart; by one alone, weights that networks share are in the file once
        for name, one in found.items():
            if one.engine != SECOND:
                found[name] = _again(parts[name], feeds[name], one, _known(parts[name], keep_float))
    return found, unjudged


def _again(content: bytes, examples: Sequence[Feed], first: Quantized, keep_float: Sequence[str]) -> Quantized:
    """The network by the second engine, where that leaves no more in float."""
    try:
        second = quantize_network(content, examples, kind="int8", keep_float=keep_float, engine=SECOND)
    except ModelError:
        return first
    return second if len(second.islands) <= len(first.islands) else first


def _check_patterns(networks: Sequence[bytes], patterns: Sequence[str]) -> None:
    """Refuse a pattern that means no layer of any network. Raises UsageError `layer-unknown`."""
    from visionkit.compress.quantize_network import kept_layers

    for pattern in patterns:
        failures = 0
        for network in networks:
            try:
                kept_layers(network, [pattern])
            except UsageError:
                failures += 1
                if failures == len(networks):
                    raise


def _known(content: bytes, patterns: Sequence[str]) -> list[str]:
    """The patterns that mean a layer of this network; of several networks, each has only some of the layers."""
    from visionkit.compress.quantize_network import kept_layers

    found = []
    for pattern in patterns:
        try:
            kept_layers(content, [pattern])
        except UsageError:
            continue
        found.append(pattern)
    return found


def _probes(artifact: Artifact, content: bytes, made: Path) -> dict[str, Array]:
    """The float artifact's probes with the new file's answers, which another process has to give, too."""
    from visionkit.export.check import check_artifact
    from visionkit.export.probes import Trial
    from visionkit.runtime.litert import open_litert
    from visionkit.runtime.steps import to_steps
    from visionkit.runtime.tflite_file import main_graph, read_model

    old = artifact.probes()
    found = {name: array for name, array in old.items() if name == "image_0"}  # one will do: they are not small
    trials: list[Trial] = []
    for signature in main_graph(read_model(content)):
        with open_litert(content, threads=1, key=signature, label=made.name) as runner:
            for number, feed in _feeds_of(signature, runner, old):
                steps = {
                    name: array if array.dtype == spec.dtype else to_steps(array, spec.dtype, spec.quantization)
                    for (name, array), spec in zip(feed.items(), (runner.inputs[name] for name in feed), strict=True)
                }
                answers = runner(**steps)
                if bad := [name for name, array in answers.items() if not np.isfinite(array).all()]:
                    raise ModelError(
                        "quantization-failed", f"the output {bad[0]!r} of {signature!r} is not finite on a probe"
                    )
                trials.append(Trial(signature, steps, answers, number))
                found |= _named(signature, number, steps, answers, old)
    check_artifact(made, cast(Any, None), trials, kind="litert", raw_tolerance=TOLERANCE, name=made.name)
    return found


def _feeds_of(signature: str, runner: Any, probes: Mapping[str, Array]) -> list[tuple[int, dict[str, Array]]]:
    """Numbered inputs of a signature among the probes."""
    names = list(runner.inputs)
    if names == [IMAGE] and runner.inputs[IMAGE].dtype == np.uint8 and "image_0" in probes:
        return [(0, {IMAGE: np.array(np.broadcast_to(probes["image_0"], runner.inputs[IMAGE].shape))})]
    place = f"raw/{signature}"
    if all(f"{place}/{name}/0" in probes for name in names):
        return [(0, {name: probes[f"{place}/{name}/0"] for name in names})]
    return []


def _named(
    signature: str, number: int, steps: Feed, answers: Mapping[str, Array], old: Mapping[str, Array]
) -> dict[str, Array]:
    """The arrays of a call under the names that the float artifact has for them."""
    if signature == DEFAULT:
        named = {f"serving/{name}/{number}": array[0] for name, array in answers.items()}
    else:
        named = {f"raw/{signature}/{name}/{number}": array for name, array in (*steps.items(), *answers.items())}
    return {name: array for name, array in named.items() if name in old}


def _notes(
    artifact: Artifact,
    kind: str,
    networks: Mapping[str, Quantized],
    rebuilt: Rebuilt,
    calibration: Calibration | None,
) -> dict[str, Any]:
    """What the description tells of how it was made."""
    versions = {name: importlib.metadata.version(name) for name in ("ai-edge-quantizer",) if _has(name)}
    told: dict[str, Any] = {
        "kind": kind,
        "float_sha256": artifact.sha256,
        "engine": ", ".join(dict.fromkeys(one.engine for one in networks.values())),
        "ranges": ", ".join(dict.fromkeys(one.method for one in networks.values() if one.method)),
        "kept_float": list(dict.fromkeys(layer for one in networks.values() for layer in one.kept)),
        "float_islands": list(dict.fromkeys(layer for one in networks.values() for layer in one.islands)),
        "dropped": dict(rebuilt.dropped),
    }
    if calibration is not None and kind in STATIC:
        told["calibration"] = {**calibration.facts, "count": len(calibration), "sha256": calibration.sha256}
    made = {key: value for key, value in artifact.made.items() if key not in ("checked", "signatures")}
    signatures = artifact.made.get("signatures", {})
    return {
        **made,
        "signatures": {name: told_ for name, told_ in signatures.items() if name not in rebuilt.dropped},
        "versions": {**artifact.made.get("versions", {}), **versions},
        "quantization": told,
    }


def _has(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
