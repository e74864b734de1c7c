"""What an exported classifier is made of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.export.plan import ExportOptions, ExportPlan
from visionkit.export.rule_graph import RuleGraph
from visionkit.runtime.quiet import import_keras, import_tensorflow
from visionkit.tasks.classify import Classifier
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_classify import card_network, card_rule
from visionkit.tasks.transform import THETA, with_theta

if TYPE_CHECKING:
    import keras

    from visionkit.weights import Card

__all__ = ["make_plan"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

PROBABILITIES = "probabilities"
TOLERANCE = 1e-4
NO_FEATURES = "The network has no layer of logits, so there are no features before it."


def make_plan(card: Card, options: ExportOptions) -> ExportPlan:
    """The plan of a classifier: `probabilities` (B, L), or `probabilities_<head>` each; `embed` before the logits.

    A network with a spatial transformer also has `raw_theta`, its theta beside the logits.
    """
    rule = card_rule(card, options.size_hw)
    if rule.resize_size is not None:  # a card's crop never reaches beyond the image
        rule = dataclasses.replace(rule, resize_size=max(rule.resize_size, *rule.size_hw))
    network = card_network(card, rule, weights=options.weights, notice=options.notice, progress=options.progress)
    model = network.model()
    return _Story(options.change(model) if options.change else model, rule, _described(card, rule)).plan()


class _Story:
    """A classifier's network, and what is before and behind it."""

    def __init__(self, model: keras.Model, rule: InputRule, card: Card) -> None:
        self.model, self.rule, self.card = model, rule, card
        self.heads = list(model.output) if isinstance(model.output, Mapping) else []
        self.features = features_of(model)
        self._graph: RuleGraph | None = None
        self._task: Classifier | None = None

    def plan(self) -> ExportPlan:
        parts, raw = {"": "raw"}, {"raw": self.model}
        if any(layer.name == THETA for layer in self.model.layers):
            parts[f"{THETA} beside"] = "raw_theta"  # as `load_classifier(transform=True)` asks for it
            raw["raw_theta"] = with_theta(self.model, self.card.name)
        return ExportPlan(
            card=self.card,
            model=self.model,
            parts=parts,
            raw=raw,
            fit=self.rule.pixels,
            expected=self.expected,
            serve=self.serve,
            embed=self.embed if self.features is not None else None,
            embedded=self.embedded,
            tolerances=dict.fromkeys(self.names.values(), TOLERANCE),
            raw_inputs=lambda image: {name: {raw[name].inputs[0].name: self.rule(image)[None]} for name in raw},
        )

    @property
    def names(self) -> dict[str, str]:
        """The results' names by head; "" where there is only one."""
        if not self.heads:
            return {"": PROBABILITIES}
        return {head: f"{PROBABILITIES}_{head}" for head in self.heads}

    def inputs(self, image: Any, fixed: bool) -> Any:
        if self._graph is None:
            self._graph = RuleGraph(self.rule)
        return self._graph.inputs(image, fixed)

    def serve(self, image: Any, fixed: bool) -> dict[str, Any]:
        found = self.model(self.inputs(image, fixed), training=False)
        return {name: _softmax(found[head] if head else found) for head, name in self.names.items()}

    def embed(self, image: Any, fixed: bool) -> Any:
        if self.features is None:
            raise ValueError(NO_FEATURES)
        return self.features(self.inputs(image, fixed), training=False)

    def embedded(self, image: Image, fixed: bool) -> Array:
        if self.features is None:
            raise ValueError(NO_FEATURES)
        return np.asarray(self.features(self._input_of(image, fixed)[None], training=False))[0]

    def _input_of(self, image: Image, fixed: bool) -> Array:
        return self.rule.normalize(image) if fixed else self.rule(image)

    def expected(self, images: Sequence[Image], fixed: bool) -> list[dict[str, Array]]:
        if self._task is None:
            from visionkit.runtime.keras_net import KerasRunner

            self._task = Classifier(KerasRunner(self.model, threads=1), self.rule)
        task, answers = self._task, []
        for image in images:
            found = task.infer(self._input_of(image, fixed)[None])
            answers.append(dict(zip(self.names.values(), (values[0] for values in found.values()), strict=True)))
        return answers


def features_of(model: keras.Model) -> keras.Model | None:
    """The network up to what its `logits` are made of, (B, F), a map averaged; None without a layer of that name."""
    keras = import_keras()
    made = keras.tree.flatten(model.output)[0]._keras_history
    if not re.fullmatch(r"logits(_\w+)?", made.operation.name):
        return None
    # A layer may stand in several networks: its node in this one knows what goes in here.
    features = made.operation._inbound_nodes[made.node_index].input_tensors[0]
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="embedding")(features)
    return keras.Model(model.input, features, name=f"{model.name}_features")


def _softmax(logits: Any) -> Any:
    """Probabilities (B, L); one value alone stands for two classes."""
    tf = import_tensorflow()
    if logits.shape[-1] == 1:
        one = tf.sigmoid(logits)
        return tf.concat([1.0 - one, one], axis=-1)
    return tf.nn.softmax(logits)


def _described(card: Card, rule: InputRule) -> Card:
    """The card at the size of the rule."""
    told = {**card.input, "size_hw": list(rule.size_hw)}
    if rule.resize_size is not None:
        told["resize_size"] = rule.resize_size
    return dataclasses.replace(card, input=told)
