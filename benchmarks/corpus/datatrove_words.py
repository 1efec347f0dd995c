"""Words and sentences for datatrove's filters as our kernel has them, so that both sides judge the same units."""

import re

from datatrove.utils.word_tokenizers import WordTokenizer

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+(?:['’][^\W{_HAN}]+)*|[^\w\s]")
_MARKS = re.compile(r"""[。！？｡.!?…"'”’)\]）》」』]+""")


class Words(WordTokenizer):
    """unit: "words", "characters" or "blanks", as `data_tools.corpus.rules.RulesConfig.unit`."""

    def __init__(self, unit: str) -> None:
        super().__init__(None)
        self.unit = unit

    def word_tokenize(self, text: str) -> list[str]:
        if self.unit == "characters":
            return [character for character in text if not character.isspace()]
        return text.split() if self.unit == "blanks" else _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text[first:last] for first, last in self.span_tokenize(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        spans, start = [], 0
        for run in _MARKS.finditer(text):
            before_blank = run.end() == len(text) or text[run.end()].isspace()
            if re.search("[。！？｡]", run[0]) or (before_blank and re.search("[.!?…]", run[0])):
                spans.append((start, run.end()))
                start = run.end()
        if text[start:].strip():
            spans.append((start, len(text)))
        return spans
