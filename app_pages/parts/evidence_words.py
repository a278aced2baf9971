"""What the Evidence page calls things, in words for people who never measured a search before."""

from __future__ import annotations

from rag.evidence.verdict import Verdict, Word

ICONS: dict[Word, str] = {
    "helps": ":material/trending_up:",
    "hurts": ":material/trending_down:",
    "no difference seen": ":material/trending_flat:",
    "too few questions to say": ":material/help:",
}
COLOURS: dict[Word, str] = {
    "helps": "green",
    "hurts": "red",
    "no difference seen": "gray",
    "too few questions to say": "orange",
}
HEADLINES: dict[Word, str] = {
    "helps": "Reranking helps on these documents.",
    "hurts": "Reranking hurts on these documents.",
    "no difference seen": "Reranking makes no difference that could be seen.",
    "too few questions to say": "Too few questions to say whether reranking helps.",
}
MEANING = {
    "recall@1": "Share of the right passages that stand first.",
    "recall@5": "Share of the right passages among the first 5: those that an answer is written from.",
    "recall@10": "Share of the right passages among the first 10.",
    "MRR@10": "1 divided by the rank of the first right passage, on average: 1.0 first, 0.5 second, 0 beyond 10.",
    "nDCG@10": "All right passages of the first 10 count, the higher the more; 1.0 is the best possible order.",
}
"""What each measure says, in half a line."""
BI_ENCODER_HELP = "The order without reranking: by the nearness of question and passage, read separately."


def headline(verdict: Verdict) -> str:
    """The verdict as a sentence that can stand alone."""
    more = f" About {verdict.needed:,} would do." if verdict.needed else ""
    return f"{HEADLINES[verdict.word]}{more}"


def signed(number: float) -> str:
    """A difference with its sign, a true minus."""
    return f"{number:+.3f}".replace("-", "\u2212")


def count(number: int, what: str) -> str:
    """`1 question`, `2 questions`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def milliseconds(number: float) -> str:
    """Milliseconds as people read them."""
    return f"{number:.0f} ms" if number < 1000 else f"{number / 1000:.1f} s"
