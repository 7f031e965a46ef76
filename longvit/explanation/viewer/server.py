"""The page on this machine alone: loopback, reading only, and behind a key that only the printed address holds.

Loopback is no wall by itself: other users of the machine reach it, and so does a page of another site through the
reader's own browser. Hence the key in every address (as Jupyter has it), the check of the name that the browser
believes to talk to (a foreign name that resolves to 127.0.0.1: DNS rebinding), and a policy that lets the page load
nothing else.
"""

import json
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from longvit.explanation.viewer.resource import Resource
from longvit.explanation.viewer.site import START, Site
from preprocessing.errors import ConfigError, PipelineError

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
"""What the browser may call this machine."""
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

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site, self.key = site, secrets.token_urlsafe(16)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            what = f"cannot listen on port {port} ({error.strerror})"
            raise ConfigError(what, where="port", fix="choose another --port, or leave it out") from None
        self.hosts = {f"{name}:{self.server_port}" for name in NAMES}

    @property
    def address(self) -> str:
        """Where a browser of this machine finds the page."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.key}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that no longer wants a tile: it goes away with every zoom."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; the base class refuses all other methods."""

    server: Server
    protocol_version = "HTTP/1.1"  # keeps the connection for the next tile
    server_version, sys_version = "longvit", ""
    timeout = 60
    disable_nagle_algorithm = True  # which else holds every tile back until the browser acknowledges its headers, 40 ms

    def do_GET(self) -> None:
        """Answer with a file of the page, or say in JSON why not."""
        if self.headers.get("Host") not in self.server.hosts:
            return self._refuse(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only")
        _, key, *rest = [*urlsplit(self.path).path.split("/", 2), ""]
        if not secrets.compare_digest(key.encode(), self.server.key.encode()):
            return self._refuse(HTTPStatus.FORBIDDEN, "open the address that `longvit view` printed: it holds a key")
        try:
            resource = self.server.site.find(rest[0] or START)
            if resource is None:
                return self._refuse(HTTPStatus.NOT_FOUND, "the page has no such file")
            return self._answer(resource)
        except PipelineError as error:
            print(f"error: {error}", file=sys.stderr)  # the page shows pictures and scripts, not why one is missing
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a terminal full of tiles helps nobody, and addresses hold the key."""

    def _answer(self, resource: Resource) -> None:
        tag = f'"{resource.tag}"'
        if resource.tag and self.headers.get("If-None-Match") == tag:
            return self._send(HTTPStatus.NOT_MODIFIED, {"ETag": tag}, b"")
        headers = {"Content-Type": resource.kind} | ({"ETag": tag} if resource.tag else {})
        return self._send(HTTPStatus.OK, headers, resource.make())

    def _refuse(self, status: HTTPStatus, what: str) -> None:
        body = json.dumps({"error": what}).encode() + b"\n"
        self._send(status, {"Content-Type": "application/json"}, body)

    def _send(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (HEADERS | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
