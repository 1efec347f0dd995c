"""Which model is asked, how, how fast, and what it may cost."""

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_OWN_FIELDS = {
    "model",
    "messages",
    "stream",
    "n",
    "temperature",
    "top_p",
    "seed",
    "max_tokens",
    "max_completion_tokens",
}


class Limits(BaseModel):
    """What one run may use at most; None: no limit. Recorded answers are free. An attempt whose fate is unknown
    (time-out, cut connection, unreadable answer) counts as if it had been answered at full length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cost: float | None = Field(default=None, ge=0)
    """In the currency of the prices."""
    tokens: int | None = Field(default=None, ge=0)
    """Prompt and answer together."""
    calls: int | None = Field(default=None, ge=0)
    """HTTP requests, repeated ones included."""


class ModelConfig(BaseModel):
    """One model at one server."""

    # A key pasted into the wrong field must not come back in an error message.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: str = Field(min_length=1)
    """The model's name as the server knows it."""
    base_url: str
    """Where the server's API begins, such as http://localhost:8000/v1."""
    key_variable: str | None = None
    """NAME of the environment variable that holds the API key; None: the server asks for none."""

    temperature: float | None = Field(default=None, ge=0)
    """None: not sent, the server's own. The same for `top_p` and `seed`."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; None: not sent."""
    seed: int | None = None
    """Sent as seed + the request's sample number, so that samples of one prompt differ on servers that honour it."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest answer."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name under which the server takes it; newer hosted models want the second."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More fields of the request, such as {"chat_template_kwargs": {"enable_thinking": false}}."""

    concurrency: int = Field(default=16, ge=1, le=1000)
    """Requests under way at once. 1000 is the openai client's own limit of connections."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Requests are spread evenly over the minute, repeated ones included."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """By the estimate of the prompt plus the longest answer."""
    timeout_seconds: float = Field(default=120, gt=0)
    """For one attempt as a whole."""
    retries: int = Field(default=6, ge=0)
    """After the first attempt: on 408, 409, 429, 5xx, time-outs, cut connections and unreadable answers."""
    backoff_seconds: float = Field(default=1, ge=0)
    """Longest wait before the first repetition, doubled for each further one; the wait is drawn from its upper half."""
    longest_wait_seconds: float = Field(default=120, gt=0)
    """No wait is longer, whatever the server's Retry-After asks for."""
    give_up_after: int = Field(default=20, ge=1)
    """So many requests in a row that fail in spite of all repetitions end the asking: the rest fail uncalled."""

    input_price: float | None = Field(default=None, ge=0)
    """Per million prompt tokens, in any currency."""
    output_price: float | None = Field(default=None, ge=0)
    """Per million answer tokens."""
    limits: Limits = Limits()

    mode: Literal["record", "replay", "off"] = "record"
    """record: answers are looked up in the cache, and asked for and recorded where missing. replay: the server is never
    called. off: no cache."""
    cache: Path | None = None
    """Directory of recorded answers; several processes may share it."""

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give a URL such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("the URL must hold no user name, password or query: name a variable in key_variable")
        return value.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _check_variable(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise ValueError("give the NAME of an environment variable, such as OPENAI_API_KEY, never the key itself")
        return value

    @field_validator("extra")
    @classmethod
    def _check_extra(cls, value: dict[str, Any]) -> dict[str, Any]:
        if own := sorted(_OWN_FIELDS & set(value)):
            raise ValueError(f"extra must not hold {', '.join(own)}: these are set by other keys")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> "ModelConfig":
        if self.limits.cost is not None and (self.input_price is None or self.output_price is None):
            raise ValueError("limits.cost needs input_price and output_price (per million tokens; 0 for a free server)")
        if self.mode != "off" and self.cache is None:
            raise ValueError(f"mode {self.mode} needs cache, the directory of recorded answers; or set mode: off")
        return self

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost; 0 without prices."""
        return (prompt_tokens * (self.input_price or 0) + completion_tokens * (self.output_price or 0)) / 1e6
