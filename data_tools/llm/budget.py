"""Tokens, money and pace: what asking will use, what it may use, and how fast."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_tools.llm.config import ModelConfig
from data_tools.llm.exchange import Account, Request, request_key

BYTES_PER_TOKEN = 4
"""Of UTF-8, where no tokenizer counts. Measured: 3.7 for English and 5.1 for Chinese with Aquila's tokenizer, nearer 3
for Chinese with vocabularies made for English. An estimate for the dry run and the pace; limits do not rest on it."""

_MESSAGE_OVERHEAD = 64  # tokens that a chat template may put around a message, for upper bounds

CountTokens = Callable[[str], int]


def count_by_bytes(text: str) -> int:
    """UTF-8 bytes over `BYTES_PER_TOKEN`, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def prompt_tokens(messages: Sequence[Mapping[str, str]], count: CountTokens) -> int:
    """Tokens of the messages' contents, without what the server's chat template adds."""
    return sum(count(message["content"]) for message in messages)


def most_prompt_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """An upper bound for any tokenizer: a token is at least a byte."""
    return sum(len(message["content"].encode()) + _MESSAGE_OVERHEAD for message in messages)


@dataclass(frozen=True)
class Estimate:
    """What asking would use, found without a call.

    calls: requests that are not recorded yet, equal ones once; without the repetitions that faults may cost.
    completion_tokens: at most, as if every answer were as long as allowed; so are tokens and cost.
    counted_by: how prompt tokens were counted.
    """

    requests: int
    recorded: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    counted_by: str


def estimate(
    config: ModelConfig,
    requests: Iterable[Request],
    is_recorded: Callable[[bytes], bool],
    count: CountTokens,
    counted_by: str,
) -> Estimate:
    """The dry run of `requests`."""
    total = recorded = prompt = 0
    calls: set[bytes] = set()
    for request in requests:
        total += 1
        name = request_key(config, request)
        if is_recorded(name) or (name in calls and config.mode != "off"):
            recorded += 1
            continue
        calls.add(name)
        prompt += prompt_tokens(request.messages, count)
    asked = total - recorded
    completion = asked * config.max_tokens
    return Estimate(total, recorded, asked, prompt, completion, config.cost(prompt, completion), counted_by)


class Hold(NamedTuple):
    """What an attempt may use at most."""

    prompt_tokens: int
    completion_tokens: int


class Ledger:
    """Lets an attempt begin only while the limits hold even if it, and all others under way, use the most they can.

    The account keeps what was used; this object only what is under way.
    """

    def __init__(self, config: ModelConfig, account: Account) -> None:
        self._config = config
        self._limits = config.limits
        self._account = account
        self._under_way: list[Hold] = []
        self._change = asyncio.Condition()
        self.exhausted = ""  # once a limit was met: which, as a sentence

    async def begin(self, hold: Hold) -> bool:
        """Wait until `hold` fits, and count the call; False where it cannot fit any more."""
        async with self._change:
            while not self.exhausted:
                limit = self._exceeded(hold)
                if not limit:
                    self._under_way.append(hold)
                    self._account.calls += 1
                    return True
                if not self._under_way:
                    self.exhausted = limit
                    break
                await self._change.wait()
            self._change.notify_all()
            return False

    async def end(self, hold: Hold) -> None:
        """The attempt is over, and the account knows what it used."""
        async with self._change:
            self._under_way.remove(hold)
            self._change.notify_all()

    def _exceeded(self, hold: Hold) -> str:
        account, limits = self._account, self._limits
        if limits.calls is not None and account.calls + 1 > limits.calls:
            return f"limits.calls is {limits.calls:,}"
        holds = [*self._under_way, hold]
        prompt = sum(each.prompt_tokens for each in holds)
        completion = sum(each.completion_tokens for each in holds)
        used = account.prompt_tokens + account.completion_tokens + account.uncertain_tokens
        if limits.tokens is not None and used + prompt + completion > limits.tokens:
            return f"limits.tokens is {limits.tokens:,}, {used:,} are used, and the next request may take {sum(hold):,}"
        cost = account.cost + account.uncertain_cost
        if limits.cost is not None and cost + self._config.cost(prompt, completion) > limits.cost:
            most = self._config.cost(*hold)
            return f"limits.cost is {limits.cost:g}, {cost:.6g} is spent, and the next request may cost {most:.6g}"
        return ""


class Pace:
    """Starts of attempts: spread evenly over the minute, and none before a time that the server asked for."""

    def __init__(self, config: ModelConfig) -> None:
        self._per_request = 60 / config.requests_per_minute if config.requests_per_minute else 0.0
        self._per_token = 60 / config.tokens_per_minute if config.tokens_per_minute else 0.0
        self._next = 0.0
        self._resume = 0.0

    async def wait(self, tokens: int) -> None:
        """Return when an attempt of so many tokens may start."""
        start = max(self._next, time.monotonic())
        self._next = start + max(self._per_request, self._per_token * tokens)
        while (left := max(start, self._resume) - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def pause(self, seconds: float) -> None:
        """No attempt starts for so long: the server said that there are too many."""
        self._resume = max(self._resume, time.monotonic() + seconds)
