"""Samples as a reader sees them: the text of their tokens, and which of it is trained on.

From an indexed dataset (dialogues, pairs or documents) or straight from records, rendered without a limit on length.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from data_tools.chat import ChatEncoder
from data_tools.files import FileReader, ReadOptions
from data_tools.indexed import IndexedReader, idx_path
from data_tools.inputs import InputError
from data_tools.manifest import loss_mask_prefix, manifest_path, read_manifest
from data_tools.pages.html import visible
from data_tools.quarantine import Fault
from data_tools.records import RecordError
from data_tools.samples import CHAT_SAMPLES, DIALOGUES, PAIRS, render
from data_tools.tokenizers import Tokenizer

# Control characters would act on the terminal: their pictures are shown. Line ends and tabs stay.
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: "\u2421", **dict.fromkeys(range(0x80, 0xA0), "\ufffd")}
_PAIR = ("chosen", "rejected")  # its sequences

Array = npt.NDArray[Any]


class Part(NamedTuple):
    """One sequence of a sample: integers [n] and its mask [n], 1 where trained. `label` is "" for the only one."""

    label: str
    tokens: Array
    mask: Array


@dataclass(frozen=True)
class Sample:
    """`name` says where it stands."""

    name: str
    parts: list[Part]


@dataclass(frozen=True)
class Choice:
    """Which samples to show: those of `numbers` (from 0), or else `count` at random."""

    numbers: tuple[int, ...] = ()
    count: int = 0
    seed: int = 0

    def of(self, total: int, what: str) -> list[int]:
        """In ascending order.

        Raises:
            InputError: a number that is not there, or nothing to choose from.
        """
        if not total:
            raise InputError(f"{what} holds no samples")
        if self.numbers:
            wrong = [number for number in self.numbers if not 0 <= number < total]
            if wrong:
                raise InputError(f"{what} has no sample {wrong[0]}: its samples are numbered from 0 to {total - 1}")
            return sorted(set(self.numbers))
        return sorted(random.Random(self.seed).sample(range(total), min(self.count, total)))


class Segment(NamedTuple):
    """A piece of a sequence that is shown in one way."""

    text: str
    trained: bool
    is_control: bool


def indexed_samples(prefix: Path, tokenizer: Tokenizer, choice: Choice) -> Iterator[Sample]:
    """Samples of the dataset `prefix`. One without loss masks is of documents: all of it is trained on.

    Raises:
        InputError: it was made with another tokenizer, or see `Choice.of`.
        IndexedDatasetError: it cannot be read, or its loss masks do not fit it.
    """
    manifest = read_manifest(manifest_path(prefix)) or {}
    made_with = manifest.get("tokenizer", {})
    if made_with.get("digest", tokenizer.digest) != tokenizer.digest:
        name = made_with.get("name")
        raise InputError(f"{prefix} was made with another tokenizer ({name}) than {tokenizer.name}: give that one")
    tokens = IndexedReader(prefix)
    twin = loss_mask_prefix(prefix)
    masks = IndexedReader(twin) if idx_path(twin).exists() else None
    if masks is not None and not np.array_equal(masks.lengths, tokens.lengths):
        raise InputError(f"{twin} and {prefix} have sequences of different lengths: make the dataset again")
    for number in choice.of(tokens.documents, str(prefix)):
        sequences = tokens.document(number)
        trained = masks.document(number) if masks is not None else [np.ones(len(one), np.uint8) for one in sequences]
        labels = _PAIR if manifest.get("kind", "pairs") == "pairs" and len(sequences) == 2 else ("",)
        parts = [Part(*one) for one in zip(itertools.chain(labels, itertools.repeat("")), sequences, trained)]
        yield Sample(f"sample {number:,} of {tokens.documents:,}", parts)


def record_samples(path: Path, encoder: ChatEncoder, choice: Choice) -> Iterator[Sample]:
    """Dialogues and pairs of a file of records.

    Raises:
        InputError: a record that cannot be used, with its line; a damaged file; see `Choice.of`.
    """
    wanted = choice.of(sum(1 for _ in FileReader(path, ReadOptions())), str(path))
    reader = FileReader(path, ReadOptions())
    left = iter(wanted)
    following = next(left)
    for number, record in enumerate(reader):
        if number < following:
            continue
        if isinstance(record, Fault):
            raise InputError(f"{path}:{record.line}: {record.reason}: {record.detail}")
        try:
            parts = _rendered(record.value, encoder)
        except RecordError as error:
            raise InputError(f"{path}:{record.line}: {error}") from error
        found = record.value.get("id")
        yield Sample(f"record {number:,}" + ("" if found is None else f" · {found}"), parts)
        if (following := next(left, -1)) < 0:
            return


def _rendered(value: object, encoder: ChatEncoder) -> list[Part]:
    """As `data index` writes them, but whole."""
    is_pair = isinstance(value, dict) and "prompt" in value
    kind = CHAT_SAMPLES[PAIRS if is_pair else DIALOGUES]
    turns = render(kind, [kind.read(value)], encoder)
    return [Part(label, one.tokens, one.mask) for label, one in zip(_PAIR if is_pair else ("",), turns)]


def segments(part: Part, tokenizer: Tokenizer) -> list[Segment]:
    """The text of a sequence in pieces that are alike, control tokens one by one.

    A character whose bytes lie in tokens of two kinds belongs to the latter.
    """
    names = {number: token for token, number in tokenizer.special_tokens.items()}
    found: list[Segment] = []
    ids, flags = part.tokens.tolist(), part.mask.astype(bool).tolist()
    for is_control, group in itertools.groupby(range(len(ids)), key=lambda place: ids[place] in names):
        places = list(group)
        if is_control:
            found += [Segment(names[ids[place]], flags[place], True) for place in places]
        else:
            first, last = places[0], places[-1] + 1
            found += _text_segments(ids[first:last], flags[first:last], tokenizer.decode)
    return found


def _text_segments(ids: list[int], flags: list[bool], decode: Callable[[Sequence[int]], str]) -> Iterator[Segment]:
    whole = decode(ids)
    begin = 0
    for trained, group in itertools.groupby(range(len(ids)), key=flags.__getitem__):
        last = max(group) + 1
        end = len(whole) if last == len(ids) else _common(whole, decode(ids[:last]))
        yield Segment(whole[begin:end], trained, False)
        begin = end


def _common(whole: str, beginning: str) -> int:
    """How many characters both begin with: of an unfinished character, the beginning has a substitute."""
    pairs = enumerate(zip(whole, beginning))
    return next((place for place, (a, b) in pairs if a != b), min(len(whole), len(beginning)))


def show(samples: Iterator[Sample], tokenizer: Tokenizer, console: Console) -> None:
    """Print samples: in colour where the console has it, else with marks around what is trained on."""
    coloured = console.color_system is not None and not console.no_color
    for count, sample in enumerate(samples):
        console.print("" if count else _legend(coloured), soft_wrap=True)
        console.rule(Text(visible(sample.name), "bold"), align="left", style="dim")
        for number, part in enumerate(sample.parts):
            if number:
                console.print()
            trained = int(np.count_nonzero(part.mask))
            share = trained / len(part.tokens) if len(part.tokens) else 0.0
            label = f"{part.label}: " if part.label else ""
            line = f"{label}{len(part.tokens):,} tokens, {trained:,} trained on ({share:.1%})"
            console.print(Text(line, "cyan"), soft_wrap=True)
            text = _text(segments(part, tokenizer), coloured)
            # A terminal's lines break between words; a pipe gets the lines of the text.
            console.print(text, soft_wrap=not console.is_terminal, end="" if text.plain.endswith("\n") else "\n")


def _legend(coloured: bool) -> Text:
    legend = _text([Segment("trained on ", True, False), Segment("<end>", True, True)], coloured)
    legend.append(" · ", "dim")
    legend.append_text(_text([Segment("context ", False, False), Segment("<control>", False, True)], coloured))
    return legend.append("\n")


def _text(pieces: Sequence[Segment], coloured: bool) -> Text:
    """In colour: trained bold green, the rest dim, control tokens reversed. Without: ⟦trained⟧ and ‹control›."""
    text = Text()
    for trained, group in itertools.groupby(pieces, key=lambda piece: piece.trained):
        style = "bold green" if trained else "dim"
        if trained and not coloured:
            text.append("⟦")
        for piece in group:
            shown = piece.text.translate(_PICTURES)
            if not piece.is_control:
                text.append(shown, style)
            elif coloured:
                text.append(shown, f"{style} reverse")
            else:
                text.append(f"‹{shown}›")
        if trained and not coloured:
            text.append("⟧")
    return text
