"""What has to be loaded before Altair draws."""

from __future__ import annotations

from importlib import import_module


def finish_pandas() -> None:
    """Import pandas, or wait until the thread that is importing it has done so.

    Altair takes it out of `sys.modules` as it stands there: half imported, where another session has just begun,
    and the picture then fails. This import is where a thread waits for the other.
    """
    import_module("pandas")
