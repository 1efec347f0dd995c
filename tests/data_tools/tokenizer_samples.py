"""Small real-looking text, and tokenizers trained on it, for the tokenizer tests."""

import base64
import json
import random
from pathlib import Path

import tokenizers

ENGLISH = """The patient is a 45-year-old man who's had a cough for 3 years; it's got worse in the last week, and
he can't sleep. Blood pressure 138/92 mmHg, temperature 38.5 °C, HbA1c 7.2%. We'll start amoxicillin 500 mg
every 8 hours, and they've asked for a chest X-ray.  Don't stop the β-blocker.   Follow-up in two weeks.
Asthma is a condition in which your airways narrow and swell and may produce extra mucus. This can make
breathing difficult and trigger coughing, a whistling sound (wheezing) when you breathe out."""
CHINESE = """患者，男，45岁，因“反复咳嗽、咳痰3年，加重伴气促1周”入院。血压138/92mmHg，体温38.5℃。
患者睡眠差，食欲不振。麻黄汤：麻黄（去节）三两、桂枝二两、杏仁七十个、甘草（炙）一两。
右四味，以水九升，先煮麻黄，减二升，去上沫。哮喘是一种常见的慢性气道炎症性疾病，
临床表现为反复发作的喘息、气急、胸闷或咳嗽等症状；治疗以吸入糖皮质激素为主。
高血压病人应当限制食盐摄入，每日不超过5克，并坚持服药、定期复查血压与肾功能！你好，请问您哪里不舒服？"""
LINES = ENGLISH.splitlines() + CHINESE.splitlines()

TRICKY = [
    "",
    " ",
    "a",
    "</s> <s> [CLS] <|endoftext|> <|im_start|>user<|im_end|><|extra_204|> <unk> <pad>",
    "x</s>y[CLS]z<|endoftext|>",
    "  leading and trailing  ",
    "tabs\t\tand\r\nline ends\n\n\n   and blanks \n",
    "。\n\n，\r\n！ \n  ",
    "we'll WE'LL they've don't 'quoted' ''",
    "1234567890 3.14 10^9/L 一二三 ① Ⅳ",
    "\x00\x01\x7f\ufeff\u200b\u3000\u2028",
    "😀👩‍👩‍👧🇨🇳 é e\u0301 한국어 العربية ไทย 𠀀",
    "a" * 2000,
    "中" * 2000,
    " " * 2000,
    "。" * 300,
    "咳嗽" * 1000,
]
TEXTS = [*LINES, *TRICKY, ENGLISH, CHINESE, ENGLISH + "\n" + CHINESE]


def mixture(characters: int, *, separators: str = "\n ，。", seed: int = 0) -> str:
    """Words of both languages in random order, joined by random separators."""
    generator = random.Random(seed)
    words = [word for line in LINES for word in line.replace("，", " ").replace("。", " ").split()]
    parts = []
    length = 0
    while length < characters:
        word = generator.choice(words)
        parts.append(word if not separators else word + generator.choice(separators))
        length += len(parts[-1])
    return "".join(parts)


def train_byte_level(directory: Path, vocab_size: int = 900) -> dict[str, int]:
    """vocab.json and merges.txt as GPT-2 and Aquila have them, `<|endoftext|>` first. Returns the vocabulary."""
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(
        LINES * 5,
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    directory.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(directory))
    vocabulary: dict[str, int] = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    return vocabulary


def write_tiktoken(path: Path, vocab_size: int = 900) -> dict[bytes, int]:
    """A rank file of a trained byte-level vocabulary. Returns the ranks."""
    vocabulary = train_byte_level(path.parent / "source", vocab_size)
    from_symbol = {symbol: byte for byte, symbol in gpt2_symbols().items()}
    del vocabulary["<|endoftext|>"]
    tokens = [bytes(from_symbol[s] for s in token) for token in sorted(vocabulary, key=vocabulary.__getitem__)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items()]
    path.write_bytes(b"".join(lines))
    return ranks


def gpt2_symbols() -> dict[int, str]:
    """OpenAI's bytes_to_unicode, written out again so that the tests do not lean on the code they test."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + k) for k, byte in enumerate(shifted)}
