"""What a model says in the dialogues of a set, round by round, for a judge to read.

A dialogue of K rounds gives up to K rows: the user's messages are those of the set whatever the model says. What stands
between them is a choice (`History`): the model's own earlier answers, as CMB's protocol for CMB-Clin has it (arXiv
2308.08833), or the set's. The paper does not say which it took for CMtMedQA; ours are the references, so that every
model is asked the same in a late round. All conversations of a round are one call of lm-eval's `generate_until`, so
any of its models can answer.

    answers/SET.jsonl     `AnswerRow`s, by dialogue and round, when all are there
    answers/SET.json      how they were asked, and of which model: what was answered otherwise is not taken for it
    answers/SET.partial   the rows of finished rounds, while there are others to come
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

import orjson

from data_tools.publish import storage_errors, write_whole
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.results import write_lines

FOLDER = "answers"  # of an evaluation
FORMAT = 1

History = Literal["own", "reference"]
Dialogue = Mapping[str, Any]


class AnswersError(AquilaError):
    """A dialogue cannot be asked as it was wished, or a directory holds answers to something else."""


class AnswerRow(TypedDict):
    """id: of the dialogue. round: from 1. messages: what the model was given, the user's last. finished: whether the
    answer ended by itself; else it was cut at the most tokens it could have. truncated: whether the conversation was
    too long for the model, so that lm-eval cut off its beginning."""

    id: str
    round: int
    lang: str
    messages: list[dict[str, str]]
    answer: str
    reference: str | None
    finished: bool
    truncated: bool


class ChatModel(Protocol):
    """What is used of an lm-eval model (`lm_eval.api.model.TemplateLM`). `max_length`: tokens of context and answer."""

    @property
    def max_length(self) -> int: ...
    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str: ...
    def generate_until(self, requests: list[Any]) -> list[str]: ...
    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]: ...


def usual_history(dialogues: Sequence[Dialogue]) -> History:
    """The model's own answers where dialogues are about a case (CMB-Clin), else the set's."""
    return "own" if any(dialogue.get("case") for dialogue in dialogues) else "reference"


def answer(
    lm: ChatModel,
    dialogues: Sequence[Dialogue],
    *,
    history: History,
    max_new_tokens: int,
    limit: int | None = None,
    rounds: int | None = None,
    until: Sequence[str] = (),
    earlier: Sequence[AnswerRow] = (),
    after_round: Callable[[list[AnswerRow]], None] | None = None,
) -> list[AnswerRow]:
    """The model's greedy answers, by dialogue and round.

    Args:
        dialogues: rows `{"id", "lang", "rounds": [{"user", "reference"}], "case"}`; ids differ. A case is put before
            the first question.
        max_new_tokens: where an answer is cut.
        limit: ask the first dialogues only.
        rounds: ask so many rounds of each at most.
        until: texts that end an answer, beyond what ends one for the model itself.
        earlier: answers that are there already: whole rounds from the first on.
        after_round: called with the rows of each round that was asked.

    Raises:
        AnswersError: with `history="reference"`, a round that others follow has none.
    """
    from lm_eval.api.instance import Instance

    def tokens(text: str) -> int:
        return len(lm.tok_encode(text, add_special_tokens=False))

    asked = dialogues if limit is None else dialogues[:limit]
    rows = {(row["id"], row["round"]): row for row in earlier}
    deepest = max((_rounds(dialogue, rounds) for dialogue in asked), default=0)
    for number in range(1, deepest + 1):
        talking = [
            dialogue
            for dialogue in asked
            if number <= _rounds(dialogue, rounds) and (dialogue["id"], number) not in rows
        ]
        if not talking:
            continue
        conversations = [_messages(dialogue, number, history, rows) for dialogue in talking]
        contexts = [lm.apply_chat_template([dict(message) for message in messages]) for messages in conversations]
        how = {"until": list(until), "max_gen_toks": max_new_tokens, "do_sample": False}
        said = lm.generate_until(
            [
                Instance(request_type="generate_until", doc={}, arguments=(context, dict(how)), idx=place)
                for place, context in enumerate(contexts)
            ]
        )
        new: list[AnswerRow] = [
            {
                "id": dialogue["id"],
                "round": number,
                "lang": dialogue["lang"],
                "messages": messages,
                "answer": text.strip(),
                "reference": dialogue["rounds"][number - 1].get("reference"),
                # lm-eval gives text only: an answer of as many tokens as it may have was cut.
                "finished": tokens(text) < max_new_tokens,
                "truncated": tokens(context) > lm.max_length - max_new_tokens,
            }
            for dialogue, messages, context, text in zip(talking, conversations, contexts, said, strict=True)
        ]
        rows |= {(row["id"], number): row for row in new}
        if after_round is not None:
            after_round(new)
    return [rows[dialogue["id"], number] for dialogue in asked for number in range(1, _rounds(dialogue, rounds) + 1)]


def _rounds(dialogue: Dialogue, most: int | None) -> int:
    return len(dialogue["rounds"]) if most is None else min(most, len(dialogue["rounds"]))


def _messages(
    dialogue: Dialogue, number: int, history: History, rows: Mapping[tuple[str, int], AnswerRow]
) -> list[dict[str, str]]:
    """The conversation up to the user's message of round `number`."""
    messages = []
    for place, one in enumerate(dialogue["rounds"][:number], 1):
        case = dialogue.get("case") if place == 1 else None
        # CMB's words (its generation script for CMB-Clin)
        user = f"以下是一位病人的病例：\n{case}\n{one['user']}" if case else one["user"]
        messages.append({"role": "user", "content": user})
        if place == number:
            break
        said = rows[dialogue["id"], place]["answer"] if history == "own" else one.get("reference")
        if said is None:
            raise AnswersError(
                f"dialogue {dialogue['id']}, round {place}: there is no reference answer to go on from: ask with the "
                "history 'own'"
            )
        messages.append({"role": "assistant", "content": said})
    return messages


def write_answers(
    directory: Path,
    name: str,
    lm: ChatModel,
    dialogues: Sequence[Dialogue],
    *,
    model: str,
    history: History,
    max_new_tokens: int,
    limit: int | None = None,
    rounds: int | None = None,
    until: Sequence[str] = (),
) -> list[AnswerRow]:
    """Ask, and publish `answers/NAME.jsonl` of an evaluation; a run that was killed is continued after its last round.

    Args:
        directory: of the evaluation.
        model: identifies the weights and what they are run with; a continuation is of the same model.

    Raises:
        AnswersError: as `answer`; the directory has answers of another model, or to other questions; a file is
            damaged.
        StorageError: the disk is full.
    """
    ids = [dialogue["id"] for dialogue in dialogues]
    if len(set(ids)) < len(ids):
        twice = next(one for place, one in enumerate(ids) if one in ids[:place])
        raise AnswersError(f"{name} has two dialogues {twice}: ids must differ")
    how = {
        "format": FORMAT,
        "model": model,
        "dialogues": hashlib.sha256(orjson.dumps([dict(dialogue) for dialogue in dialogues])).hexdigest(),
        "history": history,
        "max_new_tokens": max_new_tokens,
        "limit": limit,
        "rounds": rounds,
        "until": list(until),
    }
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    answers, partial = folder / f"{name}.jsonl", folder / f"{name}.partial"
    _refuse_other_answers(folder / f"{name}.json", how)
    if answers.is_file():
        return _rows(answers, answers.read_bytes())
    write_whole(folder / f"{name}.json", json.dumps(how, indent=1).encode() + b"\n")
    earlier = _finished_rounds(partial)

    def keep(new: list[AnswerRow]) -> None:
        # The end of a round is one write: what is behind the last whole line is of a round that was not kept.
        with storage_errors(partial), partial.open("ab") as file:
            file.write(orjson.dumps(new) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    rows = answer(
        lm,
        dialogues,
        history=history,
        max_new_tokens=max_new_tokens,
        limit=limit,
        rounds=rounds,
        until=until,
        earlier=earlier,
        after_round=keep,
    )
    write_lines(answers, rows)
    partial.unlink(missing_ok=True)
    return rows


def _refuse_other_answers(path: Path, how: Mapping[str, Any]) -> None:
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AnswersError(f"{path} is not JSON ({error}): remove it and the answers beside it") from error
    differing = [key for key in how if found.get(key) != how[key]]
    if differing:
        what = "; ".join(f"{key} is {found.get(key)}, not {how[key]}" for key in differing)
        raise AnswersError(
            f"{path.with_suffix('.jsonl')} are answers to something else ({what}): remove the files "
            f"{path.stem}.* there, or give the evaluation another name"
        )


def _finished_rounds(partial: Path) -> list[AnswerRow]:
    """The rows of the partial file, a line a round; what a killed run left behind the last line is cut off."""
    if not partial.is_file():
        return []
    content = partial.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with partial.open("r+b") as file:
            file.truncate(len(whole))
    return [row for line in _rows(partial, whole) for row in line]


def _rows(path: Path, content: bytes) -> list[Any]:
    rows = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            rows.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise AnswersError(f"{path}, line {number}: not JSON ({error}): remove the file, and ask again") from error
    return rows
