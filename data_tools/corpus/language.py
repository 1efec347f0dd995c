"""Language of a document: zh, en or other.

Scripts are counted over a sample of the text; Chinese is Han without the kana or the kanji that only Japanese writes
(Cantonese and classical Chinese are zh). Text in Latin letters is English by its share of English function words; only
where that share is low does a model give a second opinion (py3langid). A Han character weighs as much as `HAN_LETTERS`
Latin letters, so that "患者行CT检查, WBC 12×10^9/L" is Chinese. Needs no step before it.

T: documents of a group; C: their code points (`code_points.py`); S: scripts.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.code_points import code_points
from data_tools.corpus.step_config import Resources, StepConfig

Language = Literal["zh", "en", "other"]

HAN_LETTERS = 3.0  # letters of English for one Han character: parallel texts hold 2.5–3.5 (UN and Wikipedia pairs)
NONE, LATIN, ACCENTED, HAN, KANA, SHINJITAI, CHINESE, HANGUL, FOREIGN = range(9)
SCRIPTS = FOREIGN + 1

# Kanji as simplified in Japan alone (tōyō list of 1949) or made there: no Chinese text, simplified or traditional,
# writes them. Those that China's simplification shares (国 学 会 医 体 点 …) are left out.
JAPANESE_ONLY = (
    "亜悪圧囲壱隠栄営駅円塩応桜価仮懐絵拡覚楽勧巻歓観気帰犠拠挙駆勲薫渓経継鶏撃検権剣圏顕験厳広効鉱砕済斎剤雑糸児釈従渋獣縦粛"
    "処焼奨浄剰畳縄嬢譲醸図粋酔穂髄瀬斉摂専戦銭繊捜挿巣騒総聡蔵臓続対帯択沢単団弾遅鋳庁徴聴勅逓鉄転伝稲闘読弐悩脳覇拝廃売発髪"
    "抜浜払仏変辺毎満黙訳薬様揺頼覧竜涙塁霊歴錬労働込峠畑辻枠栃"
)
# Particles and pronouns of modern Chinese that Japanese does not write: they tell a Chinese text that quotes kana.
CHINESE_ONLY = "这這们們吗嗎呢吧你您她它啊很没沒还還咗嘅唔喺佢冇啲哋咁嚟"

# English four-letter grams that begin a frequent function word; other Latin languages hold them far more rarely.
_ENGLISH_GRAMS = (" the", " of ", " and", " to ", " is ", " was", " wit", " for", " tha", " thi", " are", " you")
_ENGLISH_SAMPLE = 1_000


class LanguageConfig(StepConfig):
    """Languages, and which of them stay."""

    step: Literal["language"] = "language"
    keep: tuple[Language, ...] = Field(("zh", "en"), min_length=1)
    """Documents of other languages are dropped as "language"."""
    sample_characters: int = Field(6_000, ge=300)
    """A longer text is judged by its beginning, middle and end, a third of the sample each."""
    least_share: float = Field(0.5, gt=0, le=1)
    """Of the weighted letters, to call a text by its first script. cc_net keeps a score of 0.5; scripts are exact."""
    most_kana: float = Field(0.05, gt=0, le=1)
    """Kana among Han and kana from which a text is Japanese; kanji-heavy abstracts hold 0.25, Chinese text quotes."""
    certain_english: float = Field(0.05, gt=0, lt=1)
    """English function words per word from which no model is asked; running English has 0.15–0.3, lists
    of drugs in English sentences 0.05–0.08."""
    second_opinion: bool = True
    """Ask py3langid about Latin text with fewer function words; without it such text is English."""
    least_confidence: float = Field(0.5, ge=0, le=1)
    """Of py3langid, to believe that a text is not English: notes of three words are not evidence."""

    def build(self, resources: Resources | None = None) -> "LanguageStep":
        return LanguageStep(self)


class LanguageStep:
    """Gives every document its language and drops those not asked for."""

    name: ClassVar[str] = "language"
    facts: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: LanguageConfig) -> None:
        self.config = config
        self.scales: Mapping[str, Scale] = {
            "han share": Scale(0, 1, limits={"": (config.least_share,)}),
            "English function words": Scale(0, 0.4, limits={"": (config.certain_english,)}),
        }

    def __call__(self, batch: Batch) -> Outcome:
        config, count = self.config, len(batch)
        scripts = ["Latin"] * count
        han_share = np.zeros(count)
        samples = [sampled(text, config.sample_characters) for text in batch.texts]
        others = [place for place, text in enumerate(samples) if not text.isascii()]
        for group in code_points(samples, others):
            keys_C = np.repeat(
                np.arange(len(group.places), dtype=np.int32) * SCRIPTS,
                np.diff(group.starts_T, append=len(group.codes_C)),
            )
            counts_TS = np.bincount(keys_C + _script_table()[group.codes_C], minlength=len(group.places) * SCRIPTS)
            for place, counts_S in zip(group.places, counts_TS.reshape(-1, SCRIPTS).tolist()):
                scripts[place], han_share[place] = _script(counts_S, config)

        latin = [place for place, script in enumerate(scripts) if script == "Latin"]
        english = np.full(count, np.nan)
        english[latin] = function_word_share([samples[place] for place in latin])
        langs: list[str] = []
        drops: list[Drop | None] = []
        asked = 0
        for place, script in enumerate(scripts):
            found = script
            if script == "Latin":
                if english[place] >= config.certain_english or not config.second_opinion:
                    found = "en"
                elif not any(map(str.isalpha, samples[place])):
                    found = "no letters"
                else:
                    found, asked = _second_opinion(samples[place], config.least_confidence), asked + 1
            lang = {"Chinese": "zh", "en": "en"}.get(found, "other")
            langs.append(lang)
            drops.append(
                None if lang in config.keep else Drop("language", {"value": found, "limit": list(config.keep)})
            )
        counts = Counter({"second opinion": asked} if asked else {})
        return Outcome(
            drops=drops,
            langs=langs,
            counts=counts,
            measures={"han share": han_share, "English function words": english},
        )


def sampled(text: str, characters: int) -> str:
    """The text, or thirds of its beginning, middle and end, `characters` in all, where it is longer."""
    if len(text) <= characters:
        return text
    third = characters // 3
    middle = (len(text) - third) // 2
    return f"{text[:third]}\n{text[middle : middle + third]}\n{text[-third:]}"


def function_word_share(texts: list[str]) -> npt.NDArray[np.float64]:
    """Words that begin as an English function word, per word of Latin letters, in the first 1,000 characters of each
    text; 0 where there is no word. float64, [T]; case does not matter.
    """
    if not texts:
        return np.zeros(0)
    # Behind the space lies a marker of the start; "?" replaces what is not Latin-1 and parts words.
    parts = [b" " + text[:_ENGLISH_SAMPLE].encode("latin-1", "replace") + b"   " for text in texts]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    starts_T = np.cumsum(lengths) - lengths
    codes_C = np.frombuffer(b"".join(parts).translate(_FOLDED), np.uint8)
    letters_C = codes_C > ord(" ")
    words_T = np.add.reduceat(letters_C[1:] & ~letters_C[:-1], starts_T, dtype=np.int64)
    wide_C = codes_C.astype(np.uint32)
    grams_C = wide_C[:-3] | wide_C[1:-2] << 8 | wide_C[2:-1] << 16 | wide_C[3:] << 24
    hits_C = np.zeros(len(grams_C), bool)
    for gram in _ENGLISH_GRAMS:
        hits_C |= grams_C == int.from_bytes(gram.encode(), "little")
    hits_T = np.add.reduceat(hits_C, starts_T, dtype=np.int64)
    return hits_T / np.maximum(words_T, 1)


# Letters of Latin-1 in lower case; everything else parts words.
_FOLDED = bytes(ord(chr(code).lower()) if chr(code).isalpha() and chr(code) not in "ªºµ" else 32 for code in range(256))


def _script(counts_S: list[int], config: LanguageConfig) -> tuple[str, float]:
    """The first script, and the share of Han (kanji too) among the weighted letters."""
    latin = (counts_S[LATIN] + counts_S[ACCENTED]) / HAN_LETTERS
    han = counts_S[HAN] + counts_S[SHINJITAI] + counts_S[CHINESE]
    foreign = counts_S[FOREIGN] / HAN_LETTERS
    east = han + counts_S[KANA]
    letters = latin + east + counts_S[HANGUL] + foreign
    if not letters:
        return "no letters", 0.0
    share = han / letters
    if foreign >= config.least_share * letters:
        return "another alphabet", share
    if counts_S[HANGUL] >= config.least_share * letters or counts_S[HANGUL] > max(east, latin):
        return "Korean", share
    if east < config.least_share * letters and east <= latin:
        return "Latin", share
    if _japanese(counts_S, han, config.most_kana):
        return "Japanese", share
    return ("Chinese" if han else "no first script"), share


def _japanese(counts_S: list[int], han: int, most_kana: float) -> bool:
    """Kana in more than a quotation, or kanji that only Japanese writes; Chinese particles weigh against both."""
    kana, kanji, particles = counts_S[KANA], counts_S[SHINJITAI], counts_S[CHINESE]
    if kana >= most_kana * (han + kana):
        return kana > 4 * particles
    return kanji >= 0.05 * han and kanji > particles


@cache
def _script_table() -> npt.NDArray[np.uint8]:
    """The script of every code point; marks, digits, punctuation and symbols have none."""
    import unicodedata

    table = np.zeros(0x110000, np.uint8)
    for code in range(0x370, 0x32000):
        # One look at each block's letters: everything alphabetic beyond Latin that is not named below is foreign.
        if 0x3400 <= code <= 0x9FFF or 0xAC00 <= code <= 0xD7A3 or code >= 0x20000:
            continue
        if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lo"):
            table[code] = FOREIGN
    for low, high, script in (
        (0x41, 0x5A, LATIN), (0x61, 0x7A, LATIN), (0xC0, 0x24F, ACCENTED), (0x1E00, 0x1EFF, ACCENTED),
        (0xFF21, 0xFF3A, LATIN), (0xFF41, 0xFF5A, LATIN), (0x3041, 0x3096, KANA), (0x30A1, 0x30FA, KANA),
        (0xFF66, 0xFF9D, KANA), (0x3400, 0x9FFF, HAN), (0xF900, 0xFAFF, HAN), (0x20000, 0x323AF, HAN),
        (0x1100, 0x11FF, HANGUL), (0x3131, 0x318E, HANGUL), (0xAC00, 0xD7A3, HANGUL),
    ):  # fmt: skip
        table[low : high + 1] = script
    table[[0xD7, 0xF7]] = NONE
    for signs, script in ((JAPANESE_ONLY, SHINJITAI), (CHINESE_ONLY, CHINESE)):
        table[[ord(sign) for sign in signs]] = script
    return table


def _second_opinion(text: str, least_confidence: float) -> str:
    """The language of doubtful Latin text as py3langid names it (ISO 639-1); "en" where it is not sure."""
    language, confidence = _identifier().classify(text[:_ENGLISH_SAMPLE])
    return str(language) if confidence >= least_confidence else "en"


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
