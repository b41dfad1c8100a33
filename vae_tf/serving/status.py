"""What can go wrong between a client and a server, with the numbers that gRPC and HTTP have for it."""

# gRPC's codes, with the HTTP status that TF Serving answers with.
# Source: tensorflow/serving, tensorflow_serving/model_servers/http_server.cc, ToHTTPStatusCode.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
FAILED = "The server failed on this request."


class ServingError(Exception):
    """A request was not answered.

    Attributes:
        code: the name of gRPC's code, such as "INVALID_ARGUMENT".
        message: the server's own words, or what became of the connection.
    """

    def __init__(self, code, message):
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self):
        return f"{self.code}: {self.message}"

    @property
    def http_status(self):
        return HTTP_STATUS[self.code]


class TooLongError(ServingError):
    """A request is longer than the server reads; to send it again would not help."""

    http_status = 413

    def __init__(self, limit):
        message = f"The request is longer than this server's limit of {limit} bytes."
        super().__init__("INVALID_ARGUMENT", message)


def invalid_argument(message):
    return ServingError("INVALID_ARGUMENT", message)


def code_of_http(status):
    """gRPC's code for an HTTP status: the inverse, as far as it goes."""
    codes = {number: code for code, number in reversed(HTTP_STATUS.items())}
    codes |= {400: "INVALID_ARGUMENT", 413: "INVALID_ARGUMENT", 500: "INTERNAL"}
    return codes.get(status, "UNKNOWN")
