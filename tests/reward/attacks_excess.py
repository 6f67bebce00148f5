"""Programs that take too much: of memory, processes, time, output, disk."""

from __future__ import annotations

from rlpost.reward.sandbox import Reason
from tests.reward.attack import BRIEF, FRUGAL, attack

ERROR, TIMEOUT, CPU, MEMORY = Reason.ERROR, Reason.TIMEOUT, Reason.CPU, Reason.MEMORY
OUTPUT, KILLED, PROCESSES, OK = Reason.OUTPUT, Reason.KILLED, Reason.PROCESSES, Reason.OK

EXCESS = [
    attack(
        "fork bomb",
        """
        import os
        while True: os.fork()
        """,
        *(ERROR, PROCESSES),
        says="BlockingIOError",
        limits=BRIEF,
    ),
    attack(
        "stubborn fork bomb",
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """,
        *(TIMEOUT, CPU, PROCESSES, MEMORY),
        limits=BRIEF,
    ),
    attack(
        "thread bomb",
        """
        import threading, time
        while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
        *(ERROR, PROCESSES),
        says="can't start new thread",
    ),
    attack("memory bomb", "x = bytearray(10**10)", MEMORY, says="MemoryError"),
    attack(
        "memory, piece by piece",
        """
        x = []
        while True: x.append(bytearray(10**6))
        """,
        MEMORY,
    ),
    attack(
        "memory, spread over processes",
        """
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                x = b"x" * (100 << 20)
                time.sleep(60)
        time.sleep(60)
        """,
        MEMORY,
    ),
    attack(
        "memory that no process owns",
        "import mmap; mmap.mmap(-1, 1 << 20); print('ESCAPED')",
        ERROR,
        says="not permitted",
    ),
    attack("memory of the zero device", "open('/dev/zero', 'r+b'); print('ESCAPED')", ERROR, says="No such file"),
    attack(
        "decompression bomb",
        """
        import zlib
        packer = zlib.compressobj(1)
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
        zlib.decompress(bomb)
        print("ESCAPED")
        """,
        MEMORY,
    ),
    attack("huge integer", "print(9**9**9 % 7)", TIMEOUT, MEMORY, limits=BRIEF),
    attack("huge integer as text", "print(str(10**5000))", ERROR, says="Exceeds the limit"),
    attack("huge text", "x = 'a' * 9**9 * 9**9", ERROR, MEMORY),
    attack("endless output", "while True: print('x' * 4000)", OUTPUT),
    attack("endless error output", "import sys\nwhile True: sys.stderr.write('x' * 4000)", OUTPUT),
    attack(
        "output from a grandchild",
        """
        import os
        if os.fork() == 0:
            while True: os.write(1, b"x" * 4000)
        os.wait()
        """,
        OUTPUT,
    ),
    attack("endless loop", "while True: pass", TIMEOUT, limits=BRIEF),
    attack("processor time", "while True: pass", CPU, limits=FRUGAL),
    attack(
        "processor time, in relays",
        """
        import os, time
        while True:
            if os.fork() == 0:
                end = time.time() + 0.2
                while time.time() < end: pass
                os._exit(0)
            os.wait()
        """,
        CPU,
        limits=FRUGAL,
    ),
    attack("sleep", "import time; time.sleep(10**6)", TIMEOUT, limits=BRIEF),
    attack("catastrophic regex", "import re; re.match(r'(a+)+$', 'a' * 64 + 'b')", TIMEOUT, limits=BRIEF),
    attack(
        "deaf to signals",
        """
        import signal
        for n in range(1, 65):
            try: signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
        """,
        TIMEOUT,
        limits=BRIEF,
    ),
    attack("stopping itself", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", TIMEOUT, limits=BRIEF),
    attack("a file too large", "open('a', 'wb').write(bytes(5 << 20)); print('ESCAPED')", ERROR, says="File too large"),
    attack(
        "full disk",
        """
        for i in range(10): open(f"{i}", "wb").write(bytes(1 << 20))
        print("ESCAPED")
        """,
        ERROR,
        says="No space left",
    ),
    attack(
        "no inodes left",
        """
        import os
        for i in range(10**5): os.mkdir(f"{i}")
        print("ESCAPED")
        """,
        ERROR,
        says="No space left",
    ),
    attack(
        "descriptors",
        "x = [open('/dev/null') for _ in range(10**4)]; print('ESCAPED')",
        ERROR,
        says="Too many open files",
    ),
    attack("recursion", "def f(): f()\nf()", ERROR, says="RecursionError"),
    attack(
        "bottomless recursion",
        """
        import sys
        sys.setrecursionlimit(10**9)
        def f(): f()
        f()
        """,
        *(MEMORY, KILLED, ERROR, TIMEOUT),
    ),
    attack("deep source", "eval('(' * 10**4 + ')' * 10**4)", ERROR, MEMORY, KILLED),
    attack("crash", "import ctypes; ctypes.string_at(0)", KILLED),
    attack("abort", "import os; os.abort()", KILLED),
    attack("waiting for input", "input()", ERROR, says="EOFError"),
    attack(
        "lifting its limits",
        """
        import resource as r
        for kind in (r.RLIMIT_AS, r.RLIMIT_NPROC, r.RLIMIT_FSIZE):
            try:
                r.setrlimit(kind, (r.RLIM_INFINITY,) * 2)
                print("ESCAPED")
            except ValueError as error:
                print(error)
        """,
        OK,
        says="not allowed to raise maximum limit",
    ),
]
