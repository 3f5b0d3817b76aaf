"""What every kind of storage promises: a path, a Google bucket and an S3 bucket are put to the same tests."""

from __future__ import annotations

from ratchet_trainer import storage
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.stream import Stream


def test_what_is_written_is_read_whole(place: Location) -> None:
    file = place / "a" / "b.json"
    assert storage.read(file) is None
    assert not storage.exists(file)
    storage.write(file, b"one")
    storage.write(file, b"two and more")
    assert storage.read(file) == b"two and more"
    assert storage.exists(file)
    assert storage.read(place / "a") is None, "a folder has no content"
    storage.write(file, b"")
    assert storage.read(file) == b"", "an empty file is there"


def test_a_file_is_created_once(place: Location) -> None:
    file = place / "journal" / "1.json"
    assert storage.create(file, b"mine")
    assert not storage.create(file, b"yours")
    assert storage.read(file) == b"mine"


def test_names_are_those_right_under_a_folder(place: Location) -> None:
    for name in ("steps/2/arrays/d/1", "steps/2/control.json", "steps/10/control.json", "steps/x.json", "stepsister"):
        storage.write(place / name, b".")
    assert storage.names(place / "steps") == ["10", "2", "x.json"]
    assert storage.tree(place / "steps") == ["10/control.json", "2/arrays/d/1", "2/control.json", "x.json"]
    assert storage.names(place / "nothing") == storage.tree(place / "nothing") == []


def test_a_folder_is_removed_with_all_that_is_in_it_and_nothing_else(place: Location) -> None:
    for name in ("steps/2/arrays/1", "steps/2/control.json", "steps/22/control.json"):
        storage.write(place / name, b".")
    storage.delete_tree(place / "steps" / "2")
    assert storage.tree(place) == ["steps/22/control.json"]
    storage.delete(place / "steps/22/control.json")
    assert storage.tree(place) == []
    storage.delete(place / "steps/22/control.json")
    storage.delete_tree(place / "steps")


def test_a_stream_grows_and_is_cut(place: Location) -> None:
    stream = Stream(place / "metrics.jsonl")
    assert stream.read() == b""
    assert stream.restart(0, b"") == 0
    stream.put(0, b"one\n")
    stream.put(4, b"two\n")
    stream.put(8, b"three\n")
    stream.put(4, b"two\n")  # by a replay
    assert Stream(place / "metrics.jsonl").read() == b"one\ntwo\nthree\n"
    again = Stream(place / "metrics.jsonl")
    assert again.restart(4, b"II\n") == 0
    assert again.read() == b"one\nII\n"
    again.append(b"III\n")
    other = Stream(place / "metrics.jsonl")
    other.append(b"IV\n")
    assert other.read() == b"one\nII\nIII\nIV\n"
    assert other.restart(6, b"!\n") == 0, "cut in the middle of what was added at once"
    assert other.read() == b"one\nII!\n"


def test_what_a_stream_lacks_before_its_new_end_is_blank(place: Location) -> None:
    stream = Stream(place / "metrics.jsonl")
    stream.restart(0, b"one\n")
    assert stream.restart(8, b"three\n") == 4
    assert stream.read() == b"one\n   \nthree\n"


def test_a_large_stream_is_replaced_in_pieces(place: Location, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("ratchet_trainer.storage.bucket.PIECE", 10)
    stream = Stream(place / "rollouts" / "0-of-1")
    for parts in ([b"0123456", b"789abcdefghijklmnopqrstuvw", b"", b"x" * 35], [b"short"]):
        stream.replace([memoryview(part) for part in parts])
        whole = b"".join(parts)
        assert Stream(stream.place).read() == whole
        for offset, size in ((0, 3), (0, 80), (7, 4), (9, 2), (30, 30), (len(whole), 1), (len(whole) - 1, 9)):
            assert stream.read_range(offset, size) == whole[offset : offset + size]
    stream.remove()
    assert stream.read() == stream.read_range(0, 9) == b""
    assert storage.tree(place) == []
