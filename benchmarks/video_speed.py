"""What the benchmarks of commands on a video share: their arguments, the runs, the steps alone, the last line.

For the scripts of this folder, which Python puts on their path.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from visionkit.io import open_source
from visionkit.runtime.quiet import import_keras

CLIP = Path(__file__).resolve().parents[2] / "shared" / "data" / "video" / "car-detection.mp4"


def video_parser(told: str | None, network: str) -> argparse.ArgumentParser:
    """The arguments of every benchmark of a command on one clip."""
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=CLIP, metavar="CLIP")
    parser.add_argument("--network", default=network)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--end", type=float, help="end before this second of the clip")
    return parser


def parsed(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the words for the command: what stands behind `--`, and `--end`."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:cut])
    return args, [*words[cut + 1 :], *([] if args.end is None else ["--end", str(args.end)])]


def tell_start() -> None:
    """Print how busy the machine is."""
    print(f"load average {os.getloadavg()[0]:.1f} at the start, {len(os.sched_getaffinity(0))} cores")


def random_card(
    folder: Path,
    task: str,
    network: str,
    rule: Mapping[str, Any],
    *,
    labels: Sequence[str] = (),
    change: Callable[[Any], None] = lambda model: None,
    **args: Any,
) -> Path:
    """A card of this network with random weights, `change`d; `rule` is the input's, `args` the network's."""
    keras = import_keras()
    from visionkit import nets
    from visionkit.train.model_folder import write_model

    keras.utils.set_random_seed(0)
    model = getattr(nets, network)(**args)
    change(model)
    folder.mkdir()
    card = {"task": task, "network": network, "licence": "CC0-1.0", "labels": labels, "input": rule}
    write_model(model, folder, card)
    return folder


def run_command(command: click.Command, words: list[str], work: Callable[[str, dict[str, Any]], Any]) -> Any:
    """What `work` makes of the source and the options in the command's words, without its lines of progress."""
    with command.make_context(command.name, words) as ctx, contextlib.redirect_stderr(io.StringIO()):
        options = dict(ctx.params)
        return work(options.pop("source"), options)


def frames_a_second(repeats: int, once: Callable[[], Any]) -> float:
    """The median of some runs, each of them printed."""
    rates = []
    for _ in range(repeats):
        result = once()
        rates.append(result.counts["rows"] / result.seconds["flow"])
        cpu = 1e3 * result.seconds["cpu"] / result.counts["rows"]
        print(f"  {rates[-1]:6.1f} frames a second, {cpu:.1f} ms of processor time a frame")
    return statistics.median(rates)


def settings_told(out: Path, task: str) -> str:
    """What the last run's manifest says of runtime, input, instances, codec and frames."""
    manifest = json.loads((out / "run.json").read_text())
    settings = manifest["settings"][task]
    return (
        f"{manifest['model']['runtime']}, input {settings['input_hw']}, {settings['instances']} instances of "
        f"{settings['threads']} threads; {manifest['annotated']['codec']}; {manifest['counts']['rows']} frames"
    )


def decoded(clip: Path, seconds: float) -> tuple[list[Any], float]:
    """The first frames, and the processor milliseconds that one of them took."""
    begin = time.process_time()
    with open_source(clip, end_s=seconds) as source:
        frames = [frame.image for frame in source]
    return frames, 1e3 * (time.process_time() - begin) / len(frames)


def tell_steps(decode: float, work: dict[str, Callable[[], Any]], rounds: int) -> None:
    """Print the processor milliseconds of each step alone: the median of some rounds."""
    found = {"decode": decode}
    for name, step in work.items():
        taken = []
        for _ in range(rounds):
            begin = time.process_time()
            step()
            taken.append(time.process_time() - begin)
        found[name] = 1e3 * statistics.median(taken)
    print("one step alone, ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in found.items()))


def finish(rate: float, bar: float) -> None:
    """Print the median and leave, with 1 where it is below the bar."""
    print(f"median {rate:.1f} frames a second (bar {bar:g}), load average {os.getloadavg()[0]:.1f}")
    raise SystemExit(0 if rate >= bar else 1)
