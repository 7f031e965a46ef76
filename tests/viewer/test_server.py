"""What the server lets nobody have, asked without a browser, which would tidy the addresses up."""

import http.client
import json
import re
import shutil
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from longvit.config import ViewConfig
from longvit.viewer import server as serving
from longvit.viewer.server import LOOPBACK, Server
from longvit.viewer.site import page_file
from preprocessing.errors import ConfigError


@pytest.fixture(scope="module")
def server(planted, serve) -> Server:
    return serve(planted.config)


@pytest.fixture
def ask(server):
    """(path under the key, method, headers) -> status, headers, body."""

    def request(path="", method="GET", root=None, **headers):
        connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=20)
        root = urlsplit(server.address).path if root is None else root
        connection.request(method, root + path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, dict(answer.headers), body

    return request


def test_it_listens_on_loopback_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.address.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", "text/html"),
        ("main.js", "text/javascript"),
        ("data/index.js", "text/javascript"),
        ("data/0/slide.js", "text/javascript"),
        ("data/0/layers/1.js", "text/javascript"),
        ("data/0/tiles/8/0_0.jpg", "image/jpeg"),
        ("data/0/mask.png", "image/png"),
        ("data/3/thumbnail.jpg", "image/jpeg"),
    ],
)
def test_it_gives_the_files_of_the_page(ask, path, kind):
    status, headers, body = ask(path)
    assert status == 200
    assert headers["Content-Type"].startswith(kind)
    assert len(body) > 50


@pytest.fixture
def secret(planted, cohort):
    """A file beside what is shown, and links to it where a careless server would find it."""
    file = planted.run / "secret.txt"
    file.write_text("secret")
    link = planted.store.path / "secret.js"
    link.symlink_to(file)
    yield file
    link.unlink()
    file.unlink()


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "data/../../secret.txt",
        "data/0/../../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "data/0/%2e%2e%2f%2e%2e%2fsecret.txt",
        "..\\secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "file:///etc/passwd",
        "data/0/secret.js",
        "data/P00-0/slide.js",
        "data/0/zarr.json",
        "data/99/slide.js",
        "data/-1/slide.js",
        "data/0/slide.js%00.jpg",
        "data/0/tiles/8/0_0.jpg/../../../../secret.txt",
        "data/0/tiles/99/0_0.jpg",
        "data/0/tiles/8/-1_0.jpg",
        "data/0/tiles/8/5_0.jpg",
        "data/0/layers/3.js",
        "data/1/tokens.js",
        "data/%D9%A3/slide.js",
        "openseadragon/",
        "site.py",
        "__init__.py",
    ],
)
def test_nothing_else_exists(ask, secret, path):
    status, _, body = ask(path)
    assert status == 404
    assert json.loads(body) == {"error": "the page has no such file"}


def test_an_address_that_is_a_path_of_the_machine_is_refused(ask, secret):
    for root in ("/", "/etc/passwd", f"/{secret}", "/../../etc/passwd", "/wrong-key/"):
        status, _, body = ask(root=root)
        assert status == 403
        assert "contains a key" in json.loads(body)["error"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example", ""])
def test_a_page_that_calls_this_machine_by_another_name_gets_nothing(ask, server, host):
    status, _, body = ask(Host=host)
    assert status == 403
    assert "127.0.0.1 and localhost only" in json.loads(body)["error"]


def test_localhost_is_this_machine(ask, server):
    assert ask(Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_only_reads(ask, method):
    assert ask(method=method)[0] == 501


def test_head_says_what_get_would_bring(ask):
    _, got, body = ask("data/0/mask.png")
    status, headers, nothing = ask("data/0/mask.png", "HEAD")
    assert (status, nothing) == (200, b"")
    assert headers["Content-Length"] == got["Content-Length"] == str(len(body))


def test_what_the_browser_has_is_not_sent_again(ask):
    _, headers, _ = ask("data/0/tiles/8/0_0.jpg")
    assert headers["Cache-Control"] == "private, no-cache"
    assert ask("data/0/tiles/8/0_0.jpg", **{"If-None-Match": headers["ETag"]})[0] == 304
    assert ask("data/0/tiles/8/0_0.jpg", **{"If-None-Match": '"other"'})[0] == 200


def test_other_sites_may_not_load_its_files(ask):
    headers = ask("data/0/slide.js")[1]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_slide_that_cannot_be_read_says_so_and_the_others_go_on(planted, cohort, serve, tmp_path, capsys):
    for name in ("P00-0", "P01-0"):
        shutil.copytree(cohort.stores / f"{name}.zarr", tmp_path / f"{name}.zarr")
    server = serve(ViewConfig(source=tmp_path))
    (tmp_path / "P00-0.zarr" / "zarr.json").write_text("{}")
    site = server.site
    assert b"cannot be read" in site.find("data/0/slide.js").make()
    assert b'"slide_id":"P01-0"' in site.find("data/1/slide.js").make()
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port)
    connection.request("GET", urlsplit(server.address).path + "data/0/mask.png")
    with connection.getresponse() as answer:
        assert answer.status == 500
    connection.close()
    assert "cannot be read" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(planted, server):
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot listen on port"):
            Server(server.site, taken.getsockname()[1])


@pytest.mark.parametrize("error", [ConnectionResetError(), BrokenPipeError(), TimeoutError(), KeyError("\x1b[31mx")])
def test_what_goes_wrong_with_a_connection_is_a_line_at_most(server, monkeypatch, capsys, error):
    monkeypatch.setattr(sys, "exception", lambda: error)
    server.handle_error(None, None)
    line = "error: the viewer: KeyError('\\x1b[31mx')\n"
    assert capsys.readouterr().err == (line if isinstance(error, KeyError) else "")


def test_a_fault_of_the_program_is_answered(server, ask, monkeypatch, capsys):
    def fails(path):
        raise KeyError(path)

    monkeypatch.setattr(server.site, "find", fails)
    status, _, body = ask("main.js")
    assert (status, json.loads(body)) == (500, {"error": "this is a bug of LongViT; see the terminal"})
    assert capsys.readouterr().err == "error: main.js: KeyError('main.js')\n"


@pytest.fixture
def connect(server):
    """() -> a socket to the server."""
    made = []

    def start() -> socket.socket:
        made.append(socket.create_connection((LOOPBACK, server.server_port), timeout=20))
        return made[-1]

    yield start
    for one in made:
        one.close()


def everything(connection: socket.socket) -> bytes:
    """What the server says until it closes the connection."""
    said = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            said += more
    return said


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET http://[::1/x HTTP/1.1", 400),
        (b"GET http://127.0.0.1/KEY/ HTTP/1.1", 400),
        (b"GET //[::1/x HTTP/1.1", 403),
        (b"GET /KEY/http://[::1/x HTTP/1.1", 404),
        (b"GET /KEY/data/%zz/\xff\xfe HTTP/1.1", 404),
        (b"GET /KEY/\xa0 HTTP/1.1", 404),
        (b"GET /KEY/", 400),
        (b"GET", 400),
        (b"", 400),
        (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03", 400),
        (b"GET /KEY/ HTTP/9.9", 505),
        (b"GET /KEY/ HTTP/x", 400),
        (b"GET /KEY/ HTTP/1.1\r\nX: " + b"a" * 20_000, 431),
        (b"GET /KEY/ HTTP/1.1" + b"\r\na: b" * 200, 431),
        (b"GET /KEY/ HTTP/1.1\r\nno colon\r\n\x00: \x1b[31m", 403),
        (b"GET /KE\xc3\xa9/ HTTP/1.1\r\nHost: 127.0.0.1", 403),
        (b"BREW /KEY/ HTTP/1.1\r\nHost: HOST", 501),
    ],
)
def test_malformed_requests_are_answered_and_leave_the_terminal_alone(server, connect, capsys, sent, status):
    connection, host = connect(), f"{LOOPBACK}:{server.server_port}"
    connection.sendall(sent.replace(b"KEY", server.key.encode()).replace(b"HOST", host.encode()))
    connection.sendall(b"" if b"Host" in sent or status in (400, 431) else f"\r\nHost: {host}".encode())
    connection.sendall(b"\r\nConnection: close\r\n\r\n")
    assert everything(connection).startswith(f"HTTP/1.1 {status} ".encode())
    assert capsys.readouterr() == ("", "")


def test_requests_in_one_piece_are_answered_in_turn(server, connect):
    head = f" HTTP/1.1\r\nHost: {LOOPBACK}:{server.server_port}\r\n"
    connection, root = connect(), f"/{server.key}/"
    last = f"GET {root}dom.js{head}Connection: close\r\n\r\n"
    connection.sendall(f"GET {root}nothing{head}\r\nHEAD {root}main.js{head}\r\n{last}".encode())
    said = everything(connection)
    assert re.findall(rb"HTTP/1.1 (\d+) ", said) == [b"404", b"200", b"200"]
    assert said.endswith(page_file("dom.js"))


def test_a_body_is_not_taken_for_the_next_request(server, connect):
    connection, root = connect(), f"/{server.key}/"
    head = f"Host: {LOOPBACK}:{server.server_port}\r\n"
    smuggled = f"GET {root}main.js HTTP/1.1\r\n{head}\r\n"
    connection.sendall(f"GET {root}dom.js HTTP/1.1\r\n{head}Content-Length: {len(smuggled)}\r\n\r\n{smuggled}".encode())
    assert everything(connection).count(b"HTTP/1.1 ") == 1


def test_a_request_in_drops_is_cut_off(server, connect, monkeypatch):
    monkeypatch.setattr(serving, "REQUEST_S", 0.6)
    connection, start = connect(), time.monotonic()
    with suppress(OSError):
        for byte in b"GET /" + b"x" * 200:  # each of them in time, if the time began anew
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
    assert everything(connection) == b""
    assert time.monotonic() - start < 5


def test_three_hundred_half_open_requests_take_no_more_threads_than_there_are_places(server, connect, ask):
    before = threading.active_count()
    for _ in range(300):
        connect().sendall(b"GET / HTTP/1.1\r\nX: ")
    start = time.monotonic()
    assert ask("main.js")[0] == 200
    assert time.monotonic() - start < 3
    assert threading.active_count() - before <= serving.MOST_CONNECTIONS


def test_sixty_tiles_at_once_are_quick(ask):
    start = time.monotonic()
    with ThreadPoolExecutor(60) as browsers:
        answers = list(browsers.map(lambda i: ask(f"data/0/tiles/9/{i % 2}_0.jpg"), range(60)))
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, _, body in answers}) == 2
    assert time.monotonic() - start < 5


def test_a_place_is_free_again_after_every_end_of_a_connection(server, connect, ask):
    for _ in range(2 * serving.MOST_CONNECTIONS):
        connect().close()
        connect().sendall(b"\r\n\r\n")
    assert ask("main.js")[0] == 200
    ends = time.monotonic() + 5
    while time.monotonic() < ends and server._places._value < serving.MOST_CONNECTIONS:
        time.sleep(0.02)
    assert server._places._value == serving.MOST_CONNECTIONS
