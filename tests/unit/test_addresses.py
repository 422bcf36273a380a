"""No address inside the house is ever connected to unless a source says so, however it is written."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ingest.sources.addresses import check_url, normalise, origin, refusal, resolve, shortened
from ingest.sources.transport import Transport
from rag.errors import AttestError, DocumentError, InvalidInput, NotAllowed

# What `getaddrinfo` makes of these is the attacker's choice; the table plays the name server.
NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "wiki.example": ["10.0.0.7"],
    "mixed.example": ["93.184.216.34", "10.0.0.7"],
    "mixed6.example": ["2606:2800:220:1:248:1893:25c8:1946", "fd00::7"],
    "mapped.example": ["::ffff:192.168.0.1"],
    "public.example": ["93.184.216.34"],
}

REFUSED = [
    # loopback, in every way a resolver reads it
    "http://127.0.0.1/",
    "http://127.0.0.2/",
    "http://127.255.255.254/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0177.0.0.1/",
    "http://0177.0.0.01/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://0X7F000001/",
    "http://2130706433/",
    "http://017700000001/",
    "http://127.0.0.1./",
    "http://localhost/",
    "http://localhost./",
    "http://LOCALHOST/",
    "https://localhost/",
    "http://127。0。0。1/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    # unspecified
    "http://0.0.0.0/",
    "http://0/",
    "http://0x0/",
    "http://[::]/",
    "http://[::ffff:0.0.0.0]/",
    # private
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://167772161/",
    "http://012.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://0xc0a80101/",
    "http://3232235777/",
    "http://192.168.257/",
    "http://100.64.0.1/",
    "http://100.127.255.255/",
    "http://[fc00::1]/",
    "http://[fd12:3456:789a::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:a00:1]/",
    "http://wiki.example/",
    "http://mixed.example/",
    "http://mixed6.example/",
    "http://mapped.example/",
    # private IPv4 inside an IPv6 address that a gateway unwraps
    "http://[64:ff9b::a00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:a00:1::]/",
    "http://[2002:7f00:1::1]/",
    "http://[2002:c0a8:101::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[2606:4700::5efe:10.0.0.1]/",
    "http://[fe80::5efe:10.0.0.1]/",
    # link-local and the places that hand out credentials
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.0.1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://metadata.google.internal/",
    "http://[fd00:ec2::254]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fe80::1]/",
    "http://[febf::1]/",
    "http://[fec0::1]/",
    # multicast, broadcast, reserved, documentation
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
    "http://192.0.0.8/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://192.88.99.1/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[100::1]/",
    "http://[5f00::1]/",
    # not the web, not an address, or not the whole truth about where it leads
    "ftp://public.example/",
    "file:///etc/passwd",
    "gopher://public.example/",
    "data:text/html,x",
    "javascript:alert(1)",
    "//public.example/",
    "public.example/",
    "http://",
    "http:///path",
    "http://user@public.example/",
    "http://user:secret@public.example/",
    "http://public.example@127.0.0.1/",
    "http://127.0.0.1\\@public.example/",
    "http://127.0.0.1%2f@public.example/",
    "http://public.example%00.evil/",
    "http://%31%32%37.0.0.1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://[::1%25lo]/",
    "http://[::1",
    "http://public.example:22/",
    "http://public.example:6379/",
    "https://public.example:8443/",
    "http://public.example:0/",
    "http://public.example:99999/",
    "http://public.example:80:80/",
    "http://exa\tmple/\r\nHost: evil",
]

real_getaddrinfo = socket.getaddrinfo


def numeric_or_from_the_table(host: Any, port: Any, *args: Any, **options: Any) -> Any:
    """The real reading of numbers; names from the table; no name server is asked."""
    name = (host.decode() if isinstance(host, bytes) else host).lower().removesuffix(".")
    if name in NAMES:
        return [entry for address in NAMES[name] for entry in real_getaddrinfo(address, port, *args, **options)]
    try:
        return (
            real_getaddrinfo(host, port, *args, **options, flags=0) if name[:1].isdigit() or ":" in name else fail(name)
        )
    except socket.gaierror:
        fail(name)


def fail(name: str) -> Any:
    raise socket.gaierror(-2, f"{name} is not known")


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    attempts: list[Any] = []

    def refuse(*args: Any, **_: Any) -> Any:
        attempts.append(args)
        raise AssertionError(f"a connection to {args} was tried")

    monkeypatch.setattr(socket, "getaddrinfo", numeric_or_from_the_table)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    return attempts


@pytest.fixture(scope="module")
def closed_transport() -> Transport:
    return Transport(allow_private=False, max_bytes=1000, delay_seconds=0, retries=0)


@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_may_not_be_read_is_refused_before_any_connection(
    url: str, closed_transport: Transport, no_connections: list[Any]
) -> None:
    with pytest.raises(AttestError) as caught:
        closed_transport.get(url)
    assert isinstance(caught.value, NotAllowed | InvalidInput | DocumentError)
    if isinstance(caught.value, DocumentError):  # the resolver itself would not read it
        assert "not found" in caught.value.detail
    assert "secret" not in str(caught.value)
    assert no_connections == []


def test_the_matrix_is_about_refusals_not_about_names_that_do_not_resolve(
    closed_transport: Transport, no_connections: list[Any]
) -> None:
    outcomes = []
    for url in REFUSED:
        with pytest.raises(AttestError) as caught:
            closed_transport.get(url)
        outcomes.append(type(caught.value))
    assert len(REFUSED) >= 60
    assert outcomes.count(DocumentError) <= 3


def test_a_public_address_is_connected_to_as_checked(closed_transport: Transport, no_connections: list[Any]) -> None:
    with pytest.raises(AssertionError, match=r"93\.184\.216\.34"):
        closed_transport.get("http://public.example/")
    assert no_connections[0][0] == ("93.184.216.34", 80)


def test_a_name_that_changes_its_answer_is_asked_only_once(
    closed_transport: Transport, no_connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])

    def rebinding(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return real_getaddrinfo(next(answers), port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(AssertionError):
        closed_transport.get("http://rebinding.example/")
    assert [attempt[0] for attempt in no_connections] == [("93.184.216.34", 80)]
    assert next(answers) == "127.0.0.1"


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal(address, allow_private=False) is None


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "172.20.0.1", "100.64.0.1", "fd00::1"]
)
def test_a_source_may_open_private_networks(address: str) -> None:
    assert refusal(address, allow_private=False) == "a private address"
    assert refusal(address, allow_private=True) is None


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "100.100.100.200",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "169.254.1.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "fe80::1%eth0",
        "240.0.0.1",
        "168.63.129.16",
        "not an address",
    ],
)
def test_no_source_opens_metadata_services_and_the_like(address: str) -> None:
    assert refusal(address, allow_private=True) is not None


def test_every_address_of_a_host_must_be_fit(no_connections: list[Any]) -> None:
    assert resolve("public.example", 80, allow_private=False) == ["93.184.216.34"]
    with pytest.raises(NotAllowed, match=r"mixed\.example leads to 10\.0\.0\.7"):
        resolve("mixed.example", 80, allow_private=False)
    with pytest.raises(DocumentError, match="not found"):
        resolve("nowhere.example", 80, allow_private=False)
    assert no_connections == []


def test_other_ports_are_for_servers_of_ones_own() -> None:
    with pytest.raises(NotAllowed, match="port 8080"):
        check_url("http://public.example:8080/", allow_private=False)
    assert check_url("http://public.example:8080/", allow_private=True).port == 8080
    assert check_url("https://public.example:443/", allow_private=False).port is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        ("http://example.com.:80/", "http://example.com/"),
        ("HTTPS://example.com:443/a", "https://example.com/a"),
        ("http://example.com:8080/a#part", "http://example.com:8080/a"),
        ("http://example.com/a/./b/../c", "http://example.com/a/c"),
        ("http://example.com/%7Eme/%e4%b8%ad", "http://example.com/~me/%E4%B8%AD"),
        ("http://example.com/中文?q=中", "http://example.com/%E4%B8%AD%E6%96%87?q=%E4%B8%AD"),
        ("http://中文.example/", "http://xn--fiq228c.example/"),
        ("http://example.com/?", "http://example.com/"),
        ("http://example.com/?utm_source=x&id=3&UTM_medium=y&gclid=1", "http://example.com/?id=3"),
        ("http://example.com/?b=2&a=1", "http://example.com/?b=2&a=1"),
        ("http://example.com/a;jsessionid=1F?x=1", "http://example.com/a?x=1"),
        (" http://example.com/a\n", "http://example.com/a"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
    ],
)
def test_equal_pages_have_equal_keys(url: str, expected: str) -> None:
    assert normalise(url) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("b", "https://example.com/docs/b"),
        ("/b", "https://example.com/b"),
        ("../b", "https://example.com/b"),
        ("../../../b", "https://example.com/b"),
        ("?page=2", "https://example.com/docs/a?page=2"),
        ("#top", "https://example.com/docs/a?x=1"),
        ("//other.example/x", "https://other.example/x"),
    ],
)
def test_links_are_read_from_their_page(link: str, expected: str) -> None:
    assert normalise(link, base="https://example.com/docs/a?x=1") == expected


def test_an_origin_is_a_site() -> None:
    assert origin("https://example.com/a/b?c") == "https://example.com"
    assert origin("http://example.com:8080") == "http://example.com:8080"


def test_a_message_carries_neither_passwords_nor_line_breaks() -> None:
    text = shortened("http://user:secret@example.com/a\r\nb" + "x" * 300)
    assert "secret" not in text
    assert "\n" not in text
    assert len(text) == 200


@pytest.fixture(autouse=True)
def _no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", numeric_or_from_the_table)
