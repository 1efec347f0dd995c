"""A stand-in for a language model, for demo and tests: a real HTTP server on loopback that speaks the part of the
OpenAI protocol that `data_tools.llm` uses. No language model is behind it; fixed rules about the synthetic clinic give
the answers (`server_rules`), and its model is called MODEL so that no manifest or audit file can take it for one.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from data_tools.clinic.server_rules import Rules, UnknownPromptError
from data_tools.clinic.world import World

MODEL = "rule-based-stand-in"
_HOST = "127.0.0.1"  # never another one: it asks for no key
_MOST_BYTES = 4 << 20  # of a request
_BYTES_PER_TOKEN = 4


class ClinicServer:
    """A context manager: `url` is the base URL while it is open, such as http://127.0.0.1:41237/v1; `answered` counts
    the chat completions. port 0: a free one.

    POST /v1/chat/completions and GET /v1/models, as OpenAI's. What no rule is made for is refused with status 400,
    another model with 404. Token counts are one for four bytes.
    """

    def __init__(self, world: World, *, port: int = 0) -> None:
        self._rules = Rules(world)
        self._port = port
        self._lock = threading.Lock()
        self.answered = 0
        self.url = ""

    def __enter__(self) -> "ClinicServer":
        self._http = _Server((_HOST, self._port), _Handler)
        self._http.clinic = self
        self.url = f"http://{_HOST}:{self._http.server_port}/v1"
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, name="clinic-server", daemon=True
        ).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def complete(self, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer to the body of a request for a chat completion."""
        if not isinstance(body, dict) or not _are_messages(body.get("messages")):
            return _refusal(400, "invalid_request_error", "'messages' must be a list of messages with role and content")
        if body.get("model") != MODEL:
            return _refusal(404, "model_not_found", f"the only model here is {MODEL}, which is no language model")
        if body.get("stream") or body.get("n", 1) != 1:
            return _refusal(400, "invalid_request_error", "this server neither streams nor gives several choices")
        try:
            text = self._rules(body["messages"])
        except UnknownPromptError as error:
            return _refusal(400, "invalid_request_error", str(error))
        with self._lock:
            self.answered += 1
            number = self.answered
        used = sum(_tokens(message["content"]) for message in body["messages"]), _tokens(text)
        return 200, {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)},
        }


def _are_messages(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in value
    )


def _refusal(status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": code}}


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep their connections open
    request_queue_size = 128
    clinic: ClinicServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 600  # seconds; of a connection that nothing comes from
    server: _Server

    def log_message(self, *_: Any) -> None:
        """The client keeps the account."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "the synthetic clinic: rules, no model"}
            self._send(200, {"object": "list", "data": [model]})
        else:
            self._send(*_refusal(404, "not_found", f"there is no {self.path}"))

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > _MOST_BYTES:
            self.close_connection = True  # the body stays unread
            self._send(
                *_refusal(413, "too_large", f"a request needs a Content-Length of at most {_MOST_BYTES:,} bytes")
            )
            return
        data = self.rfile.read(int(size))
        if self.path != "/v1/chat/completions":
            self._send(*_refusal(404, "not_found", f"there is no {self.path}"))
            return
        try:
            body = json.loads(data)
        except ValueError:
            self._send(*_refusal(400, "invalid_request_error", "the body is not JSON"))
            return
        self._send(*self.server.clinic.complete(body))

    def _send(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
