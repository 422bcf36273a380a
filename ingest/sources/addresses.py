"""Which URLs and network addresses may be touched, and the one way a URL is written so that equal pages share a key."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from rag.errors import DocumentError, InvalidInput, NotAllowed

if TYPE_CHECKING:
    import httpx

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")  # a name, IPv4 in any form, or IPv6
_TRACKING = re.compile(
    r"utm_.*|gclid|fbclid|msclkid|dclid|yclid|mc_cid|mc_eid|igshid|spm|_hsenc|_hsmi|phpsessid|jsessionid", re.IGNORECASE
)
_ESCAPED = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

# Addresses that hand out credentials to whoever can reach them. Azure's and Alibaba's do not look private.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7")
)
# What `ipaddress` calls global and is not meant to be reached: the relays of 6to4, all of 192.0.0.0/24, documentation.
_NOT_PUBLIC = tuple(ipaddress.ip_network(text) for text in ("192.88.99.0/24", "192.0.0.0/24", "3fff::/20"))
_UNICAST = ipaddress.ip_network("2000::/3")  # everything that IPv6 has assigned to the public so far
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def check_url(url: str, *, allow_private: bool) -> httpx.URL:
    """The URL, parsed; raises InvalidInput where it is none of http or https, NotAllowed where it may not be asked.

    What this returns is also what the connection is made from: there is no second parser to disagree with it.
    The address itself is checked when connecting (`resolve`), since only then it is known.
    """
    import httpx  # 0.13 s to import

    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput(
            f"{shortened(url)} is not a URL ({error}).", remedy="Write it as https://host/path."
        ) from error
    if parsed.scheme not in ("http", "https"):
        raise NotAllowed(f"{shortened(url)} is neither http nor https.", remedy="Only web addresses can be read.")
    if parsed.userinfo:
        raise NotAllowed(
            f"The URL for {parsed.host} carries a user name or password.",
            remedy="Take it out of the URL and give it as a header of the source.",
        )
    if not _HOST.fullmatch(_host(parsed)):
        raise InvalidInput(f"{shortened(url)} has no usable host name.", remedy="Write it as https://host/path.")
    port = parsed.port
    if port is not None and not 0 < port < 65536:
        raise InvalidInput(f"{shortened(url)} names port {port}.", remedy="A port lies between 1 and 65535.")
    if port not in (None, 80, 443) and not allow_private:
        raise NotAllowed(
            f"{shortened(url)} asks for port {port}; web pages are read from ports 80 and 443.", remedy=_ALLOW
        )
    return parsed


_ALLOW = "For a server of your own, set `allow_private` on the source."


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii").lower().removesuffix(".")


def refusal(address: str, *, allow_private: bool) -> str | None:
    """Why this IP address may not be connected to, or None where it may.

    `allow_private` opens loopback, private, carrier-grade and unique local networks. Metadata services, link-local,
    multicast and reserved addresses stay closed.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "not an IP address"
    for inner in (parsed, *_embedded(parsed)):
        reason = _refusal(inner, allow_private=allow_private)
        if reason is not None:
            return reason
    return None


def _embedded(address: IPAddress) -> list[IPAddress]:
    """The IPv4 addresses that a gateway may take out of an IPv6 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    number = int(address)
    found: list[IPAddress] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(number & 0xFFFF_FFFF))
    if address in _SIX_TO_FOUR:
        found.append(ipaddress.IPv4Address((number >> 80) & 0xFFFF_FFFF))
    if (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(number & 0xFFFF_FFFF))
    return found


def _refusal(address: IPAddress, *, allow_private: bool) -> str | None:
    if address in _METADATA:
        return "the address of a cloud metadata service"
    if any(address.version == network.version and address in network for network in _PRIVATE):
        return None if allow_private else "a private address"
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        return "a link-local, multicast or unspecified address"
    if any(address.version == network.version and address in network for network in _NOT_PUBLIC):
        return "a reserved address"
    if isinstance(address, ipaddress.IPv4Address):
        return None if address.is_global and not address.is_reserved else "a reserved address"
    if address.ipv4_mapped is not None or address in _NAT64:
        return None  # the IPv4 address inside is checked on its own
    return None if address.is_global and address in _UNICAST else "a reserved address"


def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The addresses of a host, asked for once. One that may not be connected to refuses the whole host (NotAllowed).

    The resolver also reads `127.1`, `0x7f000001`, `017700000001` and `2130706433`: they are checked as what they mean.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise DocumentError(
            "failed", f"The host {host} was not found ({error}).", remedy="Check the address and the name server."
        ) from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not addresses:
        raise DocumentError("failed", f"The host {host} has no address.", remedy="Check the address.")
    for address in addresses:
        reason = refusal(address, allow_private=allow_private)
        if reason is not None:
            remedy = _ALLOW if reason == "a private address" else "This address is never read."
            raise NotAllowed(f"{host} leads to {address}, {reason}.", remedy=remedy)
    return addresses


def normalise(url: str, *, base: str | None = None) -> str:
    """The URL as a key: absolute, without fragment, default port, dot segments, tracking and session parameters.

    Raises InvalidInput or NotAllowed (`check_url`), ports left aside.
    """
    import httpx

    text = "".join(url.split())
    if base is not None:
        try:
            text = str(httpx.URL(base).join(text))
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidInput(f"{shortened(url)} is not a URL ({error}).") from error
    parsed = check_url(text, allow_private=True)
    host = _host(parsed)
    default_port = 443 if parsed.scheme == "https" else 80
    port = f":{parsed.port}" if parsed.port not in (None, default_port) else ""
    path, _, query = parsed.raw_path.decode("ascii").partition("?")
    path = re.sub(r";jsessionid=[^/;?]*", "", path, flags=re.IGNORECASE) or "/"
    kept = [part for part in query.split("&") if part and not _TRACKING.fullmatch(part.partition("=")[0])]
    netloc = f"[{host}]" if ":" in host else host
    return f"{parsed.scheme}://{netloc}{port}{_escapes(path)}" + (f"?{_escapes('&'.join(kept))}" if kept else "")


def _escapes(text: str) -> str:
    """Percent-escapes in one form: unreserved characters plain, all others in capitals."""

    def one(match: re.Match[str]) -> str:
        byte = unquote_to_bytes(match[0])
        return byte.decode("ascii") if byte[0] in _UNRESERVED else match[0].upper()

    return _ESCAPED.sub(one, text)


def origin(url: str) -> str:
    """`scheme://host:port` of a normalised URL, default ports left out: two URLs of one origin are on one site."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def shortened(url: str) -> str:
    """A URL for a message: no control characters, no user name or password, at most 200 characters."""
    text = re.sub(r"[\x00-\x20\x7f]+", " ", url)
    text = re.sub(r"//[^/?#]*@", "//…@", text)
    return text if len(text) <= 200 else text[:199] + "…"
