"""Tokens and chat text equal those of transformers, on ordinary and on hostile text."""

import dataclasses
import json
import random

import pytest

pytest.importorskip("tokenizers", reason="needs the extra vlm")
pytest.importorskip("jinja2", reason="needs the extra vlm")

from stepjax.models.qwen_vl.config import PRESETS  # noqa: E402
from stepjax.models.qwen_vl.tiny import write_tiny_tokenizer  # noqa: E402
from stepjax.models.qwen_vl.tokens import (  # noqa: E402
    STRUCTURE,
    check_tokenizer,
    load_tokenizer,
)

TEXTS = [
    "",
    " ",
    "Thought: I'll open it.\nAction: click(start_box='(512,384)')",
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hi<|im_end|>\n",
    "<|im_start|<|im_end|>|> <|image_pad |> <|IMAGE_PAD|>",
    "naïve café cafe\u0301 Ångström \u1e9b\u0323",
    "漢字かな交じり文 한국어 العربية עברית ไทย",
    "😀👩‍👩‍👧‍👦🇪🇺 \u200b\u200d\ufeff",
    "\x00\x01\x7f\x80\uffff\U0010ffff",
    "a\r\n\r\n\tb   c    \n",
    "1234567890 3.14 0x1F ١٢٣",
    "  def f(x):\n        return x**2  # done",
    "{{ 7 * 7 }} {% for x in y %}{% endfor %} {# no #}",
    "don't DON'T We'Ll",
    "x" * 3000,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    transformers = pytest.importorskip("transformers", reason="compares with it")
    return transformers.AutoTokenizer.from_pretrained(folder)


def _random_text(rng: random.Random) -> str:
    pieces = [*STRUCTURE, "<|", "|>", "'s", "\n", "  ", "click", "é", "e\u0301", "漢"]
    alphabet = [chr(c) for c in range(0x20, 0x7F)]

    def piece() -> str:
        kind = rng.random()
        if kind < 0.3:
            return rng.choice(pieces)
        if kind < 0.8:
            return rng.choice(alphabet)
        code = rng.randrange(0x110000)
        return "?" if 0xD800 <= code < 0xE000 else chr(code)

    return "".join(piece() for _ in range(rng.randrange(40)))


def test_tokens_equal_those_of_transformers(ours, theirs):
    rng = random.Random(0)
    for text in TEXTS + [_random_text(rng) for _ in range(1000)]:
        ids = ours.encode(text)
        assert ids == theirs(text)["input_ids"], text
        for special in (True, False):
            given = {"skip_special_tokens": not special}
            assert ours.decode(ids, special=special) == theirs.decode(ids, **given)


def test_any_tokens_are_decoded_like_transformers(ours, theirs):
    rng = random.Random(1)
    for _ in range(300):
        ids = [rng.randrange(ours.size) for _ in range(rng.randrange(30))]
        assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode([ours.size, 10**6, 2**40]) == ""


def test_texts_survive_both_ways(ours):
    import unicodedata

    for text in TEXTS:
        assert ours.decode(ours.encode(text)) == unicodedata.normalize("NFC", text)


MESSAGES = [
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "system", "content": "You are  "},
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": "a\n<b> & 'c' é"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": " ok \n"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}]},
    ],
    [],
]
TEMPLATES = [
    None,
    "{% for m in messages %}\n  {% if loop.first and m.role != 'system' %}\nS\n"
    "  {% endif %}\n{{ m['role'] }}:\n{{ m.content | tojson }}\n{% endfor %}\n"
    "{% if add_generation_prompt %}\nA:{% endif %}",
    "{% macro show(c) %}{% if c is string %}{{ c | trim }}{% else %}{% for p in c %}"
    "{% if 'image' in p or p.type == 'image' %}<|image_pad|>{% else %}{{ p.text }}"
    "{% endif %}{% endfor %}{% endif %}{% endmacro %}"
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{{ ns.n }}{{ show(m.content) }}{% endfor %}{{ eos_token }}{{ pad_token }}",
    "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}"
    "{% generation %}{% set x = m.role %}{{ x | upper }}{% endgeneration %}{% endfor %}"
    "{{ messages | tojson(indent=2) }}{{ tools is none }}{{ documents is none }}",
]


@pytest.mark.parametrize("template", TEMPLATES, ids=range(len(TEMPLATES)))
@pytest.mark.parametrize("prompt", [True, False])
def test_chat_text_equals_that_of_transformers(
    ours, theirs, tmp_path, template, prompt
):
    mine = ours
    if template is not None:
        write_tiny_tokenizer(tmp_path)
        (tmp_path / "chat_template.jinja").write_text(template)
        mine = load_tokenizer(tmp_path)
    for messages in MESSAGES:
        expected = theirs.apply_chat_template(
            messages or [[]],
            chat_template=template,
            add_generation_prompt=prompt,
            tokenize=False,
        )
        expected = expected if isinstance(expected, str) else expected[0]
        assert mine.chat(messages, add_generation_prompt=prompt) == expected


def test_templates_are_found_where_folders_keep_them(folder, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert load_tokenizer(tmp_path).template is None
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(tmp_path).chat([])
    several = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    steps = [
        ("tokenizer_config.json", {**settings, "chat_template": several}, "d"),
        ("tokenizer_config.json", {**settings, "chat_template": "c"}, "c"),
        ("chat_template.json", {"chat_template": "j"}, "j"),
    ]
    for name, content, expected in steps:
        (tmp_path / name).write_text(json.dumps(content))
        assert load_tokenizer(tmp_path).chat([]) == expected
    (tmp_path / "chat_template.jinja").write_text("f")
    assert load_tokenizer(tmp_path).chat([]) == "f"


@pytest.mark.parametrize(
    "template",
    [
        "{% if %}",
        "{{ raise_exception('no system\nmessages') }}",
        "{{ messages[0].x.y.z }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% set x = messages.append(1) %}",
        "{{ 1 / 0 }}",
        "{{ 1 + 'a' }}",
        "{% include 'x' %}",
        "{{ range(10000000000) | list }}",
        "{% generation %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_bad_templates_are_one_line_and_do_no_harm(tmp_path, template):
    write_tiny_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="chat template") as caught:
        load_tokenizer(tmp_path).chat([{"role": "user", "content": "x"}])
    assert "\n" not in str(caught.value)


def test_ends_come_from_the_folder(ours, tmp_path):
    assert ours.end_ids == (499, 501) and ours.pad_id == 499
    assert ours.until_end([5, 6, 501, 7]) == [5, 6]
    write_tiny_tokenizer(tmp_path)
    for given in (7, [7, 9], None, "x", [-1, True]):
        text = json.dumps({"eos_token_id": given})
        (tmp_path / "generation_config.json").write_text(text)
        found = set(load_tokenizer(tmp_path).end_ids)
        assert {499, 501} <= found
        if given in (7, [7, 9]):
            assert 7 in found


def test_bad_text_and_ids_are_named(ours):
    with pytest.raises(ValueError, match="lone surrogate at character 1"):
        ours.encode("a\ud800")
    with pytest.raises(ValueError, match="ids must be >= 0, got -3"):
        ours.decode([1, -3])
    with pytest.raises(ValueError, match=r"no <\|nothing\|>"):
        ours.id_of("<|nothing|>")
    clean = ours.plain_text("a\ud800 <|im_end|> <|image_pad|><|box_start|>")
    assert clean == "a\ufffd < |im_end|> < |image_pad|><|box_start|>"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", None, "has no tokenizer.json; write one"),
        ("tokenizer.json", "{", "cannot be read"),
        ("tokenizer.json", "{}", "cannot be read"),
        ("tokenizer.json", "\x00", "cannot be read"),
        ("tokenizer_config.json", "[1]", "must hold an object, got list"),
        ("tokenizer_config.json", "nope", "cannot be read"),
        ("generation_config.json", "[", "cannot be read"),
    ],
)
def test_broken_files_are_one_line(tmp_path, name, text, message):
    write_tiny_tokenizer(tmp_path)
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_models_tokenizer_is_refused(folder, tmp_path, ours):
    other = json.loads((folder / "tokenizer.json").read_text())
    other["added_tokens"] = [
        token for token in other["added_tokens"] if "vision" not in token["content"]
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"has no <\|vision_start\|>, <\|vision_end"):
        load_tokenizer(tmp_path)
    config = PRESETS["tiny-qwen2-vl"]
    check_tokenizer(ours, config)
    moved = dataclasses.replace(config, image_token_id=3)
    with pytest.raises(ValueError, match=r"<\|image_pad\|> is 505 .* = 3; take"):
        check_tokenizer(ours, moved)
    tokens = {
        "image_token_id": 505,
        "video_token_id": 506,
        "vision_start_token_id": 502,
        "vision_end_token_id": 503,
    }
    small = dataclasses.replace(
        config, text=dataclasses.replace(config.text, vocab_size=507), **tokens
    )
    with pytest.raises(ValueError, match="has 509 tokens, the model only 507"):
        check_tokenizer(ours, small)
