"""One HTTP request to the server, and what became of it. The only file that imports `openai`."""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson

from data_tools.llm.budget import count_by_bytes
from data_tools.llm.config import ModelConfig
from data_tools.llm.exchange import Answer

if TYPE_CHECKING:
    from openai import APIStatusError

_DETAIL_CHARACTERS = 200
_CONNECT_SECONDS = 10.0
_PASSING_STATUS = (408, 409, 429)  # and 5xx
_GENERAL_STATUS = {
    401: "the server refuses the API key: check the variable that key_variable names",
    404: "the server knows no such model or address: check model and base_url",
}


class LanguageModelError(ValueError):
    """The model cannot be asked as configured; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt brought no answer.

    passing: another attempt may succeed. general: no other request will do better.
    uncertain: the server may have worked, and charged, for it. retry_after: seconds that the server asked to wait.
    """

    reason: str
    detail: str
    passing: bool = True
    general: bool = False
    uncertain: bool = True
    retry_after: float | None = None


class Server:
    """A connection pool as an asynchronous context manager, for one event loop.

    Raises:
        LanguageModelError: the `openai` client is not installed, or the key's variable is not set.
    """

    def __init__(self, config: ModelConfig) -> None:
        try:
            import openai
        except ImportError as error:
            raise LanguageModelError(
                "asking a language model needs the extra: pip install megatron-aquila[llm]"
            ) from error
        key = ""
        if config.key_variable is not None and not (key := os.environ.get(config.key_variable, "").strip()):
            raise LanguageModelError(
                f"the environment variable {config.key_variable} (key_variable) is not set: it must hold the API key"
            )
        self._key = key
        self._config = config
        self._openai = openai
        # Redirects are not followed: key and texts go to the address that was given. Certificates are loaded for https.
        http = openai.DefaultAsyncHttpxClient(
            verify=config.base_url.startswith("https:"),
            follow_redirects=False,
            timeout=openai.Timeout(config.timeout_seconds, connect=min(_CONNECT_SECONDS, config.timeout_seconds)),
        )
        # Own repetitions instead of the library's: ours are counted, and shown.
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=config.base_url,
            max_retries=0,
            http_client=http,
        )

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def attempt(self, body: Mapping[str, Any], prompt_tokens: int) -> Answer | Fault:
        """Send `body` once. `prompt_tokens` stands in where the server reports no usage."""
        openai = self._openai
        rest = {name: value for name, value in body.items() if name not in ("model", "messages")}
        try:
            async with asyncio.timeout(self._config.timeout_seconds):  # the client's own begins anew with every chunk
                response = await self._client.chat.completions.with_raw_response.create(
                    model=body["model"], messages=body["messages"], extra_body=rest
                )
        except openai.APIStatusError as error:
            return self._refusal(error)
        except (openai.APITimeoutError, TimeoutError) as error:
            connecting = type(error.__cause__).__name__ == "ConnectTimeout"
            return Fault(
                "timeout", f"no whole answer within {self._config.timeout_seconds:g} s", uncertain=not connecting
            )
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            return Fault("connection", self._safe(f"{cause}: {error.__cause__}"), uncertain=cause != "ConnectError")
        return read_answer(response.content, body["messages"], prompt_tokens)

    def _refusal(self, error: "APIStatusError") -> Fault:
        status = error.status_code
        if error.code == "insufficient_quota":
            return Fault("quota", "the account at the server is used up", passing=False, general=True, uncertain=False)
        if status in _GENERAL_STATUS:
            return Fault(f"http-{status}", _GENERAL_STATUS[status], passing=False, general=True, uncertain=False)
        return Fault(
            "rate-limited" if status == 429 else f"http-{status}",
            self._safe(error.message),
            passing=status in _PASSING_STATUS or status >= 500,
            uncertain=False,
            retry_after=read_retry_after(error.response.headers, time.time()),
        )

    def _safe(self, text: str) -> str:
        if self._key:
            text = text.replace(self._key, "[key]")
        return text[:_DETAIL_CHARACTERS]


def read_answer(content: bytes, messages: list[dict[str, str]], prompt_tokens: int) -> Answer | Fault:
    """The answer in the body of a response, checked field by field."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return Fault("bad-json", f"the answer is not JSON: {error}")
    try:
        choice = value["choices"][0]
        text = choice["message"].get("content") or ""
    except (AttributeError, IndexError, KeyError, TypeError):
        return Fault("no-choices", f"the answer holds no message: {content[:120].decode('utf-8', 'replace')}")
    if not isinstance(text, str):
        return Fault("no-choices", f"the answer's content is not a string but {type(text).__name__}")
    usage = value.get("usage") or {}
    names = ("prompt_tokens", "completion_tokens")
    counts = [usage[name] for name in names if _is_count(usage.get(name))] if isinstance(usage, dict) else []
    known = len(counts) == 2
    return Answer(
        text=text,
        finish_reason=str(choice.get("finish_reason") or ""),
        model=str(value.get("model") or ""),
        prompt_tokens=counts[0] if known else prompt_tokens,
        completion_tokens=counts[1] if known else count_by_bytes(text),
        estimated=not known,
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by the headers `retry-after-ms` and `Retry-After` (seconds or a date, RFC 9110 10.2.3); `now` is
    Unix time.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if seconds >= 0:  # not so for NaN
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    except (KeyError, ValueError):
        return None
