"""HTTP requests on connections that aiohttp opens, keeps and reads.

Of aiohttp's session, which takes as long as the rest of a request, nothing is wanted: no redirects, cookies or logins, and no
repeat of a request on a dropped connection, which would have no request slot and be counted nowhere.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from yarl import URL

if TYPE_CHECKING:
    import aiohttp

READING = ("GET", "HEAD", "OPTIONS")
# A proxy's policy, or links that repeat a query of 50 numbers, are longer than aiohttp allows.
LONGEST_HEADER = 1 << 16
# What a server that refuses a request reads of it before it takes the next one; of a longer body the rest may stay unread.
_READ_ANYWAY = 1 << 16
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # a line break would begin another header


class Received(NamedTuple):
    """An answer whose content is still to be read."""

    status: int
    headers: Mapping[str, str]
    content: aiohttp.StreamReader


class Connections:
    """Connections to one server; make and use it in one event loop. `options` are those of aiohttp's connector."""

    def __init__(
        self, base_url: str, headers: Mapping[str, str], *, proxy: str | None, unpacks: bool, **options: Any
    ) -> None:
        """`headers` go with every request. The content of an answer is decompressed if this `unpacks`."""
        import aiohttp
        from aiohttp.client_proto import ResponseHandler

        self._connector = aiohttp.TCPConnector(**options)
        self._timeout = aiohttp.ClientTimeout(total=None)  # the caller limits the time
        self._unpacks = unpacks
        # Where all requests go, through which proxy, and what their headers have in common.
        self._common = aiohttp.ClientRequest(
            "GET",
            URL(base_url.rstrip("/"), encoded=True),
            headers=headers,
            proxy=URL(proxy) if proxy else None,
            loop=asyncio.get_running_loop(),
        )
        if options.get("force_close"):
            self._common.headers["Connection"] = "close"
        url, is_told_where = self._common.url, proxy is not None and not self._common.is_ssl()
        self._above = (str(url) if is_told_where else url.raw_path).rstrip("/")
        # Fails here, before any request, in a release that names them otherwise.
        self._connect, self._expect = self._connector.connect, ResponseHandler.set_response_params
        self._read = ResponseHandler.read
        self._in_use = set[asyncio.Transport]()

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path_and_query: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        on_leaving: Callable[[], None],
    ) -> AsyncIterator[Received]:
        """The answer to a request below the base URL; `on_leaving` is called when that is sent.

        The connection is kept if all of the request was taken and all of the content is read. Otherwise nothing more of the
        request is sent: it could take effect after one that was sent later.

        Raises:
            aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError: there is no answer, or none of HTTP.
        """
        connection = await self._connect(self._common, [], self._timeout)
        protocol, transport = connection.protocol, connection.transport
        # What came before a request is no answer to it.
        if protocol is None or transport is None or protocol.should_close:
            connection.close()
            raise ConnectionResetError("The connection cannot be used.")
        is_kept = False
        self._in_use.add(transport)
        try:
            head = self._head(method, path_and_query, headers, body)
            self._expect(
                protocol,
                skip_payload=method == "HEAD",
                read_until_eof=True,
                auto_decompress=self._unpacks,
                max_field_size=LONGEST_HEADER,
            )
            on_leaving()
            transport.write(head + (body or b""))
            message, content = await self._read(protocol)
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await self._read(protocol)
            yield Received(message.code, message.headers, content)
            # An answer may come before the server has taken all of the request, and TLS does not tell what is still to be sent.
            is_refused = message.code >= 300 and len(body or b"") > _READ_ANYWAY
            is_kept = not is_refused and not transport.get_write_buffer_size()
        finally:
            self._in_use.discard(transport)
            if is_kept:
                connection.release()
            else:
                transport.abort()
                connection.close()

    def _head(
        self, method: str, path_and_query: str, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        """A request up to its body."""
        of_all = self._common.headers.copy()  # with the login of a proxy, once a connection is open
        of_all.update(headers)
        if body is not None or method not in READING:
            of_all["Content-Length"] = str(len(body or b""))
        lines = [f"{method} {self._above}{path_and_query} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in of_all.items()]
        if _CONTROL.search("".join(lines)):
            raise ValueError("The path or a header of a request has a control character.")
        return "\r\n".join([*lines, "\r\n"]).encode()

    async def close(self) -> None:
        """Ends all connections, and the requests that are still on their way."""
        for transport in self._in_use:  # else the server would be waited for until it has taken them
            transport.abort()
        await self._connector.close()
