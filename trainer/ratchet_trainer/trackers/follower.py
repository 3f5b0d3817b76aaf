"""One process that follows the metric stream of a run for one tracker: `python -m ratchet_trainer.trackers.follower`.

Decides when the tracker is told, and what is done when that fails: it is tried again, more and more seldom, as long as
the attempt lives. It is a process of its own so that a tracker which hangs, crashes, or is slow to import costs the
training nothing. It ends when its standard input does, because then the trainer is gone.

    standard input     the settings as one line of JSON; then a line for each commit; `finish` asks it to end
    standard output    a line of JSON when there is news: {"state", "step", "message"}, as `documents.TrackerShown`
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ratchet_api import log_lines
from ratchet_api.protocol.documents import one_line
from ratchet_trainer.checkpoints.checkpoint import stream_of
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.stream import Stream
from ratchet_trainer.trackers.lines import StepRecord, records, whole
from ratchet_trainer.trackers.tracker import TrackedRun, Tracker, TrackerLeft, open_tracker

log = logging.getLogger(__name__)

RECORDS_AT_ONCE = 200
"""So many steps a call, so that a long run that is caught up with is seen to move."""
PACE_SECONDS = 1.0
BUCKET_PACE_SECONDS = 15.0
"""Between two looks at the stream; on a bucket a look is two requests, and an addition one more."""
BACK_OFF_SECONDS = (2.0, 120.0)
"""After a first failure, and at most."""
SLOW_SECONDS = 15.0
"""Of waiting for a tracker, after which it counts as behind."""
AGAIN_SECONDS = 1.0
"""The same at the end of an attempt, which does not wait for long."""
MOST_BYTES = 16 << 20
"""Of the stream, read at a time."""


class Follower:
    """Holds a tracker against the stream."""

    def __init__(self, tracker: Callable[[], Tracker], stream: Stream, tell: Callable[[dict[str, Any]], None]):
        self._make, self._stream, self._tell = tracker, stream, tell
        self._tracker: Tracker | None = None
        self._read = 0  # bytes of whole lines that the tracker has, once it is open
        self._step: int | None = None
        self._failures = 0

    def catch_up(self) -> float | None:
        """Tells the tracker of all that is committed. Returns the seconds after which to try again if that failed, None
        if it did not. Raises TrackerLeft."""
        try:
            with self._patience():
                if self._tracker is None:
                    self._begin()
                data = self._stream.read_range(self._read, MOST_BYTES)
                while end := whole(data):
                    self._log(list(records(data[:end])))
                    self._read += end
                    data = self._stream.read_range(self._read, MOST_BYTES)
        except TrackerLeft:
            raise
        except Exception as error:  # of a package that we do not know
            log.debug("a tracker failed", exc_info=True)
            self._failures += 1
            self._say("Behind", f"it could not be told, and is tried again: {one_line(_words(error), 600)}")
            self.close()
            first, most = BACK_OFF_SECONDS
            return min(most, first * 2.0 ** min(self._failures - 1, 10))
        self._failures = 0
        self._say("Following")
        return None

    def close(self) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            with contextlib.suppress(Exception):
                tracker.close()

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Says what is waited for, if it takes long."""
        words = f"it has not answered for {SLOW_SECONDS:.0f} s; it is waited for, the training is not held up"
        timer = threading.Timer(SLOW_SECONDS, self._say, ("Behind", words))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _begin(self) -> None:
        data = self._stream.read()
        end = whole(data)
        there = list(records(data[:end]))
        tracker = self._make()
        self._tracker = tracker
        known = tracker.open(there)
        self._step = there[known - 1].step if known else None
        self._log(there[known:])
        self._read = end

    def _log(self, new: list[StepRecord]) -> None:
        assert self._tracker is not None
        for at in range(0, len(new), RECORDS_AT_ONCE):
            some = new[at : at + RECORDS_AT_ONCE]
            self._tracker.log(some)
            self._step = some[-1].step

    def _say(self, state: str, message: str = "") -> None:
        self._tell({"state": state, "step": self._step, "message": message})

    def left(self, message: str) -> None:
        """Says that the tracker is given up."""
        self._say("Left", message)


class News:
    """What the trainer says: that something was committed, that the end has come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._commits = 0
        self.finish = False

    def hear(self, line: str) -> None:
        with self._changed:
            self.finish = self.finish or line == "finish"
            self._commits += 1
            self._changed.notify_all()

    def wait_for_commit(self) -> None:
        """Returns once something was said since the last call."""
        with self._changed:
            self._changed.wait_for(lambda: self._commits)
            self._commits = 0

    def wait_for_finish(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.finish, seconds)


def follow(settings: Mapping[str, Any], news: News, tell: Callable[[dict[str, Any]], None]) -> None:
    """Until `finish` is among the news and all is told, or the tracker is left."""
    directory = Location.parse(settings["directory"])
    run = TrackedRun(settings["namespace"], settings["name"], settings["uid"], directory, settings["spec"])
    follower = Follower(
        lambda: open_tracker(settings["tracker"], settings["settings"], run), stream_of(directory), tell
    )
    pace = BUCKET_PACE_SECONDS if directory.on_bucket else PACE_SECONDS
    try:
        while True:
            finishing = news.finish
            again_in = follower.catch_up()
            if again_in is None and finishing:
                break
            if again_in is None:
                news.wait_for_commit()
                news.wait_for_finish(pace)  # commits that follow soon are told of together
            else:
                news.wait_for_finish(again_in)
                time.sleep(AGAIN_SECONDS if news.finish else 0.0)
    except TrackerLeft as error:
        follower.left(one_line(str(error), 1000))
    follower.close()


def _words(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def main() -> None:
    os.nice(10)  # the training has the machine
    status = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what packages print goes to the log
    settings = json.loads(sys.stdin.readline() or "null")
    if settings is None:
        os._exit(0)
    tracker = settings["tracker"]
    text = logging.Formatter(f"%(asctime)s.%(msecs)03d [{tracker}] %(name)s: %(message)s", "%H:%M:%S")
    about = log_lines.of_pod() | {"tracker": tracker}
    log_lines.configure(sys.stderr, text, lambda: about)
    news = News()

    def listen() -> None:
        for line in sys.stdin:
            news.hear(line.strip())
        os._exit(0)  # the trainer is gone

    threading.Thread(target=listen, name="news", daemon=True).start()
    said: list[dict[str, Any]] = []

    def tell(what: dict[str, Any]) -> None:
        if said != [what]:
            said[:] = [what]
            status.write(json.dumps(what) + "\n")

    follow(settings, news, tell)
    status.close()
    os._exit(0)


if __name__ == "__main__":
    main()
