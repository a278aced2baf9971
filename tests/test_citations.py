from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt

from ingest.types import Chunk
from rag.citations import check, link_citations, safe_markdown
from tests.attacks import ATTACKS

SOURCES = [Chunk("a" * 64, "a.pdf", page, 0, 1, "x", "") for page in range(1, 4)]
NOT_GROUNDED = "The answer is not grounded in the sources: it cites none of them."


def removed(number: int) -> str:
    return f"The answer cited [{number}], which names no source; the mark was removed."


# --- Checking numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "checked", "numbers"),
    [
        ("Yes [1].", "Yes [1].", [1]),
        ("Yes [1][3].", "Yes [1][3].", [1, 3]),
        ("Yes [3] [1].", "Yes [3] [1].", [3, 1]),
        ("Yes [1, 3].", "Yes [1][3].", [1, 3]),
        ("Yes [1; 3 & 2].", "Yes [1][3][2].", [1, 3, 2]),
        ("Yes [1 and 3].", "Yes [1][3].", [1, 3]),
        ("Yes [1-3].", "Yes [1][2][3].", [1, 2, 3]),
        ("Yes [1\u20132, 3].", "Yes [1][2][3].", [1, 2, 3]),
        ("Yes [2-2].", "Yes [2].", [2]),
        ("Yes 【1】.", "Yes [1].", [1]),
        ("Yes 【2†a.pdf】.", "Yes [2].", [2]),
        ("Yes [Source 2].", "Yes [2].", [2]),
        ("Yes [source: 2, source 3].", "Yes [2][3].", [2, 3]),
        ("Yes [Sources 1-3].", "Yes [1][2][3].", [1, 2, 3]),
        ("Yes [2, p. 14] and [1, pages 3-4].", "Yes [2] and [1].", [2, 1]),
        ("Yes [ 2 ] [02].", "Yes [2] [2].", [2]),
        ("Yes [1](https://evil.example/?q=1).", "Yes [1].", [1]),
        ("Yes [1](#a)(#b) [2](see below).", "Yes [1] [2](see below).", [1, 2]),
        ("Yes [[2]].", "Yes [[2]].", [2]),
        ("Yes [1].\n\n[1]: https://evil.example", "Yes [1].\n\n[1]: https://evil.example", [1]),
        (
            "**Yes [1]**\n\n- a [2]\n- b\n\n| c [3] |\n|-|\n",
            "**Yes [1]**\n\n- a [2]\n- b\n\n| c [3] |\n|-|\n",
            [1, 2, 3],
        ),
        ("Yes [\u200b1\u202e].", "Yes [1].", [1]),
    ],
)
def test_each_form_becomes_marks(written: str, checked: str, numbers: list[int]) -> None:
    answer = check(written, SOURCES)
    assert answer.text == checked
    assert [citation.number for citation in answer.citations] == numbers
    assert all(citation.chunk is SOURCES[citation.number - 1] for citation in answer.citations)
    assert answer.problems == ()


@pytest.mark.parametrize(
    ("written", "checked", "problems"),
    [
        ("Yes [1] [7].", "Yes [1].", (removed(7),)),
        ("[7] Yes [1].", " Yes [1].", (removed(7),)),
        ("Yes [1, 7].", "Yes [1].", (removed(7),)),
        ("Yes [1-4].", "Yes [1][2][3].", (removed(4),)),
        ("Yes [0-1].", "Yes [1].", (removed(0),)),
        ("Yes [7] [7] 【7】 [1].", "Yes [1].", (removed(7),)),
        ("Yes [1] [[7]2].", "Yes [1] […2].", (removed(7),)),
        ("Yes [Source 9](javascript:alert(1)) [1].", "Yes) [1].", (removed(9),)),
        (
            "Yes [7-8] [1] [9].",
            "Yes [1].",
            ("The answer cited [7], [8], [9], which name no source; the marks were removed.",),
        ),
        ("Yes [7].", "Yes.", (removed(7), NOT_GROUNDED)),
        ("Yes [99999999999999999999].", "Yes.", (removed(999999999), NOT_GROUNDED)),
        ("Yes.", "Yes.", (NOT_GROUNDED,)),
        ("Yes `[1]`.", "Yes `[1]`.", (NOT_GROUNDED,)),
        (r"Yes \[1\].", r"Yes \[1\].", (NOT_GROUNDED,)),
        ("Yes [x] [1.5] [a1] [].", "Yes [x] [1.5] [a1] [].", (NOT_GROUNDED,)),
    ],
)
def test_numbers_without_a_source_are_removed_and_reported(
    written: str, checked: str, problems: tuple[str, ...]
) -> None:
    answer = check(written, SOURCES)
    assert answer.text == checked
    assert answer.problems == problems


@pytest.mark.parametrize(
    "code",
    [
        "`a[7]`",
        "``a ` [7]``",
        "```\na[7]\n```",
        "~~~py\na[7]",
        "- x\n  ```\n  a[7]\n  ```",
        "> ```\n> a[7]\n> ```",
    ],
)
def test_code_stays_as_it_is(code: str) -> None:
    answer = check(f"Yes [1].\n\n{code}", SOURCES)
    assert answer.text == f"Yes [1].\n\n{code}"
    assert [citation.number for citation in answer.citations] == [1]
    assert answer.problems == ()


@pytest.mark.parametrize("text", ["`\nx` [7] `y`", "`a\n\n[7]`", r"\`[7]\`", "``[7]`", "- `a\n- [7]`"])
def test_what_only_looks_like_code_hides_no_number(text: str) -> None:
    answer = check(f"Yes [1]. {text}", SOURCES)
    assert "[7]" not in answer.text
    assert answer.problems == (removed(7),)


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_blank_answer_has_no_problems(text: str) -> None:
    assert check(text, SOURCES).problems == ()


def test_an_answer_from_no_sources_cites_nothing() -> None:
    assert check("Yes [1].", []).text == "Yes."


# --- Links to the sources --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("Yes [1][2].", r"Yes [\[1\]](#q1-src-1)[\[2\]](#q1-src-2)."),
        ("Yes `[1]` [2].", r"Yes `[1]` [\[2\]](#q1-src-2)."),
        ("```\n[1]\n```\n\n[2]", "```\n[1]\n```\n\n[\\[2\\]](#q1-src-2)"),
        (r"\[1\] [2]", r"\[1\] [\[2\]](#q1-src-2)"),
        ("| a [1] |\n|-|", "| a [\\[1\\]](#q1-src-1) |\n| --- |"),
        ("[[1]](https://evil.example)", r"[\[1\]](#q1-src-1)"),
    ],
)
def test_marks_become_links_to_their_anchors(text: str, linked: str) -> None:
    assert link_citations(safe_markdown(text), "q1-src-") == linked


@pytest.mark.parametrize("prefix", ["", "1", "a)b", "a b", "src-\n", "ä"])
def test_an_anchor_is_a_plain_word(prefix: str) -> None:
    with pytest.raises(ValueError, match="An anchor is"):
        link_citations("[1]", prefix)


# --- Safe Markdown: what stays ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("One\ntwo\n\nthree", "<p>One\ntwo</p>\n<p>three</p>\n"),
        ("**a *b* c** _d_ ~~e~~", "<p><strong>a <em>b</em> c</strong> <em>d</em> <s>e</s></p>\n"),
        ("- a\n- b\n  1. c\n  2. d", None),
        ("3. a\n4. b", None),
        ("- a\n\n  b\n- c", None),
        ("> a\n> > b", None),
        ("a\\\nb  \nc", None),
        ("| a | b |\n|:--|--:|\n| 1 | `2` |\n| 3 | \\| |", None),
        ("`a < b` and `` a`b ``", None),
        ("```\nx < y\n\n  z\n```", None),
        ("- a\n  ```\n  x\n  ```", None),
        ("a\n\n---\n\nb", None),
        ("Costs of $4.5 to $5 (5 % of 1*2_3) & more: 7 < 8; 1. 2) # x", None),
        ("1\\. a\n\\- b\n\\# c\n2019\\. It rose.", None),
        ("12:30:45 at 9:00, a:b, x@ y", None),
        ("[1] [1][2] see [x] and \\[3\\]", None),
        ("AT&T &amp; &lt;b&gt;", None),
        ("", ""),
    ],
)
def test_ordinary_markdown_looks_the_same(text: str, html: str | None) -> None:
    plain = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    rendered = plain.render(safe_markdown(text)).replace("<code>x@</code>", "x@")
    assert rendered == (plain.render(text) if html is None else html)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("# Answer", "**Answer**"),
        ("A **b**\n===", "**A b**"),
        ("###", ""),
        ("![chart](https://evil.example/x.png)", "chart"),
        ("[report](https://evil.example)", "report"),
        ("[run](javascript:alert) ![x](data:text/html,x)", "run x"),
        ("[a][b]\n\n[b]: https://evil.example", "\\[a\\]\\[b\\]\n\n\\[b\\]\\: `https://evil.example`"),
        ("<https://evil.example/>", "`https://evil.example/`"),
        ("see www.evil.example, ok", "see `www.evil.example`, ok"),
        ("mail a@evil.example.", "mail `a@evil.example`."),
        ("<b>x</b>", r"\<b\>x\</b\>"),
        ("a &#x202e;b\u202e", "a b"),
        ("$x$", r"\$x\$"),
        (":red[x] :small[y]", r"\:red\[x\] \:small\[y\]"),
        (":smile: :material/home:", "`:smile:` `:material/home:`"),
        ("```mermaid\ngraph\n```", "```\ngraph\n```"),
        ("half **bold and [a link](https://evil", r"half \*\*bold and \[a link\]\(`https://evil`"),
    ],
)
def test_what_is_changed_is_changed_like_this(text: str, safe: str) -> None:
    assert safe_markdown(text) == safe


def test_joiners_stay_where_scripts_and_emoji_need_them() -> None:
    persian, scientist = "\u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f52c"
    assert safe_markdown(f"{persian} {scientist} a\u200db\u200c") == f"{persian} {scientist} ab"


def test_safe_text_can_be_encoded() -> None:
    assert safe_markdown("a\ud800b\x00").encode() == b"ab"


# --- Safe Markdown: attacks ------------------------------------------------------------------------------

FULL = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# What Streamlit's own plug-ins look for in text after all escapes are resolved.
LIVE = re.compile(r"https?://|www\.|[\w.+-]@[\w.-]|:(?![0-9]{2}:)[\w+-]+:|:material/\w+:", re.IGNORECASE)
HIDDEN = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff]"
)
FORBIDDEN = {"image", "link_open", "html_inline", "html_block", "heading_open"}


def shown_texts(markdown: str) -> Iterator[str]:
    """Each run of text outside code."""
    for token in FULL.parse(markdown):
        run = ""
        for child in token.children or []:
            if child.type == "text":
                run += child.content
            else:
                yield run
                run = ""
        yield run


def assert_harmless(markdown: str) -> None:
    tokens = FULL.parse(markdown)
    types = {token.type for token in tokens} | {
        child.type for token in tokens for child in token.children or []
    }
    assert not types & FORBIDDEN, markdown
    assert not HIDDEN.search(markdown), markdown
    assert not any(token.info for token in tokens if token.type == "fence"), markdown
    assert not [text for text in shown_texts(markdown) if LIVE.search(text)], markdown
    outside_code = re.sub(r"\\[\s\S]|(`+)[\s\S]*?[^`]\1(?!`)", "", markdown)
    assert not re.search(r"\$|:[a-z]|::|\[\^", outside_code), markdown


def test_there_are_enough_attacks() -> None:
    assert len(set(ATTACKS)) >= 60


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_prefix_of_an_attack_is_harmless(attack: str) -> None:
    for end in range(len(attack) + 1):
        assert_harmless(safe_markdown(attack[:end]))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_in_an_answer_leaves_only_links_to_sources(attack: str) -> None:
    checked = check(f"Yes [1]. {attack}\n\n{attack} [7]", SOURCES)
    linked = link_citations(safe_markdown(checked.text), "src-")
    targets = [
        child.attrs["href"]
        for token in FULL.parse(linked)
        for child in token.children or []
        if child.type == "link_open"
    ]
    assert set(targets) <= {"#src-1", "#src-2", "#src-3"}
    assert_harmless(re.sub(r"\[\\\[([1-3])\\\]\]\(#src-\1\)", r"[\1]", linked))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_checked_attack_is_checked_and_a_safe_one_safe(attack: str) -> None:
    checked = check(f"{attack} [1] [7]", SOURCES)
    again = check(checked.text, SOURCES)
    assert (again.text, again.citations) == (checked.text, checked.citations)
    assert safe_markdown(safe_markdown(attack)) == safe_markdown(attack)


def test_random_mixtures_of_attacks_are_harmless_and_cite_only_sources() -> None:
    pieces = [*"[]()!`*_~<>|$:#\\\n-1 ", "\n\n", "    ", "```", "[7]", "[1]", "&#91;", "&#58;", *ATTACKS]
    mixer = random.Random(7)
    for _ in range(400):
        text = "".join(mixer.choices(pieces, k=mixer.randint(2, 12)))
        assert_harmless(safe_markdown(text))
        answer = check(text, SOURCES)
        links = re.findall(r"\]\(#src-(\d+)\)", link_citations(safe_markdown(answer.text), "src-"))
        assert set(links) <= {str(citation.number) for citation in answer.citations} <= {"1", "2", "3"}


@pytest.mark.parametrize(
    "piece", ["[", "![", "`a ", "*a ", "> ", "- ", "a@", "www.", "[7](#", "~~~\n", "[1-", "\\", "|"]
)
def test_long_hostile_texts_take_no_long_time(piece: str) -> None:
    text = piece * (8000 // len(piece))
    assert_harmless(safe_markdown(text))
    check(text, SOURCES)
