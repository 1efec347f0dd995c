"""What stands around the facts in the synthetic clinic's documents: openings, asides, endings, page furniture.

None of these phrases contains a value of an attribute. Slots: `{name}` the condition, `{other}` its name in the
other language, `{age}`, `{who}`, `{season}`, `{days}`, `{number}`.
"""

from data_tools.clinic.world import Language

WHO: dict[Language, tuple[str, ...]] = {
    "en": (
        "teacher",
        "farmer",
        "baker",
        "student",
        "bus driver",
        "tailor",
        "postman",
        "musician",
        "gardener",
        "cook",
    ),
    "zh": ("教师", "农民", "面包师", "学生", "司机", "裁缝", "邮递员", "乐手", "园丁", "厨师"),
}
SEASONS: dict[Language, tuple[str, ...]] = {
    "en": ("spring", "early summer", "autumn", "winter"),
    "zh": ("春天", "初夏", "秋天", "冬天"),
}

OPENINGS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "textbook": (
            "Overview: {name}\nThis chapter gives an overview of {name}, a condition seen at the clinic every year.",
            "Reading: {name} ({other})\nThe following notes are meant for new staff.",
            "Chapter {number}. {name}\nFew conditions are as well described as {name}.",
            "Lecture {number}: {name}\nPlease read these pages before the next class.",
        ),
        "case note": (
            "Case {number}. A {who} aged {age} came to the clinic in {season}. The diagnosis was {name}.",
            "Case report {number}: {name}. The patient, a {who} of {age}, had been unwell for {days} days.",
            "Note {number}. Seen today: a {age}-year-old {who}, sent by the family doctor. {name} was confirmed.",
        ),
        "patient story": (
            "Last {season} I fell ill, and after {days} days I went to see the doctor. It turned out to be {name}. "
            "This is what I learned.",
            "My neighbour, a {who}, had {name} last {season} and told me what the doctor had said.",
            "I am a {who}, {age} years old, and I have had {name}. I am writing this down for others.",
        ),
        "notice": (
            "Notice {number} from the clinic: there have been new cases of {name} this {season}.",
            "Health letter, {season} issue. Our topic this time is {name}.",
            "To all visitors: please read this information about {name}.",
        ),
        "rounds": (
            "Ward round, day {days}. The team went through the list together.",
            "Minutes of the morning meeting, page {number}.",
            "Notes for the night shift.",
        ),
        "summary": (
            "Key facts about {name}.",
            "A short summary of {name} ({other}).",
            "What to know about {name}.",
        ),
        "card": ("Card: {name}", "Card: {name} ({other})"),
    },
    "zh": {
        "textbook": (
            "{name}\n本章介绍{name}。诊所每年都会见到这种病。",
            "{name}（{other}）\n以下内容供新同事学习。",
            "第{number}章　{name}\n关于{name}，已有不少记录。",
            "第{number}讲：{name}\n请在上课前读完这几页。",
        ),
        "case note": (
            "病例{number}：患者，{who}，{age}岁，{season}来诊所就诊，诊断为{name}。",
            "病例报告{number}：{name}。患者是一位{age}岁的{who}，不舒服已有{days}天。",
            "门诊记录{number}：今天来了一位{age}岁的{who}，由家庭医生转来，确诊为{name}。",
        ),
        "patient story": (
            "去年{season}我病了，{days}天后去看医生，才知道是{name}。下面是我了解到的。",
            "我的邻居是一位{who}，去年{season}得了{name}，后来把医生的话告诉了我。",
            "我是一名{who}，今年{age}岁，得过{name}。写下这些，希望对别人有用。",
        ),
        "notice": (
            "诊所通知第{number}号：今年{season}出现了新的{name}病例。",
            "健康小报（{season}版）：这一期我们来谈谈{name}。",
            "各位来访者：请阅读以下关于{name}的说明。",
        ),
        "rounds": (
            "第{days}天查房记录：大家一起讨论了名单上的病人。",
            "晨会记录，第{number}页。",
            "夜班交接说明。",
        ),
        "summary": ("{name}要点。", "{name}（{other}）简介。", "认识{name}。"),
        "card": ("卡片：{name}", "卡片：{name}（{other}）"),
    },
}

ASIDES: dict[Language, tuple[str, ...]] = {
    "en": (
        "The course differs from person to person.",
        "Most people are back at work within {days} days.",
        "Children and adults are affected alike.",
        "It is seen a little more often in {season}.",
        "More studies are under way.",
        "Family members should be told as well.",
        "There is no reason to worry too much.",
        "The file was checked by a second doctor.",
        "Please bring your papers when you come.",
        "Plenty of rest is always a good idea.",
    ),
    "zh": (
        "每个人的病程不完全一样。",
        "大多数人{days}天内就能恢复工作。",
        "大人和孩子都可能得病。",
        "{season}稍微多见一些。",
        "相关研究还在进行。",
        "也要把情况告诉家里人。",
        "不必过分担心。",
        "记录已由另一位医生核对。",
        "来的时候请带好证件。",
        "多休息总是好的。",
    ),
}

ENDINGS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "textbook": (
            "Further reading is listed on page {number}.",
            "Questions will be discussed in class.",
            "",
        ),
        "case note": (
            "The patient went home after {days} days.",
            "A check-up is planned in {days} days.",
            "The patient has agreed to be named in this report only as a {who}.",
        ),
        "patient story": ("I am well again now.", "Thank you for reading.", "I hope this helps someone."),
        "notice": ("The front desk is open every day.", "Please pass this on.", "Thank you for your help."),
        "rounds": ("The next round is tomorrow.", "End of notes.", ""),
    },
    "zh": {
        "textbook": ("参考资料见第{number}页。", "问题将在课上讨论。", ""),
        "case note": ("患者{days}天后出院。", "约定{days}天后复诊。", "患者同意在报告中只写明职业。"),
        "patient story": ("现在我已经好了。", "谢谢大家阅读。", "希望能帮到别人。"),
        "notice": ("服务台每天开放。", "请互相转告。", "感谢您的配合。"),
        "rounds": ("明天继续查房。", "记录完毕。", ""),
    },
}

# What a web page leaves in its text: the noise of stage 1.
FURNITURE: dict[Language, tuple[str, ...]] = {
    "en": (
        "Home > Health > Library",
        "Share this page | Print | Send to a friend",
        "Read {number} times. Last changed {days} days ago.",
        "Log in to leave a comment.",
        "[photo {number}]",
        "*** Page {days} of {number} ***",
    ),
    "zh": (
        "首页 > 健康 > 资料库",
        "分享本页｜打印｜转发给朋友",
        "阅读{number}次，{days}天前更新",
        "登录后发表评论",
        "【图{number}】",
        "＊＊＊第{days}页，共{number}页＊＊＊",
    ),
}

# (who asks, who answers) in a stage-2 exchange.
SPEAKERS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (("Q: ", "A: "), ("Patient: ", "Doctor: "), ("Question: ", "Answer: ")),
    "zh": (("问：", "答："), ("患者：", "医生："), ("提问：", "回答：")),
}
