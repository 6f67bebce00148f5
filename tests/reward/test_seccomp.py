"""The system-call filter, run by a small interpreter of its instructions, for both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from rlpost.reward.sandbox.inside import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE, NOT_THERE, DO_NOTHING = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x00050000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS = {  # read, openat, futex, execve, socket, ptrace, clone, socketpair, mmap
    "x86_64": (0, 257, 202, 59, 41, 101, 56, 53, 9),
    "aarch64": (63, 56, 98, 221, 198, 117, 220, 199, 222),
}


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter answers to a call."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, place = 0, 0
    while True:
        operation, jump_true, jump_false, operand = code[place]
        place += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x06:
            return operand
        else:
            tests = {0x15: accumulator == operand, 0x25: accumulator > operand, 0x45: bool(accumulator & operand)}
            place += jump_true if tests[operation] else jump_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_refused_and_what_is_not(machine: str) -> None:
    program, architecture = seccomp.assemble(machine), ARCHITECTURES[machine]
    read, openat, futex, execve, socket, ptrace, clone, socketpair, mmap = NUMBERS[machine]
    for number in (read, openat, futex):
        assert verdict(program, architecture, number) == ALLOW
    for number in (execve, socket, ptrace, 425, 442):
        assert verdict(program, architecture, number) == REFUSE
    assert verdict(program, architecture, 435) == NOT_THERE  # clone3
    assert verdict(program, architecture, 451) == NOT_THERE
    assert verdict(program, architecture, 0x40000000 | execve) == NOT_THERE  # x32
    assert verdict(program, architecture, clone, 0x01200011) == ALLOW  # fork
    assert verdict(program, architecture, clone, 0x003D0F00) == ALLOW  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(program, architecture, clone, flag | 17) == REFUSE
    assert verdict(program, architecture, socketpair, 1, 1) == ALLOW
    assert verdict(program, architecture, socketpair, 2, 1) == REFUSE
    assert verdict(program, architecture, mmap, 0, 4096, 3, 0x22) == ALLOW  # private and anonymous
    assert verdict(program, architecture, mmap, 0, 4096, 3, 0x01) == ALLOW  # a shared file
    assert verdict(program, architecture, mmap, 0, 4096, 3, 0x21) == REFUSE


@pytest.mark.parametrize(("machine", "fcntl", "sigaction"), [("x86_64", 72, 13), ("aarch64", 25, 134)])
def test_calls_by_their_arguments(machine: str, fcntl: int, sigaction: int) -> None:
    program, architecture = seccomp.assemble(machine), ARCHITECTURES[machine]
    for command, answer in {1: ALLOW, 5: ALLOW, 6: DO_NOTHING, 7: DO_NOTHING, 37: DO_NOTHING, 1031: REFUSE}.items():
        assert verdict(program, architecture, fcntl, 3, command) == answer
    child, handler = 17, 0x7F00_0000_0000  # an address whose low half is 0
    assert verdict(program, architecture, sigaction, child, 0) == ALLOW
    assert verdict(program, architecture, sigaction, child, handler) == REFUSE
    assert verdict(program, architecture, sigaction, child, 0x1000) == REFUSE
    assert verdict(program, architecture, sigaction, 14, 0x1000) == ALLOW


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_another_architectures_calls_kill(machine: str) -> None:
    other = next(code for name, code in ARCHITECTURES.items() if name != machine)
    assert verdict(seccomp.assemble(machine), other, 0) == KILL


def test_no_filter_for_other_machines() -> None:
    assert not seccomp.supported("riscv64")
