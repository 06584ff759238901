"""Logs written to disk and read back, for the tests of the formats."""

from jinmaek.core.record import EvaluationRecord, Remark, StepRecord
from jinmaek.ingest import find_logs


def write(path, content):
    """The file with this content, as the text of its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def split(source):
    """Records, evaluations and remarks of a source."""
    items = list(source.items())
    return [[item for item in items if isinstance(item, kind)] for kind in (StepRecord, EvaluationRecord, Remark)]


def read_text(path, text):
    """A text read as a log: its source, records, evaluations and remarks."""
    [source] = find_logs(write(path, text))
    return source, *split(source)


def column(records, name):
    """One field of all records."""
    return [getattr(record, name) for record in records]


def hf(loss, lr=1e-4, epoch=0.1, **more):
    """A line as transformers' Trainer prints it."""
    entry = {"loss": loss, "grad_norm": 0.5, "learning_rate": lr, **more, "epoch": epoch}
    return str(entry)
