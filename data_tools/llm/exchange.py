"""What is asked and what comes back, and the account of it."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from data_tools.llm.config import ModelConfig

_KEY_VERSION = 1


@dataclass(frozen=True, slots=True)
class Request:
    """One question. `sample` tells repeated askings of the same messages apart: each is answered, and recorded, on its
    own. `id` is the caller's, for messages.
    """

    messages: Sequence[Mapping[str, str]]
    sample: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said; `text` may be empty. Only what an answer keeps on replay: nothing here tells whether it was
    just paid for or recorded. `model` is the name that the server gave itself. Where the server reported no usage,
    the token counts are estimates and `estimated` is true.
    """

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer. `reason` is the short name it is counted under: rate-limited, quota, http-400, http-500,
    timeout, connection, bad-json, no-choices, server-down, budget. `detail` is for the reader.
    """

    reason: str
    detail: str = ""


Result = Answer | Failure


def payload(config: ModelConfig, request: Request) -> dict[str, Any]:
    """The body of the HTTP request."""
    body: dict[str, Any] = {
        "model": config.model,
        "messages": [dict(message) for message in request.messages],
        config.max_tokens_field: config.max_tokens,
        **config.extra,
    }
    if config.temperature is not None:
        body["temperature"] = config.temperature
    if config.top_p is not None:
        body["top_p"] = config.top_p
    if config.seed is not None:
        body["seed"] = config.seed + request.sample
    return body


def request_key(config: ModelConfig, request: Request) -> bytes:
    """SHA-256 over the body as canonical JSON and the sample number. Neither the server's address nor the API key is in
    it: a model that moves to another address keeps its recorded answers.
    """
    content = {"version": _KEY_VERSION, "body": payload(config, request), "sample": request.sample}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass
class Account:
    """requests = recorded + answered + the sum of failed, once all results are there.

    requests: what was asked of this door; recorded: answered out of the cache (or by an equal request under way).
    calls: HTTP requests sent; retried: those that had to be repeated, by reason; failed: requests without an answer,
    by reason. Tokens and cost are of the answers that were paid for; `uncertain_tokens` and `uncertain_cost` are
    an upper bound for attempts whose fate is unknown. `estimated`: answers whose token counts the server did not
    report. `damaged_records`: lines of the cache that could not be used.
    """

    requests: int = 0
    recorded: int = 0
    answered: int = 0
    calls: int = 0
    retried: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    uncertain_tokens: int = 0
    uncertain_cost: float = 0.0
    estimated: int = 0
    damaged_records: int = 0

    def balanced(self) -> bool:
        """Whether every request has ended in exactly one way."""
        return self.requests == self.recorded + self.answered + self.failed.total()

    def to_json(self) -> dict[str, Any]:
        """The account as JSON values; costs to nine digits."""
        return {
            "requests": self.requests,
            "recorded": self.recorded,
            "answered": self.answered,
            "calls": self.calls,
            "retried": dict(sorted(self.retried.items())),
            "failed": dict(sorted(self.failed.items())),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": round(self.cost, 9),
            "uncertain_tokens": self.uncertain_tokens,
            "uncertain_cost": round(self.uncertain_cost, 9),
            "estimated": self.estimated,
            "damaged_records": self.damaged_records,
        }
