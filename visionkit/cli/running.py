"""What the commands that run over a source share: from steps and options to a run, and what is told of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.closing import closing_lines, show
from visionkit.cli.options import reading_of, writing_of
from visionkit.cli.text import clean

if TYPE_CHECKING:
    from visionkit.pipeline import Item, RunResult
    from visionkit.pipeline.steps import Step

__all__ = ["CliTelling", "run_steps"]

COMPILING = {
    "network": "the network and timing the runtimes of this machine: some seconds, once.",
    "sizes": "the network and timing the runtimes of this machine: some seconds, once a size.",
    "crf": "the CRF for this machine: some seconds, once.",
}


class CliTelling:
    """Tells on stderr what is compiled and fetched while a model is made ready (`visionkit.pipeline.steps.Telling`)."""

    def compiling(self, what: str) -> None:
        """Say that something is compiled, which takes time."""
        click.echo(f"Compiling {COMPILING[what]}", err=True)

    def say(self, line: str) -> None:
        """Say a line about a model."""
        click.echo(clean(line), err=True)

    @contextlib.contextmanager
    def loading(self, name: Any, what: str = "network") -> Iterator[dict[str, Any]]:
        """Keyword arguments of a loader, with a bar on stderr while it fetches."""
        from visionkit.cli.download import DownloadBar, announce

        with DownloadBar(str(name)) as bar:
            yield {"on_compile": lambda: self.compiling(what), "notice": announce, "progress": bar}


def run_steps(source: str, steps: Sequence[Step], options: dict[str, Any], *, task: str, **how: Any) -> RunResult:
    """Run steps over `source` as the options say, and tell on stderr how it went.

    Args:
        source: what is read.
        steps: in order; the last one says what a window shows.
        options: those of `source_options` and `output_options`.
        task: names the default folder.
        how: further arguments of `visionkit.pipeline.run`.
    """
    from visionkit.pipeline import run
    from visionkit.pipeline.steps import draw_steps, ends_of

    writing = how.pop("writing", None) or writing_of(options, boxes=any(step.boxes for step in steps))
    reading = how.pop("reading", None) or reading_of(options)

    def watch(item: Item) -> bool:
        for step in steps:
            step.watch(item)
        return not options["show"] or show(steps[-1].shown(item))

    seen = options["show"] or (writing.video and writing.rows is None)
    result = run(
        source,
        **ends_of(steps),
        task=task,
        reading=reading,
        writing=writing,
        draw=draw_steps(steps) if seen else None,
        watch=watch,
        command=["visionkit", *sys.argv[1:]],
        **how,
    )
    lines = closing_lines(result, result.counts["rows"], "; ".join(step.told() for step in steps))
    for line in [*lines, *(line for step in steps for line in step.lines())]:
        click.echo(clean(line), err=True)
    return result
