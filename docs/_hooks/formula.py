# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Formulas of docstrings as MathML, which browsers typeset by themselves: no script, no request.

A docstring writes a formula so that a terminal can show it, ``-alpha_y (1 - p_y)^gamma log p_y``:
``_`` and ``^`` bind a name, a number or a group in brackets; a spaced ``/`` is a fraction of the
product before it over the factor after it, or over all of a sum after it; names of Greek letters
are those; ``|x|`` is a norm, a spaced ``|`` a condition and ``||`` parts the arguments of a
divergence. Everything else is a name.
"""

from __future__ import annotations

import re
from html import escape
from typing import NamedTuple

LETTERS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε", "eta": "η",
    "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "pi": "π", "rho": "ρ", "sigma": "σ",
    "tau": "τ", "theta": "θ", "psi": "ψ", "phi": "φ", "Phi": "Φ", "inf": "∞",
}  # fmt: skip
#: Over what they go stands below them.
BIG = {"sum": "∑", "mean": "mean", "max": "max", "min": "min", "logsumexp": "logsumexp"}
OPERATORS = {
    "+": "+", "-": "−", "=": "=", "<": "<", ">": ">", "<=": "≤", ">=": "≥", "!=": "≠", "+-": "±",
    "*": "⋅", "/": "/", ",": ",", ";": ";", "||": "∥", "|": "∣", "...": "…", "in": "∈",
}  # fmt: skip
FUNCTIONS = ("exp", "log", "std")  #: Take what follows them, in a fraction as well.
BRACKETS = {"(": ")", "[": "]", "{": "}"}
TOKEN = re.compile(
    r"(\s*)(\d+(?:\.\d+)?|[A-Za-z]+'?|\.\.\.|<=|>=|!=|\|\||\+-|[-+=<>*/,;|^_()\[\]{}])"
)


class Token(NamedTuple):
    """A word or a sign, and whether a space stands before it."""

    text: str
    spaced: bool

    @property
    def is_word(self) -> bool:
        return self.text[0].isalpha()


def mathml(formula: str, block: bool = False) -> str:
    """Presentation MathML of a formula. Raises ValueError where it is not one."""
    display = ' display="block"' if block else ""
    body = Parser(tokens(formula)).everything()
    return f'<math{display} title="{escape(formula)}">{body}</math>'


def tokens(formula: str) -> list[Token]:
    """Words and signs. Raises ValueError at what is neither."""
    out, at = [], 0
    while at < len(formula):
        found = TOKEN.match(formula, at)
        if found is None:
            raise ValueError(f"{formula!r} is no formula from character {at} on.")
        out.append(Token(found[2], bool(found[1])))
        at = found.end()
    return out


class Parser:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at, self.norms = tokens, 0, 0

    def everything(self) -> str:
        body = self.sum("")
        if self.at < len(self.tokens):
            raise ValueError(f"Nothing opens the {self.tokens[self.at].text!r}.")
        return body

    def peek(self, ahead: int = 0) -> Token:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else Token(" ", True)

    def take(self) -> Token:
        token = self.peek()
        if token.text == " ":
            raise ValueError("The formula ends too early.")
        self.at += 1
        return token

    def sum(self, closing: str) -> str:
        """Products and what stands between them, up to a closing bracket."""
        parts = []
        while self.peek().text not in (" ", *BRACKETS.values()) and not self._ends_norm(closing):
            text = self.peek().text
            if self._is_operator():
                sign = not parts or parts[-1].startswith("<mo")  # of what follows it
                form = ' form="prefix"' if sign and text in ("-", "+-") else ""
                self.take()
                parts.append(f"<mo{form}>{escape(OPERATORS[text])}</mo>")
            else:
                parts.append(self.product(closing))
        return "".join(parts)

    def product(self, closing: str, ends_at_fraction: bool = False) -> str:
        """Factors beside each other, or a fraction of them."""
        factors: list[str] = []
        while self.peek().text not in (" ", *BRACKETS.values()) and not self._ends_norm(closing):
            token = self.peek()
            if token.text == "/" and token.spaced and self.peek(1).spaced and factors:
                if ends_at_fraction:
                    break
                self.take()
                begins = self.peek().text
                over = self.product(closing, True) if begins in BIG else self.factor()
                if begins in FUNCTIONS and self.peek().spaced:
                    over += self.factor()
                factors = [f"<mfrac>{group(factors)}{bare(over)}</mfrac>"]
            elif self._is_operator():
                break
            else:
                if factors and token.spaced and (upright(token.text) or token.text in BIG):
                    factors.append('<mspace width="0.2em"/>')
                factors.append(self.factor())
        if not factors:
            raise ValueError(f"A factor is missing before {self.peek().text!r}.")
        return "".join(factors)

    def factor(self) -> str:
        """A name, a number or a group, with what stands below and above it, and its argument."""
        token = self.take()
        text, big = token.text, False
        if text in BRACKETS:
            base = self._group(text)
        elif text == "|":
            self.norms += 1
            inner = self.sum("|")
            self.norms -= 1
            if self.take().text != "|":
                raise ValueError("A norm does not end.")
            base = f'<mrow><mo fence="true">|</mo>{inner}<mo fence="true">|</mo></mrow>'
        elif text == "sqrt" and self.peek().text == "(":
            self.take()
            base = f"<msqrt>{bare(self._group('('))}</msqrt>"
        elif token.is_word:
            base, big = self._word(token), text in BIG
        elif text[0].isdigit():
            base = f"<mn>{text}</mn>"
        else:
            raise ValueError(f"{text!r} stands where a name should.")
        base = self._scripts(base, big)
        after = self.peek()
        if token.is_word and after.text in ("(", "[") and not after.spaced:
            self.take()
            base = f"<mrow>{base}{self._group(after.text)}</mrow>"
            base = self._scripts(base, False)
        elif token.is_word and after.text == "|" and not after.spaced and not self.norms:
            base += self.factor()
        elif upright(text) and after.spaced and not self._is_operator():
            base += '<mspace width="0.2em"/>'
        return base

    def _is_operator(self) -> bool:
        return self.peek().text in OPERATORS and not (
            self.peek().text == "|" and not self.peek(1).spaced and self.peek(1).text != "|"
        )

    def _ends_norm(self, closing: str) -> bool:
        return closing == "|" and self.peek().text == "|"

    def _group(self, opening: str) -> str:
        norms, self.norms = self.norms, 0
        inner = self.sum(BRACKETS[opening])
        self.norms = norms
        if self.take().text != BRACKETS[opening]:
            raise ValueError(f"A {opening!r} does not end.")
        left, right = f"<mo>{opening}</mo>", f"<mo>{BRACKETS[opening]}</mo>"
        return f"<mrow>{left}{inner}{right}</mrow>"

    def _word(self, token: Token) -> str:
        text = token.text
        if text in BIG:
            return f'<mo movablelimits="false" lspace="0" rspace="0.15em">{BIG[text]}</mo>'
        setting = len(text) > 1 and text not in LETTERS  # clip_high is one name
        while setting and self.peek().text == "_" and len(self.peek(1).text) > 2:
            if not self.peek(1).is_word:
                break
            self.take()
            text += f"_{self.take().text}"
        text = LETTERS.get(text, text).replace("'", "′")
        normal = ' mathvariant="normal"' if upright(token.text) else ""
        return f"<mi{normal}>{text}</mi>"

    def _scripts(self, base: str, big: bool) -> str:
        below = above = ""
        while self.peek().text in ("_", "^") and not self.peek().spaced:
            sign = self.take().text
            script = self._script()
            below, above = (script, above) if sign == "_" else (below, script)
        over_under = ("munder", "mover", "munderover") if big else ("msub", "msup", "msubsup")
        if below and above:
            return f"<{over_under[2]}>{base}{below}{above}</{over_under[2]}>"
        if below:
            return f"<{over_under[0]}>{base}{below}</{over_under[0]}>"
        if above:
            return f"<{over_under[1]}>{base}{above}</{over_under[1]}>"
        return base

    def _script(self) -> str:
        token = self.take()
        if token.text in BRACKETS:
            return bare(self._group(token.text))
        if token.text[0].isdigit():
            return f"<mn>{token.text}</mn>"
        if not token.is_word:
            raise ValueError(f"{token.text!r} cannot stand below or above.")
        if len(token.text) == 2 and token.text not in LETTERS:  # two indices
            return f"<mrow>{''.join(f'<mi>{c}</mi>' for c in token.text)}</mrow>"
        word = self._word(token)
        return f"<mrow>{self._scripts(word, False) if self.peek().text == '_' else word}</mrow>"


def upright(word: str) -> bool:
    """Whether a word is a name in letters, not a variable."""
    named = word[0].isalpha() and len(word.rstrip("'")) > 1
    return named and word not in LETTERS and word not in BIG


def group(factors: list[str]) -> str:
    """Factors as one; a group's own brackets are not needed in a fraction."""
    return bare(factors[0]) if len(factors) == 1 else f"<mrow>{''.join(factors)}</mrow>"


def bare(part: str) -> str:
    """A group without its brackets, as one element."""
    inner = re.fullmatch(r"<mrow><mo>[(\[{]</mo>(.*)<mo>[)\]}]</mo></mrow>", part)
    return f"<mrow>{inner[1] if inner and balanced(inner[1]) else part}</mrow>"


def balanced(part: str) -> bool:
    """Whether no bracket in here closes one that was opened before."""
    depth = 0
    for sign in re.findall(r"<mo>([()\[\]{}])</mo>", part):
        depth += 1 if sign in BRACKETS else -1
        if depth < 0:
            return False
    return True


def lead(paragraph: str) -> str:
    """A docstring's first paragraph in Markdown: its formulas typeset, the first as a block.

    Spans that are a name, or no formula, stay as they are.
    """
    paragraph = " ".join(paragraph.split())
    out, at = "", 0
    for one in re.finditer(r"``(.+?)``", paragraph):
        block = one.start() == 0
        try:
            made = mathml(one[1], block) if re.search(r"[ (^]", one[1]) else f"`{one[1]}`"
        except ValueError:
            made = f"`{one[1]}`"
        out += paragraph[at : one.start()] + made
        at = one.end()
        if block and made.startswith("<"):
            stop = re.match(r"[.,;:]?\s*", paragraph[at:])
            out = f'<div class="formula">{out}</div>\n\n'
            at += stop.end() if stop else 0
    out += paragraph[at:]
    return out
