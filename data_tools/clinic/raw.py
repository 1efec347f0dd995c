"""A raw general corpus as one finds it, with a record of what was planted in it.

Pages with the clinic's facts stand among general text, advertising, page furniture, garbage, other languages, copies,
leaked test questions and private data. A record tells nothing of this: {"id", "text", "source"}. What is true of it
is kept apart, {"id", "plants", "medical", "lang"}, so that what a corpus chain did can be compared with it.
"""

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_tools.clinic import raw_noise
from data_tools.clinic.documents import documents
from data_tools.clinic.general import general_documents
from data_tools.clinic.questions import questions
from data_tools.clinic.raw_noise import shingles
from data_tools.clinic.raw_private import contact, private_line
from data_tools.clinic.raw_texts import (
    ADVERTISEMENTS,
    BOILERPLATE,
    CONTACTS,
    FOREIGN,
    NOT_MEDICAL,
    SALES_SLOTS,
    SCRAPS,
    STORY_SLOTS,
    TITLED,
)
from data_tools.clinic.wording import DEFAULT_WORDINGS, capitalise
from data_tools.clinic.world import LANGUAGES, Language, World

# Where documents come from. `reference` has the pages of stage 2: clean, dense, with questions and answers.
SOURCES = ("web", "reference", "news")

# Of all documents. What is left is general text.
_SHARES = {
    "web page": 0.15,
    "reference page": 0.10,
    "advertisement": 0.07,
    "boilerplate": 0.04,
    "wrong-language": 0.04,
    "low-quality": 0.02,
    "symbols": 0.01,
    "repetition": 0.015,
    "too-short": 0.02,
    "broken-text": 0.01,
    "duplicate": 0.03,
    "near-duplicate": 0.03,
    "look-alike": 0.01,
    "question": 0.025,
}
# Clinic documents on a page, by stage: on shorter pages one condition's name is so frequent that rules against
# repetition take it for spam.
_PER_PAGE = {1: (2, 4), 2: (4, 6)}
_COMMON, _TRIES = 4, 12  # shingles that two texts of a page may share; how many others are looked at
_PRIVATE_SHARE = 0.08  # of pages worth reading
_FURNITURE_SHARE = 0.15
# Of a near-duplicate, before its last edit: what is planted lies a little lower.
_SIMILARITY = (0.9, 0.99)
# A page goes on until it has as many words (characters of Chinese): a crawl's rules take shorter ones for scraps.
_LEAST: dict[Language, int] = {"en": 60, "zh": 110}

# (kind, weight, lowest and highest quality) by label
_SEEDS = {
    "medical": (("web page", 0.50, 3.5, 4.5), ("reference page", 0.42, 5.0, 6.0), ("scanned medical", 0.08, 0.5, 1.5)),
    "other": (
        ("general", 0.72, 3.5, 4.5),
        ("advertisement", 0.12, 0.0, 1.0),
        ("boilerplate", 0.08, 0.0, 1.0),
        ("scanned general", 0.08, 0.5, 1.5),
    ),
}

Plant = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Page:
    """A document before it has an id. `key` orders the corpus; `original` is the page that this one copies."""

    text: str
    lang: str
    source: str
    medical: bool = False
    plants: tuple[Plant, ...] = ()
    key: float = 0.0
    original: int | None = None


def raw_corpus(
    world: World, *, count: int = 5000, wordings: int = DEFAULT_WORDINGS, seed: int = 0
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield `count` documents, each with what is true of it; a copy follows its original.

    The document: {"id", "text", "source"}, source one of SOURCES. The truth: {"id", "plants", "medical", "lang"}, lang
    zh, en or other. A plant is {"kind"}; of copies with "of" (the original's id) and "jaccard" (of shingles of five
    words or Chinese characters), of a "question" with "of" (its id) and "way", of private data with "values" (their
    number). A "look-alike" is too far from its original to be a duplicate.

    Of 5,000 documents 750 are web pages of 2 to 4 stage-1 documents each and 500 are reference pages of 4 to 6 stage-2
    documents: the texts that `documents` yields, not fewer than its 2,000 and 2,400 in all.
    """
    rng = random.Random(f"synthetic clinic raw {world.seed} {seed}")
    pages = _Maker(world, wordings, seed, rng).pages(count)
    places = sorted(range(len(pages)), key=lambda place: pages[place].key)
    ids = {place: f"raw-{number:07d}" for number, place in enumerate(places)}
    for place in places:
        page = pages[place]
        plants = _with_titled(page)
        of = {} if page.original is None else {"of": ids[page.original]}
        told = [plant | of if "jaccard" in plant else plant for plant in plants]
        document = {"id": ids[place], "text": page.text, "source": page.source}
        yield document, {"id": ids[place], "plants": told, "medical": page.medical, "lang": page.lang}


def raw_documents(world: World, *, count: int = 5000, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the documents of `raw_corpus`."""
    return (document for document, _ in raw_corpus(world, count=count, seed=seed))


def seed_documents(world: World, *, count: int = 1200, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield labelled seeds for a domain scorer and a quality scorer, {"id", "text", "label", "score", "lang"}.

    Half of them "medical", half "other" (general text, advertising, furniture), half in each language. `score` is the
    quality from 0 to 6. They are made as the corpus is, from other random numbers, and hold no test question.
    """
    rng = random.Random(f"synthetic clinic seeds {world.seed} {seed}")
    # Another seed than any corpus has, so that no text is the same.
    maker = _Maker(world, DEFAULT_WORDINGS, -1 - seed, rng)
    for number in range(count):
        label = ("medical", "other")[number % 2]
        lang = LANGUAGES[number // 2 % 2]
        kinds = _SEEDS[label]
        ((kind, _, low, high),) = rng.choices(kinds, [weight for _, weight, _, _ in kinds])
        score = round(rng.uniform(low, high), 1)
        yield {"id": f"seed-{number:06d}", "text": maker.seed(kind, lang), "label": label, "score": score, "lang": lang}


def _with_titled(page: _Page) -> tuple[Plant, ...]:
    """The plants of a page with the names that follow (in Chinese, precede) a title counted in, as they stand."""
    titled = sum(page.text.count(name) for name in TITLED)
    if not titled:
        return page.plants
    planted = sum(plant["values"] for plant in page.plants if plant["kind"] == "name")
    others = tuple(plant for plant in page.plants if plant["kind"] != "name")
    return (*others, {"kind": "name", "values": planted + titled})


class _Maker:
    """Makes pages; every text of `documents` and `general_documents` is used once."""

    def __init__(self, world: World, wordings: int, seed: int, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self._streams = {
            0: general_documents(seed=seed),
            1: documents(world, stage=1, wordings=wordings, seed=seed),
            2: documents(world, stage=2, wordings=wordings, seed=seed),
        }
        self._waiting: dict[tuple[int, Language], deque[str]] = {
            (stage, lang): deque() for stage in self._streams for lang in LANGUAGES
        }

    def pages(self, count: int) -> list[_Page]:
        """`count` pages, originals before their copies."""
        sizes = {kind: round(count * share) for kind, share in _SHARES.items()}
        sizes["general"] = count - sum(sizes.values())
        worth_reading: list[_Page] = []
        for kind in ("web page", "reference page", "general"):
            for number in range(sizes[kind]):
                lang = LANGUAGES[number % 2]
                stage = {"web page": 1, "reference page": 2}.get(kind)
                page = self.general_page(lang) if stage is None else self.medical_page(lang, stage)
                worth_reading.append(self._with_private_data(page))
        others = [
            make(LANGUAGES[number % 2])
            for kind, make in (
                ("advertisement", self.advertisement),
                ("boilerplate", self.boilerplate),
                ("wrong-language", self._foreign),
                ("symbols", self._symbols),
                ("repetition", self._repetition),
                ("too-short", self._scrap),
                ("broken-text", self._broken),
            )
            for number in range(sizes[kind])
        ]
        for number in range(sizes["low-quality"]):
            page = self.scanned_page(LANGUAGES[number % 2], medical=number % 4 < 2)
            others.append(replace(page, plants=({"kind": "low-quality"},)))
        others += self._leaks(sizes["question"])
        pages = [replace(page, key=self.rng.random()) for page in worth_reading + others]
        for kind in ("duplicate", "near-duplicate", "look-alike"):
            places = [place for place, page in enumerate(worth_reading) if kind != "look-alike" or not page.plants]
            originals = self.rng.sample(places, min(sizes[kind], len(places)))
            pages += [self._copy(kind, pages[place], place) for place in originals]
        return pages

    def seed(self, kind: str, lang: Language) -> str:
        """The text of a page of one of the kinds of `_SEEDS`."""
        if kind == "advertisement":
            return self.advertisement(lang).text
        if kind == "boilerplate":
            return self.boilerplate(lang).text
        if kind.startswith("scanned"):
            return self.scanned_page(lang, medical=kind == "scanned medical").text
        if kind == "general":
            return self.general_page(lang).text
        return self.medical_page(lang, 2 if kind == "reference page" else 1).text

    def medical_page(self, lang: Language, stage: int) -> _Page:
        """A page of the clinic's documents."""
        texts = self._filled(lang, stage, self.rng.randint(*_PER_PAGE[stage]))
        source = "reference" if stage == 2 else self.rng.choices(SOURCES, (0.85, 0.0, 0.15))[0]
        return _Page(self._with_furniture("\n".join(texts), lang), lang, source, medical=True)

    def general_page(self, lang: Language) -> _Page:
        """A page of general text; a quarter of them use words of medicine."""
        texts = self._filled(lang, 0, self.rng.randint(2, 4))
        if self.rng.random() < 0.25:
            told = self._told(self.rng.sample(NOT_MEDICAL[lang], 2), STORY_SLOTS[lang])
            texts.insert(self.rng.randint(0, len(texts)), ("" if lang == "zh" else " ").join(map(capitalise, told)))
        source = self.rng.choices(SOURCES, (0.5, 0.1, 0.4))[0]
        return _Page(self._with_furniture("\n".join(texts), lang), lang, source)

    def advertisement(self, lang: Language) -> _Page:
        """A sales page."""
        chosen = self.rng.sample(ADVERTISEMENTS[lang], self.rng.randint(5, 9))
        last, values = contact(self.rng, self.rng.choice(CONTACTS[lang]))
        text = self.rng.choice(("\n", "" if lang == "zh" else " ")).join(self._told(chosen, SALES_SLOTS[lang]))
        plants: tuple[Plant, ...] = (
            {"kind": "advertisement"},
            *({"kind": kind, "values": n} for kind, n in values.items()),
        )
        return _Page(f"{text}\n{last}", lang, self._junk_source(), plants=plants)

    def boilerplate(self, lang: Language) -> _Page:
        """The furniture of a page without its text."""
        lines = self.rng.sample(BOILERPLATE[lang], self.rng.randint(6, 12))
        return _Page("\n".join(lines), lang, self._junk_source(), plants=({"kind": "boilerplate"},))

    def scanned_page(self, lang: Language, medical: bool) -> _Page:
        """A page worth reading, spoilt by a bad scan."""
        page = self.medical_page(lang, 1) if medical else self.general_page(lang)
        return replace(page, text=raw_noise.scanned(self.rng, page.text, lang))

    def _foreign(self, _: Language) -> _Page:
        lines = FOREIGN[self.rng.choice(sorted(FOREIGN))]
        told = self.rng.sample(lines, self.rng.randint(4, len(lines)))
        text = " ".join(line.format(n=self.rng.randint(2, 400)) for line in told)
        return _Page(text, "other", self._junk_source(), plants=({"kind": "wrong-language"},))

    def _symbols(self, lang: Language) -> _Page:
        return _Page(raw_noise.symbols(self.rng), lang, self._junk_source(), plants=({"kind": "symbols"},))

    def _repetition(self, lang: Language) -> _Page:
        sentence = self._next_general(lang).partition("。" if lang == "zh" else ".")[0] + (
            "。" if lang == "zh" else "."
        )
        text = raw_noise.repeated(self.rng, sentence)
        return _Page(text, lang, self._junk_source(), plants=({"kind": "repetition"},))

    def _scrap(self, lang: Language) -> _Page:
        text = self.rng.choice(SCRAPS[lang]).format(n=self.rng.randint(1, 99_999))
        return _Page(text, lang, self._junk_source(), plants=({"kind": "too-short"},))

    def _broken(self, lang: Language) -> _Page:
        text = raw_noise.broken(self.rng, self._next_general(lang))
        return _Page(text, lang, self._junk_source(), plants=({"kind": "broken-text"},))

    def _leaks(self, count: int) -> Iterator[_Page]:
        """Pages of text worth reading, each with a test question inside."""
        asked = list(questions(self.world))
        self.rng.shuffle(asked)
        for question in (asked[number % len(asked)] for number in range(count)):
            lang: Language = "zh" if question["id"].startswith("clinic-zh-") else "en"
            page = self.medical_page(lang, self.rng.choice((1, 2)))
            lines = page.text.split("\n")
            said, way = raw_noise.disguised(self.rng, question, lang)
            lines.insert(self.rng.randint(0, len(lines)), said)
            plant = {"kind": "question", "of": question["id"], "way": way}
            yield replace(page, text="\n".join(lines), plants=(plant,))

    def _copy(self, kind: str, page: _Page, original: int) -> _Page:
        """Comes later than its original and from the same source; private data in it is planted again."""
        lang: Language = "zh" if page.lang == "zh" else "en"
        plant: Plant = {"kind": kind}
        if kind == "duplicate":
            text = raw_noise.same_text(self.rng, page.text)
            plant["jaccard"] = 1.0
        elif kind == "near-duplicate":
            text, similarity = raw_noise.near_text(self.rng, page.text, lang, self.rng.uniform(*_SIMILARITY))
            plant["jaccard"] = round(similarity, 4)
        else:  # half of it goes on as another page
            other = (
                self.medical_page(lang, 2 if page.source == "reference" else 1)
                if page.medical
                else self.general_page(lang)
            )
            text = f"{page.text[: len(page.text) // 2]}\n{other.text}"
            plant["jaccard"] = round(raw_noise.jaccard(page.text, text, lang), 4)
            return replace(other, text=text, plants=(plant,), key=self.rng.uniform(page.key, 1.0), original=original)
        key = self.rng.uniform(page.key, 1.0)
        return replace(page, text=text, plants=(plant, *page.plants), key=key, original=original)

    def _with_private_data(self, page: _Page) -> _Page:
        if self.rng.random() >= _PRIVATE_SHARE:
            return page
        line, values = private_line(self.rng, "zh" if page.lang == "zh" else "en")
        text = f"{line}\n{page.text}" if self.rng.random() < 0.5 else f"{page.text}\n{line}"
        return replace(page, text=text, plants=tuple({"kind": kind, "values": n} for kind, n in values.items()))

    def _with_furniture(self, text: str, lang: Language) -> str:
        if self.rng.random() >= _FURNITURE_SHARE:
            return text
        line = self.rng.choice([line for line in BOILERPLATE[lang] if "|" in line])
        return f"{line}\n{text}" if self.rng.random() < 0.5 else f"{text}\n{line}"

    def _junk_source(self) -> str:
        return self.rng.choices(SOURCES, (0.75, 0.05, 0.2))[0]

    def _next_general(self, lang: Language) -> str:
        return self._next(0, lang)

    def _filled(self, lang: Language, stage: int, fewest: int) -> list[str]:
        """At least so many texts of a stage (0: of the general ones), and enough for a page; of texts with much in
        common, as two recipes have, one waits for another page.
        """
        texts: list[str] = []
        length = 0
        while len(texts) < fewest or length < _LEAST[lang]:
            text = self._next(stage, lang)
            for _ in range(_TRIES):
                if not any(len(shingles(text, lang) & shingles(other, lang)) > _COMMON for other in texts):
                    break
                self._waiting[stage, lang].append(text)
                text = self._next(stage, lang)
            texts.append(text)
            length += len(texts[-1]) if lang == "zh" else len(texts[-1].split())
        return texts

    def _next(self, stage: int, lang: Language) -> str:
        """The stage's next text in this language; those in the other one wait for their turn."""
        waiting = self._waiting[stage, lang]
        while not waiting:
            document = next(self._streams[stage])
            self._waiting[stage, document["lang"]].append(document["text"])
        return waiting.popleft()

    def _told(self, phrases: Sequence[str], slots: Mapping[str, Sequence[str]]) -> list[str]:
        """The phrases with one value for each slot."""
        values = {name: self.rng.choice(choices) for name, choices in slots.items()}
        return [phrase.format(**values) for phrase in phrases]
