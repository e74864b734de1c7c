"""From a model card to a segmenter that is ready for images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, RecipeError, UsageError
from visionkit.tasks.artifact_network import card_of, described, network_of, one_size, options_of
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_classify import is_model_file, shares
from visionkit.tasks.segment import TTA_SCALES, Segmenter, SegmentOptions
from visionkit.tasks.segment_fit import SizeOptions
from visionkit.tasks.segment_network import SegmentNetwork
from visionkit.tasks.served import is_served, served_segmenter

if TYPE_CHECKING:
    import keras

    from visionkit.crf import CRFParams
    from visionkit.runtime import Runner
    from visionkit.weights import Card
    from visionkit.weights.artifact import Artifact
    from visionkit.weights.fetch import Progress

__all__ = ["DEFAULT_SEGMENTER", "TRAINED_CRF", "default_segmenter", "load_segmenter", "own_crf", "without_resizing"]

Size = tuple[int, int]

TRAINED_CRF = "trained"  # in a description, of a CRF whose kernels no parameters say
DEFAULT_SEGMENTER = "lraspp_mobilenet_v3_large"  # where no segmenter comes with VisionKit


def load_segmenter(
    name: str | os.PathLike[str] | None = None,
    *,
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    instances: int | None = 1,
    weights: str | Path | None = None,
    crf: CRFParams | Mapping[str, Any] | bool | None = None,
    tta: bool = False,
    trust: bool = False,
    on_compile: Callable[[], None] | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Segmenter:
    """The segmenter of a model card. Its network is compiled when the first image comes, for that size.

    Args:
        name: a card's name, the path of a folder with a `card.toml`, an exported model that says what it is, or any
            `.keras`, `.tflite`, `.onnx` or SavedModel (`segmenter_from_file`, which takes `labels`, `preset`, `resize`
            and `output`); model files have one size, and no others are taken. None is `default_segmenter()`.
        runtime: as `visionkit.runtime.compile_model` takes it; `auto` measures.
        precision: of the arithmetic, `float32` unless less is asked for.
        threads: cores to use; None is all that the process may use.
        instances: how often the network is held, so that as many threads of the caller can be inside it; None shares
            the cores out as a stream of images goes fastest.
        weights: a file with weights for the card's network in the place of the card's own.
        crf: refine by a dense CRF: True for its usual parameters, or parameters, or keyword arguments of `CRFParams`;
            False for none. None is none, but of a model that was exported with a CRF that one.
        tta: look at each image mirrored and at three sizes (`flip=True, scales=TTA_SCALES`).
        trust: a model file may run code (SavedModel) or crash (`.tflite`).
        on_compile: called before the network is built, compiled and measured, which takes seconds and happens once.
        notice, progress: of a download, where the weights are not on this machine (`visionkit.weights.obtain`).
        options: `flip`, `scales`, `confidence`, `palette`, `size_hw`, `short_side`, `native`, `max_pixels`, `tile`,
            `overlap` (`SegmentOptions`, `SizeOptions`) in the place of the card's.

    Raises:
        ModelError: there is no such card or no weights, or they do not fit; `artifact-unfit`, it was exported with a
            trained CRF, and `crf` is None.
        RecipeError: the card names an option that a segmenter does not have.
    """
    if name is not None and is_model_file(name):
        if weights is not None:
            raise UsageError("option-unfit", "A model file has its weights in it; leave weights out.")
        return _from_file(name, crf, tta, options, trust=trust, runtime=runtime, precision=precision, threads=threads)
    card, artifact = card_of(default_segmenter() if name is None else name, "segment")
    if artifact is not None:
        options = _fixed(artifact, tta, options)
    elif tta:
        options = {"flip": True, "scales": TTA_SCALES, **options}
    params = _crf_params(crf) if artifact is None or crf is not None else _own_crf(artifact)
    chosen = options_of(card, artifact, options, lambda card, given: _options(card, given, params))
    with described(artifact):
        rule = InputRule.from_card(card)
    if artifact is not None and is_served(artifact):
        return served_segmenter(artifact, rule, chosen, runtime=runtime, precision=precision, threads=threads)
    arguments = {} if "classes" in card.args or not card.labels else {"classes": len(card.labels)}
    telling = {"on_build": on_compile, "notice": notice, "progress": progress}
    network = network_of(card, artifact, weights=weights, arguments=arguments, trust=trust, **telling)
    cores = threads
    if instances is None:
        threads, instances = shares(network.bytes, threads)
    if runtime == "keras":  # on a GPU, a second one would wait for the first
        instances = 1
    how: dict[str, Any] = {"precision": precision, "threads": threads}
    wanted, count = runtime, instances

    def compile_size(size_hw: Size, known: str | None) -> Sequence[Runner]:
        part = network.with_arguments(size_hw=size_hw)
        first = part.compiled("low", without_resizing, runtime=known or wanted, **how)
        others = count - 1 if first.name != "keras" else 0
        return [first, *(part.compiled("low", without_resizing, runtime=first.name, **how) for _ in range(others))]

    compiled = SegmentNetwork(compile_size)
    if artifact is not None:
        runners = compile_size(rule.size_hw, None)
        rule = rule.encoded(next(iter(runners[0].native.values())))
        compiled = SegmentNetwork(lambda size, known: runners, dtype=rule.dtype)
        compiled.prepare(rule.size_hw)
    segmenter = Segmenter(compiled, rule, chosen, labels=card.labels, threads=cores)
    segmenter.model = {"name": card.name, "sha256": network.sha256}
    return segmenter


def _fixed(artifact: Artifact, tta: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for inputs of an artifact's one size, in one pass however large.

    Raises:
        UsageError: `option-unfit`, `size-fixed`.
    """
    others = ("scales", "short_side", "native", "tile", "overlap")
    if unfit := [key for key in others if options.get(key)]:
        raise UsageError(
            "option-unfit", f"{artifact.path.name} runs at one size, the one it has: leave {', '.join(unfit)} out."
        )
    one_size(artifact, options.get("size_hw"))
    size_hw = tuple(artifact.card.input["size_hw"])
    kept = {key: value for key, value in options.items() if key not in others}
    return {"flip": tta, **kept, "size_hw": size_hw, "max_pixels": 1 << 40}


def _from_file(name: str | os.PathLike[str], crf: Any, tta: bool, options: Mapping[str, Any], **how: Any) -> Segmenter:
    from visionkit.tasks.segment_file import segmenter_from_file

    known = {"flip", "confidence", "palette"}
    told = {"labels", "preset", "resize", "output"}
    if unfit := set(options) - known - told:
        raise UsageError(
            "option-unfit",
            f"A model file has its own size: leave out {', '.join(sorted(unfit))}. Known: {', '.join(sorted(known))}.",
        )
    values = {"flip": tta, **{key: options[key] for key in options if key in known}}
    chosen = SegmentOptions(crf=_crf_params(crf), **values)
    return segmenter_from_file(name, options=chosen, **how, **{key: options[key] for key in options if key in told})


def default_segmenter() -> str:
    """The card that is taken where none is named: one whose weights come with VisionKit, else `DEFAULT_SEGMENTER`."""
    from visionkit.weights import list_cards

    bundled = [c.name for c in list_cards() if c.task == "segment" and any(entry.file for entry in c.weights)]
    return bundled[0] if bundled else DEFAULT_SEGMENTER


def without_resizing(model: keras.Model) -> keras.Model:
    """The network up to where it would enlarge its logits to the input's size, where that is the last it does.

    What is left out is done by `visionkit.tasks.score_maps`, for the classes that matter and to the image's size.
    """
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    output = model.output["logits"] if isinstance(model.output, dict) else model.output
    for last in model.layers:
        linear = getattr(last, "interpolation", "bilinear") == "bilinear"
        if last.name == "logits" and linear and type(last).__name__ in ("Resizing", "UpSampling2D", "ResizeLike"):
            before = last.input
            output = before[0] if isinstance(before, list | tuple) else before
    return keras.Model(model.input, output, name=model.name)


def _crf_params(crf: CRFParams | Mapping[str, Any] | bool | None) -> CRFParams | None:
    from visionkit.crf import CRFParams

    if crf is None or crf is False:
        return None
    if isinstance(crf, CRFParams):
        return crf
    return CRFParams(**({} if crf is True else dict(crf)))


def own_crf(name: str | os.PathLike[str] | None) -> CRFParams | str | None:
    """The CRF that an exported model has of its own: its parameters, or `TRAINED_CRF`; None for anything else.

    Raises:
        ModelError: `artifact-corrupt`, `hash-mismatch`.
    """
    from visionkit.weights import card_names
    from visionkit.weights.artifact import read_artifact

    artifact = None if name is None or os.fspath(name) in card_names() else read_artifact(os.fspath(name))
    if artifact is None or artifact.made.get("crf") == TRAINED_CRF:
        return None if artifact is None else TRAINED_CRF
    return _own_crf(artifact)


def _own_crf(artifact: Artifact) -> CRFParams | None:
    """The CRF that an artifact was exported with, which its networks are without.

    Raises:
        ModelError: `artifact-unfit`, it was trained; `artifact-corrupt`.
    """
    told = artifact.made.get("crf")
    if told == TRAINED_CRF:
        raise ModelError(
            "artifact-unfit",
            f"{artifact.path.name} was exported with a trained CRF, which only its serving_default has. Call that, or "
            "say how VisionKit is to refine: crf=True or parameters (--crf), or crf=False (--no-crf) for not at all.",
        )
    with described(artifact):
        return None if told is None else _crf_params(dict(told))


def _options(card: Card, given: Mapping[str, Any], crf: CRFParams | None) -> SegmentOptions:
    values = {**card.options, **given}
    known = {field.name for field in dataclasses.fields(SegmentOptions)} - {"size", "crf"}
    sizes = {field.name for field in dataclasses.fields(SizeOptions)}
    if unknown := set(values) - known - sizes:
        raise RecipeError(
            "unknown-option",
            f"{card.name}: {', '.join(sorted(unknown))} is no option of this segmenter. "
            f"Known: {', '.join(sorted(known | sizes))}.",
        )
    size = SizeOptions(**{key: values[key] for key in values if key in sizes})
    return SegmentOptions(size=size, crf=crf, **{key: values[key] for key in values if key in known})
