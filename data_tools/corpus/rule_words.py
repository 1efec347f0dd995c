"""Word lists of the rules. Each is a default: a recipe replaces or extends it."""

from typing import Literal

STOP_WORDS: dict[Literal["zh", "en", "other"], tuple[str, ...]] = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "zh": tuple("的年在月是和日了於·為有被人中为他與後也而由"),
    "other": (),
}
"""en: Gopher (arXiv 2112.11446, A.1.1), exact case. zh: FineWeb-2, configs/cmn_Hani.yml: single characters, as are
words of Chinese here. FineWeb-2 has none for a language that is not known.
"""

POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
"""Lines of C4 that go: c4_utils.py of tensorflow_datasets, as in datatrove."""

JAVASCRIPT = ("javascript",)
LOREM_IPSUM = ("lorem ipsum",)

BOILERPLATE = (
    "版权所有", "未经授权", "不得转载", "转载请注明", "免责声明", "备案号", "京公网安备", "增值电信业务", "上一篇",
    "下一篇", "相关阅读", "相关推荐", "推荐阅读", "热门文章", "猜你喜欢", "点击查看更多", "查看更多", "展开全文",
    "返回顶部", "返回首页", "加入收藏", "设为首页", "网站地图", "友情链接", "关于我们", "联系我们", "用户协议",
    "隐私政策", "登录注册", "忘记密码", "扫描二维码", "扫一扫", "分享到", "责任编辑", "点击下载", "下载客户端",
    "打开app", "all rights reserved", "terms of service", "terms of use", "privacy policy", "cookie policy",
    "skip to content", "click here", "read more", "sign up", "sign in", "log in", "subscribe to our newsletter",
    "follow us on", "share this", "leave a comment", "related posts", "related articles", "back to top", "site map",
    "contact us", "about us", "powered by", "enable javascript", "view all posts", "previous post", "next post",
    "forgot password",
)  # fmt: skip
"""Frames of web pages, zh and en. Own list; the kinds are those of MAP-NEO ("展开", "更多", "readmore") and of
NeMo-Curator's BoilerPlateStringFilter (policy phrases).
"""

ADVERTISING = (
    "加微信", "加我微信", "添加微信", "微信咨询", "微信同号", "加qq", "扣扣", "咨询热线", "订购热线", "免费热线",
    "全国热线", "服务热线", "抢购热线", "客服热线", "招商加盟", "诚招代理", "诚邀加盟", "火爆招商", "限时抢购",
    "限时优惠", "限时特价", "限量发售", "立即购买", "立即抢购", "立即下单", "点击购买", "马上抢购", "马上订购",
    "货到付款", "包邮", "买一送一", "满减", "优惠券", "秒杀", "全网最低价", "厂家直销", "原价", "现价", "代购",
    "祖传秘方", "包治百病", "根治", "永不复发", "无效退款", "药到病除", "月入过万", "日赚", "兼职刷单", "零投资",
    "轻松赚钱", "代开发票", "办理证件", "贷款秒批", "免费领取", "免费试用", "点击链接", "扫码领取", "长按识别",
    "关注公众号", "私信我", "buy now", "order now", "shop now", "order today", "limited time offer", "special offer",
    "free shipping", "money back guarantee", "satisfaction guaranteed", "lowest price", "best price",
    "discount code", "promo code", "coupon code", "% off", "click to buy", "add to cart", "while supplies last",
    "act now", "call now", "risk free", "risk-free trial", "free trial", "make money fast", "work from home",
    "earn extra cash", "no prescription needed", "without prescription", "cheap viagra", "miracle cure",
    "lose weight fast",
)  # fmt: skip
"""Selling and recruiting, zh and en. Own list."""

SOLICITATION = (
    "微信", "威信", "薇信", "微xin", "加v", "vx", "v信", "weixin", "wechat", "qq", "扣扣", "企鹅号", "whatsapp",
    "telegram", "line id", "skype", "电报群",
)  # fmt: skip
"""Before an account's name or number: a way to reach a seller. Own list."""

LINKS = ("http://", "https://", "www.", "ftp://")

BROKEN = ("锟斤拷", "烫烫烫", "屯屯屯", "ï¿½", "â€™", "â€œ", "â€\x9d", "Ã©", "Ã¨", "Â\xa0", "å\x8f", "ç\x9a", "æ\x98")
"""What text looks like that was decoded with the wrong encoding once. Own list."""

FLAGGED: dict[Literal["zh", "en", "other"], tuple[str, ...]] = {
    "zh": (
        "裸聊", "约炮", "一夜情", "黄色网站", "色情网站", "成人网站", "成人电影", "成人视频", "激情视频", "无码",
        "自拍偷拍", "援交", "上门服务小姐", "博彩", "赌场", "赌博网站", "真人娱乐", "百家乐", "六合彩", "时时彩",
        "北京赛车", "老虎机", "棋牌游戏", "开户送", "投注", "彩票平台", "代孕", "枪支出售", "迷药", "迷奸",
        "冰毒出售", "假钞", "代办证件", "高利贷",
    ),
    "en": (
        "porn", "porno", "pornhub", "xxx", "milf", "hentai", "camgirl", "camgirls", "escorts", "sex chat",
        "nude pics", "casino", "casinos", "slot machine", "slot machines", "jackpot", "sportsbook", "betting odds",
        "online poker", "cheap viagra", "fuck", "fucking", "motherfucker", "cunt", "slut", "sluts", "whore",
        "bitches", "nigger", "faggot",
    ),
}  # fmt: skip
"""Pornography, gambling, slurs and unlawful trade. Own lists, short and without anatomical and clinical words, which
the lists in common use (LDNOOBW, as in C4) are full of: give a recipe your own beside them.
"""
