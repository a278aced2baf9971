"""What a reader should know before trusting a ranking, as sentences that every door shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from ingest.types import Chunk
from rag.types import Ranking

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

Kind = Literal["off", "failed", "absent", "language", "truncated", "similar", "ties"]

SIMILAR = 0.75
"""Share of words, in order, that two passages have in common when they say nearly the same.

Of 2,100 pairs among the first five passages of benefit plans and filings, all above it were the same text with
a name, a period or figures changed; pairs that only share a subject stayed below 0.7.
"""

LANGUAGE_MARGIN = 12.0
"""How much likelier (natural logarithm) another language must be than any language of the passages.

Of 883 English questions one came above it, on a Latin term; of 70 in seven other languages none came below 24.
"""

LANGUAGES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nb": "Norwegian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sr": "Serbian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
"""ISO 639-1 codes to the names shown; others show their code."""


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing to know about a ranking; `text` is plain text and may quote messages from outside."""

    kind: Kind
    text: str
    level: Literal["info", "warning"]


@dataclass(frozen=True, slots=True)
class _Source:
    """A candidate in the order that is used: its rank there, the score it was ranked by, its chunk."""

    rank: int
    score: float
    chunk: Chunk
    truncated: bool


def concerns(ranking: Ranking, *, reranked: bool, reranker_problem: str = "") -> tuple[Concern, ...]:
    """Everything worth knowing about the chosen sources of a ranking, the gravest first.

    `reranked` says whose order is used. `reranker_problem` is why no reranker could be loaded, which matters
    even where reranking is switched off.
    """
    candidates = _candidates(ranking, reranked=reranked)
    sources = candidates[: ranking.sources]
    return (
        *_not_reranked(ranking, reranked, reranker_problem),
        *_absent(ranking, reranked),
        *_language(ranking.question, [source.chunk for source in sources]),
        *_question_cut(ranking),
        *_truncated(candidates, sources),
        *_similar(sources),
        *_ties(candidates, ranking.sources, reranked=reranked and bool(ranking.order)),
    )


def _candidates(ranking: Ranking, *, reranked: bool) -> list[_Source]:
    if reranked and ranking.order:
        return [_Source(r.rank, r.logit, r.hit.chunk, r.truncated) for r in ranking.order]
    return [_Source(hit.rank, hit.cosine, hit.chunk, truncated=False) for hit in ranking.hits]


def _not_reranked(ranking: Ranking, reranked: bool, problem: str) -> Iterator[Concern]:
    if reranked and ranking.rerank_problem:
        yield Concern(
            "failed",
            f"Not reranked, the answer rests on the bi-encoder's order. {ranking.rerank_problem}",
            "warning",
        )
    elif not reranked or (ranking.hits and not ranking.order):
        yield Concern("off", "Reranking is off: this is the bi-encoder's order.", "info")
        if problem:
            yield Concern(
                "off", f"Quotes are chosen by cosine, because there is no reranker. {problem}", "info"
            )


def _absent(ranking: Ranking, reranked: bool) -> Iterator[Concern]:
    if reranked and ranking.confident is False:
        best = ranking.order[0].probability
        yield Concern(
            "absent",
            f"Probably not in your documents: even the best passage scores only {best:.2f}.",
            "warning",
        )


def _question_cut(ranking: Ranking) -> Iterator[Concern]:
    if ranking.question_cut:
        yield Concern(
            "truncated",
            "The bi-encoder did not read your question to its end: candidates were found by its beginning. "
            "Shorten it.",
            "warning",
        )


def _truncated(candidates: Sequence[_Source], sources: Sequence[_Source]) -> Iterator[Concern]:
    cut = [source.rank for source in sources if source.truncated]
    if not cut:
        return
    if len(candidates) > 1 and all(candidate.truncated for candidate in candidates):
        # a question that is cut is cut for every passage alike
        text = (
            f"The reranker read none of the {len(sources)} sources together with your whole question: the "
            "question is too long for it. Shorten it."
        )
    else:
        text = (
            f"The reranker did not read {len(cut)} of the {len(sources)} sources to the end: {_listed(cut)}."
        )
    yield Concern("truncated", text, "warning")


def _ties(candidates: Sequence[_Source], cut: int, *, reranked: bool) -> Iterator[Concern]:
    """The last source and the first one left out score alike: which of them is used is chance."""
    if len(candidates) <= cut or candidates[cut - 1].score != candidates[cut].score:
        return
    equal = [candidate.rank for candidate in candidates if candidate.score == candidates[cut].score]
    kept = "the bi-encoder's order" if reranked else "the order of the index"
    yield Concern(
        "ties",
        f"{_listed(equal)} have the same score, and only the first {cut} are used: they stay in {kept}.",
        "info",
    )


def _similar(sources: Sequence[_Source]) -> Iterator[Concern]:
    for group in _groups(sources):
        documents = {source.chunk.doc_id for source in group}
        where = f", in {len(documents)} documents" if len(documents) > 1 else ""
        yield Concern(
            "similar", f"{_listed(source.rank for source in group)} say nearly the same{where}.", "info"
        )


def _groups(sources: Sequence[_Source]) -> list[list[_Source]]:
    """Sources that say nearly the same as another one of their group."""
    groups = [[source] for source in sources]
    for left, right in combinations(sources, 2):
        if _say_the_same(left.chunk, right.chunk):
            first, second = (next(group for group in groups if one in group) for one in (left, right))
            if first is not second:
                first += second
                groups.remove(second)
    return [sorted(group, key=lambda source: source.rank) for group in groups if len(group) > 1]


def _say_the_same(left: Chunk, right: Chunk) -> bool:
    same_page = (left.doc_id, left.page) == (right.doc_id, right.page)
    if same_page and left.start < right.end and right.start < left.end:
        return False  # neighbours on a page repeat each other's edge
    matcher = SequenceMatcher(None, _words(left.text), _words(right.text), autojunk=False)
    bounds = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)  # cheap upper bounds first
    return all(bound() >= SIMILAR for bound in bounds)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _language(question: str, passages: Sequence[Chunk]) -> Iterator[Concern]:
    """Names the question's language where it is surely none that the passages are in."""
    if not passages:
        return
    identifier = load_languages()
    likelihood = dict(identifier.rank(question))
    asked = max(likelihood, key=lambda language: likelihood[language])
    spoken = Counter(identifier.classify(passage.text)[0] for passage in passages)
    if likelihood[asked] - max(likelihood[language] for language in spoken) >= LANGUAGE_MARGIN:
        ((most, _),) = spoken.most_common(1)
        yield Concern(
            "language",
            f"The question seems to be in {_name(asked)}, the passages found in {_name(most)}: search and "
            "reranking are less sure across languages. Ask in the language of your documents.",
            "warning",
        )


@lru_cache(maxsize=1)
def load_languages() -> LanguageIdentifier:
    """The language identifier, loaded at the first call (about a second); its model comes with the package."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _name(language: str) -> str:
    return LANGUAGES.get(language, f"another language ({language})")


def _listed(ranks: Iterable[int]) -> str:
    *most, last = [f"#{rank}" for rank in ranks]
    return f"{', '.join(most)} and {last}" if most else last
