# shellcheck shell=bash
# Sourced by the scripts of ci/. Moves to the repository and sets `python`: the interpreter of its .venv, which is made at
# first use and brought up to date when the project's dependencies change. Only then is a network needed.
#
#   PYTHON   what to make .venv from. Default: the .venv that is there, else the first that fits of python3, python3.13 ...
#
# Whatever goes wrong here is one sentence on stderr and exit 2.

set -euo pipefail

root=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
venv=$root/.venv
python=$venv/bin/python
supported="3.10 3.11 3.12 3.13 3.14"

trap 'exit 130' INT

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 2; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null; }
fits() { case " $supported " in *" $1 "*) ;; *) return 1 ;; esac; }

# An absolute path, so that it still holds after we have moved.
locate() {
  local path
  path=$(command -v "$1") || return 1
  case $path in /*) printf '%s\n' "$path" ;; *) printf '%s\n' "$PWD/$path" ;; esac
}

# The interpreter that PYTHON names; its version must fit.
named_interpreter() {
  local path version said
  path=$(locate "$PYTHON") || die "PYTHON=$PYTHON is not found; name a CPython of 3.10 to 3.14."
  if ! version=$(version_of "$path"); then
    said=$("$path" -c '' 2>&1 </dev/null | head -n 1) || true
    die "PYTHON=$PYTHON does not run as a Python${said:+ ($said)}; name a CPython of 3.10 to 3.14."
  fi
  fits "$version" || die "PYTHON=$PYTHON is Python $version; gradverify needs 3.10 to 3.14."
  printf '%s\n' "$path"
}

# The first interpreter on PATH whose version fits.
found_interpreter() {
  local name path version seen=""
  for name in python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do
    path=$(locate "$name") || continue
    version=$(version_of "$path") || continue
    if fits "$version"; then
      printf '%s\n' "$path"
      return
    fi
    seen="${seen:+$seen, }$name is $version"
  done
  die "no Python of 3.10 to 3.14 on PATH${seen:+ ($seen)}; install one, or name it: PYTHON=/path/to/python ${0##*/}"
}

# All that decides what is installed; .venv is ready when its record of this is the same.
wanted() {
  printf '%s\n' "$root" "$(version_of "$python")"
  cat "$root/ci/constraints.txt"
  sed '/^\[tool\.gradverify\]/,$d' "$root/pyproject.toml"
}

ready() {
  local has
  [ -f "$venv/ready" ] || return 1
  has=$(version_of "$python") || return 1
  [ -z "${PYTHON:-}" ] || [ "$has" = "$(version_of "$base")" ] || return 1
  [ "$(cat "$venv/ready")" = "$(wanted)" ]
}

# The .venv that is there may serve: it was made in this place, runs, has pip, and is of a version that fits and was asked for.
usable() {
  local has
  grep -qsF "$venv" "$venv/bin/activate" || return 1
  has=$(version_of "$python") || return 1
  fits "$has" || return 1
  [ -z "${PYTHON:-}" ] || [ "$has" = "$(version_of "$base")" ] || return 1
  "$python" -m pip --version >/dev/null 2>&1 </dev/null
}

create() {
  local said has
  [ -n "${PYTHON:-}" ] || base=$(found_interpreter)
  if has=$(version_of "$python"); then
    say "remaking .venv with Python $(version_of "$base"), it had $has (a few minutes)"
  else
    say "setting up .venv with Python $(version_of "$base") (first time: a few minutes)"
  fi
  rm -rf "$venv"
  said=$("$base" -m venv "$venv" 2>&1 </dev/null) ||
    die "$base cannot make .venv (on Debian: apt-get install python3-venv): $(tail -n 1 <<<"$said")"
}

# pip 25.1 is the first that reads dependency groups. An index without a pip is one that was not reached.
install() {
  local log=$venv/setup.log
  rm -f "$venv/ready"
  if ! (
    cd "$root"
    "$python" -m pip install -q 'pip>=25.1' && "$python" -m pip install -q -c ci/constraints.txt --group dev -e '.[report,triton]'
  ) >"$log" 2>&1 </dev/null; then
    if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Connection (refused|broken|aborted)|distribution found for pip' "$log"; then
      die "cannot reach the package index; connect to a network and run this again (all that pip said: $log)"
    fi
    die "pip cannot install what gradverify needs: $(sed -nE 's/^ *(([A-Za-z]*Error|ERROR): )/\1/p' "$log" | tail -n 1) (all that it said: $log)"
  fi
  wanted >"$venv/ready"
}

prepare() {
  if usable; then say "updating .venv"; else create; fi
  install
  ready || die ".venv is not usable after it was set up; remove it and run this again."
}

# Many may use .venv at once, one may change it. The lock is this file, and is held until the script has ended.
lock() {
  command -v flock >/dev/null || return 0
  flock -n "$1" 9 && return
  say "waiting for another script that uses .venv"
  flock "$1" 9
}

base=
[ -z "${PYTHON:-}" ] || base=$(named_interpreter)
exec 9<"$root/ci/venv.sh"
lock -s
until ready; do
  lock -x
  ready || prepare
  lock -s
done
cd "$root"
