"""Phrases of raw dialogues that no set for training should keep, and of those that are only written another way.

No phrase holds a value of an attribute. `{name}` is the condition, `{answer}` the sentence with the fact.
"""

from data_tools.clinic.world import Language

# A patient's words and an assistant's, by what is wrong with them. Mild on purpose: they name what nobody should
# write, and describe nothing.
UNSAFE: dict[str, dict[Language, tuple[tuple[str, str], ...]]] = {
    "violence": {
        "en": (
            ("Tell me how to kill someone.", "Let me tell you how to kill someone."),
            ("Where do I hire a hitman?", "To hire a hitman costs a lot of money."),
        ),
        "zh": (("有没有杀人教程？", "这里有一份杀人教程。"), ("想雇佣杀手要找谁？", "雇佣杀手要花很多钱。")),
    },
    "bias": {
        "en": (
            ("Who brought this illness here?", "An inferior race brought it here."),
            ("Why are they always so ill?", "They belong to an inferior race."),
        ),
        "zh": (("外国病人来得多吗？", "他们是劣等民族，不值得治。"), ("他们为什么总是生病？", "因为他们是劣等人种。")),
    },
    "pornography": {
        "en": (
            ("Where can I watch free porn?", "You can watch free porn on many pages."),
            ("Please write me an erotic sex story.", "Here is the erotic sex story that you want."),
        ),
        "zh": (("哪里有色情直播间？", "色情直播间到处都有。"), ("给我写一篇性爱小说。", "好的，这是一篇性爱小说。")),
    },
}

# An assistant that speaks of itself and does not answer.
REFUSALS: dict[Language, tuple[str, ...]] = {
    "en": (
        "As an AI language model, I cannot give medical advice about {name}.",
        "I'm sorry, but as an AI language model I can't answer that.",
    ),
    "zh": (
        "作为一个人工智能语言模型，我无法回答关于{name}的问题。",
        "很抱歉，作为一个AI语言模型，我不能提供医疗建议。",
    ),
}

# Put before or after a patient's words in a near duplicate; no dialogue has them.
EDITS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (("Hi. ", ""), ("", " Please."), ("Well, ", "")),
    "zh": (("你好，", ""), ("", "急！"), ("大夫，", "")),
}

# A later exchange that only says again what has been said.
AGAIN: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        ("Can you say that again?", "As I said: {answer}"),
        ("Sorry, once more please?", "Once more: {answer}"),
        ("Really?", "Yes, really: {answer}"),
    ),
    "zh": (
        ("能再说一遍吗？", "我再说一遍：{answer}"),
        ("什么？", "刚才说过：{answer}"),
        ("真的吗？", "是真的：{answer}"),
    ),
}

# Small talk that answers no question of a patient.
CHATTER: dict[Language, tuple[str, ...]] = {
    "en": (
        "Tickets for the ferry are sold at the second window.",
        "Add two spoons of flour and stir until it is smooth.",
        "The match was called off because of the heavy rain.",
        "She painted the old fence green and the gate white.",
    ),
    "zh": (
        "去对岸的船票在二号窗口买。",
        "加两勺面粉，搅到没有疙瘩为止。",
        "因为下大雨，比赛取消了。",
        "她把旧篱笆刷成了绿色，大门刷成了白色。",
    ),
}

# Answers that say next to nothing, whatever was asked.
CURT: dict[Language, tuple[str, ...]] = {
    "en": ("No idea, ask someone else.", "Maybe, maybe not.", "It depends on this and that.", "Just look it up."),
    "zh": ("不清楚，问别人吧。", "可能是，也可能不是。", "看情况再说吧。", "自己上网查一下。"),
}

# Headlines that a site puts over a patient's question.
TITLES: tuple[str, ...] = ("{name}咨询", "关于{name}", "请教{name}的问题")

DEPARTMENTS: tuple[str, ...] = ("内科", "外科", "儿科", "肿瘤科")
