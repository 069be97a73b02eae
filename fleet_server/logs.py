"""Log lines as JSON objects, one a line, for whatever gathers them; and outages, told twice."""

import logging

import msgspec


class JsonLines(logging.Formatter):
    """Time, level, where from, words; and the traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "from": record.name,
            "words": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class Outage:
    """Says once that something fails and once that it is over, however often it is tried between.

    Args:
        log: where it is said.
        what: what is done, as in "messages are stored".
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log, self._what = log, what
        self._since: float | None = None
        self._count, self._words = 0, ""

    def failed(self, error: Exception, at: float, count: int = 1) -> None:
        """`count` things failed, at Unix seconds `at`."""
        self._words = str(error)
        self._count += count
        if self._since is None:
            self._since = at
            self._log.error("it fails that %s; it is tried again: %s", self._what, error)

    def over(self, at: float) -> None:
        """It did not fail."""
        if self._since is None:
            return
        self._log.warning(
            "%s again, after %.0f s and %d failures; the last was: %s",
            self._what, at - self._since, self._count, self._words,
        )  # fmt: skip
        self._since, self._count = None, 0


def log_to_stderr(*, as_json: bool) -> None:
    """Warnings and worse, for people or for machines."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
