"""What the server lets nobody have, asked without a browser, which would tidy the addresses up."""

import http.client
import json
import shutil
import socket
from urllib.parse import urlsplit

import pytest

from longvit.config import ViewConfig
from longvit.explanation.viewer.server import LOOPBACK, Server
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
        assert "holds a key" in json.loads(body)["error"]


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


@pytest.mark.parametrize(("error", "told"), [(ConnectionResetError, False), (BrokenPipeError, False), (KeyError, True)])
def test_a_browser_that_goes_away_leaves_no_traceback_and_a_mistake_does(server, monkeypatch, capsys, error, told):
    def gone(*_):
        raise error

    monkeypatch.setattr(server, "RequestHandlerClass", gone)
    server.process_request_thread(socket.socket(), (LOOPBACK, 1))
    assert ("Traceback" in capsys.readouterr().err) is told
