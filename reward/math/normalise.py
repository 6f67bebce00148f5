r"""One way of writing for mathematical text: LaTeX, Unicode and Python forms of the same thing become the same string.

What comes out is a small LaTeX: ``\frac``, ``\sqrt``, ``\text{words}``, ``\lbrace``, ``\rbrace``, ``\degree``, ``\le``,
``\and``, ``\or``, ``\sep`` (wide space or line break), no ``$``, no sizes, one space at most. Left out: meaning.
"""

# ruff: noqa: RUF001 - signs that look alike are told apart here on purpose

from __future__ import annotations

import re

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "⁄": "/",
    "∕": "/", "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\R ",
    "ℤ": r"\Z ", "ℚ": r"\Q ", "ℕ": r"\N ", "ℂ": r"\C ", "°": r"\degree ", "º": r"\degree ", "…": r"\ldots ", "′": "'",
    "″": "''", "’": "'", "∠": r"\angle ", "△": r"\triangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ",
    "⌉": r"\rceil ", "∶": ":", "，": ",", "：": ":", "∖": r"\setminus ", "∨": r"\or ", "∧": r"\and ", "€": r"\euro ",
    "¢": r"\cents ",    "£": r"\pounds ", "¥": r"\yen ", "₹": r"\rupees ", "￥": r"\yen ", "∣": "|",
    "⟨": r"\langle ", "⟩": r"\rangle ",
    "％": "%", "Å": r"\AA ", "µ": r"\mu ",
}  # fmt: skip
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩϕϵ",
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "zeta",
            "eta",
            "theta",
            "iota",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "pi",
            "rho",
            "sigma",
            "tau",
            "upsilon",
            "phi",
            "chi",
            "psi",
            "omega",
            "Gamma",
            "Delta",
            "Theta",
            "Lambda",
            "Xi",
            "Pi",
            "Sigma",
            "Phi",
            "Psi",
            "Omega",
            "phi",
            "epsilon",
        ],
        strict=True,
    )
)
"""Greek letters, and the LaTeX command of each."""
_FRACTIONS = {"½": "12", "⅓": "13", "⅔": "23", "¼": "14", "¾": "34", "⅕": "15", "⅖": "25", "⅗": "35", "⅘": "45"}
_FRACTIONS |= {"⅙": "16", "⅚": "56", "⅛": "18", "⅜": "38", "⅝": "58", "⅞": "78", "⅐": "17", "⅑": "19"}
_TABLE = str.maketrans(
    _SYMBOLS
    | {letter: f"\\{name} " for letter, name in GREEK.items()}
    | {
        sign: rf"\frac{{{over}}}{{{under}}}"
        for sign, over, under in ((sign, both[0], both[1]) for sign, both in _FRACTIONS.items())
    }
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | dict.fromkeys("\xa0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u3000\t\n\r", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u2061\u2062", "")
)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le",
    "leqslant": "le", "lt": "<", "gt": ">", "geq": "ge", "geqslant": "ge", "neq": "ne", "simeq": "approx",
    "thickapprox": "approx", "doteq": "=", "colon": ":", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|",
    "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "varnothing": "emptyset", "lor": "or", "vee": "or",
    "land": "and", "wedge": "and", "backslash": "setminus", "infin": "infty", "quad": "sep", "qquad": "sep",
    "newline": "sep", "ast": "*", "div": "/", "degrees": "degree", "circ": "degree", "sb": "_", "sp": "^",
    "operatorname": "text", "textbf": "text", "textrm": "text", "textit": "text", "textsf": "text", "texttt": "text",
    "mathrm": "text", "mathsf": "text", "mathtt": "text", "mbox": "text", "hbox": "text", "textnormal": "text",
    "mathit": "", "mathbf": "", "boldsymbol": "", "bm": "", "mathnormal": "", "emph": "text", "underline": "",
    "ensuremath": "", "varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta", "textdegree": "degree",
    "textdollar": r"$", "dollar": r"$", "lparen": "(", "rparen": ")", "lbrack": "[", "rbrack": "]", "prime": "'",
    "angstrom": "AA", "intercal": "T", "lg": "log", "cosec": "csc", "arctg": "arctan", "tg": "tan", "ctg": "cot",
    "gets": "=", "displaylines": "", "textstyle": "", "displaystyle": "", "scriptstyle": "", "left": "", "right": "",
    "limits": "", "nolimits": "", "tiny": "", "small": "", "normalsize": "", "large": "", "Large": "", "LARGE": "",
    "huge": "", "Huge": "", "bf": "", "rm": "", "it": "", "sf": "", "tt": "", "bfseries": "", "itshape": "", "big": "",
    "Big": "", "bigg": "", "Bigg": "", "bigl": "", "bigr": "", "Bigl": "", "Bigr": "", "biggl": "", "biggr": "",
    "Biggl": "", "Biggr": "", "middle": "", "boxed": "", "fbox": "", "textup": "text", "textsc": "text",
}  # fmt: skip
_NUMBER_SETS = {"R": "R", "Z": "Z", "Q": "Q", "N": "N", "C": "C"}
_BAD_ESCAPES = {"\x07": r"\a", "\x08": r"\b", "\x0b": r"\v", "\x0c": r"\f"}  # "\frac" in a Python string, and the like
_TAB = re.compile(r"\t(?=ext|imes|frac|an\b|heta|au\b|o\b|riangle)")
_COMMAND = re.compile(r"\\([a-zA-Z]+)\*?(?=([^a-zA-Z]|$))")
_GAP = re.compile(r"(?<=\d)(?:\{,\}|,\\!)\s*(?=\d{3}(?!\d))")  # thousands that cannot be a list
_SPACES = re.compile(r"\\[,;:> ]|~|\\(?:h|v)space\*?\{[^{}]*\}|\\(?:thin|med|thick|en)space(?![a-z])")
_BREAK = re.compile(r"\\\\(?:\[[^\]]*\])?")
_OVER = re.compile(r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}")
_WHOLE_OVER = re.compile(r"([^{}]*)\\over(?![a-z])([^{}]*)")
_WRITTEN_HALF = re.compile(r"\^\{?(\d+)\}?/_\{?(\d+)\}?")
_CHOOSE = re.compile(r"(?:\{\s*\})?[_^]\{?(\d+)\}?\s*(?:\\text\s*)?\{?C\}?\s*_\{?(\d+)\}?|(?<![\w.}])(\d+)C(\d+)(?!\w)")
_PERIOD = re.compile(r"(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))|\((\d+)\)(?!\s*[\w(\\^]))")
_DOTTED = re.compile(r"(?<![\d.])(\d{0,30})\.(\d{0,20}?)(\d{1,6}?)\3{2,}(?:\.\.\.|\\ldots)")
_PYTHON = re.compile(r"\b(?:np|numpy|math|sympy|sp)\.(?=[a-z])")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"\b(and|or)\b")
_NO_SHOW = re.compile(r"\\(?:(?:text|page)?color|h?phantom|vphantom|label|tag)\s*(?:\[[^\]]*\])?\{[^{}]*\}")
_TIMES = re.compile(r"(?<=[\d}])\s*[xX]\s*(?=10\s*(?:\^|\*\*))")
_ROOT = re.compile(r"([√∛])\s*(\d+(?:\.\d+)?|[a-zA-Z]|)")
_POWER = re.compile(r"(?<=[\w)}\]])\s*\*\*\s*(?=[\w({\\-])")


def normalise(text: str) -> str:
    r"""The text in the small LaTeX of this module; linear in its length but for nested ``\over``."""
    for bad, good in _BAD_ESCAPES.items():
        text = text.replace(bad, good)
    text = _ROOT.sub(lambda m: "\\sqrt" + ("[3]" if m[1] == "∛" else "") + (f"{{{m[2]}}}" if m[2] else ""), text)
    text = _raised(_TAB.sub(lambda _: r"\t", text).translate(_TABLE))
    text = re.sub(r"\\\\(?=(?:d|t|c)?frac|sqrt|text|pi\b|cdot|times|left|right)", r"\\", text)  # escaped twice
    text = _BREAK.sub(r"\\sep ", _NO_SHOW.sub("", text))
    text = text.replace(r"\$", r"\usd ").replace("$", "").replace(r"\%", "%").replace("%", r"\% ")
    text = re.sub(r"\\[()\[\]]", " ", text)
    text = _GAP.sub("", text.replace(r"\{", r"\lbrace ").replace(r"\}", r"\rbrace ")).replace(r"\!", "")
    text = _SPACES.sub(" ", re.sub(r"\\mathbb\s*\{?([RZQNC])\}?", r"\\\1 ", text))
    text = _COMMAND.sub(_renamed, text).replace("...", r"\ldots ")
    text = re.sub(r"\^\s*(?:\{\s*\\degree\s*\}|\\degree)", r"\\degree ", text)
    text = re.sub(r"\\text\s*([a-zA-Z0-9])", r"\\text{\1}", text)
    text = _TIMES.sub(r"\\times ", text)
    text = _fractions(_POWER.sub("^", _PYTHON.sub("", text)))
    text = _TEXT.sub(_split_words, text)
    text = re.sub(r"(?<=[\s\d})])(and|or)(?=[\s\d({\\])", r"\\\1 ", f" {text} ")
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"^(?:\\sep )+|(?: ?\\sep)+$|\\$", "", text).strip()


def _renamed(match: re.Match[str]) -> str:
    name = match[1]
    if name not in _SAME:
        return match[0]
    new = _SAME[name]
    return "\\" + new if new.isalpha() else (new + " " if new == "" or new.isalpha() else new)


def _raised(text: str) -> str:
    if not any(sign in text for sign in (*_RAISED, *_LOWERED)):
        return text
    for signs, mark in ((_RAISED, "^"), (_LOWERED, "_")):
        pattern = f"[{''.join(signs)}]+"
        text = re.sub(pattern, lambda m: f"{mark}{{{''.join(signs[c] for c in m[0])}}}", text)  # noqa: B023
    return text


def _fractions(text: str) -> str:
    r"""``\over``, ``^1/_2``, and decimals that repeat."""
    if r"\over" in text:
        for _ in range(20):
            text, count = _OVER.subn(r"{\\frac{\1}{\2}}", text)
            if not count:
                break
        whole = _WHOLE_OVER.fullmatch(text)
        text = rf"\frac{{{whole[1]}}}{{{whole[2]}}}" if whole else text
    text = _CHOOSE.sub(
        lambda m: rf"\binom{{{m[1] or m[3]}}}{{{m[2] or m[4]}}}", _WRITTEN_HALF.sub(r"\\frac{\1}{\2}", text)
    )
    return _DOTTED.sub(lambda m: _repeating(m[1], m[2], m[3]), _PERIOD.sub(_period, text))


def _period(match: re.Match[str]) -> str:
    whole, still, period = match[1], match[2], match[3] or match[4] or match[5]
    return _repeating(whole, still, period) if len(match[0]) < 60 and (whole or still or period) else match[0]


def _repeating(whole: str, still: str, period: str) -> str:
    """0.3666... with ``still`` 3 and ``period`` 6 is (36 - 3) / 90."""
    scale = 10 ** len(still)
    under = scale * (10 ** len(period) - 1)
    over = int(whole + still + period or 0) - int(whole + still or 0)
    return rf"\frac{{{over}}}{{{under}}}"


def _split_words(match: re.Match[str]) -> str:
    r"""Lists that stand inside a ``\text`` come out of it; so do numbers and single letters."""
    inner = match[1].strip()
    parts = re.split(r"(,|;|\band\b|\bor\b)", inner)
    signs = {"and": r"\and ", "or": r"\or "}
    return "".join(_one_text(part) if i % 2 == 0 else signs.get(part, part) for i, part in enumerate(parts))


def _one_text(words: str) -> str:
    words = words.strip()
    if not words:
        return " "
    number = re.match(r"[-+\d.,/:() ]*\d[-+\d.,/:() ]*(?![a-zA-Z\d])|", words)
    start = number.end() if number else 0
    rest = words[start:].strip()
    return f" {words[:start]} " * (start > 0) + (rf"\text{{{rest}}}" if rest else "")
