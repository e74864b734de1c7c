"""Weights of `keras.applications` into our networks, where the architecture is the same.

Both of Keras's formats are read: the older `.h5`, in which the ImageNet weights are published, and `.weights.h5`.
Inputs are prepared as there: preset `caffe` for VGG and ResNet, `tf` for Inception-v3.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visionkit.errors import ModelError
from visionkit.weights.hdf5_check import Hdf5Facts, check_hdf5

if TYPE_CHECKING:
    import keras

__all__ = ["NETWORKS", "is_keras_application", "load_keras_application"]

HEAD = "predictions"
BEHIND = ("fc1", "fc2", HEAD)  # what a network without classes leaves
MARKS = {"block1_conv1", "conv1_conv", "mixed10"}  # a layer of VGG, ResNet, Inception-v3 that ours have not
SHORTCUT = 0  # number of the projection among a block's convolutions there


def is_keras_application(facts: Hdf5Facts) -> bool:
    """Whether a checked file is of `keras.applications`, in either format, rather than of a network of ours."""
    return facts.legacy or not MARKS.isdisjoint(facts.names.values())


def load_keras_application(
    model: keras.Model, network: str, path: str | os.PathLike[str], *, skip_head: bool = False
) -> tuple[str, ...]:
    """Fill the weights of `model` with those of the network of the same name in `keras.applications`.

    Args:
        model: the network as its builder made it: ResNets with `layout="keras"`, Inception-v3 with
            `count_include_pad=False`.
        network: the builder's name, one of `NETWORKS`.
        path: `.h5` or `.weights.h5`, with or without the top; only numbers are read from it.
        skip_head: keep the layer `logits` as it is, for a network of other classes.

    Returns:
        Names of the layers that were kept.

    Raises:
        ModelError: `model-unfit`, naming each layer that does not fit, and then nothing is changed; `model-unsafe` or
            `model-corrupt` for the file; `weights-missing` if it cannot be read.
        ValueError: no such network.
    """
    if network not in NETWORKS:
        raise ValueError(f"`network` must be one of {', '.join(NETWORKS)}. Received: network={network!r}.")
    import h5py

    file = Path(path)
    facts = check_hdf5(file)
    layers = [layer for layer in model.layers if layer.weights]
    heads = [layer for layer in layers if layer.name == "logits" or layer.name.startswith("logits_")]
    kept = tuple(layer.name for layer in heads) if skip_head else ()
    with h5py.File(file, "r") as opened:
        entries = _legacy_entries(opened, file) if facts.legacy else _entries(opened, facts)
        names = NETWORKS[network](list(entries))
        fills, misfits = _match([layer for layer in layers if layer.name not in kept], names, entries)
        used = {fill.entry for fill in fills} | ({HEAD} if kept else set()) | (set() if heads else {*BEHIND})
        misfits += [f"{name} of the file has no layer" for name in entries if name not in used]
        misfits += _wrong_variant(model, network)
        if misfits:
            raise _unfit(file, network, misfits)
        for fill in fills:
            for variable, values in zip(fill.variables, fill.arrays, strict=True):
                variable.assign(np.asarray(values, np.float32))
    return kept


class _Fill(NamedTuple):
    """The variables of one layer, and the arrays of the file that fill them."""

    entry: str
    variables: list[Any]
    arrays: list[Any]


Entries = Mapping[str, list[Any]]  # layer in the file -> its arrays, in the order in which Keras writes them


def _legacy_entries(opened: Any, path: Path) -> Entries:
    """Keras 1 to 3's `.h5`: each group lists its arrays, whatever their names."""
    root = opened.get("model_weights", opened)
    try:
        groups = {_text(name): root[_text(name)] for name in root.attrs["layer_names"]}
        entries = {name: [group[_text(key)] for key in group.attrs["weight_names"]] for name, group in groups.items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError("model-corrupt", f"{path} does not hold the layers that it lists: {reason}.") from error
    return {name: arrays for name, arrays in entries.items() if arrays}


def _entries(opened: Any, facts: Hdf5Facts) -> Entries:
    """`.weights.h5`: numbered arrays in a group that tells the layer's name."""
    entries: dict[str, list[Any]] = {}
    for place in sorted(facts.shapes, key=lambda place: (len(place), place)):
        group = place.rpartition("/")[0]
        if group in facts.names and "seed_generator" not in place:
            entries.setdefault(facts.names[group], []).append(opened[place])
    return entries


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _match(layers: list[Any], names: Mapping[str, str], entries: Entries) -> tuple[list[_Fill], list[str]]:
    """Each layer with its arrays, and what does not fit."""
    fills, misfits = [], []
    for layer in layers:
        entry = names.get(layer.name.replace("-", "."), "")  # see nets/blocks.py: layer_name
        if entry not in entries:
            misfits.append(f"the layer {layer.name} ({entry or 'not theirs'}) is not in the file")
            continue
        variables, arrays = list(layer.weights), entries[entry]
        if len(arrays) == 3 and getattr(layer, "gamma", None) is not None:  # normalised there without a scale
            arrays = [np.ones(variables[0].shape), *arrays]
        expected, found = [tuple(v.shape) for v in variables], [tuple(array.shape) for array in arrays]
        if expected != found:
            misfits.append(f"{entry} has {found} in the file, the layer {layer.name} {expected}")
        fills.append(_Fill(entry, variables, arrays))
    return fills, misfits


def _wrong_variant(model: Any, network: str) -> list[str]:
    """What the shapes do not show: averages over the zeros around a map."""
    if network == "inception_v3" and any(layer.name.endswith("average_pool.pad") for layer in model.layers):
        return ["the network's poolings count the zeros around a map: build it with count_include_pad=False"]
    return []


def _unfit(path: Path, network: str, misfits: list[str]) -> ModelError:
    count = f"{len(misfits)} differences" if len(misfits) > 1 else "one difference"
    remedy = "Build the network as keras.applications has it, or give the file of this network"
    if network.startswith("resnet"):
        remedy = 'Build the network with layout="keras", or give the file of this network'
    if all(HEAD in misfit for misfit in misfits):
        remedy = "Build the network with the file's classes, or keep the network's own with skip_head=True"
    return ModelError("model-unfit", f"{path.name} does not fit {network}, {count}: {'; '.join(misfits)}. {remedy}.")


# Names: our layer -> theirs, given the names in the file.


def _vgg_names(convolutions: tuple[int, ...]) -> Callable[[Iterable[str]], dict[str, str]]:
    names = {"classifier.0": "fc1", "classifier.3": "fc2", "logits": HEAD}
    index = 0  # torchvision counts convolutions, ReLUs and poolings
    for block, count in enumerate(convolutions, 1):
        for number in range(1, count + 1):
            names[f"features.{index}"] = f"block{block}_conv{number}"
            index += 2
        index += 1
    return lambda _: names


def _resnet_names(depths: tuple[int, ...]) -> Callable[[Iterable[str]], dict[str, str]]:
    names = {"conv1": "conv1_conv", "bn1": "conv1_bn", "logits": HEAD}
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            ours, theirs = f"layer{stage}.{block}", f"conv{stage + 1}_block{block + 1}"
            for number in (1, 2, 3):
                names[f"{ours}.conv{number}"] = f"{theirs}_{number}_conv"
                names[f"{ours}.bn{number}"] = f"{theirs}_{number}_bn"
            names[f"{ours}.downsample.0"] = f"{theirs}_{SHORTCUT}_conv"
            names[f"{ours}.downsample.1"] = f"{theirs}_{SHORTCUT}_bn"
    return lambda _: names


def _inception_names(entries: Iterable[str]) -> dict[str, str]:
    """Their layers are numbered as they were made, from any number on: the n-th of each kind is our n-th."""
    from visionkit.nets.inception_v3 import MIXED, STEM

    units = [*_units(STEM)]
    for name, branches in MIXED.items():
        units += [f"{name}.{unit}" for branch in branches for unit in _units(branch)]
    names = {"logits": HEAD}
    for ours, theirs in (("conv", "conv2d"), ("bn", "batch_normalization")):
        numbered = sorted(name for name in entries if re.fullmatch(rf"{theirs}(_\d+)?", name))
        numbered.sort(key=lambda name: int(name.removeprefix(theirs).removeprefix("_") or 0))
        names |= {f"{unit}.{ours}": name for unit, name in zip(units, numbered, strict=False)}
    return names


def _units(steps: Iterable[Any]) -> list[str]:
    """Names of the convolutions of a branch; a step is one, the name of a pooling, or two convolutions."""
    names = []
    for step in steps:
        if hasattr(step, "channels"):
            names.append(step.name)
        elif not isinstance(step, str):
            names += _units(step)
    return names


NETWORKS: Mapping[str, Callable[[Iterable[str]], Mapping[str, str]]] = {
    "vgg16": _vgg_names((2, 2, 3, 3, 3)),
    "vgg19": _vgg_names((2, 2, 4, 4, 4)),
    "resnet50": _resnet_names((3, 4, 6, 3)),
    "resnet101": _resnet_names((3, 4, 23, 3)),
    "resnet152": _resnet_names((3, 8, 36, 3)),
    "inception_v3": _inception_names,
}
