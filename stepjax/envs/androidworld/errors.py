"""What can go wrong with a phone, each as one line that says where and what."""

__all__ = [
    "AndroidWorldError",
    "BrokenAnswerError",
    "RefusedError",
    "ServerTimeoutError",
    "SuiteChangedError",
    "UnreachableError",
    "WrongServerError",
]

_MOST = 400


class AndroidWorldError(RuntimeError):
    """A call to a phone that failed; the message is one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split())[:_MOST])


class UnreachableError(AndroidWorldError):
    """No connection: the request was never sent."""


class BrokenAnswerError(AndroidWorldError):
    """The server hung up, or what it said was cut short or garbled."""


class ServerTimeoutError(AndroidWorldError, TimeoutError):
    """No whole answer in time."""


class WrongServerError(AndroidWorldError):
    """Something answers, but not AndroidWorld's server with a phone behind it."""


class SuiteChangedError(AndroidWorldError):
    """The server restarted, or somebody else changed its tasks."""


class RefusedError(AndroidWorldError):
    """The server answered with an error.

    Attributes:
      status: HTTP's number.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status
