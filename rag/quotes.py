"""An answer without an LLM: the sentences of the sources that answer best, quoted word for word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingest.types import Chunk

ScoreSentences = Callable[[str, Sequence[str]], Sequence[float]]
"""Question and sentences to one cross-encoder score a sentence; higher is better."""

NO_SOURCES = "No passage was found in your documents."
MOST_QUOTES = 5
MOST_QUOTES_PER_SOURCE = 2
LONGEST_QUOTE = 350


@dataclass(frozen=True, slots=True)
class _Quote:
    source: int
    start: int
    text: str
    score: float


class ExtractiveAnswerer:
    """Quotes the sentences of the sources that the cross-encoder scores highest, word for word."""

    name = "extractive (no LLM configured)"
    note = (
        "No LLM is configured, so these are quotes. For a written answer set OPENAI_API_KEY and/or "
        "OPENAI_BASE_URL, and LLM_MODEL."
    )

    def __init__(self, score_sentences: ScoreSentences) -> None:
        self._score_sentences = score_sentences

    def stream(self, question: str, sources: Sequence[Chunk]) -> Iterator[str]:
        """One line of a list for each quote; the source with the best quote first, in reading order."""
        quotes = self._score(question, sources)
        if not quotes:
            yield NO_SOURCES
            return
        for quote in _in_reading_order(_best(quotes)):
            yield f"- “{_literal(quote.text)}” [{quote.source}]\n"

    def _score(self, question: str, sources: Sequence[Chunk]) -> list[_Quote]:
        """Every sentence of the sources once, with its score.

        Each is scored under its chunk's heading: else those that name the document again win by that alone.
        """
        found: dict[str, tuple[int, int]] = {}
        for number, chunk in enumerate(sources, start=1):
            for start, text in _quotable(chunk.text):
                found.setdefault(text, (number, start))  # chunks overlap
        headings = (sources[number - 1].heading for number, _ in found.values())
        passages = [f"{heading}\n{text}".strip() for heading, text in zip(headings, found, strict=True)]
        scores = self._score_sentences(question, passages) if passages else []
        return [
            _Quote(number, start, text, float(score))
            for (text, (number, start)), score in zip(found.items(), scores, strict=True)
        ]


def _best(quotes: Sequence[_Quote]) -> list[_Quote]:
    """The highest scores, a few for a source, and none that is nearer to the average than to the best.

    Rerankers differ in their scale, so the bar is a place between average and best, not a distance.
    """
    scores = [quote.score for quote in quotes]
    bar = (max(scores) + sum(scores) / len(scores)) / 2
    best: list[_Quote] = []
    for quote in sorted(quotes, key=lambda quote: -quote.score):
        used = sum(other.source == quote.source for other in best)
        said = any(quote.text in other.text or other.text in quote.text for other in best)
        if quote.score >= bar and not said and used < MOST_QUOTES_PER_SOURCE and len(best) < MOST_QUOTES:
            best.append(quote)
    return best


def _in_reading_order(quotes: Sequence[_Quote]) -> list[_Quote]:
    order = list(dict.fromkeys(quote.source for quote in quotes))
    return sorted(quotes, key=lambda quote: (order.index(quote.source), quote.start))


def _quotable(text: str) -> list[tuple[int, str]]:
    """Offset and words of each sentence worth quoting; all sentences where none is."""
    sentences = []
    for start, end in split_sentences(text):
        bullet = _BULLET.match(text, start, end)
        begin = bullet.end() if bullet else start
        sentences.append((begin, _shorten(" ".join(text[begin:end].replace("\ufffe", "").split()))))
    return [(start, words) for start, words in sentences if _says_something(words)] or sentences


def _says_something(words: str) -> bool:
    """More than a page number, a column of figures, a heading, or the line before a list."""
    if len(words.split()) < 4 or not re.search(r"[^\W\d_]{3}", words) or words.endswith((":", "?")):
        return False
    is_title = all(word[0].isupper() for word in re.findall(r"[^\W\d_]{5,}", words))
    return not is_title or words.endswith(".") or re.search(r"\d", words) is not None


def _shorten(words: str) -> str:
    if len(words) <= LONGEST_QUOTE:
        return words
    return words[: LONGEST_QUOTE - 1].rsplit(" ", 1)[0] + " …"


def _literal(text: str) -> str:
    """Text that Markdown shows as it is; a [7] in a document is not a citation."""
    return re.sub(r"[\\`*_\[\]<]|&(?=#?\w+;)|~(?=~)", r"\\\g<0>", text)


_NUMBERED = r"(?:item|note|part|section|article|chapter|table|figure|exhibit|step)\s+"
_ABBREVIATION = re.compile(
    r"mrs?|ms|dr|prof|st|[js]r|inc|corp|co|ltd|llc|plc|bros|dept|est|approx|vs|etc|al|cf|nos?|vol|figs?|secs?|"
    r"arts?|ch|pp?|par|refs?|eq|eds?|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|[a-z]|.*\..*|"
    rf"{_NUMBERED}\w+",
    re.IGNORECASE,
)
_STARTER = re.compile(
    r"an?|after|all|although|and|as|at|because|before|but|by|during|each|for|from|he|how|however|if|in|its?|"
    r"many|most|no|on|our|she|since|some|such|that|the|their|there|these|they|this|those|to|under|until|we|"
    r"what|when|where|while|who|why|with|you|your",
    re.IGNORECASE,
)
_CLOSING = "\"'\u201d\u2019)\\]"
_SENTENCE_END = re.compile(rf"(?P<stop>[.!?\u2026]+)[{_CLOSING}]*(?=\s)|[\u3002\uff01\uff1f]+")
_BULLET = re.compile(r"\s*[\u2022\u25cf\u25aa\u25e6\u2023\u00b7\u25a0\u25a1\u2013\u2014*-]\s")
_FIGURE = re.compile(
    r"[(+-]?[$\u20ac\u00a3\u00a5]?\(?[\d,.]*\d%?\)?%?|[$\u20ac\u00a3\u00a5%)\u2014\u2013-]+|N/?[AM]"
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Start and end offsets of the sentences, headings, list items and table rows of a text, trimmed.

    A line break ends one only where the next line plainly begins something else; PDF text breaks lines
    anywhere.
    """
    cuts = {match.end() for match in _SENTENCE_END.finditer(text) if _ends_sentence(text, match)}
    cuts |= set(_line_cuts(text))
    spans = []
    for start, end in pairwise([0, *sorted(cuts), len(text)]):
        words = text[start:end]
        if words.strip():
            spans.append((end - len(words.lstrip()), start + len(words.rstrip())))
    return spans


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    before = re.findall(rf"(?i)(?:\b{_NUMBERED})?[\w.&-]+$", text[max(0, match.start() - 30) : match.start()])
    after = re.findall(r"^\W*(\w+)", text[match.end() : match.end() + 40])
    word, following = "".join(before), "".join(after)
    if following[:1].islower():
        return False
    if match["stop"] != ".":
        return True
    if word.isdigit() and not text[: match.start() - len(word)].rpartition("\n")[2].strip():
        return False  # "1." at the beginning of a line numbers what follows
    return not _ABBREVIATION.fullmatch(word) or _STARTER.fullmatch(following) is not None


def _line_cuts(text: str) -> Iterator[int]:
    """Offsets of the line breaks that end a heading, a list item or a row of a table."""
    lines = list(re.finditer(r"\S[^\r\n]*", text))
    width = max((len(line[0]) for line in lines), default=0)
    for line, following in pairwise(lines):
        left, right = line[0].rstrip(), following[0]
        between = text[line.end() : following.start()]
        row = (_is_row(left) or _is_row(right)) and not right[0].islower()
        heading = len(left) < 0.6 * width and right[0].isupper() and not left.endswith((",", "-", "\ufffe"))
        if between.count("\n") > 1 or _BULLET.match(right) or row or heading:
            yield line.end()


def _is_row(line: str) -> bool:
    """True for a row of a table: it ends with a figure, and much of it is figures."""
    figures = [_FIGURE.fullmatch(token) is not None for token in line.split()]
    return len(figures) > 2 and figures[-1] and sum(figures) >= 0.4 * len(figures)
