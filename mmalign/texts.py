"""One normal form for all texts that are compared: what differs only in how it is typed is the same text."""

import re
import unicodedata

SINGLE_QUOTES = "‘’‚‛`´′ʼ＇"
DOUBLE_QUOTES = "“”„‟«»″〝〞＂"
_SIGNS = str.maketrans(
    {
        **dict.fromkeys(SINGLE_QUOTES, "'"),
        **dict.fromkeys(DOUBLE_QUOTES, '"'),
        **dict.fromkeys("‐‑‒–—―−﹣－", "-"),
        "⁄": "/",
        "∕": "/",
        "…": "...",
    }
)


def normal(text: str) -> str:
    r"""A text as it is compared: NFKC, case folded, straight quotes, plain dashes, single spaces, nothing invisible.

    Fractions keep their distance from what stands before them: "3½" is "3 1/2" and no "31/2".

    >>> normal("“It’s  OPEN” – café"), normal("cafe\u0301") == normal("CAFÉ")
    ('"it\'s open" - café', True)
    """
    return _plain(text, fold=True)


def _plain(text: str, *, fold: bool) -> str:
    # Before NFKC, which takes some of these signs for a space and an accent.
    text = re.sub(r"(?<=\d)([¼-¾⅐-⅞])", r" \1", text).translate(_SIGNS)
    text = unicodedata.normalize("NFKC", text)
    text = unicodedata.normalize("NFKC", text.casefold() if fold else text.lower())
    seen = (c for c in text.translate(_SIGNS) if unicodedata.category(c) != "Cf" and c not in "\ufe0e\ufe0f")
    return " ".join("".join(seen).split())


def plain_prompt(prompt: str) -> str:
    """A prompt without what does not make it another one: its normal form, without a full stop at the end.

    >>> plain_prompt("  A red   Circle. "), plain_prompt("the dog’s") == plain_prompt("The dog's")
    ('a red circle', True)
    """
    return normal(prompt).rstrip(".").rstrip()


def latin_digits(text: str) -> str:
    """A text with the digits of every script as 0 to 9.

    >>> latin_digits("٤ of ५")
    '4 of 5'
    """
    return "".join(str(unicodedata.digit(c)) if unicodedata.category(c) == "Nd" else c for c in text)


def letters(text: str) -> str:
    """A text in its normal form without spaces, which no reader of pictures tells apart reliably.

    >>> letters("Open  LATE")
    'openlate'
    """
    return "".join(normal(text).split())


def words(text: str, *, english: bool = True, fold: bool = True) -> list[str]:
    """A text as a recogniser writes it: its normal form, no punctuation but apostrophes inside words.

    >>> words("Don't stop - the MUSIC!"), words("“21 cats”, 50 % off")
    (["don't", 'stop', 'the', 'music'], ['twenty', 'one', 'cats', 'fifty', 'percent', 'off'])

    Args:
        text: any.
        english: numbers, "&" and "%" as English words; whole numbers up to a million million, others digit by digit
            from the point on. Years are read as numbers.
        fold: as ``str.casefold``, for which "ß" is "ss"; otherwise lower case.
    """
    text = latin_digits(_plain(text, fold=fold))
    if english:
        text = _spelt_out(text)
    kept = (c if c == "'" or not unicodedata.category(c).startswith(("P", "S")) else " " for c in text)
    return [bare for word in "".join(kept).split() if (bare := word.strip("'"))]


# A pair of different signs is a quotation whatever stands beside it; a straight one may also be a mark of inches.
_PAIRED = re.compile(
    r"“([^“”]*)”|„([^„“”]*)[“”]|”([^“”„]*)”|«([^«»]*)»|»([^«»]*)«|「([^「」]*)」|『([^『』]*)』|＂([^＂]*)＂|〝([^〞]*)〞"
)
_STRAIGHT = re.compile(r'(?<!\d)"(\s*|\S(?:[^"]*\S)?)"')
_LOOSE = re.compile(r'(?<!\d)(?<!\d\s)"([^"]*)"')
_SINGLE = re.compile(r"‘(.+?)’(?!\w)|‚([^‚‘]*)‘|‹([^‹›]*)›|(?<!\w)'(\S(?:.*?\S)?)'(?!\w)")


def quoted_texts(prompt: str) -> list[str]:
    """Every text that a prompt has between quotation marks, in order; single ones count where there are no double ones.

    A mark after a digit is one of inches, and one inside a word an apostrophe.

    >>> quoted_texts('a 24" screen that shows "Open" and “Late”'), quoted_texts("the dog's sign says 'don't run'")
    (['Open', 'Late'], ["don't run"])
    """
    double = [*_PAIRED.finditer(prompt)]
    inside = [match.span() for match in double]
    outside = "".join(
        " " if any(start <= place < end for start, end in inside) else c for place, c in enumerate(prompt)
    )
    straight = [*_STRAIGHT.finditer(outside)] or [*_LOOSE.finditer(outside)]
    found = sorted([*double, *straight], key=lambda match: match.start())
    found = found or [*_SINGLE.finditer(prompt)]
    return [next(group for group in match.groups() if group is not None) for match in found]


_SMALL_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = _SMALL_WORDS.split()
_LARGE = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
}
_ORDINALS |= {"twelve": "twelfth"}
_NUMBER = re.compile(
    r"(?P<sign>[$£€])?(?<![\w.])(?P<whole>\d{1,3}(?:,\d{3})+|\d{1,12})(?P<part>\.\d+)?(?:(?P<nth>st|nd|rd|th)\b|(?!\w|\.\d))"
    r"(?P<percent>\s?%)?"
)
_CURRENCIES = {"$": "dollar", "£": "pound", "€": "euro"}


def spelt(number: int) -> str:
    """A whole number below 10^12 in English, without "and".

    >>> spelt(21), spelt(1_205)
    ('twenty one', 'one thousand two hundred five')
    """
    if number < 20:
        return _SMALL[number]
    if number < 100:
        rest = number % 10
        return _TENS[number // 10 - 2] + (f" {_SMALL[rest]}" if rest else "")
    size, name = next((size, name) for size, name in _LARGE if number >= size)
    rest = number % size
    return f"{spelt(number // size)} {name}" + (f" {spelt(rest)}" if rest else "")


def _spelt_out(text: str) -> str:
    def read(found: re.Match[str]) -> str:
        digits = found["whole"].replace(",", "")
        whole = int(digits)
        said = [spelt(whole)] if str(whole) == digits else [_SMALL[int(digit)] for digit in digits]
        if found["part"]:
            said += ["point", *(_SMALL[int(digit)] for digit in found["part"][1:])]
        if found["nth"]:
            said[-1] = _ordinal(said[-1])
        if found["sign"]:
            said.append(_CURRENCIES[found["sign"]] + ("" if whole == 1 and not found["part"] else "s"))
        return f" {' '.join(said)}{' percent' if found['percent'] else ''} "

    return _NUMBER.sub(read, text).replace("&", " and ")


def _ordinal(spoken: str) -> str:
    first, _, last = spoken.rpartition(" ")
    last = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return f"{first} {last}".strip()
