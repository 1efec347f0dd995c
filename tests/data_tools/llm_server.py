"""A test fixture: a real HTTP server on loopback that speaks the OpenAI chat-completions protocol. No model is behind
it: a rule gives the answers, and faults come as scripted.
"""

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Rule = Callable[[dict[str, Any], int], str]
"""(body of the request, how often this body came before) → the model's words."""
Faults = Callable[[int, dict[str, Any]], str | None]
"""(number of the call from 0, body) → a fault's name, or None for an answer. Names: 429, 429-date, 500, 400, 401, 307,
quota, hang, cut (in the middle of the body), drop (no byte of an answer), bad-json, no-choices, null, no-usage, length
(an answer cut off by max_tokens), filtered."""


def tokens(text: str) -> int:
    """Four UTF-8 bytes a token, rounded up: written out again, not taken from the code under test."""
    size = len(text.encode("utf-8"))
    return size // 4 + (1 if size % 4 else 0)


def echo(body: dict[str, Any], repetition: int) -> str:
    """The default rule: the last message, shortened."""
    return "echo: " + body["messages"][-1]["content"][:40]


_QUESTION = re.compile(r"(?:document|文档) (\w+) (?:begins|开始) -----\n(.*)\n----- (?:document|文档) \1 ", re.DOTALL)


def asked_about(body: dict[str, Any]) -> tuple[str, str]:
    """The code and the text of a labelling prompt."""
    found = _QUESTION.search(body["messages"][-1]["content"])
    assert found is not None, body
    return found[1], found[2]


def label_by_words(body: dict[str, Any], repetition: int) -> str:
    """The rule of a labeller: medical where a text says patient or 患者. Of a text that says "unsure", every second
    answer is the other way round.
    """
    code, text = asked_about(body)
    medical = ("patient" in text or "患者" in text) != ("unsure" in text and repetition % 2 == 1)
    return json.dumps({"document": code, "label": "medical" if medical else "other"})


_FENCES = {
    "conversation": ("conversation", "对话"),
    "first": ("first answer", "第一个回答"),
    "second": ("second answer", "第二个回答"),
}


def asked_to_compare(body: dict[str, Any]) -> tuple[str, dict[str, str], str]:
    """As `read_fences`, of the prompt that compares two answers: conversation, first, second."""
    return read_fences(body, _FENCES)


def read_fences(body: dict[str, Any], fences: Mapping[str, tuple[str, str]]) -> tuple[str, dict[str, str], str]:
    """The code of a judge's prompt, its texts by the names of `fences` (which say what stands in each language's), and
    all that stands outside of them: read as the prompt specifies it, by the code in its last line.
    """
    user = body["messages"][-1]["content"]
    last = re.search(r"(?:The code is|代码是) ([0-9a-f]{12})[.。].*\Z", user.rpartition("\n")[2])
    assert last is not None, user
    code, texts = last[1], {}
    outside, begin = "", 0
    for name, words in fences.items():
        fence = "|".join(words)
        edge = rf"----- (?:{fence}) {code} (?:begins|开始) -----\n(.*)\n----- (?:{fence}) {code} (?:ends|结束) -----"
        (found,) = re.finditer(edge, user, re.DOTALL)
        texts[name] = found[1]
        outside += user[begin : found.start(1)]
        begin = found.end(1)
    return code, texts, "\n".join([message["content"] for message in body["messages"][:-1]] + [outside + user[begin:]])


def verdict(code: str, better: str, **changes: Any) -> str:
    """A judge's line of JSON, all five for the same answer but for `changes`."""
    names = ("fluency", "relevance", "completeness", "proficiency", "overall")
    return json.dumps({"comparison": code, **dict.fromkeys(names, better), **changes})


class LanguageModelServer:
    """A context manager. `calls` are the bodies as they came, `answered` those that got a whole answer, `keys` the API
    keys they came with, `times` when they came; `most_at_once` of them were under way together.

    `gate`: an event that every answer waits for, after the first `free` ones.
    """

    def __init__(self, rule: Rule = echo, faults: Faults = lambda number, body: None, delay: float = 0.0) -> None:
        self.rule, self.faults, self.delay = rule, faults, delay
        self.calls: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.strays: list[str] = []  # other paths that were asked for
        self.times: list[float] = []
        self.seen: Counter[str] = Counter()
        self.gate: threading.Event | None = None
        self.free = 0
        self.under_way = self.most_at_once = 0
        self.lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> "LanguageModelServer":
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.fixture = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self.gate is not None:
            self.gate.set()
        self._http.shutdown()
        self._http.server_close()

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the server's end."""
        self._closing.wait(seconds)

    def take(self, body: dict[str, Any], key: str) -> tuple[int, int]:
        """Note a call; its number, and how often the same body came before."""
        with self.lock:
            self.times.append(time.monotonic())
            self.calls.append(body)
            self.keys.append(key)
            name = json.dumps(body, sort_keys=True)
            self.seen[name] += 1
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            return len(self.calls) - 1, self.seen[name] - 1

    def may_answer(self) -> bool:
        """Whether this answer is one of the free ones."""
        with self.lock:
            self.free -= 1
            return self.free >= 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    fixture: LanguageModelServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        fixture = self.server.fixture
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            fixture.strays.append(self.path)
            self._send(404, {"error": {"message": f"no {self.path}", "code": "not_found"}})
            return
        number, repetition = fixture.take(body, self.headers.get("Authorization", ""))
        try:
            if fixture.delay:
                fixture.wait(fixture.delay)
            self._respond(fixture, body, number, repetition)
        finally:
            with fixture.lock:
                fixture.under_way -= 1

    def _respond(self, fixture: LanguageModelServer, body: dict[str, Any], number: int, repetition: int) -> None:
        fault = fixture.faults(number, body)
        if fault in ("400", "500", "429", "401", "307", "quota", "429-date"):
            status = 429 if fault in ("quota", "429-date") else int(fault)
            headers = {
                "429": {"Retry-After": "0.3"},
                "429-date": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"},
                "307": {"Location": f"{fixture.url}/elsewhere"},
            }
            code = "insufficient_quota" if fault == "quota" else "scripted"
            error = {"error": {"message": f"scripted {fault}; {self.headers.get('Authorization')}", "code": code}}
            self._send(status, error, headers.get(fault, {}))
        elif fault == "hang":
            fixture.wait(30)
            self.close_connection = True
        elif fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault == "bad-json":
            self._send_bytes(200, b'{"choices": [{"message": {"content": "half')
        elif fault == "no-choices":
            self._send(200, {"id": "x", "model": body["model"], "choices": []})
        else:
            if fixture.gate is not None and not fixture.may_answer():
                fixture.gate.wait()
            self._answer(fixture, body, repetition, fault)

    def _answer(self, fixture: LanguageModelServer, body: dict[str, Any], repetition: int, fault: str | None) -> None:
        text = None if fault == "null" else fixture.rule(body, repetition)
        ending = {"length": "length", "filtered": "content_filter"}.get(fault or "", "stop")
        answer: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "model": f"{body['model']}-of-the-fixture",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ending}],
        }
        if fault != "no-usage":
            used = sum(tokens(message["content"]) for message in body["messages"])
            answer["usage"] = {"prompt_tokens": used, "completion_tokens": tokens(text or "")}
        data = json.dumps(answer, ensure_ascii=False).encode("utf-8")
        if fault == "cut":
            self._send_bytes(200, data, promised=len(data) + 100)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        with fixture.lock:
            fixture.answered.append(body)
        self._send_bytes(200, data)

    def _send(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(value).encode("utf-8"), headers)

    def _send_bytes(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, promised: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) if promised is None else promised))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
