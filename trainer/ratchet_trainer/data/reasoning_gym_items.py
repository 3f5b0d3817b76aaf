"""The source `reasoningGym`: items that the reasoning-gym library generates, numbered by Ratchet.

Decides which seed makes which item. The library seeds item i with seed + i, so another small seed gives the same items
again; here an item is (task, config digest, absolute index) and its seed a hash of these. Training items are 0..size-1,
held-out items begin at 2^40; a held-out item whose text occurs in training is left out and counted.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ratchet_api.canonical import sha256
from ratchet_api.datasets import ReasoningGym
from ratchet_trainer.data import held_out
from ratchet_trainer.data.item import Item, with_system
from ratchet_trainer.data.remembered import Remembered
from ratchet_trainer.errors import ConfigurationInvalid

HELD_OUT_BASE = 2**40
CACHE = 65_536
"""Items kept in memory; a step's prompts are read once, an epoch later they are made again."""


class ReasoningGymItems:
    """Items of one task and configuration, made when they are asked for."""

    held = False

    def __init__(self, name: str, spec: ReasoningGym, system: str | None = None, remembered: Remembered | None = None):
        """Raises ConfigurationInvalid for a task or a setting that the library does not know."""
        self.name, self.size, self._spec, self._system = name, spec.size, spec, system
        self.remembered = remembered or Remembered(None)
        self.digest = sha256({"task": spec.task, "config": spec.config, "size": spec.size})
        if system is not None:
            self.digest = sha256({"digest": self.digest, "system": system})
        self._identity = sha256({"task": spec.task, "config": spec.config})
        self._dataset, self._config = load_task(spec.task)
        self.item = lru_cache(CACHE)(self._generate)
        self.item(0)  # a bad setting is found now, not in the middle of a run

    def _generate(self, index: int) -> Item:
        # 32 bits, because some tasks hand their seed to numpy. Chance repetitions are found by text.
        seed = int.from_bytes(hashlib.blake2b(f"{self._identity}/{index}".encode(), digest_size=4).digest())
        try:
            config = self._config(**self._spec.config, size=1, seed=seed)
            if hasattr(config, "validate"):
                config.validate()
            entry = self._dataset(config)[0]
        except (TypeError, AssertionError, ValueError) as error:
            raise ConfigurationInvalid(
                f"data set {self.name}: reasoning-gym task {self._spec.task} refuses config "
                f"{self._spec.config}: {error}; the names are the library's own"
            ) from error
        if not isinstance(entry["answer"], str):
            raise ConfigurationInvalid(
                f"data set {self.name}: task {self._spec.task} has no expected answer as text, which verifiers need; "
                f"choose another task"
            )
        # What else the library knows of an item is no JSON: a verifier that needs it makes the item again.
        return with_system(Item(entry["question"], entry["answer"], fields={"seed": seed}), self._system)

    def held_out(self, count: int, training: Iterable[Any]) -> tuple[list[tuple[int, Item]], int]:
        """`count` items with different questions that occur in no training set, and how many were left out.

        Reads the training sets whole. Raises ConfigurationInvalid if the task has not enough questions.
        """
        seen = set(held_out.all_asked(training).tolist())
        found: list[tuple[int, Item]] = []
        tried = 50 * count
        for index in range(HELD_OUT_BASE, HELD_OUT_BASE + tried):
            item = self._generate(index)
            if item.asked_hash not in seen:
                seen.add(item.asked_hash)
                found.append((index, item))
                if len(found) == count:
                    return found, index + 1 - HELD_OUT_BASE - count
        raise ConfigurationInvalid(
            f"data set {self.name}: {count} held-out items were asked for, but of {tried} candidates only {len(found)} "
            f"differ from the training items; make reasoningGym.size smaller or the task's config wider"
        )


def load_task(task: str) -> tuple[type, type]:
    """The library's data set and config classes of a task; imports that task's module only (all of them take a second).

    Raises ConfigurationInvalid for an unknown task, with near misses.
    """
    factory = sys.modules.get("reasoning_gym.factory")
    if factory is None or task not in factory.DATASETS:
        modules = _task_modules()
        if task not in modules:
            near = difflib.get_close_matches(task, modules, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ConfigurationInvalid(f"reasoning-gym has no task {task!r}{hint}")
        _import_alone(modules[task])
        factory = sys.modules["reasoning_gym.factory"]
    found: tuple[type, type] = factory.DATASETS[task]
    return found


@lru_cache(1)
def _root() -> Path:
    spec = importlib.util.find_spec("reasoning_gym")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationInvalid("reasoning-gym is not installed; install ratchet-rl[trainer]")
    return Path(spec.submodule_search_locations[0])


@lru_cache(1)
def _task_modules() -> dict[str, str]:
    """Task -> module, read from the sources: each registers itself by a literal name."""
    found = {}
    for path in sorted(_root().rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "register_dataset(" not in text:
            continue
        for name in re.findall(r'^DATASET_NAME = "(\w+)"|register_dataset\(\s*"(\w+)"', text, re.MULTILINE):
            found[name[0] or name[1]] = ".".join(("reasoning_gym", *path.relative_to(_root()).with_suffix("").parts))
    return found


def _import_alone(module: str) -> None:
    """Imports a module of the library without its packages' __init__, which import every other task.

    Bare packages stand in while it loads and go afterwards, so that a later `import reasoning_gym` gets the real ones.
    """
    parents = [module.rsplit(".", i)[0] for i in range(module.count("."), 0, -1)]
    stand_ins: dict[str, Any] = {}
    for parent in parents:
        if parent not in sys.modules:
            bare = types.ModuleType(parent)
            bare.__path__ = [str(_root().parent.joinpath(*parent.split(".")))]
            sys.modules[parent] = stand_ins[parent] = bare
    try:
        importlib.import_module(module)
    except ImportError:
        # A module that needs something from its package: the long way is right, only slower.
        for parent in stand_ins:
            sys.modules.pop(parent, None)
        importlib.import_module(module)
    finally:
        for parent, bare in stand_ins.items():
            if sys.modules.get(parent) is bare:
                del sys.modules[parent]
