"""A model's program may do what it likes: it is judged by its tests, and nothing outside of it notices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import case, spec, verified

from ratchet_trainer.algorithm.outcome import Outcome
from ratchet_trainer.algorithm.verifiers import sandbox
from ratchet_trainer.algorithm.verifiers.code_tests import BadTests, read_tests
from ratchet_trainer.algorithm.verifiers.pool import VerifierPool
from ratchet_trainer.algorithm.verifiers.preflight import check_machine
from ratchet_trainer.errors import ConfigurationInvalid

SETTINGS: dict[str, Any] = {"timeoutSeconds": 3, "memoryMiB": 256, "tests": "tests", "sandbox": "Required"}
DOUBLE = ["assert double(2) == 4", "assert double('a') == 'aa'"]
RIGHT = "def double(x):\n    return x * 2\n"
CLASSES = """
import collections, dataclasses, enum, functools, typing, copy, abc

@dataclasses.dataclass(frozen=True)
class Point:
    x: int = 1

class Color(enum.Enum):
    RED = "red"

class Pair(typing.NamedTuple):
    a: int
    b: int = 3

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> float: ...

class Square(Shape):
    def area(self): return 6

@functools.lru_cache(None)
def factorial(n): return n * factorial(n - 1) if n else 1

def f() -> typing.List[object]:
    two = collections.namedtuple("Two", "a b")(1, 2)
    return [copy.deepcopy(Point()).x, two.b, Color.RED.value, Pair(1).b, Square().area(), factorial(5)]
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(spec("code", **SETTINGS).to_json(), workers=1) as pool:
        yield pool


def judged(pool: VerifierPool, program: str, tests: Any = DOUBLE) -> Outcome:
    (outcome,) = verified(pool, [case(f"Here it is:\n```python\n{program}\n```\nDone.", tests=tests)])
    return outcome


def test_the_sandbox_holds_on_this_machine():
    assert sandbox.available() is None


def test_the_sandbox_holds_without_any_right_as_in_a_restricted_pod():
    script = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for right in range(64):
    libc.prctl(24, right, 0, 0, 0)
libc.prctl(38, 1, 0, 0, 0)
again = "import sys; sys.path[:0] = %r; from ratchet_trainer.algorithm.verifiers.sandbox import available"
again += "; print(open('/proc/self/status').read().split('CapEff:')[1].split()[0], available())"
os.execv(sys.executable, [sys.executable, "-c", again % sys.path])
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + script], capture_output=True, text=True
    )
    assert done.stdout.split() == ["0" * 16, "None"], done.stderr


@pytest.mark.parametrize(
    ("program", "tests", "score"),
    [
        (RIGHT, DOUBLE, 1.0),
        ("def double(x):\n    return x + 2\n", DOUBLE, 0.5),
        ("def double(x): return x * 3", DOUBLE, 0.0),
        ("def double(x) return x", DOUBLE, 0.0),
        (RIGHT, "assert double(2) == 4\nassert double(3) == 6", 1.0),
        (RIGHT, "for n in range(5):\n    assert double(n) == n + n", 1.0),
        (RIGHT, "for n in range(5):\n    assert double(n) == n", 0.0),
        (RIGHT, "import math\nassert math.isclose(double(0.1), 0.2)", 1.0),
        (RIGHT, "def check(f):\n    assert f(1) == 2\ncheck(double)", 1.0),
        ("print(int(input()) * 2)", [{"input": "4\n", "output": "8"}, {"input": "5", "output": "10\n"}], 1.0),
        (
            "import sys\nfor line in sys.stdin: print(line.strip()[::-1])",
            [{"input": "ab\ncd", "output": "ba\ndc\n"}],
            1.0,
        ),
        ("print(8)", [{"input": "4\n", "output": "8"}, {"input": "5", "output": "10\n"}], 0.5),
        ("import sys\nprint(8)\nsys.exit(0)", [{"input": "", "output": "8"}], 1.0),
        ("print(sum(map(int, open(0).read().split())))", [{"input": "4 5\n6", "output": "15"}], 1.0),
        (
            "import sys\nprint(sys.stdin.buffer.readline().decode()[::-1].strip())",
            [{"input": "ab", "output": "ba"}],
            1.0,
        ),
        ("import sys\ninput = sys.stdin.readline\nsys.stdout.write(input())", [{"input": "ab", "output": "ab"}], 1.0),
        ("import sys\nprint('x', file=sys.stderr)\nprint(2)\nexit()", [{"input": "", "output": "2"}], 1.0),
        (
            "import sys\nsys.setrecursionlimit(10**5)\ndef g(n): return n and 1 + g(n - 1)\nprint(g(5000))",
            [{"input": "", "output": "5000"}],
            1.0,
        ),
        ("print('h\u00e9', input())", [{"input": "\u00fc", "output": "h\u00e9 \u00fc"}], 1.0),
        ("if __name__ == '__main__':\n    print(1)", [{"input": "", "output": "1"}], 1.0),
        ("print(8)\nraise ValueError", [{"input": "", "output": "8"}], 0.0),
        (
            "from collections import Counter, deque\ndef f(): return Counter('aab')",
            ["assert f() == {'a': 2, 'b': 1}"],
            1.0,
        ),
        (
            "import heapq, re, itertools, decimal, datetime, statistics, random\ndef f(): return 1",
            ["assert f() == 1"],
            1.0,
        ),
        (CLASSES, ["assert f() == [1, 2, 'red', 3, 6, 120]"], 1.0),
        ("import time\ntime.sleep(1000)\ndef f(): return 1", ["assert f() == 1"], 1.0),
        (
            "from datetime import datetime\ndef f(): return datetime.strptime('2020', '%Y').year",
            ["assert f() == 2020"],
            1.0,
        ),
        ("def f(): return {1, 2}, None, -1.5, b'x'", ["assert f() == ({1, 2}, None, -1.5, b'x')"], 1.0),
    ],
)
def test_a_program_gets_the_share_of_tests_that_it_passes(pool: VerifierPool, program: str, tests: Any, score: float):
    outcome = judged(pool, program, tests)
    assert (outcome.score, outcome.accuracy, outcome.status) == (score, float(score == 1.0), "ok")
    assert not outcome.pure


HOSTILE = {
    "reads a file": "open('/etc/passwd').read()",
    "lists a folder": "import os; os.listdir('/')",
    "looks for a file": "import os; os.stat('/etc/passwd')",
    "opens a socket": "import sys, _io\nimport socket; socket.socket()",
    "forks": "import os\nos.fork()",
    "is a fork bomb": "import os\nwhile True: os.fork()",
    "starts a thread": "import threading; threading.Thread(target=print).start()",
    "starts a program": "import os; os.execv('/bin/true', ['true'])",
    "kills its parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "kills everybody": "import os, signal; os.kill(-1, signal.SIGKILL)",
    "leaves its group": "import os; os.setsid()",
    "writes a file": "open('/tmp/ratchet-was-here', 'w').write('x')",
    "makes a folder": "import os; os.mkdir('/tmp/ratchet-was-here')",
    "takes all memory": "x = bytearray(4 * 1024 ** 3)",
    "recurses": "def f(): f()\nf()",
    "dies": "import os; os.abort()",
    "leaves": "import os; os._exit(0)",
    "leaves politely": "import sys; sys.exit(0)",
    "imports what reaches outside": "import ctypes",
    "lifts its limits": "import sys\nimport resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "is equal to all": "class E:\n    def __eq__(self, other): return True\n    def __repr__(self): return '4'\n"
    "def double(x): return E() if x != 2 else [E()]\n",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_program_that_does_what_it_may_not_earns_nothing_and_harms_nobody(pool: VerifierPool, what: str):
    outcome = judged(pool, HOSTILE[what] + "\n" + (RIGHT if "double" not in HOSTILE[what] else ""))
    assert (outcome.accuracy, outcome.score, outcome.status) == (0.0, 0.0, "ok")
    assert not Path("/tmp/ratchet-was-here").exists()
    assert judged(pool, RIGHT).accuracy == 1.0  # the next one is none the worse
    assert not pool.anomalies


@pytest.mark.parametrize(
    "program", ["while True: pass", "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"]
)
def test_a_program_that_does_not_end_is_ended(pool: VerifierPool, program: str):
    outcome = judged(pool, program, ["assert 1 == 1"])
    assert (outcome.accuracy, outcome.status) == (0.0, "timeout")
    assert judged(pool, RIGHT).accuracy == 1.0


def test_a_program_that_prints_a_gigabyte_is_ended(pool: VerifierPool):
    outcome = judged(pool, "while True: print('x' * 1000000)", [{"input": "", "output": "x"}])
    assert (outcome.accuracy, outcome.status) == (0.0, "ok")


def test_a_program_that_searches_its_memory_finds_no_expected_value(pool: VerifierPool):
    program = """
import gc, sys
def texts():
    frame = sys._getframe()
    while frame:
        yield repr(list(frame.f_locals.items()))[:100000]
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, (dict, list, tuple)):
            yield repr(thing)[:2000] if len(thing) < 50 else ""
def secret():
    return int("4711") * 3 if any(str(int("4711") * 3) in text for text in texts()) else 0
"""
    assert judged(pool, program, ["assert secret() == 14133"]).accuracy == 0.0


def test_the_environment_of_the_trainer_is_not_there(pool: VerifierPool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    with VerifierPool(spec("code", **SETTINGS).to_json(), workers=1) as fresh:
        outcome = judged(fresh, "import os\ndef f(): return len(os.environ)", ["assert f() == 0"])
        assert outcome.accuracy == 1.0


def test_a_response_without_a_program_is_unparsable(pool: VerifierPool):
    assert verified(pool, [case("   ", tests=DOUBLE)])[0].status == "unparsable"


def test_the_last_block_of_python_is_the_program(pool: VerifierPool):
    response = f"```python\ndef double(x): return 0\n```\nBetter:\n```py\n{RIGHT}```\nRun it:\n```sh\npython x.py\n```"
    assert verified(pool, [case(response, tests=DOUBLE)])[0].accuracy == 1.0
    assert verified(pool, [case(RIGHT, tests=DOUBLE)])[0].accuracy == 1.0


@pytest.mark.parametrize("tests", [None, [], "", [""], [7], "assert (", [{"input": "x"}], [{"input": 1, "output": 2}]])
def test_tests_that_are_none_are_named(pool: VerifierPool, tests: Any):
    with pytest.raises(BadTests):
        read_tests(tests)
    with pytest.raises(ConfigurationInvalid, match="item 0: its field tests"):
        judged(pool, RIGHT, tests)
    assert judged(pool, RIGHT).accuracy == 1.0


def test_without_a_sandbox_programs_run_only_if_that_is_asked_for(tmp_path: Path):
    target = tmp_path / "written"
    program = f"import os\nos.mkdir({str(target)!r})\n{RIGHT}"
    with VerifierPool(spec("code", **SETTINGS | {"sandbox": "Unsandboxed"}).to_json(), workers=1) as free:
        assert judged(free, program).score == 0.5  # the second test finds the folder there
    assert os.path.isdir(target)


def test_a_machine_without_filters_refuses_the_job_before_it_begins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "available", lambda: "the kernel takes no filter of system calls")
    other, free = (
        {"name": "a", "verifier": "exact"},
        {"name": "b", "verifier": "code", "code": {"sandbox": "Unsandboxed"}},
    )
    check_machine({"datasets": [other, free]})
    with pytest.raises(ConfigurationInvalid, match=r"data set c.*Unsandboxed"):
        check_machine({"datasets": [other, free, {"name": "c", "verifier": "code"}]})


def test_where_filters_are_forbidden_the_trial_says_so():
    script = """
import ctypes, struct, sys
sys.path[:0] = %r
from ratchet_trainer.algorithm.verifiers import sandbox
# A profile of the kind that a runtime may have: prctl(PR_SET_SECCOMP) fails, all else goes on.
step = lambda code, k, t=0, f=0: struct.pack("<HBBI", code, t, f, k)
number = {"x86_64": 157, "aarch64": 167}[sandbox.platform.machine()]
code = step(0x20, 0) + step(0x15, number, 0, 3) + step(0x20, 16) + step(0x15, 22, 0, 1)
code += step(6, 0x50001) + step(6, 0x7FFF0000)
held = ctypes.create_string_buffer(code)
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held)), 0, 0) == 0
print(sandbox.available())
"""
    done = subprocess.run([sys.executable, "-c", script % sys.path], capture_output=True, text=True, timeout=60)
    assert "seccomp" in done.stdout, done.stderr
