"""The parser of filters: tokens to a tree, by recursive descent. `not` binds closer than `and`, `and` than `or`.

The precedence is that of Azure's guidelines for collections (operators, order of precedence).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from .errors import FilterRefused, shown
from .syntax import Comparison, Conjunction, Disjunction, Negation, Operator, Term
from .tokens import Token, TokenType, tokens_of

MAX_DEPTH: Final = 16
"""Levels of parentheses and of `not`."""
MAX_COMPARISONS: Final = 64
"""Comparisons in one filter."""
MAX_VALUES: Final = 100
"""Values of one `in`."""

_VALUES: Final = frozenset({TokenType.TEXT, TokenType.NUMBER, TokenType.TIME})
_NULL: Final = "null"
_OPERATORS: Final = tuple(operator.value for operator in Operator if operator is not Operator.CONTAINS)


def parse_tree(text: str, check: Callable[[Comparison], Term]) -> Term:
    """Return the tree of a filter.

    Args:
        text: the filter, which is not empty.
        check: returns what stands for a comparison in the tree.

    Raises:
        FilterRefused: the text is no filter, or a larger one than is allowed; as `check`.
    """
    return _Parser(tokens_of(text), check).parse()


class _Parser:
    def __init__(self, tokens: list[Token], check: Callable[[Comparison], Term]) -> None:
        self._tokens = tokens
        self._check = check
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def parse(self) -> Term:
        found = self._disjunction()
        if self._next.type is not TokenType.END:
            self._refuse("'and', 'or' or the end")
        return found

    def _disjunction(self) -> Term:
        terms = [self._conjunction()]
        while self._takes("or"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else Disjunction(tuple(terms))

    def _conjunction(self) -> Term:
        terms = [self._negation()]
        while self._takes("and"):
            terms.append(self._negation())
        return terms[0] if len(terms) == 1 else Conjunction(tuple(terms))

    def _negation(self) -> Term:
        token = self._next
        if not self._takes("not"):
            return self._primary()
        self._deeper(token)
        found = Negation(self._negation())
        self._depth -= 1
        return found

    def _primary(self) -> Term:
        token = self._next
        if token.type is TokenType.OPEN:
            self._deeper(token)
            self._at += 1
            found = self._disjunction()
            self._expect(TokenType.CLOSE, "')', 'and' or 'or'")
            self._depth -= 1
            return found
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise FilterRefused(f"it has more than {MAX_COMPARISONS} comparisons", token.position)
        return self._check(self._comparison())

    def _comparison(self) -> Comparison:
        name = self._expect(TokenType.NAME, "a field, 'not', 'contains(…)' or '('")
        if name.value == Operator.CONTAINS and self._next.type is TokenType.OPEN:
            self._at += 1
            field = self._expect(TokenType.NAME, "a field")
            self._expect(TokenType.COMMA, "','")
            text = self._expect(TokenType.TEXT, "a text in single quotes")
            self._expect(TokenType.CLOSE, "')'")
            return Comparison(field.value, Operator.CONTAINS, (text,), field.position)
        operator = self._next
        if operator.type is not TokenType.NAME or operator.value not in _OPERATORS:
            self._refuse(f"an operator ({', '.join(_OPERATORS)})")
        self._at += 1
        if operator.value == Operator.IN:
            return Comparison(name.value, Operator.IN, self._list(), name.position)
        return Comparison(name.value, Operator(operator.value), (self._value(),), name.position)

    def _list(self) -> tuple[Token, ...]:
        begin = self._expect(TokenType.OPEN, "'(' and the values")
        values = [self._value()]
        while self._next.type is TokenType.COMMA:
            self._at += 1
            values.append(self._value())
            if len(values) > MAX_VALUES:
                raise FilterRefused(f"this list has more than {MAX_VALUES} values", begin.position)
        self._expect(TokenType.CLOSE, "',' or ')'")
        return tuple(values)

    def _value(self) -> Token:
        token = self._next
        if token.type not in _VALUES and not (token.type is TokenType.NAME and token.value == _NULL):
            self._refuse("a value: a text in single quotes, a number, a time, or null")
        self._at += 1
        return token

    def _takes(self, word: str) -> bool:
        if self._next.type is TokenType.NAME and self._next.value == word:
            self._at += 1
            return True
        return False

    def _deeper(self, token: Token) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterRefused(f"it is nested deeper than {MAX_DEPTH} levels", token.position)

    def _expect(self, kind: TokenType, what: str) -> Token:
        token = self._next
        if token.type is not kind:
            self._refuse(what)
        self._at += 1
        return token

    def _refuse(self, expected: str) -> NoReturn:
        token = self._next
        found = "the filter ends here" if token.type is TokenType.END else f"{shown(token.value or token.type.value)}"
        raise FilterRefused(f"{expected} is expected, and {found} was found", token.position)
