"""Packets of a container, ending in one that empties the decoder, also where streams turn up while reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

__all__ = ["packets_of"]


def packets_of(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet]:
    """Packets of `streams`, of which the first is the one to decode; at the end an empty packet for each.

    PyAV's own list of streams is made when the file is opened. A damaged transport stream may announce more of them
    later, and PyAV then fails with IndexError at the end, before or after the empty packet that is needed.
    """
    import av

    emptied = False
    try:
        for packet in container.demux(*streams):
            emptied |= packet.size == 0 and packet.stream_index == streams[0].index
            yield packet
    except IndexError:
        if not emptied:
            last = av.Packet()
            last.stream = streams[0]
            yield last
