"""The draw of candidates: distribution, order, near-equal prompts, and how many are used."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_tools.preferences.candidates import CandidatesConfig, Passed, candidate_of, exchange_of
from data_tools.preferences.outcome import Candidate
from data_tools.preferences.strata import Draw, Member, Part, Traits, apportion, draw, gather
from data_tools.records import Dialogue

CONFIG = CandidatesConfig(dialogues=("unused",))


def dialogue(number: int, words: Sequence[str] = ("头痛怎么办？", "多休息。"), **more: Any) -> Dialogue:
    roles = ("user", "assistant")
    messages = tuple({"role": roles[place % 2], "content": text} for place, text in enumerate(words))
    return Dialogue(**{"id": f"d{number}", "messages": messages, "lang": "zh", "source": "web", **more})


def members(pool: Sequence[Dialogue], seed: int = 0) -> list[Member[Candidate]]:
    found = [candidate_of(one, CONFIG, seed) for one in pool]
    assert all(isinstance(member, Member) for member in found)
    return found  # type: ignore[return-value]


def pool_of(sizes: dict[tuple[str, str], int]) -> list[Dialogue]:
    return [
        dialogue(1000 * place + number, (f"{source} {lang} {number}?", "好。"), source=source, lang=lang)
        for place, ((source, lang), size) in enumerate(sizes.items())
        for number in range(size)
    ]


def test_the_prompt_ends_where_the_answer_begins() -> None:
    system = {"role": "system", "content": "s"}
    words = ("q1", "a1", "q2", "a2", "q3")
    one = dialogue(1, words)
    one = Dialogue(one.id, (system, *one.messages))
    assert exchange_of(one, "last", 0) == ((system, *one.messages[1:4]), "a2"), "nobody answered q3"
    drawn = {exchange_of(Dialogue(f"d{n}", one.messages), "random", 0)[1] for n in range(30)}  # type: ignore[index]
    assert drawn == {"a1", "a2"}
    assert exchange_of(one, "random", 0) == exchange_of(one, "random", 0)
    merged = Dialogue("x", ({"role": "assistant", "content": "hello"}, {"role": "user", "content": "q"}))
    assert exchange_of(merged, "last", 0) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"meta": {"kind": "options"}}, "other-kind"),
        ({"words": ("q", "  ")}, "blank-message"),
        ({"words": ("q", "a" * 8000)}, "too-long"),
        ({"words": ("q",)}, "no-exchange"),
    ],
)
def test_what_can_be_no_candidate(changes: dict[str, Any], reason: str) -> None:
    assert candidate_of(dialogue(1, **changes), CONFIG, 0) == Passed("d1", "zh", "web", reason)
    kept = candidate_of(dialogue(1, meta={"kind": 7}), CONFIG, 0)
    assert isinstance(kept, Member), "a kind that is no word says nothing"


@settings(deadline=None)
@given(st.integers(0, 3000), st.dictionaries(st.text(max_size=3), st.integers(0, 500), max_size=8))
def test_apportion_is_the_method_of_largest_remainders(count: int, weights: dict[str, int]) -> None:
    seats = apportion(count, weights)
    total = sum(weights.values())
    if not total:
        assert set(seats.values()) <= {0}
        return
    exact = {name: Fraction(count * weight, total) for name, weight in weights.items()}
    assert sum(seats.values()) == count
    assert all(abs(seats[name] - share) < 1 for name, share in exact.items())
    up = [name for name in weights if seats[name] > exact[name]]
    down = [name for name in weights if seats[name] < exact[name]]
    assert all(exact[one] % 1 >= exact[other] % 1 - Fraction(1, 10**9) for one in up for other in down), (
        "who is rounded up has no smaller remainder than who is rounded down"
    )


def test_pairs_are_distributed_as_the_dialogues_are() -> None:
    sizes = {("web", "zh"): 500, ("web", "en"): 250, ("clinic", "zh"): 200, ("clinic", "en"): 50}
    strata = draw(lambda: members(pool_of(sizes)), Draw(count=100, spare=1.5))
    assert {s.name: (s.quota, s.available, len(s.members)) for s in strata} == {
        "web · zh": (50, 500, 75),
        "web · en": (25, 250, 38),
        "clinic · zh": (20, 200, 30),
        "clinic · en": (5, 50, 8),
    }
    for stratum in strata:
        assert all(f"{m.traits.source} · {m.traits.lang}" == stratum.name for m in stratum.members)


def test_parts_have_their_shares_whatever_there_is() -> None:
    sizes = {("web", "zh"): 500, ("web", "en"): 30, ("clinic", "zh"): 100}
    parts = (
        Part(name="english", share=1, langs=("en",)),
        Part(name="clinic", share=1, sources=("clinic",)),
        Part(name="many turns", share=2, turns=(2, 9)),
    )
    dropped: Counter[str] = Counter()
    strata = draw(
        lambda: members(pool_of(sizes)),
        Draw(count=100, parts=parts, spare=1),
        lambda member, reason: dropped.update([reason]),
    )
    found = {stratum.name: (stratum.quota, stratum.available, len(stratum.members)) for stratum in strata}
    assert found == {"english": (25, 30, 25), "clinic": (25, 100, 25), "many turns": (50, 0, 0)}
    assert dropped == {"in-no-part": 500, "not-drawn": 80}
    everything = draw(lambda: members(pool_of(sizes)), Draw(parts=parts[:2]))
    assert {stratum.name: stratum.quota for stratum in everything} == {"english": 30, "clinic": 30}
    with pytest.raises(ValidationError, match="english is there twice"):
        Draw(parts=(parts[0], parts[0]))


def test_the_draw_is_uniform_and_knows_no_order() -> None:
    pool = pool_of({("web", "zh"): 60})
    turned = random.Random(1).sample(pool, len(pool))

    def drawn(pool: Sequence[Dialogue], seed: int) -> list[str]:
        [stratum] = draw(lambda: members(pool, seed), Draw(count=15, spare=1))
        return [member.id for member in stratum.members]

    assert drawn(pool, 0) == drawn(turned, 0) == drawn(turned + pool, 0)
    hits = Counter(name for seed in range(200) for name in drawn(pool, seed))
    assert len(hits) == 60
    # 200 draws of 15 out of 60: each 50 times on average, and within 5 standard deviations (6.1) of it
    assert all(20 < count < 80 for count in hits.values())


def test_near_equal_prompts_are_one() -> None:
    words = ["Headache, what now?", "headache  what NOW", "ＨＥＡＤＡＣＨＥ，what now？", "Headache? What then?"]
    pool = [dialogue(number, (text, f"answer {number}")) for number, text in enumerate(words)]
    dropped: list[tuple[str, str]] = []
    for order in (pool, pool[::-1]):
        dropped.clear()
        [stratum] = draw(lambda order=order: members(order), Draw(), lambda m, reason: dropped.append((m.id, reason)))
        assert {member.id for member in stratum.members} == {"d0", "d3"}
        assert sorted(dropped) == [("d1", "repeated-prompt"), ("d2", "repeated-prompt")]


def test_only_what_is_missing_is_asked() -> None:
    strata = draw(lambda: members(pool_of({("a", "zh"): 300, ("b", "en"): 60})), Draw(count=60, spare=3))
    quotas = {stratum.name: stratum.quota for stratum in strata}
    assert quotas == {"a · zh": 50, "b · en": 10}
    used: list[str] = []

    def make(wave: Sequence[Member[Candidate]]) -> Iterator[bool]:
        missing = dict(quotas)
        for name in used:  # what the waves before have made
            source = name.split()[0]
            missing[f"{source} · {'zh' if source == 'a' else 'en'}"] -= name.endswith("+")
        assert len(wave) <= sum(missing.values())
        for member in wave:
            became = member.rank % 5 < 3 and member.traits.source == "a"
            used.append(f"{member.traits.source} {member.id} {'+' if became else '-'}")
            yield became

    done = gather(strata, make)
    ranks = [member.rank for member in strata[0].members]
    needed = next(n for n in range(len(ranks)) if sum(rank % 5 < 3 for rank in ranks[:n]) == 50)
    assert done == {"a · zh": (50, needed), "b · en": (0, 30)}, "b's spare ones are used up, and it gets no pair"
    assert len(used) == len(set(used)) == needed + 30


def test_traits_of_a_stratum() -> None:
    config = Draw(by=("turns", "kind"))
    assert config.stratum(Traits("zh", "web", 4, "qa")) == "4 turns · qa"
    assert config.stratum(Traits("", "", 7, "qa")) == "5+ turns · qa"
    assert Draw(by=()).stratum(Traits("", "")) == "all"
    assert Draw().stratum(Traits("", "")) == "no source · no lang"
