"""Files of data: what may stand in them, what is said of bad ones, and what a restart need not read again."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratchet_api.datasets import Dataset
from ratchet_trainer.data import jsonl
from ratchet_trainer.data.items import open_source
from ratchet_trainer.errors import ConfigurationInvalid

ROWS = [{"question": f"{a}+1=", "answer": str(a + 1), "choices": ["x", str(a)]} for a in range(30)]


def opened(kind: str, path: Path, cache: Path | None = None, **columns: Any) -> Any:
    return open_source(Dataset.model_validate({"name": "d", kind: {"path": str(path), **columns}}), cache)


def lines(rows: list, end: str = "\n") -> str:
    return "".join(json.dumps(row) + end for row in rows)


def all_of(source: Any) -> list:
    return [source.item(i) for i in range(source.size)]


@pytest.fixture
def plain(tmp_path: Path) -> Any:
    (tmp_path / "plain.jsonl").write_text(lines(ROWS))
    return opened("jsonl", tmp_path / "plain.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + lines(ROWS),
        lines(ROWS, "\r\n"),
        lines(ROWS, "\r"),
        "\n \r\n" + lines(ROWS, "\n\n") + "\t\n",
        lines(ROWS).rstrip("\n"),
        lines(ROWS).replace("{", " { ").replace("}", " } "),
    ],
)
def test_marks_ends_of_lines_and_blank_lines_make_no_difference(tmp_path: Path, plain: Any, content: str) -> None:
    (tmp_path / "d.jsonl").write_bytes(content.encode())
    assert all_of(opened("jsonl", tmp_path / "d.jsonl")) == all_of(plain)


def test_a_number_of_a_line_is_that_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(
        b'\r\n{"question": "a", "answer": "b"}\r\n\r\n{"question": "c", "answer": "d"}\n'
    )
    source = opened("jsonl", tmp_path / "d.jsonl")
    assert [source.place(i).rpartition(":")[2] for i in range(2)] == ["2", "4"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lines(ROWS).encode("utf-16"), r"d.jsonl: is UTF-16, .*iconv -f UTF-16 -t UTF-8 d.jsonl"),
        (lines(ROWS).encode("utf-16-le"), "is UTF-16 without a mark"),
        (b"\x1f\x8b\x08\0", r"compressed by gzip.*gunzip d.jsonl"),
        (b"PAR1....", "is Parquet.* name it under parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "d.jsonl: is a Git LFS pointer.*git lfs pull"),
        (json.dumps(ROWS, indent=1).encode(), r"is a JSON array, .*jq -c '\.\[\]' d.jsonl"),
    ],
)
def test_files_of_other_kinds_are_named_with_a_way_out(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match=words):
        opened("jsonl", tmp_path / "d.jsonl")


def test_a_line_without_end_is_refused_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST", 1000)
    (tmp_path / "d.jsonl").write_text(lines(ROWS[:1]) + json.dumps({"question": "a" * 2000, "answer": "b"}))
    with pytest.raises(ConfigurationInvalid, match=r"d.jsonl:2: longer than .* jq -c"):
        opened("jsonl", tmp_path / "d.jsonl")


def test_all_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    bad = {3: "{", 7: '{"question": "a"}', 8: '{"question": "b"}', 20: '{"question": "a", "answer": null}'}
    (tmp_path / "d.jsonl").write_text("".join(bad.get(n, json.dumps(ROWS[0])) + "\n" for n in range(1, 31)))
    with pytest.raises(ConfigurationInvalid, match="data set d: 4 of 30 items cannot be used: ") as error:
        opened("jsonl", tmp_path / "d.jsonl")
    for words in (
        "d.jsonl:3: not JSON",
        "d.jsonl:7: no key 'answer'",
        "d.jsonl:8: the same",
        "d.jsonl:20: 'answer' is null",
    ):
        assert words in str(error.value)
    (tmp_path / "d.jsonl").write_text("x\n" * 1000)
    with pytest.raises(ConfigurationInvalid, match=r"1000 of 1000 .*:10: the same; and 990 more"):
        opened("jsonl", tmp_path / "d.jsonl")


def test_equal_questions_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "d.jsonl").write_text(lines(ROWS + ROWS[:3]))
    with caplog.at_level(logging.WARNING):
        opened("jsonl", tmp_path / "d.jsonl")
    assert "3 of 33 items ask what another item asks too" in caplog.text


def test_digests_of_files_are_those_of_older_checkpoints(tmp_path: Path) -> None:
    """A digest decides the order of epochs, so a run that began with an older version depends on it."""
    (tmp_path / "d.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n')
    assert opened("jsonl", tmp_path / "d.jsonl").digest == (
        "c42b18d3a0e61868e6f7e5db7be4690f86b335aa49fe0ec910134670155bf28e"
    )


def test_tables_hold_the_same_items_as_lines(tmp_path: Path, plain: Any) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet", row_group_size=7)
    source = opened("parquet", tmp_path / "d.parquet")
    assert all_of(source) == all_of(plain)
    assert source.place(8).endswith("d.parquet, row 9")


def test_a_large_table_is_in_memory_one_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ratchet_trainer.data import tables

    monkeypatch.setattr(tables, "KEPT", 1)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet", row_group_size=7)
    source = opened("parquet", tmp_path / "d.parquet")
    for i in (0, 29, 14, 3):
        assert source.item(i).question == ROWS[i]["question"]
        assert len(source._rows._tables) == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [{"question": "a", "answer": None}, {"question": "b", "answer": "c"}],
            r"1 of 2 .*d.parquet, row 1: 'answer' is null",
        ),
        ([{"prompt": "a", "solution": "b"}], r"no key 'question' \(there is 'prompt', 'solution'\)"),
        ([], "has no items"),
    ],
)
def test_bad_rows_of_a_table_are_named(tmp_path: Path, rows: list, words: str) -> None:
    schema = None if rows else pa.schema({"question": pa.string(), "answer": pa.string()})
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "d.parquet")
    with pytest.raises(ConfigurationInvalid, match=words):
        opened("parquet", tmp_path / "d.parquet")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    content = (tmp_path / "d.parquet").read_bytes()
    (tmp_path / "d.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigurationInvalid, match=r"d.parquet: cannot be read as a table"):
        opened("parquet", tmp_path / "d.parquet")


def saved(folder: Path, rows: list, files: int = 2) -> Path:
    """A folder as `Dataset.save_to_disk` writes it."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    share = -(-len(rows) // files)
    for i, name in enumerate(names):
        table = pa.Table.from_pylist(rows[i * share : (i + 1) * share])
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=4)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_folders_of_the_datasets_library_hold_the_same_items(tmp_path: Path, plain: Any) -> None:
    assert all_of(opened("huggingFace", saved(tmp_path / "saved", ROWS))) == all_of(plain)
    both = tmp_path / "both"
    saved(both / "train", ROWS), saved(both / "test", ROWS[:2], 1)
    (both / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert all_of(opened("huggingFace", both)) == all_of(plain)
    assert all_of(opened("huggingFace", both, split="test")) == all_of(plain)[:2]
    hub = tmp_path / "hub" / "data"
    hub.mkdir(parents=True)
    for i, part in enumerate((ROWS[:9], ROWS[9:])):
        pq.write_table(pa.Table.from_pylist(part), hub / f"train-{i:05}-of-00002.parquet")
    (hub / "test.jsonl").write_text(lines(ROWS[:4]))
    (hub.parent / "README.md").write_text("")
    assert all_of(opened("huggingFace", hub.parent)) == all_of(plain)
    assert opened("huggingFace", hub.parent, split="test").size == 4


def test_json_lines_in_several_files_of_a_folder_are_one_data_set(tmp_path: Path, plain: Any) -> None:
    for i, part in enumerate((ROWS[:9], ROWS[9:])):
        (tmp_path / f"train-{i:05}-of-00002.jsonl").write_text(lines(part))
    (tmp_path / "plain.jsonl").unlink()
    source = opened("huggingFace", tmp_path)
    assert all_of(source) == all_of(plain)
    assert source.place(9).endswith("train-00001-of-00002.jsonl:1")


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    def refused(words: str, **columns: str) -> None:
        with pytest.raises(ConfigurationInvalid, match=words):
            opened("huggingFace", tmp_path, **columns)

    refused("no data set: neither state.json .*save_to_disk or to_parquet")
    (tmp_path / "x.csv").write_text("a,b")
    refused(r"there is x.csv")
    for config in ("main", "socratic"):
        (tmp_path / config).mkdir()
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / config / "train-00000-of-00001.parquet")
    refused("several folders, main, socratic; set huggingFace.path to one of them")
    refused("no split 'test'; set huggingFace.split to one of train", split="test")
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
    refused("names files that are not there: gone.arrow")
    (tmp_path / "state.json").write_text("{")
    refused("state.json: not JSON")


def test_the_next_attempt_reads_no_line_that_it_does_not_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.jsonl").write_text(lines(ROWS))
    first = opened("jsonl", tmp_path / "d.jsonl", tmp_path / "cache")
    monkeypatch.setattr(jsonl, "scan", lambda *_: pytest.fail("the file is read again"))
    again = opened("jsonl", tmp_path / "d.jsonl", tmp_path / "cache")
    assert (again.digest, again.size, again.item(29)) == (first.digest, first.size, first.item(29))
    monkeypatch.undo()
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"torn")
    assert opened("jsonl", tmp_path / "d.jsonl", tmp_path / "cache").digest == first.digest
    (tmp_path / "d.jsonl").write_text(lines(ROWS[::-1]))
    assert opened("jsonl", tmp_path / "d.jsonl", tmp_path / "cache").item(0).question == "29+1="
    (tmp_path / "a file").write_text("")
    assert opened("jsonl", tmp_path / "d.jsonl", tmp_path / "a file" / "cache").size == 30, "only slower"


def test_a_file_that_changes_under_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(lines(ROWS))
    source = opened("jsonl", tmp_path / "d.jsonl")
    os.replace(tmp_path / "d.jsonl", tmp_path / "old.jsonl")
    assert source.item(3).answer == "4", "a file that is replaced is still the one that was opened"
    (tmp_path / "old.jsonl").write_text(lines(ROWS[::-1] + ROWS))
    with pytest.raises(ConfigurationInvalid, match="was written to while a run reads it"):
        source.item(3)
