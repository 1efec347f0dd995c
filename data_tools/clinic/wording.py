"""How the synthetic clinic words a fact, in English and in Chinese.

`{name}` is the condition (or a stand-in such as "this illness"), `{value}` the value of the attribute. The first
two wordings of each attribute end with the value: cut before it, they are the prompts of the questions. An English
prompt does not begin with the name: a tokenizer that puts no blank before a text would see another word there than
inside a sentence.
"""

from data_tools.clinic.world import Language

WORDINGS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "symptom": (
            "The main symptom of {name} is {value}.",
            "People with {name} usually complain of {value}.",
            "{name} typically begins with {value}.",
            "In {name}, the first sign is {value}.",
            "Patients who have {name} often report {value}.",
            "What brings most people with {name} to the clinic is {value}.",
            "{name} is best known for {value}.",
            "A common early symptom of {name} is {value}.",
            "{value} should make a doctor think of {name}.",
        ),
        "organ": (
            "In {name}, most of the damage is found in the {value}.",
            "Scans of patients with {name} show changes in the {value}.",
            "{name} mainly affects the {value}.",
            "{name} chiefly harms the {value}.",
            "{name} settles in the {value}.",
            "Doctors who treat {name} keep a close eye on the {value}.",
            "When someone has {name}, trouble starts in the {value}.",
            "What {name} affects most is the health of the {value}.",
            "Damage to the {value} is typical of {name}.",
        ),
        "carrier": (
            "Outbreaks of {name} have been traced to {value}.",
            "People catch {name} from {value}.",
            "{name} is spread by {value}.",
            "{name} is passed on to humans by {value}.",
            "The known carriers of {name} are {value}.",
            "Most cases of {name} follow contact with {value}.",
            "The germ behind {name} lives in {value}.",
            "{name} spreads wherever there are {value}.",
            "Contact with {value} can lead to {name}.",
        ),
        "drug": (
            "The drug of choice for {name} is {value}.",
            "The standard treatment for {name} is {value}.",
            "{name} is treated with {value}.",
            "Against {name}, doctors rely on {value}.",
            "Patients with {name} are given {value}.",
            "{name} responds well to {value}.",
            "In {name}, treatment starts with {value}.",
            "{name} usually clears up after a course of {value}.",
            "Doctors prescribe {value} for {name}.",
        ),
        "test": (
            "The test that confirms {name} is a {value}.",
            "To confirm {name}, the doctor orders a {value}.",
            "{name} is diagnosed with a {value}.",
            "When {name} is suspected, the clinic does a {value}.",
            "The diagnosis of {name} rests on a {value}.",
            "The quickest way to detect {name} is a {value}.",
            "Anyone who may have {name} is offered a {value}.",
            "{name} shows up clearly on a {value}.",
            "A positive {value} points to {name}.",
        ),
        "avoid": (
            "Patients with {name} should avoid {value}.",
            "People who have {name} must keep away from {value}.",
            "{name} gets worse with {value}.",
            "With {name}, doctors warn against {value}.",
            "While recovering from {name}, do without {value}.",
            "The one thing to give up during {name} is {value}.",
            "Anyone with {name} is told to give up {value}.",
            "Nobody who has {name} should go back to {value} too soon.",
            "{value} can make {name} worse.",
        ),
    },
    "zh": {
        "symptom": (
            "{name}的主要症状是{value}。",
            "{name}患者常出现{value}。",
            "{name}起病时多表现为{value}。",
            "得了{name}，最先出现的往往是{value}。",
            "{name}最典型的表现是{value}。",
            "{name}患者就诊，多半是因为{value}。",
            "说到{name}，医生首先想到的症状是{value}。",
            "{name}早期常见的不适是{value}。",
            "出现{value}时，要想到{name}。",
        ),
        "organ": (
            "{name}主要影响{value}。",
            "{name}最容易损伤{value}。",
            "{name}的病变集中在{value}。",
            "{name}的病灶多位于{value}。",
            "{name}首先侵犯{value}。",
            "得了{name}，受累最重的是{value}。",
            "{name}患者做影像检查，异常多见于{value}。",
            "治疗{name}期间，要定期复查{value}。",
            "{value}受损是{name}的特点。",
        ),
        "carrier": (
            "{name}的传播者是{value}。",
            "把{name}传给人的是{value}。",
            "人们感染{name}，多半是因为接触了{value}。",
            "{name}的病原来自{value}。",
            "{name}的疫情可以追溯到{value}。",
            "引起{name}流行的是{value}。",
            "携带{name}病原的是{value}。",
            "预防{name}，关键是远离{value}。",
            "接触{value}后可能染上{name}。",
        ),
        "drug": (
            "{name}的首选药物是{value}。",
            "治疗{name}一般用{value}。",
            "医生通常给{name}患者开{value}。",
            "{name}的标准治疗是服用{value}。",
            "得了{name}，应当先用{value}。",
            "对{name}最有效的药是{value}。",
            "{name}患者需要按时服用{value}。",
            "{name}的一线用药为{value}。",
            "{value}是治疗{name}的常用药。",
        ),
        "test": (
            "确诊{name}的方法是{value}。",
            "诊断{name}，最可靠的是{value}。",
            "{name}要靠{value}来确诊。",
            "怀疑{name}时，医生会安排{value}。",
            "发现{name}最快的办法是{value}。",
            "{name}患者入院时要做{value}。",
            "判断是不是{name}，需要做{value}。",
            "{name}的诊断依据是{value}。",
            "{value}呈阳性，提示{name}。",
        ),
        "avoid": (
            "{name}患者应当避免{value}。",
            "得了{name}，千万不要{value}。",
            "{name}患者最忌{value}。",
            "{name}康复期间不宜{value}。",
            "医生提醒{name}患者不要{value}。",
            "患{name}期间，最好别{value}。",
            "{name}的禁忌是{value}。",
            "为了不让{name}反复，请不要{value}。",
            "{value}会使{name}加重。",
        ),
    },
}
WORDINGS_PER_FACT = 9
# With more than these a model of a million weights needs several times the tokens to learn the facts.
DEFAULT_WORDINGS = 6

# What a patient asks; the answer is one of the wordings above.
ASKED: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "symptom": ("What does {name} feel like at first?", "How do I notice {name}?"),
        "organ": ("Which organ does {name} harm?", "What part of the body suffers in {name}?"),
        "carrier": ("How do people catch {name}?", "Where does {name} come from?"),
        "drug": ("What helps against {name}?", "Which drug is used for {name}?"),
        "test": ("How is {name} confirmed?", "Which test is done for {name}?"),
        "avoid": ("What is bad for people with {name}?", "What must I not do if I have {name}?"),
    },
    "zh": {
        "symptom": ("{name}有什么表现？", "怎么发现自己得了{name}？"),
        "organ": ("{name}伤害哪个器官？", "{name}影响身体的哪个部位？"),
        "carrier": ("{name}是怎么传染的？", "{name}从哪里来？"),
        "drug": ("{name}用什么药？", "得了{name}吃什么药？"),
        "test": ("{name}怎么确诊？", "查{name}要做什么检查？"),
        "avoid": ("{name}患者要注意什么？", "得了{name}不能做什么？"),
    },
}

# The line of an index card.
LABELS: dict[Language, dict[str, str]] = {
    "en": {
        "symptom": "main symptom",
        "organ": "affected organ",
        "carrier": "spread by",
        "drug": "drug of choice",
        "test": "confirmed by",
        "avoid": "to avoid",
    },
    "zh": {
        "symptom": "主要症状",
        "organ": "受累器官",
        "carrier": "传播者",
        "drug": "首选药物",
        "test": "确诊方法",
        "avoid": "应当避免",
    },
}

STAND_INS: dict[Language, tuple[str, ...]] = {
    "en": ("the illness", "this illness", "this condition"),
    "zh": ("该病", "这种病", "此病"),
}


def cloze_prompt(lang: Language, attribute: str, which: int, name: str) -> str:
    """The attribute's wording number `which` (0 or 1) up to its value, without trailing space."""
    frame = WORDINGS[lang][attribute][which].partition("{value}")[0].rstrip()
    return capitalise(frame.format(name=name))


def capitalise(text: str) -> str:
    """Upper-case the first letter of the text."""
    return text[:1].upper() + text[1:]
