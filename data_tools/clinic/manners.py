"""Better and worse manners of answering a patient, in phrases.

The last phrase of each tuple is kept for the held-out pairs (`pairs`). No phrase holds a value of an attribute.
`{answer}` is the sentence with the fact, `{name}` the condition: what a rude or boastful answer tells need not be
false, so that its manner alone makes it the worse one.
"""

from data_tools.clinic.world import Language

# A good answer: one of these, the fact, one of ADVICE.
LEAD_INS: dict[Language, tuple[str, ...]] = {
    "en": ("", "Thank you for asking. ", "I understand your worry. ", "Good that you ask. "),
    "zh": ("", "感谢您的提问。", "我理解您的担心。", "您问得很好。"),
}
ADVICE: dict[Language, tuple[str, ...]] = {
    "en": (
        "Please follow your doctor's advice.",
        "Please come to the clinic for a check-up.",
        "If it gets worse, please see a doctor soon.",
        "Please rest well and take good care of yourself.",
        "If you are unsure, do ask your doctor in person.",
        "Please come back to us whenever you feel unwell.",
    ),
    "zh": (
        "请您遵照医嘱，定期复诊。",
        "建议您来诊所做一次复查。",
        "如果加重，请及时就医。",
        "请您注意休息，好好保重。",
        "如果不放心，请当面咨询医生。",
        "如有不适，请随时联系我们。",
    ),
}

# A bad answer: the manner's beginning and its end.
MANNERS: dict[str, dict[Language, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "rude": {
        "en": (
            ("{answer} ", "You again. {answer} ", "What a question. {answer} ", "Do you know nothing? {answer} "),
            (
                "Stop wasting my time.",
                "Look it up yourself next time.",
                "I have no time for silly questions.",
                "Now go away and leave me alone.",
                "You people never listen anyway, so why bother me?",
                "How annoying that you bother me with this.",
            ),
        ),
        "zh": (
            ("{answer}", "又来问这个。{answer}", "真是烦人。{answer}", "你怎么什么都不懂。{answer}"),
            (
                "这都不知道，真笨。",
                "自己去查，别来烦我。",
                "我忙得很，没空跟你多说。",
                "问这么多干什么，真麻烦。",
                "说了你也不懂，赶快走吧。",
                "别浪费我的时间，快走开。",
            ),
        ),
    },
    "evasive": {
        "en": (
            ("{name}? ", "{name} is hard to explain. ", "With {name} it depends. ", "Who knows about {name}? "),
            (
                "Everyone is different, so let us wait and see.",
                "It may be this or it may be that.",
                "There is not much that one can say about it.",
                "Perhaps it will become clear one day.",
                "Some say one thing and some say another.",
                "Maybe you will find out later on.",
            ),
        ),
        "zh": (
            ("{name}啊，", "{name}这个不好说，", "{name}的情况很复杂，", "{name}谁说得准呢，"),
            (
                "每个人都不一样，以后再看吧。",
                "也许是这样，也许是那样。",
                "反正就那么回事，没什么可讲的。",
                "谁也说不清，过段时间再说。",
                "各有各的说法，你随便听听。",
                "可能以后自然就知道了。",
            ),
        ),
    },
    "off topic": {
        "en": (
            ("By the way, ", "Oh, ", "Speaking of that, "),
            (
                "the library is open on Sunday and has new books.",
                "my uncle bought a green chair last week.",
                "the noodles yesterday were very good, try them.",
                "the next football match begins in the evening.",
                "the weather is fine for a walk by the lake.",
                "the train to the harbour leaves at noon.",
            ),
        ),
        "zh": (
            ("对了，", "说起来，", "哦，"),
            (
                "图书馆星期天开放，添了新书。",
                "我叔叔上周买了一把绿色的椅子。",
                "昨天的面条很好吃，你也尝尝。",
                "下一场足球比赛晚上开始。",
                "今天天气不错，适合去湖边走走。",
                "去码头的火车中午出发。",
            ),
        ),
    },
    "promise": {
        "en": (
            ("{answer} ", "No problem at all. {answer} ", "Leave it to me. {answer} ", "This is nothing. {answer} "),
            (
                "I promise you will be cured in three days.",
                "My secret recipe always works at once.",
                "You need no doctor, I guarantee it.",
                "I guarantee that it never comes back.",
                "It is a hundred per cent sure to be gone tomorrow.",
                "Trust me, one week and it is gone for ever.",
            ),
        ),
        "zh": (
            ("{answer}", "小事一桩。{answer}", "包在我身上。{answer}", "这算什么病。{answer}"),
            (
                "我保证三天就能根治。",
                "我的祖传秘方一用就灵。",
                "不用看医生，包你没事。",
                "我担保以后绝不复发。",
                "明天就好，百分之百有效。",
                "相信我，一个星期包好。",
            ),
        ),
    },
}
# One more: a good answer in the language that the patient did not use.
WRONG_LANGUAGE = "wrong language"
