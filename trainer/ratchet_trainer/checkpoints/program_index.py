"""The index of the compilation cache: from what a program is made of to the program, without tracing it.

The cache's own key is a digest of the program that was traced and lowered, so a start that compiles nothing would still
trace everything. An entry here has a key that is known before (`program_key`), and holds the other key and all that
JAX knows of a compiled program but its code: shapes, places and layouts of arguments and results.

Decides when an entry is trusted: when it has its digest, names its own key again, and the program that it leads to is
whole. In every other case the program is traced, and what stood there is replaced.

Entries are pickled, as JAX pickles compiled programs. That asks for no more trust than the cache does, whose contents
are machine code: who can write to the folder runs programs here.
"""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable
from typing import Any

from ratchet_trainer.checkpoints.program_cache import ProgramCache
from ratchet_trainer.checkpoints.program_key import Indescribable

log = logging.getLogger(__name__)

KIND = "index"


class ProgramIndex:
    """The index in the folder of a cache. `surroundings`: as of `program_key`."""

    def __init__(self, cache: ProgramCache, surroundings: str):
        self.surroundings = surroundings
        self._cache, self._entries = cache, ProgramCache(cache.folder, KIND)

    def get(self, key: str) -> Any:
        """What stands there: a `jax.stages.Compiled`, or shapes. None where it is not there or cannot be trusted."""
        try:
            content = self._entries.get(key)
            if content is None:
                return None
            named, kind, body = pickle.loads(content)
            if named != key:
                return None
            return self._loaded(*body) if kind == "program" else pickle.loads(body)
        except Exception as error:  # whatever a bucket, pickle or another JAX has to say: it can be traced
            log.warning("%s is traced, as it could not be loaded: %s", key, error)
            return None

    def compiled(self, key: str, lowered: Any) -> Any:
        """Compiles a program, or takes it from the cache, and enters it. One that cannot be entered, as it calls Python
        or no cache has it, is only compiled."""
        with self._cache.watched() as asked:
            compiled = lowered.compile()
        if len(asked) == 1:
            self._put(key, "program", lambda: (asked[0], *_parts(compiled)))
        return compiled

    def put_shapes(self, key: str, shapes: Any) -> None:
        """Enters the shapes of what a function gives."""
        self._put(key, "shapes", lambda: pickle.dumps(shapes))

    def _put(self, key: str, kind: str, body: Callable[[], Any]) -> None:
        try:
            self._entries.put(key, pickle.dumps((key, kind, body())))
        except Exception as error:  # the program is there; only the next start has to trace it, too
            log.warning("%s is not entered and will be traced again: %s", key, error)

    def _loaded(self, program: str, unloaded: bytes, devices: tuple[int, ...], trees: bytes) -> Any:
        """A compiled program of its parts. Raises LookupError if the cache has it no longer."""
        import jax
        from jax._src import compilation_cache

        content = self._cache.get(program)
        if content is None:
            raise LookupError(f"{program} is gone")
        code, _ = compilation_cache.extract_executable_and_time(compilation_cache.decompress_executable(content))
        arguments, out_tree, no_kwargs = pickle.loads(trees)
        executable = _Unpickler(unloaded, code, devices).load()
        return jax.stages.Compiled(executable.load(), [], arguments, out_tree, no_kwargs=no_kwargs)


def _parts(compiled: Any) -> tuple[bytes, tuple[int, ...], bytes]:
    """All of a compiled program but its code: what JAX knows of it, its devices, and the trees of its arguments and
    results. Raises Indescribable for one that is more than that."""
    unloaded = compiled._executable._unloaded_executable
    more = (unloaded.host_callbacks, unloaded.keepalive, unloaded.unordered_effects, unloaded.ordered_effects)
    if any(more) or unloaded.mut or compiled._params.const_args:
        raise Indescribable("it calls Python, or has effects or constants of its own")
    file = io.BytesIO()
    _Pickler(file).dump(unloaded)
    trees = compiled.args_info, compiled.out_tree, compiled._no_kwargs
    return file.getvalue(), tuple(device.id for device in unloaded.device_list), pickle.dumps(trees)


# As in jax.experimental.serialize_executable, but for the code, which stays in the cache: what was loaded from there
# cannot always be serialized again.

CODE, DEVICE, CLIENT = "code", "device", "client"


class _Pickler(pickle.Pickler):
    def persistent_id(self, it: Any) -> Any:
        from jax._src.lib import _jax  # type: ignore[attr-defined]  # JAX's own

        if isinstance(it, _jax.LoadedExecutable | _jax.Executable):
            return (CODE,)
        if isinstance(it, _jax.Device):
            return DEVICE, it.id
        return (CLIENT,) if isinstance(it, _jax.Client) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, code: bytes, devices: tuple[int, ...]):
        import jax
        from jax._src.lib import _jax  # type: ignore[attr-defined]  # JAX's own

        super().__init__(io.BytesIO(data))
        self._code, self._devices = code, {device.id: device for device in jax.devices()}
        self._client = jax.devices()[0].client
        self._list = _jax.DeviceList(tuple(self._devices[i] for i in devices))

    def persistent_load(self, it: Any) -> Any:
        if it[0] == CODE:
            return self._client.deserialize_executable(self._code, executable_devices=self._list)
        return self._devices[it[1]] if it[0] == DEVICE else self._client
