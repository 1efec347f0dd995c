"""Text of an answer while its tokens come: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_HALF = "\ufffd"  # what a tokenizer decodes the bytes of half a character to
_WINDOW = 32  # tokens decoded together
_CONTEXT = 8  # tokens kept before new ones: decoders look at them for the blank between words


class TextStream:
    """Turns ids into text as they come. Of sound text the pieces make what decoding all ids together makes. (Where
    bytes are no text, tokenizers with byte tokens take back a whole run of them, sound ones too; those stand here.)

    A Chinese character may be spread over up to four tokens, and a token may hold the end of one and the beginning of
    the next: what may still change is held back. So is the end of the text as long as it may begin a stop string;
    from a stop string on, nothing is said, and `stopped` is set.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, stops
        self._window: list[int] = []
        self._whole: list[int] = []  # lengths of the window's beginnings that end with a whole character
        self._sent = 0  # characters of the window's text that went on to `_release`
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, ids: Sequence[int]) -> str:
        """The text that is certain with these ids."""
        self._window += ids
        text = self._decode(self._window)
        certain = text.rstrip(_HALF)
        fresh = certain[self._sent :]
        self._sent = max(self._sent, len(certain))
        if len(certain) == len(text):
            self._whole.append(len(self._window))
            if len(self._window) > _WINDOW:
                self._cut()
        return self._release(fresh)

    def _cut(self) -> None:
        """Begin a new window, where a character begins: with half a one, byte tokens would spoil those after it."""
        last = len(self._window) - _CONTEXT
        start = max((length for length in self._whole if length <= last), default=0)
        if start:
            self._window = self._window[start:]
            self._whole = [length - start for length in self._whole if length > start]
            self._sent = len(self._decode(self._window))

    def finish(self) -> str:
        """The rest: half characters included, as replacement characters."""
        rest = self._decode(self._window)[self._sent :]
        self._window, self._whole, self._sent = [], [], 0
        said = self._release(rest)
        if not self.stopped:
            said += self._held
            self.text += self._held
        self._held = ""
        return said

    def _release(self, fresh: str) -> str:
        if self.stopped:
            return ""
        whole = self._held + fresh
        places = [place for place in map(whole.find, self._stops) if place >= 0]
        if places:
            said, self._held, self.stopped = whole[: min(places)], "", True
        else:
            keep = max((_overlap(whole, stop) for stop in self._stops), default=0)
            said, self._held = whole[: len(whole) - keep], whole[len(whole) - keep :]
        self.text += said
        return said


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:size])), 0)
