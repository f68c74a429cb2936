"""What the engine's programs are compiled for."""

import dataclasses

__all__ = ["EngineSizes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSizes:
    """What the engine's programs are compiled for.

    Attributes:
      slots: Responses that grow at the same time.
      prompt_buckets: Lengths of prompts; one prefill is compiled for each.
      prefill_rows: Prompts prefilled together when several wait; else one by one.
      chunk: Decoding steps between two looks at who has finished and who waits.
    """

    slots: int = 16
    prompt_buckets: tuple[int, ...] = (1024, 2048, 4096)
    prefill_rows: int = 4
    chunk: int = 16

    def __post_init__(self):
        """Check the numbers."""
        for name in ("slots", "prefill_rows", "chunk"):
            if getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"EngineSizes: {name} must be >= 1, got {value}.")
        if not self.prompt_buckets or min(self.prompt_buckets) < 1:
            raise ValueError(
                "EngineSizes: prompt_buckets must be lengths >= 1, got "
                f"{self.prompt_buckets}."
            )
