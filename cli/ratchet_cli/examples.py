"""`ratchet examples`: the manifests that come with the program, listed, shown, or copied."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import click

from ratchet_cli import shipped
from ratchet_cli.beside import files_beside
from ratchet_cli.manifests import fail, read_job


@click.command()
@click.argument("name", required=False)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    help="Copy it to this file, and beside it what it reads.",
)
def examples(name: str | None, target: Path | None) -> None:
    """List the example manifests; with NAME show one, such as sums or methods/grpo.

    Data, functions and model configs that an example finds in folders beside it are copied with it.

    Exits 66 for a name that there is not, 73 when the file is there already or cannot be written.
    """
    try:
        folder = shipped.examples()
    except FileNotFoundError as problem:
        fail(os.EX_SOFTWARE, str(problem))
    found = {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}
    if name is None:
        for title, path in found.items():
            click.echo(f"{title:45} {_first_words(path)}".rstrip())
        return
    wanted = found.get(name.removesuffix(".yaml").removeprefix("examples/"))
    if wanted is None:
        fail(os.EX_NOINPUT, f"there is no example {name}; `ratchet examples` lists them")
    if target is None:
        click.echo(wanted.read_text(), nl=False)
        return
    try:
        beside = _copy(wanted, target)
    except OSError as problem:
        fail(os.EX_CANTCREAT, f"{problem.filename or target}: {problem.strerror}; name a file in another folder")
    click.echo(f"{target}: a copy of {name}")
    for file in beside:
        click.echo(f"{target.parent / file}: what it reads")


def _copy(source: Path, target: Path) -> list[Path]:
    """Copies a manifest and the files that it takes from beside it; the latter, relative to the folder. Those that are
    there with the same content stay. Raises OSError, before it writes anything where a file is in the way."""
    text = source.read_text(encoding="utf-8")
    beside = files_beside(read_job(str(source))[1], source.parent)
    held = [file for file in beside if (target.parent / file).exists()]
    taken = [file for file in held if (target.parent / file).read_bytes() != (source.parent / file).read_bytes()]
    for there in [target] if target.exists() else [target.parent / file for file in taken]:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(there))
    with open(target, "x", encoding="utf-8") as opened:
        opened.write(_with_its_schema(text, target.parent))
    for name in beside:
        (target.parent / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / name, target.parent / name)
    return beside


def _with_its_schema(text: str, folder: Path) -> str:
    """The text of an example, without the first line, which names a schema for editors, where there is no such file."""
    first, _, rest = text.partition("\n")
    named = first.partition("$schema=")[2]
    return rest if named and not (folder / named).is_file() else text


def _first_words(path: Path) -> str:
    """The first sentence of its comment."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("# ") and "$schema" not in line]
    first = lines[0].removeprefix("# ").partition(";")[0] if lines else ""
    return re.split(r"(?<!\bDr)\. ", first)[0].rstrip(".")
