"""Clients that send half of something, or read nothing, which no library does."""

import socket
import struct

from servers import SECONDS

PREDICTION = "/tensorflow.serving.PredictionService/"
DATA, HEADERS, SETTINGS, WINDOW, END_STREAM, END_HEADERS = 0, 1, 4, 4, 1, 4


def connect_to(address, reads=True):
    """A socket; one that reads nothing has hardly any room for what is sent to it."""
    host, port = address.split(":")
    connection = socket.socket()
    if not reads:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(SECONDS)
    connection.connect((host, int(port)))
    return connection


def is_closed(connection):
    """Whether the server has closed it, with or without a last word."""
    connection.settimeout(0.01)
    try:
        while connection.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def call(address, method="Predict", message=None, window=65535):
    """A gRPC call by hand (RFC 9113); without a message, half of one.

    Args:
        window: bytes of an answer that the server may send.
    """
    connection = connect_to(address)
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": PREDICTION + method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    head = b"".join(
        b"\0" + b"".join(bytes([len(word)]) + word.encode() for word in pair)
        for pair in fields.items()
    )
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(SETTINGS, 0, 0, struct.pack(">HI", WINDOW, window))
        + _frame(HEADERS, END_HEADERS, 1, head)
    )
    if message is not None:
        content = b"\0" + struct.pack(">I", len(message)) + message
        connection.sendall(_frame(DATA, END_STREAM, 1, content))
    return connection


def _frame(kind, flags, stream, content):
    return (
        struct.pack(">I", len(content))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + content
    )
