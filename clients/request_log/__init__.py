"""Request logs: rotating files of TensorFlow Serving's `PredictionLog`, written and read.

Needs the extra `shortlist[log]`. `RequestLog` writes them from an application; the embedded server
writes them, too.
"""

from shortlist.clients.request_log.hook import RequestLog
from shortlist.clients.request_log.reading import LogFileError, read_log
from shortlist.clients.request_log.records import LogRecord
from shortlist.clients.request_log.user_ids import hash_user_id

__all__ = ["LogFileError", "LogRecord", "RequestLog", "hash_user_id", "read_log"]
