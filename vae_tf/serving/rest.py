"""The embedded server's HTTP side: TF Serving's REST addresses, health, metrics and the page."""

import asyncio
import contextlib
import importlib.resources
import re
import urllib.parse

import orjson
import prometheus_client
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

from vae_tf.serving import codec, examples, messages
from vae_tf.serving.core import STOPPING
from vae_tf.serving.status import FAILED, ServingError, TooLongError, invalid_argument
from vae_tf.serving.visitors import Visitors

_WHICH = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_WHICH + r":(?P<verb>classify|regress|predict)", re.IGNORECASE)
_LOOK = re.compile(_WHICH + r"(?P<metadata>/metadata)?", re.IGNORECASE)
PART = 2**17  # bytes of an answer that are handed to the connection at once
METRICS = "/monitoring/prometheus/metrics"  # where deploy/monitoring.config has TF Serving's


def build_app(core, address, allowed_hosts=(), cors=False):
    """The ASGI application.

    Args:
        core: a `core.Core`.
        address, allowed_hosts, cors: who may ask; see `Visitors`.
    """
    app = _Application(core)
    routes = [
        Route("/", app.page),
        Route("/healthz", app.health),
        Route("/readyz", app.ready),
        Route(METRICS, app.metrics),
        Route("/{path:path}", app.models, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]
    anyone = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_headers=["Content-Type"],
        allow_methods=["GET", "POST"],
    )
    some = Middleware(Visitors, address=address, allowed=allowed_hosts, cors=cors)
    failures = {Exception: lambda request, error: _error(ServingError("INTERNAL", FAILED))}
    return Starlette(
        routes=routes, middleware=[anyone, some] if cors else [some], exception_handlers=failures
    )


class _Application:
    def __init__(self, core):
        self.core = core
        self.explorer = (
            importlib.resources.files("vae_tf.serving")
            .joinpath("explorer.html")
            .read_text(encoding="utf-8")
        )

    async def page(self, request):
        """The explorer; it is told which model there is."""
        if "endpoint" in request.query_params:
            return HTMLResponse(self.explorer)
        name = urllib.parse.quote(self.core.versions.name, safe="")
        return RedirectResponse(f"/?endpoint=/v1/models/{urllib.parse.quote(name)}")

    async def health(self, request):
        return PlainTextResponse("ok\n")

    async def ready(self, request):
        ready = self.core.ready
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def metrics(self, request):
        page = prometheus_client.generate_latest(self.core.metrics.registry)
        return Response(page, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    async def models(self, request):
        """What TF Serving has under /v1/models."""
        path = request.scope["raw_path"].decode("latin-1")
        try:
            pattern = {"GET": _LOOK, "POST": _PREDICT}.get(request.method)
            asked = pattern and pattern.fullmatch(path)
            if asked is None:
                raise _malformed(request)
            which = {
                "name": urllib.parse.unquote(asked["name"]),
                "version": _number(asked["version"]),
                "label": asked["label"] and urllib.parse.unquote(asked["label"]),
            }
            if request.method == "POST":
                return await self._predict(request, which, asked["verb"])
            answer = self._metadata(which) if asked["metadata"] else self._status(which)
            return JSONResponse(answer)
        except ServingError as error:
            return _error(error)
        except asyncio.CancelledError:
            if not self.core.stopped.is_set():
                raise
            return _error(ServingError("UNAVAILABLE", STOPPING))  # it was waited for long enough

    async def _predict(self, request, which, verb):
        if verb not in ("predict", "classify", "regress"):  # in capital letters
            raise _malformed(request)
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(self.core.admit("REST"))
            body = await self._body(request, place)
            with self.core.versions.use(**which) as version:
                answer = await self.core.compute(self._answer, body, version.model, verb, place)
            return _Answer(answer, stack.pop_all())

    def _answer(self, body, model, verb, place):
        """The body of the answer, in a thread."""
        if verb != "predict":
            signature = self.core.parse(codec.read_examples, body, model, verb)
            raise examples.refusal(verb, model.signature_defs, signature)
        signature, arrays, rows = self.core.parse(codec.read_json, body, model)

        def write(outputs):
            return codec.write_json(outputs, rows)

        many = codec.JSON_BYTES
        return self.core.predict(place, model, signature, arrays, (), write, many)

    async def _body(self, request, place):
        """The body, no longer than the limit, and not waited for without end."""
        limit, parts, size = self.core.limits.request_bytes, [], 0
        if int(request.headers.get("content-length", 0)) > limit:
            raise TooLongError(limit)

        async def read():
            nonlocal size
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise TooLongError(limit)
                place.hold(len(part))
                parts.append(part)

        try:
            await asyncio.wait_for(read(), self.core.limits.read_seconds)
        except asyncio.TimeoutError as error:
            raise ServingError(
                "DEADLINE_EXCEEDED", "The request did not arrive in time."
            ) from error
        except ClientDisconnect as error:
            raise ServingError("CANCELLED", "The client went away.") from error
        return b"".join(parts)

    def _status(self, which):
        response = messages.status(self.core.versions.status(**which))
        return json_format.MessageToDict(response, always_print_fields_with_no_presence=True)

    def _metadata(self, which):
        with self.core.versions.use(**which) as version:
            spec, signatures = messages.metadata(self.core.versions.name, version)
        options = {
            "preserving_proto_field_name": True,
            "always_print_fields_with_no_presence": True,
        }
        return {
            "model_spec": json_format.MessageToDict(spec, **options),
            "metadata": {"signature_def": json_format.MessageToDict(signatures, **options)},
        }


class _Answer(Response):
    """The answer to a prediction, which keeps its place until the client has read it.

    Args:
        content: bytes.
        place: what is closed then.
    """

    media_type = "application/json"

    def __init__(self, content, place):
        super().__init__(content)
        self.place = place

    async def __call__(self, scope, receive, send):
        with self.place:
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
            content = memoryview(self.body)
            for start in range(0, len(content), PART):
                part, more = content[start : start + PART], start + PART < len(content)
                await send({"type": "http.response.body", "body": part, "more_body": more})


def _number(text):
    if text is not None and (len(text) > 19 or int(text) >= 2**63):
        raise invalid_argument(f"Failed to convert version: {text} to numeric.")
    return None if text is None else int(text)


def _malformed(request):
    message = f"Malformed request: {request.method} {request.scope['path']}"
    known = request.scope["path"].lower().startswith("/v1/")
    return ServingError("INVALID_ARGUMENT" if known else "NOT_FOUND", message)


def _error(error):
    body = orjson.dumps({"error": error.message})
    return Response(body, error.http_status, media_type="application/json")
