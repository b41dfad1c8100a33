"""uvicorn's HTTP connection, with limits on what a client may send without saying, and leave unread."""

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

PIPELINED = 16  # requests that may wait on a connection; browsers and urllib3 send none


class Connection(HttpToolsProtocol):
    """One client's connection.

    Args:
        core: a `core.Core`.
        options: uvicorn's own.
    """

    def __init__(self, *, core, **options):
        super().__init__(**options)
        self.core, self.limits = core, core.limits
        self._header_timer = self._write_timer = None
        self._overhead = self._body = self._headers = 0  # bytes that have come: see `data_received`
        self._ended = False

    def connection_made(self, transport):
        super().connection_made(transport)
        self._await_headers()
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "The server has too many connections; try again.")

    def connection_lost(self, exc):
        for timer in (self._header_timer, self._write_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    # What a client sends.

    def data_received(self, data):
        """All that is no body counts: headers, trailers, the sizes of chunks, and parts of these."""
        if self.transport.is_closing():
            return
        self._body, self._ended = 0, False
        if self._header_timer is None and self._is_idle():
            self._await_headers()
        super().data_received(data)
        chunks = self._body // 8  # what their sizes may take
        self._overhead += len(data) - self._body - chunks
        if self._ended:
            self._overhead = 0
        if self._overhead > self.limits.header_bytes:
            self._refuse(431, f"The headers are longer than {self.limits.header_bytes} bytes.")

    def on_message_begin(self):
        super().on_message_begin()
        self._headers = 0

    def on_header(self, name, value):
        self._headers += len(name) + len(value) + 32  # and what Python adds, about
        if self._headers > self.limits.header_bytes:
            raise ValueError  # the parser ends here, and 400 is answered
        super().on_header(name, value)

    def on_headers_complete(self):
        if self._header_timer:
            self._header_timer.cancel()
            self._header_timer = None
        if len(self.pipeline) >= PIPELINED:
            self.transport.abort()
            raise ValueError
        super().on_headers_complete()
        if self.core.stopped.is_set():
            self.cycle.keep_alive = False

    def on_body(self, body):
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self):
        self._ended = True
        super().on_message_complete()

    def _is_idle(self):
        return self.cycle is None or self.cycle.response_complete

    def _await_headers(self):
        self._header_timer = self.loop.call_later(self.limits.header_seconds, self.transport.abort)

    # What it does not read.

    def pause_writing(self):
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        self._write_timer.cancel()

    def _refuse(self, status, message):
        """Answer, where no other answer is under way, and close."""
        if not self.transport.is_closing() and self._is_idle():
            text = orjson.dumps({"error": message})
            head = (
                b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[status] + head % len(text) + text)
            self.transport.close()
        else:
            self.transport.abort()
