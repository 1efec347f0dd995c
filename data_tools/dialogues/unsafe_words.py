"""Terms of unsafe dialogues, by category. Our own lists: both languages, lower case, simplified, short.

The lists in common use (LDNOOBW, as in C4) hold anatomy, acts and crimes (penis, 阴道, anal, rape, suicide): here they
would throw out andrology, gynaecology, venereology, psychiatry and forensic medicine. So nothing that a patient says or
a textbook holds is in `HARD`: not 手淫, 口交, 吸毒, 自杀, 强奸, nor 制造冰毒 (ephedrine is misused for it) or 杀人
(what a poison does in classical books). What patients do say at times (常看黄片) is in `SOFT`, which counts only where
it is frequent and medicine is rare.
"""

from collections.abc import Mapping
from typing import Literal, get_args

Category = Literal["pornography", "violence", "hate", "self-harm", "weapons-and-drugs"]
CATEGORIES: tuple[Category, ...] = get_args(Category)

HARD: Mapping[Category, tuple[str, ...]] = {
    "pornography": (
        "儿童色情", "幼女色情", "萝莉资源", "幼女视频", "幼童视频", "偷拍视频出售", "偷拍资源", "骚逼", "骚穴",
        "骚货", "淫叫", "淫娃", "轮奸视频", "强奸视频", "迷奸视频", "乱伦小说", "乱伦视频", "av女优", "av在线",
        "无码av", "在线av", "裸照出售", "上门服务小姐", "同城约炮", "约炮群", "约炮软件", "同城小姐", "包夜小姐",
        "小姐包夜", "性爱小说", "性爱视频在线", "黄色小说在线", "色情直播间", "child porn", "child pornography",
        "kiddie porn", "underage porn", "preteen porn", "preteen girl pics", "jailbait pics", "free porn videos",
        "watch free porn", "live sex show", "live sex cams", "hot milf", "horny milf", "hot slut", "horny slut",
        "dirty slut", "wet pussy", "tight pussy", "suck my cock", "suck my dick", "ride my cock", "fuck my pussy",
        "fuck me hard", "fucked her hard", "cum on my face", "rape porn", "incest porn", "incest sex story",
        "erotic sex story", "erotic sex stories", "upskirt video", "hookup tonight", "sexy singles near you",
    ),
    "violence": (
        "杀人不留痕迹", "怎样杀人", "杀人方法", "杀人教程", "杀人的方法", "怎么杀人不", "分尸教程", "如何分尸",
        "怎么分尸", "分尸视频", "斩首视频", "虐杀视频", "虐猫视频", "血腥视频", "下毒不被发现", "毒死人不被发现",
        "毒死人的药哪里", "雇凶杀人", "买凶杀人", "雇佣杀手", "杀手服务", "迷药出售", "迷药购买", "哪里买迷药",
        "听话水", "乖乖水", "拍肩迷药", "灭你满门", "杀你全家", "杀了你全家", "打死你全家", "砍死你全家",
        "how to kill someone", "how to kill a person", "how to murder", "how to poison someone",
        "get away with murder", "hire a hitman", "hitman for hire", "dispose of a body", "how to dismember",
        "beheading video", "gore video", "snuff film", "torture video", "kill your whole family",
        "murder your family", "shoot up the school", "shoot up a school", "date rape drug for sale", "buy rohypnol",
        "buy date rape", "undetectable poison", "untraceable poison",
    ),
    "hate": (
        "支那猪", "支那人", "黑鬼", "棒子狗", "死基佬", "死人妖", "臭基佬", "劣等民族", "劣等人种", "犹太猪",
        "女人都是贱货", "女人都是婊子", "黑人都是猴子", "穆斯林都是恐怖分子", "河南人都是骗子", "杀光日本人",
        "杀光黑人", "杀光穆斯林", "杀光犹太人", "希特勒万岁", "纳粹万岁", "nigger", "nigga", "faggot", "filthy kike",
        "wetback", "sand nigger", "raghead", "towelhead", "gas the jews", "kill all jews", "kill all muslims",
        "kill all blacks", "kill all gays", "kill all immigrants", "white power", "heil hitler", "hitler was right",
        "inferior race", "dirty jew", "dirty muslim", "filthy jew", "filthy immigrants", "women are whores",
        "all women are sluts",
    ),
    "self-harm": (
        "无痛自杀", "自杀教程", "自杀攻略", "自杀药物购买", "自杀药哪里买", "自杀群", "相约自杀", "约死群",
        "安乐死药物购买", "安乐死药出售", "烧炭教程", "割腕教程", "怎么割腕", "如何割腕", "什么药能自杀",
        "吃什么药能死", "吃什么能无痛死亡", "吃多少安眠药能死", "最不痛苦的死法", "最不痛苦的自杀", "无痛死法",
        "painless suicide", "suicide kit", "suicide pact partner", "suicide tutorial", "best way to kill myself",
        "easiest way to kill myself", "painless way to kill myself", "painless way to die", "how to kill yourself",
        "how to commit suicide", "best way to commit suicide", "easiest way to commit suicide", "how to hang myself",
        "how to hang yourself", "how to slit my wrists", "how to slit your wrists", "how many pills to kill myself",
        "how many pills to die", "buy nembutal", "pro ana tips", "thinspo",
    ),
    "weapons-and-drugs": (
        "枪支出售", "手枪出售", "仿真枪出售", "自制枪支", "自制手枪", "自制炸弹", "自制炸药", "如何制作炸弹",
        "怎么制作炸弹", "怎么做炸弹", "如何制造炸弹", "炸弹制作方法", "炸药配方", "炸药制作方法", "土制炸弹",
        "自制燃烧弹", "冰毒出售", "冰毒配方", "冰毒制作方法", "如何制作冰毒", "怎么制作冰毒", "怎么做冰毒",
        "如何制造冰毒", "冰毒制作教程", "制毒教程", "制毒配方", "海洛因出售", "大麻出售", "大麻种子购买",
        "摇头丸出售", "k粉出售", "毒品出售", "毒品货源", "哪里买毒品", "哪里能买到毒品", "哪里买冰毒",
        "哪里能买到冰毒", "how to make a bomb", "how to build a bomb", "make a pipe bomb", "build a pipe bomb",
        "molotov cocktail recipe", "how to make explosives", "homemade explosives recipe",
        "how to make a nerve agent", "how to make sarin", "how to make ricin", "weaponize anthrax", "ghost gun kit",
        "buy guns without a background check", "buy an untraceable gun", "how to cook meth", "how to make meth",
        "meth recipe", "how to make crack cocaine", "buy heroin online", "buy cocaine online", "buy meth online",
        "buy mdma online", "buy lsd online", "buy fentanyl online",
    ),
}  # fmt: skip
"""One of these is enough, in a question as in an answer: a list cannot tell whether the answer to it was good. What
someone in need says ("我想自杀", "I keep thinking of ways to kill myself") holds none of them.
"""

SOFT: Mapping[Category, tuple[str, ...]] = {
    "pornography": (
        "色情", "情色", "淫秽", "淫荡", "荡妇", "肉棒", "看黄片", "看毛片", "黄片网", "毛片网", "三级片", "春药",
        "催情药", "裸照", "艳照", "裸聊", "嫖娼", "卖淫", "妓女", "约炮", "援交", "性奴", "迷奸", "内射", "淫乱",
        "黄色网站", "成人网站", "成人电影", "成人视频", "porn", "porno", "pornography", "porn video", "porn site",
        "pornhub", "xvideos", "hentai", "erotic", "horny", "slut", "whore", "prostitute", "hooker", "blowjob",
        "dildo", "bdsm", "gangbang", "creampie", "sex chat", "cam girl", "sexting", "nudes", "escort girl",
    ),
    "violence": (
        "如何杀人", "怎么杀人", "砍人", "砍死", "捅死", "打死你", "弄死你", "活埋", "肢解", "虐杀", "屠杀", "灭门",
        "血腥", "毁尸灭迹", "不得好死", "毒死老公", "毒死老婆", "murder", "behead", "slaughter", "massacre",
        "dismember", "torture", "stab him", "stab her", "kill him", "kill her", "kill you", "i will kill",
    ),
    "hate": (
        "人渣", "垃圾人", "贱人", "贱货", "贱民", "婊子", "蠢货", "畜生", "娘炮", "基佬", "傻逼", "傻屄", "煞笔",
        "操你妈", "草泥马", "日你妈", "妈了个逼", "狗娘养的", "死全家", "bitch", "bastard", "asshole", "dumbass",
        "scumbag", "retards", "fuck", "fucking", "fuck you", "motherfucker", "cunt", "dickhead", "tranny", "subhuman",
    ),
    "self-harm": (
        "自杀方法", "自杀的方法", "如何自杀", "怎么自杀", "怎样自杀", "suicide method", "how to kill myself",
        "ways to kill myself",
    ),
    "weapons-and-drugs": (
        "贩毒", "卖冰", "散冰", "制造冰毒", "制作冰毒", "制造炸弹", "买枪", "卖枪", "枪支", "drug dealer",
        "crystal meth", "pipe bomb", "handgun", "ammunition", "explosives",
    ),
}  # fmt: skip
"""These are counted (`UnsafeConfig.most_soft`): one or two say nothing."""

MEDICINE = (
    "患者", "病人", "医生", "大夫", "医院", "治疗", "症状", "诊断", "检查", "感染", "疾病", "药物", "服用", "手术",
    "疼痛", "炎症", "病情", "病史", "成瘾", "戒断", "中毒", "受害", "创伤", "心理", "性病", "早泄", "勃起", "阳痿",
    "包皮", "龟头", "阴道", "月经", "怀孕", "避孕", "前列腺", "手淫", "艾滋", "梅毒", "淋病", "法医", "急诊", "抑郁",
    "焦虑", "精神", "幻觉", "妄想", "危机干预", "patient", "doctor", "physician", "hospital", "clinic", "clinical",
    "treatment", "therapy", "therapist", "symptom", "diagnosis", "infection", "disease", "medication", "medicine",
    "surgery", "addiction", "withdrawal", "overdose", "trauma", "victim", "survivor", "injury", "depression",
    "anxiety", "counseling", "erectile", "pregnancy", "pregnant", "contraception", "emergency", "forensic",
    "poisoning", "prostate", "vaginal", "penis", "vaginal discharge", "hiv",
)  # fmt: skip
"""Words of a consultation. Each that stands in a dialogue outweighs one soft term."""

ALLOWED = (
    "情色彩", "截肢解", "自杀群体", "怎么割腕了", "怎么割腕的", "不听话水", "浅色情况", "黑色情况", "红色情况",
    "褐色情况", "青色情况", "白色情况", "变色情况", "颜色情况", "染色情况", "脸色情况", "面色情况", "肤色情况",
    "气色情况", "黄色情况", "绿色情况", "紫色情况", "脸色情志", "面色情志", "出色情", "杀人蜂", "杀人鲸", "血腥味",
    "血腥臭", "有血腥", "体内射频", "室内射", "管内射", "腔内射", "腔内射频", "内射频", "内射线", "男性奴", "女性奴",
    "毛片状", "睫毛片", "羽毛片", "绒毛片", "茸毛片", "white power supply", "white powerful",
    "restricting suicide methods", "access to suicide methods", "suicide method restriction",
    "suicide methods restriction",
)  # fmt: skip
"""Phrases in which a term is none: most are parts of two neighbouring words (肤色|情况, 管内|射)."""
