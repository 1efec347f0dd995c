"""Chinese names: surnames, and the characters of given names.

After a title a name is masked only if every character fits, for "高血压医生" and "向医生咨询" hold no name.
"""

# The commonest surnames (Ministry of Public Security, 2020 report: these cover 90 % of people), without those that are
# first of all words of a sentence before 医生: 向 和 于 从 时 任 全 常 单 高 成 安 水 明 元 年 乐 有 能 相 后 老 应 国.
SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘蒋蔡余杜叶程苏魏吕丁沈姚卢姜崔钟谭陆汪"
    "范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔汤樊殷施洪翟"
    "岳柳欧傅尤柯庞阮俞章鲁葛聂齐倪梅庄辛管祝左涂谷祁耿牟卜詹关费甄裴蒲窦霍骆冉"
)
COMPOUND_SURNAMES = ("欧阳", "司马", "上官", "诸葛", "东方", "皇甫", "尉迟", "公孙", "慕容", "令狐", "司徒", "夏侯")
# Common characters of given names; those that are as common in medical prose (血 心 小 常 …) are left out.
GIVEN = (
    "伟芳娜秀敏静丽强磊军洋勇艳杰娟涛超霞平刚桂英华玉萍红建志文辉鹏飞鑫波斌宇浩凯健俊帆雪莉婷宁梅燕琴云兰凤洁莹玲珍"
    "龙翔旭阳晨曦瑞祥福荣昌兴盛德义礼智信仁忠孝廉诚贤良善嘉欣怡悦佳雅琪琳瑶璐瑾瑜璇慧颖蕾薇蓉芸菲芬茜莲荷菊春夏秋冬晓"
    "东南北立国庆民卫锋钢铁柱栋梁森林松柏峰岩磊江河海清源泉润泽涵雨霖雷震坤乾宝财富贵金银锦绣彩虹思念怀远航帅武斯哲彦博学"
    "勤奋振宏伯仲叔季子轩梓睿诗淑惠美爱莎倩珊丹彤昊天宸奕铭钧钰淼煜炜烨焕炳炎灿亮光耀显亚维继承先祖培根本正直世永长远宗元启"
    "书琼翠香淑贞素巧月素一三五大小明生新成"
)
# Words that are written as a surname and a given name.
_NOT_NAMES = """
高明 文明 平安 方便 成功 和平 江南 江苏 江西 白天 金牌 万能 石英 白金 黄金 黄河
黄海 林业 田园 史学 金融 马上 万一 夏天 夏季 秦皇 龙江 云南 海南 武汉 石河 孔明
周三 周五 周一 周天 周日 施工 严明 严正 关爱 关心 管理 祝福 祝您 方才 万全 何时
何种 何大 余光 余生 程度 程文 雷同 谢谢 许多 陆生 白云 章一 左心 左肺 何文 白大
顾问 齐心 田东 辛香 洪水 汤药 殷红 方一 万元 钱大 武大
"""
NOT_NAMES = frozenset(_NOT_NAMES.split())
TITLES = (
    "主任医师|副主任医师|主治医师|住院医师|主任医生|主治医生|副主任|主任|医生|医师|大夫|教授|护士长|护士|院长|药师|博士"
    "|老中医"
)


def is_given_name(name: str) -> bool:
    """One or two characters of given names."""
    return 1 <= len(name) <= 2 and all(character in _GIVEN for character in name)


def is_name(name: str) -> bool:
    """A surname and a given name (or 某, or signs put in their place), written by characters known for it."""
    if name in NOT_NAMES:
        return False
    for surname in COMPOUND_SURNAMES:
        if name.startswith(surname) and len(name) > 2:
            return _fits(name[2:])
    return name[:1] in _SURNAMES and _fits(name[1:])


def _fits(given: str) -> bool:
    return is_given_name(given) or (0 < len(given) <= 2 and all(sign in HIDDEN for sign in given))


HIDDEN = "某ＸXx×＊*○〇"
_SURNAMES = frozenset(SURNAMES)
_GIVEN = frozenset(GIVEN)
