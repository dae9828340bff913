#!/bin/sh
# aiohttp-retry sends the second attempt of an upload without its body, and the server takes it.
#
# One would expect: a library that repeats requests sends the same body again, as urllib3's Retry does, or refuses to repeat
# one that it cannot send again, as it does for an open file, which ends in an error.
# What happens: `RetryClient.put(url, data=io.BytesIO(...))` sends all bytes; if the answer is 503, it sends the request again
# from where the stream stands, which is its end: Content-Length is 0. An async generator is used up in the same way. The
# server answers 200 to the empty upload, and that is what the caller sees. POST is repeated like PUT.
# For a pipeline: a feed of tracking numbers or a label that is built in memory replaces the good one with an empty one, but
# only on days on which the server was busy. Pass bytes, or build the stream in each attempt of a loop of your own.
# Seen with aiohttp-retry 2.9.1 and aiohttp 3.14.5.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install aiohttp-retry==2.9.1 aiohttp==3.14.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import io
from importlib.metadata import version

from aiohttp import web
from aiohttp_retry import ExponentialRetry, RetryClient

FEED = b"M-1,1Z999AA10123456784\n"
stored = []


async def store(request):
    """A server that is busy at first and then stores what comes."""
    stored.append(await request.read())
    return web.Response(status=503 if len(stored) == 1 else 200)


async def generator():
    yield FEED


async def main():
    app = web.Application()
    app.router.add_route("*", "/feed", store)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}/feed"
    found = {}
    for name, method, make in (
        ("bytes", "PUT", lambda: FEED),
        ("BytesIO", "PUT", lambda: io.BytesIO(FEED)),
        ("BytesIO", "POST", lambda: io.BytesIO(FEED)),
        ("generator", "PUT", generator),
    ):
        stored.clear()
        async with RetryClient(retry_options=ExponentialRetry(attempts=3, start_timeout=0.01)) as client:
            async with client.request(method, address, data=make()) as response:
                found[name, method] = (response.status, [len(body) for body in stored])
                print(f"{method} of {name}: answer {response.status}, bytes received {found[name, method][1]}")
    await runner.cleanup()
    return found


print("aiohttp-retry", version("aiohttp-retry"), "aiohttp", version("aiohttp"))
found = asyncio.run(main())
assert (version("aiohttp-retry"), version("aiohttp")) == ("2.9.1", "3.14.5")
size = len(FEED)
assert found.pop(("bytes", "PUT")) == (200, [size, size])
assert set(map(str, found.values())) == {str((200, [size, 0]))}, "the behavior has changed"
PYTHON
