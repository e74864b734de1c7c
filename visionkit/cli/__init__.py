"""The command line: one command a file, imported when it is used."""

from visionkit.cli.shell import cli, main

__all__ = ["cli", "main"]
