"""Which characters of a text each of its tokens holds."""

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]


def spans_by_length(text: str, ids: Int32, byte_lengths: Int32) -> Int32 | None:
    """The span of each token, from the number of bytes that each id of the vocabulary stands for.

    Exact where the tokens of `text`, joined, are its UTF-8 bytes. That is for the caller to know, but for one
    sign that it is not so: the lengths do not add up.

    Args:
        text: what was encoded.
        ids: int32 [n], its tokens.
        byte_lengths: int32 [vocabulary], 0 for an id that stands for no fixed bytes.

    Returns:
        int32 [n, 2]: the first character that a token holds and one more than the last, counting a character of
        which it holds some bytes only; None where the lengths do not add up.
    """
    ends = np.cumsum(byte_lengths[ids], dtype=np.int64)
    data = text.encode()
    if (int(ends[-1]) if len(ends) else 0) != len(data) or (len(ids) and not byte_lengths[ids].all()):
        return None
    begins = ends - byte_lengths[ids]
    if len(data) != len(text):
        is_first = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
        character = np.cumsum(is_first) - 1  # of each byte
        begins, ends = character[begins], character[ends - 1] + 1
    return np.stack([begins, ends], axis=1).astype(np.int32)
