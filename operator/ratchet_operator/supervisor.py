"""The parent process: starts the worker, starts it again when it ends, and passes SIGTERM on.

kopf ends its process after an API outage of about a minute, and so does a lost Lease. Restarting a container for that
would be slow and would look like a crash; this parent has the worker back within 5 s. It is run by file name, without
`site`, and imports next to nothing, so that it costs a few MiB.
"""

import os
import signal
import sys
import time

EXIT_CONFIGURATION = 78
DELAY_FIRST, DELAY_MOST = 0.2, 5.0
HEALTHY_SECONDS = 60.0
GRACE_SECONDS = 8.0
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def start(command: list[str], identity: str) -> tuple[int, int]:
    """Starts the worker; returns its pid and our end of the pipe by which it notices our death."""
    theirs, ours = os.pipe()
    os.set_inheritable(theirs, True)
    env = {"MALLOC_ARENA_MAX": "2", **os.environ, "RATCHET_IDENTITY": identity, "RATCHET_PARENT_PIPE": str(theirs)}
    pid = os.posix_spawn(command[0], command, env, setsigmask=())
    os.close(theirs)
    return pid, ours


def reap(pid: int) -> int | None:
    """Collects every child that ended (as process 1 of a container must); the worker's exit code when it is among
    them.
    """
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if ended == 0:
            return code
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)


def watch(pid: int) -> tuple[int, bool]:
    """Waits for the worker's end; returns its exit code and whether we were told to stop."""
    stopping, deadline = False, float("inf")
    while True:
        wait = 3600.0 if not stopping else max(0.0, deadline - time.monotonic())
        got = signal.sigtimedwait(SIGNALS, wait)
        if got is None and stopping:
            os.kill(pid, signal.SIGKILL)
        elif got is not None and got.si_signo != signal.SIGCHLD:
            if not stopping:
                stopping, deadline = True, time.monotonic() + GRACE_SECONDS
            os.kill(pid, signal.SIGTERM)
        code = reap(pid)
        if code is not None:
            return code, stopping


def say(words: str) -> None:
    """One line of the log. `words` have nothing in them that JSON would escape."""
    if os.environ.get("RATCHET_LOG_FORMAT", "").lower() == "json":
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        words = (
            f'{{"time": "{now}", "severity": "WARNING", "logger": "ratchet_operator.supervisor", "message": "{words}"}}'
        )
    print(words, file=sys.stderr, flush=True)


def main(command: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # One name for all workers of this parent: it sees one end before it starts the next, so the Lease passes at once.
    identity = (os.environ.get("RATCHET_POD_NAME") or os.uname().nodename) + "_" + os.urandom(4).hex()
    delay = DELAY_FIRST
    while True:
        started = time.monotonic()
        pid, pipe = start(command, identity)
        code, stopping = watch(pid)
        os.close(pipe)
        if stopping or code == EXIT_CONFIGURATION:
            return max(code, 0)
        if time.monotonic() - started > HEALTHY_SECONDS:
            delay = DELAY_FIRST
        say(f"the worker ended with {code}; starting it again in {delay:.1f} s")
        got = signal.sigtimedwait(SIGNALS - {signal.SIGCHLD}, delay)
        if got is not None:
            return 0
        delay = min(DELAY_MOST, delay * 2)


if __name__ == "__main__":
    sys.exit(main([sys.executable, "-m", "ratchet_operator.app"]))
