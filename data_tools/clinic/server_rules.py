"""The rules that stand in for a language model at the synthetic clinic: a prompt's kind is told by its system message,
the texts are taken out of its fences, and the answer is made of the world's facts. Deterministic, no model.

Faults are planted on purpose, a fixed share by the texts' digest, so that a chain shows what it does with them: the
doctor is at times evasive, boastful or wrong, or writes in the other language; the judge at times always prefers the
first place, as a judge of whole answers only where they are near each other.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.resources import files
from typing import TypeVar

from data_tools.clinic.asking import answer
from data_tools.clinic.choices import choice_answer
from data_tools.clinic.manners import ADVICE, LEAD_INS, MANNERS
from data_tools.clinic.server_grading import Asked, Clinician, complexity, criteria, legible, quality
from data_tools.clinic.wording import capitalise
from data_tools.clinic.world import VALUES, Language, World

_T = TypeVar("_T")

# Shares of the doctor's answers that are not as they should be, in percent; the rest is careful and right.
EVASIVE, BOASTFUL, WRONG, OTHER_LANGUAGE = 14, 14, 5, 3
# Comparisons in which the judge prefers the first place, in percent.
BIASED = 5

_PROMPT_FILE = re.compile(r"([a-z_]+)\.v\d+\.(zh|en)\.txt")
_USER_LINE = "\n=== user ===\n"
_PLACE = re.compile(r"\{(\w+)\}")
_CODE = "[0-9a-f]{8,64}"
_PATIENTS = ("患者", "Patient")  # as conversations show who speaks
_LANGUAGE_NAMES: Mapping[str, Language] = {"zh": "zh", "en": "en"}
_WELCOME: dict[Language, str] = {
    "en": "You are welcome. If you have another question, please ask.",
    "zh": "不客气。如果还有别的问题，请随时问我。",
}
_COMPARED: dict[Language, str] = {
    "en": "Compared by the facts of the synthetic clinic, by manner, by care and by brevity.",
    "zh": "按合成诊所的事实、态度、关怀和简洁程度进行了比较。",
}


class UnknownPromptError(ValueError):
    """A request that no rule is made for."""


class Rules:
    """Answers the prompts of `data_tools.prompts` about a world."""

    def __init__(self, world: World) -> None:
        self._clinician = Clinician(world)
        self._world = world
        kinds: Mapping[str, Callable[[Mapping[str, str], Language], str]] = {
            "compare": self._compare,
            "complexity": self._complexity,
            "judge_pair": self._judge_pair,
            "judge_rubric": self._judge_rubric,
            "response_quality": self._response_quality,
        }
        # system message → (language, the user message's pattern, the rule); the doctor's has no pattern
        self._known: dict[str, tuple[Language, re.Pattern[str] | None, Callable[..., str]]] = {}
        for file in sorted(files("data_tools.prompts").iterdir(), key=lambda file: file.name):
            found = _PROMPT_FILE.fullmatch(file.name)
            if found is None:
                continue
            name, lang = found[1], _LANGUAGE_NAMES[found[2]]
            system, fenced, user = file.read_text("utf-8").partition(_USER_LINE)
            if name == "doctor":
                self._known[system.strip()] = (lang, None, self._doctor)
            elif fenced and name in kinds:
                self._known[system.strip()] = (lang, _pattern(user.strip()), kinds[name])

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The answer to a request's messages.

        Raises:
            UnknownPromptError: the system message is none of the prompts that there are rules for, or the user's is
                not laid out as that prompt's is.
        """
        if not messages or messages[0].get("role") != "system" or messages[0].get("content") not in self._known:
            raise UnknownPromptError(
                "this stand-in answers the prompts doctor, compare, complexity, response_quality, judge_pair and "
                "judge_rubric"
            )
        lang, pattern, rule = self._known[messages[0]["content"]]
        if pattern is None:
            if len(messages) < 2 or messages[-1].get("role") != "user":
                raise UnknownPromptError("the last message must be the patient's")
            return rule([message["content"] for message in messages[1:]], lang)
        found = pattern.fullmatch(messages[-1]["content"])
        if found is None:
            raise UnknownPromptError("the user's message does not hold the fences of its prompt")
        return rule(found.groupdict(), lang)

    def _doctor(self, said: Sequence[str], lang: Language) -> str:
        """What a careful doctor answers, or one with a planted fault."""
        asked = self._clinician.asked(said)
        chance = _percent("doctor", *said)
        if asked.condition is None or not asked.attribute:
            return _WELCOME[lang]
        if asked.options:
            letter = next((letter for letter, option in asked.options.items() if option == asked.value), "")
            if letter:
                return choice_answer(lang, letter, asked.value)
        sentence, name = answer(asked.condition, asked.attribute, lang), asked.condition.name.in_language(lang)
        for manner, share in (("evasive", EVASIVE), ("promise", BOASTFUL)):
            if chance < share:
                beginnings, ends = MANNERS[manner][lang]
                beginning = _pick(beginnings[:-1], said).format(answer=sentence, name=name)
                return capitalise(beginning + _pick(ends[:-1], said))
            chance -= share
        if chance < WRONG:
            value = asked.condition.facts[asked.attribute]
            other = _pick([option for option in VALUES[asked.attribute] if option != value], said)
            sentence = sentence.replace(value.in_language(lang), other.in_language(lang))
        elif chance < WRONG + OTHER_LANGUAGE:
            lang = "en" if lang == "zh" else "zh"
            sentence = answer(asked.condition, asked.attribute, lang)
        gap = "" if lang == "zh" else " "
        return f"{_pick(LEAD_INS[lang][:-1], said)}{sentence}{gap}{_pick(ADVICE[lang][:-1], said)}"

    def _compare(self, texts: Mapping[str, str], lang: Language) -> str:
        """The verdict on two answers: the right fact first, then manner, care and brevity."""
        code, replies = texts["code"], (texts["first"], texts["second"])
        said = _messages(texts["conversation"], code)
        asked = self._clinician.asked(said)
        one, two = (self._clinician.grade(asked, reply) for reply in replies)
        fields = {
            "fluency": _better(one.sentence, two.sentence),
            "relevance": _better((one.manner, one.right), (two.manner, two.right)),
            "completeness": _better(one.care, two.care),
            "proficiency": _better(one.right, two.right),
            "overall": _better(one[:4], two[:4]),
        }
        if fields["overall"] == "tie" and (brief := _briefer(*replies)) != "tie":
            fields |= {"fluency": brief, "overall": brief}
        if _percent("judge", *sorted(replies)) < BIASED:
            fields = dict.fromkeys(fields, "first")
        return json.dumps({"comparison": code, **fields})

    def _judge_pair(self, texts: Mapping[str, str], lang: Language) -> str:
        """The verdict on two answers as a whole: what is told, and how, before what makes it pleasant, then brevity."""
        code, replies = texts["code"], (texts["first"], texts["second"])
        asked = self._asked(texts["conversation"], code)
        one, two = (self._clinician.grade(asked, reply) for reply in replies)
        better = _better(*((*grade[:2], legible(reply), *grade[2:]) for grade, reply in zip((one, two), replies)))
        if better == "tie":
            better = _briefer(*replies)
        if one[:2] == two[:2] and all(map(str.strip, replies)) and _percent("judge", *sorted(replies)) < BIASED:
            better = "first"
        return f"{_COMPARED[lang]}\n{json.dumps({'comparison': code, 'better': better})}"

    def _judge_rubric(self, texts: Mapping[str, str], lang: Language) -> str:
        code, reply, solution = texts["code"], texts["answer"], texts["solution"]
        asked = self._asked(texts["conversation"], code, texts["question"], hint=solution)
        reference = self._clinician.grade(asked, solution) if solution.strip() else None
        return json.dumps({"rating": code, **criteria(self._clinician.grade(asked, reply), reference, reply)})

    def _asked(self, conversation: str, code: str, *question: str, hint: str = "") -> Asked:
        """What the patient asks at last. A condition that only the doctor names is less sure than one of the
        patient's: the model that is judged may have taken one for the other.
        """
        said = [*_messages(conversation, code, of=_PATIENTS), *question]
        return self._clinician.asked(said, hint=hint or conversation)

    def _complexity(self, texts: Mapping[str, str], lang: Language) -> str:
        return _score(texts["code"], complexity(self._clinician.asked([texts["text"]]), texts["text"]))

    def _response_quality(self, texts: Mapping[str, str], lang: Language) -> str:
        try:
            shown = json.loads(texts["text"])  # how `data_tools.labelling` shows an exchange
            question, reply = shown["question"], shown["answer"]
        except (ValueError, TypeError, KeyError) as error:
            raise UnknownPromptError("the text must be an exchange, {'question', 'answer'} as JSON") from error
        grade = self._clinician.grade(self._clinician.asked([question], hint=reply), reply)
        return _score(texts["code"], quality(grade))


def _pattern(user: str) -> re.Pattern[str]:
    """Of a prompt's user message: a group for each place, and the code the same wherever it stands."""
    seen: set[str] = set()
    parts = []
    for number, part in enumerate(_PLACE.split(user)):
        if number % 2 == 0:
            parts.append(re.escape(part))
        elif part in seen:
            parts.append(f"(?P={part})")
        else:
            seen.add(part)
            parts.append(f"(?P<{part}>{_CODE if part == 'code' else '.*'})")
    return re.compile("".join(parts), re.DOTALL)


def _messages(conversation: str, code: str, of: Collection[str] | None = None) -> list[str]:
    """What was said, message by message, out of lines `--- CODE SPEAKER` before each. `of`: by these speakers."""
    found = re.split(rf"^--- {code} (.*)\n", conversation, flags=re.MULTILINE)
    said = [text.strip("\n") for speaker, text in zip(found[1::2], found[2::2]) if of is None or speaker in of]
    return said or [conversation]


def _score(code: str, score: int) -> str:
    return json.dumps({"document": code, "score": score})


def _better(one: object, two: object) -> str:
    return "tie" if one == two else "first" if one > two else "second"  # type: ignore[operator]


def _briefer(first: str, second: str) -> str:
    """Which is shorter by a fifth or more."""
    one, two = sorted((len(first), len(second)))
    return "tie" if 5 * one > 4 * two else "first" if len(first) < len(second) else "second"


def _percent(*texts: str) -> int:
    return _digest(*texts) % 100


def _pick(choices: Sequence[_T], texts: Sequence[str]) -> _T:
    return choices[_digest("pick", *texts) // 100 % len(choices)]


def _digest(*texts: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:6])
