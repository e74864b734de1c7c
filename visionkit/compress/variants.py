"""The kinds of smaller models that can be made of a model, one row each, and how each is made.

A new kind is a row of `KINDS`: its name, what is said of it, what must be installed, and a function from a `Workshop`
to a finished artifact.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import UsageError, VisionkitError

if TYPE_CHECKING:
    from visionkit.compress.trials import DataChoice

__all__ = ["DEFAULT_KINDS", "KINDS", "Kind", "Variant", "Workshop", "build_variant", "check_kinds"]

FAULT = "calibration-"  # how the slugs of what is wrong with a calibration begin
AT_FAULT = "the calibration is at fault: "  # which the verdict says itself
REASON = 300  # characters of what a library said


@dataclass(frozen=True)
class Workshop:
    """What variants are made of.

    Args:
        source: the float model, a `.tflite` artifact.
        model: the card's name or folder it was exported from, for kinds that train; None where there is none.
        data: labelled images; kinds that train learn from its part `train`.
        calibration: gives the images that ranges are measured on, when first asked.
        keep_float: patterns of layers that stay in float.
        seed: of whatever is random.
    """

    source: Path
    model: str | None
    data: DataChoice
    calibration: Callable[[], Any]
    keep_float: tuple[str, ...] = ()
    seed: int = 0

    def card(self, what: str) -> str:
        """The card, for kinds that need one. Raises UsageError `card-needed`."""
        if self.model is None:
            raise UsageError("card-needed", f"{what} starts from a card, not from a .tflite")
        return self.model


@dataclass(frozen=True)
class Kind:
    """One way to make a model smaller.

    Args:
        says: one line for people.
        build: writes the artifact at a path and may give notes on it.
        needs: modules that must be installed.
        calibrated: it measures ranges on images; trained: it learns from labelled ones.
        rescuable: layers of it can be kept in float.
    """

    name: str
    says: str
    build: Callable[[Workshop, Path], Sequence[str] | None]
    needs: tuple[str, ...] = ()
    calibrated: bool = False
    trained: bool = False
    rescuable: bool = False

    @property
    def missing(self) -> str | None:
        """A module that is not installed."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), None)


@dataclass(frozen=True)
class Variant:
    """What was built: the file, or why there is none; faults of its calibration, and notes."""

    kind: str
    path: Path | None = None
    failed: str | None = None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)


def build_variant(kind: Kind, workshop: Workshop, path: Path, *, name: str | None = None) -> Variant:
    """Build a variant at `path`. What goes wrong is told in it, not raised: the others are judged all the same."""
    called = name or kind.name
    if kind.missing is not None:
        return Variant(called, failed=f"it needs {kind.missing}, which is not installed")
    try:
        notes = tuple(kind.build(workshop, path) or ()) + tuple(_islands(path))
    except VisionkitError as error:
        if error.slug.startswith(FAULT):
            return Variant(called, failed=error.message, faults=(error.message.removeprefix(AT_FAULT),))
        return Variant(called, failed=error.message)
    except Exception as error:  # whatever a converter raises
        reason = " ".join(str(error).split())[:REASON] or "no reason given"
        return Variant(called, failed=f"{type(error).__name__}: {reason}")
    return Variant(called, path, notes=notes)


def check_kinds(names: Sequence[str]) -> list[Kind]:
    """The kinds of these names, each once.

    Raises:
        UsageError: `kind-unknown`.
    """
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        known = ", ".join(KINDS)
        raise UsageError(
            "kind-unknown", f"--kinds takes some of {known}, with commas. Received: {', '.join(unknown)!r}."
        )
    return [KINDS[name] for name in dict.fromkeys(names)]


def _islands(path: Path) -> list[str]:
    """What computes in float beside integers, as a note."""
    from visionkit.compress.operations import float_islands, list_operations
    from visionkit.weights.artifact import model_bytes

    islands = float_islands([row for row in list_operations(model_bytes(path)) if row.signature != "serving_default"])
    rows = [row for island in islands for row in island]
    if not rows:
        return []
    kinds = ", ".join(sorted({row.kind for row in rows}))
    return [f"{len(rows)} operations compute in float between integers, which costs time: {kinds}"]


def _quantized(kind: str, workshop: Workshop, path: Path) -> Sequence[str] | None:
    from visionkit.compress.ptq import quantize_artifact

    calibration = workshop.calibration() if KINDS[kind].calibrated else None
    made = quantize_artifact(workshop.source, path, kind=kind, calibration=calibration, keep_float=workshop.keep_float)
    kept = ", ".join(pattern.replace("\\", "") for pattern in workshop.keep_float)
    notes = [f"kept in float: {kept}"] if kept else []
    why = made.made["quantization"].get("calibration", {}).get("unjudged")
    unsure = "whether the calibration has red and blue in the right order could not be told"
    return [*notes, f"{unsure}: {why}"] if why else notes


def _trained(taught: bool, workshop: Workshop, path: Path) -> Sequence[str] | None:
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit.compress.qat_train import train_quantized
    from visionkit.compress.train_part import check_train_part
    from visionkit.weights import load_card

    card = load_card(workshop.card("quantization-aware training"))
    check_train_part(workshop.data, card.labels)
    with tempfile.TemporaryDirectory() as folder:  # its checkpoints
        train_quantized(
            card,
            workshop.data.data,
            path,
            out=Path(folder) / "training",
            teacher=card if taught else None,
            seed=workshop.seed,
            split=workshop.data.split,
        )
    return None


def _row(name: str, says: str, **how: Any) -> Kind:
    return Kind(name, says, functools.partial(_quantized, name), **how)


def _aware(name: str, says: str, *, taught: bool) -> Kind:
    return Kind(name, f"{says} (class folders)", functools.partial(_trained, taught), trained=True)


def _built_in(module: str, workshop: Workshop, path: Path) -> Sequence[str]:
    built: Sequence[str] = importlib.import_module(f"visionkit.compress.{module}").build(workshop, path)
    return built


def _thin(name: str, module: str, says: str) -> Kind:
    needs = ("tensorflow_model_optimization", "tf_keras")
    return Kind(name, f"{says} (class folders)", functools.partial(_built_in, module), needs=needs, trained=True)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        _row("float16", "weights in half precision: half the size, computed in float"),
        _row("dynamic", "weights in 8 bits, activations in float: a quarter of the size; measure its speed"),
        _row("int8", "weights and activations in 8 bits, float at the ends", calibrated=True, rescuable=True),
        _row("int8-io", "the same with integers at the ends too", calibrated=True, rescuable=True),
        _aware("qat", "trained on with rounding, so that 8 bits hurt less", taught=False),
        _aware("qat-taught", "the same, and taught by the float model's answers beside the labels", taught=True),
        _thin("pruned", "prune", "trained on with most weights zero: small when zipped, as fast as before"),
        _thin("clustered", "cluster", "trained on with few values in a kernel: small when zipped, as fast as before"),
        Kind("svd", "large fully connected layers as two smaller ones each", functools.partial(_built_in, "truncate")),
    )
}
DEFAULT_KINDS = ("float16", "dynamic", "int8", "int8-io")
