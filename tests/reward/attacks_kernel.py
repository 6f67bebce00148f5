"""Programs that take what no process is seen to hold: buffers in the kernel, time of children nobody waits for, the
caller's own memory; and that reach for what the machinery around them could have left open."""

from __future__ import annotations

from dataclasses import replace

from rlpost.reward.sandbox import Reason
from tests.reward.attack import BRIEF, FRUGAL, ROOMY, attack

OK, ERROR, TIMEOUT, CPU, MEMORY = Reason.OK, Reason.ERROR, Reason.TIMEOUT, Reason.CPU, Reason.MEMORY
KILLED, OUTPUT, PROCESSES = Reason.KILLED, Reason.OUTPUT, Reason.PROCESSES
MANY = replace(ROOMY, memory_mib=64, processes=32)

_FILL_SOCKETS = """
import os, socket, time
def fill():
    kept = []
    while True:
        try: pair = socket.socketpair(socket.AF_UNIX, {kind})
        except OSError: return kept
        kept.append(pair)
        for end in pair:
            end.setblocking(False)
            try:
                while True: end.send(b"x" * {size})
            except OSError: pass
"""

BUFFERS = [
    attack(
        "full stream sockets in every process",
        _FILL_SOCKETS.format(kind="socket.SOCK_STREAM", size=65536)
        + "for _ in range(20):\n    if os.fork() == 0: kept = fill(); time.sleep(60)\ntime.sleep(60)",
        MEMORY,
        limits=MANY,
    ),
    attack(
        "full datagram sockets in every process",
        _FILL_SOCKETS.format(kind="socket.SOCK_DGRAM", size=4096)
        + "for _ in range(20):\n    if os.fork() == 0: kept = fill(); time.sleep(60)\ntime.sleep(60)",
        MEMORY,
        limits=MANY,
    ),
    attack(
        "sockets sent through sockets",
        """
        import array, socket
        a, b = socket.socketpair()
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [a.fileno()]))])
        print("ESCAPED")
        """,
        ERROR,
        says="not permitted",
    ),
    attack(
        "larger socket buffers",
        "import socket; a, b = socket.socketpair(); a.setsockopt(1, 7, 1 << 30); print('ESCAPED')",
        ERROR,
        says="not permitted",
    ),
    attack(
        "larger pipes",
        "import fcntl, os; r, w = os.pipe(); fcntl.fcntl(w, 1031, 1 << 20); print('ESCAPED')",
        ERROR,
        says="not permitted",
    ),
    attack(
        "full pipes in every process",
        """
        import os, time
        def fill():
            while True:
                try: r, w = os.pipe()
                except OSError: return
                os.set_blocking(w, False)
                try:
                    while True: os.write(w, b"x" * 4096)
                except OSError: pass
        for _ in range(30):
            if os.fork() == 0: fill(); time.sleep(60)
        time.sleep(60)
        """,
        MEMORY,
        limits=replace(MANY, memory_mib=32),
    ),
    attack(
        "huge pages moved into pipes",
        """
        import ctypes, mmap, os
        libc = ctypes.CDLL(None, use_errno=True)
        class Vector(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
        memory = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(14)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        r, w = os.pipe()
        result = libc.vmsplice(w, ctypes.byref(Vector(address, 4096)), 1, 8)
        print("ESCAPED" if result != -1 else os.strerror(ctypes.get_errno()))
        """,
        OK,
        says="not permitted",
    ),
    attack(
        "pages of files moved into pipes",
        """
        import os
        open("a", "wb").write(bytes(1 << 20))
        r, w = os.pipe()
        os.splice(os.open("a", os.O_RDONLY), w, 4096, offset_src=0)
        print("ESCAPED")
        """,
        ERROR,
        says="not permitted",
    ),
    attack(
        "pages of files sent",
        "import os; r, w = os.pipe(); os.sendfile(w, os.open(os.__file__, os.O_RDONLY), 0, 4096); print('ESCAPED')",
        ERROR,
        says="not permitted",
    ),
    attack(
        "a million locks on one file",
        """
        import fcntl
        with open("a", "wb") as file:
            for place in range(0, 200_000, 2): fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        print("none was taken")
        """,
        OK,
        says="none was taken",
    ),
    attack(
        "watches on files",
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        print("ESCAPED" if libc.inotify_init1(0) != -1 else "refused")
        """,
        OK,
        says="refused",
    ),
    attack(
        "timers that the kernel holds",
        """
        import ctypes
        libc, timer, count = ctypes.CDLL(None), ctypes.c_void_p(), 0
        while libc.timer_create(0, None, ctypes.byref(timer)) == 0: count += 1
        print("few" if count < 1000 else f"ESCAPED {count}")
        """,
        OK,
        says="few",
    ),
    attack(
        "message queues",
        "import ctypes; print('ESCAPED' if ctypes.CDLL(None).msgget(0, 0o1666) != -1 else 'refused')",
        OK,
        says="refused",
    ),
    attack(
        "deleted files held open",
        """
        import os
        kept = []
        while True:
            kept.append(open("a", "wb", buffering=0)); kept[-1].write(bytes(1 << 20)); os.remove("a")
        """,
        ERROR,
        says="No space left",
    ),
    attack(
        "extended attributes",
        """
        import os
        open("a", "w")
        for i in range(10**5): os.setxattr("a", f"user.{i}", bytes(60000))
        print("ESCAPED")
        """,
        ERROR,
    ),
    attack(
        "memory locked in place",
        """
        import ctypes, mmap
        memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        print("ESCAPED" if ctypes.CDLL(None).mlock(ctypes.c_void_p(address), 1 << 20) == 0 else "refused")
        """,
        OK,
        says="refused",
    ),
    attack(
        "address space reserved, not used",
        """
        import mmap
        kept = []
        while True: kept.append(mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        """,
        ERROR,
        says="Cannot allocate memory",
    ),
    attack(
        "memory, piece by piece in every process",
        """
        import os, time
        for _ in range(12):
            if os.fork() == 0:
                kept = []
                while True: kept.append(bytearray(b"x" * 100_000))
        time.sleep(60)
        """,
        MEMORY,
    ),
    attack(
        "memory behind many threads",
        """
        import threading, time
        kept = []
        def work():
            while True: kept.append(b"x" * 100_000)
        for _ in range(8): threading.Thread(target=work, daemon=True).start()
        time.sleep(60)
        """,
        *(MEMORY, OK, ERROR),
        limits=BRIEF,
    ),
]

_SPIN = """
def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
"""

TIME = [
    attack(
        "children whose death is ignored",
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nprint('ESCAPED')",
        ERROR,
        says="not permitted",
    ),
    attack(
        "children whose death is ignored, by the kernel's own call",
        """
        import ctypes, struct
        libc = ctypes.CDLL(None, use_errno=True)
        action = ctypes.create_string_buffer(struct.pack("=QQQQ", 1, 2, 0, 0))
        print("ESCAPED" if libc.syscall(@SIGACTION@, 17, action, None, 8) != -1 else "refused")
        print("ESCAPED" if libc.sigaction(17, action, None) != -1 else "refused")
        """,
        OK,
        says="refused",
    ),
    attack(
        "processor time of children, in relays",
        "import os, time\n" + _SPIN + "while True:\n    if os.fork() == 0: spin(0.1); os._exit(0)\n    os.wait()",
        CPU,
        limits=FRUGAL,
    ),
    attack(
        "processor time of orphans",
        "import os, time\n"
        + _SPIN
        + "while True:\n    if os.fork() == 0:\n        if os.fork() == 0: spin(0.1)\n        os._exit(0)\n"
        + "    os.wait()",
        *(CPU, PROCESSES, ERROR),
        limits=FRUGAL,
    ),
    attack(
        "processor time of children in sessions of their own",
        "import os, time\n"
        + _SPIN
        + "for _ in range(4):\n    if os.fork() == 0: os.setsid(); spin(60)\ntime.sleep(60)",
        CPU,
        limits=FRUGAL,
    ),
    attack(
        "processor time of threads",
        "import threading, time\n"
        "def spin():\n    while True: sum(range(1000))\n"
        "for _ in range(4): threading.Thread(target=spin, daemon=True).start()\ntime.sleep(60)",
        CPU,
        limits=FRUGAL,
    ),
    attack(
        "a chain of processes, each started by the last",
        "import os, time\n" + _SPIN + "while True:\n    spin(0.05)\n    if os.fork(): os._exit(0)",
        OK,  # the program is over once its own process is, and its offspring with it
    ),
    attack(
        "deaf to the end of its processor time",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        CPU,
        limits=FRUGAL,
    ),
    attack("time in the kernel", "import os\nwhile True: os.stat('/')", CPU, limits=FRUGAL),
    attack("waiting for nothing", "import select; select.poll().poll()", TIMEOUT, limits=BRIEF),
    attack(
        "a lock never let go", "import threading; l = threading.Lock(); l.acquire(); l.acquire()", TIMEOUT, limits=BRIEF
    ),
    attack(
        "stopping its parent", "import os, signal; os.kill(1, signal.SIGSTOP); print('went on')", OK, says="went on"
    ),
    attack(
        "higher priority",
        "import os\ntry: os.nice(-10); print('ESCAPED')\nexcept OSError: print('refused')",
        OK,
        says="refused",
    ),
    attack(
        "real-time priority",
        "import os\ntry: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)); print('ESCAPED')\n"
        "except OSError: print('refused')",
        OK,
        says="refused",
    ),
]

BORDER = [
    attack("sparing itself where memory runs out", "open('/proc/self/oom_score_adj', 'w').write('-1000')", ERROR),
    attack(
        "a cgroup of its own",
        "import os; os.listdir('/sys/fs/cgroup'); print('ESCAPED')",
        ERROR,
        says="No such file",
    ),
    attack(
        "the channel's far end", "import os; os.read(3, 10); os.write(3, b'x' * 10); print('wrote nothing')", OK, ERROR
    ),
    attack(
        "descriptors by number",
        "import os\nfor fd in range(4, 64):\n    try: os.dup(fd); print('ESCAPED')\n    except OSError: pass",
        OK,
    ),
    attack(
        "modules of the machinery",
        "import sys; print('ESCAPED' if [n for n in sys.modules if n.startswith('rlpost')] else 'none')",
        OK,
        says="none",
    ),
    attack(
        "output through the reports of others",
        """
        import os
        for fd in range(3, 1024):
            try: os.write(fd, b'{"reason": "ok", "out": 0, "err": 0}\\n')
            except OSError: pass
        os._exit(3)
        """,
        ERROR,
    ),
    attack("a name for the host", "import socket; socket.sethostname('x'); print('ESCAPED')", ERROR),
    attack("the clock", "import time; time.clock_settime(0, 0); print('ESCAPED')", ERROR, says="not permitted"),
    attack(
        "set-user-id",
        "import os; open('s', 'w'); os.chmod('s', 0o4755); os.execv('/tmp/s', ['s'])",
        ERROR,
        says="not permitted",
    ),
    attack("hard links out of its folder", "import os; os.link(os.__file__, '/tmp/l'); print('ESCAPED')", ERROR),
    attack(
        "names of folders that never end",
        "import os\nfor _ in range(10**5):\n    os.mkdir('d' * 200); os.chdir('d' * 200)",
        ERROR,
    ),
    attack(
        "libraries of its own",
        """
        import ctypes
        open("l.so", "wb").write(b"\\x7fELF" + bytes(60))
        ctypes.CDLL("/tmp/l.so")
        print("ESCAPED")
        """,
        ERROR,
    ),
    attack(
        "executable pages of a file",
        """
        import mmap, os
        open("c", "wb").write(bytes(4096))
        mmap.mmap(os.open("c", os.O_RDONLY), 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
        print("ESCAPED")
        """,
        ERROR,
        says="not permitted",
    ),
]

HONEST = [
    attack(
        "honest: copying files",
        "import shutil; open('a', 'w').write('y'); shutil.copyfile('a', 'b'); print(open('b').read())",
        OK,
        says="y",
    ),
    attack(
        "honest: a database shared by two processes",
        """
        import os, sqlite3
        db = sqlite3.connect("d"); db.execute("create table t (x)"); db.commit()
        if os.fork() == 0:
            with sqlite3.connect("d") as other: other.execute("insert into t values (7)")
            os._exit(0)
        os.wait(); print(db.execute("select * from t").fetchall())
        """,
        OK,
        says="[(7,)]",
    ),
    attack(
        "honest: event loops with threads",
        """
        import asyncio
        async def f(): return await asyncio.gather(*(asyncio.to_thread(abs, -i) for i in range(4)))
        print(asyncio.run(f()))
        """,
        OK,
        says="[0, 1, 2, 3]",
    ),
    attack(
        "honest: processes that talk",
        """
        import multiprocessing as m
        def work(queue, pipe): queue.put(pipe.recv() + 1)
        if __name__ == "__main__":
            queue, (near, far) = m.Queue(), m.Pipe()
            p = m.Process(target=work, args=(queue, far)); p.start(); near.send(41); print(queue.get()); p.join()
        """,
        OK,
        says="42",
    ),
]

KERNEL = [*BUFFERS, *TIME, *BORDER, *HONEST]
