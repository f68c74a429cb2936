"""The one error of this package."""

__all__ = ["UpstreamError"]


class UpstreamError(RuntimeError):
    """Upstream's evaluators could not answer: a fault, never the agent's failure."""
