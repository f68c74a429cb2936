"""A checkpoint's chat template, compiled in a sandbox.

Templates come with weights from strangers: they are run with immutable values and no
access to attributes of Python objects.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ChatTemplate"]


class ChatTemplate:
    """Turns messages into the text that a model was trained on.

    Attributes:
      source: The template, in jinja2's language.
    """

    source: str

    def __init__(self, source: str, named_tokens: Mapping[str, str]):
        """A template.

        Args:
          source: In jinja2's language.
          named_tokens: What it may write by name, such as `eos_token`.

        Raises:
          ValueError: If it does not compile.
          ImportError: If jinja2 is not installed.
        """
        self.source = source
        self._named_tokens = dict(named_tokens)
        self._compiled = _compile(source)

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool
    ) -> str:
        """The text of messages.

        Args:
          messages: Dicts with "role" and "content".
          add_generation_prompt: Whether the text ends where a response begins.

        Returns:
          The text.

        Raises:
          ValueError: If the template refuses the messages or fails.
        """
        import jinja2

        try:
            return self._compiled.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._named_tokens,
            )
        except (
            jinja2.TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(
                f"chat template: it does not take these messages: {_line(error)}"
            ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@functools.lru_cache(maxsize=32)
def _compile(source: str) -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "chat template: jinja2 is not installed; install it with "
            "`pip install 'stepjax[vlm]'`."
        ) from error
    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, ValueError) as error:
        raise ValueError(f"chat template: it does not compile: {_line(error)}") from (
            error
        )


def _environment() -> Any:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %} ... {% endgeneration %}`: marks responses, says nothing."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(str(message))

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = now
    return environment
