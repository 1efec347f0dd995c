"""Unsafe requests that no list of terms can hold: who asks how to kill a person, make a bomb, buy a drug, in whatever
words. Our own; each says by its words that a person is meant, for doctors ask how to kill a fungus.
"""

# ruff: noqa: E501  (a pattern reads better on one line)
from collections.abc import Mapping

from data_tools.dialogues.unsafe_rules import Rule
from data_tools.dialogues.unsafe_words import Category

_HOW_ZH = "(?:怎么|怎样|如何|咋|教我|告诉我)"
_PERSON_ZH = (
    "(?:别人|一个人|某个人|某人|人不|他|她|老公|老婆|妻子|丈夫|男友|女友|同学|同事|邻居|老板|老师|医生|父母|前任|仇人)"
)
_HOW = "(?:how (?:to|do i|can i|could i|would i|should i)|ways? to|steps to|best way to|teach me (?:how )?to|help me)"
_PERSON = (
    r"(?:(?:my|a|an|the|some|another|this|that|his|her) )?(?:\w+ )?(?:wife|husband|boss|neighbou?r|mother|father|brother"
    r"|sister|girlfriend|boyfriend|ex|person|man|woman|someone|somebody|people|kid|child|co-?worker|roommate|teacher"
    r"|classmate|nurse)\b"
)
_DRUG = r"(?:cocaine|heroin|crystal meth|meth|methamphetamine|crack|ecstasy|mdma|lsd|fentanyl|ghb|rohypnol)\b"
_NOT_CARE = r"(?! (?:withdrawal|addict|overdose|abuse|use\b|user|rehab|detox|treatment|help|test|out\b|intoxication))"
_GROUP_ZH = (
    "(?:黑人|白人|女人|男人|女生|外地人|农村人|乡下人|回族|维族|藏族|穆斯林|犹太人|同性恋|残疾人|河南人|东北人|日本人"
    "|印度人|非洲人)"
)
_GROUP = (
    r"\b(?:blacks|black people|jews|jewish people|muslims|gays|gay people|homosexuals|lesbians|women|immigrants"
    r"|asians|mexicans|arabs|africans|refugees|trans people|disabled people)"
)

PATTERNS: Mapping[Category, Mapping[str, Rule]] = {
    "pornography": {
        "asks for erotica": Rule(
            "写|讲|编|来",
            ("(?:写|讲|编|来)[^，。！？\n]{0,8}(?:床戏|黄文|肉文|黄色小说|色情小说|情色故事|黄色故事|激情戏)",),
        ),
        "asks for pornography": Rule(
            "黄色|成人|色情|黄片",
            (
                "(?:求|发我|发个|推荐|分享|哪里有|给我)[^，。！？\n]{0,6}(?:黄色|成人|色情)(?:片(?![剂状量块样])|电影|视频|网站|资源)"
                "|(?:黄片|(?:黄色|成人|色情)(?:片子?|电影|视频|网站))[^，。！？\n]{0,3}(?:种子|网址|下载|链接)",
            ),
        ),
        "offers a prostitute": Rule(
            "小姐|美女|学生妹", ("(?:小姐|美女|学生妹)[^，。！？\n]{0,4}(?:陪睡|包夜|上门服务|全套服务)",)
        ),
        "asks for erotica (en)": Rule(
            "explicit|erotic|dirty|porno|steamy|nsfw",
            (
                r"\b(?:write|tell|give|generate)\b[^.?!\n]{0,25}\b(?:explicit|erotic|dirty|porno\w*|steamy|nsfw)"
                r" (?:sex(?:ual)? )?(?:story|stories|scene|fiction|roleplay)",
            ),
        ),
        "asks for naked pictures (en)": Rule(
            "nudes of|naked p|sex tape",
            (
                r"\b(?:nudes|naked (?:pics?|pictures|photos)|sex tapes?) of (?:\w+ ){0,2}"
                r"(?:girls?|boys?|child|children|kids?|teens?|minors?)\b",
            ),
        ),
    },
    "violence": {
        "asks how to kill": Rule(
            "弄死|杀死|毒死|捅死|砍死|掐死|勒死|闷死|杀掉|干掉|毒害|中毒|死去|死掉|暴毙",
            (
                f"{_HOW_ZH}[^，。！？\n]{{0,6}}(?:弄死|杀死|毒死|捅死|砍死|掐死|勒死|闷死|杀掉|干掉|毒害){_PERSON_ZH}"
                f"|{_HOW_ZH}让{_PERSON_ZH}[^，。！？\n]{{0,4}}(?:中毒|死去|死掉|暴毙)",
            ),
        ),
        "kills and hides it": Rule(
            "不被|不会被",
            ("(?:杀|弄死|毒死|下毒|下药)[^，。！？\n]{0,12}不(?:被|会被)[^，。！？\n]{0,3}(?:发现|查到|抓)",),
        ),
        "threatens": Rule(
            "捅了|捅死|砍了|砍死|杀了|杀死",
            (f"我要?(?:去|拿刀|想拿刀)[^，。！？\n]{{0,2}}(?:捅|砍|杀)(?:了|死)[^，。！？\n]{{0,3}}{_PERSON_ZH}",),
        ),
        "asks how to kill (en)": Rule(
            "kill|murder|strangle|poison|stab|suffocate|drown|torture",
            (rf"\b{_HOW} (?:kill|murder|strangle|poison|stab|suffocate|drown|torture) {_PERSON}(?!'s| lice)",),
        ),
        "kills and hides it (en)": Rule(
            "without getting|without being|without leaving|without a trace|without any trace|without trace|without evidence|without any evidence",
            (
                r"\b(?:kill|murder|poison|strangle|stab)\w*\b[^.?!\n]{0,40} without (?:getting|being) caught"
                r"|\b(?:kill|murder|poison|strangle|stab)\w*\b[^.?!\n]{0,40} without (?:leaving )?(?:a |any )?(?:trace|evidence)",
            ),
        ),
        "asks how to torture (en)": Rule("torture", (r"\btorture (?:instructions|tutorial|guide)",)),
    },
    "hate": {
        "despises a group": Rule(
            "低贱|智商低|智力低|低等|劣等|该死|去死|小偷|下贱|垃圾|不配|没脑子|肮脏|猪狗|恐怖分子",
            (
                f"{_GROUP_ZH}(?:都|全都|就是|天生|本来就)[^，。！？\n]{{0,6}}"
                "(?:低贱|智商低|智力低|低等|劣等|该死|去死|小偷|下贱|垃圾|不配|没脑子|肮脏|猪狗|恐怖分子)",
            ),
        ),
        "despises a group (en)": Rule(
            "less intelligent|inferior|subhuman|animals|vermin|parasites|filthy|disgusting|criminals|thieves|terrorists|put to death|die|killed|exterminated|stupid|evil|monkeys|apes",
            (
                rf"{_GROUP} (?:are|should|deserve|must)(?: (?:all|just|be|to|naturally|genetically|really)){{0,3}}"
                r" (?:less intelligent|inferior(?! to| vena| wall)|subhuman|animals|vermin|parasites|filthy|disgusting|criminals|thieves|terrorists"
                r"|put to death|die|killed|exterminated|stupid|evil|monkeys|apes)\b",
            ),
        ),
    },
    "self-harm": {
        "asks for the easiest death": Rule(
            "死法|自杀方式|自杀方法|自尽方法|怎么死|怎么去死",
            (
                "(?:哪种|什么|有没有|哪个)[^，。！？\n]{0,4}(?:死法|自杀方式|自杀方法|自尽方法)"
                "[^，。！？\n]{0,4}(?:舒服|最快|不疼|不痛|无痛|没痛苦|没有痛苦)"
                "|怎么(?:去)?死[^，。！？\n]{0,4}(?:不疼|不痛|舒服|比较快|最快|没痛苦|没有痛苦)",
            ),
        ),
        "asks for the easiest death (en)": Rule(
            "least painful|painless|easiest|quickest|fastest",
            (
                r"\b(?:least painful|painless|easiest|quickest|fastest)(?: and \w+)? ways? (?:to|of) "
                r"(?:die|dying|end(?:ing)? (?:my|your) life|kill(?:ing)? (?:my|your)self|commit(?:ting)? suicide|suicide)",
            ),
        ),
    },
    "weapons-and-drugs": {
        "asks how to make one": Rule(
            "炸弹|炸药|雷管|燃烧瓶|冰毒|海洛因|枪支|手枪|土枪",
            (
                f"{_HOW_ZH}[^，。！？\n]{{0,8}}(?:做|造|制作|制造|提炼|合成|自制)[^，。！？\n]{{0,3}}"
                "(?:炸弹|炸药|雷管|燃烧瓶|冰毒|海洛因|枪支|手枪|土枪)",
            ),
        ),
        "asks where to buy one": Rule(
            "枪|手枪|子弹|冰毒|海洛因|毒品|摇头丸|迷药|炸药|雷管",
            (
                "(?:哪里|哪儿|哪能|去哪|怎么|怎样|在哪)[^，。！？\n]{0,5}(?:买到?|购买|搞到|弄到)[^，。！？\n]{0,2}"
                "(?:枪$|枪[，。！？\n支]|手枪|子弹|冰毒|海洛因|毒品|摇头丸|迷药|炸药|雷管)",
            ),
        ),
        "asks how to make one (en)": Rule(
            "bomb|explosive|nerve agent|sarin|ricin|cocaine|heroin|crystal meth|meth|crack|ecstasy|mdma|lsd|fentanyl|ghb|rohypnol",
            (
                rf"\b(?:{_HOW}|instructions (?:for|to|on)|recipe for|guide to) (?:\w+ ){{0,3}}?"
                r"(?:make|making|build|building|cook|cooking|synthesi[sz]e|synthesi[sz]ing|construct|constructing) (?:\w+ ){0,3}?"
                rf"(?:(?<!bath )bombs?\b|explosives?\b|explosive device|nerve agent|sarin\b|ricin\b|{_DRUG}){_NOT_CARE}",
            ),
        ),
        "asks where to buy one (en)": Rule(
            "cocaine|heroin|crystal meth|meth|crack|ecstasy|mdma|lsd|fentanyl|ghb|rohypnol|guns without|untraceable gun|illegal gun",
            (
                r"\b(?:where|how) (?:can i |do i |could i |to )(?:buy|order|score) (?:\w+ ){0,2}?"
                rf"(?:{_DRUG}{_NOT_CARE}|guns? without|untraceable guns?|illegal guns?)",
            ),
        ),
    },
}
"""By category, a name that a decision can show (what the pattern matched may be private) and the pattern, case aside."""
