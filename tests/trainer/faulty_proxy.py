"""A server of HTTP before an object store, which does to requests what networks, rights and other stores do to them."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Request = tuple[str, str]
"""Method, path."""


class Proxy:
    """Passes everything on to 127.0.0.1:`port`, but for what it is told to do otherwise:

    answers: what is refused, with (status, content type, body) for a request; None passes it on
    loses: whose answer is lost: the request is carried out, then the connection ends
    conditional: whether conditions of writes are passed on
    """

    def __init__(self, port: int):
        self.upstream, self.number = port, 0
        self._server: ThreadingHTTPServer | None = None
        self.reset()
        self.up()

    def reset(self) -> None:
        """Passes everything on."""
        self.answers: Callable[[Request], tuple[int, str, bytes] | None] = lambda request: None
        self.loses: Callable[[Request], bool] = lambda request: False
        self.conditional = True
        self.seen: list[Request] = []

    def up(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.pass_on(self)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.number), Handler)
        self._server.daemon_threads = True
        self.number = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Nobody answers any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        request = handler.command, handler.path
        self.seen.append(request)
        if self._server is None:
            handler.close_connection = True
            return
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if (refused := self.answers(request)) is not None:
            self._answer(handler, refused[0], {"Content-Type": refused[1]}, refused[2])
            return
        headers, path = dict(handler.headers.items()), handler.path
        if not self.conditional:
            headers = {k: v for k, v in headers.items() if k.lower() not in ("if-none-match", "if-match")}
            path = "&".join(part for part in path.split("&") if not part.startswith("ifGenerationMatch"))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)) as connection:
            connection.request(handler.command, path, body, headers)
            found = connection.getresponse()
            content = found.read()
            if self.loses(request):
                handler.close_connection = True
                return
            self._answer(handler, found.status, dict(found.getheaders()), content)

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                handler.send_header(name, value)
        length = headers.get("Content-Length", str(len(content))) if handler.command == "HEAD" else str(len(content))
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)


def is_create(request: Request) -> bool:
    """Whether an object is written, as far as method and path tell."""
    method, path = request
    return method in ("PUT", "POST") and len(urlsplit(path).path) > 1
