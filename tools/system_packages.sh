#!/bin/sh
# Finds the system's programs that RustyGPT needs. Installs missing ones where there is apt-get; elsewhere says what to
# type.
#
#   tools/system_packages.sh NEED...      NEED: run, test, python, compiler, make, browser, prometheus, promtool,
#                                             postgresql, curl
#   tools/system_packages.sh --find NEED  prints the path of one program
#
# Exit 0: all of them are there. Exit 1: one is not, and the last lines say what to do.
#
# SYSTEM_PACKAGES=no installs nothing and says what is missing. PYTHON, CC, CXX, CHROMIUM and POSTGRES_BIN (a folder)
# choose a program. SYSTEM_ROOT is for tests: the folder in which /etc, /usr and /run are looked for.
# shellcheck disable=SC2016,SC2086 # needs and packages are lists of words
set -eu
cd "$(dirname "$0")/.."
root=${SYSTEM_ROOT:-}
python=${PYTHON:-python3}
OLDEST_PYTHON=11 OLDEST_POSTGRES=15

stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

has() { command -v "$1" >/dev/null; }

# --- What is there ---

# Prints the program's path. Prints nothing and fails if there is none.
find_program() {
  case $1 in
    python) command -v "$python" ;;
    compiler) find_compiler ;;
    browser) find_browser ;;
    postgresql) newest=$(newest_postgres) && echo "${newest#* }" ;;
    make | prometheus | promtool | curl) command -v "$1" ;;
    *) stop "$1 is no NEED: see tools/system_packages.sh" ;;
  esac
}

find_compiler() {
  c=${CC:-cc} cxx=${CXX:-c++}
  has "${c%% *}" && command -v "${cxx%% *}"
}

find_browser() {
  if [ -n "${CHROMIUM:-}" ]; then
    command -v "$CHROMIUM"
    return
  fi
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if path=$(command -v "$name") && ! is_snap "$path"; then
      echo "$path"
      return
    fi
  done
  for path in "${PLAYWRIGHT_BROWSERS_PATH:-${HOME:-}/.cache/ms-playwright}"/chromium-*/chrome-linux*/chrome \
    "$root/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    if [ -x "$path" ]; then
      echo "$path"
      return
    fi
  done
  return 1
}

# A snap does not start in most containers, and hides what it downloads. Ubuntu's chromium-browser only starts the snap.
is_snap() {
  case $1 in
    */snap/bin/*) return 0 ;;
    */chromium-browser) head -c 4096 "$1" | grep -q /snap/bin/ ;;
    *) return 1 ;;
  esac
}

# Prints "VERSION PATH" of the newest server. Its folder has initdb and pg_ctl as well.
newest_postgres() {
  best=0 best_path=
  if [ -n "${POSTGRES_BIN:-}" ]; then
    set -- "$POSTGRES_BIN/postgres"
  else
    set -- "$root"/usr/lib/postgresql/*/bin/postgres "$root"/usr/lib/postgresql[0-9]*/bin/postgres \
      "$root"/usr/pgsql-*/bin/postgres "$root"/opt/homebrew/opt/postgresql@*/bin/postgres \
      "$root"/usr/local/opt/postgresql@*/bin/postgres "$(command -v postgres || :)"
  fi
  for path; do
    folder=${path%/*}
    [ -x "$path" ] && [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ] || continue
    version=$("$path" --version)
    version=${version##*PostgreSQL) }
    version=${version%%[!0-9]*}
    if [ "${version:-0}" -gt "$best" ]; then best=$version best_path=$path; fi
  done
  [ -n "$best_path" ] && echo "$best $best_path"
}

# --- What is missing ---

# Sets `missing` (needs, for packages_of), `named` (the same for people), and `unfit` (what no package mends).
find_missing() {
  missing='' named='' unfit=''
  for need; do check "$need"; done
  # Ubuntu's browser comes by Playwright, which Python installs.
  case "$missing " in *" browser "*) ! is_ubuntu || check_python ;; esac
}

lacks() {
  case " $missing " in *" $1 "*) return ;; esac
  missing="$missing $1"
  named="$named${named:+, }$2"
}

check() {
  case $1 in
    run) check python; check compiler; check make ;;
    test) check browser; check prometheus; check promtool; check postgresql; check curl ;;
    python) check_python ;;
    postgresql) check_postgres ;;
    compiler) find_program "$1" >/dev/null || lacks "$1" "a C and C++ compiler" ;;
    browser)
      if ! find_program "$1" >/dev/null; then
        lacks "$1" "Chromium or Chrome"
        [ -z "${CHROMIUM:-}" ] || unfit="CHROMIUM=$CHROMIUM is no program."
      fi
      ;;
    *) find_program "$1" >/dev/null || lacks "$1" "$1" ;;
  esac
}

check_python() {
  # Prints the version, then fails without ensurepip, which venv needs and Debian keeps in a package of its own.
  code='import sys; print("%d %d" % sys.version_info[:2]); sys.stdout.flush(); import ensurepip'
  whole=yes
  version=$("$python" -I -S -c "$code" 2>/dev/null) || whole=no
  major=${version% *} minor=${version#* }
  if [ -z "$version" ]; then
    lacks python "Python 3.$OLDEST_PYTHON or newer"
    [ -z "${PYTHON:-}" ] || has "$PYTHON" || unfit="PYTHON=$PYTHON is no program."
  elif [ "$major" -lt 3 ] || [ "$minor" -lt "$OLDEST_PYTHON" ]; then
    newer=/path/to/python3.$OLDEST_PYTHON
    for name in python3.11 python3.12 python3.13; do ! has "$name" || newer=$name; done
    unfit="$python is Python $major.$minor; 3.$OLDEST_PYTHON or newer is needed. Set PYTHON=$newer"
  elif [ "$whole" = no ]; then
    lacks venv "the module ensurepip of Python $major.$minor"
  fi
}

check_postgres() {
  newest=$(newest_postgres) || newest='0 none'
  [ "${newest%% *}" -ge "$OLDEST_POSTGRES" ] || {
    here=
    [ "${newest%% *}" = 0 ] || here=" (${newest%% *} is here)"
    lacks postgresql "a PostgreSQL server, $OLDEST_POSTGRES or newer$here"
  }
}

# --- What to do ---

is_ubuntu() { grep -q '^ID="\{0,1\}ubuntu' "$root/etc/os-release" 2>/dev/null; }

find_manager() {
  for name in apt-get dnf pacman zypper apk brew; do
    if has "$name"; then
      echo "$name"
      return
    fi
  done
}

# Prints the packages for what is missing, each once. dnf finds a package by its file. A dash: see command_to_type.
packages_of() {
  manager=$1
  shift
  all=
  for need; do
    apt='' dnf='' pacman='' zypper='' brew=''
    case $need in
      python) apt="python3 python3-venv" dnf=python3 pacman=python zypper=python3 brew=python@3.13 ;;
      venv) apt=python3.$minor-venv dnf=python3 pacman=python zypper=python3 brew=python@3.13 ;;
      compiler) apt=g++ dnf="gcc gcc-c++" pacman=gcc zypper="gcc gcc-c++" brew=- ;;
      make) apt=make dnf=make pacman=make zypper=make brew=- ;;
      browser) apt=chromium dnf=chromium pacman=chromium zypper=chromium brew=- && ! is_ubuntu || apt=- ;;
      prometheus | promtool) apt=prometheus dnf=/usr/bin/$need pacman=prometheus brew=prometheus
        zypper=golang-github-prometheus-prometheus ;;
      postgresql) apt=postgresql dnf=postgresql-server pacman=postgresql zypper=postgresql-server brew=postgresql@17 ;;
      curl) apt=curl dnf=curl pacman=curl zypper=curl brew=curl ;;
    esac
    case $manager in
      apt-get) packages=$apt ;;
      dnf) packages=$dnf ;;
      pacman) packages=$pacman ;;
      zypper) packages=$zypper ;;
      brew) packages=$brew ;;
    esac
    for package in $packages; do
      case " $all - " in *" $package "*) ;; *) all="$all${all:+ }$package" ;; esac
    done
  done
  echo "$all"
}

# Ubuntu's Chromium is a snap. Playwright's own build starts everywhere; it is put where find_browser looks.
browser_by_playwright() {
  folder='"${HOME:?}/.cache/rustygpt-playwright"'
  echo "$python -m venv $folder" \
    "&& $folder/bin/pip install --quiet --disable-pip-version-check -c constraints.txt playwright" \
    "&& $folder/bin/playwright install --with-deps --no-shell chromium && rm -r $folder"
}

command_to_type() {
  manager=$1
  shift
  packages=$(packages_of "$manager" "$@")
  commands=
  case $manager in
    apt-get) commands="${sudo}apt-get update && ${sudo}apt-get install -y --no-install-recommends $packages" ;;
    dnf) commands="${sudo}dnf install -y $packages" ;;
    pacman) commands="${sudo}pacman -S --needed $packages" ;;
    zypper) commands="${sudo}zypper install $packages" ;;
    brew) commands="brew install $packages" ;;
  esac
  [ -n "$packages" ] || commands=
  case "$manager: $* " in
    apt-get:*" browser "*) ! is_ubuntu || commands="$commands${commands:+ && }$(browser_by_playwright)" ;;
    brew:*" browser "*) commands="$commands${commands:+ && }brew install --cask google-chrome" ;;
  esac
  case "$manager: $* " in
    brew:*" compiler "* | brew:*" make "*) commands="$commands${commands:+ && }xcode-select --install" ;;
  esac
  echo "$commands"
}

# --- apt-get ---

may_become_root() {
  [ "$(id -u)" = 0 ] && return
  [ -n "$sudo" ] && { sudo -n true 2>/dev/null || [ -t 0 ]; }
}

install_by_apt() {
  packages=$(packages_of apt-get "$@")
  echo "Missing: $named. Installing with: $(command_to_type apt-get "$@")"
  if [ -n "$packages" ]; then
    name_services
    quietly $sudo apt-get -q update || echo "apt-get update failed; going on with the lists that are there." >&2
    case " $packages " in *" postgresql "*) refuse_old_postgres ;; esac
    quietly $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
      install -y --no-install-recommends $packages || stop "apt-get install failed, see above. Nothing else was done."
  fi
  case " $* " in *" browser "*) ! is_ubuntu || quietly sh -c "$(browser_by_playwright)" || stop \
    "No browser was installed, see above. Install Google Chrome, or set CHROMIUM to the path of a Chromium." ;;
  esac
}

quietly() { # shows what the command printed only if it fails
  log=$(mktemp)
  status=0
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ "$status" = 0 ] || cat "$log" >&2
  rm -f "$log"
  return "$status"
}

# Debian starts what it installs. This leaves that to the system, and says it.
name_services() {
  [ -d "$root/run/systemd/system" ] || return 0
  services=
  for package in $packages; do
    case $package in prometheus | postgresql) services="$services $package" ;; esac
  done
  [ -z "$services" ] || echo "The system will start these as services, which the tests do not use:$services." \
    "To stop them: ${sudo}systemctl disable --now$services"
}

refuse_old_postgres() {
  candidate=$(LC_ALL=C apt-cache policy postgresql | sed -n 's/^ *Candidate: \([0-9]*\).*/\1/p')
  [ "${candidate:-$OLDEST_POSTGRES}" -ge "$OLDEST_POSTGRES" ] || stop \
    "This system's PostgreSQL is $candidate; $OLDEST_POSTGRES or newer is needed. Nothing was installed." \
    "Add PostgreSQL's own packages (the package postgresql-common has a script for it in" \
    "/usr/share/postgresql-common/pgdg), or set POSTGRES_BIN to the folder of a newer server."
}

# --- Main ---

[ $# -gt 0 ] || stop "usage: tools/system_packages.sh run|test|NEED..."
if [ "$1" = --find ]; then
  find_missing "$2"
  [ -z "$missing$unfit" ] || stop "${unfit:-Missing: $named. Type: tools/system_packages.sh $2}"
  find_program "$2"
  exit
fi
find_missing "$@"
[ -z "$unfit" ] || stop "$unfit"
[ -n "$missing" ] || exit 0

sudo='' as=''
if [ "$(id -u)" != 0 ]; then if has sudo; then sudo="sudo "; else as=", as root"; fi; fi
manager=$(find_manager)
case $manager in
  '') stop "Missing: $named. Nothing was installed. Install it with this system's package manager, then start again." ;;
  apk) stop "RustyGPT does not run on this system: Ray is built for glibc, not for musl." ;;
  brew) as= ;;
esac
if [ "$manager" != apt-get ] || [ "${SYSTEM_PACKAGES:-yes}" = no ] || ! may_become_root; then
  stop "Missing: $named. Nothing was installed. Type this$as, then start again:" \
    "  $(command_to_type $manager $missing)"
fi
install_by_apt $missing
find_missing "$@"
[ -z "$missing$unfit" ] || stop "Still missing after the installation: ${unfit:-$named}"
echo "Installed."
