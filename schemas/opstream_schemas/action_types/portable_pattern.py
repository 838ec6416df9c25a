"""Regular expressions that Python and the API's engine read alike.

msgspec matches a pattern with Python's `re`, the API and most clients with that of ECMAScript. They differ: in Python
`\\d` and `\\w` are those of all scripts, `$` also matches before a final line feed, and `\\A`, `\\Z`, `(?P<name>…)`
exist. So a pattern is parsed as Python does, and written in the words that both have.
"""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from opstream_schemas.errors import SchemasError

_Ranges = list[tuple[int, int]]

_PLAIN: Final = re.compile(
    r"""(?:
        [A-Za-z0-9\ _:/,@%=;"'<>!`-] | \\[.\\+*?()\[\]{}^$|]
      | \[\^?(?:[A-Za-z0-9]-[A-Za-z0-9] | [A-Za-z0-9\ _:/,.@%=;+*?()$!{}|#] | \\[.\\\]^-])+-?\]
      | \^ | \$ | \| | \((?:\?[:=!])?(?!\?) | \) | [*+?] | \{[0-9]+(?:,[0-9]*)?\}
    )*""",
    re.VERBOSE,
)
"""Patterns in which every character means the same to both. They are announced as the author wrote them."""
_LAST: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)
_DIGITS: Final[_Ranges] = [(0x30, 0x39)]
_WORD: Final[_Ranges] = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_ASCII_SPACE: Final[_Ranges] = [(0x09, 0x0D), (0x20, 0x20)]
_SPACE: Final[_Ranges] = [
    *((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),
]
"""What Python's `\\s` takes."""
_SYNTAX: Final = frozenset("^$\\.*+?()[]{}|")
_CLASS_SYNTAX: Final = frozenset("\\]^-[")
_HEX: Final = frozenset("&~")
"""Operators inside of a class in some engines, and not to be escaped in others."""
_ODD_CASES: Final = "\u0130\u0131\u017f\u212a"
"""What Python takes for an i, s or k in another case."""


class UnportablePattern(SchemasError, ValueError):
    """A pattern can't be written so that all readers agree. The message says what to write."""


def portable_pattern(pattern: str) -> str:
    """Return a pattern that every engine reads as Python reads the given one, or more narrowly.

    It is narrower only for digits and letters of other scripts (`\\d`, `\\w`), and for a line feed at the end (`$`). A
    pattern that means the same already is returned unchanged.

    Raises:
        UnportablePattern: there is no such pattern, or Python can't compile it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class that may mean more in a future Python: the meaning now counts
            parsed = sre_parser.parse(pattern)
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UnportablePattern(f"Python can't compile it: {error}") from error
    written = _Writer(parsed.state.flags).sequence(parsed)
    return pattern if _PLAIN.fullmatch(pattern) else written


class _Writer:
    def __init__(self, flags: int) -> None:
        if flags & re.MULTILINE:
            raise UnportablePattern("the flag (?m) is Python's own: write (^|\\n) and (\\n|$)")
        if flags & (re.LOCALE | re.DEBUG):
            raise UnportablePattern("the flag (?L) is Python's own: leave it out")
        self._is_ascii = bool(flags & re.ASCII)
        self._is_dot_all = bool(flags & re.DOTALL)
        self._is_caseless = bool(flags & re.IGNORECASE)
        self._is_negated = False
        """True inside of a negative look-around, where narrower becomes wider."""
        self._writers: dict[Any, Callable[[Any], str]] = {
            sre.LITERAL: self._literal,
            sre.NOT_LITERAL: lambda code: _class(_complement(self._cases([(code, code)]))),
            sre.ANY: lambda _: r"[\s\S]" if self._is_dot_all else r"[^\n]",
            sre.IN: self._set,
            sre.AT: self._anchor,
            sre.BRANCH: lambda av: "(?:" + "|".join(self.sequence(one) for one in av[1]) + ")",
            sre.SUBPATTERN: self._group,
            sre.MAX_REPEAT: lambda av: self._repeat(av, ""),
            sre.MIN_REPEAT: lambda av: self._repeat(av, "?"),
            sre.ASSERT: lambda av: f"(?{'<' if av[0] < 0 else ''}={self.sequence(av[1])})",
            sre.ASSERT_NOT: self._assert_not,
        }

    def sequence(self, parsed: Iterable[tuple[Any, Any]]) -> str:
        return "".join(self._one(op, av) for op, av in parsed)

    def _one(self, op: Any, av: Any) -> str:  # noqa: ANN401 - the parser has no types
        writer = self._writers.get(op)
        if writer is None:
            raise UnportablePattern(_UNKNOWN.get(str(op), f"it has {op}, which is Python's own: write it otherwise"))
        return writer(av)

    def _literal(self, code: int) -> str:
        if self._is_caseless and len(cases := self._cases([(code, code)])) > 1:
            return _class(cases)
        return _character(code, _SYNTAX)

    def _cases(self, ranges: _Ranges) -> _Ranges:
        """Return ranges with the other cases of their letters, if the pattern ignores case."""
        if not self._is_caseless:
            return ranges
        found = list(ranges)
        for low, high in ranges:
            if high > 0x7F:
                raise UnportablePattern("(?i) with letters beyond ASCII differs: write both cases, as in [Éé]")
            flags = re.IGNORECASE | (re.ASCII if self._is_ascii else 0)
            for char in map(chr, range(low, high + 1)):
                others = {char.lower(), char.upper(), *_ODD_CASES}
                found += [(ord(o), ord(o)) for o in others if re.fullmatch(re.escape(char), o, flags)]
        return found

    def _set(self, items: Sequence[tuple[Any, Any]]) -> str:
        is_complement = items[0][0] is sre.NEGATE
        ranges: _Ranges = []
        for op, av in items[1:] if is_complement else items:
            if op is sre.LITERAL:
                ranges += self._cases([(av, av)])
            elif op is sre.RANGE:
                ranges += self._cases([av])
            else:
                ranges += self._category(av, is_complement=is_complement)
        return _class(ranges, is_complement=is_complement)

    def _category(self, category: Any, *, is_complement: bool) -> _Ranges:  # noqa: ANN401
        name = str(category).removeprefix("CATEGORY_")
        is_wide = name.startswith("NOT_")
        kind = name.removeprefix("NOT_")
        if kind == "SPACE":
            ranges = _ASCII_SPACE if self._is_ascii else _SPACE
            return _complement(ranges) if is_wide else ranges
        ranges, ours = (_DIGITS, "0-9") if kind == "DIGIT" else (_WORD, "A-Za-z0-9_")
        is_opposite = is_wide != is_complement
        if not self._is_ascii and is_opposite != self._is_negated:
            short = "\\d" if kind == "DIGIT" else "\\w"
            instead = f"[^{ours}]" if is_opposite else f"[{ours}]"
            raise UnportablePattern(f"what {short} leaves out differs for other scripts: write {instead}")
        return _complement(ranges) if is_wide else ranges

    def _anchor(self, place: Any) -> str:  # noqa: ANN401
        if place in {sre.AT_BEGINNING, sre.AT_BEGINNING_STRING}:
            return "^"
        if place is sre.AT_END and self._is_negated:
            raise UnportablePattern("$ differs before a final line feed: write \\Z in a negative look-around")
        if place in {sre.AT_END, sre.AT_END_STRING}:
            return "$"
        raise UnportablePattern("\\b and \\B differ for other scripts: write the characters, as in (^|[^A-Za-z0-9_])")

    def _group(self, av: Any) -> str:  # noqa: ANN401
        number, added, removed, parsed = av
        if added or removed:
            raise UnportablePattern("flags for a part of it are not read alike: write both cases, as in [Aa]")
        return f"({'?:' if number is None else ''}{self.sequence(parsed)})"

    def _repeat(self, av: Any, lazy: str) -> str:  # noqa: ANN401
        low, high, parsed = av
        inner = self.sequence(parsed)
        if len(parsed) != 1 or parsed[0][0] in {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.ASSERT, sre.ASSERT_NOT, sre.AT}:
            inner = f"(?:{inner})"
        if (low, high) == (0, 1):
            return f"{inner}?{lazy}"
        if high == sre.MAXREPEAT:
            return inner + {0: "*", 1: "+"}.get(low, f"{{{low},}}") + lazy
        return inner + (f"{{{low}}}" if low == high else f"{{{low},{high}}}") + lazy

    def _assert_not(self, av: Any) -> str:  # noqa: ANN401
        direction, parsed = av
        before = self._is_negated
        self._is_negated = not before
        try:
            return f"(?{'<' if direction < 0 else ''}!{self.sequence(parsed)})"
        finally:
            self._is_negated = before


_UNKNOWN: Final = {
    "GROUPREF": "it refers back to a group, which not all engines read alike: write it without",
    "GROUPREF_EXISTS": "a condition on a group is Python's own: write the alternatives with |",
    "POSSESSIVE_REPEAT": "a possessive quantifier is not in every engine: leave out the second +",
    "ATOMIC_GROUP": "an atomic group is not in every engine: write (?:…)",
    "FAILURE": "it has a part that never matches: leave it out",
}


def _complement(ranges: _Ranges) -> _Ranges:
    found: _Ranges = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        found.append((start, _LAST))
    return found


def _class(ranges: _Ranges, *, is_complement: bool = False) -> str:
    merged = _complement(_complement(ranges))
    if merged and merged[-1][1] == _LAST:  # its complement is shorter
        merged, is_complement = _complement(merged), not is_complement
    if not merged:
        if is_complement:
            return r"[\s\S]"
        raise UnportablePattern("it has a class that takes no character: leave it out")
    body = "".join(
        _character(low, _CLASS_SYNTAX)
        + ("" if low == high else ("-" if high > low + 1 else "") + _character(high, _CLASS_SYNTAX))
        for low, high in merged
    )
    return f"[{'^' if is_complement else ''}{body}]"


def _character(code: int, syntax: frozenset[str]) -> str:
    char = chr(code)
    if code in _SURROGATES:
        raise UnportablePattern("it has half of a surrogate pair, which no JSON text contains: leave it out")
    if char in syntax:
        return f"\\{char}"
    if char in _HEX or code < 0x20 or 0x7F <= code < 0xA1:
        return f"\\x{code:02x}"
    if code <= 0xFFFF and (not char.isprintable() or unicodedata.combining(char)):
        return f"\\u{code:04x}"
    return char
