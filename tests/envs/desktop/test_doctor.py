"""What the doctor and the install script say, on machines that lack something."""

import os
import subprocess

import pytest

from stepjax.envs.desktop import doctor
from stepjax.envs.desktop.doctor import Finding, examine, explain
from tests.envs.desktop.sandboxes import ROOT

SCRIPT = ROOT / "scripts" / "install-desktop"


def found(name, **settings):
    return {one.name: one for one in examine(start=False, **settings)}[name]


def test_text_names_what_is_missing_and_what_to_do():
    text = explain((
        Finding(name="screen", ok=True, detail="found"),
        Finding(name="sandbox", ok=False, detail="no bwrap", remedy="install it"),
        Finding(name="editor", ok=False, needed=False, detail="none", remedy="apt"),
    ))  # fmt: skip
    assert text.splitlines() == [
        "ok      screen: found",
        "MISSING sandbox: no bwrap",
        "          -> install it",
        "without editor: none",
        "          -> apt",
        "Desktops cannot start here: see sandbox.",
    ]


def test_what_is_only_left_out_does_not_hinder():
    text = explain((Finding(name="x", ok=False, needed=False, detail="none"),))
    assert text.endswith("Desktops can start here.")


def test_nothing_installed(monkeypatch, capsys):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "_ask", lambda command: (127, "no such file"))
    assert doctor.main() == 1
    said = capsys.readouterr().out
    for name in ("bubblewrap", "xvfb", "openbox", "python3-xlib", "libreoffice-calc"):
        assert name in said
    assert "sudo scripts/install-desktop" in said
    assert said.endswith("see programs, python modules, namespaces.\n")


@pytest.mark.parametrize("switch", doctor._SWITCHES, ids=lambda switch: switch[0])
def test_switches_that_forbid_namespaces(tmp_path, switch):
    name, forbids, remedy = switch
    path = tmp_path / "proc/sys" / name
    path.parent.mkdir(parents=True)
    path.write_text(forbids + "\n")
    assert doctor._namespace_remedy(tmp_path) == remedy
    path.write_text("7\n")
    assert "ask whoever runs" in doctor._namespace_remedy(tmp_path)
    (tmp_path / ".dockerenv").touch()
    assert "--security-opt" in doctor._namespace_remedy(tmp_path)


def test_refused_namespaces(monkeypatch):
    monkeypatch.setattr(doctor, "_ask", lambda command: (1, "bwrap: no permission"))
    finding = found("namespaces")
    assert not finding.ok and finding.needed and "no permission" in finding.detail


def test_old_bubblewrap(monkeypatch):
    said = "bwrap: Unknown option --disable-userns"
    monkeypatch.setattr(doctor, "_ask", lambda command: (1, said))
    assert "too old" in found("namespaces").detail


def test_little_room(monkeypatch):
    monkeypatch.setattr(doctor, "_ROOM_MB", 1 << 40)
    monkeypatch.setattr(doctor, "_MEMORY_MB", 1 << 40)
    assert not found("temporary folder").ok and not found("memory").ok


def test_a_program_that_hangs_or_is_not_there_is_an_answer():
    assert doctor._ask(["/nonexistent/program"])[0] == 127
    assert doctor._ask(["/bin/sh", "-c", "echo one; echo two >&2; exit 3"]) == (
        3,
        "two",
    )


def test_packages_of_the_doctor_are_those_of_the_script():
    listed = SCRIPT.read_text().split()
    words = {word.strip("()") for word in listed} | {
        word.split("(")[-1] for word in listed
    }
    packages = {entry[1] for entry in doctor._NEEDED + doctor._APPLICATIONS}
    packages |= {package for _, package in doctor._MODULES}
    assert packages <= words


def fake_debian(folder, installed=()):
    """Commands of a Debian with these packages that note what they are asked for."""
    folder.mkdir()
    for name, text in {
        "dpkg-query": "for name; do :; done; grep -qx -- \"$name\" "
        f"{folder}/installed && printf installed",
        "apt-get": f'echo "apt-get $*" >>{folder}/asked; '
        'case "$*" in *assume-no*) echo "Need to get 5 MB of archives.";; esac',
        "apt-cache": "exit 0",
        "id": "echo 0",
    }.items():  # fmt: skip
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "installed").write_text("\n".join(installed) + "\n")
    return folder


def script(*arguments, path=None, **variables):
    environment = {**os.environ, **variables}
    environment.pop("SUDO_USER", None)
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip


def test_script_is_bash():
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    assert os.access(SCRIPT, os.X_OK)


def test_check_names_what_is_missing_and_installs_nothing(tmp_path):
    path = fake_debian(tmp_path / "bin", ["bubblewrap", "xvfb"])
    done = script("--check", path=path)
    assert done.returncode == 1 and not (path / "asked").exists()
    missing = done.stdout.splitlines()[0].split()
    assert {"Missing:", "openbox", "chromium"} <= set(missing)
    assert not {"bubblewrap", "xvfb"} & set(missing)
    small = script("--check", "--minimal", path=path).stdout.split()
    assert "libreoffice-calc" in small and "chromium" not in small


def test_install_says_how_much_and_runs_twice(tmp_path):
    path = fake_debian(tmp_path / "bin")
    done = script("--minimal", path=path)
    assert done.returncode == 0, done.stderr
    assert "Installing: bubblewrap" in done.stdout and "5 MB" in done.stdout
    asked = (path / "asked").read_text().splitlines()
    assert "-y install" in asked[-1] and "--no-install-recommends" in asked[-1]
    (path / "installed").write_text(asked[-1].replace(" ", "\n"))
    (path / "asked").unlink()
    again = script("--minimal", path=path)
    assert again.returncode == 0 and "packages are installed" in again.stdout
    assert not (path / "asked").exists()


def test_failing_install_is_said(tmp_path):
    path = fake_debian(tmp_path / "bin")
    (path / "apt-get").write_text("#!/bin/sh\necho E: no such mirror >&2\nexit 100\n")
    done = script("--minimal", path=path)
    assert done.returncode == 2
    assert "install-desktop: apt-get install failed" in done.stderr


def test_unknown_option():
    done = script("--everything")
    assert done.returncode == 2 and "unknown option --everything" in done.stderr


def test_help():
    done = script("--help")
    assert done.returncode == 0
    for option in ("--minimal", "--check", "--evaluators"):
        assert option in done.stdout


def test_evaluators_are_checked_made_once_and_made_anew(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$1 $2" in "-m venv") mkdir -p "$3/bin"; '
        f'printf "#!/bin/sh\\necho pip >>{tmp_path}/asked\\n" >"$3/bin/pip"; '
        'chmod +x "$3/bin/pip";; esac\n'
    )
    python.chmod(0o755)
    given = {"PYTHON": str(python), "STEPJAX_EVALUATORS": str(tmp_path / "made")}
    if not (ROOT / "requirements" / "desktop-evaluators.txt").exists():
        pytest.skip("no list of the evaluators' packages")
    path = fake_debian(tmp_path / "bin")
    assert "Missing: the evaluators" in script("--evaluators", "--check", path=path,
                                               **given).stdout  # fmt: skip
    for _ in range(2):
        done = script("--evaluators", **given)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text() == "pip\n"
    (tmp_path / "made" / "installed.sha256").write_text("0  x\n")
    script("--evaluators", **given)
    assert (tmp_path / "asked").read_text() == "pip\npip\n"


@pytest.mark.desktop
def test_a_desktop_starts_here():
    findings = examine()
    text = explain(findings)
    missing = [one for one in findings if one.needed and not one.ok]
    if any(one.name != "a desktop" for one in missing):
        pytest.skip(text)
    assert not missing, text
