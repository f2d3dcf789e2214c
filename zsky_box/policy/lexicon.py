"""The words of the rule that cannot be switched off: what denotes a minor, and what denotes sexual content.

Terms are separated by commas; a final `*` stands for any ending, `#` for a number under eighteen (before letters: in
one word with them). Inflections are listed where an ending would reach too far: infantry, noodles and calories begin
or end like a listed word. Words that mean something else in another language count only beside others of their own
(`here`).
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

Kind = Literal["child", "young", "sexual", "suggestive", "alone", "harmless"]


class Lexicon(Struct, frozen=True, kw_only=True):
    """One language's terms. `young` are said of minors and of adults; `alone` mean sexual content with minors by
    themselves; `harmless` are phrases that hold a listed word and mean something else. `here` lists the terms that
    count only beside others of this language."""

    child: str
    young: str
    sexual: str
    suggestive: str = ""
    alone: str = ""
    harmless: str = ""
    here: str = ""


NUMBERS: Final = """
one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
ein eins zwei drei vier fünf funf sechs sieben acht neun zehn elf zwölf zwolf dreizehn vierzehn fünfzehn funfzehn
sechzehn siebzehn un deux trois quatre cinq sept huit neuf dix onze douze treize quatorze quinze seize
uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete
due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici diciassette
dois três quatro sete oito dez doze treze dezesseis dezessete een twee drie vijf zes zeven tien twaalf dertien
veertien vijftien zestien zeventien
"""

LEXICON: Final[dict[str, Lexicon]] = {
    "en": Lexicon(
        child="""child, childs, children, kid, kids, toddler*, infant, infants, newborn*, baby, babies, babys, preteen*,
        pre teen, pre teens, tween, tweens, teen, teens, teenage, teenaged, teenager*, adolescen*, underage*, under age,
        minors, prepubescent, pubescent, schoolgirl*, schoolboy*, schoolchild*, schoolkid*, school girl*, school boy*,
        little girl*, little boy*, small girl*, small boy*, young girl*, young boy*, kindergart*, preschool*, middle
        schooler*, grade schooler*, first grader*, second grader*, third grader*, fourth grader*, fifth grader*, sixth
        grader*, seventh grader*, eighth grader*, loli, lolis, lolita*, shota, shotas, pedo, pedos, pedophil*,
        paedophil*, under 18, under eighteen, below 18, under the age of 18, # year old*, # years old, # yr old*, # yrs
        old, # yo, # y o, # years of age, # month old*, # months old, # week old*, # weeks old, # yrs, # st grade*, # nd
        grade*, # rd grade*, # th grade*, a minor, minor girl*, minor boy*, kiddo, kiddos, kiddie, kiddies,
        teenybopper*, teeny bopper*, aged #, age #, ages #, age of #""",
        young="""girl, girls, boy, boys, daughter*, granddaughter*, stepdaughter*, grandson*, niece*, nephew*,
        youngster*, childlike, barely legal, very young, too young, high school*, highschool*, middle school*,
        junior high*, elementary school*, primary school*, school uniform*""",
        sexual="""nude, nudes, nudity, nudist*, naked, nakedness, topless, undressed, undressing, unclothed, disrobed,
        without clothes, without any clothes, without clothing, no clothes, no clothing, wearing nothing, birthday suit,
        bare breasted, bare bottom, breasts, boobs, tits, nipple, nipples, genital*, penis, penises, vagina, vaginas,
        vulva*, crotch, sex, sexual*, intercourse, orgasm*, masturbat*, blowjob*, blow job*, cumshot*, dildo*, porn,
        porno*, pornstar*, nsfw, hentai, ecchi, erotic*, fetish*, bdsm, bondage, rape, raped, molest*, undress,
        undresses, fuck*, cum, cumming, pussy, anal, anus, clit, clitoris, semen, ejaculat*, handjob*, hand job*,
        gangbang*, threesome*, deepthroat*, cunt*, slut, sluts, slutty, whore*, prostitut*, fondle, fondled, fondles,
        fondling, groped, groping, making love, make love, makes love, no pants, without pants, no underwear, without
        underwear, no panties, without panties, skinny dip*, incest*, orgy, orgies, striptease*, stripper*, upskirt,
        horny, lewd""",
        suggestive="""sexy, sexier, sexiest, sensual*, seductive*, seducing, provocatively, provocative pose*, lingerie,
        underwear, undies, panties, thong, g string, busty, cleavage, micro bikini*, microbikini*, skimpy, scantily,
        wet t shirt*, see through dress*, see through shirt*, see through top*, see through clothes""",
        alone="childporn*, kiddieporn*, kiddyporn*, csam, lolicon*, shotacon*, jailbait*",
        harmless="""pussy willow*, pussy cat*, cum laude, make love not war, a minor key, a minor chord*, a minor
        scale*, a minor role, a minor character*, a minor detail*, naked mole*, naked eye*, naked flame*, naked light*,
        naked cake*, naked tree*, naked branch*, nude lipstick*, nude heels, nude tones, nude palette*, nude shades,
        nude makeup, nude nails, chicken breasts, turkey breasts, duck breasts, blue tits, great tits, coal tits, willow
        tits, crested tits, long tailed tits, bottle nipple*, same sex, opposite sex, single sex, rape field*, rape
        blossom*, rape flower*, oilseed rape, baby blue, baby pink, baby doll*, baby oil, baby bump*, baby grand, baby s
        breath, baby carrot*, baby corn, baby spinach, baby bird*, baby animal*, baby mice, baby mouse, baby rabbit*,
        baby hamster*, kid leather, kid glove*, kid goat*, boy band*, girl power""",
    ),
    "de": Lexicon(
        child="""kinder, kindern, kindes, kleinkind*, säugling*, jugendliche*, minderjährig*, schulmädchen*,
        schuljunge*,
        schulkind*, schülerin, schülerinnen, grundschüler*, kleines mädchen, kleine mädchen, kleinen mädchen*,
        junges mädchen, junge mädchen, kleiner junge, kleine jungen, kleinen jungen, baby, babys, teenager*,
        # jahre alt*, # jährig*, #jährig*, kind""",
        young="mädchen, mädchens, bub, buben, knabe, knaben, tochter, enkelin",
        sexual="""nackt, nackte, nackter, nacktes, nackten, nacktem, nacktheit, nacktbild*, nacktfoto*, entblößt*,
        unbekleidet*, barbusig*, ohne kleidung, ohne kleider, sexuell*, erotis*, geschlechtsverkehr, geschlechtsteil*,
        vergewaltig*, ficken, gefickt, titten""",
        alone="kinderporn*",
        suggestive="unterwäsche, dessous, reizwäsche, aufreizend*, lasziv*",
        harmless="nackte füße, nackten füßen, nackten fußes, nackte wand, nackte wände, nackte bäume",
        here="kind",
    ),
    "fr": Lexicon(
        child="""enfant, enfants, adolescen*, fillette*, garçonnet*, petite fille, petites filles, petit garçon,
        petits garçons,
        mineure, mineures, nourrisson*, écolier*, écolière*, collégienne*, lycéenne*, bébé, bébés, mineur, mineurs,
        gamin, gamins, gamine, gamines, ado, ados, # ans""",
        young="fille, filles, garçon, garçons",
        sexual="""nudité, dénudé, dénudée, dénudés, dénudées, déshabillé, déshabillée, déshabillés, déshabillées,
        sans vêtements, sexuel*, érotiq*, nu, nue, nus, nues, sexe, viol, seins""",
        suggestive="sous vêtement*, sensuel*",
        alone="pédopornograph*",
        harmless="""enfant terrible, enfants terribles, pieds nus, pied nu, tête nue, mains nues, même sexe, œil nu,
        oeil nu""",
        here="""bébé, bébés, mineur, mineurs, gamin, gamins, gamine, gamines, ado, ados, nu, nue, nus, nues, sexe,
        viol, seins""",
    ),
    "es": Lexicon(
        child="""niño, niña, niños, niñas, niñito*, niñita*, menores, menor de edad, colegiala*, quinceañera*,
        chiquill*,
        recién nacid*, # años""",
        young="muchacha, muchachas, muchacho, muchachos, jovencit*, hija, hijas, nieta, nietas, sobrina, sobrinas",
        sexual="desnud*, sexo, sin ropa, follar, follando, tetas",
        alone="pornografía infantil",
        suggestive="lencería, ropa interior, provocativa, provocativas, provocativo, provocativos",
        harmless="mismo sexo, pies desnudos, pie desnudo, árboles desnudos, ojo desnudo",
    ),
    "it": Lexicon(
        child="bambin*, adolescen*, ragazzin*, neonat*, minorenn*, fanciull*, # anni",
        young="ragazza, ragazze, ragazzo, ragazzi",
        sexual="nudità, sesso, senza vestiti, svestit*, nudo, nuda, nudi, tette",
        alone="pedopornograf*",
        suggestive="biancheria intima, mutandine, sensuale, sensuali",
        harmless="piedi nudi, piede nudo, occhio nudo, mani nude, stesso sesso",
        here="nudo, nuda, nudi",
    ),
    "pt": Lexicon(
        child="criança*, adolescen*, menininh*, menor de idade, recém nascid*, # anos",
        young="menina, meninas, menino, meninos, garota, garotas, garoto, garotos, filha, filhas, neta, netas",
        sexual="""nudez, sem roupa*, sexo, nu, nua, nus, nuas, pelado, pelada, pelados, peladas, foder,
        fodendo""",
        suggestive="calcinha*, roupa íntima, roupas íntimas",
        harmless="pés nus, olho nu, mesmo sexo",
        here="nu, nua, nus, nuas, pelado, pelada, pelados, peladas",
    ),
    "nl": Lexicon(
        child="""kinderen, kindje*, peuter*, kleuter*, tiener*, minderjarig*, schoolmeisje*, schooljongen*, jongetje*,
        klein meisje*, kleine meisje*, kleine jongen*, baby, babys, # jaar oud*, # jarig*, #jarig*, kind""",
        young="meisje, meisjes, jongen, jongens, dochter, dochters",
        sexual="naakt, naakte, naaktfoto*, zonder kleren, zonder kleding, seks, seksue*, bloot, blote",
        suggestive="ondergoed",
        harmless="blote voeten, blote oog",
        here="kind, bloot, blote",
    ),
    "ru": Lexicon(
        child="""ребен*, дети, детей, детям, детьми, детях, младен*, подрост*, школьниц*, школьник*, несовершеннолетн*,
        малолетн*, малыш*, девочк*, мальчик*, # лет, # летн*""",
        young="дочь, дочка, дочки, внучка, внучки, племянница, племянницы",
        sexual="""голый, голая, голое, голые, голых, голого, голой, голую, голыми, голышом, обнажен*, раздет*, нагая,
        нагой, нагие, порно*, секс, секса, сексе, сексом, сексуальн*, эротик*, эротич*, без одежды, трахать, трахает,
        трахают""",
        alone="детское порно, детская порнография, детской порнографии",
        suggestive="нижнее белье, нижнем белье, трусик*",
        harmless="голые деревья, голые ветви, голыми руками, голыми ногами",
    ),
    "zh": Lexicon(
        child="""儿童, 兒童, 小孩, 孩子, 女童, 男童, 幼女, 幼童, 萝莉, 蘿莉, 未成年, 小学生, 小學生, 初中生, 中学生,
        中學生, 婴儿, 嬰兒, 小女孩, 小男孩, 小朋友, # 岁, # 歲""",
        young="少女, 少年, 女孩, 男孩, 高中生",
        sexual="""裸体, 裸體, 全裸, 半裸, 赤裸, 裸照, 裸身, 裸女, 色情, 做爱, 做愛, 淫乱, 淫荡, 淫蕩, 没穿衣服,
        不穿衣服, 性交, 口交""",
        suggestive="性感, 内衣, 內衣, 内裤, 內褲",
        harmless="做爱心, 做愛心",
    ),
    "ja": Lexicon(
        child="""子供, 子ども, こども, 幼児, 児童, 赤ちゃん, 赤ん坊, 女子高生, 女子中学生, ショタ, ロリータ, ロリコン,
        # 歳""",
        young="女の子, 男の子, 高校生",
        sexual="ヌード, 裸の, 裸で, 真っ裸, 丸裸, 裸婦, ポルノ, セックス, エロい, エロティック, エロチック, おっぱい",
        suggestive="セクシー, 下着, パンティー, ランジェリー",
        harmless="ヌードル, ユニセックス, 裸の王様, 裸の木, 裸の枝",
    ),
    "ko": Lexicon(
        child="미성년, 어린이, 초등학생, 중학생, 아동, 여자아이, 남자아이, # 살",
        young="소녀, 소년",
        sexual="누드, 알몸, 나체, 음란, 포르노, 섹스, 성교",
        suggestive="섹시, 속옷, 란제리",
        harmless="누드톤, 유니섹스",
    ),
}
