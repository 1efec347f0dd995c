"""Whether length tells which answer of a pair is the better one: preference training would learn that first.

Of pairs whose answers differ in length, the share in which the longer one is chosen: 0.5 where length tells nothing.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_tools.preferences.strata import prompt_rank

_NORMAL_95 = 1.959963984540054  # two-sided 95 %


class LengthBiasConfig(BaseModel):
    """What is too much, and whether something is done about it. The paper reports no lengths: ours throughout."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warn_above: float = Field(default=0.6, ge=0.5, le=1)
    """The report warns where the longer, or the shorter, answer is chosen in more than this share of a group's pairs,
    and the sign test says that it is no chance."""
    significance: float = Field(default=0.01, gt=0, lt=1)
    """The p-value below which it is no chance."""
    balance: float | None = Field(default=None, ge=0.5, lt=1)
    """Drop pairs of the commoner side until it has no more than this share in each kind and language. None: drop
    nothing. What is dropped is not replaced: ask for more pairs than are needed."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """One pair: characters and tokens of its answers. `key` is `split.prompt_key` of its prompt."""

    id: str
    kind: str
    lang: str
    key: bytes
    chosen_characters: int
    rejected_characters: int
    chosen_tokens: int
    rejected_tokens: int

    @property
    def sign(self) -> int:
        """1: the longer answer (in characters) is chosen; -1: the shorter one; 0: they are equally long."""
        return (self.chosen_characters > self.rejected_characters) - (self.chosen_characters < self.rejected_characters)


def sign_test(longer: int, shorter: int) -> float:
    """The two-sided exact p-value of the sign test: how likely a split at least as uneven is if the longer answer is
    chosen with probability 1/2 (ties left out). 1 for no pairs.
    """
    return min(1.0, 2 * _tail(longer + shorter, max(longer, shorter)))


def _tail(n: int, k: int) -> float:
    """P(X >= k), X binomial (n, 1/2): the terms from the largest on, in logarithms."""
    log_first = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
    term = total = 1.0
    for j in range(k, n):
        term *= (n - j) / (j + 1)
        total += term
        if term < total * 1e-17:
            break
    return math.exp(log_first) * total


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share after Wilson (1927); (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    z, share = _NORMAL_95, successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    whole = 1 + z * z / trials
    return max(0.0, (centre - half) / whole), min(1.0, (centre + half) / whole)


def length_bias(pairs: Sequence[Lengths], config: LengthBiasConfig) -> dict[str, Any]:
    """The report: {"groups": [...], "warnings": [sentence...]}; a group for all pairs, each kind, and each kind and
    language. Plain JSON values.
    """
    groups: dict[tuple[str, str], list[Lengths]] = {("", ""): list(pairs)}
    for pair in pairs:
        groups.setdefault((pair.kind, ""), []).append(pair)
        groups.setdefault((pair.kind, pair.lang or "unknown"), []).append(pair)
    rows = [_group(kind, lang, found) for (kind, lang), found in sorted(groups.items())]
    warned: dict[tuple[str, str], str] = {}
    for row in rows:  # of a kind as a whole, or else of its languages; all pairs together say no more
        if row["kind"] and (row["kind"], "") not in warned and (sentence := _warning(row, config)):
            warned[row["kind"], row["lang"]] = sentence
    return {"groups": rows, "warnings": list(warned.values())}


def _group(kind: str, lang: str, pairs: Sequence[Lengths]) -> dict[str, Any]:
    longer, shorter = (sum(pair.sign == sign for pair in pairs) for sign in (1, -1))
    low, high = wilson(longer, longer + shorter)
    return {
        "kind": kind,
        "lang": lang,
        "pairs": len(pairs),
        "longer_chosen": longer,
        "shorter_chosen": shorter,
        "equal": len(pairs) - longer - shorter,
        "share": round(longer / (longer + shorter), 6) if longer + shorter else None,
        "interval": [round(low, 6), round(high, 6)],
        "p_value": sign_test(longer, shorter),
        **{
            f"{side}_{unit}": _middle([getattr(pair, f"{side}_{unit}") for pair in pairs])
            for unit in ("characters", "tokens")
            for side in ("chosen", "rejected")
        },
    }


def _middle(values: Sequence[int]) -> Mapping[str, float] | None:
    if not values:
        return None
    return {"mean": round(statistics.fmean(values), 3), "median": float(statistics.median(values))}


def _warning(row: Mapping[str, Any], config: LengthBiasConfig) -> str:
    share = row["share"]
    if share is None or row["p_value"] >= config.significance or max(share, 1 - share) <= config.warn_above:
        return ""
    side = "longer" if share > 0.5 else "shorter"
    where = " ".join(part for part in (row["kind"], row["lang"]) if part)
    return (
        f"in {max(share, 1 - share):.1%} of the {where} pairs whose answers differ in length the {side} one "
        f"is chosen (p = {row['p_value']:.2g}): a model may learn length instead of quality; "
        "length_bias.balance drops pairs of that side"
    )


def unbalanced(pairs: Sequence[Lengths], config: LengthBiasConfig, seed: int) -> set[str]:
    """The ids of the pairs that go so that in each kind and language neither side has more than `balance` of the pairs
    that differ in length; those with the smallest hashes go first. Empty where nothing is to be balanced.
    """
    if config.balance is None:
        return set()
    groups: dict[tuple[str, str], list[Lengths]] = {}
    for pair in pairs:
        if pair.sign:
            groups.setdefault((pair.kind, pair.lang), []).append(pair)
    gone: set[str] = set()
    for found in groups.values():
        for sign in (1, -1):
            side = [pair for pair in found if pair.sign == sign]
            others = len(found) - len(side)
            most = math.floor(config.balance * others / (1 - config.balance) + 1e-9)
            if len(side) > max(most, others):
                side.sort(key=lambda pair: (prompt_rank(pair.key, seed, "length balance"), pair.id))
                gone.update(pair.id for pair in side[: len(side) - max(most, others)])
    return gone
