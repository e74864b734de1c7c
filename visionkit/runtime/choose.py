"""Which runtime: open those that can run the network, leave out what disagrees, time the rest, keep the fastest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from visionkit.errors import ModelError, UsageError
from visionkit.runtime.adaptors import ADAPTORS, Adaptor, find_adaptor
from visionkit.runtime.base import Array, Runner, Signature
from visionkit.runtime.cache import Entry
from visionkit.runtime.measure import (
    TOLERANCE,
    disagreement,
    jittered,
    probe_inputs,
    rounding_noise,
    time_runners,
)
from visionkit.runtime.programs import KerasProgram, OnnxProgram, Program

__all__ = ["Options", "choose"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to compile: which runtime (or `auto`), in which precision, on how many cores, for which batch size."""

    runtime: str
    precision: str
    threads: int
    batch: int

    def check(self) -> None:
        """Raises UsageError or ValueError for what can be refused before anything is built."""
        for name, value in (("threads", self.threads), ("batch", self.batch)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")
        if self.precision not in TOLERANCE:
            remedy = "; for int8 quantize the model first and load its .tflite" if self.precision == "int8" else ""
            raise UsageError(
                "precision-unknown",
                f"precision must be one of {', '.join(TOLERANCE)}. Received: {self.precision!r}{remedy}",
            )
        if self.runtime != "auto":
            find_adaptor(self.runtime, self.precision)


def choose(program: Program, options: Options, probe: Mapping[str, Array] | None = None) -> tuple[Runner, Entry]:
    """The runner that serves best, and the entry that lets the next start skip all this.

    Raises:
        ModelError: the runtime that was asked for failed or disagrees; `no-runtime` where `auto` found none.
    """
    adaptors = candidates(program, options)
    single = options.runtime != "auto" or len(adaptors) == 1
    opened, rejected = open_all(program, adaptors, options, must_work=options.runtime != "auto")
    if options.runtime == "auto":
        rejected = {**unusable(options), **rejected}
    try:
        if opened:
            probe = probe or probe_inputs(signature_of(opened))
            leave_out_liars(program, opened, rejected, options, probe)
        if not opened:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
            # Where a file is taken as it is, a refusal by all who read the format is about the file.
            slug = "model-corrupt" if isinstance(program, OnnxProgram) else "no-runtime"
            raise ModelError(slug, f"no runtime runs {program.label} ({reasons})")
        if options.runtime == "auto":
            leave_out_greedy(opened, rejected, options.threads)
        runners = {name: runner for name, (runner, _) in opened.items()}
        timings = time_runners(runners, probe) if probe and not single else None
    except BaseException:
        close_but(opened, None)
        raise
    winner = next(iter(timings)) if timings else next(iter(opened))
    runner, content = opened[winner]
    close_but(opened, winner)
    runner.timings, runner.rejected = timings, rejected
    LOG.info("runtime %s chosen; ms: %s; left out: %s", winner, timings, rejected)
    return runner, entry_for(program, runner, content, timings, rejected)


def entry_for(
    program: Program, runner: Runner, content: bytes, timings: dict[str, float] | None, rejected: dict[str, str]
) -> Entry:
    suffix = ADAPTORS[runner.name].suffix
    if suffix is None or program.signature is None:  # it needs the model, or is the user's own file
        own = Signature(tuple(runner.inputs.values()), tuple(runner.outputs.values()))
        return Entry(runner.name, own, timings=timings, rejected=rejected)
    return Entry(runner.name, program.signature, suffix, content, timings, rejected)


def candidates(program: Program, options: Options) -> list[Adaptor]:
    if options.runtime != "auto":
        return [find_adaptor(options.runtime, options.precision)]
    if isinstance(program, OnnxProgram):
        wanted = [adaptor for adaptor in ADAPTORS.values() if adaptor.suffix == ".onnx"]
    elif on_gpu():  # nothing else here computes on it
        wanted = [ADAPTORS["keras" if isinstance(program, KerasProgram) else "savedmodel"]]
    else:
        wanted = list(ADAPTORS.values())
    usable = [adaptor for adaptor in wanted if not adaptor.missing and options.precision in adaptor.precisions]
    if not usable:
        raise UsageError("runtime-precision", f"no installed runtime computes in {options.precision}")
    return usable


def on_gpu() -> bool:
    from visionkit.runtime.keras_net import has_gpu

    return has_gpu()


def unusable(options: Options) -> dict[str, str]:
    """Why the other runtimes were not tried."""
    reasons = {}
    for name, adaptor in ADAPTORS.items():
        if adaptor.missing:
            reasons[name] = str(adaptor.absence())
        elif options.precision not in adaptor.precisions:
            reasons[name] = f"does not compute in {options.precision}"
    return reasons


def open_all(
    program: Program, adaptors: list[Adaptor], options: Options, *, must_work: bool
) -> tuple[dict[str, tuple[Runner, bytes]], dict[str, str]]:
    opened: dict[str, tuple[Runner, bytes]] = {}
    rejected: dict[str, str] = {}
    for adaptor in adaptors:
        LOG.info("compiling for %s", adaptor.name)
        try:
            opened[adaptor.name] = open_one(program, adaptor, options)
        except Exception as error:  # a runtime that fails in whatever way is one that is left out
            if must_work:
                raise
            rejected[adaptor.name] = one_line(error)
    return opened, rejected


def open_one(program: Program, adaptor: Adaptor, options: Options) -> tuple[Runner, bytes]:
    """The network in this runtime, and the content of the file it was opened from."""
    if adaptor.suffix is None or adaptor.opener is None:
        return program.live(options.threads), b""
    content = program.artifact(adaptor.suffix, options.precision)
    return adaptor.opener(content, program.signature, threads=options.threads, precision=options.precision), content


def leave_out_liars(
    program: Program,
    opened: dict[str, tuple[Runner, bytes]],
    rejected: dict[str, str],
    options: Options,
    probe: Mapping[str, Array],
) -> None:
    """Moves from `opened` to `rejected` what fails on the probe or answers differently from the network itself."""
    expected = program.reference(probe, options.threads)
    noise: dict[str, float] | None = None
    for name in list(opened):
        runner = opened[name][0]
        if expected is not None and ADAPTORS[name].suffix is None:
            continue  # it is the reference
        try:
            received = runner(**probe)
            reason = None if expected is None else disagreement(expected, received, options.precision)
            if reason is not None and expected is not None:  # how much does the network make of rounding?
                if noise is None:
                    answers = [program.reference(inputs, options.threads) for inputs in jittered(probe)]
                    noise = rounding_noise(expected, [answer for answer in answers if answer is not None])
                reason = disagreement(expected, received, options.precision, noise)
        except Exception as error:
            if options.runtime != "auto":
                raise ModelError("model-failed", f"{name} fails on a probe input: {one_line(error)}") from error
            reason = one_line(error)
        if reason is None:
            continue
        if options.runtime != "auto":
            raise ModelError("runtime-disagrees", f"{name} does not answer as the network does: {reason}")
        rejected[name] = reason
        opened.pop(name)[0].close()


def leave_out_greedy(opened: dict[str, tuple[Runner, bytes]], rejected: dict[str, str], threads: int) -> None:
    """Moves from `opened` to `rejected` what takes more cores than it was given, as long as something else is left.

    TensorFlow's pool belongs to the whole process: beside a second instance or a decoder it would win by their cores.
    """
    greedy = [name for name, (runner, _) in opened.items() if runner.threads > threads]
    for name in greedy if len(greedy) < len(opened) else ():
        runner = opened.pop(name)[0]
        rejected[name] = f"takes {runner.threads} threads, not the {threads} it is given"
        runner.close()


def signature_of(opened: Mapping[str, tuple[Runner, bytes]]) -> Signature:
    runner, _ = next(iter(opened.values()))
    return Signature(tuple(runner.inputs.values()), tuple(runner.outputs.values()))


def close_but(opened: Mapping[str, tuple[Runner, bytes]], keep: str | None) -> None:
    for name, (runner, _) in opened.items():
        if name != keep:
            runner.close()


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
