"""`visionkit models`: what the model cards say."""

from __future__ import annotations

from typing import Any

import click

from visionkit.cli.text import emit, emit_json, examples, file_size, table
from visionkit.weights.card import Card, Metric, Weights
from visionkit.weights.registry import list_cards, load_card

__all__ = ["command"]

_HERE = {True: "yes", False: "no"}


@click.group(epilog=examples("visionkit models list", "visionkit models list --json"))
def command() -> None:
    """List the model cards, or show one."""


@command.command("list", epilog=examples("visionkit models list", "visionkit models list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """One line for each card: task, size of the weights, first metric, licence, whether the weights are here."""
    cards = list_cards()
    if as_json:
        emit_json([_as_json(card) for card in cards])
        return
    rows = [["NAME", "TASK", "SIZE", "METRIC", "LICENCE", "HERE"]]
    for card in cards:
        metric = _metric(card.metrics[0]) if card.metrics else "-"
        rows.append([card.name, card.task, file_size(_size(card)), metric, card.licence, _HERE[_here(card)]])
    for line in table(rows):
        emit(line)


@command.command(epilog=examples("visionkit models list"))
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Everything the card NAME says."""
    card = load_card(name)
    if as_json:
        emit_json(_as_json(card))
        return
    for line in _lines(card):
        emit(line)


def _lines(card: Card) -> list[str]:
    rows = [("name", card.name), ("summary", card.summary), ("task", card.task), ("network", _call(card))]
    rows += [(f"input {key}", str(value)) for key, value in card.input.items()]
    rows += [(f"option {key}", str(value)) for key, value in card.options.items()]
    rows += [("labels", f"{len(card.labels)}: {', '.join(card.labels[:8])}" if card.labels else "")]
    rows += [("licence", card.licence), ("paper", card.paper)]
    rows += [("metric", _metric(metric, full=True)) for metric in card.metrics]
    for entry in card.weights:
        where = str(card.find(entry) or entry.url or f"{entry.file} (not here)")
        rows += [("weights", f"{entry.format}, {file_size(_entry_size(card, entry))}, sha256 {entry.sha256}, {where}")]
    if card.trained is not None:
        made = card.trained
        rows += [("trained by", made.command), ("trained on", f"{made.data}; seed {made.seed}; {made.hours:g} h")]
    width = max(len(key) for key, _ in rows)
    return [f"{key.ljust(width)}  {value}" for key, value in rows if value]


def _call(card: Card) -> str:
    return f"{card.network}({', '.join(f'{key}={value!r}' for key, value in card.args.items())})"


def _metric(metric: Metric, full: bool = False) -> str:
    text = f"{metric.name} {metric.value:g} ({metric.data})"
    if not full:
        return text
    original = "" if metric.original is None else f"; the original: {metric.original:g}"
    return text + original + (f"; `{metric.command}`" if metric.command else "")


def _here(card: Card) -> bool:
    return any(card.find(entry) is not None for entry in card.weights)


def _size(card: Card) -> int | None:
    return _entry_size(card, card.weights[0]) if card.weights else None


def _entry_size(card: Card, entry: Weights) -> int | None:
    path = card.find(entry)
    return entry.bytes if path is None else path.stat().st_size


def _as_json(card: Card) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(card) | {"folder": str(card.folder), "size": _size(card), "here": _here(card)}
