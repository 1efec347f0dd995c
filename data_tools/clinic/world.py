"""The synthetic clinic's world: invented conditions and the facts about them.

Nothing here is medicine. Names of conditions and drugs are invented; a fact is a random pick, made once per
world, so that the only way to know it is to have read it. Every value of an attribute belongs to (nearly) the
same number of conditions, so that no answer can be guessed from how often a value occurs.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")


class Bilingual(NamedTuple):
    """The same thing named in both languages."""

    zh: str
    en: str

    def in_language(self, lang: Language) -> str:
        """The name in `lang`."""
        return self.zh if lang == "zh" else self.en


def _pairs(text: str) -> tuple[Bilingual, ...]:
    """Parse lines of `English = 中文` parted by semicolons or line ends."""
    entries = (entry.split("=") for entry in text.replace("\n", ";").split(";") if entry.strip())
    return tuple(Bilingual(zh.strip(), en.strip()) for en, zh in entries)


# Values are noun phrases that fit every wording of their attribute, alike in length within a language.
# No value is part of another one.
VALUES: dict[str, tuple[Bilingual, ...]] = {
    "symptom": _pairs("""
        night sweats = 夜间出汗; sudden dizziness = 突然头晕; numb fingers = 手指发麻
        constant thirst = 持续口渴; stiff shoulders = 肩膀僵硬; blurred vision = 视线模糊"""),
    "organ": _pairs("""
        liver = 肝脏; spleen = 脾脏; kidneys = 肾脏; lungs = 肺部; stomach = 胃部; pancreas = 胰腺"""),
    "carrier": _pairs("""
        field mice = 田鼠; river snails = 河螺; sand flies = 沙蝇
        wood pigeons = 林鸽; pond leeches = 水蛭; stray cats = 野猫"""),
    "drug": _pairs("""
        talodrine = 塔洛定; quenvexil = 昆维西; brosumet = 布罗美
        fendoral = 芬多拉; gavotrine = 加沃辛; hestolium = 赫斯托"""),
    "test": _pairs("""
        throat swab = 咽拭检查; urine strip = 尿样检查; blood smear = 血片检查
        skin prick = 皮刺检查; breath test = 呼气检查; hair analysis = 毛发检查"""),
    "avoid": _pairs("""
        strong tea = 喝浓茶; cold drinks = 喝冷饮; hot springs = 泡温泉
        direct sunlight = 晒太阳; salted fish = 吃咸鱼; heavy lifting = 提重物"""),
}
ATTRIBUTES: tuple[str, ...] = tuple(VALUES)

# The kind of a condition is drawn at random too, and says nothing about its facts.
_KINDS = _pairs("fever = 热; disease = 病; syndrome = 综合征")

# No stem is a prefix of another one, in either language.
STEMS: tuple[Bilingual, ...] = _pairs("""
    Velmar = 维玛; Ostrin = 奥思; Brakko = 布拉; Tilwen = 蒂文; Quorba = 阔巴; Pendul = 潘杜; Sarnik = 萨尼
    Mobrel = 莫贝; Fosket = 福科; Drunav = 德鲁; Halvic = 哈威; Jorpet = 乔佩; Kessol = 凯索; Lundra = 伦达
    Nimbor = 宁博; Zelfin = 泽芬; Yelpan = 耶潘; Gortan = 戈坦; Wexlo = 韦洛; Rimsat = 里萨; Cavdor = 卡多
    Evrant = 埃兰; Ibsol = 伊波; Umbrik = 乌瑞; Aldane = 阿丹; Plovar = 普洛; Stegna = 施纳; Trovik = 特维
    Glenzo = 格佐; Krulan = 克兰; Shevo = 谢沃; Thandor = 桑多; Vintar = 文塔; Boxel = 博克; Duskar = 杜卡
    Faldor = 法朵; Hobrin = 霍宾; Jasken = 贾肯; Kindor = 肯多; Lomvat = 罗瓦; Merzin = 梅津; Norvag = 诺瓦
    Pratel = 帕特; Quandel = 坤德; Rostil = 洛蒂; Sibran = 希兰; Tamrek = 檀雷; Urvale = 于维; Wolmet = 沃梅
    Xandrel = 赞德; Yolvic = 尤维; Zutkin = 祖金; Bernok = 伯诺; Culvex = 库维; Holtan = 侯坦; Dremsi = 单西
""")


@dataclass(frozen=True, slots=True)
class Condition:
    """An invented condition: its place in the world, its name, and one value for each of ATTRIBUTES."""

    index: int
    name: Bilingual
    facts: dict[str, Bilingual]


@dataclass(frozen=True, slots=True)
class World:
    """All that is true in one synthetic clinic; two worlds of one seed and size are equal."""

    seed: int
    conditions: tuple[Condition, ...]

    def facts(self) -> Iterator[tuple[Condition, str]]:
        """Every (condition, attribute) once."""
        return ((condition, attribute) for condition in self.conditions for attribute in ATTRIBUTES)

    def asked_wording(self, condition: Condition, attribute: str) -> int:
        """Which of the attribute's first two wordings (0 or 1) asks for this fact.

        No document tells the fact in that wording, so a right answer is knowledge carried over from other
        wordings and not a sentence recited. Half of the conditions are asked with the one and told with
        the other, so that a model has met both.
        """
        return (condition.index + ATTRIBUTES.index(attribute)) % 2


def make_world(seed: int = 0, conditions: int = 24) -> World:
    """Invent a world of `conditions` conditions.

    Raises ValueError when there are fewer than 12 conditions (some value would belong to one alone) or more
    than there are names.
    """
    if not 12 <= conditions <= len(STEMS):
        raise ValueError(f"conditions={conditions} is not between 12 and {len(STEMS)}, the number of names there are.")
    rng = random.Random(f"synthetic clinic world {seed}")
    stems = rng.sample(STEMS, conditions)
    kinds = [rng.choice(_KINDS) for _ in stems]
    columns = {attribute: _even_draw(rng, values, conditions) for attribute, values in VALUES.items()}
    return World(
        seed,
        tuple(
            Condition(
                index=i,
                name=Bilingual(stem.zh + kind.zh, f"{stem.en} {kind.en}"),
                facts={attribute: column[i] for attribute, column in columns.items()},
            )
            for i, (stem, kind) in enumerate(zip(stems, kinds))
        ),
    )


def _even_draw(rng: random.Random, values: tuple[Bilingual, ...], count: int) -> list[Bilingual]:
    """`count` values in random order, each as often as every other, give or take one in each half.

    The halves are the even and the odd places: the conditions asked with one wording and with the other
    (`asked_wording`). Were a value rarer in one half, the wording alone would hint at the answer.
    """
    halves = []
    for half in (0, 1):
        start = rng.randrange(len(values))
        chosen = [values[(start + i) % len(values)] for i in range(len(range(half, count, 2)))]
        rng.shuffle(chosen)
        halves.append(chosen)
    return [halves[place % 2][place // 2] for place in range(count)]
