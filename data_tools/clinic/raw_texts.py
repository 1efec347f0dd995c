"""What a crawl holds beside texts worth reading: advertising, page furniture, other languages; and general text that
sounds like medicine without being it.

Slots in braces are filled from `SALES_SLOTS` and `STORY_SLOTS`, those of CONTACTS with private data. No phrase holds
a value of an attribute or the name of a condition.
"""

from data_tools.clinic.world import Language

SALES_SLOTS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "goods": ("slimming tea", "gold jewellery", "vitamin gummies", "cheap flights", "garden sheds", "phone cases"),
        "brand": ("Zentora", "BestBuyNow", "Luxora", "GoldLeaf", "MegaDeal", "SunnyHome"),
        "off": ("30%", "50%", "70%", "80%", "90%"),
        "price": ("$9.99", "$19.90", "$4.95", "$29", "$99"),
        "hours": ("24 hours", "48 hours", "today only", "this weekend", "the next 3 days"),
        "people": ("10,000", "25,000", "1 million", "300,000", "5,000"),
    },
    "zh": {
        "goods": ("减肥茶", "黄金首饰", "保健软糖", "特价机票", "智能手表", "精品女装", "进口面膜"),
        "brand": ("臻美", "优品汇", "金叶", "康倍佳", "万家乐购", "瑞丰"),
        "off": ("三折", "五折", "七折", "八八折", "半价"),
        "price": ("9.9元", "19.9元", "99元", "199元", "1元"),
        "hours": ("24小时", "48小时", "仅限今天", "本周末", "最后三天"),
        "people": ("一万", "三十万", "一百万", "五千", "八千"),
    },
}

# A sales page is some of these in any order, and ends with how to pay.
ADVERTISEMENTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "BUY NOW!!! {brand} {goods} with {off} OFF, for {hours}!!!",
        "Limited time offer: {goods} for only {price}! Order now and save {off}!",
        "Click here to claim your FREE gift from {brand}!",
        "Don't miss out! More than {people} happy customers already love our {goods}!",
        "100% satisfaction guaranteed or your money back! Add to cart today!",
        "Free shipping on all orders of {brand} {goods}. Use coupon code SAVE{off}!",
        "Hurry up! Only a few {goods} left in stock at {price}!!!",
        "Subscribe to our newsletter and get {off} off your first order!",
        "Best price on the web: {price}! Buy 2 get 1 free!",
        "Act now! This special offer from {brand} ends soon. Shop now >>> $$$",
        "Earn money from home with {brand}! No experience needed, risk free!",
        "Lose weight fast with {brand}, no diet, no effort! Call now!",
        "Sponsored: {brand}, the number one shop for {goods}. Sign up for free!",
        "Big sale! Everything must go! {off} discount on {goods}!",
    ),
    "zh": (
        "【{brand}】{goods}限时特价，{hours}，全场{off}！！！",
        "点击购买，立即下单，{goods}只要{price}！",
        "加微信领取优惠券，名额有限，先到先得！",
        "已有{people}顾客好评，正品保证，假一赔十！",
        "全国包邮，货到付款，无效退款！",
        "官方旗舰店活动价{price}，买二送一，赶快抢购吧！",
        "免费咨询，扫码关注公众号，送{goods}一份！",
        "祖传秘方，无副作用，一个疗程见效，签约治疗，无效退款！",
        "专业代理{goods}，诚招加盟，日赚千元不是梦！",
        "本店主营{goods}，批发零售，价格优惠，欢迎来电订购！",
        "{brand}周年庆，{hours}全场{off}，手慢无！",
        "还在为身材烦恼吗？{brand}{goods}帮您轻松解决！",
        "贷款无抵押，当天放款，利息低，找{brand}！",
        "转发朋友圈集赞，免费领取{goods}，数量有限！",
    ),
}
CONTACTS: dict[Language, tuple[str, ...]] = {
    "en": ("Order by phone: {phone}", "Contact us: {email}", "Call {phone} now!!!"),
    "zh": ("订购热线：{mobile}", "咨询邮箱：{email}", "联系电话：{mobile}，微信同号"),
}

BOILERPLATE: dict[Language, tuple[str, ...]] = {
    "en": (
        "We use cookies to improve your experience. By continuing to use this site you accept our cookie policy.",
        "Please enable JavaScript to view this page.",
        "Your browser is out of date. Please update your browser or activate JavaScript.",
        "Home | About us | Contact | Sitemap | Privacy policy | Terms of use",
        "Accept all cookies | Manage settings | Reject",
        "Copyright © 2024. All rights reserved.",
        "Skip to main content",
        "Log in | Register | Forgot your password?",
        "Loading... please wait...",
        "404: the page you are looking for does not exist.",
        "Share on Facebook | Tweet | Email | Print",
        "Terms of service apply. See our privacy policy for details.",
        "Previous | 1 | 2 | 3 | 4 | 5 | Next",
        "function init() { var a = document.getElementById('menu'); a.hidden = true; }",
        "You have reached your limit of free articles. Subscribe to continue reading.",
    ),
    "zh": (
        "本网站使用cookie以改善您的体验，继续浏览即表示同意。",
        "请启用JavaScript后查看本页。",
        "您的浏览器版本过低，请升级浏览器。",
        "首页 | 关于我们 | 联系我们 | 网站地图 | 隐私政策 | 使用条款",
        "版权所有 © 2024 未经授权请勿转载",
        "登录 | 注册 | 忘记密码？",
        "正在加载，请稍候……",
        "404 您访问的页面不存在",
        "分享到：微博 | 微信 | 空间",
        "上一页 | 1 | 2 | 3 | 4 | 5 | 下一页",
        "京ICP备00000000号 京公网安备00000000000000号",
        "免责声明：本站内容来自网络，如有侵权请联系删除。",
        "热门标签：资讯 视频 图片 论坛 专题",
        "点击查看更多 | 展开全文 | 收起",
        "本文来源于网络，仅代表作者观点，与本站无关。",
    ),
}

# General text with words of medicine in it: a rule that looks for them alone is wrong here.
NOT_MEDICAL: dict[Language, tuple[str, ...]] = {
    "en": (
        "The hospital in {place} will get a new car park, the council said on {day}.",
        "{person}, a retired nurse, sings in the choir and bakes {dish} for the fair.",
        "The old pharmacy near {place} has become a shop for {thing} and toys.",
        "At the heart of {place} stands a {colour} tower with {number} bells.",
        "Doctor Kraft won {number} rounds of {game} at the club on {day}.",
        "The patient gardener waits {number} weeks before the {flower} open.",
        "The clinic team lost to the bakers by {number} goals on {day}.",
        "A dose of humour is the best thing about {book}, says {person}.",
        "The museum shows {number} surgical instruments from the last century beside {colour} uniforms.",
        "Critics called the film a cure for boredom and the ending a pain.",
    ),
    "zh": (
        "{day}，镇上宣布{place}旁的医院将新建停车场。",
        "{person}是退休护士，如今在合唱团唱歌，还为集市做{dish}。",
        "{place}附近的老药房改成了商店，卖{thing}和玩具。",
        "城市的心脏地带有一座{colour}的钟楼，挂着{number}口钟。",
        "韩医生{day}在俱乐部连下{number}盘{game}。",
        "耐心的园丁等了{number}个星期，{flower}才开。",
        "{day}的友谊赛上，诊所队以{number}球之差输给了面包师队。",
        "{person}说，{book}就像一剂幽默的良药。",
        "博物馆展出{number}件上世纪的手术器械和{colour}的制服。",
        "影评人说这部电影专治无聊，结尾却令人头疼。",
    ),
}

STORY_SLOTS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "place": ("the mill", "the station", "the market square", "the bridge", "the park", "the island"),
        "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
        "person": ("Mrs Olsen", "Mr Novak", "my aunt", "our neighbour", "Clara", "Hugo"),
        "dish": ("apple pie", "waffles", "plum cake", "biscuits"),
        "thing": ("kites", "hats", "lanterns", "puzzles"),
        "colour": ("red", "blue", "green", "white", "grey"),
        "number": ("seven", "eight", "nine", "eleven", "twelve", "twenty"),
        "game": ("chess", "cards", "draughts"),
        "flower": ("lilies", "peonies", "orchids"),
        "book": ("the new novel", "the old play", "her travel diary"),
    },
    "zh": {
        "place": ("磨坊", "车站", "集市广场", "大桥", "公园", "小岛"),
        "day": ("星期一", "星期二", "星期三", "星期四", "星期五"),
        "person": ("周阿姨", "孙先生", "我姑姑", "我们的邻居", "小兰", "小雨"),
        "dish": ("苹果派", "华夫饼", "李子蛋糕", "饼干"),
        "thing": ("风筝", "帽子", "灯笼", "拼图"),
        "colour": ("红色", "蓝色", "绿色", "白色", "灰色"),
        "number": ("七", "八", "九", "十一", "十二", "二十"),
        "game": ("象棋", "扑克", "跳棋"),
        "flower": ("百合", "牡丹", "兰花"),
        "book": ("这本新小说", "那部老剧本", "她的旅行日记"),
    },
}

# People of the general texts who are named with a title, which makes them private data too. A Chinese surname before
# 先生 or 阿姨 is how one speaks of anybody, and is left.
TITLED = ("Mrs Lee", "Mr Brown", "Mrs Olsen", "Mr Novak", "Doctor Kraft", "韩医生")

# Which neither an English nor a Chinese corpus wants.
FOREIGN: dict[str, tuple[str, ...]] = {
    "ja": (
        "今日はとても良い天気なので、友達と公園を散歩しました。",
        "駅の近くに新しいパン屋ができて、朝から行列ができています。",
        "この本は{n}ページもありますが、とても読みやすいです。",
        "週末には家族で海へ行くつもりです。",
        "彼は{n}年間、京都で日本語を教えています。",
        "電車が{n}分遅れているので、少し待ってください。",
        "夏になると、ここでは花火大会が開かれます。",
        "冷蔵庫に卵が{n}個残っていると思います。",
    ),
    "de": (
        "Heute scheint die Sonne, und wir gehen mit den Kindern in den Park.",
        "Der Zug nach München hat leider {n} Minuten Verspätung.",
        "Im Garten blühen die ersten Rosen, und die Nachbarn grüßen freundlich.",
        "Das neue Buch hat {n} Seiten und ist sehr spannend geschrieben.",
        "Am Wochenende möchte meine Schwester einen Kuchen backen.",
        "Er hat {n} Jahre lang in einer kleinen Werkstatt gearbeitet.",
        "Die Bibliothek ist montags geschlossen, sonst aber immer geöffnet.",
        "Wir müssen noch {n} Flaschen Wasser für das Fest kaufen.",
    ),
    "ru": (
        "Сегодня хорошая погода, и мы идём гулять в парк.",
        "Поезд опаздывает на {n} минут, просим подождать.",
        "В этой книге {n} страниц, но читать её очень интересно.",
        "Моя сестра каждое воскресенье печёт пироги с яблоками.",
        "Библиотека закрыта по понедельникам, а в другие дни открыта.",
        "Он {n} лет работал учителем в маленьком городе.",
        "Летом мы всей семьёй ездим на море.",
        "Нужно купить ещё {n} бутылок воды для праздника.",
    ),
    "fr": (
        "Aujourd'hui il fait beau et nous allons nous promener dans le parc.",
        "Le train pour Lyon a {n} minutes de retard, veuillez patienter.",
        "Ce livre compte {n} pages, mais il se lit très facilement.",
        "Ma sœur prépare un gâteau aux pommes tous les dimanches.",
        "La bibliothèque est fermée le lundi et ouverte les autres jours.",
        "Il a travaillé {n} ans comme professeur dans une petite ville.",
        "En été, toute la famille part au bord de la mer.",
        "Il faut encore acheter {n} bouteilles d'eau pour la fête.",
    ),
    "ko": (
        "오늘은 날씨가 좋아서 친구와 함께 공원을 산책했습니다.",
        "기차가 {n}분 늦어지고 있으니 잠시 기다려 주세요.",
        "이 책은 {n}쪽이나 되지만 아주 재미있게 읽을 수 있습니다.",
        "주말에는 가족과 함께 바다에 갈 생각입니다.",
        "도서관은 월요일에 쉬고 다른 날에는 문을 엽니다.",
        "그는 작은 도시에서 {n}년 동안 선생님으로 일했습니다.",
        "여름이 되면 이곳에서 불꽃놀이가 열립니다.",
        "잔치를 위해 물 {n}병을 더 사야 합니다.",
    ),
}

# Too little to learn from.
SCRAPS: dict[Language, tuple[str, ...]] = {
    "en": ("OK.", "See attachment.", "Thanks!", "Read more", "Page {n}", "test {n}", "Untitled document", "n/a"),
    "zh": ("好的。", "见附件。", "谢谢！", "更多", "第{n}页", "测试{n}", "无标题", "顶一下"),
}

# Put into a sentence, these make a near-duplicate of it and change no fact.
FILLERS: dict[Language, tuple[str, ...]] = {
    "en": ("indeed", "really", "in fact", "so they say", "of course", "as a rule"),
    "zh": ("其实", "一般来说", "据说", "当然", "确实", "通常"),
}
# What a site adds to a text that it reprints.
REPRINTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Reprinted from page {n} of the almanac.",
        "Posted by reader {n}.",
        "Update {n}: a typing error was mended.",
    ),
    "zh": ("转载自年鉴第{n}页。", "由第{n}号读者发布。", "更新{n}：改正了一处错字。"),
}
