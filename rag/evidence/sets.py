"""Question sets, runs and a chosen threshold on the disk, beside the index."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ingest.errors import BadRequest, StoreUnavailable
from ingest.files import replace_file
from ingest.store import LOCAL_OWNER
from rag.evidence.questions import Judgement, Question, QuestionSet, check_questions, question_id
from rag.evidence.run import end_journal
from rag.evidence.runfile import Run, question_data, question_from, read_run, run_text
from rag.threshold import THRESHOLD_FILE, Threshold, read_threshold

MAX_NAME_CHARS = 80
_PLAIN_OWNER = re.compile(r"[a-z0-9-]{1,40}")
_RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{16}")
_WRITING = threading.RLock()
"""Between reading a set and writing it back no other thread of this process may write."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A kept run without its results."""

    id: str
    question_set: str
    begun: str
    asked: int
    questions: int
    corpus: str
    models: tuple[str, ...]


class EvidenceStore:
    """Sets and runs of one owner, each a JSON file that is replaced as a whole."""

    def __init__(self, data: Path, *, owner: str = LOCAL_OWNER) -> None:
        plain = _PLAIN_OWNER.fullmatch(owner)
        own = owner if plain else hashlib.sha256(owner.encode()).hexdigest()
        self._folder = data / "evidence" / own

    @property
    def journals(self) -> Path:
        """Where runs that are not finished keep their results."""
        return self._folder / "journals"

    def names(self) -> list[str]:
        """Names of all question sets, in alphabetical order."""
        found = [_read(path)["name"] for path in self._folder.glob("sets/*.json")]
        return sorted(found, key=lambda name: (name.casefold(), name))

    def questions(self, name: str) -> QuestionSet:
        """A question set. Raises BadRequest where there is none of that name."""
        path = self._set_file(name)
        if not path.exists():
            raise BadRequest(f"There is no question set {name!r}.")
        data = _read(path)
        return QuestionSet(data["name"], tuple(map(question_from, data["questions"])))

    def save(self, questions: QuestionSet) -> None:
        """Write a question set, in place of the one of that name. Raises BadRequest for what cannot be used."""
        if questions.name != clean_set_name(questions.name):
            raise BadRequest(f"A question set's name is 1 to {MAX_NAME_CHARS} printable characters.")
        check_questions(questions.questions)
        data = {"name": questions.name, "questions": [question_data(one) for one in questions.questions]}
        with _WRITING:
            write_text(self._set_file(questions.name), json.dumps(data, ensure_ascii=False, indent=1))

    def change(self, name: str, change: Callable[[QuestionSet], QuestionSet]) -> QuestionSet:
        """Read a set, change it and write it back, with nobody in between; it begins empty where there is none."""
        with _WRITING:
            exists = self._set_file(name).exists()
            changed = change(self.questions(name) if exists else QuestionSet(name, ()))
            self.save(changed)
        return changed

    def mark(self, name: str, text: str, judgement: Judgement) -> QuestionSet:
        """Keep "this is the right passage" (or, with grade 0, "not this") with a question."""
        return self.change(name, lambda questions: with_judgement(questions, text, judgement))

    def delete(self, name: str) -> None:
        """Remove a question set; no error where there is none."""
        _remove(self._set_file(name))

    def keep(self, run: Run) -> str:
        """Write a run, forget its journal, and return its id."""
        id_ = _run_id(run)
        summary = RunSummary(
            id_,
            run.header.question_set,
            run.begun,
            len(run.results),
            run.header.questions,
            run.header.corpus.fingerprint,
            tuple(model.name for model in run.header.models),
        )
        write_text(self._run_file(id_), run_text(run))
        write_text(self._run_file(id_).with_suffix(".summary"), json.dumps(asdict(summary)))
        if run.finished:
            end_journal(self.journals, run.header)
        return id_

    def runs(self) -> list[RunSummary]:
        """All kept runs, the newest first."""
        found = [_read(path) for path in self._folder.glob("runs/*.summary")]
        summaries = [RunSummary(**{**one, "models": tuple(one["models"])}) for one in found]
        return sorted(summaries, key=lambda summary: (summary.begun, summary.id), reverse=True)

    def run(self, id_: str) -> Run:
        """A kept run. Raises BadRequest where there is none."""
        path = self._run_file(id_)
        try:
            return read_run(path.read_text(encoding="utf-8"), path.name)
        except OSError as error:
            raise BadRequest(f"There is no run {id_}.") from error

    def delete_run(self, id_: str) -> None:
        """Remove a run; no error where there is none."""
        path = self._run_file(id_)
        _remove(path.with_suffix(".summary"))  # first, or a kill would leave a run on the list that is gone
        _remove(path)

    @property
    def threshold(self) -> Threshold | None:
        """The threshold that somebody chose last, None where nobody has."""
        return read_threshold(self._folder / THRESHOLD_FILE)

    def choose_threshold(self, threshold: Threshold | None) -> None:
        """Keep a threshold; None takes it away."""
        path = self._folder / THRESHOLD_FILE
        if threshold is None:
            _remove(path)
        else:
            write_text(path, json.dumps(asdict(threshold)))

    def _set_file(self, name: str) -> Path:
        # a name may hold anything a file name may not
        return self._folder / "sets" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"

    def _run_file(self, id_: str) -> Path:
        if not _RUN_ID.fullmatch(id_):
            raise BadRequest(f"There is no run {id_[:40]!r}.")
        return self._folder / "runs" / f"{id_}.json"


def clean_set_name(name: str) -> str:
    """A name as it can be used: printable, without outer white space, not too long."""
    printable = "".join(character if character.isprintable() else " " for character in name)
    return " ".join(printable.split())[:MAX_NAME_CHARS].strip() or "questions"


def with_judgement(questions: QuestionSet, text: str, judgement: Judgement) -> QuestionSet:
    """The set with a judgement added to a question, in place of an earlier one on the same passage."""
    text = text.strip()
    found = next((one for one in questions.questions if one.text == text), None)
    question = found or Question(question_id(text), text, ())
    passage = replace(judgement, grade=1)
    others = tuple(one for one in question.judgements if replace(one, grade=1) != passage)
    changed = replace(question, judgements=(*others, judgement))
    if found is None:
        return replace(questions, questions=(*questions.questions, changed))
    return replace(
        questions, questions=tuple(changed if one is found else one for one in questions.questions)
    )


def _run_id(run: Run) -> str:
    stamp = re.sub(r"[^0-9T]", "", run.begun.split("+")[0])
    return f"{stamp}-{run.header.key}"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreUnavailable(
            f"{path} cannot be read ({error}): restore the file, or move it away."
        ) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be deleted: {error.strerror}. Make the folder writable, then try again."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises StoreUnavailable."""
    try:
        replace_file(path, text.encode("utf-8"))
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be written: {error.strerror}. Free some space or make the folder writable."
        ) from error
