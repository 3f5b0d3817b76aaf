"""Writers that race for one name on a bucket: one of them has made it, whatever happens to requests and servers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from racing_owners import race
from served import Served

from ratchet_trainer import storage
from ratchet_trainer.checkpoints.journal import Claim, Journal
from ratchet_trainer.storage import Location, with_retries

WRITERS, RACES = 8, 100

RACER = """
import os, sys
from ratchet_trainer import storage
from ratchet_trainer.storage import Location

place, me = Location.parse(sys.argv[1]), sys.argv[2]
storage.read(place / "warm")
print("ready", flush=True)
for number in sys.stdin:
    print(int(storage.create(place / number.strip(), f"{me} {number}".encode())), flush=True)
"""


def test_of_writers_that_race_one_wins(served: Served) -> None:
    place = served.bucket() / "races"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": served.environment()}
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(place), str(n)], **pipes) for n in range(WRITERS)
    ]  # fmt: skip
    try:
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for race in range(RACES):
            for racer in racers:
                racer.stdin.write(f"{race}\n")
                racer.stdin.flush()
            won = [int(racer.stdout.readline()) for racer in racers]
            assert sum(won) == 1, f"race {race}: {won}"
            assert storage.read(place / str(race)) == f"{won.index(1)} {race}\n".encode()
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()


def test_owners_that_race_never_interleave(served: Served) -> None:
    race(served.bucket() / "jobs", owners=4, steps=29, env=served.environment())


def owner(place: Location) -> Journal:
    journal = Journal(place)
    journal.claim(Claim(0, "default", "sums", "uid-1", "hash", 1, "jobset-1"), None, 0)
    return journal


@pytest.mark.parametrize("answers", [1, 2, 20])
def test_a_write_whose_answer_was_lost_counts_as_what_it_was(served: Served, answers: int, quickly: None) -> None:
    """TensorStore tries again by itself; at the twentieth loss we are told of it, and read back. Only answers to writes
    of the entry are lost."""
    journal = owner(served.bucket() / "jobs/sums")
    lost = []

    def loses(request: tuple[str, str]) -> bool:
        if request[0] in ("PUT", "POST") and "0000000002.json" in request[1] and len(lost) < answers:
            lost.append(request)
            return True
        return False

    served.proxy.loses = loses
    made = with_retries("committing", lambda: journal.commit(1, "steps/1-a1", "00"))
    assert lost
    assert made.seq == 2
    assert [e.seq for e in Journal(journal.folder.parent).read()] == [1, 2]


def test_a_server_that_is_killed_and_comes_back_loses_nothing(served: Served) -> None:
    """Of the fake Google the process is killed; that of S3 has objects in memory, so there the way to it is cut."""
    journal = owner(served.bucket() / "jobs/sums")
    done, ended = [], threading.Event()

    def go_on() -> None:
        for step in range(1, 61):
            done.append(with_retries("committing", lambda step=step: journal.commit(step, f"{step}-a1", "00")).step)
        ended.set()

    writer = threading.Thread(target=go_on, daemon=True)
    writer.start()
    for at in (10, 30):
        while len(done) < at:
            time.sleep(0.001)
        if served.store.kind == "gs":
            served.store.stop()
            time.sleep(1.0)
            served.store.start()
        else:
            served.proxy.down()
            time.sleep(1.0)
            served.proxy.up()
    writer.join(120)
    assert ended.is_set()
    again = Journal(journal.folder.parent)
    again.read()
    assert sorted(c.step for c in again.candidates()) == done == list(range(1, 61))
