"""Runs in the background: one at a time, watched from any page, stopped, and taken up again after a restart."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ingest.errors import BadRequest, ModelUnavailable, StoreUnavailable, UserError
from ingest.store import LOCAL_OWNER
from rag.evidence.questions import measurable
from rag.evidence.run import Progress, corpus_of, make_header, run
from rag.evidence.sets import EvidenceStore, write_text
from rag.evidence.variants import DEPTHS, Plan, make_plan
from rag.rerank import Reranker, load_reranker
from rag.services import Services

CLOSING_SECONDS = 30.0
"""How long the end of the process waits for the question that is being asked."""
ALONE = "logit alone"
"""Among the others to measure: the app's own reranker without the cosine and BM25 in its score."""
_BROKE = "The run broke off because of a defect in this app: the log says where. What was asked is kept."


@dataclass(frozen=True, slots=True)
class Wish:
    """What to run; `against` names rerankers besides the app's own."""

    question_set: str
    depths: tuple[int, ...] = DEPTHS
    against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that was stopped or killed, and how many of its questions have been asked."""

    wish: Wish
    asked: int


@dataclass(frozen=True, slots=True)
class Going:
    """A run that is going on; `progress` is None while the models load."""

    wish: Wish
    progress: Progress | None
    stopping: bool


def alone(reranker: Reranker) -> Reranker:
    """The reranker without what its score adds to the cross-encoder's logit; it reads nothing a second time."""
    return replace(reranker, name=f"{reranker.name}, logit alone", cosine_weight=0.0, bm25_weight=0.0)


class Runs:
    """The runs of one owner: at most one is going on, and at most one waits to be taken up again."""

    def __init__(self, services: Services, owner: str) -> None:
        self._services = services
        self._owner = owner
        self._kept = EvidenceStore(services.settings.data, owner=owner)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._going: tuple[Wish, Progress | None] | None = None
        self._problem = ""
        self._finished = ""

    @property
    def going(self) -> Going | None:
        """The run that is going on, None where there is none."""
        now = self._going
        return Going(*now, self._stop.is_set()) if now else None

    @property
    def problem(self) -> str:
        """Why the last run of this process broke off; empty where it did not."""
        return self._problem

    @property
    def finished(self) -> str:
        """The id of the last run that this process kept; empty where there is none."""
        return self._finished

    @property
    def waiting(self) -> Waiting | None:
        """The run that was stopped or killed. Raises StoreUnavailable."""
        if self._going or not self._wish_file.exists():
            return None
        try:
            data = json.loads(self._wish_file.read_text(encoding="utf-8"))
            wish = Wish(data["question_set"], tuple(data["depths"]), tuple(data["against"]))
            return Waiting(wish, _lines(self._kept.journals / f"{data['key']}.jsonl"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"{self._wish_file} cannot be read ({error}): remove it, and start the run again."
            ) from error

    def start(self, wish: Wish) -> None:
        """Begin a run; the same one as was stopped goes on where it was. Raises BadRequest."""
        with self._lock:
            if self._going:
                raise BadRequest("A run is going on already: wait for it, or stop it.")
            if not measurable(self._kept.questions(wish.question_set)).questions:
                raise BadRequest(
                    f"No question of {wish.question_set!r} can be measured: add right passages to it."
                )
            make_plan((), wish.depths)
            self._stop.clear()
            self._problem, self._going = "", (wish, None)
            self._thread = threading.Thread(target=self._work, args=(wish,), name="evidence", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Have the run end after the question that is being asked."""
        self._stop.set()

    def forget(self) -> None:
        """Give up the run that waits; what it has asked stays on the disk."""
        if not self._going:
            self._wish_file.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop and wait for the end."""
        self.stop()
        self.wait(CLOSING_SECONDS)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until no run is going on."""
        if self._thread:
            self._thread.join(seconds)

    def _work(self, wish: Wish) -> None:
        problem = _BROKE
        try:
            self._finished = self._run(wish) or self._finished
            problem = ""
        except UserError as error:
            problem = str(error)
        finally:
            self._problem, self._going = problem, None

    def _run(self, wish: Wish) -> str:
        """Run and keep it; returns its id, empty where it was stopped before the first question."""
        services, owner = self._services, self._owner
        questions = measurable(self._kept.questions(wish.question_set))
        plan = self._plan(wish)
        corpus = corpus_of(services.store, services.embedder, owner=owner)
        self._write_wish(wish, make_header(questions, corpus, services.embedder, plan).key)
        made = run(
            questions,
            services.embedder,
            services.store,
            plan,
            owner=owner,
            journals=self._kept.journals,
            on_progress=lambda progress: self._tell(wish, progress),
            stop=self._stop.is_set,
        )
        if not made.results:
            return ""
        id_ = self._kept.keep(made)
        if made.finished:
            self._wish_file.unlink(missing_ok=True)
        return id_

    def _plan(self, wish: Wish) -> Plan:
        stages = self._services.stages_of(self._owner)
        if stages.reranker is None:
            raise ModelUnavailable(f"There is no reranker to measure: {stages.reranker_problem}")
        own = stages.reranker
        others = [alone(own) if name == ALONE else load_reranker(name) for name in wish.against]
        return make_plan([own, *others], wish.depths)

    def _tell(self, wish: Wish, progress: Progress) -> None:
        self._going = (wish, progress)

    @property
    def _wish_file(self) -> Path:
        return self._kept.journals / "wish.json"

    def _write_wish(self, wish: Wish, key: str) -> None:
        """Remember what is run, so that it can be taken up again after the end of the process."""
        write_text(self._wish_file, json.dumps({**asdict(wish), "key": key}))


def runs_of(services: Services, *, owner: str = LOCAL_OWNER) -> Runs:
    """The runs of an owner in this process, the same object for every page."""
    return services.background(Runs, owner)


def _lines(journal: Path) -> int:
    """How many questions a journal has answers of; its first line is the header."""
    if not journal.exists():
        return 0
    with journal.open("rb") as file:
        return max(0, sum(line.endswith(b"\n") for line in file) - 1)
