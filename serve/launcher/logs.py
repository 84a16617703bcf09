"""Log lines: text for people, or JSON for machines, one object a line on stderr."""

import json
import logging
import sys
import time

FORMATS = ("text", "json")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# What TorchServe's JVM prints in each format (log4j's PatternLayout). A record may repeat what a
# caller has sent: it is one line of limited length, with its exception.
JVM_PATTERNS = {
    "text": "%d{yyyy-MM-dd HH:mm:ss,SSS} %p %c{1}: %enc{%maxLen{%m%rEx}{2000}}{CRLF}%n",
    "json": (
        '{"time":"%d{yyyy-MM-dd\'T\'HH:mm:ss.SSSXXX}","level":"%p","logger":"%c{1}",'
        '"message":"%enc{%maxLen{%m%rEx}{2000}}{JSON}"}%n'
    ),
}


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message"}``, and ``exception`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{at}.{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def stderr_handler(format: str, text: str = TEXT) -> logging.Handler:
    """A handler that writes to stderr in one of FORMATS; ``text`` is the pattern of text lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else logging.Formatter(text))
    return handler
