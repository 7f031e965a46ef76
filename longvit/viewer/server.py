"""The page on this machine alone: loopback, reading only, and behind a key that only the printed address holds.

Loopback is no wall by itself: other users of the machine reach it, and so does a page of another site through the
reader's own browser. Hence the key in every address (as Jupyter has it), the check of the name that the browser
believes to talk to (a foreign name that resolves to 127.0.0.1: DNS rebinding), and a policy that lets the page load
nothing else. Hence, too, the bounds: a request must arrive whole within seconds, and of too many open connections the
one that has waited longest for its request is cut off.
"""

import json
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import BoundedSemaphore, Lock

from longvit.viewer.resource import Resource
from longvit.viewer.site import START, Site
from preprocessing.errors import ConfigError, PipelineError, printable

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
"""What the browser may call this machine."""
MOST_CONNECTIONS = 32
"""Connections that are open at a time, each with a thread; a browser opens six."""
REQUEST_S = 10.0
"""Time for a whole request to arrive after the answer before it."""
ANSWER_S = 120.0
"""Time for a whole answer to leave, through a slow tunnel too."""
HEAD_BYTES = 16_384
"""Longest request line with its headers."""
_TOO_LONG = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has at most {HEAD_BYTES} bytes")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page runs its own scripts and shows its own pictures; OpenSeadragon writes styles into elements."""
HEADERS = {
    "Cache-Control": "private, no-cache",  # keep it, but ask whether it is still so: the next run may show other slides
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Serves a site at `address` until it is shut down.

    Args:
        site: The page.
        port: 0 takes one that is free.

    Raises:
        ConfigError: The port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that the system holds until `process_request` comes to them

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site, self.key = site, secrets.token_urlsafe(16)
        self._places = BoundedSemaphore(MOST_CONNECTIONS)
        self._waiting: dict[socket.socket, None] = {}  # connections without a request, in the order of their waiting
        self._changing = Lock()
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            what = f"cannot listen on port {port} ({error.strerror})"
            raise ConfigError(what, where="port", fix="choose another --port, or leave it out") from None
        self.hosts = {f"{name}:{self.server_port}" for name in NAMES}

    @property
    def address(self) -> str:
        """Address at which a browser of this machine finds the page."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.key}/"

    @contextmanager
    def waiting(self, connection: socket.socket) -> Iterator[None]:
        """Let the connection be cut off for another one as long as the block waits for its request."""
        with self._changing:
            self._waiting[connection] = None
        try:
            yield
        finally:
            with self._changing:
                self._waiting.pop(connection, None)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Start a thread for a new connection; where all places are taken the longest waiting one makes room."""
        if not self._places.acquire(blocking=False):
            self._cut_off_one()
            if not self._places.acquire(timeout=REQUEST_S):  # all are being answered, slowly
                return self.shutdown_request(request)
        return super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Answer one connection, then give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print a fault in one line, and nothing of a browser that no longer wants a tile, as with every zoom."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(printable(f"error: the viewer: {error!r}"), file=sys.stderr)

    def _cut_off_one(self) -> None:
        with self._changing:
            for connection in self._waiting:
                with suppress(OSError):  # it has gone by itself
                    connection.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and ends
                del self._waiting[connection]
                return


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD, and refuses all other methods."""

    server: Server
    connection: socket.socket
    protocol_version = "HTTP/1.1"  # keeps the connection for the next tile
    default_request_version = request_version = "HTTP/1.1"  # older ones have no answers with a status
    requestline = ""  # until there is one
    server_version, sys_version = "longvit", ""
    disable_nagle_algorithm = True  # which else holds every tile back until the browser acknowledges its headers, 40 ms

    def setup(self) -> None:
        """Take over the reading: the base class's reader waits for every piece of a request anew."""
        super().setup()
        self.rfile.close()
        self._arrived = b""

    def handle_one_request(self) -> None:
        """Answer the next request, the key before anything else of it is read."""
        self.close_connection, self.command = True, "GET"
        head = self._read_head()
        self.connection.settimeout(ANSWER_S)
        if head is None:
            return
        line, _, headers = head.partition(b"\r\n")
        self.raw_requestline, self.rfile = line + b"\r\n", BytesIO(headers)
        refused = self._refused(line) if len(head) <= HEAD_BYTES else _TOO_LONG
        if refused is None:
            if not self.parse_request():  # which has answered
                return
            refused = self._refused_by_headers()
        if refused is not None:
            self.close_connection = True
            self._refuse(*refused)
        else:
            root = len(self.server.key) + 2
            self._find(line.split(b" ")[1][root:].partition(b"?")[0].decode("latin-1"))

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: a terminal full of tiles helps nobody, and addresses hold the key."""

    def _read_head(self) -> bytes | None:
        """Return the next request up to its empty line, or what is too long for one; None if it comes too late."""
        ends = time.monotonic() + REQUEST_S
        with self.server.waiting(self.connection):
            while (end := self._arrived.find(b"\r\n\r\n")) < 0 and len(self._arrived) <= HEAD_BYTES:
                self.connection.settimeout(max(1e-3, ends - time.monotonic()))
                try:
                    more = self.connection.recv(HEAD_BYTES)
                except OSError:
                    return None
                if not more or time.monotonic() > ends:
                    return None
                self._arrived += more
        head, self._arrived = (self._arrived, b"") if end < 0 else (self._arrived[: end + 4], self._arrived[end + 4 :])
        return head

    def _refused(self, line: bytes) -> tuple[HTTPStatus, str] | None:
        """Return what is wrong with a request line, if anything is."""
        words, root = line.split(b" "), f"/{self.server.key}/".encode()
        if len(words) != 3 or not words[1].startswith(b"/"):
            return HTTPStatus.BAD_REQUEST, "this is not a request for a file of the page"
        if not secrets.compare_digest(words[1][: len(root)], root):
            return HTTPStatus.FORBIDDEN, "open the address that `longvit view` printed: it holds a key"
        return None

    def _refused_by_headers(self) -> tuple[HTTPStatus, str] | None:
        """Return why a request that was parsed is not answered, if it is not."""
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # what follows is not a request
        if self.headers.get("Host") not in self.server.hosts:
            return HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only"
        if self.command not in ("GET", "HEAD"):
            return HTTPStatus.NOT_IMPLEMENTED, "the page can be read, and nothing else"
        return None

    def _find(self, path: str) -> None:
        """Answer with a file of the page, or with the reason in JSON."""
        try:
            resource = self.server.site.find(path or START)
            body = resource and self._body(resource)
        except PipelineError as error:
            print(f"error: {error}", file=sys.stderr)  # the page shows pictures and scripts, not why one is missing
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, error.what)
        except Exception as error:
            print(printable(f"error: {path}: {error!r}"), file=sys.stderr)
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault of the program")
        if resource is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "the page has no such file")
        headers = {"Content-Type": resource.kind} if body is not None else {}
        headers |= {"ETag": f'"{resource.tag}"'} if resource.tag else {}
        return self._send(HTTPStatus.NOT_MODIFIED if body is None else HTTPStatus.OK, headers, body or b"")

    def _body(self, resource: Resource) -> bytes | None:
        """Return the file, or None if the browser has it."""
        known = resource.tag and self.headers.get("If-None-Match") == f'"{resource.tag}"'
        return None if known else resource.make()

    def _refuse(self, status: HTTPStatus, what: str) -> None:
        body = json.dumps({"error": what}).encode() + b"\n"
        self._send(status, {"Content-Type": "application/json"}, body)

    def _send(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (HEADERS | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
