"""A server with OpenAI's interface and a known law: ``slots`` requests at a time, in order, each of a fixed time.

``python openai_server.py PORT SLOTS PREFILL_S STEP_S [FAIL_EVERY]``: a request takes PREFILL_S to its first token and
STEP_S for each of the others, so that SLOTS / (PREFILL_S + (n − 1) · STEP_S) requests of n tokens a second are the most
that it answers. Every FAIL_EVERY-th request is answered with status 500.
"""

import asyncio
import json
import sys

MODEL = "stand-in"


class Server:
    def __init__(self, slots, prefill_s, step_s, fail_every):
        self.slots, self.prefill_s, self.step_s, self.fail_every = (
            asyncio.Semaphore(slots),
            prefill_s,
            step_s,
            fail_every,
        )
        self.asked = 0

    async def connection(self, reader, writer):
        try:
            while (line := await reader.readline()).strip():
                length = 0
                while header := (await reader.readline()).strip():
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                body = json.loads(await reader.readexactly(length)) if length else {}
                await self.answer(line.split()[1].decode(), body, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, path, body, writer):
        if path == "/v1/models":
            return whole(writer, 200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        if path == "/version":
            return whole(writer, 200, {"version": "1.2.3"})
        if "prompt" not in body and "messages" not in body:
            return whole(writer, 404, {"error": "no such page"})
        if body["model"] != MODEL:
            return whole(writer, 404, {"error": f"The model {body['model']} does not exist"})
        self.asked += 1
        if self.fail_every and self.asked % self.fail_every == 0:
            return whole(writer, 500, {"error": "told to fail"})
        count = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        async with self.slots:
            begin = asyncio.get_running_loop().time()
            for token in range(count):
                due = begin + self.prefill_s + token * self.step_s
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
                choice = {"index": 0, "text": " word", "delta": {"content": " word"}, "finish_reason": None}
                chunk(writer, {"id": "x", "object": "text_completion", "model": MODEL, "choices": [choice]})
                await writer.drain()
        prompt = body.get("prompt", "")
        read = len(prompt) if isinstance(prompt, list) else len(str(prompt).split())
        usage = {"prompt_tokens": read, "completion_tokens": count, "total_tokens": read + count}
        chunk(writer, {"id": "x", "object": "text_completion", "model": MODEL, "choices": [], "usage": usage})
        send(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        return None


def chunk(writer, content):
    send(writer, f"data: {json.dumps(content)}\n\n".encode())


def send(writer, data):
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def whole(writer, status, content):
    data = json.dumps(content).encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    )


async def main(port, slots, prefill_s, step_s, fail_every=0):
    served = Server(slots, prefill_s, step_s, fail_every)
    server = await asyncio.start_server(served.connection, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    words = sys.argv[1:]
    asyncio.run(main(int(words[0]), int(words[1]), float(words[2]), float(words[3]), *map(int, words[4:])))
