"""moto's S3 on loopback, one request at a time: `python serve.py PORT`, in the environment of requirements.txt.

moto looks whether an object is there and then writes it, in threads: of two conditional writes at once both may win.
Amazon's are atomic, and so are these.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

app = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()


def one_at_a_time(environ: Any, start_response: Any) -> list[bytes]:
    with lock:
        return list(app(environ, start_response))


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True)
