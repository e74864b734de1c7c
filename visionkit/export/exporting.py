"""`export_model`: from a card to an artifact that was tried before it got its name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import UsageError
from visionkit.export.destination import check_target, destination
from visionkit.export.plan import ExportOptions, ExportPlan, make_plan
from visionkit.export.size_check import check_size
from visionkit.io.files import check_not_input, writing_to
from visionkit.weights import card_names, load_card
from visionkit.weights.artifact import Artifact, attach, describe_artifact, read_artifact, written_artifact
from visionkit.weights.card import Card, sha256_of

if TYPE_CHECKING:
    import keras

    from visionkit.crf import CRFParams
    from visionkit.export.check import Agreement
    from visionkit.export.formats import Format
    from visionkit.export.probes import Trial
    from visionkit.export.signatures import Signatures
    from visionkit.layers.dense_crf import DenseCRF
    from visionkit.weights.fetch import Progress

__all__ = ["export_model"]

Image = npt.NDArray[np.uint8]

STORED_BYTES = 16 << 20  # of network tensors among the probes
ONE_GRAPH = ("onnx", "openvino")  # formats without signatures
DIGITS = 3  # of differences that are told


def export_model(
    model: str | os.PathLike[str] | Card,
    path: str | os.PathLike[str],
    *,
    format: str,  # noqa: A002 - as on the command line
    size_hw: tuple[int, int] | None = None,
    batch: int = 1,
    crf: CRFParams | DenseCRF | None = None,
    allow_select_tf_ops: bool = False,
    weights: str | Path | None = None,
    overwrite: bool = False,
    probes: Sequence[Image | str | os.PathLike[str]] = (),
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    change: Callable[[keras.Model], keras.Model] | None = None,
) -> Artifact:
    """Write a card's whole model, from pixels to results, and give what was written.

    `serving_default` takes `image` uint8 (B, H, W, 3) RGB and gives the task's results: of any size and number in a
    SavedModel, which resizes as the card says; of the network's size elsewhere. SavedModel and LiteRT also have the
    networks themselves (`raw` …) and, for classifiers, `embed`. A `.keras` is the network alone.

    Before it gets its name, the artifact is run by its plain runtime, in a process that has no VisionKit, on probes:
    the networks must answer as Keras does, `serving_default` as the task in Python.

    Args:
        model: a card, its name, or the path of its folder.
        path: of the file, or of the SavedModel's folder.
        format: `savedmodel`, `litert`, `keras`, `onnx` or `openvino`.
        size_hw: of the network's input, in the place of the card's.
        batch: images in one call, where the format fixes their number.
        crf: of a segmenter: parameters, or a trained layer, to refine by inside the artifact.
        allow_select_tf_ops: take TensorFlow's operations where LiteRT has no builtin. Such a file runs only where their
            kernels are linked in, which no interpreter for Python has: in its place the graph is tried that it was
            converted from, in TensorFlow.
        weights: a file with weights in the place of the card's own.
        overwrite: replace what is there, once the new one is complete.
        probes: images uint8 (H, W, 3) BGR, or files, to try it on; two rendered ones without.
        notice, progress: of a download, where the weights are not on this machine.
        change: of a classifier: its network, filled with weights, to one of other layers that is exported in its place.

    Raises:
        UsageError: `format-unknown`, `format-missing`, `format-unfit`, `name-unfit`, `option-unfit`, `size-too-small`.
        OutputError: `exists`, `output-unwritable`, `disk-full`.
        ModelError: `export-backend`, `export-untraceable`, `export-builtins`, `export-differs`, or the card's weights
            are missing or do not fit.
    """
    from visionkit.export.formats import check_backend, find_format

    chosen = find_format(format)
    card = _card(model)
    options = ExportOptions(format, size_hw, batch, crf, weights, notice, progress, change)
    _check_options(card, options, allow_select_tf_ops)
    with writing_to(path):
        check_not_input(Path(path), [card.folder, *([] if weights is None else [weights])])
    target = check_target(path, chosen.suffix, overwrite=overwrite)
    check_backend(format)
    plan = make_plan(card, options)
    if size_hw is not None and (told := check_size(plan, card, size_hw)):
        plan.notes = {**plan.notes, "size": told}
    return _Export(plan, options, chosen, card, allow_select_tf_ops).run(target, probes, overwrite)


class _Export:
    """One export, from the plan on."""

    def __init__(
        self, plan: ExportPlan, options: ExportOptions, chosen: Format, card: Card, select_tf_ops: bool
    ) -> None:
        self.plan, self.options, self.format = plan, options, chosen
        self.card, self.select_tf_ops = card, select_tf_ops
        self.runtime = chosen.packages[-1]
        self.foreign: list[str] = []  # operations that LiteRT has not

    def run(self, target: Path, probes: Sequence[Image | str | os.PathLike[str]], overwrite: bool) -> Artifact:
        from visionkit.export.probes import network_trials, read_probes, stored, trials_of
        from visionkit.export.signatures import Signatures

        images = read_probes(probes)
        signatures = Signatures(self.plan, self.options, self.plan.fit(images[0]).shape[:2])
        with destination(target, self.format.suffix, overwrite=overwrite) as made:
            self.format.write(signatures, made, self.select_tf_ops)
            trials = trials_of(signatures, images)
            asked = network_trials(signatures, images) if self.options.format == "keras" else self._asked(trials)
            agreement = self._checked(made, asked, target)
            shown = [self.plan.fit(image) if self.options.fixed else image for image in images]
            told = asked if self.options.format != "keras" or "" not in self.plan.parts else trials
            kept = stored(told, [image[..., ::-1] for image in shown], STORED_BYTES)
            self._describe(made, signatures, kept, agreement)
        return written_artifact(target)

    def _checked(self, made: Path, asked: list[Trial], target: Path) -> Agreement:
        """What was written, run; of a file that no interpreter here runs, the graph it was converted from."""
        from visionkit.export.check import check_artifact
        from visionkit.runtime.convert import DEFAULT, first_name, select_operations

        kind = self.options.format
        if self.select_tf_ops and (found := select_operations(made.read_bytes())):
            self.foreign, self.runtime = found, "tensorflow"
            made, kind = made.with_name("saved_model"), "savedmodel"
            asked = [dataclasses.replace(trial, signature=first_name(trial.signature)) for trial in asked]
        tolerance = self.format.raw_tolerance
        agreement = check_artifact(made, self.plan, asked, kind=kind, raw_tolerance=tolerance, name=target)
        told = {first_name(DEFAULT): DEFAULT}
        agreement.worst = {told.get(name, name): outputs for name, outputs in agreement.worst.items()}
        return agreement

    def _asked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that the format can answer: a graph of ONNX is one signature."""
        single = self.options.format in ONE_GRAPH
        return [trial for trial in trials if not single or trial.signature == "serving_default"]

    def _describe(self, made: Path, signatures: Signatures, kept: Mapping[str, Any], agreement: Agreement) -> None:
        single = self.options.format in ONE_GRAPH
        calls = signatures.calls
        names = ["serving_default"] if single else [] if self.options.format == "keras" else list(calls)
        description = describe_artifact(
            dataclasses.replace(self.plan.card, weights=()),
            kind="float32",
            parts={} if single else dict(self.plan.parts),
            probes=kept,
            made={
                "source": self.card.name,
                "source_sha256": self._source_sha256(),
                "signatures": {name: [str(spec) for spec in calls[name].inputs] for name in names},
                "select_tf_ops": self.foreign,
                "runtime": f"{self.runtime} {self._versions()[self.runtime]}",
                "versions": self._versions(),
                "checked": {
                    name: {output: float(f"{value:.{DIGITS}g}") for output, value in outputs.items()}
                    for name, outputs in agreement.worst.items()
                },
                "tolerances": dict(self.plan.tolerances),
                "raw_tolerance": self.format.raw_tolerance,
                **self.plan.notes,
            },
        )
        attach(made, description, dict(kept))

    def _source_sha256(self) -> str:
        from visionkit.weights import obtain

        given = self.options.weights
        return sha256_of(obtain(self.card) if given is None else Path(given))

    def _versions(self) -> dict[str, str]:
        import importlib.metadata

        packages = self.format.packages if "keras" in self.format.packages else ("keras", *self.format.packages)
        return {package: importlib.metadata.version(package) for package in packages}


def _card(model: str | os.PathLike[str] | Card) -> Card:
    from visionkit.tasks.load_classify import is_model_file

    if isinstance(model, Card):
        return model
    if is_model_file(model):
        raise UsageError(
            "model-unfit",
            f"{os.fspath(model)!r} is a model file; exported are cards (`visionkit models list`), or a folder with a "
            "card.toml and its weights",
        )
    if (made := _exported(model)) is not None:
        source = str(made.made.get("source", made.card.name))
        raise UsageError(
            "model-unfit",
            f"{os.fspath(model)!r} is an exported model itself, and has no layers to write in another format: export "
            f"the card that it was made from, {source!r}.",
        )
    return load_card(model)


def _exported(model: str | os.PathLike[str]) -> Artifact | None:
    """The artifact that is meant by what is no card's name."""
    return None if os.fspath(model) in card_names() else read_artifact(os.fspath(model))


def _check_options(card: Card, options: ExportOptions, select_tf_ops: bool) -> None:
    name = options.format
    if options.batch < 1:
        raise ValueError(f"`batch` must be a positive integer. Received: batch={options.batch!r}.")
    if options.change is not None and card.task != "classify":
        raise UsageError("option-unfit", f"{card.name} is a model to {card.task}; changed are networks of classifiers.")
    if options.crf is not None and card.task != "segment":
        raise UsageError("option-unfit", f"{card.name} is a model to {card.task}; a CRF refines segmentations.")
    if card.task == "track" and name in ONE_GRAPH:
        raise UsageError(
            "format-unfit",
            f"{card.name} is a tracker: two networks, one for the object and one for each frame, and {name} holds one "
            "graph. Export to litert or savedmodel, which have a signature for each.",
        )
    if select_tf_ops and name != "litert":
        raise UsageError("option-unfit", f"allow_select_tf_ops is for litert. Received: format={name!r}.")
