from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from ingest.embed import Embedder
from ingest.store import library_fingerprint
from rag.answer import ChatAnswerer
from rag.export import (
    Provenance,
    QuestionRecord,
    conversation_markdown,
    provenance,
    question_data,
)
from rag.pipeline import answer
from rag.rerank import Reranker
from rag.services import Services
from rag.settings import Settings
from rag.types import Answer, Answered, Citation, Hit, Ranked, Ranking, ScorePart, Seconds
from tests.fake_llm import FakeLlm, fail
from tests.fakes import a_chunk
from tests.pdfs import text_pdf

PROVENANCE = Provenance("c" * 64, 2, "words@1", "cpu, float32", "f" * 64, "cpu, bfloat16")
APPLE, PEAR, PLUM = (
    a_chunk(text, start=100 * n) for n, text in enumerate(("An apple.", "A pear.", "A plum."))
)
HITS = (Hit(APPLE, 0.9, 1), Hit(PEAR, 0.8, 2), Hit(PLUM, 0.7, 3))
ORDER = tuple(
    Ranked(hit, logit, 0.5, rank, (ScorePart("cross-encoder logit", logit),), truncated=False)
    for rank, (hit, logit) in enumerate(((HITS[2], 3.0), (HITS[0], 2.0), (HITS[1], 1.0)), start=1)
)
RANKING = Ranking(
    question="Which fruit does the tree in the garden bear?",
    hits=HITS,
    order=ORDER,
    sources=2,
    seconds=Seconds(0.1, 0.2, 0.3),
    embedder="words",
    reranker="lengths",
    rerank_problem="",
    confident=True,
)
ANSWERED = Answered(
    answer=Answer("Plums [1].", (Citation(1, PLUM),), ()),
    sources=(PLUM, APPLE),
    reranked=True,
    answerer="a model",
    note="",
    seconds_first=0.1,
    seconds=0.5,
    error="",
)
RECORD = QuestionRecord("Which fruit does it bear?", RANKING, (ANSWERED,), 50, None, "On", PROVENANCE)


def test_a_question_keeps_every_candidate_with_both_ranks_and_both_scores() -> None:
    data = question_data(RECORD)
    rows = [
        (c["rank"], c["reranked_rank"], c["cosine"], c["logit"], c["moved"], c["chosen"])
        for c in data["candidates"]
    ]
    assert rows == [(1, 2, 0.9, 2.0, -1, True), (2, 3, 0.8, 1.0, -1, False), (3, 1, 0.7, 3.0, 2, True)]
    assert data["candidates"][2]["parts"] == {"cross-encoder logit": 3.0}
    assert data["candidates"][0]["chunk"]["text"] == "An apple."


def test_a_question_says_how_it_was_made() -> None:
    data = json.loads(json.dumps(question_data(RECORD)))
    assert set(data) == {
        "format",
        "version",
        "app_version",
        "asked",
        "question",
        "parameters",
        "models",
        "corpus",
        "candidates",
        "rerank_problem",
        "confident",
        "seconds",
        "concerns",
        "answers",
    }
    assert (data["format"], data["version"]) == ("second-look/question", 1)
    assert (data["asked"], data["question"]) == ("Which fruit does it bear?", RANKING.question)
    assert data["parameters"] == {
        "depth": 50,
        "sources": 2,
        "reranking": True,
        "doc_ids": None,
        "mode": "On",
    }
    assert data["models"] == {
        "embedder": {"name": "words", "revision": "words@1", "device": "cpu, float32"},
        "reranker": {"name": "lengths", "revision": "f" * 64, "device": "cpu, bfloat16"},
    }
    assert data["corpus"] == {"fingerprint": "c" * 64, "documents": 2}
    assert data["seconds"]["total"] == pytest.approx(0.6)
    assert data["concerns"] == []
    assert data["answers"][0]["citations"][0]["chunk"]["id"] == PLUM.id


def test_without_reranking_the_bi_encoder_chooses_and_its_absence_is_a_concern() -> None:
    data = question_data(replace(RECORD, mode="Off", doc_ids=("d" * 64,), provenance=None))
    assert [candidate["chosen"] for candidate in data["candidates"]] == [True, True, False]
    assert data["parameters"]["reranking"] is False
    assert data["parameters"]["doc_ids"] == ["d" * 64]
    assert [concern["kind"] for concern in data["concerns"]] == ["off"]
    assert data["corpus"] is None
    assert data["models"]["embedder"]["revision"] is None
    assert question_data(replace(RECORD, ranking=replace(RANKING, reranker="")))["models"]["reranker"] is None


def test_provenance_tells_the_documents_in_scope_and_the_weights(
    services: Services, embedder: Embedder, reranker: Reranker
) -> None:
    ids = []
    for words in ("The pump needs oil.", "The lake is deep."):
        job = services.queue.add("a.pdf", text_pdf([[words]]), owner="local")
        services.queue.run_pending()
        ids.append(services.queue.job(job.id, owner="local").doc_id)
    found = provenance(services.stages)
    documents = {document.id: document for document in services.store.documents()}
    assert (found.documents, found.corpus) == (2, services.library_fingerprint())
    assert (found.embedder, found.embedder_device) == (embedder.id, embedder.device)
    assert (found.reranker, found.reranker_device) == (reranker.revision, reranker.device)
    assert len(found.reranker) == 64
    one = provenance(services.stages, doc_ids=[ids[0], "0" * 64])
    assert (one.documents, one.corpus) == (1, library_fingerprint([documents[ids[0]]], embedder.id))


def test_a_conversation_reads_as_markdown() -> None:
    off = replace(RECORD, asked="And which else?", mode="Off", answers=())
    text = conversation_markdown([RECORD, off])
    assert text.startswith("# Second Look: a conversation\n")
    assert "## Question 1\n\n> Which fruit does it bear?\n\n" in text
    assert "Searched for: Which fruit does the tree in the garden bear?" in text
    assert "Plums [1]." in text
    assert "- \\[1\\] fruit.pdf, page 1" in text
    assert "*words and lengths, 3 candidates from all documents, 2 sources, 0.6 s*" in text
    assert "## Question 2" in text
    assert "**Note:** Reranking is off: this is the bi-encoder's order." in rendered_text(text)
    assert text.endswith("\n")


def rendered_text(markdown: str) -> str:
    """The Markdown without the backslashes that keep it literal."""
    return markdown.replace("\\", "")


ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![pixel](https://evil.example/p.png)",
    "[click](javascript:alert(1))",
    "[1]: https://evil.example\n\n[1]",
    "<https://evil.example>",
    "https://evil.example/?q=1 www.evil.example a@evil.example",
    "\\<b>\\\\<i>&lt;u&gt;&#60;s&#62;",
    "`<b>` ``` <i> ``",
    "```mermaid\ngraph TD\n```\n<iframe src=//evil.example>",
    "# heading\n\n---\n\n| a | b |\n|---|---|\n| <b> | c |",
    "{{7*7}} {% include %} ${alert(1)} $x$",
    "<!-- hidden --> <?php ?> <![CDATA[x]]>",
    "\u202etxt.fdp\u200b",
    "[^1] ![[embed]] :::note",
)


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        # of attributes only the start of a numbered list is known
        self.found |= {name for name, _ in attrs if name != "start"}

    def handle_decl(self, decl: str) -> None:
        self.found.add("!declaration")

    def handle_pi(self, data: str) -> None:
        self.found.add("?instruction")

    def handle_comment(self, data: str) -> None:
        self.found.add("!comment")


def tags(markdown: str) -> set[str]:
    """Tags that a viewer draws which passes HTML through."""
    parser = Tags()
    parser.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))
    return parser.found


PLAIN = {"h1", "h2", "h3", "p", "blockquote", "em", "strong", "ul", "li", "code"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_brings_nothing_into_the_markdown(attack: str) -> None:
    chunk = replace(PLUM, source=attack)
    answered = replace(
        ANSWERED, answer=Answer("Plums [1].", (Citation(1, chunk),), (attack,)), note=attack, error=attack
    )
    ranking = replace(RANKING, question=attack, embedder=attack, rerank_problem=attack)
    text = conversation_markdown([QuestionRecord(attack, ranking, (answered,), 50, None, "On")])
    assert tags(text) <= PLAIN
    assert not set(text) & set("\u202e\u200b")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_answer_brings_only_the_markup_of_an_answer(attack: str) -> None:
    answered = replace(ANSWERED, answer=Answer(attack, (), ()))
    text = conversation_markdown([replace(RECORD, answers=(answered,))])
    assert tags(text) <= PLAIN | {"pre", "ol", "table", "thead", "tbody", "tr", "th", "td", "hr"}


def test_tags_and_braces_are_entities_for_viewers_that_know_no_escapes() -> None:
    answered = replace(ANSWERED, answer=Answer("<b> {{x}} & `<code>`", (), ()))
    text = conversation_markdown([replace(RECORD, asked="<i>{{y}}", answers=(answered,))])
    assert "> &lt;i&gt;&#123;&#123;y&#125;&#125;" in text
    assert "&lt;b&gt; &#123;&#123;x&#125;&#125; &amp; `<code>`" in text


def test_text_from_outside_is_shown_letter_for_letter() -> None:
    asked = r"1. Is a_b * c <d> & \e [1] {f} #g ~h~ | `i`?"
    html = MarkdownIt("commonmark").render(conversation_markdown([replace(RECORD, asked=asked)]))
    assert asked in unescape(re.sub(r"<[^>]*>", "", html))


def test_secrets_are_in_no_export() -> None:
    key = "sk-very-secret-0123456789"
    with FakeLlm(fail(401, f"Incorrect API key provided: {key}")) as llm:
        settings = Settings(llm_base_url=llm.base_url, llm_api_key=key, llm_model="small-model")
        answerer = ChatAnswerer(settings, pauses=())
        answered = answer(RANKING, answerer)
        answerer.close()
    record = replace(RECORD, answers=(answered,))
    for text in (json.dumps(question_data(record)), conversation_markdown([record])):
        assert answered.error[:20] in text
        assert key not in text
