"""tools/system_packages.sh on made-up systems: a PATH and a root of their own, and package managers that record."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "system_packages.sh"
APT = "apt-get update && apt-get install -y --no-install-recommends"
SUDO_APT = "sudo apt-get update && sudo apt-get install -y --no-install-recommends"
# What every system has.
PLAIN = ("bash", "cat", "chmod", "dirname", "env", "grep", "head", "ls", "mkdir", "mktemp", "rm", "sed", "sh", "touch")
PYTHON = 'case "$*" in *ensurepip*) echo 3 12 ;; esac'
WITHOUT_ENSUREPIP = 'case "$*" in *ensurepip*) echo 3 12; exit 1 ;; esac'
WRAPPER_OF_SNAP = 'if ! [ -x /snap/bin/chromium ]; then echo "requires the chromium snap"; exit 1; fi'


class System:
    """A machine without any program that RustyGPT needs."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.root, self.home = folder / "bin", folder / "root", folder / "home"
        self._record = folder / "record"
        for path in (self.bin, self.root / "etc", self.home):
            path.mkdir(parents=True)
        for name in PLAIN:
            (self.bin / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        self.become(0)

    def become(self, uid: int) -> None:
        self.add("id", f"echo {uid}")

    def add(self, name: str, code: str = "", path: Path | None = None) -> None:
        """A program. The code comes after it has recorded how it was called."""
        program = (path or self.bin) / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.unlink(missing_ok=True)
        says = "" if name == "id" else f'echo "{name}${{DEBIAN_FRONTEND:+ $DEBIAN_FRONTEND}} $*" >>"{self._record}"\n'
        program.write_text(f"#!/bin/sh\n{says}{code}\n")
        program.chmod(0o755)

    def add_postgres(self, version: int) -> None:
        folder = self.root / "usr" / "lib" / "postgresql" / str(version) / "bin"
        self.add("postgres", f"echo 'postgres (PostgreSQL) {version}.4 (Debian)'", folder)
        self.add("initdb", path=folder)
        self.add("pg_ctl", path=folder)

    def add_all(self) -> None:
        self.add("python3", PYTHON)
        self.add_postgres(15)
        for name in ("cc", "c++", "make", "chromium", "prometheus", "promtool", "curl"):
            self.add(name)

    def add_apt(self, brings: str = "") -> None:
        """With an `install` after which the programs of these names are there."""
        makes = "; ".join(f'touch "{self.bin / name}"; chmod +x "{self.bin / name}"' for name in brings.split())
        self.add("apt-get", f'case "$*" in *install*) {makes or ":"} ;; esac')
        self.add("apt-cache", "echo '  Candidate: 15+248'")

    def run(self, *arguments: str, stdin: int = subprocess.DEVNULL, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", SCRIPT, *arguments],
            env={"PATH": str(self.bin), "HOME": str(self.home), "SYSTEM_ROOT": str(self.root)} | extra,
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self, *programs: str) -> list[str]:
        """How these were called, in order."""
        lines = self._record.read_text().splitlines() if self._record.exists() else []
        return [line for line in lines if line.split()[0] in programs]


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_nothing_is_said_or_done_when_nothing_is_missing(system: System) -> None:
    system.add_all()
    system.add_apt()
    done = system.run("run", "test")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert system.calls("apt-get") == []


def test_apt_installs_what_is_missing_and_says_so_before(system: System) -> None:
    system.add_all()
    system.add_apt(brings="chromium promtool")
    for name in ("chromium", "promtool"):
        (system.bin / name).unlink()
    done = system.run("test")
    assert done.returncode == 0, done.stderr
    said = f"Missing: Chromium or Chrome, promtool. Installing with: {APT} chromium prometheus"
    assert done.stdout.splitlines() == [said, "Installed."]
    assert system.calls("apt-get") == [
        "apt-get -q update",
        "apt-get noninteractive -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends chromium prometheus",
    ]


def test_all_packages_of_a_bare_debian_are_named(system: System) -> None:
    system.add_apt()
    done = system.run("run", "test", SYSTEM_PACKAGES="no")
    assert f"  {APT} python3 python3-venv g++ make chromium prometheus postgresql curl\n" in done.stderr


def test_each_set_asks_for_its_own_programs(system: System) -> None:
    system.add_apt()
    assert f"  {APT} python3 python3-venv g++ make\n" in system.run("run", SYSTEM_PACKAGES="no").stderr
    assert f"  {APT} chromium prometheus postgresql curl\n" in system.run("test", SYSTEM_PACKAGES="no").stderr


def test_sudo_is_used_where_it_asks_for_no_password(system: System) -> None:
    system.become(1000)
    system.add("sudo", 'if [ "$1" = -n ]; then exit 0; fi; exec "$@"')
    system.add_apt(brings="make")
    done = system.run("make")
    assert f"Installing with: {SUDO_APT} make" in done.stdout
    assert done.returncode == 0, done.stderr
    assert [call.split()[:2] for call in system.calls("sudo")] == [["sudo", "-n"], ["sudo", "apt-get"], ["sudo", "env"]]


def test_sudo_may_ask_for_a_password_at_a_terminal(system: System) -> None:
    system.become(1000)
    system.add("sudo", 'if [ "$1" = -n ]; then exit 1; fi; exec "$@"')
    system.add_apt(brings="make")
    ours, theirs = pty.openpty()
    try:
        assert system.run("make", stdin=theirs).returncode == 0
    finally:
        os.close(ours)
        os.close(theirs)


def test_sudo_with_a_password_and_no_terminal_is_not_tried(system: System) -> None:
    system.become(1000)
    system.add("sudo", "exit 1")
    system.add_apt()
    done = system.run("make")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Missing: make. Nothing was installed. Type this, then start again:",
        f"  {SUDO_APT} make",
    ]
    assert system.calls("apt-get") == []


def test_without_sudo_the_command_is_for_root(system: System) -> None:
    system.become(1000)
    system.add_apt()
    done = system.run("make")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Missing: make. Nothing was installed. Type this, as root, then start again:",
        f"  {APT} make",
    ]
    assert system.calls("apt-get") == []


def test_it_can_be_switched_off(system: System) -> None:
    system.add_apt()
    done = system.run("test", SYSTEM_PACKAGES="no")
    assert done.returncode == 1
    assert done.stderr.startswith("Missing: Chromium or Chrome, prometheus, promtool, a PostgreSQL server")
    assert system.calls("apt-get", "apt-cache") == []


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        (
            "dnf",
            "sudo dnf install -y python3 gcc gcc-c++ make chromium /usr/bin/prometheus /usr/bin/promtool"
            " postgresql-server curl",
        ),
        ("pacman", "sudo pacman -S --needed python gcc make chromium prometheus postgresql curl"),
        (
            "zypper",
            "sudo zypper install python3 gcc gcc-c++ make chromium golang-github-prometheus-prometheus"
            " postgresql-server curl",
        ),
        (
            "brew",
            "brew install python@3.13 prometheus postgresql@17 curl && brew install --cask google-chrome"
            " && xcode-select --install",
        ),
    ],
)
def test_other_systems_get_the_command_to_type(system: System, manager: str, command: str) -> None:
    system.become(1000)
    system.add("sudo")
    system.add(manager)
    done = system.run("run", "test")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [f"  {command}"]
    assert system.calls(manager, "sudo") == []


def test_an_unknown_system_gets_the_names_of_what_is_missing(system: System) -> None:
    done = system.run("run")
    assert done.returncode == 1
    assert done.stderr.startswith("Missing: Python 3.11 or newer, a C and C++ compiler, make. Nothing was installed.")


def test_alpine_is_refused(system: System) -> None:
    system.add("apk")
    done = system.run("run")
    assert done.returncode == 1
    assert "built for glibc" in done.stderr


def test_a_python_that_is_too_old_stops_before_anything_is_installed(system: System) -> None:
    system.add_apt()
    system.add("python3", "echo 3 10")
    assert system.run("run").stderr == (
        "python3 is Python 3.10; 3.11 or newer is needed. Set PYTHON=/path/to/python3.11\n"
    )
    system.add("python3.12")
    assert system.run("run").stderr.endswith("Set PYTHON=python3.12\n")
    assert system.calls("apt-get") == []


def test_ensurepip_is_a_package_of_its_own_on_debian(system: System) -> None:
    system.add_all()
    system.add_apt()
    system.add("python3", WITHOUT_ENSUREPIP)
    done = system.run("run", SYSTEM_PACKAGES="no")
    assert "Missing: the module ensurepip of Python 3.12." in done.stderr
    assert done.stderr.endswith(f"  {APT} python3.12-venv\n")


def test_a_postgresql_that_is_too_old_is_named_with_its_version(system: System) -> None:
    system.add_all()
    system.add_apt()
    shutil.rmtree(system.root / "usr")
    system.add_postgres(14)
    done = system.run("test", SYSTEM_PACKAGES="no")
    assert "Missing: a PostgreSQL server, 15 or newer (14 is here)." in done.stderr
    system.add("apt-cache", "echo '  Candidate: 14+238'")
    done = system.run("test")
    assert done.returncode == 1
    assert done.stderr.startswith("This system's PostgreSQL is 14; 15 or newer is needed. Nothing was installed.")
    assert system.calls("apt-get") == ["apt-get -q update"]


def test_the_newest_postgresql_is_found(system: System) -> None:
    for version in (9, 17, 15):
        system.add_postgres(version)
    assert system.run("--find", "postgresql").stdout.endswith("/17/bin/postgres\n")


def test_errors_of_apt_are_shown_in_full(system: System) -> None:
    system.add("apt-get", 'case "$*" in *install*) echo "first line"; echo "E: second line" >&2; exit 100 ;; esac')
    done = system.run("make")
    assert done.returncode == 1
    assert "first line\nE: second line\n" in done.stderr


def test_lists_that_cannot_be_refreshed_do_not_end_it(system: System) -> None:
    system.add(
        "apt-get", f'case "$*" in *install*) >"{system.bin}/make"; chmod +x "{system.bin}/make" ;; *) exit 100 ;; esac'
    )
    done = system.run("make")
    assert done.returncode == 0
    assert "apt-get update failed" in done.stderr


def test_what_is_missing_after_the_installation_is_named(system: System) -> None:
    system.add_apt()
    done = system.run("make")
    assert done.returncode == 1
    assert done.stderr == "Still missing after the installation: make\n"


def test_services_that_will_be_started_are_named_before(system: System) -> None:
    system.add_apt(brings="prometheus promtool")
    (system.root / "run" / "systemd" / "system").mkdir(parents=True)
    said = system.run("prometheus").stdout.splitlines()
    assert said[1].endswith("do not use: prometheus. To stop them: systemctl disable --now prometheus")
    assert said[2] == "Installed."


def test_ubuntu_gets_a_browser_that_is_no_snap(system: System) -> None:
    (system.root / "etc" / "os-release").write_text('NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n')
    system.add_apt()
    system.add("chromium-browser", WRAPPER_OF_SNAP)
    chrome = system.home / ".cache" / "ms-playwright" / "chromium-1200" / "chrome-linux64" / "chrome"
    venv = system.home / ".cache" / "rustygpt-playwright" / "bin"
    system.add("pip", path=system.home)
    system.add(
        "playwright", f'mkdir -p "{chrome.parent}"; echo "#!/bin/sh" >"{chrome}"; chmod +x "{chrome}"', system.home
    )
    copy = f'case "$*" in *venv*) mkdir -p "{venv}"; cat "{system.home}/pip" >"{venv}/pip"; ' + (
        f'cat "{system.home}/playwright" >"{venv}/playwright"; chmod +x "{venv}"/* ;; esac'
    )
    system.add("python3", f"{PYTHON}; {copy}")
    done = system.run("browser")
    assert done.returncode == 0, done.stderr
    assert "Missing: Chromium or Chrome. Installing with: python3 -m venv " in done.stdout
    assert system.calls("pip", "playwright", "apt-get") == [
        "pip install --quiet --disable-pip-version-check -c constraints.txt playwright",
        "playwright install --with-deps --no-shell chromium",
    ]
    assert system.run("--find", "browser").stdout == f"{chrome}\n"
    assert not venv.exists()


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"])
def test_a_browser_is_found_by_any_of_its_names(system: System, name: str) -> None:
    system.add(name)
    assert system.run("--find", "browser").stdout == f"{system.bin / name}\n"


def test_a_browser_can_be_chosen(system: System) -> None:
    system.add("chromium")
    system.add("brave")
    assert system.run("--find", "browser", CHROMIUM="brave").stdout == f"{system.bin / 'brave'}\n"
    assert system.run("browser", CHROMIUM="/not/there").stderr == "CHROMIUM=/not/there is no program.\n"


def test_find_says_what_to_do_for_what_is_missing(system: System) -> None:
    done = system.run("--find", "promtool")
    assert done.returncode == 1
    assert done.stderr == "Missing: promtool. Type: tools/system_packages.sh promtool\n"


def test_make_test_stops_before_anything_else_is_done(system: System, tmp_path: Path) -> None:
    (system.bin / "make").symlink_to(shutil.which("make") or "/usr/bin/make")
    system.add("dnf")
    done = subprocess.run(
        ["make", "test", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        env={"PATH": str(system.bin), "HOME": str(system.home), "SYSTEM_ROOT": str(system.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Missing: Python 3.11 or newer, a C and C++ compiler, Chromium or Chrome, prometheus")
    assert "  dnf install -y python3 gcc gcc-c++ chromium" in done.stderr
    assert not (tmp_path / "venv").exists()
