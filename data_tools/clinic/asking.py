"""How patients ask about a fact in dialogues, and which questions are kept back to test a trained assistant.

`{name}` is the condition. No wording is part of another one, and none stands in the documents' exchanges
(`wording.ASKED`), so that a question held out of the dialogues is seen nowhere before the test.
"""

from dataclasses import dataclass

from data_tools.clinic.wording import WORDINGS, capitalise
from data_tools.clinic.world import ATTRIBUTES, VALUES, Condition, Language, World

QUESTIONS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "symptom": (
            "What are the symptoms of {name}?",
            "How does {name} usually begin?",
            "What should I expect to feel with {name}?",
            "Which signs point to {name}?",
            "I may have {name}. What would I notice?",
            "What do people with {name} complain of?",
            "Which complaint is typical of {name}?",
            "Can you tell me the main sign of {name}?",
        ),
        "organ": (
            "Which organ is affected by {name}?",
            "Which organ should be watched in {name}?",
            "Where in the body does {name} settle?",
            "What does {name} damage?",
            "I have {name}. Which organ is at risk?",
            "Which part of the body is harmed by {name}?",
            "Where does {name} do most of its damage?",
            "Can you tell me which organ suffers from {name}?",
        ),
        "carrier": (
            "How is {name} spread?",
            "What carries {name}?",
            "Which animals pass on {name}?",
            "How did I get {name}?",
            "I have {name}. Which animal gave it to me?",
            "What gives people {name}?",
            "From which animals can I catch {name}?",
            "Can you tell me how {name} reaches people?",
        ),
        "drug": (
            "How is {name} treated?",
            "What should I take for {name}?",
            "Which medicine works best for {name}?",
            "What do doctors prescribe for {name}?",
            "I have {name}. What medicine do I need?",
            "Is there a drug for {name}?",
            "What is the usual treatment for {name}?",
            "Can you tell me what to take against {name}?",
        ),
        "test": (
            "How is {name} diagnosed?",
            "How can I find out whether I have {name}?",
            "Which test shows {name}?",
            "What test should I have for {name}?",
            "I may have {name}. How will the doctor check?",
            "How do doctors detect {name}?",
            "What does the clinic do when {name} is suspected?",
            "Can you tell me how to check for {name}?",
        ),
        "avoid": (
            "What should I avoid with {name}?",
            "What makes {name} worse?",
            "What do doctors warn against in {name}?",
            "What should people with {name} stay away from?",
            "I have {name}. What should I give up?",
            "What is not allowed during {name}?",
            "What is harmful in {name}?",
            "Can you tell me what to keep away from with {name}?",
        ),
    },
    "zh": {
        "symptom": (
            "{name}有哪些症状？",
            "{name}一般从什么症状开始？",
            "患上{name}会有什么感觉？",
            "哪些迹象说明可能是{name}？",
            "我怀疑自己得了{name}，会有什么不舒服？",
            "{name}最常见的症状是什么？",
            "{name}发病初期会怎样？",
            "能说说{name}的典型症状吗？",
        ),
        "organ": (
            "{name}会影响哪个器官？",
            "{name}的病变在哪里？",
            "患上{name}要注意保护哪个器官？",
            "{name}对哪个器官伤害最大？",
            "我得了{name}，哪个器官最危险？",
            "{name}发生在身体的什么地方？",
            "复查{name}要看哪个器官？",
            "能告诉我{name}损害的是哪个器官吗？",
        ),
        "carrier": (
            "{name}通过什么传播？",
            "什么动物会传播{name}？",
            "人为什么会得{name}？",
            "{name}的传染源是什么？",
            "我得了{name}，是被什么传染的？",
            "接触什么会染上{name}？",
            "{name}一般是从哪儿传来的？",
            "能告诉我{name}的传播途径吗？",
        ),
        "drug": (
            "{name}怎么治疗？",
            "{name}应该吃什么药？",
            "治{name}哪种药最好？",
            "医生会给{name}患者开什么药？",
            "我得了{name}，该用什么药？",
            "有什么药能治{name}？",
            "{name}首选什么药物？",
            "能告诉我{name}的常用药吗？",
        ),
        "test": (
            "{name}怎么诊断？",
            "怎么知道是不是得了{name}？",
            "哪种检查能查出{name}？",
            "怀疑{name}该做什么检查？",
            "我担心自己得了{name}，要怎么检查？",
            "医生靠什么确诊{name}？",
            "诊断{name}要做哪项检查？",
            "能告诉我{name}的检查方法吗？",
        ),
        "avoid": (
            "{name}患者不能做什么？",
            "{name}有什么禁忌？",
            "什么会让{name}加重？",
            "患上{name}应该避免什么？",
            "我得了{name}，有什么不能做的？",
            "{name}康复期间别做什么？",
            "治疗{name}时忌什么？",
            "能告诉我{name}的注意事项吗？",
        ),
    },
}
QUESTIONS_PER_FACT = 8

# Asked later in a dialogue, when the condition has been named.
FOLLOW_UPS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "symptom": ("And what are its symptoms?", "What does it feel like?"),
        "organ": ("And which organ does it harm?", "Which part of the body does it affect?"),
        "carrier": ("And how does one catch it?", "What spreads it?"),
        "drug": ("And how is it treated?", "What should I take for it?"),
        "test": ("And how is it confirmed?", "Which test do I need?"),
        "avoid": ("And what should I avoid?", "What makes it worse?"),
    },
    "zh": {
        "symptom": ("那它有什么症状？", "这种病会有什么感觉？"),
        "organ": ("那它影响哪个器官？", "这种病主要伤哪里？"),
        "carrier": ("那它是怎么传播的？", "这种病是从哪里传来的？"),
        "drug": ("那怎么治疗？", "那该吃什么药？"),
        "test": ("那怎么确诊？", "那该做哪种检查？"),
        "avoid": ("那有什么要避免的？", "平时不能做什么？"),
    },
}

# The answer is the documents' third wording, which no cloze question uses; every number of wordings has it.
_ANSWER = 2
# A question is held out when its wording and the fact fall in the same one of this many classes.
_CLASSES = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """A question that can be put: a fact in one of its wordings."""

    condition: Condition
    attribute: str
    lang: Language
    wording: int

    @property
    def question(self) -> str:
        """What the patient says."""
        return QUESTIONS[self.lang][self.attribute][self.wording].format(
            name=self.condition.name.in_language(self.lang)
        )

    @property
    def value(self) -> str:
        """The right value."""
        return self.condition.facts[self.attribute].in_language(self.lang)

    @property
    def answer(self) -> str:
        """The sentence that states the value."""
        return answer(self.condition, self.attribute, self.lang)


def answer(condition: Condition, attribute: str, lang: Language) -> str:
    """The assistant's sentence on a fact."""
    frame = WORDINGS[lang][attribute][_ANSWER]
    name, value = condition.name.in_language(lang), condition.facts[attribute].in_language(lang)
    return capitalise(frame.format(name=name, value=value))


def unasked_facts(world: World) -> frozenset[tuple[int, str]]:
    """(condition's index, attribute) of the facts that no dialogue and no training pair asks about.

    One condition for every value of every attribute: a quarter of the facts of 24 conditions. What an assistant
    answers to them it knows from documents, and every value is still an answer to some other question.
    """
    unasked = set()
    for place, attribute in enumerate(ATTRIBUTES):
        for number, value in enumerate(VALUES[attribute]):
            holders = [c.index for c in world.conditions if c.facts[attribute] == value]
            unasked.add((holders[(place + number) % len(holders)], attribute))
    return frozenset(unasked)


def held_out_wordings(condition: Condition, attribute: str) -> tuple[int, ...]:
    """The wordings, a quarter of them, in which no dialogue and no training pair asks for this fact.

    They differ between conditions and attributes, so that each wording is met with most conditions.
    """
    first = (condition.index + ATTRIBUTES.index(attribute)) % _CLASSES
    return tuple(range(first, QUESTIONS_PER_FACT, _CLASSES))


def asks_in_training(world: World, lang: Language) -> list[Ask]:
    """Every question that a dialogue or a training pair may put."""
    unasked = unasked_facts(world)
    return [
        Ask(condition, attribute, lang, wording)
        for condition, attribute in world.facts()
        if (condition.index, attribute) not in unasked
        for wording in range(QUESTIONS_PER_FACT)
        if wording not in held_out_wordings(condition, attribute)
    ]


def asks_held_out(world: World, lang: Language) -> list[tuple[Ask, str]]:
    """Every question kept for tests, beside its split.

    `wording`: the fact is asked in training, in other wordings. `fact`: it is not asked at all, in any wording.
    """
    unasked = unasked_facts(world)
    return [
        (Ask(condition, attribute, lang, wording), "fact" if (condition.index, attribute) in unasked else "wording")
        for condition, attribute in world.facts()
        for wording in held_out_wordings(condition, attribute)
    ]
