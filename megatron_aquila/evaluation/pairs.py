"""From a context and a continuation to their token ids, with lm-eval's meaning of the two.

A text is a string, or pieces of one of which some are control tokens (a rendered conversation). In a string a literal
`<|im_end|>` is text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from data_tools.tokenizers import Tokenizer


class Piece(NamedTuple):
    text: str
    is_control: bool = False


Text = str | Sequence[Piece]


def encode(tokenizer: Tokenizer, text: Text) -> list[int]:
    """Token ids; the text between two control tokens is encoded as one."""
    pieces = [Piece(text)] if isinstance(text, str) else text
    ids: list[int] = []
    pending, behind_control = "", False
    for piece in (*pieces, None):
        if piece is not None and not piece.is_control:
            pending += piece.text
            continue
        if pending:
            ids += tokenizer.encode_batch([pending], continues=behind_control)[0].tolist()
            pending = ""
        if piece is not None:
            ids.append(tokenizer.special_tokens[piece.text])
            behind_control = True
    return ids


def encode_pair(tokenizer: Tokenizer, context: Text, continuation: str) -> tuple[list[int], list[int]]:
    """Token ids of a context and of what follows it.

    White space at the end of the context goes to the continuation. Both are encoded together, and what is beyond as
    many tokens as the context has alone is the continuation's, as in lm-eval's `TemplateLM._encode_pair`. Where nothing
    is beyond (the tokenizer joins the end of the context to all of the continuation; lm-eval fails there), the
    continuation is encoded by itself. The context's ids are [] where it is empty or only white space.
    """
    before, space = _without_trailing_space([Piece(context)] if isinstance(context, str) else list(context))
    alone = encode(tokenizer, before)
    together = encode(tokenizer, [*before, Piece(space + continuation)])
    rest = together[len(alone) :]
    if not rest:
        rest = tokenizer.encode_batch([space + continuation], continues=True)[0].tolist()
    return alone, rest


def split_controls(text: str, controls: Collection[str]) -> list[Piece]:
    """A text in which every occurrence of one of `controls` is a control token, as transformers reads it."""
    if not controls:
        return [Piece(text)]
    # The longer first: one may begin another.
    pattern = "|".join(re.escape(control) for control in sorted(controls, key=len, reverse=True))
    return [Piece(part, part in controls) for part in re.split(f"({pattern})", text) if part]


def prefix_id(tokenizer: Tokenizer) -> int:
    """What stands before a text that has no context: the beginning-of-sequence token, else the one that ends texts."""
    return tokenizer.bos_id if tokenizer.bos_id is not None else end_id(tokenizer)


def end_id(tokenizer: Tokenizer) -> int:
    return tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.eod_id


def _without_trailing_space(pieces: list[Piece]) -> tuple[list[Piece], str]:
    space = ""
    while pieces and not pieces[-1].is_control:
        text = pieces.pop().text
        kept = text.rstrip()
        space = text[len(kept) :] + space
        if kept:
            pieces.append(Piece(kept))
            break
    return pieces, space
