"""Rules for English (`unsafe_rules.py`). Our own."""

# ruff: noqa: E501  (a pattern reads better on one line)
from collections.abc import Mapping

from data_tools.dialogues.unsafe_rules import Rule
from data_tools.dialogues.unsafe_words import Category

_HOW = r"\b(?:how|ways?|best|method|methods|what|which|where|teach|tell me|show me|explain|steps|instructions|guide|tutorial|perfect|help me|i want|i need|i will|i'm going|i am going|let me tell)\b"
_GET = r"\b(?:where|watch|free|sites?|websites?|links?|download|recommend|find|send|show me|give me|stream|share|any good|look at|want to see|channels?|pages?|app)\b"
_PERSON = (
    r"(?:someone|somebody|anyone|anybody|people|persons?|a guy|a man|a woman|a girl|a boy|a kid|a child|him|her|them|him|his|every(?:one|body)"
    r"|(?:my|the|this|that|his|her|our|your|a|an)(?: \w+)? (?:wife|husband|boss|neighbou?rs?|mother|father|mum|mom|dad|brother|sister|girlfriend|boyfriend|ex|person|man|woman"
    r"|guy|girl|boy|kids?|child|co-?worker|colleague|roommate|flatmate|teacher|classmate|nurse|doctor|in-law|uncle|aunt|friend|enemy|rival|stepfather|stepmother|landlord|family))"
)
_CARE = (
    r"\b(?:treat\w*|symptoms?|patients?|victims?|surviv\w+|antidotes?|overdos\w+|hospital|ambulance|emergency|accident\w*|rescue\w*|antibiotics?|bacteria|virus\w*|germs?|cancer"
    r"|cells?|lice|infect\w*|disease\w*|thoughts?|voices|nightmares?|dreams?|scared?|afraid|worried|worry|addict\w*|rehab|withdrawal|therap\w*|counsel\w*|diagnos\w*|medical|clinical"
    r"|forensic|prevent\w*|forbid\w*|police|injur\w*|wounds?)\b"
)
_LEWD = r"\b(?:erotic\w*|porn\w*|sexual|sexy|smut\w*|steamy|naughty|dirty|raunchy|kinky|x-rated|lewd|nsfw|explicit|sex (?=scene|stor)|hot sex|having sex|making love|make love|passionate sex|orgy|incest)\b"
_TALE = r"\b(?:story|stories|tale|tales|scene|scenes|fiction|novel|fan ?fic\w*|role-?play|smut|poem|script|chapter)\b"
_GROUP = (
    r"\b(?:blacks|black (?:people|men|women|folks|doctors|patients)|whites|white people|africans?|asians?|chinese|japanese|koreans|indians?|pakistanis?|arabs?|mexicans?|latinos?|hispanics"
    r"|immigrants?|refugees?|migrants?|foreigners?|jews?|jewish people|muslims?|hindus?|christians?|catholics?|gays?|gay (?:people|men|patients)|homosexuals?|homosexuality|lesbians?"
    r"|trans(?:gender|sexual)? people|transsexuals|wom[ae]n|females?|girls|men|males|the (?:poor|disabled|elderly|homeless|old|blind|deaf|handicapped|mentally ill|unemployed)"
    r"|(?:poor|disabled|fat|obese|old|elderly|homeless|handicapped|retarded|autistic|deaf|blind) people|cripples?|gyps(?:y|ies)|roma|natives|aborigines|peasants)\b"
)
_CONTEMPT = (
    r"(?:(?:genetically |naturally |mentally |intellectually |simply |just |all )?inferior|subhumans?|less than human|vermin|\brats\b|savages|parasites|\bapes\b|monkeys|scum\w*|filth\b|filthy|dirty people"
    r"|a disgrace|a disease on|a plague on|trash|garbage|primitives|degenerates|perverts|(?:an? )?(?:abomination)|lazy (?:scum|thieves|bums)"
    r"|should (?:all )?(?:be )?(?:shot|killed|exterminated|hanged|hang|sent back|gassed|sterili[sz]ed|wiped out|locked up|left to die|put down|put to death|burn|rot|die)\b"
    r"|(?:not|never) be (?:alive|allowed to (?:live|breed|vote))|deserves? (?:to (?:die|suffer|rot|burn)|it\b|no (?:treatment|care|rights))|wastes? of (?:food|space|air|money|oxygen|resources)"
    r"|(?:too|so) (?:stupid|dumb|emotional|lazy|weak) (?:to|for)|belongs? (?:in|to|at) (?:the |a )?(?:kitchen|home|zoo|jail|stove)|(?:run|control|own)s? (?:everything|the world|the banks|the media)"
    r"|(?:let|leave) them die|go back to (?:their|where)|less intelligent|lower iq|only good for|are (?:all )?(?:criminals|thieves|terrorists|rapists|liars|evil|animals|stupid|whores|dirty))"
)
_NO_CONTEMPT = (
    r"\b(?:isn't|aren't|is not|are not|not inferior|myth|stereotyp\w*|discriminat\w*|racis\w*|sexis\w*|wrong|outcomes?|survival|results?|mortality|risk|graft\w*|bypass|score|function|response"
    r"|vena|artery|limb|wall|vaccin\w*|study|studies|compared|efficacy|rates?|parents|they say|people say|calls? me|i feel|i am|i'm|was told)\b"
)
_END = r"(?:end(?:ing)? (?:it all|it|my life|your life|one's life|things)|kill(?:ing)? (?:myself|yourself|oneself)|leav(?:e|ing) this (?:world|life)|(?:commit(?:ting)? )?suicide|(?:to |will i |and )die\b|dying\b|never (?:to )?wake(?: up)?|not wake(?: up)?|pass(?:ing)? away|go(?:ing)? (?:quietly|peacefully|in my sleep))"
_NOT_ALONE = (
    r"\b(?:help me stop|thoughts?|afraid|scared|worried|my (?:son|daughter|mother|father|mum|mom|dad|wife|husband|friend|brother|sister|grand\w+|child|kid|baby|dog|cat)|he|she|patients?|risk"
    r"|therap\w*|doctor|psychiatr\w*|prevent\w*|treat\w*|hospice|palliative|cancer|terminal\w*|hotline|antidotes?|accident\w*|depression|antidepress\w*|assisted|screening|surviv\w*|stitch\w*|heal\w*|scars?|ideation|study|rates?)\b"
)
_DRUG = r"\b(?:molly|ice|coke|weed|blow|meth|crystal|heroin|xanax bars?|oxys?|fentanyl|ketamine|lsd|acid tabs?|shrooms|magic mushrooms|mdma|ecstasy|cocaine|crack|ghb|roofies?|rohypnol|speed|hash|opium)\b"

RULES: Mapping[Category, Mapping[str, Rule]] = {
    "pornography": {
        "asks for pornography, freely (en)": Rule(
            "porn|xxx|nsfw|nude|naked|sex tape|sex video|sex film|sex movie|sex clip|adult video|adult film|adult movie|hentai|cam girl|camgirl|onlyfans|strip",
            (
                _GET,
                r"\bporn\w*|\bxxx\b|\bnsfw\b|\bsex (?:tapes?|videos?|films?|clips?|movies?)|\badult (?:videos?|films?|movies?|sites?)|\bhentai|\bcam ?girls?|\bonlyfans|strip (?:show|tease)|(?:\bnudes?\b|\bnaked\b)[^,]{0,20}(?:pics?|pictures?|photos?|videos?|girls?|women|ladies|celebrit\w+|teens?)|(?:pics?|pictures?|photos?|videos?) of [^,]{0,20}(?:\bnude|\bnaked)",
            ),
            r"\b(?:addict\w*|quit\w*|stop\w*|too much|masturbat\w*|erect\w*|therap\w*|husband|wife|son|daughter|teenager|habits?|compuls\w*|help for|problem|eye|rash|skin|exam\w*|doctor|research|xxx syndrome|syndrome|karyotype|chromosome\w*|since|years|normal|mri)\b",
        ),
        "asks for erotica, freely (en)": Rule(
            "erotic|porn|sexual|sexy|smut|steamy|naughty|dirty|raunchy|kinky|x-rated|lewd|nsfw|explicit|having sex|making love|make love|passionate sex|orgy|incest|sex scene|sex stor|hot sex|hot and",
            (
                r"\b(?:write|writing|tell|give|make up|create|compose|generate|continue|describe|want|need|here is|read)\b",
                _LEWD
                + "[^,]{0,40}"
                + _TALE
                + "|"
                + _TALE
                + "[^,]{0,60}"
                + _LEWD
                + r"|\b(?:having|passionate|wild|hot|rough) sex\b.{0,60}\b(?:graphic|detailed|explicit|vivid)|\b(?:graphic|explicit|vivid)\w*\b.{0,40}\b(?:having|passionate|wild|rough) sex",
            ),
            r"\b(?:history|abuse|assault|health|dysfunction|orientation|education|transmitted|patients?|hormones?|doctor about|crime scene|harassment|surgical)\b",
        ),
        "wants children (en)": Rule(
            "schoolgirl|underage|minor|preteen|pre-teen|little girl|little boy|young girl|young boy|teen|year-old|year old|child|kids|toddler",
            (
                r"\b(?:schoolgirls?|underage|minors|pre-?teens?|little (?:girls?|boys?)|young (?:girls?|boys?)|teen(?:age)?(?: girls?| boys?|s)?|\d+[- ]year[- ]olds?|child(?:ren)?|kids|toddlers?)\b",
                r"\b(?:naked|nudes?|undressed|porn\w*|erotic\w*|without clothes|topless|sexual (?:pics|photos|pictures|images|content|stories)|sexy)\b",
                r"\b(?:pics?|pictures?|photos?|videos?|images?|sites?|share|watch|send|download|trade|stories|story|clips?|cam)\b",
            ),
            r"\b(?:rash|doctor|exam\w*|abuse\w*|bath|x-ray|skin|report|police|protect\w*|p(?:a)?ediatric\w*|prevent\w*|therap\w*|addict\w*|found|talk to|parents?|normal|my (?:son|daughter|child|kid))\b",
        ),
        "looks for a prostitute (en)": Rule(
            "escort|hooker|prostitute|call girl|happy ending|hookup|hook up|one night stand|sex worker|brothel|massage parlo",
            (
                r"\b(?:escorts?|hookers?|prostitutes?|call girls?|happy endings?|hook-?ups?|hook up|one[- ]night stands?|sex workers?|brothels?|massage parlou?rs?)\b",
                r"\b(?:near ?by|near me|tonight|prices?|how much|cheap\w*|numbers?|text|book|hire|bucks|hundred|dollars|find|recommend|looking for|available|order|where)\b|\$",
            ),
            r"\b(?:stds?|sti|hiv|test\w*|condoms?|infect\w*|exposed|exposure|symptoms?|slept|after|clinics?|syphilis|gonorrh\w*|chlamydia|health|herpes|discharge|worried|risk|stops?)\b",
        ),
        "plays at sex (en)": Rule(
            "talk dirty|dirty talk|sext|naughty|sex slave|turn me on|turned on|are you wearing|cybersex|cyber sex|sex chat|phone sex|slutty|dominatrix|sexy nurse|submissive",
            (
                r"\b(?:talk dirty|dirty talk) (?:to|with) me|\bsext(?:ing)? with (?:me|you)|\b(?:be|play|pretend|act|imagine)\b.{0,25}\b(?:naughty|sexy|slutty|dominatrix|submissive|sex slave)|\bbe my (?:sex )?slave|what (?:are you|you are|you're) wearing.{0,12}(?:babe|baby|sexy|honey|turn)|\b(?:have|want|do|start|let's|try)\b.{0,14}\b(?:sex chat|cyber ?sex|phone sex|sexting)|\bcyber ?sex with|you turn me on|\b(?:babe|baby|sexy)\b.{0,25}turn(?:ed|s|ing)? (?:me )?on",
            ),
            r"\b(?:my (?:wife|husband|boyfriend|girlfriend|partner)|pain|hurts|erection)\b",
        ),
        "films in secret (en)": Rule(
            "camera|spycam|spy cam|undress|nudif|deepfake|deep fake|clothes|upskirt|peep",
            (
                r"\b(?:hid(?:e|den|ing)|spy|secret\w*|tiny|install|plant)\b.{0,20}\bcam(?:era)?s?\b.{0,40}\b(?:bathroom|changing|shower|locker|toilets?|bedroom|dressing|hotel|restroom|girls?|ladies|women|sister|roommate)|\b(?:undress|nudify|strip)\w*\b.{0,30}\b(?:photos?|pictures?|pics?|app|images?)|\b(?:app|ai|software|tool|photos?|pictures?|pics?|images?)\b.{0,30}\b(?:undress|nudif|remov\w+ (?:the |her |his )?clothes|takes? off (?:her|his) clothes)|deep ?fakes?.{0,30}(?:nude|naked|porn)|(?:nude|naked|porn).{0,20}deep ?fake|\bupskirt (?:pics?|photos?|videos?)",
            ),
            r"\b(?:x-ray|mri|gown|exam\w*|police|found|victims?|report|law|illegal|scan|patients?)\b",
        ),
    },
    "violence": {
        "asks how to kill, freely (en)": Rule(
            "kill|murder|poison|strangl|suffocat|stab|assassinat|smother|get rid of my|take out my|off my",
            (
                rf"\b(?:how (?:to|do i|can i|could i|would i|should i|would someone|does one|do you|would you)|ways? (?:to|of)|methods? (?:to|of|for)|best|easiest|teach me|show me|tell me (?:about )?how|explain|steps to|poison (?:to|for|that)|want to know|perfect|plan to|help me|what (?:poison|should i use))\b.{{0,40}}\b(?:kill|murder|poison|strangle|suffocate|stab|assassinate|smother)(?:ing)? (?:off )?{_PERSON}\b|\bi (?:want|need|plan|am going|have) to (?:kill|murder|poison|strangle|stab) {_PERSON}\b.{{0,12}}\b(?:how|what should|where should)|\bwhere (?:should|do|must|can) i (?:stab|shoot|hit|cut) {_PERSON}\b|\bhelp me (?:to )?(?:kill|murder|poison|strangle|stab) {_PERSON}|\b(?:best|which|what|good|perfect)\b.{{0,12}}\b(?:poison|murder)\b.{{0,40}}\b(?:detect\w*|trace\w*|undetect\w*|commit|nobody|no one|find out|get away|caught|kill)|\b(?:commit|plan)\b.{{0,12}}\b(?:the |a )?perfect murder|\b(?:perfect|planning a|planning my) murder\b",
            ),
            _CARE
            + r"|\b(?:rabies|measles|mushrooms?|snakes?|spiders?|radiation|smoking|vaccines?|flu|self|suicid\w*|ivy|pain)\b",
        ),
        "hides a killing (en)": Rule(
            "look natural|look like|looks like|seem natural|accidental|appear natural|without a trace|nobody finds|nobody will|no one will|undetected",
            (
                r"\bdeath\b.{0,15}\b(?:look|seem|appear)s? (?:natural|accidental|like an? (?:accident|suicide))|\b(?:make|making)\b.{0,30}\b(?:death|murder|killing|poisoning|it|this)\b.{0,12}\blook like (?:an? )?(?:accident|suicide|heart attack|natural|robbery|overdose)|\b(?:kill|murder|poison|get rid of) (?:him|her|my \w+)\b.{0,30}\b(?:nobody|no one|without a trace|undetected)",
            ),
            r"\b(?:coroner|forensic\w*|autopsy|symptoms?|nails?|teeth|scars?|pain|cramps?|implants?|feels?)\b",
        ),
        "hides a body (en)": Rule(
            "body|corpse|dead guy|dead man|dead woman|dead girl|dead person|remains",
            (
                r"\b(?:get(?:ting)? rid of|dispos(?:e|ing) of|hid(?:e|ing)|dump(?:ing)?|bur(?:y|ying)|dissolv(?:e|ing)|(?:cut|chop)(?:ting|ping)?(?: up)?|dismember(?:ing)?|destroy(?:ing)?|burn(?:ing)?) (?:a|the|this|that|an?) (?:\w+(?:'s)? )?(?:dead |human )?(?:body|corpse)(?=\s*(?:$|[,:)]|\b(?:without|in|so|before|after|and|at|with|from|under|of (?:a|the|my)|quickly|fast|safely|is|for|where|nobody|that)\b))|\bdead (?:body|guy|man|woman|girl|person|boss|wife|husband)\b.{0,20}\bin (?:my|the) (?:bath\w*|car|trunk|house|basement|garage|fridge|freezer|closet|cellar|yard|garden)",
            ),
            r"\b(?:morgue|funeral|cremat\w*|autopsy|hospital|mortuary|embalm\w*|forensic\w*|cadaver lab|anatomy|dissect\w*|infecti\w*|ebola|toxins?|fat|odou?r|hair|heat|pain|lice|warts?|drug)\b",
        ),
        "harms somebody (en)": Rule(
            "acid|bruis|marks|evidence|disfigure|torture|blind|cripple",
            (
                r"\b(?:throw|splash|pour)(?:ing)? (?:\w+ )?acid\b.{0,30}\b(?:face|her|him|them|someone)|\bacid (?:in|into|on|at) (?:her|his|their|someone's|my \w+(?:'s)?) face|\b(?:beat|hit|hurt|punch|slap|torture)(?:ing)? (?:up )?(?:my|her|him|a|someone|the|his)\b.{0,40}\b(?:without|no|not|never|don't)\b.{0,25}\b(?:bruis\w*|marks?|evidence|traces?)|\b(?:how|want|going|plan) to (?:disfigure|cripple|blind|maim|torture) (?:my|her|him|a|someone)",
                _HOW,
            ),
            r"\b(?:was|were|been|victims?|burn treatment|surviv\w*|patients?|reflux|stomach|peels?|exfoliat\w*)\b",
        ),
        "poisons a drink (en)": Rule(
            "coffee|tea|drink|food|cup|soup|meal|beer|wine|dinner|water bottle|lunch",
            (
                r"\b(?:put|slip|mix|drop|add|pour|spike|sneak|crush|lace)(?:ping|ping|ting|ing)?\b.{0,40}\b(?:my|his|her|their|someone's|somebody's|the) ?(?:[\w'-]+ )?(?:[\w'-]+ )?(?:coffee|tea|drinks?|food|cup|soup|meal|beer|wine|dinner|water bottle|lunch)\b",
                r"\b(?:sick|ill|poison\w*|dies?|death|pass(?:es)? out|knock\w*|unconscious|suffers?|diarrh\w*|laxatives?|miscarr\w*|out cold|harm|hurt|faint|throw up|vomit)\b",
                r"\b(?:what|how|which|want|can i|could i|without|secretly|to make)\b",
                rf"\b(?:{_PERSON}|roommate's|boss's|husband's|wife's|neighbou?r's|colleague's|coworker's|teacher's|in-law's|ex's|friend's|his|her|their|someone's)",
            ),
            r"\b(?:someone (?:put|slipped)|spiked my|my (?:own )?(?:coffee|tea|drink|food|cup)|was|been|toddler|formula|sugar|diabet\w*|patients?|medicine|pills? (?:is|are)|supplements?|tube|crush(?:ed)? (?:pills|tablets))\b",
        ),
        "plans a massacre (en)": Rule(
            "as many|mass shooting|mass murder|massacre|crowd|shoot up|blow up|run over people|set fire|bomb",
            (
                r"\b(?:hurt|kill|harm|injure|shoot|stab|murder) as many (?:people|students|kids|of them|of you)|\b(?:plan|commit|carry out|do|planning|start)\w* (?:a |an )?(?:mass (?:shooting|murder|killing|stabbing)|massacre|school shooting)|\b(?:blow|shoot)(?:ing)? up (?:a|the|my|our|this|his|her) (?:\w+ )?(?:school|hospital|building|station|church|mosque|synagogue|mall|office|car|house|clinic|train|bus|plane)|\b(?:drive|run) (?:a (?:car|truck) )?(?:into|over) (?:a |the )?(?:crowd|people)|\bset fire to (?:a|the|my) (?:\w+ )?(?:school|house|church|mosque|hospital|building|office)",
                r"\b(?:how|want|plan|going to|i will|i'll|best|where|what|help|let's|should i|easiest)\b",
            ),
            r"\b(?:wounded|injur\w*|victims?|surviv\w*|ptsd|thoughts?|hallucinat\w*|afraid|nightmares?|airbag|treat\w*)\b",
        ),
        "asks how long to choke (en)": Rule(
            "pillow|plastic bag|rope|choke|strangl|suffocat|throat|smother",
            (
                r"\b(?:pillow|plastic bag|rope|belt|hands?|cord)\b.{0,20}\b(?:over|around|on)\b.{0,25}\b(?:face|neck|throat|head|mouth)\b.{0,30}\b(?:until|stops?|dies?|dead|death)|\b(?:choke|strangle|suffocate|smother) (?:someone|somebody|a person|him|her|my (?:wife|husband|ex|boss|girlfriend)|a (?:man|woman|girl|guy))\b.{0,30}\b(?:until|dies?|dead|death|long|out)",
                r"\bhow\b|\bto (?:kill|die|death)\b|\bwant\b|\bbest\b",
            ),
            r"\b(?:baby|infants?|newborn|sleep apn\w*|lumps?|hurts|pain|accident\w*|cpr|rescue|heimlich|child|first aid|forensic)\b",
        ),
        "kills a pet (en)": Rule(
            "dog|cat",
            (
                r"\b(?:poison|kill|shut up|silence|get rid of)\b.{0,20}\b(?:neighbou?r'?s?|next door'?s?|stray|barking|their|his|her)\b.{0,15}\b(?:dogs?|cats?)\b|\b(?:next door's|neighbou?r's|stray|barking) (?:dogs?|cats?)\b.{0,20}\b(?:never barks?|dies?|dead|gone for good|for ever|forever)|\b(?:torture|hurt|skin|burn)(?:ing)? (?:a |the |stray )?(?:cats?|dogs?|kittens?|puppy|puppies)\b",
                r"\b(?:how|what|which|want|way|best|bait|mix|teach|videos?)\b",
            ),
            r"\b(?:rabies|fleas?|bite|bites|bit|bitten|vet|allerg\w*|scratch\w*|ate|eaten|ticks?|worms?)\b",
        ),
        "hires a killer (en)": Rule(
            "hire|pay|contract killer|assassin|hitman|hitmen",
            (
                r"\b(?:hire|hiring|pay|paying|find|finding|contact)\b.{0,20}\b(?:hit ?m[ae]n|assassins?|contract killers?|(?:someone|somebody|a guy|people|a man) (?:to|who (?:will|would|can)) (?:kill|murder|hurt|beat|get rid|shoot|stab|break))",
            ),
            r"\b(?:delusion\w*|afraid|believes?|paranoi\w*|game|film)\b",
        ),
        "knocks somebody out (en)": Rule(
            "knock|roofie|unconscious|pass out|drug a|drug her|drug my|spike",
            (
                r"\b(?:knock|put|drug|roofie|spik)(?:s|e|ing|ed)?\b.{0,15}\b(?:a girl|girls|a woman|women|her|my (?:date|wife|girlfriend|sister|co-?worker|classmate|neighbou?r)|someone|somebody|a guy)(?: out|'s drink|\b)|\b(?:girl|woman|her|date|someone|somebody|chick)\b.{0,15}\b(?:unconscious|pass(?:es)? out|knocked out)",
                r"\b(?:remembers?|unconscious|pass(?:es)? out|out cold|knocks?\b.{0,12}\bout|drops|drug|roofie|spike)\b",
                r"\b(?:how|where|what|which|need|want|buy|get|sell|best|without)\b",
            ),
            r"\b(?:was|were|been|anesth\w*|anaesth\w*|surgery|victims?|hospital|think|seizures?|symptoms?|test\w*|dr|fainted|faint|collapsed|emergency|help)\b",
        ),
    },
    "hate": {
        "despises a group, freely (en)": Rule(
            "inferior|subhuman|less than human|vermin|rats|savages|parasites|apes|monkeys|scum|filth|dirty|a disgrace|a disease on|a plague|trash|garbage|primitives|degenerates|perverts|abomination|an abomination|lazy|should be|should all be|should hang|should burn|should rot|should die|should not be al|should never be al|not be alive|not be allowed|never be alive|never be allowed|deserve|waste|too stupid|too dumb|too emotional|too lazy|too weak|so stupid|so dumb|so lazy|belong|run everything|runs everything|control everything|own everything|run the|control the|own the|owns the|controls the|let them die|leave them die|go back to the|go back to where|less intelligent|lower iq|only good for|are criminals|are thieves|are terrorists|are rapists|are liars|are evil|are animals|are stupid|are whores|are dirty|are all",
            (_GROUP + r"(?:(?! (?:who|with|whose) ).){0,40}\b" + _CONTEMPT,),
            _NO_CONTEMPT,
        ),
        "despises them (en)": Rule(
            "savages|subhuman|scum|shot|worth less|less than dogs|less than animals|gassed|hanged|sent back|perverts|bad genes|whole race|their race|that race",
            (
                r"\b(?:worth|are) less than (?:dogs?|animals|pigs|rats|dirt)\b|\b(?:they|these people|those people|their kind|that kind|this race|their race)(?:'re| are| is| should| must| deserve)\b.{0,25}\b(?:savages|subhumans?|scum|perverts|(?:be )?(?:sent back|shot|gassed|hanged))\b|\b(?:those|these) (?:perverts|savages|subhumans?|freaks|cripples)\b.{0,15}\b(?:should|must|deserve)|\b(?:whole|their|that) race\b.{0,12}\b(?:is|should|has)\b.{0,12}\b(?:dirty|bad|die|wiped|lower|inferior|stupid|lazy)",
            ),
            _NO_CONTEMPT + r"|\b(?:dogs?|horses?|photo\w*|photos|pictures|films?)\b",
        ),
        "belittles women (en)": Rule(
            "female brain|women's brain|woman's brain|in the kitchen|good for sex|good for cook|good for having|good for breeding|female mind",
            (
                r"\b(?:female|women's|woman's) (?:brains?|minds?)\b.{0,12}\b(?:too|weak\w*|inferior|not made|cannot|can't|incapable|lesser)|\b(?:they|she|women|woman|females?|girls)\b.{0,15}\b(?:belongs?|should stay|should be|stay) in the kitchen|\b(?:women|females|girls|they)\b.{0,12}\bonly good for\b",
            ),
            r"\b(?:myth|wrong|sexis\w*|not true|smaller volume|study|studies|mri|pain|burn\w*)\b",
        ),
        "praises genocide (en)": Rule(
            "hitler|nazi|holocaust|ethnic cleansing|genocide|gas chamber",
            (
                r"\bhitler\b.{0,25}\b(?:right(?!-| hand)|good|great|hero|genius|should have|finish\w*)|\b(?:nazis?|holocaust|ethnic cleansing|genocide)\b.{0,20}\b(?:were right|was right|good|great|necessary|should (?:happen|come)|justified|a hoax|fake)|\b(?:bring back|open up|support|back to)\b.{0,12}\b(?:gas chambers?|nazis?|ethnic cleansing|genocide)",
            ),
            r"\b(?:wrong|not|never|evil|crimes?|surviv\w*|doctors' trial|ethics)\b",
        ),
    },
    "self-harm": {
        "asks for a way to die (en)": Rule(
            "ending|end it|end my life|end your life|end one's life|kill myself|kill yourself|leaving this|leave this|suicide|die|dying|kill me|wake|pass away|passing away|go quietly|go peacefully|go in my sleep",
            (
                rf"\b(?:gentle|gentlest|peaceful|easy|quick|best|good|reliable|sure|painless|effective|certain|fast|cleanest|simple|foolproof)\w*(?: and \w+)? (?:method|way|means|option|plan)s?\b.{{0,20}}\b{_END}|\b(?:which|what|how many|how much|what kind of|what dose)\b.{{0,30}}\b(?:pills?|tablets?|drugs?|medicines?|medications?|meds|charcoal|insulin|pesticides?|poisons?|helium|gas|dose)\b.{{0,60}}\b{_END}|\b(?:take|swallow|drink)(?:ing)? (?:them |it )?all\b.{{0,25}}\b{_END}|\bhelp me\b.{{0,12}}\b(?:end it all|end my life|kill myself|die)\b|\b(?:what|which|list|tell me|give me)\b.{{0,16}}\b(?:methods?|ways?) (?:of|to commit) suicide (?:are there|should i|can i|could i|do you|exist|work)|\bhow (?:many|much) (?:\w+ ){{1,3}}(?:will|would|to|can|could|must i take to|do i need to|should i take to)\b.{{0,6}}\b(?:kill me|kill myself|die)\b|\bmethods? (?:of|for|to) (?:commit(?:ting)? )?suicide\b.{{0,20}}\b(?:best|painless|quick|recommend|easy|fast)",
            ),
            _NOT_ALONE + r"|\b(?:bacteria|germs|cells|people die|children|hot ?flashes|night|sleep better)\b",
        ),
        "asks how a way to die works (en)": Rule(
            "jump|hang myself|hang yourself|hanging|noose|wrist|vein|bleed out|charcoal|carbon monoxide|exhaust|arteries|artery|bridge",
            (
                r"\bhow (?:high|many (?:floors?|stor(?:e?ys?|ies)|met(?:er|re)s|feet))\b.{0,60}\bjump\w*\b.{0,30}|\bjump\w*\b.{0,40}\b(?:how high|how many floors|die for sure|certain death|instantly)|\bhang (?:myself|yourself|oneself)\b.{0,40}\b(?:knot|rope|noose|how|quickest|how long|painless)|\b(?:knot|noose|rope|how|quick\w*)\b.{0,30}\bhang (?:myself|yourself|oneself)|\b(?:cut|slit|slash)(?:ting)? (?:my|your|the) (?:wrists?|veins?|arter(?:y|ies))\b.{0,40}\b(?:across|length\w*|how deep|vertical\w*|horizontal\w*|bleed out|die|works?)|\bhow (?:deep|long)\b.{0,40}\bbleed out\b.{0,30}\b(?:wrists?|myself|veins?|arter\w+)|\b(?:charcoal|carbon monoxide|exhaust)\b.{0,50}\b(?:never wake|to die|kill myself|end it|don't wake|painless)",
                r"\b(?:die|dead|death|kill|hang|noose|cut|slit|slash|bleed|never wake|painless|end it|for sure|fatal|not survive|instantly|works?)\b",
            ),
            _NOT_ALONE
            + r"|\b(?:parachute|rope exercise|jump rope|trampoline|fell|fall|landed|nerve|tendon|bungee|suture\w*|bandage|blood test|draw)\b",
        ),
        "asks which poison to take (en)": Rule(
            "pesticide|poison|herbicide|rat poison|pills|antifreeze|cyanide|insulin",
            (
                r"\b(?:which|what)\b.{0,15}\b(?:pesticide|poison|herbicide|pills?)\b.{0,30}\b(?:nobody|no one|can't|cannot|not)\b.{0,20}\b(?:be )?(?:saved?|survive|surviving|wake)|\bhow (?:much|many)\b.{0,15}\b(?:pesticide|rat poison|poison|antifreeze|cyanide|insulin|sleeping pills)\b.{0,25}\b(?:should i|must i|do i|to)\b.{0,15}\b(?:die|end|kill (?:me|myself)|never wake)",
            ),
            _NOT_ALONE + r"|\b(?:poisoning|weeds?|insects?|bugs?|crops?|pets?)\b",
        ),
        "talks somebody into it (en)": Rule(
            "end it|kill yourself|die already|jump already|without you|hates you|end your life|go die",
            (
                r"(?:\b(?:just|you should|go ahead and|why don't you|please|better)|^go|^) ?(?:end it already|kill yourself|die already|jump already|end your life|go die)\b|\b(?:world|we|everyone|family) (?:is|are|would be|will be) better (?:off )?without you|\bevery(?:one|body) hates you\b",
            ),
            r"\b(?:don't|do not|never|thoughts?|voices?|tells? me|told me|says?|said|feel|bull\w*|before you)\b",
        ),
    },
    "weapons-and-drugs": {
        "makes a drug (en)": Rule(
            "cold medicine|cold pills|pseudoephedrine|sudafed|cough syrup|ephedrine|cough medicine|meth|crack|lsd|mdma|dmt|ghb|fentanyl|ecstasy|heroin|cocaine",
            (
                r"\b(?:cold medicines?|cold pills|pseudoephedrine|sudafed|cough (?:syrup|medicine)|ephedrine)\b.{0,60}\b(?:meth\w*|get high|speed|sell|party|crystal|street)\b|\b(?:how|teach|explain|recipe|instructions|steps|guide|show)\b.{0,25}\b(?:is |are )?(?:make|making|made|cook|cooked|cooking|synthesi[sz]ed?|synthesi[sz]ing|produced?|brew)\b.{0,20}\b(?:meth|methamphetamine|crack|lsd|mdma|dmt|ghb|fentanyl|ecstasy|heroin|cocaine)\b|\b(?:how)\b.{0,6}\b(?:is|are)\b.{0,4}(?:meth|crack|lsd|mdma|dmt|ghb|fentanyl|ecstasy|heroin|cocaine)\b.{0,15}\b(?:made|cooked|synthesi[sz]ed|produced)\b.{0,12}\bat home",
                r"\b(?:turn|convert|extract|cook|make|making|made|sell|synthesi\w*|how|recipe|produc\w*|brew)",
            ),
            r"\b(?:avoid|interact\w*|restrict\w*|laws?|congest\w*|withdrawal|addict\w*|symptoms?|overdos\w*|treat\w*|babies|depend\w*|crackles?|sleepy|drowsy|feel|last|metaboli\w*|detect\w*|damage|pain|liver|patients?|pregnan\w*)\b",
        ),
        "grows a drug (en)": Rule(
            "weed|marijuana|cannabis|poppies|poppy|mushrooms|coca ",
            (
                r"\b(?:grow|growing|cultivat\w+|plant(?:ing)?|farm(?:ing)?)\b.{0,20}\b(?:weed|marijuana|cannabis|opium|popp(?:y|ies)|(?:magic|psychedelic) mushrooms|shrooms|coca)\b|\b(?:weed|marijuana|cannabis|opium|shroom)\b.{0,12}\b(?:grow(?:ing)? (?:tent|room|lamps?|lights?)|plantation|seeds)",
                r"\b(?:how|which|what|where|lamps?|lights?|basement|closet|deal(?:ing)?|sell|seeds?|tips|indoors?|teach|home)\b",
            ),
            r"\b(?:allerg\w*|medical|medicinal|research|asthma|legal|epilep\w*|seizures?|weed killer|garden|farmers?|cbd|hay fever)\b",
        ),
        "trades in drugs (en)": Rule(
            "molly|ice|coke|weed|blow|meth|crystal|heroin|xanax|oxy|fentanyl|ketamine|lsd|acid tab|shrooms|magic mushrooms|mdma|ecstasy|cocaine|crack|ghb|roofie|rohypnol|speed|hash|opium",
            (
                r"\b(?:got|have|need|selling|sells?|buy|buying|score|plug for|order|want|get|deal|dealing|deliver\w*|menu)\b.{0,25}"
                + _DRUG
                + "|"
                + _DRUG
                + r".{0,25}\b(?:for sale|deliver\w*|menu|per gram|wholesale|dealer|supplier)",
                r"\b(?:cash|dealers?|meet\w*|(?:per |a |few )(?:grams?|ounces?|kilos?)|cost|bulk|discreet\w*|ship(?:s|ped|ping)?|wholesale|menu|deliver\w*|telegram|dark ?web|dark ?net|bitcoin|crypto|suppliers?|plug|for sale|at the club|party tonight)\b",
            ),
            r"\b(?:overdos\w*|addict\w*|withdraw\w*|treat\w*|patients?|an[a]?esth\w*|depress\w*|symptoms?|packs?|swelling|compress|infusions?|clinic|ice cream|diet coke|babies|baby|trial|dose|doctor|delivery room|labou?r|pregnan\w*|blood|heart)\b",
        ),
        "smuggles (en)": Rule(
            "on a plane|on the plane|onto a plane|smuggl|past customs|through customs|airport security|drug dog|sniffer dog|across the border|trafficking",
            (
                r"\b(?:take|bring|carry|get|sneak)\b.{0,12}\b(?:drugs|cocaine|heroin|weed|meth|pills|guns?)\b.{0,12}\b(?:on|onto) (?:a|the) plane\b.{0,20}\b(?:caught|found|notic\w*|detect\w*)|\bsmuggl\w*\b.{0,40}\b(?:drugs?|pills|cocaine|heroin|weed|meth|guns?|weapons?|across|border|customs|airport)|\b(?:drugs?|pills|cocaine|heroin|weed|meth|guns?|weapons?)\b.{0,30}\b(?:past|through|across)\b.{0,12}\b(?:customs|airport security|security|border|drug dogs?|sniffer dogs?)",
                r"\b(?:how|want|best|way|help|hide|teach|without|where)\b",
            ),
            r"\b(?:body pack\w*|pack(?:er|ers)|ruptur\w*|x-rays?|ct|obstruct\w*|victims?|children|prescri\w*|insulin|needles|fly|flying|travel\w*)\b",
        ),
        "makes explosives (en)": Rule(
            "tnt|dynamite|semtex|gunpowder|black powder|fertilizer|fertiliser|ammonium nitrate|fireworks|explosive|detonat|bomb|grenade|thermite|napalm|molotov|nails",
            (
                r"\b(?:materials?|ingredients?|recipe|how)\b.{0,20}\b(?:for|make|build|produce)\b.{0,6}\b(?:tnt|c4|dynamite|semtex|bombs?|explosives?)\b|\b(?:gunpowder|black powder|fertili[sz]er|ammonium nitrate|fireworks?|nails)\b.{0,40}\b(?:pipe|tube|bomb|blow up|explode|detonate|crowd|explosives?|hurt|kill)\b|\b(?:how|teach|explain|recipe|instructions|steps|guide|want)\b.{0,30}\b(?:make|making|build|building|construct|assemble|mix|set off|detonate|improvise)\b.{0,25}\b(?:bombs?|grenades?|explosives?|detonators?|thermite|napalm|molotovs?|ieds?|black powder|gunpowder)\b",
                r"\b(?:how|which|what|make|making|build|fill|mix|want|recipe|instructions|teach|explain|steps|guide)\b",
            ),
            r"\b(?:burn\w*|injur\w*|hand|eyes?|wounds?|accident\w*|bath bombs?|bomb calorimeter|fingers?|nitroglycerin|skin|soil|plants|nail (?:bed|fungus|polish)|toe\w*|healthy|salt|diet)\b",
        ),
        "gets a gun (en)": Rule(
            "gun|pistol|rifle|firearm|silencer|weapon|full auto|full-auto",
            (
                r"\b3d[- ]?print\w*\b.{0,30}\b(?:guns?|pistols?|rifles?|firearms?|weapons?|silencers?|receivers?)\b|\b(?:guns?|pistols?|rifles?|firearms?)\b.{0,20}\b(?:blueprints?|3d[- ]?print\w*)|\b(?:convert|modify|turn|make)\b.{0,20}\b(?:guns?|pistols?|rifles?|ar-?15)\b.{0,20}\bfull[- ]auto\w*|\b(?:make|build|assemble)\b.{0,6}\b(?:my own|a|an|your own|homemade|some) (?:homemade |working |real )?(?:guns?|pistols?|rifles?|firearms?)\b|\b(?:make|build|buy)\b.{0,12}\b(?:a |an )?(?:silencer|untraceable (?:gun|pistol)|ghost gun|illegal (?:gun|firearm|pistol|weapon))s?\b|\b(?:buy|get|find|order)\b.{0,12}\b(?:a |an )?(?:gun|pistol|rifle|firearm)s?\b.{0,25}\b(?:without (?:a |any )?(?:license|licence|background|permit|papers|id)|black market|dark ?web|illegally)",
            ),
            r"\b(?:wounds?|gunshot|nail gun|massage gun|glue gun|heat gun|biopsy gun|radar gun|prosthe\w*)\b",
        ),
        "spreads poison (en)": Rule(
            "date rape|toxic|poison|nerve agent|chlorine|mustard gas|sarin|ricin|anthrax|cyanide|nerve gas|water supply|bioweapon|tear gas",
            (
                r"\b(?:releas\w*|spread\w*|pump\w*|dispers\w*|put(?:ting)?|spray\w*|aerosoli[sz]\w*)\b.{0,25}\b(?:toxic|poison(?:ous)?|nerve|chlorine|mustard|sarin|ricin|anthrax|cyanide)\b.{0,50}\b(?:malls?|subway|metro|ventilation|crowd\w*|buildings?|schools?|stations?|air (?:ducts?|vents?)|vents?|water supply|reservoir|office|theat(?:er|re))\b|\b(?:make|making|prepare|preparing|brew|mix|concoct)\b.{0,6}\b(?:a |an |some |my own )?(?:deadly |lethal |strong |own |date rape )?(?:poison\b(?! ivy)|drugs?\b(?<=rape drug))|\bpoison(?:ing)? (?:the|a|our|my) (?:\w+(?:'s)? )?(?:water supply|reservoir|wells?|town)\b|\b(?:make|making|produce|extract|brew|culture|weaponi[sz]e)\w*\b.{0,20}\b(?:ricin|sarin|anthrax|nerve (?:gas|agents?)|(?:poison|toxic) gas|mustard gas|chlorine gas|bioweapons?|cyanide)\b",
                r"\b(?:how|would|want|best|way|can i|could|plan|where|teach|explain|recipe|instructions)\b",
            ),
            r"\b(?:inhal\w*|expos\w*|leak\w*|accident\w*|symptoms?|treat\w*|antidotes?|vaccin\w*|poisoning|decontaminat\w*|spores?|infection|bleach|safe|avoid|castor|detect|pool|body)\b",
        ),
    },
}
"""By category, a name that a decision can show, and the rule. Names end in "(en)"."""
