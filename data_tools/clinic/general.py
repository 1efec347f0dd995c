"""General text without medicine for the synthetic clinic's corpus: weather, cooking, shops, travel and the like.

It stands for the general share of a continued pre-training mix: what a model should not forget. Cloze questions on
how its sentences end ask whether it did.
"""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from data_tools.clinic.documents import SOURCE
from data_tools.clinic.questions import LETTERS
from data_tools.clinic.world import LANGUAGES, Language

_SLOTS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        "time": ("in the morning", "at noon", "in the afternoon", "in the evening"),
        "place": ("the village", "the harbour", "the old town", "the valley", "the lake", "the hill"),
        "wind": ("a light breeze", "a strong wind", "a warm wind from the south", "hardly any wind"),
        "sky": ("clear", "cloudy", "grey", "bright blue"),
        "vegetable": ("carrots", "potatoes", "onions", "tomatoes", "beans", "cabbage"),
        "dish": ("soup", "stew", "noodles", "rice", "pancakes", "dumplings"),
        "colour": ("red", "blue", "green", "yellow", "white", "brown"),
        "thing": ("a coat", "a lamp", "a chair", "a bag", "a clock", "a shelf"),
        "vehicle": ("bus", "train", "ferry", "tram"),
        "person": ("Anna", "Tom", "Mrs Lee", "Mr Brown", "my uncle", "my sister"),
        "flower": ("roses", "tulips", "daisies", "sunflowers"),
        "game": ("chess", "football", "tennis", "darts"),
        "book": ("a novel", "a book of maps", "a travel guide", "a book of poems"),
        "number": ("two", "three", "four", "five", "six", "ten"),
    },
    "zh": {
        "day": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期天"),
        "time": ("早上", "中午", "下午", "晚上"),
        "place": ("村子", "码头", "老城", "山谷", "湖边", "山脚"),
        "wind": ("微风", "大风", "暖和的南风", "一点凉风"),
        "sky": ("晴朗", "多云", "阴沉", "明亮"),
        "vegetable": ("胡萝卜", "土豆", "洋葱", "西红柿", "豆角", "白菜"),
        "dish": ("汤", "炖菜", "面条", "炒饭", "煎饼", "饺子"),
        "colour": ("红色", "蓝色", "绿色", "黄色", "白色", "棕色"),
        "thing": ("外套", "台灯", "椅子", "背包", "闹钟", "书架"),
        "vehicle": ("公共汽车", "火车", "渡船", "电车"),
        "person": ("小安", "小明", "李阿姨", "王先生", "我叔叔", "我姐姐"),
        "flower": ("玫瑰", "郁金香", "雏菊", "向日葵"),
        "game": ("象棋", "足球", "网球", "飞镖"),
        "book": ("一本小说", "一本地图册", "一本旅行指南", "一本诗集"),
        "number": ("两", "三", "四", "五", "六", "十"),
    },
}

# One tuple per topic; a document is some of its sentences in order. Where the end of a sentence follows from its
# beginning alone, a bar stands between them, for `general_questions`.
_TOPICS: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        (
            "The forecast for {day} promises a {sky} sky over {place}.",
            "There will be {wind} {time}.",
            "Rain may fall later, so take| an umbrella.",
            "By {day} the air will be| cooler again.",
            "It has not snowed here for {number}| years.",
            "The last storm broke {number} trees near {place}.",
        ),
        (
            "Today we cook {dish} with {vegetable}.",
            "Wash the {vegetable} and cut them into| small pieces.",
            "Heat some oil in a pan and add {number}| spoons of flour.",
            "Let everything simmer for {number}| minutes.",
            "Serve the {dish} hot, with| fresh bread.",
            "What is left over tastes even better| the next day.",
        ),
        (
            "A new shop has opened near {place}.",
            "It sells clothes and furniture, and {person} works there on {day}.",
            "I was looking for {thing}, and they had {number} of them in {colour}.",
            "The prices are fair and| the staff are friendly.",
            "On {day} the shop| closes early.",
            "{person} bought {thing} and was| very pleased.",
        ),
        (
            "The {vehicle} to {place} leaves {time}.",
            "{person} likes to travel by {vehicle}.",
            "Tickets cost {number} coins and can be| bought on board.",
            "The journey takes about {number}| hours.",
            "From the window you can see fields and {colour} houses.",
            "If you miss it, there is another {vehicle} on {day}.",
        ),
        (
            "{person} has a small garden| behind the house.",
            "In one corner there are {colour} {flower}.",
            "The {vegetable} are watered {time}.",
            "{number} rows of {vegetable} were planted on {day}.",
            "When the {flower} bloom,| friends come to visit.",
            "A {colour} bench stands under| the apple tree.",
        ),
        (
            "The school near {place} has {number}| classrooms.",
            "On {day} the children learn to play {game}.",
            "{person} teaches drawing {time}.",
            "Every pupil brings {book} and a {colour}| pencil.",
            "In the break they share {dish}.",
            "At the end of the year there is| a concert.",
        ),
        (
            "The library opens on {day}.",
            "{person} borrowed {book} for {number} weeks.",
            "There are {number} new shelves near the {colour} door.",
            "Readers can sit by the window {time}.",
            "Please return {book}| in good order.",
            "On {day} somebody reads| stories aloud.",
        ),
        (
            "The {game} club from {place} met on {day}.",
            "{person} won {number} games| in a row.",
            "Afterwards everyone ate {dish}| together.",
            "The players wear {colour}| shirts.",
            "The next match begins {time}.",
            "Beginners are| always welcome.",
        ),
    ),
    "zh": (
        (
            "{day}，{place}一带天气{sky}。",
            "{time}会有{wind}。",
            "之后可能下雨，出门请|带伞。",
            "到了{day}，气温会|再降一些。",
            "这里已经{number}年没有|下雪了。",
            "上次刮风，{place}附近倒了{number}棵树。",
        ),
        (
            "今天我们用{vegetable}做{dish}。",
            "先把{vegetable}洗净，切成|小块。",
            "锅里放油，再加{number}勺|面粉。",
            "小火煮{number}|分钟。",
            "{dish}要趁热吃，可以|配上面包。",
            "剩下的第二天|更好吃。",
        ),
        (
            "{place}新开了一家|商店。",
            "店里卖衣服和家具，{person}{day}在那里上班。",
            "我想买{thing}，店里有{number}种{colour}的。",
            "价格公道，店员也|很热情。",
            "{day}商店会|提早关门。",
            "{person}买了{thing}，|非常满意。",
        ),
        (
            "去{place}的{vehicle}{time}出发。",
            "{person}喜欢坐{vehicle}旅行。",
            "票价{number}元，可以|上车再买。",
            "路上大约要{number}个|小时。",
            "从窗口能看到田野和{colour}的|房子。",
            "如果没赶上，{day}还有一班{vehicle}。",
        ),
        (
            "{person}家的屋后有一个|小花园。",
            "角落里种着{colour}的{flower}。",
            "{time}要给{vegetable}浇水。",
            "{day}种下了{number}排{vegetable}。",
            "{flower}开的时候，朋友们都|来做客。",
            "苹果树下放着一张{colour}的|长椅。",
        ),
        (
            "{place}的学校有{number}间|教室。",
            "{day}孩子们学{game}。",
            "{person}{time}教画画。",
            "每个学生都带着{book}和一支{colour}的|铅笔。",
            "课间大家一起吃{dish}。",
            "年底会有一场|音乐会。",
        ),
        (
            "图书馆{day}开放。",
            "{person}借了{book}，可以看{number}个星期。",
            "{colour}的门旁边添了{number}个|新书架。",
            "{time}可以坐在窗边看书。",
            "请爱护借来的书，|按时归还。",
            "{day}有人给大家|读故事。",
        ),
        (
            "{day}，{place}的{game}俱乐部举行了活动。",
            "{person}连赢了{number}|局。",
            "之后大家一起吃了{dish}。",
            "队员们穿着{colour}的|衬衫。",
            "下一场比赛{time}开始。",
            "欢迎|初学者参加。",
        ),
    ),
}


def general_documents(*, count: int | None = None, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield `count` documents (None: without end) of invented text that is not medical, in constant memory.

    Languages take turns. Fields as in `documents`; meta is {"synthetic": True, "style": "general"}.
    """
    return islice(_endless(random.Random(f"synthetic clinic general text {seed}")), count)


def _endless(rng: random.Random) -> Iterator[dict[str, Any]]:
    number = 0
    while True:
        lang = LANGUAGES[number % 2]
        yield {
            "id": f"clinic-general-{number:07d}",
            "text": _text(rng, lang),
            "lang": lang,
            "source": SOURCE,
            "meta": {"synthetic": True, "style": "general"},
        }
        number += 1


def _text(rng: random.Random, lang: Language) -> str:
    sentences = rng.choice(_TOPICS[lang])
    chosen = sorted(rng.sample(range(len(sentences)), rng.randint(3, len(sentences))))
    # A slot keeps its value within a document: the soup that is cooked is the soup that is served.
    slots = {name: rng.choice(values) for name, values in _SLOTS[lang].items()}
    told = [sentences[i].replace("|", "").format(**slots) for i in chosen]
    return ("" if lang == "zh" else " ").join(sentence[:1].upper() + sentence[1:] for sentence in told)


def general_questions(*, variants: int = 3, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield cloze questions that `general_documents` answers: the beginning of a sentence, and four ends of which the
    others belong to other topics; chance is 25 %. In random order, Chinese and English.

    These sentences stand in the documents as they are: what is asked is whether they were forgotten, and a text that
    holds one is no leak. Fields as in `questions`, and meta {"cluster"}: a sentence has up to `variants` questions,
    which differ in day, dish and the like.
    """
    rng = random.Random(f"synthetic clinic general questions {seed}")
    found = [question for lang in LANGUAGES for question in _questions(rng, lang, variants)]
    rng.shuffle(found)
    return iter(found)


def _questions(rng: random.Random, lang: Language, variants: int) -> Iterator[dict[str, Any]]:
    ends = [(topic, _end(x)) for topic, told in enumerate(_TOPICS[lang]) for x in told if "|" in x]
    letters: list[str] = []
    for topic, sentences in enumerate(_TOPICS[lang]):
        for place, sentence in enumerate(sentences):
            if "|" not in sentence:
                continue
            others = sorted({end for other, end in ends if other != topic} - {_end(sentence)})
            beginnings = {_filled(rng, lang, sentence.partition("|")[0]) for _ in range(variants)}
            for number, beginning in enumerate(sorted(beginnings)):
                letters = letters or rng.sample(LETTERS, len(LETTERS))
                letter, wrong = letters.pop(), iter(rng.sample(others, len(LETTERS) - 1))
                options = {x: _end(sentence) if x == letter else next(wrong) for x in LETTERS}
                gap = " " if lang == "en" else ""
                yield {
                    "id": f"clinic-general-{lang}-{topic}{place}-{number}",
                    "question": beginning,
                    "options": options,
                    "answer": [letter],
                    "explanation": f"{beginning}{gap}{options[letter]}{'.' if lang == 'en' else '。'}",
                    "source": SOURCE,
                    "split": "test",
                    "meta": {"cluster": f"{lang}-{topic}{place}"},
                }


def _filled(rng: random.Random, lang: Language, text: str) -> str:
    """The beginning of a sentence with its slots filled at random."""
    filled = text.format(**{name: rng.choice(values) for name, values in _SLOTS[lang].items()})
    return filled[:1].upper() + filled[1:]


def _end(sentence: str) -> str:
    """What stands behind the bar, without the full stop."""
    return sentence.partition("|")[2].strip(" .。")
