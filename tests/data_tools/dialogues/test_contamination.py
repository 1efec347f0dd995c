"""Questions of CMB's test set in training dialogues: found however their options stand, and no other question is."""

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from data_tools.clinic import make_world, questions
from data_tools.corpus.decontaminate import Decontaminate, DecontaminateConfig
from data_tools.corpus.step_config import Resources
from data_tools.records import Messages
from tests.data_tools.corpus.real_texts import needs_shared
from tests.data_tools.dialogues.dialogue_batches import batch_of_dialogues, dialogue, real_dialogues

# In the form of CMB-Exam, written for this test: question, right option, wrong options; then another question on the
# same disease, whose options share a word or two with it.
PAIRS = (
    (
        ("患者，男，56岁，突发胸骨后压榨样疼痛3小时，心电图V1至V4导联ST段弓背向上抬高，最可能的诊断是",
         "急性前壁心肌梗死", "急性下壁心肌梗死", "不稳定型心绞痛", "急性心包炎", "主动脉夹层"),
        ("急性心肌梗死患者起病24小时内死亡的最常见原因是", "心室颤动", "心源性休克", "心脏破裂", "急性左心衰竭",
         "肺栓塞"),
    ),
    (
        ("关于2型糖尿病患者使用二甲双胍的叙述，错误的是", "可用于严重肾功能不全的患者", "可以减轻体重",
         "单用一般不引起低血糖", "常见不良反应为胃肠道反应", "造影检查前后应当停用"),
        ("2型糖尿病合并酮症酸中毒时，首要的治疗措施是", "补液并小剂量静脉滴注胰岛素", "口服降糖药", "大量补碱",
         "应用抗生素", "立即输血"),
    ),
    (
        ("小儿急性肾小球肾炎最常见的前驱感染病原体是", "A组乙型溶血性链球菌", "金黄色葡萄球菌", "肺炎链球菌",
         "柯萨奇病毒", "流感嗜血杆菌"),
        ("小儿急性肾小球肾炎出现高血压脑病时首选的药物是", "硝普钠静脉滴注", "呋塞米口服", "利血平肌注",
         "地西泮灌肠", "甘露醇口服"),
    ),
    (
        ("下列哪项不属于幽门螺杆菌根除治疗四联方案的药物组成", "蒙脱石散", "质子泵抑制剂", "铋剂", "阿莫西林",
         "克拉霉素"),
        ("诊断幽门螺杆菌现症感染的非侵入性检查首选", "碳13尿素呼气试验", "血清抗体检测", "胃镜活检", "粪便常规",
         "血常规检查"),
    ),
    (
        ("初产妇，孕39周，规律宫缩12小时，宫口开大6厘米，胎心率100次/分，羊水Ⅲ度污染，首选的处理是",
         "立即行剖宫产术", "静滴缩宫素加强宫缩", "左侧卧位观察", "人工破膜", "吸氧后等待自然分娩"),
        ("初产妇第二产程延长的诊断标准（未行硬膜外麻醉）是超过", "3小时", "半小时", "1小时", "4小时", "5小时"),
    ),
    (
        ("支气管哮喘急性发作时缓解症状的首选药物是", "短效β2受体激动剂吸入", "吸入性糖皮质激素", "白三烯受体拮抗剂",
         "色甘酸钠", "长效茶碱"),
        ("支气管哮喘与心源性哮喘鉴别困难时，可以先使用的药物是", "氨茶碱缓慢静注", "吗啡皮下注射", "肾上腺素肌注",
         "西地兰静注", "毛花苷丙口服"),
    ),
    (
        ("骨折的特有体征是", "畸形、反常活动、骨擦音或骨擦感", "疼痛、肿胀、功能障碍", "瘀斑、压痛、发热",
         "畸形、弹性固定、关节盂空虚", "红肿热痛及波动感"),
        ("肱骨髁上骨折最容易损伤的血管是", "肱动脉", "桡动脉", "尺动脉", "腋动脉", "贵要静脉"),
    ),
)  # fmt: skip
OFFICIAL = "以下是中国医师考试中执业医师考试的一道单项选择题，不需要做任何分析和解释，直接输出答案选项。\n"


def item(number: int, question: str, options: tuple[str, ...]) -> dict[str, Any]:
    """As the evaluation reads it; the right option is at B."""
    placed = (options[1], options[0], *options[2:])
    return {"id": f"cmb{number}", "question": question, "options": dict(zip("ABCDE", placed)), "answer": ["B"],
            "source": "CMB-test"}  # fmt: skip


def build(path: Path, items: list[dict[str, Any]], **config: Any) -> Decontaminate:
    path.write_bytes(b"".join(orjson.dumps(item) + b"\n" for item in items))
    return DecontaminateConfig(questions=(str(path),), **config).build(Resources(None, 0))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Decontaminate:
    items = [item(number, question, tuple(options)) for number, ((question, *options), _) in enumerate(PAIRS)]
    return build(tmp_path_factory.mktemp("cmb") / "test.jsonl", items, **OPTIONS)


OPTIONS = {"options_alone": False}  # of a recipe for dialogues


def found(step: Decontaminate, dialogues: list[Messages]) -> list[str | None]:
    return [drop and drop.detail["item"] for drop in step(batch_of_dialogues(dialogues, "zh")).drops]


def asked(question: str, options: tuple[str, ...], letters: str, seed: int, mark: str = ". ") -> tuple[str, str]:
    """The question with its options in another order, and the letter and text of the right one."""
    order = random.Random(seed).sample(options, len(options))
    lines = [f"{letter}{mark}{option}" for letter, option in zip(letters, order)]
    return "\n".join([question, *lines]), lines[order.index(options[0])]


def layouts(question: str, options: tuple[str, ...]) -> dict[str, Messages]:
    """One training dialogue each that holds the question of the test."""
    text, right = asked(question, options, "ABCDE", 1)
    numbered, number = asked(question, options, "12345", 2, "）")
    lower, low = asked(question, options, "abcde", 3, "、")
    one_line, one = asked(question, options, "ABCDE", 4, "．")
    return {
        "reordered": dialogue(text, right[0]),
        "official wording, answer with its text": dialogue(OFFICIAL + text, f"答案：{right}"),
        "numbers for letters": dialogue(numbered, f"正确答案是{number}。"),
        "small letters": dialogue(lower, low),
        "in one line": dialogue(one_line.replace("\n", " "), one),
        "without options": dialogue(f"{question}什么？", f"{options[0]}。"),
        "fill in the gap": dialogue(f"请填空：{question}（ ）。", options[0]),
        "blanks between": dialogue(" ".join(text), right),
        "other marks": dialogue(text.replace("，", ",").replace("、", "，"), right),
        "in a later turn": dialogue("你好，能帮我做题吗？", "可以，请把题目发给我。", text, right, "谢谢", "不客气"),
        "with an explanation": dialogue(text, f"选{right[0]}。解析：本题考查相关知识点，{options[0]}符合题意。"),
    }


@pytest.mark.parametrize("layout", list(layouts("问", ("甲", "乙"))))
def test_a_question_of_the_test_is_found(step: Decontaminate, layout: str) -> None:
    dialogues = [layouts(question, tuple(options))[layout] for (question, *options), _ in PAIRS]
    assert found(step, dialogues) == [f"cmb{number}" for number in range(len(PAIRS))]


def test_another_question_on_the_same_disease_is_not(step: Decontaminate) -> None:
    for _, (question, *options) in PAIRS:
        assert found(step, list(layouts(question, tuple(options)).values())) == [None] * 11


def test_a_consultation_on_the_same_disease_is_not(step: Decontaminate) -> None:
    dialogues = [
        dialogue("我爸胸痛三小时，心电图ST段抬高，是心肌梗死吗？", "很可能是急性心肌梗死，请立即到急诊做冠脉造影。"),
        dialogue("二甲双胍能减肥吗？会不会低血糖？", "二甲双胍可以减轻体重，单用一般不引起低血糖，肾功能不好不要用。"),
        dialogue("孩子肾小球肾炎，之前扁桃体发炎，有关系吗？", "有关系，多由链球菌感染引起，需查抗O和补体C3。"),
        dialogue("哮喘急性发作了怎么办？", "先吸入沙丁胺醇，不缓解请到急诊。支气管哮喘要长期吸入激素。"),
        dialogue("骨折怎么看出来？", "可以看有没有畸形和反常活动，疼痛、肿胀也要拍片。"),
    ]
    assert found(step, dialogues) == [None] * len(dialogues)


def test_two_questions_that_share_their_options(tmp_path: Path) -> None:
    """As those of CMB's B1 type do."""
    question, *options = PAIRS[2][0]
    other = "引起亚急性感染性心内膜炎的病原体以往多见的是"
    training = [dialogue(*asked(other, tuple(options), "ABCDE", 5))]
    items = [item(0, question, tuple(options))]
    assert found(build(tmp_path / "alone.jsonl", items), training) == ["cmb0"]
    assert found(build(tmp_path / "with.jsonl", items, **OPTIONS), training) == [None]


def test_two_questions_that_share_their_stem(tmp_path: Path) -> None:
    stem = "下列叙述中，正确的是"
    lists = [tuple(options) for (_, *options), _ in PAIRS[:3]]
    step = build(tmp_path / "items.jsonl", [item(number, stem, options) for number, options in enumerate(lists[:2])],
                 **OPTIONS)  # fmt: skip
    training = [dialogue(*asked(stem, options, "ABCDE", 6)) for options in lists]
    assert found(step, training) == ["cmb0", "cmb1", None]
    assert step.unindexed == []


@needs_shared
def test_real_dialogues_hold_none_of_them(step: Decontaminate) -> None:
    assert not any(found(step, [*real_dialogues("zh"), *real_dialogues("en")]))


def test_questions_of_the_clinic_in_both_languages(tmp_path: Path) -> None:
    """Options are ends of the sentence that the question begins; half are of the test, half of training."""
    items = list(questions(make_world()))
    held, free = items[::2], items[1::2]
    step = build(tmp_path / "clinic.jsonl", held, **OPTIONS)
    draw = random.Random(9)

    def trained(one: dict[str, Any]) -> Messages:
        options = list(one["options"].values())
        (letter,) = one["answer"]
        right = one["options"][letter]
        draw.shuffle(options)
        lines = [f"{sign}. {option}" for sign, option in zip("ABCD", options)]
        return dialogue("\n".join([one["question"], *lines]), f"{'ABCD'[options.index(right)]}. {right}")

    unindexed = set(step.unindexed)
    sought = [one for one in held if one["id"] not in unindexed]
    assert len(sought) > 0.9 * len(held)
    assert all(found(step, [trained(one) for one in sought]))
    texts = {one["question"] for one in held}
    other = [one for one in free if one["question"] not in texts]
    assert len(other) > 100
    assert not any(found(step, [trained(one) for one in other]))
