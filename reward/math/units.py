r"""Units, currencies and other words behind a number: split off, and named one way so that two may be compared.

``12 \text{ km}`` and ``12 kilometres`` have the same unit, ``12 m`` another; an answer without one is taken as in the
reference's. Left out: conversion (1 km is not 1000 m here), and what a number means (``values``).
"""

from __future__ import annotations

import re

_NAMES = {
    "m": "meter meters metre metres", "cm": "centimeter centimeters centimetre centimetres cms",
    "mm": "millimeter millimeters millimetre millimetres", "km": "kilometer kilometers kilometre kilometres kms",
    "nm": "nanometer nanometers", "in": "inch inches ins", "ft": "foot feet", "yd": "yard yards yds",
    "mi": "mile miles", "g": "gram grams gm gms", "kg": "kilogram kilograms kgs kilo kilos",
    "mg": "milligram milligrams",
    "lb": "pound pounds lbs", "oz": "ounce ounces", "t": "ton tons tonne tonnes", "s": "sec secs second seconds",
    "min": "minute minutes mins", "h": "hr hrs hour hours", "d": "day days", "wk": "week weeks",
    "mo": "month months", "yr": "year years yrs", "L": "l liter liters litre litres", "mL": "ml milliliter milliliters",
    "N": "newton newtons", "J": "joule joules", "kJ": "kilojoule kilojoules", "W": "watt watts", 
    "kW": "kilowatt kilowatts",
    "V": "volt volts", "A": "amp amps ampere amperes", "C": "coulomb coulombs", "Hz": "hertz", "Pa": "pascal pascals",
    "K": "kelvin kelvins", "mol": "mole moles mols", "deg": "degree degrees", "degC": "celsius centigrade",
    "degF": "fahrenheit", "rad": "radian radians", "arcsec": "arcsecond arcseconds arcsecs", "eV": "electronvolt",
    "usd": "dollar dollars buck bucks", "cent": "cents", "euro": "euros eur", "pounds": "gbp quid", "yen": "jpy",
    "rupees": "Rs rs rupee inr", "unit": "units", "mph": "", "kph": "kmh", "AA": "angstrom angstroms", "ohm": "ohms",
    "cal": "calorie calories", "kcal": "", "MeV": "", "keV": "", "GeV": "", "kPa": "", "atm": "", "erg": "ergs",
    "pc": "parsec parsecs", "kmol": "", "gal": "gallon gallons", "pt": "pint pints", "qt": "quart quarts",
    "cup": "cups", "acre": "acres", "pm": "PM", "am": "AM", "MW": "", "MHz": "", "kHz": "", "GHz": "", 
    "dm": "", "um": "",
    "ms": "millisecond milliseconds", "ha": "hectare hectares", "F": "", "T": "tesla", "Gyr": "", "amu": "",
}  # fmt: skip
_ALIASES = {alias: name for name, aliases in _NAMES.items() for alias in (name, *aliases.split())}
_SIGNS = {
    r"\usd": "usd",
    r"\euro": "euro",
    r"\pounds": "pounds",
    r"\yen": "yen",
    r"\cents": "cent",
    r"\rupees": "rupees",
    r"\AA": "AA",
}
_SIGNS[r"\degree"] = "deg"
_AMOUNTS = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_NOT_UNITS = frozenset(
    [
        "if",
        "when",
        "for",
        "or",
        "and",
        "not",
        "to",
        "no",
        "than",
        "then",
        "but",
        "less",
        "about",
        "least",
        "most",
        "plus",
        "minus",
        "times",
        "over",
        "is",
        "are",
        "was",
        "were",
        "wrong",
        "mod",
        "modulo",
        "through",
        "versus",
        "vs",
        "where",
        "with",
        "otherwise",
        "else",
        "except",
        "between",
        "either",
        "maybe",
        "nor",
        "unless",
        "without",
        "of",
    ]
)
_BARE = "|".join(sorted((name for name in _ALIASES if len(name) > 1), key=len, reverse=True))
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_WORD = (
    rf"\\text\s*\{{[^{{}}]*\}}|\\usd|\\euro|\\pounds|\\yen|\\rupees|\\cents|\\AA|\\mu"
    rf"|\\degree\s*[CF]?(?![a-zA-Z])|(?<![a-zA-Z\\])(?:{_BARE})(?![a-zA-Z])\.?"
)
_LETTER = r"(?<=[\s/])[mgsAVNJWKCFLlhdT](?![a-zA-Z_(])"
_TAIL = re.compile(
    rf"(?:\s*(?:{_WORD}|{_LETTER}){_POWER}|\s*/|\s*\\cdot|\s*(?<![a-zA-Z])per(?![a-zA-Z])|\s*\b(?:sq|square|cubic)\b\.?)+$"
)
_FRONT = re.compile(
    r"^([-+]?)\s*(?:[A-Z]{1,2}\s*)?(\\usd|\\euro|\\pounds|\\yen|\\rupees|(?:Rs|USD|EUR)\.?)\s*([-+]?)\s*(?=[\d.\\(])"
)
_PLAIN_WORDS = re.compile(r"^([-+]?[\d.,/ ]*\d)\s+([a-zA-Z][a-zA-Z.\-]+(?:\s+[a-zA-Z][a-zA-Z.\-]*)*)$")
_ORDINAL = re.compile(r"^(\d+)\s*(?:\^?\s*\{?\s*(?:\\text\s*\{)?\s*)?(?:st|nd|rd|th)\s*\}?\s*\}?$")
_PERCENT = re.compile(r"^(.*?)\s*(?:\\%|\\text\s*\{\s*(?:percent|per cent)\s*\}|\bper\s?cent)$")


def split_percent(text: str) -> tuple[str, bool]:
    """The text without a per cent sign at its end, and whether it had one."""
    match = _PERCENT.match(text)
    return (match[1], True) if match and match[1] else (text, False)


def split_unit(text: str) -> tuple[str, str, int, bool]:
    """What stands before the unit, the unit's one name ('' for none), what a word like ``million`` multiplies by, and
    whether the unit is but a bare letter, which may as well be a variable.

    Linear in the text but for the number of words."""
    ordinal = _ORDINAL.match(text)
    if ordinal:
        return ordinal[1], "", 1, False
    front = _FRONT.match(text)
    unit = ""
    if front:
        unit, text = front[2], front[1] + front[3] + text[front.end() :]
    tail = _tail(text)
    if tail is None:
        return text, _named(unit), 1, False
    head, words = tail
    words, amount = _amount(words)
    if set(re.findall(r"[a-z]+", words.lower())) & _NOT_UNITS:
        return text, _named(unit), 1, False
    letter = bool(re.fullmatch(r"\s*[a-zA-Z]\s*", words))
    return head.strip(), _named(f"{unit} {words}"), amount, letter


def _tail(text: str) -> tuple[str, str] | None:
    plain = _PLAIN_WORDS.match(text)
    if plain:
        return plain[1], plain[2]
    match = _TAIL.search(text) if len(text) < 400 else None
    if match is None or not re.search(r"[\d)}\]|a-zA-Z!]\s*$", text[: match.start()]):
        return None
    if re.fullmatch(r"[\s/]*(?:\\cdot)?\s*|\s*\\text\s*\{\s*[^mgsAVNJWKCFLlhdT]\s*\}\s*", match[0]):
        return None
    return text[: match.start()], match[0]


def _amount(words: str) -> tuple[str, int]:
    """Of "million dollars" the words "dollars" and 1,000,000."""
    amount = 1
    for name, factor in _AMOUNTS.items():
        words, count = re.subn(rf"\b{name}s?\b", "", words)
        amount *= factor**count
    return words, amount


def _named(words: str) -> str:
    """One name for the unit: known words by their sign, ``per`` and ``/`` alike, spaces and full stops dropped."""
    words = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", words).replace("{", "").replace("}", "")
    for sign, name in _SIGNS.items():
        words = words.replace(sign, f" {name} ")
    words = re.sub(r"\bdeg\s+(?=(?:C|F|Celsius|Fahrenheit|celsius|fahrenheit)\b)", "deg", words)
    words = re.sub(r"\b(?:degrees?)\s+(?=(?:C|F|Celsius|Fahrenheit|celsius|fahrenheit)\b)", "deg", words)
    words = re.sub(r"\b(sq|square|squared|cubic|cubed|cu)\b\.?", lambda m: "^2" if m[1][0] == "s" else "^3", words)
    words = re.sub(r"\bper\b", "/", words)
    words = re.sub(
        r"\ba\.?m\.?$",
        "am",
        re.sub(r"\bp\.?m\.?$", "pm", words.strip().lower() if re.search(r"[ap]\.m", words.lower()) else words.strip()),
    )
    found = [_alias(word) for word in re.findall(r"[a-zA-Z]+|\^\s*-?\d|/|\\mu", words)]
    powers = sorted(word for word in found if word[0] == "^")
    return "".join([*(word for word in found if word[0] != "^"), *powers])


def _alias(word: str) -> str:
    if word in _ALIASES:
        return _ALIASES[word]
    low = word.lower()
    if low in ("degcelsius", "degc", "degfahrenheit", "degf"):
        return "deg" + low[3].upper()
    if len(word) > 2 and low in _ALIASES:
        return _ALIASES[low]
    plain = low[:-1] if len(low) > 3 and low.endswith("s") else low
    return plain.replace(" ", "") if word[0] not in "^/\\" else word.replace(" ", "")


def same_unit(first: str, second: str) -> bool:
    """Whether two units may be the same: one is missing, they are equal, or one names the other and more."""
    if not first or not second or first == second or "unit" in (first, second):
        return True
    if {first, second} <= {"deg", "degC"} or {first, second} <= {"deg", "degF"}:
        return True
    return len(min(first, second, key=len)) > 3 and (first in second or second in first)
