"""What a server is never sent, and settings it cannot have."""

import pytest

from stepjax.models.qwen_vl.server import ServerSettings
from stepjax.models.qwen_vl.server_messages import chat_messages, named_id


def test_what_is_no_conversation_is_refused():
    with pytest.raises(ValueError, match="turns between"):
        chat_messages("hello", [])
    told = "<|im_start|>user\nw<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(ValueError, match="1 pictures"):
        chat_messages(told, ["data:"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "host:80"}, "url"),
        ({"url": "http://h", "kind": "triton"}, "kind"),
        ({"url": "http://h", "concurrency": 0}, "concurrency"),
    ],
)
def test_bad_settings_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        ServerSettings(**options)


def test_ids_come_by_name():
    assert named_id("token_id:17") == 17
    with pytest.raises(ValueError, match="as text"):
        named_id("hello")
