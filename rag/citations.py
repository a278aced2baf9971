"""Makes an answer safe to show: its numbers are checked, its Markdown is reduced to a harmless subset.

A finished text goes through `check`, `safe_markdown` and `link_citations`, in this order. While it still
streams, any prefix of it may go through `safe_markdown` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from ingest.types import Chunk
from rag.types import Answer, Citation

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from markdown_it.tree import SyntaxTreeNode

_Piece = tuple[Literal["text", "code", "markup"], str]

# --- Citations -------------------------------------------------------------------------------------------

_MARK = r"\[(?P<number>[0-9]{1,3})\]"
_DASH = "[-\u2010-\u2014]"
_NUMBERS = rf"[0-9]+(?:[ \t]{{0,3}}{_DASH}[ \t]{{0,3}}[0-9]+)?"
_CITATION = (
    r"(?P<gap>[ \t]?)[\[【][ \t]{0,3}(?:sources?[ \t:#]{0,3})?"
    rf"(?P<numbers>{_NUMBERS}(?:[ \t]{{0,3}}(?:[,;&]|and)[ \t]{{0,3}}(?:source[ \t]{{0,3}})?{_NUMBERS})*)"
    r"(?:†[^\]】\n]{0,80})?"
    rf"(?:,?[ \t]{{0,3}}(?:pp?\.?|pages?)[ \t]{{0,3}}{_NUMBERS})?"
    r"[ \t]{0,3}[\]】]"
    r"(?:\((?:[#/<]|[a-z][a-z0-9+.-]{0,20}:)[^)\s\[]*\))*"  # written as a link: only the mark stays
)
_ESCAPED = r"\\[\s\S]"
_ESCAPED_OR_CODE = (
    rf"{_ESCAPED}"
    r"|^[ \t>*+\-0-9.)]*(?P<fence>`{3,}|~{3,})[^\n]*\n[\s\S]*?(?:^[ \t>]*(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?P<ticks>(?<!`)`+(?!`))[^\n]*?(?<!`)(?P=ticks)(?!`)"
)


def check(text: str, sources: Sequence[Chunk]) -> Answer:
    """The answer with every citation written as [n], without the numbers that name no source.

    Understands [1], [1][3], [1, 3], [1-3], 【1】, [Source 2] and [2, p. 14], outside code; sources count
    from 1. Checking a checked text changes nothing. A blank text has no problems.
    """
    checked, unknown = _normalise(visible(text), len(sources), skip=_ESCAPED_OR_CODE)
    if not all(1 <= number <= len(sources) for number in _shown_marks(checked)):
        # A mark stood between backticks that Markdown does not take for code: leave none anywhere.
        checked, more = _normalise(checked, len(sources), skip=_ESCAPED)
        unknown += more
    numbers = list(dict.fromkeys(_shown_marks(checked)))
    problems = [_unknown_problem(unknown)] if unknown else []
    if checked.strip() and not numbers:
        problems.append("The answer is not grounded in the sources: it cites none of them.")
    return Answer(checked, tuple(Citation(n, sources[n - 1]) for n in numbers), tuple(problems))


def link_citations(markdown: str, prefix: str) -> str:
    """Safe Markdown with each mark [n] as a link to the anchor `<prefix>n` of the same page, outside code."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", prefix):
        raise ValueError(f"An anchor is letters, digits, - and _, not {prefix!r}.")

    def link(match: re.Match[str]) -> str:
        return rf"[\[{match['number']}\]](#{prefix}{match['number']})"

    return _sub_outside(_ESCAPED_OR_CODE, rf"{_MARK}(?!\()", link, markdown)


def _sub_outside(skip: str, pattern: str, replace: Callable[[re.Match[str]], str], text: str) -> str:
    return re.sub(
        f"(?P<skip>{skip})|{pattern}",
        lambda match: match[0] if match["skip"] else replace(match),
        text,
        flags=re.MULTILINE | re.IGNORECASE,
    )


def _normalise(text: str, count: int, *, skip: str) -> tuple[str, list[int]]:
    """The text with its marks as [n], and the numbers that were removed."""
    unknown: list[int] = []

    def replace(match: re.Match[str]) -> str:
        known, wrong = _split_numbers(match["numbers"], count)
        unknown.extend(wrong)
        if known:
            return match["gap"] + "".join(f"[{number}]" for number in known)
        # Nothing may close up around a removed mark and become a new one: "[[7]1]".
        return "…" if _inside_brackets(match.string, match.start()) else ""

    return _sub_outside(skip, _CITATION, replace, text), unknown


def _inside_brackets(text: str, position: int) -> bool:
    opened = max(text.rfind("[", 0, position), text.rfind("【", 0, position))
    return opened > max(text.rfind(closing, 0, position) for closing in "]】\n")


def _split_numbers(numbers: str, count: int) -> tuple[list[int], list[int]]:
    """The numbers that name one of `count` sources, and the others; each once, in the order written."""
    named: list[int] = []
    for span in re.findall(_NUMBERS, numbers):
        ends = [int(digits[:9]) for digits in re.findall("[0-9]+", span)]
        first, last = ends[0], ends[-1]
        named += [first, *range(first + 1, min(last, count) + 1), last]
    known = [number for number in dict.fromkeys(named) if 1 <= number <= count]
    return known, [number for number in dict.fromkeys(named) if number not in known]


def _unknown_problem(numbers: Iterable[int]) -> str:
    marks = [f"[{number}]" for number in dict.fromkeys(numbers)]
    if len(marks) == 1:
        return f"The answer cited {marks[0]}, which names no source; the mark was removed."
    listed = ", ".join(marks[:5]) + (" and others" if len(marks) > 5 else "")
    return f"The answer cited {listed}, which name no source; the marks were removed."


def _shown_marks(markdown: str) -> Iterator[int]:
    """Numbers of the marks [n] that a reader sees, in order; those in code are not marks."""
    for token in _parser().parse(markdown):
        for kind, content in _pieces(_tree(token.children or [])):
            if kind == "text":
                yield from (int(digits) for digits in re.findall(_KEPT_MARK, content))


# --- Safe Markdown ---------------------------------------------------------------------------------------

_INVISIBLE = re.compile(
    # Controls, bidi overrides, zero-width and blank characters, tags, private use, lone surrogates.
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    r"\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff"
    r"\ud800-\udfff\ue000-\uf8ff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff]"
)
# Joiners belong into Persian and Indic words and into emoji; beside an ASCII character they are a trick.
_STRAY_JOINER = re.compile(r"(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")
# More than three accents on one letter climb over the lines above.
_ACCENT = r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_CLIMBING = re.compile(rf"(?<={_ACCENT}{{3}}){_ACCENT}+")
_OPEN, _CLOSE = "\ue001", "\ue002"  # stand for the brackets of a mark [n] that stays a mark
_KEPT_MARK = rf"{_OPEN}([0-9]{{1,3}}){_CLOSE}"
_IN_URL = rf"[^\s\[\]<>|`{_OPEN}{_CLOSE}]"
_LIVE = re.compile(
    # What Streamlit makes into links, emoji, icons or its logo, after backslashes are resolved: escaping
    # does not stop it, a code span does.
    rf"(?:[a-z][a-z0-9+.-]{{1,20}}://|www\.)(?:{_IN_URL}*[^\s\[\]<>|`{_OPEN}{_CLOSE}.,;:!?'\")*_~])?"
    r"|[\w.+-]{1,64}@(?:[\w.-]*\w)?"
    r"|:(?:100|1234|(?![0-9]+:)(?:material/)?[\w+-]+):",
    re.IGNORECASE,
)
_EMPHASIS = {"em": "*", "strong": "**", "s": "~~"}


def safe_markdown(text: str) -> str:
    """Markdown without anything that loads, links, runs or imitates the page; also for half a text.

    Paragraphs, emphasis, lists, quotes, tables, code and rules stay. Headings become bold lines, images
    and links their labels, tags and Streamlit directives the text they are written with, addresses and
    emoji codes code spans, `$` a dollar sign. Marks [n] stay as they are. To be shown by `st.markdown`;
    `st.write_stream` would mend "unfinished" Markdown once more.
    """
    return _blocks(_tree(_parser().parse(visible(text))))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    class Parser(MarkdownIt):
        def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802 - markdown-it's name
            """Take every target for a link, javascript: too: all that stays of a link is its label."""
            return True

    # No definitions: a line "[1]: https://..." would turn every mark [1] into a link. No HTML: tags are text.
    # No joined text: an escaped \[1\] stays apart from the mark [1].
    return (
        Parser("commonmark", {"html": False})
        .enable(["table", "strikethrough"])
        .disable(["reference", "html_block", "html_inline", "text_join"])
    )


def _tree(tokens: Sequence[Token]) -> SyntaxTreeNode:
    from markdown_it.tree import SyntaxTreeNode

    return SyntaxTreeNode(tokens)


def visible(text: str) -> str:
    """The text without characters that are not seen, that turn others round, or that climb over lines."""
    lines = re.sub("\r\n?|[\u2028\u2029]", "\n", text)
    return _CLIMBING.sub("", _STRAY_JOINER.sub("", _INVISIBLE.sub("", lines)))


def _blocks(parent: SyntaxTreeNode) -> str:
    """The children of a block, one after the other; in a tight list item without blank lines between."""
    tight = any(child.type == "paragraph" and child.hidden for child in parent.children)
    return ("\n" if tight else "\n\n").join(filter(None, map(_block, parent.children)))


def _block(node: SyntaxTreeNode) -> str:
    match node.type:
        case "heading":
            line = _inline(node, bold=False)
            text = f"**{line}**" if line else ""
        case "blockquote":
            text = "\n".join(f"> {line}".rstrip() for line in _blocks(node).split("\n"))
        case "bullet_list" | "ordered_list":
            text = _list(node)
        case "table":
            text = _table(node)
        case "fence" | "code_block":
            text = _fence(node.content)
        case "hr":
            text = "___"  # never taken for a list or for the underline of a heading
        case _:
            text = _inline(node)
    return text


def _list(node: SyntaxTreeNode) -> str:
    first = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
    items = []
    for offset, item in enumerate(node.children):
        marker = node.markup if first is None else f"{first + offset}{node.markup}"
        indent = "\n" + " " * (len(marker) + 1)
        items.append(f"{marker} {_blocks(item)}".replace("\n", indent).rstrip())
    tight = any(child.hidden for item in node.children for child in item.children)
    return ("\n" if tight else "\n\n").join(items)


def _table(node: SyntaxTreeNode) -> str:
    rows = [row.children for part in node.children for row in part.children]
    lines = ["| " + " | ".join(_inline(cell, cell=True) for cell in row) + " |" for row in rows]
    rules = {"text-align:left": ":--", "text-align:center": ":-:", "text-align:right": "--:"}
    rule = "| " + " | ".join(rules.get(str(cell.attrs.get("style")), "---") for cell in rows[0]) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def _fence(content: str) -> str:
    """A code block without a language: Streamlit draws some of them (mermaid, math)."""
    ticks = "`" * max(3, 1 + _longest_ticks(content))
    return f"{ticks}\n{content.rstrip()}\n{ticks}"


def _inline(node: SyntaxTreeNode, *, bold: bool = True, cell: bool = False) -> str:
    line = ""
    for kind, run in groupby(_pieces(node, bold=bold, cell=cell), key=lambda piece: piece[0]):
        for part in _write(kind, [content for _, content in run]):
            # Two code spans side by side would become one.
            line += f" {part}" if part.startswith("`") and line.endswith("`") else part
    return re.sub(r"\n[ \t]+", "\n", line.strip())


def _pieces(node: SyntaxTreeNode, *, bold: bool = True, cell: bool = False) -> Iterator[_Piece]:
    """What a block shows, flat: text with its kept marks, code, and the markup between them."""
    for child in node.children:
        match child.type:
            case "text":
                yield "text", re.sub(_MARK, rf"{_OPEN}\g<number>{_CLOSE}", child.content)
            case "text_special":  # an escape or an entity, which may have brought new characters
                yield "text", re.sub(r"\s", " ", visible(child.content))
            case "code_inline":
                # How a backslash before a pipe is read in a cell differs between parsers: no code there.
                yield "text" if cell and "|" in child.content else "code", child.content
            case "softbreak":
                yield "markup", "\n"
            case "hardbreak":
                yield "markup", "\\\n"
            case "em" | "strong" | "s" if bold or child.type != "strong":
                inner = list(_pieces(child, bold=bold, cell=cell))
                marker = _EMPHASIS[child.type] if any(content.strip() for _, content in inner) else ""
                yield from [("markup", marker), *inner, ("markup", marker)] if marker else inner
            case _:
                yield from _pieces(child, bold=bold, cell=cell)


def _write(kind: str, contents: Sequence[str]) -> Iterator[str]:
    """Pieces of one kind as Markdown; text is looked at as a whole, as its reader will."""
    if kind == "markup":
        yield from contents
    elif kind == "code":
        yield from map(_code, contents)
    else:
        text = "".join(contents)
        position = 0
        for live in _LIVE.finditer(text):
            yield _escape(text[position : live.start()])
            yield _code(live[0])
            position = live.end()
        yield _escape(text[position:])


def _code(content: str) -> str:
    ticks = "`" * (1 + _longest_ticks(content))
    space = " " if content.startswith((" ", "`")) or content.endswith((" ", "`")) else ""
    return f"{ticks}{space}{content}{space}{ticks}"


def _escape(text: str) -> str:
    text = re.sub(r"[\\`*_\[\]<>~|$:&!(]", r"\\\g<0>", text)
    # Where a line may begin, these would begin a list, a heading or a rule.
    text = re.sub(r"^(\s*(?:[0-9]+(?=[.)])|(?=[-+=#])))", r"\1\\", text)
    return text.replace(_OPEN, "[").replace(_CLOSE, "]")


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
