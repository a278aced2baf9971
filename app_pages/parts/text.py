"""Text from outside on its way into Streamlit's Markdown."""

from __future__ import annotations

import re

from rag.citations import visible

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!<>|~$:&@/])")
# Streamlit looks for these after it has resolved escapes, so that only code is safe from it
_LIVE = re.compile(r"www\.|:\S|\S@\S", re.IGNORECASE)


def plain(text: str, *, limit: int = 200) -> str:
    """The text so that Markdown shows it letter for letter, on one line, at most `limit` characters.

    File names, headings and messages go through here wherever a label is Markdown. Text that Streamlit would
    make live all the same (addresses, :directives:) comes back as a code span.
    """
    line = one_paragraph(text)
    if len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    if _LIVE.search(line):
        # the longest run of backticks inside, and one more
        fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
        return f"{fence} {line} {fence}"
    return _MARKUP.sub(r"\\\1", line)


def one_paragraph(text: str) -> str:
    """A chunk's words without the line ends of the printed page and without what is not seen, for `st.text`."""
    line = " ".join(text.split())
    if line.isascii() and line.isprintable():  # mostly, and then nothing is hidden
        return line
    return " ".join(visible(line).split())


def size_text(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(size / 1e3, 0.1):.1f} kB"
