"""A web source against a real server on loopback: what it lists, what it keeps, and what it will not be talked into."""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ingest.sources import visit as visit_module
from ingest.sources.transport import USER_AGENT, Timeouts, Transport
from ingest.sources.web import WebSource
from ingest.sync import SyncOptions
from rag.catalog.jobs import Counts
from rag.catalog.tables import versions as version_rows
from rag.errors import AttestError, DocumentError, InvalidInput, NotAllowed, SourceError
from rag.models import Item, Unlisted
from tests.bases import Bases, Runs, runs_in

HTML = "text/html; charset=utf-8"


@dataclass
class Reply:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: Callable[[BaseHTTPRequestHandler], None] | None = None  # writes the whole answer itself


@dataclass
class Site:
    """A server whose pages are a dictionary. Remembers what was asked, with which headers."""

    url: str
    pages: dict[str, Reply | list[Reply]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    def html(self, path: str, body: str, *, head: str = "", **headers: str) -> None:
        text = f"<html><head><title>{path}</title>{head}</head><body>{body}</body></html>"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = Reply(text.encode(), headers={"Content-Type": HTML, **named})

    def links(self, path: str, *targets: str, **headers: str) -> None:
        self.html(path, f"<p>page {path}</p>" + "".join(f'<a href="{target}">x</a>' for target in targets), **headers)

    def count(self, path: str) -> int:
        return self.asked.count(path)

    def forget(self) -> None:
        self.asked.clear()
        self.headers.clear()


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Clients hang up on purpose here."""


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def make(certificate: Path | None = None) -> Site:
        site = Site("")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append(self.path)
                site.headers.append({name.lower(): value for name, value in self.headers.items()})
                planned = site.pages.get(self.path, Reply(b"not here", 404))
                if isinstance(planned, list):
                    planned = planned.pop(0) if len(planned) > 1 else planned[0]
                answer(self, planned)

            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                """A test's output is the test's own."""

        server = QuietServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        site.url = f"http://127.0.0.1:{server.server_port}"
        return site

    yield make
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    if reply.raw is not None:
        handler.close_connection = True
        try:
            reply.raw(handler)
        except OSError:
            return  # the client has had enough, as some tests want it
        return
    etag = reply.headers.get("ETag")
    if etag and handler.headers.get("If-None-Match") == etag:
        handler.send_response(304)
        handler.send_header("ETag", etag)
        handler.end_headers()
        return
    handler.send_response(reply.status)
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(reply.body)))
    handler.end_headers()
    handler.wfile.write(reply.body)


@pytest.fixture
def site(make_site: Callable[[], Site]) -> Site:
    return make_site()


def transport(**options: Any) -> Transport:
    arguments: dict[str, Any] = {
        "allow_private": True,
        "max_bytes": 100_000,
        "delay_seconds": 0,
        "retry_seconds": 0.0,
        "timeouts": Timeouts(connect=1.0, read=1.0, total=3.0),
        **options,
    }
    return Transport(**arguments)


def web(site: Site, *paths: str, **options: Any) -> WebSource:
    transport_options = options.pop("transport_options", {})
    if "sitemap" in options:
        options["sitemap"] = site.url + options["sitemap"]
    return WebSource(
        urls=[site.url + path for path in paths],
        allow_private=True,
        max_bytes=100_000,
        delay_seconds=0,
        transport=transport(**transport_options),
        **options,
    )


Listing = dict[str, Item | Unlisted]


def listed(source: WebSource, site: Site, known: Mapping[str, Mapping[str, str]] | None = None) -> Listing:
    """What the source lists, by key without the host."""
    found = list(source.items({site.url + key: state for key, state in (known or {}).items()}))
    keys = [entry.key.removeprefix(site.url) for entry in found]
    assert len(set(keys)) == len(keys), f"a key came twice: {keys}"
    return dict(zip(keys, found, strict=True))


def stored(listing: Listing) -> dict[str, Mapping[str, str]]:
    """The states after everything was loaded and stored."""
    states: dict[str, Mapping[str, str]] = {}
    for key, entry in listing.items():
        assert isinstance(entry, Item), entry
        states[key] = entry.load().state
    return states


def kinds(listing: Listing) -> dict[str, str]:
    words = {}
    for key, entry in listing.items():
        words[key] = entry.problem.code if isinstance(entry, Unlisted) else "same" if entry.unchanged else "new"
    return words


# ── single pages ──────────────────────────────────────────────────────────────────────────────


def test_a_page_is_listed_and_its_body_fetched_once(site: Site) -> None:
    site.html("/a", "<p>Hello</p>", Last_Modified="Wed, 01 Jan 2025 00:00:00 GMT", ETag='"1"')
    found = listed(web(site, "/a?utm_source=mail#top"), site)
    item = found["/a"]
    assert isinstance(item, Item)
    assert item.uri == site.url + "/a"
    original = item.load()
    assert b"Hello" in original.data
    assert item.load().data == original.data
    assert (original.name, original.media_type) == ("a", HTML)
    assert original.state == item.state
    assert original.state["etag"] == '"1"'
    assert original.state["last_modified"] == "Wed, 01 Jan 2025 00:00:00 GMT"
    assert site.count("/a") == 1
    assert site.headers[-1]["user-agent"] == USER_AGENT


def test_bytes_and_charset_arrive_as_they_were_sent(site: Site) -> None:
    body = "<html><body><p>年假十五天</p><a href='/b'>下一页</a></body></html>".encode("gbk")
    site.pages["/a"] = Reply(body, headers={"Content-Type": "text/html; charset=gbk"})
    site.links("/b")
    found = listed(web(site, "/a", crawl_depth=1), site)
    assert list(found) == ["/a", "/b"]
    item = found["/a"]
    assert isinstance(item, Item)
    assert item.load().data == body
    assert item.load().media_type == "text/html; charset=gbk"


@pytest.mark.parametrize("charset", ["rot13", "utf-8-sig", "no-such-charset", '"', "x" * 5000])
def test_a_charset_that_nobody_knows_stops_nothing(site: Site, charset: str) -> None:
    site.links("/", "/b")
    site.pages["/"].headers["Content-Type"] = f"text/html; charset={charset}"  # type: ignore[union-attr]
    site.links("/b")
    assert list(listed(web(site, "/", crawl_depth=1), site)) == ["/", "/b"]


def test_an_unchanged_page_costs_one_small_answer_and_can_still_be_loaded(site: Site) -> None:
    site.html("/a", "<p>Hello</p>", ETag='"1"')
    known = stored(listed(web(site, "/a"), site))
    site.forget()
    again = listed(web(site, "/a"), site, known)
    assert kinds(again) == {"/a": "same"}
    assert site.headers[-1]["if-none-match"] == '"1"'
    item = again["/a"]
    assert isinstance(item, Item)
    assert item.state == known["/a"]
    assert b"Hello" in item.load().data


def test_same_bytes_without_an_etag_are_unchanged(site: Site) -> None:
    site.html("/a", "<p>Hello</p>")
    known = stored(listed(web(site, "/a"), site))
    assert kinds(listed(web(site, "/a"), site, known)) == {"/a": "same"}
    site.html("/a", "<p>Hello again</p>")
    assert kinds(listed(web(site, "/a"), site, known)) == {"/a": "new"}


def test_a_page_that_is_gone_is_not_listed_and_one_that_fails_keeps_its_copy(site: Site) -> None:
    for path in ("/gone", "/gone2", "/broken", "/locked", "/empty", "/fine"):
        site.html(path, f"<p>{path}</p>")
    source = web(site, "/gone", "/gone2", "/broken", "/locked", "/empty", "/fine")
    known = stored(listed(source, site))
    site.pages["/gone"] = Reply(b"no", 404)
    site.pages["/gone2"] = Reply(b"no", 410)
    site.pages["/broken"] = Reply(b"oops", 500)
    site.pages["/locked"] = Reply(b"who?", 401)
    site.pages["/empty"] = Reply(b" \n", headers={"Content-Type": HTML})
    found = listed(source, site, known)
    assert kinds(found) == {"/broken": "failed", "/locked": "blocked", "/empty": "empty", "/fine": "same"}


def test_a_server_that_is_not_there_fails_each_listed_page_and_nothing_else(site: Site) -> None:
    site.html("/fine", "<p>fine</p>")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        source = WebSource(
            urls=[dead, site.url + "/fine"], allow_private=True, max_bytes=1000, transport=transport(retries=0)
        )
        found = {entry.key: entry for entry in source.items({dead: {"sha256": "0"}})}
    failed = found[dead]
    assert isinstance(failed, Unlisted)
    assert "robots.txt" in failed.problem.detail
    assert isinstance(found[site.url + "/fine"], Item)


def test_a_failure_that_passes_is_asked_again(site: Site) -> None:
    site.pages["/a"] = [
        Reply(b"", 503, {"Retry-After": "0"}),
        Reply(b"", 429),
        Reply(b"hello", headers={"Content-Type": HTML}),
    ]
    assert kinds(listed(web(site, "/a"), site)) == {"/a": "new"}
    assert site.count("/a") == 3


def test_a_server_that_asks_for_an_hour_is_not_waited_for(site: Site) -> None:
    site.pages["/a"] = Reply(b"", 503, {"Retry-After": "3600"})
    started = time.monotonic()
    assert kinds(listed(web(site, "/a"), site)) == {"/a": "failed"}
    assert site.count("/a") == 1
    assert time.monotonic() - started < 1


# ── bodies that are not to be trusted ─────────────────────────────────────────────────────────


def test_a_body_that_breaks_off_is_not_stored(site: Site) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\nonly the beginning"
        )

    def cut_chunks(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )

    packed = gzip.compress(b"hello " * 1000)[:-12]
    site.pages["/cut"] = Reply(raw=cut)
    site.pages["/chunks"] = Reply(raw=cut_chunks)
    site.pages["/packed"] = Reply(packed, headers={"Content-Type": HTML, "Content-Encoding": "gzip"})
    found = listed(web(site, "/cut", "/chunks", "/packed"), site)
    assert kinds(found) == {"/cut": "failed", "/chunks": "failed", "/packed": "failed"}
    assert site.count("/cut") == 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
def test_packed_pages_are_unpacked(site: Site, encoding: str) -> None:
    import zlib

    text = b"<html><body>" + b"hello " * 1000 + b"</body></html>"
    if encoding == "gzip":
        packed = gzip.compress(text[:100]) + gzip.compress(text[100:])  # two members are one file
    else:
        engine = zlib.compressobj(wbits=15 if encoding == "deflate" else -15)
        packed = engine.compress(text) + engine.flush()
    site.pages["/a"] = Reply(packed, headers={"Content-Type": HTML, "Content-Encoding": encoding.split()[-1]})
    item = listed(web(site, "/a"), site)["/a"]
    assert isinstance(item, Item)
    assert item.load().data == text


def test_a_bomb_is_stopped_at_the_limit(site: Site) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    site.pages["/bomb"] = Reply(bomb, headers={"Content-Type": HTML, "Content-Encoding": "gzip"})
    site.pages["/exotic"] = Reply(b"\x0b\x80", headers={"Content-Type": HTML, "Content-Encoding": "br"})
    assert kinds(listed(web(site, "/bomb", "/exotic"), site)) == {"/bomb": "too_large", "/exotic": "failed"}


def test_a_page_that_is_too_large_is_not_fetched_to_its_end(site: Site) -> None:
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        for _ in range(10_000):
            handler.wfile.write(b"x" * 10_000)
            sent.append(10_000)

    site.pages["/endless"] = Reply(raw=endless)
    site.pages["/declared"] = Reply(b"x" * 100_001, headers={"Content-Type": HTML})
    assert kinds(listed(web(site, "/endless", "/declared"), site)) == {
        "/endless": "too_large",
        "/declared": "too_large",
    }
    assert sum(sent) < 50_000_000


def test_only_what_can_be_read_is_fetched(site: Site) -> None:
    site.pages["/video"] = Reply(b"x", headers={"Content-Type": "video/mp4"})
    site.pages["/report.pdf"] = Reply(b"%PDF-", headers={"Content-Type": "application/octet-stream"})
    site.pages["/data"] = Reply(b"x", headers={"Content-Type": "application/octet-stream"})
    site.pages["/named"] = Reply(
        b"%PDF-", headers={"Content-Type": "application/pdf", "Content-Disposition": 'attachment; filename="年报.pdf"'}
    )
    site.pages["/named"].headers["Content-Disposition"] = "attachment; filename*=UTF-8''%E5%B9%B4%E6%8A%A5.pdf"
    found = listed(web(site, "/video", "/report.pdf", "/data", "/named"), site)
    assert kinds(found) == {"/video": "unsupported", "/report.pdf": "new", "/data": "unsupported", "/named": "new"}
    named = found["/named"]
    assert isinstance(named, Item)
    assert named.load().name == "年报.pdf"


def test_a_server_that_drips_is_given_up_in_time(site: Site) -> None:
    over = threading.Event()

    def drip_headers(handler: BaseHTTPRequestHandler) -> None:
        while not over.wait(0.05):
            handler.wfile.write(b"H")

    def drip_body(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while not over.wait(0.05):
            handler.wfile.write(b"x")

    def silent(handler: BaseHTTPRequestHandler) -> None:
        over.wait(5)

    site.pages["/headers"], site.pages["/body"], site.pages["/silent"] = (
        Reply(raw=drip_headers),
        Reply(raw=drip_body),
        Reply(raw=silent),
    )
    patience = {"timeouts": Timeouts(connect=0.3, read=5.0, total=0.3), "retries": 0}
    started = time.monotonic()
    try:
        found = listed(web(site, "/headers", "/body", "/silent", transport_options=patience), site)
    finally:
        over.set()
    assert kinds(found) == {"/headers": "failed", "/body": "failed", "/silent": "failed"}
    assert time.monotonic() - started < 3


def test_nonsense_instead_of_http_is_a_failure(site: Site) -> None:
    def nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x16\x03\x01 this is not http\r\n\r\n")

    def reset(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    site.pages["/nonsense"] = Reply(raw=nonsense)
    site.pages["/reset"] = Reply(raw=reset)
    assert kinds(listed(web(site, "/nonsense", "/reset"), site)) == {"/nonsense": "failed", "/reset": "failed"}


# ── redirects, logins, credentials ────────────────────────────────────────────────────────────


def redirect(target: str, status: int = 302) -> Reply:
    return Reply(b"", status, {"Location": target})


def test_a_redirect_gives_its_target_as_key_and_is_remembered(site: Site) -> None:
    site.pages["/old"] = redirect("/new")
    site.html("/new", "<p>here</p>", ETag='"n"')
    found = listed(web(site, "/old"), site)
    assert list(found) == ["/new"]
    known = stored(found)
    assert kinds(listed(web(site, "/old"), site, known)) == {"/new": "same"}
    site.pages["/old"] = Reply(b"", 500)
    assert kinds(listed(web(site, "/old"), site, known)) == {"/new": "failed"}


def test_redirects_end(site: Site) -> None:
    site.pages["/ring"] = redirect("/ring")
    for number in range(7):
        site.pages[f"/{number}"] = redirect(f"/{number + 1}")
    site.html("/5", "<p>five</p>")
    assert kinds(listed(web(site, "/ring", "/0"), site)) == {"/ring": "failed", "/5": "new"}


def test_a_public_page_cannot_redirect_into_the_house(
    site: Site, make_site: Callable[[], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = make_site()
    inside.html("/secret", "<p>secret</p>")
    port = site.url.rpartition(":")[2]
    real_lookup, real_connect = socket.getaddrinfo, socket.create_connection

    def lookup(host: Any, *args: Any, **options: Any) -> Any:
        known = {"public.example": "93.184.216.34", "rebound.example": "127.0.0.1"}
        return real_lookup(known.get(host, host), *args, **options)

    def connect(address: tuple[str, int], *args: Any, **options: Any) -> Any:
        assert address == ("93.184.216.34", 80), f"a connection to {address} was tried"
        return real_connect(("127.0.0.1", int(port)), *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket, "create_connection", connect)
    closed = transport(allow_private=False)
    targets = ["http://127.0.0.1/secret", inside.url + "/secret", "http://rebound.example/secret", "//[::1]/secret"]
    targets += [
        "http://169.254.169.254/latest/meta-data/",
        "http://0x7f.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
    ]
    targets += ["http://user:pass@public.example/", "http://public.example:22/"]
    for target in targets:
        site.pages["/start"] = redirect(target)
        with pytest.raises(NotAllowed):
            closed.get("http://public.example/start")
    site.html("/fine", "<p>fine</p>")
    assert closed.get("http://public.example/fine").status == 200
    closed.close()
    assert site.headers[-1]["host"] == "public.example"
    assert inside.asked == []


def test_the_certificate_must_belong_to_the_host_that_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_site: Callable[..., Site]
) -> None:
    certificate = self_signed(tmp_path, "wiki.example")
    site = make_site(certificate)
    site.html("/a", "<p>safe</p>")
    port = site.url.rpartition(":")[2]
    trusting = ssl.create_default_context(cafile=str(certificate))
    real_lookup = socket.getaddrinfo
    monkeypatch.setattr("httpx.create_ssl_context", lambda **_: trusting)
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *args, **options: real_lookup("127.0.0.1", *args, **options))
    secure = transport(retries=0)
    assert b"safe" in secure.get(f"https://wiki.example:{port}/a").data
    with pytest.raises(DocumentError, match="certificate"):
        secure.get(f"https://other.example:{port}/a")
    secure.close()
    assert site.asked == ["/a"]


def self_signed(folder: Path, host: str) -> Path:
    """A certificate and its key in one file, good for an hour."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    return path


def test_https_does_not_become_http(site: Site) -> None:
    import httpx

    with pytest.raises(NotAllowed, match="unprotected"):
        transport()._next_hop(httpx.URL("https://example.com/a"), "http://example.com/b")


def test_a_login_is_noticed(site: Site) -> None:
    site.pages["/member"] = redirect("/users/sign_in?next=/member")
    site.html("/users/sign_in?next=/member", "<p>welcome</p>")
    site.html("/form", "<form><input name=u><input type=password name=p></form>")
    site.html("/article", "<form><input type=password></form><p>" + "A long text. " * 100)
    site.pages["/forbidden"] = Reply(b"no", 403)
    found = listed(web(site, "/member", "/form", "/forbidden", "/article"), site)
    assert kinds(found) == {"/member": "blocked", "/form": "blocked", "/forbidden": "blocked", "/article": "new"}
    assert site.count("/users/sign_in?next=/member") == 0


def test_headers_of_a_source_go_to_its_own_host_only(site: Site, make_site: Callable[[], Site]) -> None:
    other = make_site()
    other_url = other.url.replace("127.0.0.1", "localhost")
    other.html("/there", "<p>there</p>")
    site.html("/a", "<p>a</p>")
    site.pages["/away"] = redirect(other_url + "/there")
    source = WebSource(
        urls=[site.url + "/a", site.url + "/away"],
        allow_private=True,
        max_bytes=1000,
        delay_seconds=0,
        headers={"Cookie": "session=1", "X-Key": "2"},
    )
    found = {entry.key: entry for entry in source.items({})}
    assert set(found) == {site.url + "/a", site.url + "/away"}
    assert found[site.url + "/away"].uri == other_url + "/there"
    assert all(headers["cookie"] == "session=1" and headers["x-key"] == "2" for headers in site.headers)
    assert other.asked == ["/robots.txt", "/there"]
    assert all("cookie" not in headers and "x-key" not in headers for headers in other.headers)


@pytest.mark.parametrize(
    "headers", [{"X\r\nHost": "1"}, {"X": "a\r\nHost: b"}, {"Host": "x"}, {"": "x"}, {"X": "密码"}]
)
def test_headers_that_would_break_a_request_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        transport(headers=headers)
    assert "密码" not in str(caught.value)


def test_the_environment_does_not_redirect_requests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    site.html("/a", "<p>a</p>")
    assert kinds(listed(web(site, "/a"), site)) == {"/a": "new"}


# ── robots.txt ────────────────────────────────────────────────────────────────────────────────


def robots(site: Site, text: str) -> None:
    site.pages["/robots.txt"] = Reply(text.encode(), headers={"Content-Type": "text/plain"})


def test_robots_are_honoured_everywhere_and_asked_once(site: Site) -> None:
    robots(site, "User-agent: *\nDisallow: /private\n\nUser-agent: attest\nDisallow: /no\n")
    site.links("/", "/no/way", "/private/ok", "/b")
    site.links("/no/way")
    site.links("/private/ok")
    site.links("/b")
    assert kinds(listed(web(site, "/", crawl_depth=1), site)) == {"/": "new", "/private/ok": "new", "/b": "new"}
    assert site.count("/robots.txt") == 1
    assert kinds(listed(web(site, "/no/way"), site)) == {"/no/way": "blocked"}
    assert site.count("/no/way") == 0


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_site_without_robots_allows_everything(site: Site, status: int) -> None:
    site.pages["/robots.txt"] = Reply(b"", status)
    site.links("/")
    assert kinds(listed(web(site, "/", crawl_depth=0), site)) == {"/": "new"}


def test_robots_that_fail_make_a_crawl_incomplete_and_a_list_keep_its_copies(site: Site) -> None:
    site.pages["/robots.txt"] = Reply(b"", 500)
    site.links("/")
    with pytest.raises(SourceError, match=r"robots\.txt answered 500"):
        listed(web(site, "/", crawl_depth=1), site)
    assert kinds(listed(web(site, "/"), site, {"/": {"sha256": "0"}})) == {"/": "blocked"}
    assert site.count("/") == 0


def test_a_crawl_delay_is_kept_within_bounds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    robots(site, "User-agent: *\nCrawl-delay: 86400\n")
    site.html("/a", "<p>a</p>")
    pauses: list[float] = []
    monkeypatch.setattr("ingest.sources.transport.time.sleep", pauses.append)
    listed(web(site, "/a"), site)
    assert [round(pause) for pause in pauses] == [10]


# ── crawls ────────────────────────────────────────────────────────────────────────────────────


def test_a_crawl_stays_on_its_site_and_within_its_depth(site: Site, make_site: Callable[[], Site]) -> None:
    other = make_site()
    site.links(
        "/", "/a", "b#x", other.url + "/x", "mailto:a@b.c", "javascript:x()", "/pic.png", "/f.pdf", "http://[bad"
    )
    site.links("/a", "/a/deep", "/")
    site.links("/b", "/a", "/missing")
    site.links("/a/deep", "/a/deep/er")
    site.links("/a/deep/er")
    site.pages["/f.pdf"] = Reply(b"%PDF-", headers={"Content-Type": "application/pdf"})
    assert list(listed(web(site, "/", crawl_depth=0), site)) == ["/"]
    assert list(listed(web(site, "/", crawl_depth=1), site)) == ["/", "/a", "/b", "/f.pdf"]
    site.forget()
    assert list(listed(web(site, "/", crawl_depth=2), site)) == ["/", "/a", "/b", "/f.pdf", "/a/deep"]
    assert max(site.asked.count(path) for path in site.asked) == 1
    assert "/pic.png" not in site.asked
    assert other.asked == []


def test_a_second_crawl_of_an_unchanged_site_fetches_no_body(site: Site) -> None:
    site.links("/", "/a", ETag='"0"')
    site.links("/a", "/b", ETag='"a"')
    site.links("/b", ETag='"b"')
    known = stored(listed(web(site, "/", crawl_depth=5), site))
    site.forget()
    assert kinds(listed(web(site, "/", crawl_depth=5), site, known)) == {"/": "same", "/a": "same", "/b": "same"}
    asked = zip(site.asked, site.headers, strict=True)
    assert all("if-none-match" in headers for path, headers in asked if path != "/robots.txt")


def test_pages_without_known_links_are_fetched_whole(site: Site) -> None:
    site.links("/", "/a", ETag='"0"')
    site.links("/a")
    known = stored(listed(web(site, "/"), site))  # a list keeps no links
    assert kinds(listed(web(site, "/", crawl_depth=1), site, known)) == {"/": "same", "/a": "new"}


def test_what_hangs_on_a_failing_page_is_not_lost(site: Site) -> None:
    site.links("/", "/a", "/c", ETag='"0"')
    site.links("/a", "/b")
    site.links("/b")
    site.links("/c")
    known = stored(listed(web(site, "/", crawl_depth=3), site))
    site.pages["/a"] = Reply(b"", 500)
    assert kinds(listed(web(site, "/", crawl_depth=3), site, known)) == {
        "/": "same",
        "/a": "failed",
        "/b": "same",
        "/c": "same",
    }
    del site.pages["/b"]  # really gone, although its parent fails
    assert "/b" not in listed(web(site, "/", crawl_depth=3), site, known)
    without_links = {key: {"sha256": state["sha256"]} for key, state in known.items()}
    site.links("/b")
    assert kinds(listed(web(site, "/", crawl_depth=3), site, without_links))["/b"] == "same"


def test_a_page_that_is_no_longer_linked_is_not_listed(site: Site) -> None:
    site.links("/", "/a", "/b")
    site.links("/a")
    site.links("/b")
    known = stored(listed(web(site, "/", crawl_depth=1), site))
    site.links("/", "/b")
    assert kinds(listed(web(site, "/", crawl_depth=1), site, known)) == {"/": "new", "/b": "same"}


def test_a_crawl_that_reaches_its_limit_says_so_and_deletes_nothing(site: Site) -> None:
    site.links("/", *(f"/{number}" for number in range(10)))
    for number in range(10):
        site.links(f"/{number}")
    found = listed(web(site, "/", crawl_depth=1, crawl_max_pages=5), site)
    assert kinds(found) == {"/": "new", "/0": "new", "/1": "new", "/2": "new", "/3": "new", "/4": "too_large"}
    known = stored({key: entry for key, entry in found.items() if isinstance(entry, Item)})
    site.links("/new")
    site.links("/", "/new", *(f"/{number}" for number in range(10)))
    again = kinds(listed(web(site, "/", crawl_depth=1, crawl_max_pages=5), site, known))
    assert again["/new"] == "new"
    assert again["/3"] == "too_large"
    assert site.count("/9") == 0


def test_a_crawl_without_its_start_page_is_incomplete(site: Site) -> None:
    for reply in (Reply(b"", 404), Reply(b"", 500), Reply(b"", 403), redirect("/login"), Reply(b"", 200)):
        site.pages["/"] = reply
        with pytest.raises(SourceError, match="could not begin"):
            listed(web(site, "/", crawl_depth=1), site, {"/": {"sha256": "0"}})


def test_a_site_that_goes_down_in_the_middle_ends_the_crawl(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit_module, "MAX_FAILURES_IN_A_ROW", 3)
    site.links("/", *(f"/{number}" for number in range(10)))
    for number in range(10):
        site.pages[f"/{number}"] = Reply(b"", 500)
    with pytest.raises(SourceError, match="3 pages in a row"):
        listed(web(site, "/", crawl_depth=1), site)
    assert site.count("/5") == 0


def test_traps_are_left_alone(site: Site) -> None:
    many = "&".join(f"p{number}=1" for number in range(9))
    site.links(
        "/",
        "/x/y/x/y/x/y/x/y",
        f"/s?{many}",
        "/" + "long" * 500,
        "/calendar?day=0",
    )
    for number in range(80):
        site.links(f"/calendar?day={number}", f"?day={number + 1}")
    found = listed(web(site, "/", crawl_depth=3), site)
    assert list(found) == ["/", "/calendar?day=0", "/calendar?day=1", "/calendar?day=2"]


def test_noindex_and_nofollow_are_respected_in_a_crawl_only(site: Site) -> None:
    site.links("/", "/hidden", "/closed", "/header")
    site.html("/hidden", '<p>x</p><a href="/from-hidden">x</a>', head='<meta name="robots" content="NOINDEX">')
    site.html("/closed", '<p>y</p><a href="/from-closed">x</a>', head='<meta name="robots" content="nofollow">')
    site.links("/header", X_Robots_Tag="noindex, nofollow")
    site.links("/from-hidden")
    site.links("/from-closed")
    assert list(listed(web(site, "/", crawl_depth=2), site)) == ["/", "/closed", "/from-hidden"]
    assert list(listed(web(site, "/hidden"), site)) == ["/hidden"]


def test_a_canonical_address_joins_variants_but_never_different_pages(site: Site) -> None:
    front = f'<link rel="canonical" href="{site.url}/">'
    site.html("/", '<a href="/a?sort=up">x</a><a href="/a?sort=down">x</a><a href="/b">x</a>', head=front)
    for order in ("up", "down"):
        site.html(f"/a?sort={order}", f"<p>{order}</p>", head='<link rel="canonical" href="/a">')
    site.html("/b", "<p>a page of its own</p>", head=front)
    found = listed(web(site, "/", crawl_depth=1), site)
    assert list(found) == ["/", "/a", "/b"]
    assert kinds(listed(web(site, "/", crawl_depth=1), site, stored(found))) == {
        "/": "same",
        "/a": "same",
        "/b": "same",
    }


def test_include_and_exclude_choose_among_found_pages(site: Site) -> None:
    site.links("/", "/docs/a", "/blog/b", "/docs/old/c", "/docs/d.pdf")
    for path in ("/docs/a", "/blog/b", "/docs/old/c"):
        site.links(path)
    site.pages["/docs/d.pdf"] = Reply(b"%PDF-", headers={"Content-Type": "application/pdf"})
    found = listed(web(site, "/", crawl_depth=1, include=["/docs/*"], exclude=["*/old/*"]), site)
    assert list(found) == ["/docs/a", "/docs/d.pdf"]
    assert site.count("/docs/old/c") == 0
    assert list(listed(web(site, "/", crawl_depth=1, include=["*.pdf"]), site)) == ["/docs/d.pdf"]
    assert list(listed(web(site, "/", crawl_depth=1, include=[site.url + "/blog/*"]), site)) == ["/blog/b"]


def test_a_redirect_off_the_site_is_not_part_of_a_crawl(site: Site, make_site: Callable[[], Site]) -> None:
    other = make_site()
    other.links("/x")
    site.links("/", "/away", "/twice")
    site.pages["/away"] = redirect(other.url + "/x")
    site.pages["/twice"] = redirect("/")
    assert list(listed(web(site, "/", crawl_depth=1), site)) == ["/"]
    assert other.asked == []


# ── sitemaps ──────────────────────────────────────────────────────────────────────────────────


def sitemap(*urls: str, kind: str = "urlset") -> bytes:
    tag = "sitemap" if kind == "sitemapindex" else "url"
    entries = "".join(f"<{tag}><loc> {url} </loc></{tag}>" for url in urls)
    return (
        f'<?xml version="1.0"?><{kind} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</{kind}>'.encode()
    )


def xml(body: bytes, media_type: str = "application/xml") -> Reply:
    return Reply(body, headers={"Content-Type": media_type})


def test_a_sitemap_index_with_packed_files_lists_all_its_pages(site: Site) -> None:
    site.pages["/sitemap.xml"] = xml(sitemap(site.url + "/1.xml.gz", site.url + "/2.txt", kind="sitemapindex"))
    site.pages["/1.xml.gz"] = xml(gzip.compress(sitemap(site.url + "/a", site.url + "/b#x")), "application/gzip")
    site.pages["/2.txt"] = xml(f"{site.url}/b\n{site.url}/c\n\nnot a url at all:\n".encode(), "text/plain")
    for path in ("/a", "/b", "/c"):
        site.links(path)
    assert list(listed(web(site, sitemap="/sitemap.xml"), site))[:3] == ["/a", "/b", "/c"]


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Not found</body></html>",
        b"<urlset><url><loc>http://x/",
        b"",
        gzip.compress(sitemap("http://x/"))[:-9],
        gzip.compress(b"\0" * 60_000_000),
    ],
)
def test_a_sitemap_that_cannot_be_read_makes_the_listing_incomplete(site: Site, body: bytes) -> None:
    site.pages["/sitemap.xml"] = xml(body)
    with pytest.raises(SourceError):
        listed(web(site, sitemap="/sitemap.xml"), site)


@pytest.mark.parametrize("status", [404, 500, 403])
def test_a_sitemap_that_is_not_there_makes_the_listing_incomplete(site: Site, status: int) -> None:
    site.pages["/sitemap.xml"] = xml(sitemap(site.url + "/part.xml", kind="sitemapindex"))
    site.pages["/part.xml"] = Reply(b"", status)
    with pytest.raises(SourceError, match=str(status)):
        listed(web(site, sitemap="/sitemap.xml"), site)


def test_a_sitemap_reads_no_files_and_expands_no_entities(site: Site) -> None:
    bomb = b'<!DOCTYPE u [<!ENTITY a "xxxxxxxxxx"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
    site.pages["/sitemap.xml"] = xml(bomb + b"<urlset><url><loc>/&a;&f;</loc></url></urlset>")
    found = listed(web(site, sitemap="/sitemap.xml"), site)
    assert not any("root" in path or "xxx" in path for path in site.asked)
    assert all("root" not in key for key in found)


def test_pages_of_a_sitemap_on_other_sites_are_left_out_and_said(site: Site, make_site: Callable[[], Site]) -> None:
    other = make_site()
    site.pages["/sitemap.xml"] = xml(sitemap(site.url + "/a", other.url + "/x", other.url + "/y"))
    site.links("/a")
    found = listed(web(site, sitemap="/sitemap.xml"), site)
    assert kinds(found) == {"/a": "new", other.url + "/x": "blocked"}
    assert other.asked == []


def test_a_sitemap_and_a_crawl_together_list_each_page_once(site: Site) -> None:
    site.pages["/sitemap.xml"] = xml(sitemap(site.url + "/a", site.url + "/orphan"))
    site.links("/", "/a", "/b", "/c", "/d")
    for path in ("/a", "/b", "/c", "/d", "/orphan"):
        site.links(path)
    found = listed(web(site, "/", sitemap="/sitemap.xml", crawl_depth=1), site)
    assert list(found) == ["/a", "/orphan", "/", "/b", "/c", "/d"]
    short = listed(web(site, "/", sitemap="/sitemap.xml", crawl_depth=1, crawl_max_pages=2), site, stored(found))
    assert set(short) == set(found)
    assert kinds(short)["/orphan"] == "same"
    assert kinds(short)["/d"] == "too_large"


def test_a_sitemap_that_names_itself_ends(site: Site) -> None:
    site.pages["/sitemap.xml"] = xml(sitemap(site.url + "/sitemap.xml", site.url + "/b.xml", kind="sitemapindex"))
    site.pages["/b.xml"] = xml(sitemap(site.url + "/sitemap.xml", kind="sitemapindex"))
    assert listed(web(site, sitemap="/sitemap.xml"), site) == {}


# ── configuration ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sitemap": "http://example.com/s.xml", "crawl_depth": 1},
        {"urls": ["http://example.com/"], "crawl_depth": -1},
        {"urls": ["http://example.com/"], "crawl_depth": 11},
        {"urls": ["http://example.com/"], "crawl_depth": 1, "crawl_max_pages": 0},
        {"urls": ["ftp://example.com/"]},
        {"urls": ["http://user:pw@example.com/"]},
        {"urls": ["http://example.com:8080/"]},
        {"urls": ["nonsense"]},
        {"sitemap": "file:///etc/passwd"},
    ],
)
def test_a_configuration_that_cannot_work_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises((InvalidInput, NotAllowed)):
        WebSource(max_bytes=1000, **options)


def test_a_closed_source_does_not_read_the_house(site: Site) -> None:
    port_80 = site.url.rpartition(":")[0]
    found = list(WebSource(urls=[port_80 + "/"], max_bytes=1000, delay_seconds=0).items({}))
    assert [type(entry) for entry in found] == [Unlisted]
    with pytest.raises(AttestError):
        list(WebSource(urls=[port_80 + "/"], crawl_depth=1, max_bytes=1000, delay_seconds=0).items({}))
    assert site.asked == []


def test_a_listing_that_is_abandoned_leaves_nothing_open(site: Site) -> None:
    site.links("/", "/a")
    site.links("/a")
    listing = web(site, "/", crawl_depth=1).items({})
    first = next(listing)
    assert isinstance(first, Item)
    listing.close()  # type: ignore[attr-defined]
    assert b"page /" in first.load().data


def test_loading_an_unchanged_page_that_failed_meanwhile_is_its_own_failure(site: Site) -> None:
    site.html("/a", "<p>a</p>", ETag='"1"')
    known = stored(listed(web(site, "/a"), site))
    item = listed(web(site, "/a"), site, known)["/a"]
    assert isinstance(item, Item)
    site.pages["/a"] = Reply(b"", 500)
    with pytest.raises(DocumentError, match="500"):
        item.load()


# ── a site that changes under a sync ──────────────────────────────────────────────────────────


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path)
    yield bases
    bases.close()


def truncated(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5000\r\n\r\n<p>Half a")


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def texts(runs: Runs) -> dict[str, str]:
    """What can be found of each page, by its path."""
    active = {(item.id, item.version): key.partition("/p")[2] for key, item in runs.documents().items()}
    with runs.base.catalog.read() as snapshot:
        rows = snapshot.execute(version_rows.select())
        return {
            active[row.document_id, row.number]: row.text for row in rows if (row.document_id, row.number) in active
        }


def test_a_site_that_changes_is_followed_and_nothing_is_lost_to_its_failures(site: Site, bases: Bases) -> None:
    runs = runs_in(bases.open())

    def page(number: int, text: str, **headers: str) -> None:
        site.html(f"/p{number}", f"<p>Page {number} says {text}.</p>", **headers)

    def sync(**options: Any) -> tuple[Counts, int]:
        site.forget()
        before = len(bases.embedder.embedded)
        source = web(site, *(f"/p{number}" for number in range(10)), conditional=not options.get("verify"))
        report = runs.make().run(source, SyncOptions(**options))
        assert report.problem is None
        return report.counts, len(bases.embedder.embedded) - before

    for number in range(10):
        page(number, "good morning", ETag=f'"{number}"')
    assert sync()[0] == Counts(added=10)
    assert sync() == (Counts(unchanged=10), 0)

    page(0, "good evening", ETag='"0b"')
    page(1, "good morning", ETag='"1b"')  # the server was moved: another ETag of the same page
    site.pages["/p2"] = Reply(b"", 404)
    site.pages["/p3"] = Reply(b"", 500)
    site.pages["/p4"] = Reply(b"", 503)
    site.pages["/p5"] = Reply(raw=truncated)
    site.pages["/p6"] = Reply(raw=reset)
    site.pages["/p7"] = redirect("/p7", 301)  # a loop
    page(8, "good night", ETag='"8"')  # an ETag that stood still
    counts, embedded = sync()
    assert counts == Counts(changed=1, unchanged=3, deleted=1, failed=5)
    assert embedded == 1
    kept = texts(runs)
    assert "good evening" in kept["0"]
    assert set(kept) == set("013456789")
    assert all("good morning" in kept[number] for number in "13456789")

    assert sync() == (Counts(unchanged=4, failed=5), 0)
    assert site.headers[site.asked.index("/p1")]["if-none-match"] == '"1b"'

    for number in range(3, 8):
        page(number, "good morning", ETag=f'"{number}c"')
    assert sync() == (Counts(unchanged=9), 0)
    assert sync(verify=True) == (Counts(changed=1, unchanged=8), 1)
    assert "if-none-match" not in {name for headers in site.headers for name in headers}
    assert "good night" in texts(runs)["8"]


def test_a_page_that_moved_embeds_nothing_and_is_there_once(site: Site, bases: Bases) -> None:
    runs = runs_in(bases.open())
    for number in range(6):
        site.html(f"/p{number}", f"<p>Page {number} says good morning.</p>")

    def sync() -> Counts:
        return runs.make().run(web(site, *(f"/p{number}" for number in range(6))), SyncOptions()).counts

    assert sync() == Counts(added=6)
    embedded = len(bases.embedder.embedded)
    site.pages["/p5-moved"] = site.pages["/p5"]
    site.pages["/p5"] = redirect("/p5-moved", 301)
    assert sync() == Counts(added=1, unchanged=5, deleted=1)
    assert len(bases.embedder.embedded) == embedded
    assert set(texts(runs)) == {"0", "1", "2", "3", "4", "5-moved"}
    assert sync() == Counts(unchanged=6)


def test_a_crawl_verifies_without_losing_what_hangs_on_a_failing_page(site: Site, bases: Bases) -> None:
    runs = runs_in(bases.open())
    site.links("/", "/hub", ETag='"a"')
    site.links("/hub", "/p1", "/p2", ETag='"b"')
    site.links("/p1", ETag='"c"')
    site.links("/p2", ETag='"d"')

    def sync(**options: Any) -> Counts:
        source = web(site, "/", crawl_depth=3, conditional=not options.get("verify"))
        return runs.make().run(source, SyncOptions(**options)).counts

    assert sync() == Counts(added=4)
    site.pages["/hub"] = Reply(b"", 500)
    assert sync(verify=True) == Counts(unchanged=3, failed=1)
    assert sync() == Counts(unchanged=3, failed=1)
    assert len(runs.documents()) == 4
