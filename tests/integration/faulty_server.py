"""A small server that goes wrong as told, for the tests of the load generator."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
import threading
import time
from collections import Counter
from typing import Any

from aiohttp import web


class Server:
    """A server that does what its `faults` say: one is taken from the list by each request, "" is a right answer."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.always = ""  # where the list is empty
        self.release = "one"
        self.asked: Counter[str] = Counter()  # requests by path
        self.hosts: set[str] = set()
        self.connections: Counter[int] = Counter()  # requests by connection
        self.sockets: list[web.WebSocketResponse] = []
        self.loop = asyncio.new_event_loop()
        self.url = ""

    def __enter__(self) -> Server:
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/ws", self.websocket)
        app.router.add_route("*", "/{path:.*}", self.answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    @property
    def stamp(self) -> dict[str, str]:
        return {"X-Release": self.release, "X-Worker-Pid": str(os.getpid())}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        self.hosts.add(request.host)
        transport = request.transport
        assert transport
        self.connections[id(transport)] += 1
        body = await request.read()
        fault = self.faults.pop(0) if self.faults else self.always
        if fault == "unless reused":
            fault = "close" if self.connections[id(transport)] > 1 else ""
        match fault:
            case "status":
                return web.Response(status=502, text="bad gateway")
            case "close":
                transport.close()
            case "reset":
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                transport.abort()
            case "cut":
                response = web.StreamResponse(headers={**self.stamp, "Content-Length": "1000"})
                await response.prepare(request)
                await response.write(b"half")
                transport.close()
            case "no http":
                transport.write(b"what?\r\n\r\n")
                transport.close()
            case "stall":
                time.sleep(1)  # the whole server: nobody is answered meanwhile
            case "slow":
                await asyncio.sleep(30)
            case "idle close":
                asyncio.get_running_loop().call_later(0.03, transport.close)
        return self.whole(request, body, fault)

    def whole(self, request: web.Request, body: bytes, fault: str) -> web.Response:
        """An answer with status 200, as the sample app gives it, or with one thing wrong in it."""
        garbled, pid = fault == "garbled", os.getpid() + (fault == "foreign")
        said: dict[str, Any] = {"pid": pid, "release": self.release}
        match request.path:
            case "/echo":
                said |= {"bytes": len(body), "sha256": hashlib.sha256(b"" if garbled else body).hexdigest()}
            case "/serve/awaiting":
                said["seconds"] = 0 if garbled else float(request.query["seconds"])
            case "/download":
                whole = b"".join(bytes([number]) * 16384 for number in range(int(request.query["chunks"])))
                return web.Response(body=whole[:-1] + (b"?" if fault else whole[-1:]), headers=self.stamp)
            case _ if garbled:
                return web.Response(text="<html>", headers=self.stamp)
        return web.json_response(said, headers=self.stamp)

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        self.asked["/ws"] += 1
        self.hosts.add(request.host)
        fault = self.faults.pop(0) if self.faults else self.always
        if fault == "status":
            return web.Response(status=503)
        connection = web.WebSocketResponse()
        connection.headers.update(self.stamp)
        await connection.prepare(request)
        self.sockets.append(connection)
        async for message in connection:
            match fault:
                case "foreign":
                    await connection.send_str("somebody else's")
                case "close":
                    assert request.transport
                    request.transport.close()
                case "1011":
                    await connection.send_str(message.data)
                    await connection.close(code=1011)
                case "1012":
                    await connection.send_str(message.data)
                    await connection.close(code=1012)
                case "early":
                    await connection.close(code=1012)
                case _:
                    await connection.send_str(message.data)
        return connection
