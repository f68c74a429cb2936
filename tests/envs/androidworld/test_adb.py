"""adb, played by a shell script; and dumps of a screen, fuzzed."""

import struct
import xml.sax.saxutils

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.androidworld.adb import AdbDevice, AdbError
from stepjax.envs.androidworld.fleet import AndroidWorldFleet
from stepjax.envs.androidworld.settings import AndroidWorldSettings
from stepjax.envs.androidworld.ui_dump import MAX_WIDGETS, read_ui_dump
from stepjax.envs.base import Task
from tests.envs.androidworld.stand_in import format_action

IMAGE = np.random.default_rng(0).integers(0, 256, (80, 36, 3)).astype(np.uint8)
ON = Task(task_id=0, name="SystemBluetoothTurnOn", instruction="", domain="")


def node(kind="TextView", bounds="[0,0][10,10]", inside="", **attributes) -> str:
    attributes = {"class": f"android.widget.{kind}", "bounds": bounds} | attributes
    written = " ".join(
        f"{name.replace('_', '-')}={xml.sax.saxutils.quoteattr(value)}"
        for name, value in attributes.items()
    )
    return f"<node {written}>{inside}</node>"


def dump(*nodes: str) -> bytes:
    text = "<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>"
    text += f'<hierarchy rotation="0">{"".join(nodes)}</hierarchy>'
    return (text + "UI hierchary dumped to: /dev/tty\n").encode()


def screencap(image: np.ndarray, *extra: int) -> bytes:
    height, width, _ = image.shape
    pixels = np.dstack([image, np.full((height, width, 1), 255, np.uint8)])
    head = struct.pack(f"<{3 + len(extra)}I", width, height, 1, *extra)
    return head + pixels.tobytes()


@pytest.fixture
def adb(tmp_path):
    """A program that answers from files, and notes what it is asked."""
    folder = tmp_path / "adb"
    folder.mkdir()
    program = folder / "adb"
    program.write_text(
        "#!/bin/sh\n"
        f'cd {folder}; echo "$*" >> said; shift 2\n'
        'case "$*" in\n'
        '"shell wm size") cat size;;\n'
        '"exec-out screencap") cat picture;;\n'
        '"exec-out uiautomator dump /dev/tty") cat dump;;\n'
        '"shell input swipe"*) ;;\n'
        '*) echo "unknown: $*" >&2; exit 1;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    (folder / "size").write_text("Physical size: 36x80\n")
    (folder / "picture").write_bytes(screencap(IMAGE, 1))
    (folder / "dump").write_bytes(dump(node(text="Bluetooth", bounds="[9,8][27,16]")))
    return folder


@pytest.fixture
def device(adb):
    return AdbDevice("emulator-5554", adb=str(adb / "adb"))


def test_a_phone_through_adb(device, adb):
    assert device.size() == (36, 80)
    for extra in ((), (1,)):  # before and since Android 9
        (adb / "picture").write_bytes(screencap(IMAGE, *extra))
        np.testing.assert_array_equal(device.screenshot(), IMAGE)
    (widget,) = device.widgets(width=36, height=80)
    assert (widget.label, widget.box) == ("Bluetooth", (0.25, 0.1, 0.75, 0.2))
    device.swipe((1, 2), (3, 4), ms=500)
    said = (adb / "said").read_text().splitlines()
    assert said[-1] == "-s emulator-5554 shell input swipe 1 2 3 4 500"
    (adb / "size").write_text("Physical size: 36x80\nOverride size: 18x40\n")
    assert device.size() == (18, 40)


@pytest.mark.parametrize(
    "picture",
    [b"", b"\x00" * 12, b"\xff" * 40, screencap(IMAGE)[:-1], screencap(IMAGE, 1, 1),
     struct.pack("<III", 0, 0, 1), struct.pack("<III", 1 << 31, 1 << 31, 1)],
)  # fmt: skip
def test_pictures_that_are_none(device, adb, picture):
    (adb / "picture").write_bytes(picture)
    with pytest.raises(AdbError, match="screencap gave") as error:
        device.screenshot()
    assert "\n" not in str(error.value)


def test_what_adb_says_is_told(device, adb, tmp_path):
    for text in ("", "error: device offline\n", "Physical size: 0x0", "size: -1x9"):
        (adb / "size").write_text(text)
        with pytest.raises(AdbError, match="adb, emulator-5554: wm size said"):
            device.size()
    (adb / "size").unlink()
    with pytest.raises(AdbError, match="failed: .*No such file"):
        device.size()
    with pytest.raises(AdbError, match="there is no program"):
        AdbDevice("x", adb=str(tmp_path / "none")).size()
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    with pytest.raises(AdbError, match=r"took more than 0\.2 s"):
        AdbDevice("x", adb=str(slow), timeout=0.2).size()


def test_an_episode_that_looks_through_adb(phone, adb, tmp_path):
    settings = AndroidWorldSettings(settle_seconds=0.0, patience=0.0, widgets=True)
    fleet = AndroidWorldFleet(
        [phone.url], budget_of=lambda task: 9, settings=settings,
        serials=["emulator-5554"], adb=str(adb / "adb"),
        format_action=format_action, journals=tmp_path,
    )  # fmt: skip
    fleet.open()
    env = fleet(0)
    first = env.reset(ON, 0)
    np.testing.assert_array_equal(first.screenshot, IMAGE)
    assert first.widgets is not None and first.widgets[0].label == "Bluetooth"
    drag = Action(kind=ActionKind.DRAG, x=0.5, y=0.9, to_x=0.5, to_y=1.0)
    env.step(Action(kind=ActionKind.SEQUENCE, parts=(drag,)))
    assert "input swipe 18 72 18 79 500" in (adb / "said").read_text()
    env.step(Action(kind=ActionKind.CLICK, widget=0))
    assert phone.requests[-1][2] == {"action_type": "click", "x": 18, "y": 12}
    env.step(Action(kind=ActionKind.DONE))
    assert env.evaluate() == 0.0
    assert "/screenshot" not in phone.calls and phone.left == []
    (adb / "size").write_text("Physical size: 720x1280\n")
    with pytest.raises(Exception, match="adb of emulator-5554 shows.* 720 x 1280"):
        fleet(0)
    fleet.close()


def test_widgets():
    found = read_ui_dump(
        dump(
            node("Switch", "[900,210][1000,260]", content_desc="Wi-Fi", checked="true"),
            node("TextView", "[50,200][500,260]", text="Wi-Fi"),
            node(
                "FrameLayout", "[0,0][1080,2400]",
                node("EditText", "[0,100][540,160]", text="typed", focused="true",
                     resource_id="com.app:id/search"),
            ),
            node("View", "[0,300][10,310]"),  # says nothing, takes nothing
            node("View", "[0,300][10,310]", clickable="true", enabled="false"),
            node("Button", "[5,5][5,9]", text="No width"),
            node("Button", "[-50,2300][2000,9999]", text="Half\nout"),
            node("Button", "here", text="Nowhere"),
        ),
        width=1080,
        height=2400,
    )  # fmt: skip
    rows = [(one.role, one.label, one.value, one.on) for one in found]
    assert rows == [
        ("text_field", "search", "typed", False),
        ("text", "Wi-Fi", "", False),
        ("check_box", "Wi-Fi", "", True),
        ("other", "", "", False),
        ("button", "Half out", "", False),
    ]
    assert found[0].focused and found[3].disabled
    assert found[4].box == (0.0, 2300 / 2400, 1.0, 1.0)
    assert [one.ref for one in found] == list("01234")


def test_dumps_that_are_none():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><hierarchy>&a;</hierarchy>'
    cases = {
        b"": "no hierarchy",
        b"ERROR: could not get idle state.\n": "could not get idle state",
        bomb: "definitions of its own",
        b"<hierarchy><node></hierarchy>": "no proper XML",
        b"<hierarchy>\xff\x00</hierarchy>": "no proper XML",
        b"x" * (17 << 20): "more than",
        b"<?xml version='1.0' encoding='x'?><hierarchy/>": "unknown encoding",
    }
    for data, message in cases.items():
        with pytest.raises(ValueError, match=message):
            read_ui_dump(data, width=10, height=10)
    assert read_ui_dump(b"<hierarchy rotation='0' />", width=1, height=1) == ()


def test_endless_dumps_are_cut():
    many = dump(*[node(text="x")] * (MAX_WIDGETS + 5))
    assert len(read_ui_dump(many, width=20, height=20)) == MAX_WIDGETS
    deep = b"<node>" * 50_000 + b"</node>" * 50_000
    assert (
        read_ui_dump(b"<hierarchy>" + deep + b"</hierarchy>", width=1, height=1) == ()
    )


def test_fuzzed_dumps_fail_in_one_way():
    random = np.random.default_rng(0)
    sound = dump(*[node(text=f"t{i}", bounds=f"[{i},1][{i + 5},9]") for i in range(4)])
    for _ in range(400):
        text = bytearray(sound)
        for _ in range(random.integers(1, 5)):
            text[random.integers(len(text))] = random.integers(256)
        try:
            found = read_ui_dump(bytes(text), width=20, height=20)
        except ValueError:
            continue
        for widget in found:
            assert all(0.0 <= edge <= 1.0 for edge in widget.box)
