"""The admission webhook: what `ratchet validate` says, said when a job is applied.

Decides what is refused: a manifest that the operator would not accept, with the words of `ratchet validate`. An update
is refused for what is wrong only since then, so that a job which an older operator accepted can be suspended, approved,
labeled and deleted.
Every replica serves it, also the ones that stand by. A certificate that is renewed in its folder is taken up by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from ratchet_api.validate import problems

Raw = dict[str, Any]
log = logging.getLogger(__name__)

PATH = "/validate"
LARGEST_BYTES = 8 << 20
"""Of a review, which has an object before and after: the API server itself takes objects of 3 MiB at most."""
LISTED = 20
RENEWED_SECONDS = 30.0


class NotAReview(ValueError):
    """What was posted is no AdmissionReview; the message says why."""


def review(body: bytes) -> Raw:
    """The answer to an AdmissionReview. Raises NotAReview."""
    try:
        request = json.loads(body)["request"]
        uid, operation = request["uid"], request.get("operation")
        found, before = request.get("object"), dict(request.get("oldObject") or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise NotAReview(f"no AdmissionReview: {type(problem).__name__} {problem}") from None
    unchanged = operation == "UPDATE" and isinstance(found, dict) and found.get("spec") == before.get("spec")
    wrong = [] if found is None or unchanged else [str(problem) for problem in problems(found)]
    if wrong and operation == "UPDATE":
        known = {str(problem) for problem in problems(before)}
        wrong = [text for text in wrong if text not in known]
    answer: Raw = {"uid": uid, "allowed": not wrong}
    if wrong:
        more = [f"and {len(wrong) - LISTED} more: ratchet validate lists them"] if len(wrong) > LISTED else []
        message = "; ".join([*wrong[:LISTED], *more])
        answer["status"] = {"code": 422, "reason": "Invalid", "message": message}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}


async def serve(address: str, port: int, certificates: Path) -> web.AppRunner:
    """Serves the webhook over TLS with `tls.crt` and `tls.key` of a folder. Raises OSError that names the folder."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, certificates)

    async def validate(request: web.Request) -> web.Response:
        try:
            return web.json_response(await asyncio.to_thread(review, await request.read()))
        except NotAReview as problem:
            return web.Response(status=400, text=f"{problem}\n")

    async def renewing(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(_renew(context, certificates))
        yield
        task.cancel()

    app = web.Application(client_max_size=LARGEST_BYTES)
    app.add_routes([web.post(PATH, validate)])
    app.cleanup_ctx.append(renewing)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, address, port, ssl_context=context).start()
    return runner


async def _renew(context: ssl.SSLContext, certificates: Path) -> None:
    """Takes up the files whenever they have changed; what cannot be used is logged, and the old ones stay in use."""
    before = _content(certificates)
    while True:
        await asyncio.sleep(RENEWED_SECONDS)
        now = _content(certificates)
        if now is None or now == before:
            continue
        try:
            _load(context, certificates)
        except OSError as problem:
            log.warning("%s", problem)
        else:
            log.info("the webhook's certificate was renewed")
            before = now


def _content(certificates: Path) -> tuple[bytes, bytes] | None:
    """Certificate and key; None while they cannot be read."""
    try:
        return (certificates / "tls.crt").read_bytes(), (certificates / "tls.key").read_bytes()
    except OSError:
        return None


def _load(context: ssl.SSLContext, certificates: Path) -> None:
    try:
        context.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")
    except OSError as problem:
        raise OSError(
            f"RATCHET_WEBHOOK_CERTIFICATES={certificates}: no usable tls.crt and tls.key: {problem}"
        ) from None
