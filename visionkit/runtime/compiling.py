"""`compile_model` and `compile_cached`: a network in, a runner out, measured once for each machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from visionkit.errors import UsageError
from visionkit.runtime.adaptors import ADAPTORS
from visionkit.runtime.base import Array, Runner
from visionkit.runtime.cache import Cache, Entry, cache_root
from visionkit.runtime.choose import Options, choose, open_one
from visionkit.runtime.machine import default_threads, fingerprint, versions
from visionkit.runtime.programs import KerasProgram, Program

if TYPE_CHECKING:
    import keras

__all__ = ["compile_cached", "compile_model"]


def compile_model(
    model: keras.Model | str | os.PathLike[str],
    *,
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    batch: int = 1,
    cache_dir: str | os.PathLike[str] | None = None,
    weights_digest: str | None = None,
    trust: bool = False,
    probe: Mapping[str, Array] | None = None,
    signature: str | None = None,
) -> Runner:
    """A runner over the network, in the fastest runtime that agrees with Keras or in the one asked for.

    Args:
        model: a built Keras model with fixed sizes, or the path of a `.keras`, `.tflite`, `.onnx`, OpenVINO `.xml` or
            SavedModel.
        runtime: `auto`, `keras`, `savedmodel`, `litert`, `onnxruntime` or `openvino`. A `.tflite` runs in LiteRT only,
            an `.onnx` in ONNX Runtime or OpenVINO, an `.xml` in OpenVINO.
        precision: `float32`; `float16` (LiteRT: weights) or `bfloat16` (OpenVINO) when less is enough.
        threads: cores to use; None is all that the process may use.
        batch: size of the batch axis.
        cache_dir: where choices and converted files are kept; None is the user's cache folder.
        weights_digest: a digest of the weights that the caller knows already, which saves hashing them.
        trust: the model may run code (SavedModel), or crash us (a `.tflite` is otherwise tried in a child first).
        probe: inputs to check and time with; None makes seeded noise.
        signature: of a `.tflite` or SavedModel that has several; None takes `serving_default`, or the only one.

    Raises:
        ModelError: the file is missing, corrupt or unsafe, or a runtime cannot run the network.
        UsageError: a runtime or precision that is unknown, not installed or not possible for this model.
    """
    options = Options(runtime, precision, default_threads() if threads is None else threads, batch)
    options.check()
    if isinstance(model, str | os.PathLike):
        return compile_file(model, options, cache_dir, trust, probe, signature)
    from visionkit.runtime.keras_net import model_digest

    digest = model_digest(model, weights_digest)
    return cached(digest, lambda: KerasProgram(model, batch), options, cache_dir, probe)


def compile_cached(
    digest: str,
    build: Callable[[], keras.Model],
    *,
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    batch: int = 1,
    cache_dir: str | os.PathLike[str] | None = None,
    probe: Mapping[str, Array] | None = None,
) -> Runner:
    """`compile_model(build())`, where `build` is called only if nothing is remembered under `digest`.

    So a known network starts without TensorFlow. The digest must change whenever the network would: it stands for the
    architecture, its arguments and its weights (VisionKit's version is added here).
    """
    options = Options(runtime, precision, default_threads() if threads is None else threads, batch)
    options.check()
    return cached(digest, lambda: KerasProgram(build(), batch), options, cache_dir, probe)


def compile_file(
    path: str | os.PathLike[str],
    options: Options,
    cache_dir: str | os.PathLike[str] | None,
    trust: bool,
    probe: Mapping[str, Array] | None,
    signature: str | None = None,
) -> Runner:
    from visionkit.runtime import files

    model_file = files.ModelFile(path)
    model_file.check_trust(trust)
    alone = {"tflite": "litert", "openvino": "openvino"}.get(model_file.kind)
    if alone is not None:
        if options.runtime not in ("auto", alone) or options.precision != "float32":
            raise UsageError(
                "runtime-impossible",
                f"{model_file.label} runs in {alone} in its own precision. "
                f"Received: runtime={options.runtime!r}, precision={options.precision!r}",
            )
        if alone == "openvino":
            return files.open_openvino_file(model_file, options)
        return files.open_tflite_file(model_file, options, cache_root(cache_dir), trust, signature)
    if model_file.kind == "onnx" and options.runtime != "auto" and ADAPTORS[options.runtime].suffix != ".onnx":
        raise UsageError(
            "runtime-impossible", f"{model_file.label} runs in onnxruntime or openvino. Received: {options.runtime!r}"
        )
    digest = model_file.digest() if signature is None else f"{model_file.digest()} {signature}"
    return cached(digest, lambda: model_file.program(options.batch, trust, signature), options, cache_dir, probe)


def cached(
    digest: str | None,
    build: Callable[[], Program],
    options: Options,
    cache_dir: str | os.PathLike[str] | None,
    probe: Mapping[str, Array] | None,
) -> Runner:
    """What the cache remembers, opened; otherwise the network is built and measured, and the cache told."""
    if digest is None:
        return choose(build(), options, probe)[0]
    cache = Cache(cache_root(cache_dir))
    facts: dict[str, Any] = {
        "digest": digest,
        "runtime": options.runtime,
        "precision": options.precision,
        "threads": options.threads,
        "batch": options.batch,
        "versions": versions(),
        "machine": fingerprint(),
    }
    entry = cache.find(facts)
    runner = None if entry is None else reopen(entry, build, options)
    if runner is None:
        runner, entry = choose(build(), options, probe)
        cache.keep(facts, entry)
    return runner


def reopen(entry: Entry, build: Callable[[], Program], options: Options) -> Runner | None:
    """The remembered choice, or None where it can no longer be opened."""
    adaptor = ADAPTORS.get(entry.runtime)
    if adaptor is None or adaptor.missing:
        return None
    if entry.suffix is None:
        runner, _ = open_one(build(), adaptor, options)
    else:
        if adaptor.opener is None:
            return None
        try:
            runner = adaptor.opener(
                entry.artifact, entry.signature, threads=options.threads, precision=options.precision
            )
        except Exception:  # a file that no longer opens is one to make again
            return None
    runner.timings, runner.rejected = entry.timings, entry.rejected
    return runner
