"""The assembly line: a reader and stages, each in a thread of its own, joined by queues bounded in bytes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from visionkit.errors import ModelError
from visionkit.pipeline.buffers import ByteQueue, Cancelled, Turns
from visionkit.pipeline.stage import Item, Stage
from visionkit.pipeline.threads import quick_handover

if TYPE_CHECKING:
    from visionkit.structures import Frame

__all__ = ["MAX_BYTES", "MAX_ITEMS", "Line"]

# Held between two neighbours. Eight frames level out a decoder's and an encoder's bursts (frame threads, B-frames);
# the bytes keep 4K and 8K sources within memory.
MAX_ITEMS = 8
MAX_BYTES = 64 * 2**20


class Line:
    """Frames in, items out, in order, while every stage works on its own item at the same time.

    Iterate it once. The first exception of any thread stops all of them and is raised to the iterating caller as it
    was, with its traceback; leaving the loop early stops them as well. No thread outlives the iteration.

    Attributes:
        seconds: time spent inside each stage (all its workers together) and in the reader (`decode`), waiting left
            out.
        exhausted: the reader has given everything it had.
        failed: how many frames were marked with a `ModelError`; `first_failure` is the first of them, `failed_in` tells
            how many each stage marked, by its name.

    Args:
        frames: the reader; iterated in its own thread.
        stages: in order. Their `setup` is the caller's business.
        max_bytes: the most bytes of pixels waiting between two neighbours.
        max_items: the most frames waiting there.
        fail_fast: a `ModelError` on one frame ends the run instead of marking the frame.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        stages: Sequence[Stage],
        *,
        max_bytes: int = MAX_BYTES,
        max_items: int = MAX_ITEMS,
        fail_fast: bool = False,
    ) -> None:
        self.frames, self.stages, self.fail_fast = frames, list(stages), fail_fast
        self.queues: list[ByteQueue[Item]] = [ByteQueue(max_bytes, max_items) for _ in range(len(self.stages) + 1)]
        self.seconds = dict.fromkeys(["decode", *(stage.name for stage in self.stages)], 0.0)
        if len(self.seconds) != len(self.stages) + 1:
            raise ValueError(f"Stages need different names. Received: {[stage.name for stage in self.stages]}.")
        self.exhausted = False
        self.failed = 0
        self.failed_in: Counter[str] = Counter()
        self.first_failure: ModelError | None = None
        self._turns: list[Turns] = []
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._failure_lock = threading.Lock()

    def stop(self) -> None:
        """Read no further frame; those already read still come out. Safe from a signal handler."""
        self._stop.set()

    def __iter__(self) -> Iterator[Item]:
        threads = [threading.Thread(target=self._guard, args=(self._read,), name="decode", daemon=True)]
        for place, stage in enumerate(self.stages):
            turns = Turns(stage.workers)
            self._turns.append(turns)
            run = (self._work, stage, self.queues[place], self.queues[place + 1], turns)
            for _ in range(stage.workers):
                threads.append(threading.Thread(target=self._guard, args=run, name=stage.name, daemon=True))
        last = self.queues[-1]
        with quick_handover():
            for thread in threads:
                thread.start()
            try:
                while (item := last.get()) is not None:
                    yield item
            except Cancelled:
                pass  # by a failing thread; raised below
            finally:
                self._tear_down()
                for thread in threads:
                    thread.join()
        if self._failure is not None:
            raise self._failure

    def _read(self) -> None:
        first, reader = self.queues[0], iter(self.frames)
        try:
            while not self._stop.is_set():
                begin = time.perf_counter()
                frame = next(reader, None)
                self.seconds["decode"] += time.perf_counter() - begin
                if frame is None:
                    self.exhausted = True
                    break
                item = Item(frame)
                first.put(item, item.nbytes)
        finally:
            close = getattr(reader, "close", None)  # a generator's `finally` runs here, not when it is collected
            if close is not None:
                close()
        first.end()

    def _work(self, stage: Stage, inbox: ByteQueue[Item], outbox: ByteQueue[Item], turns: Turns) -> None:
        """One worker of a stage: takes items in turn, works on them beside its fellows, hands them on in turn."""
        ended = False
        while not ended:
            items: list[Item] = []
            with turns.taking() as ticket:
                while len(items) < stage.batch and not ended:
                    item = inbox.get()
                    if item is None:
                        ended = True
                    else:
                        items.append(item)
            begin = time.perf_counter()
            if items:
                self._process(stage, items)
            busy = time.perf_counter() - begin
            with turns.giving(ticket):
                begin = time.perf_counter()
                if items:
                    stage.settle(items)
                self.seconds[stage.name] += busy + time.perf_counter() - begin
                for item in items:
                    outbox.put(item, item.nbytes)
        if turns.leave():
            outbox.end()

    def _process(self, stage: Stage, items: list[Item]) -> None:
        try:
            stage.process(items)
        except ModelError as error:
            if self.fail_fast:
                raise
            if len(items) > 1:  # find the one that fails; its neighbours keep their results
                for item in items:
                    self._process(stage, [item])
                return
            with self._failure_lock:
                self.failed += items[0].error is None  # a stage behind may fail on the same frame
                self.failed_in[stage.name] += 1
                self.first_failure = self.first_failure or error
            items[0].error = items[0].error or f"{stage.name}: {error.message}"

    def _guard(self, run: object, *args: object) -> None:
        try:
            run(*args)  # type: ignore[operator]
        except Cancelled:
            pass
        except BaseException as error:  # handed to the caller, whatever it is
            with self._failure_lock:
                self._failure = self._failure or error
            self._tear_down()

    def _tear_down(self) -> None:
        self._stop.set()
        for queue in self.queues:
            queue.cancel()
        for turns in self._turns:
            turns.cancel()
