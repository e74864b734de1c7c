"""From a model card, or a model file, to a classifier that is ready for images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visionkit.errors import ModelError, RecipeError, UsageError
from visionkit.runtime.machine import default_threads
from visionkit.tasks.artifact_network import card_of, described, network_of, one_size, options_of
from visionkit.tasks.classify import Activation, Classifier, ClassifyOptions, Labels, probabilities
from visionkit.tasks.input_rule import PRESETS, InputRule
from visionkit.tasks.model_files import is_model_file, read_labels
from visionkit.tasks.network import Network
from visionkit.tasks.served import is_served, served_classifier
from visionkit.tasks.transform import THETA, TransformRule, with_theta

if TYPE_CHECKING:
    from visionkit.runtime import Runner
    from visionkit.weights import Card
    from visionkit.weights.artifact import Artifact
    from visionkit.weights.fetch import Progress

__all__ = [
    "DEFAULT_CLASSIFIER",
    "card_network",
    "card_rule",
    "classifier_from_file",
    "is_model_file",
    "load_classifier",
    "read_labels",
    "shares",
]

DEFAULT_CLASSIFIER = "mobilenet_v3_large"
MAX_INSTANCES, MAX_WEIGHTS_BYTES = 4, 256 << 20


def load_classifier(
    name: str | os.PathLike[str] = DEFAULT_CLASSIFIER,
    *,
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    batch: int = 1,
    instances: int | None = 1,
    size_hw: tuple[int, int] | None = None,
    weights: str | Path | None = None,
    on_compile: Callable[[], None] | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    transform: bool = False,
    trust: bool = False,
    **options: Any,
) -> Classifier:
    """The classifier of a model card or of a model file, compiled for this machine.

    Args:
        name: a card's name, the path of a folder with a `card.toml`, an exported model that says what it is, or any
            `.keras`, `.tflite`, `.onnx` or SavedModel (`classifier_from_file` says what may be told of these).
        runtime: as `visionkit.runtime.compile_model` takes it; `auto` measures.
        precision: of the arithmetic, `float32` unless less is asked for.
        threads: cores to use; None is all that the process may use.
        batch: images in one call of the network.
        instances: how often the network is held, each with its own weights in memory and `threads` cores, so that as
            many threads of the caller can be inside it; None shares the cores out as a stream of images goes fastest
            (`shares`).
        size_hw: of the input, in the place of the card's.
        weights: a file with weights for the card's network in the place of the card's own.
        on_compile: called before the network is built, compiled and measured, which takes seconds and happens once.
        notice, progress: of a download, where the weights are not on this machine (`visionkit.weights.obtain`).
        transform: also ask what the network's spatial transformer looks at (`Classifier.transform`).
        trust: a model file may run code (SavedModel) or crash (`.tflite`).
        options: `topk`, `conf`, `classes` in the place of the card's.

    Raises:
        ModelError: there is no such card or no weights, or they do not fit; there is no transformer.
        RecipeError: the card names an option that a classifier does not have.
    """
    how: dict[str, Any] = {"runtime": runtime, "precision": precision, "threads": threads, "batch": batch}
    if is_model_file(name):
        if transform:
            raise UsageError("option-unfit", "A model file does not say what its transformer is; leave transform out.")
        if size_hw is not None or weights is not None or instances not in (None, 1):
            raise UsageError(
                "option-unfit",
                "A model file has its size and its weights in it, held once; leave size_hw, weights, instances out.",
            )
        return classifier_from_file(name, trust=trust, **how, **options)
    card, artifact = card_of(name, "classify")
    one_size(artifact, size_hw)
    chosen = options_of(card, artifact, options, _options)
    with described(artifact):
        rule = card_rule(card, size_hw)
    if artifact is not None and is_served(artifact) and not transform:
        return served_classifier(artifact, rule, chosen, runtime=runtime, precision=precision, threads=threads)
    telling = {"on_build": on_compile, "notice": notice, "progress": progress}
    network = card_network(card, rule, artifact, weights=weights, trust=trust, **telling)
    if instances is None:
        how["threads"], instances = shares(network.bytes, threads)
    looking: tuple[Any, ...] = ()
    if transform:
        looking = (THETA + " beside", lambda model: with_theta(model, card.name))
    runner = network.compiled(*looking, **how)
    again = {**how, "runtime": runner.name}
    if runner.name == "keras":  # on a GPU, a second one would wait for the first
        instances = 1
    others = [network.compiled(*looking, **again) for _ in range(instances - 1)]
    labels = _card_labels(card)
    heads = tuple(labels) if isinstance(labels, Mapping) else None
    looks = TransformRule.of_network(rule, card.args, int(runner.outputs[THETA].shape[-1] or 0)) if transform else None
    with described(artifact):
        classifier = Classifier(
            runner, rule, labels=labels, options=chosen, heads=heads, others=others, transform=looks
        )
        _check_labels(classifier, card.name)
    classifier.model = network.facts(runner)
    return classifier


def shares(weights_bytes: int, cores: int | None = None) -> tuple[int, int]:
    """Threads of one instance of a network, and instances, that get most images through `cores` (None: all there are).

    Two calls of one thread each do more than one call of two, which wait for each other: on two cores MobileNetV3-large
    in LiteRT takes 3.4 ms of processor time an image against 4.2, ResNet-50 in OpenVINO as much either way. But each
    instance holds the weights once more, so the heavy networks get all cores for one.
    """
    cores = default_threads() if cores is None else cores
    instances = max(1, min(cores, MAX_INSTANCES, MAX_WEIGHTS_BYTES // max(1, weights_bytes)))
    return max(1, cores // instances), instances


def card_rule(card: Card, size_hw: tuple[int, int] | None = None) -> InputRule:
    """The input rule of a classifier's card, of one channel where its network takes one."""
    rule = InputRule.from_card(card, size_hw)
    return dataclasses.replace(rule, channel_order="gray") if card.args.get("channels") == 1 else rule


def card_network(card: Card, rule: InputRule, artifact: Artifact | None = None, **options: Any) -> Network:
    """The network of a classifier's card, of the size of the rule and with as many classes as the card has labels."""
    arguments: dict[str, Any] = {"size_hw": rule.size_hw}
    labels = _card_labels(card)
    if labels and "classes" not in card.args:
        counts = {head: len(names) for head, names in labels.items()} if isinstance(labels, Mapping) else len(labels)
        arguments["classes"] = counts
    return network_of(card, artifact, arguments=arguments, **options)


def classifier_from_file(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | Mapping[str, Sequence[str]] | str | os.PathLike[str] = (),
    preset: str = "raw",
    resize: str = "stretch",
    resize_size: int | None = None,
    output: str | None = None,
    activation: str = "auto",
    trust: bool = False,
    topk: int = 5,
    conf: float = 0.0,
    classes: Sequence[int] | None = None,
    **how: Any,
) -> Classifier:
    """A classifier over the network in a `.keras`, `.tflite`, `.onnx` or SavedModel of one image input.

    Args:
        path: the file or folder.
        labels: class names, by head where there are several; or a text file with one a line.
        preset: how levels are changed for its input (`InputRule.preset`); `raw` hands over 0 to 255.
        resize, resize_size: as `InputRule`.
        output: which of several outputs to read; None reads `logits`, or all of them as heads.
        activation: `softmax` for logits, `none` for probabilities; `auto` looks at what the network makes of noise.
        trust: the file may run code (SavedModel) or crash (`.tflite`).
        topk, conf, classes: as `ClassifyOptions`.
        how: runtime, precision, threads and batch.

    Raises:
        ModelError: the file does not load, or is no classifier of images.
        UsageError: `output-unknown`, `preset-unknown`, `activation-unknown`.
    """
    from visionkit.runtime import compile_model

    options = ClassifyOptions(topk, conf, None if classes is None else tuple(classes))
    if preset not in PRESETS:
        raise UsageError("preset-unknown", f"preset must be one of {', '.join(PRESETS)}. Received: {preset!r}.")
    if activation not in ("auto", "softmax", "none"):
        raise UsageError("activation-unknown", f"activation must be auto, softmax or none. Received: {activation!r}.")
    told = read_labels(labels)
    runner = compile_model(path, trust=trust, **how)
    try:
        rule = _rule_of(runner, preset, resize, resize_size)
        heads = _heads_of(runner, output, told)
        final: Any = _activation_of(runner, heads, rule) if activation == "auto" else activation
        classifier = Classifier(runner, rule, labels=told, options=options, heads=heads, activation=final)
        _check_labels(classifier, Path(path).name)
    except BaseException:
        runner.close()
        raise
    classifier.model = {
        "name": Path(path).name,
        "sha256": _file_digest(path),
        "runtime": runner.name,
        "precision": runner.precision,
    }
    return classifier


def _card_labels(card: Card) -> Labels:
    return dict(card.heads) or card.labels


def _options(card: Card, given: Mapping[str, Any]) -> ClassifyOptions:
    values = {**card.options, **given}
    known = {field.name for field in dataclasses.fields(ClassifyOptions)}
    if unknown := set(values) - known:
        raise RecipeError(
            "unknown-option",
            f"{card.name}: {', '.join(sorted(unknown))} is no option of this classifier. "
            f"Known: {', '.join(sorted(known))}.",
        )
    return ClassifyOptions(**values)


def _check_labels(classifier: Classifier, name: str) -> None:
    """As many labels as classes, or none.

    Raises:
        ModelError: `labels-unfit`.
    """
    for head, count in classifier.class_count.items():
        labels = classifier.labels.get(head, ()) if isinstance(classifier.labels, Mapping) else classifier.labels
        if labels and len(labels) != count:
            where = f"head {head!r} of {name}" if classifier.multi else name
            raise ModelError("labels-unfit", f"{where} has {count} classes, and there are {len(labels)} labels.")


def _rule_of(runner: Runner, preset: str, resize: Any, resize_size: int | None) -> InputRule:
    """The rule whose result fits the runner's only input."""
    specs = list(runner.inputs.values())
    shape = specs[0].shape
    if len(specs) != 1 or len(shape) != 4 or None in shape[1:]:
        told = ", ".join(str(spec) for spec in specs)
        raise ModelError("model-unfit", f"a classifier takes one image (B, H, W, 3) of fixed size; this takes {told}")
    sizes = [int(side or 0) for side in shape[1:]]
    if sizes[2] not in (1, 3) and sizes[0] in (1, 3):  # channels first
        sizes = [sizes[1], sizes[2], sizes[0]]
    if sizes[2] not in (1, 3):
        raise ModelError("model-unfit", f"a classifier takes images of 1 or 3 channels; this takes {specs[0]}")
    rule = InputRule.preset(preset, (sizes[0], sizes[1]), resize=resize, resize_size=resize_size)
    return rule if sizes[2] == 3 else dataclasses.replace(rule, channel_order="gray")


def _heads_of(runner: Runner, output: str | None, labels: Labels) -> tuple[str, ...]:
    names = tuple(runner.outputs)
    if isinstance(labels, Mapping):
        wanted = tuple(labels)
    elif output is not None:
        wanted = (output,)
    else:
        wanted = ("logits",) if "logits" in names else names
    if unknown := [name for name in wanted if name not in names]:
        raise UsageError("output-unknown", f"the network has no output {unknown[0]!r}; it has {', '.join(names)}")
    for name in wanted:
        sizes = [side for side in runner.outputs[name].shape[1:] if side != 1]
        if len(sizes) > 1 or None in sizes:
            raise ModelError("model-unfit", f"{runner.outputs[name]} is no list of classes; name an output that is")
    return wanted


def _activation_of(runner: Runner, heads: Sequence[str], rule: InputRule) -> Activation:
    """`none` if every head answers two noisy images with numbers that are probabilities."""
    classifier = Classifier(runner, rule, heads=heads, activation="none")
    generator = np.random.default_rng(0)
    for _ in range(2):
        image = generator.integers(0, 256, (*rule.size_hw, 3), np.uint8)
        found = classifier.logits(image)
        for head in heads:
            values = probabilities((found[head] if classifier.multi else found)[None], "none")
            tolerance = 0.05 if head in runner.coarse else 1e-3
            if values.min() < -1e-6 or values.max() > 1 + 1e-6 or abs(float(values.sum()) - 1) > tolerance:
                return "softmax"
    return "none"


def _file_digest(path: str | os.PathLike[str]) -> str:
    from visionkit.runtime.files import ModelFile

    return ModelFile(path).digest()
