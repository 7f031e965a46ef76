"""Server of the page for this machine alone: loopback, read-only, and protected by a key in the printed address.

Loopback alone does not protect: other users of the machine can reach it, and so can a page of another site through the
reader's own browser. So every address contains the key (as in Jupyter). The server checks the host name in each
request, against foreign names that resolve to 127.0.0.1 (DNS rebinding). A policy lets the page load nothing else.

There are also bounds. A request must arrive whole within seconds. If too many connections are open, the connection that
has waited longest for its request is cut off.
"""

import json
import os
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
"""Names of this machine that a request may use."""
MOST_CONNECTIONS = 32
"""Largest number of open connections, each with a thread; a browser opens six."""
REQUEST_S = 10.0
"""Seconds in which a whole request must arrive after the previous answer."""
ANSWER_S = 120.0
"""Seconds in which a whole answer must leave, also through a slow tunnel."""
HEAD_BYTES = 16_384
"""Largest size of a request line with its headers."""
_TOO_LONG = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has at most {HEAD_BYTES} bytes")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Policy of the page: it runs its own scripts and shows its own pictures; OpenSeadragon sets styles of elements."""
HEADERS = {
    "Cache-Control": "private, no-cache",  # kept, but checked each time: the next run may show other slides
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Server of a site at `address`, until it is shut down.

    Args:
        site: The page.
        port: Port; 0 chooses a free port.

    Raises:
        ConfigError: The port is taken.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # on Windows it would let two servers share a port
    request_queue_size = 128  # connections that the system keeps until `process_request` accepts them

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site, self.key = site, secrets.token_urlsafe(16)
        self._places = BoundedSemaphore(MOST_CONNECTIONS)
        self._waiting: dict[socket.socket, None] = {}  # connections without a request, longest wait first
        self._changing = Lock()
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            what = f"cannot listen on port {port} ({error.strerror})"
            raise ConfigError(what, where="port", fix="choose another --port, or leave it out") from None
        self.hosts = {f"{name}:{self.server_port}" for name in NAMES}

    @property
    def address(self) -> str:
        """Return the address of the page, for a browser on this machine."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.key}/"

    @contextmanager
    def waiting(self, connection: socket.socket) -> Iterator[None]:
        """Allow the connection to be cut off in favour of another while the block waits for its request."""
        with self._changing:
            self._waiting[connection] = None
        try:
            yield
        finally:
            with self._changing:
                self._waiting.pop(connection, None)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Start a thread for a new connection; if there is no free place, cut off the longest waiting connection."""
        if not self._places.acquire(blocking=False):
            self._cut_off_one()
            if not self._places.acquire(timeout=REQUEST_S):  # all connections are being answered, slowly
                return self.shutdown_request(request)
        return super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Answer one connection, then free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print an error in one line, but not the end of a connection that the browser closed, as with every zoom."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(printable(f"error: the viewer: {error!r}"), file=sys.stderr)

    def _cut_off_one(self) -> None:
        with self._changing:
            for connection in self._waiting:
                with suppress(OSError):  # the connection is already closed
                    connection.shutdown(socket.SHUT_RDWR)  # its thread reads the end of the stream and ends
                del self._waiting[connection]
                return


class _Handler(BaseHTTPRequestHandler):
    """Handler of GET and HEAD, which refuses all other methods."""

    server: Server
    connection: socket.socket
    protocol_version = "HTTP/1.1"  # keeps the connection open for the next tile
    default_request_version = request_version = "HTTP/1.1"  # answers of older versions have no status
    requestline = ""  # until a request line is read
    server_version, sys_version = "longvit", ""
    disable_nagle_algorithm = True  # Nagle's algorithm delays every tile by 40 ms, until its headers are acknowledged

    def setup(self) -> None:
        """Replace the reader: the base class's reader starts its time limit again with every piece of a request."""
        super().setup()
        self.rfile.close()
        self._arrived = b""

    def handle_one_request(self) -> None:
        """Answer the next request; its key is checked before anything else of it is read."""
        self.close_connection, self.command = True, "GET"
        head = self._read_head()
        self.connection.settimeout(ANSWER_S)
        if head is None:
            return
        line, _, headers = head.partition(b"\r\n")
        self.raw_requestline, self.rfile = line + b"\r\n", BytesIO(headers)
        refused = self._refused(line) if len(head) <= HEAD_BYTES else _TOO_LONG
        if refused is None:
            if not self.parse_request():  # parse_request has sent the answer
                return
            refused = self._refused_by_headers()
        if refused is not None:
            self.close_connection = True
            self._refuse(*refused)
        else:
            root = len(self.server.key) + 2
            self._find(line.split(b" ")[1][root:].partition(b"?")[0].decode("latin-1"))

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: lines for every tile would fill the terminal, and addresses contain the key."""

    def _read_head(self) -> bytes | None:
        """Return the next request up to its empty line, or a head that is too long; None if it arrives too late."""
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
        """Return the status and sentence of a bad request line, or None."""
        words, root = line.split(b" "), f"/{self.server.key}/".encode()
        if len(words) != 3 or not words[1].startswith(b"/"):
            return HTTPStatus.BAD_REQUEST, "this is not a request for a file of the page"
        if not secrets.compare_digest(words[1][: len(root)], root):
            return HTTPStatus.FORBIDDEN, "open the address that `longvit view` printed: it contains a key"
        return None

    def _refused_by_headers(self) -> tuple[HTTPStatus, str] | None:
        """Return the status and sentence of a parsed request that is refused, or None."""
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # the bytes that follow are not a request
        if self.headers.get("Host") not in self.server.hosts:
            return HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only"
        if self.command not in ("GET", "HEAD"):
            return HTTPStatus.NOT_IMPLEMENTED, "the page can only be read (GET, HEAD)"
        return None

    def _find(self, path: str) -> None:
        """Send a file of the page, or the reason for its absence as JSON."""
        try:
            resource = self.server.site.find(path or START)
            body = resource and self._body(resource)
        except PipelineError as error:
            print(f"error: {error}", file=sys.stderr)  # the page shows no reason for a missing picture or script
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, error.what)
        except Exception as error:
            print(printable(f"error: {path}: {error!r}"), file=sys.stderr)
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a bug of LongViT; see the terminal")
        if resource is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "the page has no such file")
        headers = {"Content-Type": resource.kind} if body is not None else {}
        headers |= {"ETag": f'"{resource.tag}"'} if resource.tag else {}
        return self._send(HTTPStatus.NOT_MODIFIED if body is None else HTTPStatus.OK, headers, body or b"")

    def _body(self, resource: Resource) -> bytes | None:
        """Return the content of the file, or None if the browser has it."""
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
