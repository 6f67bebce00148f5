"""The system-call filter every sandboxed process lives under, assembled by hand from (name, numbers) pairs.

It takes away what a computation never needs and a break-out does: starting other programs, sockets, namespaces and
mounts, tracing, kernel keys and modules, io_uring, bpf; memory that no other limit counts (memfd, System V segments,
anonymous shared maps, pages moved into pipes, sockets in flight, larger buffers, watches, locks on ranges of files);
and handlers for the death of children, since one that ignores it hides their processor time. Refused calls fail with
EPERM, so a program sees an exception and not a crash; locks on files seem to succeed, as SQLite cannot do without.
Left out: architectures other than x86-64 and arm64; there the sandbox refuses to start.
"""

from __future__ import annotations

import errno
import struct

# name: (x86-64, arm64); 0 where the architecture has no such call
REFUSED: dict[str, tuple[int, int]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "iopl": (172, 0),
    "ioperm": (173, 0),
    "modify_ldt": (154, 0),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
    "sendfile": (40, 71),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "setsockopt": (54, 208),
    "inotify_init": (253, 0),
    "inotify_init1": (294, 26),
    "landlock_create_ruleset": (444, 444),
}
_CLONE, _CLONE3, _SOCKETPAIR, _MMAP = (56, 220), (435, 435), (53, 199), (9, 222)
_FCNTL, _SIGACTION = (72, 25), (13, 134)
_HIGHEST_KNOWN = 450
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_REFUSE, _NOT_THERE, _DO_NOTHING = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x00050000
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone takes
_SHARED_ANONYMOUS = 0x21
_AF_UNIX = 1
_SIGCHLD = 17
_FILE_CONTROL = dict.fromkeys((6, 7, 37, 38), _DO_NOTHING)  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW
_FILE_CONTROL |= dict.fromkeys((1024, 1026, 1031), _REFUSE)  # F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ


def supported(machine: str) -> bool:
    """Whether there is a filter for this architecture."""
    return machine in _AUDIT_ARCH


def assemble(machine: str) -> bytes:
    """The filter as packed ``sock_filter`` instructions (code u16, jump-true u8, jump-false u8, operand u32)."""
    column = list(_AUDIT_ARCH).index(machine)
    code = [
        _op(_LOAD, _ARCHITECTURE),
        _op(_JUMP_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER),
        # also catches x86-64's x32 calls, whose numbers have bit 30 set
        _op(_JUMP_ABOVE, _HIGHEST_KNOWN, 0, 1),
        _op(_RETURN, _NOT_THERE),
    ]
    for numbers in REFUSED.values():
        if numbers[column]:
            code += [_op(_JUMP_EQUAL, numbers[column], 0, 1), _op(_RETURN, _REFUSE)]
    # libc falls back from clone3, whose flags a filter cannot see, to clone
    code += [_op(_JUMP_EQUAL, _CLONE3[column], 0, 1), _op(_RETURN, _NOT_THERE)]
    code += [
        _by_argument(_CLONE[column], 0, _op(_JUMP_ANY_BIT, _NEW_NAMESPACES, 0, 1) + _op(_RETURN, _REFUSE)),
        _by_argument(_SOCKETPAIR[column], 0, _op(_JUMP_EQUAL, _AF_UNIX, 1, 0) + _op(_RETURN, _REFUSE)),
        _by_argument(_MMAP[column], 3, _op(_AND, _SHARED_ANONYMOUS) + _when(_SHARED_ANONYMOUS, _REFUSE)),
        _by_argument(_FCNTL[column], 1, b"".join(map(_when, _FILE_CONTROL.keys(), _FILE_CONTROL.values()))),
        _by_argument(_SIGACTION[column], 0, _REFUSE_HANDLER),
        _op(_RETURN, _ALLOW),
    ]
    return b"".join(code)


def _by_argument(number: int, index: int, tests: bytes) -> bytes:
    """For one call: look at the low half of an argument, and allow what no test of it answers."""
    body = _op(_LOAD, _argument(index)) + tests + _op(_RETURN, _ALLOW)
    return _op(_JUMP_EQUAL, number, 0, len(body) // 8) + body


def _when(value: int, answer: int) -> bytes:
    return _op(_JUMP_EQUAL, value, 0, 1) + _op(_RETURN, answer)


def _op(code: int, operand: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, operand)


def _argument(index: int) -> int:
    """Offset of the low half of a call's argument; both architectures are little-endian."""
    return 16 + 8 * index


_REFUSE_HANDLER = b"".join(
    [  # of sigaction: to ask for the action (a null pointer) is fine, to change that of SIGCHLD is not
        _op(_JUMP_EQUAL, _SIGCHLD, 1, 0),
        _op(_RETURN, _ALLOW),
        _op(_LOAD, _argument(1)),
        _op(_JUMP_EQUAL, 0, 1, 0),
        _op(_RETURN, _REFUSE),
        _op(_LOAD, _argument(1) + 4),
        _op(_JUMP_EQUAL, 0, 1, 0),
        _op(_RETURN, _REFUSE),
    ]
)
