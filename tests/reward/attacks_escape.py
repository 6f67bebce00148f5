"""Programs that reach for the network, the host's files, more rights, a longer life; and honest ones that must pass."""

from __future__ import annotations

from rlpost.reward.sandbox import Reason
from tests.reward.attack import BRIEF, attack

OK, ERROR, TIMEOUT = Reason.OK, Reason.ERROR, Reason.TIMEOUT

NETWORK = [
    attack("connection", "import socket; socket.create_connection(('127.0.0.1', @PORT@), 5); print('ESCAPED')", ERROR),
    attack("listening", "import socket; socket.socket().bind(('', 0)); print('ESCAPED')", ERROR, says="not permitted"),
    attack(
        "datagram", "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', @PORT@)); print('ESCAPED')", ERROR
    ),
    attack("unix socket", "import socket; socket.socket(socket.AF_UNIX).bind('s'); print('ESCAPED')", ERROR),
    attack("netlink", "import socket; socket.socket(16, 3, 0); print('ESCAPED')", ERROR, says="not permitted"),
    attack("name lookup", "import socket; print('ESCAPED', socket.getaddrinfo('example.org', 80))", ERROR),
    attack(
        "url",
        "import urllib.request as u; print('ESCAPED', u.urlopen('http://127.0.0.1:@PORT@/', timeout=5))",
        ERROR,
    ),
]

FILES = [
    attack("secret file", "print('ESCAPED', open('@SECRET@').read())", ERROR, says="No such file"),
    attack("password file", "print('ESCAPED', open('/etc/passwd').read())", ERROR, says="No such file"),
    attack("environment", "import os; print(dict(os.environ))", OK),
    attack("environment in /proc", "print('ESCAPED', open('/proc/self/environ').read())", ERROR, says="No such file"),
    attack("memory of init", "print('ESCAPED', open('/proc/1/mem', 'rb'))", ERROR, says="No such file"),
    attack("symlink", "import os; os.symlink('@SECRET@', 'l'); print('ESCAPED', open('l').read())", ERROR),
    attack(
        "climbing by descriptors",
        """
        import os
        d = os.open("/", os.O_RDONLY)
        for _ in range(50): d = os.open("..", os.O_RDONLY, dir_fd=d)
        names = set(os.listdir(d))
        print("ESCAPED" if names & {"etc", "proc", "home", "sys"} else names)
        """,
        OK,
    ),
    attack("chroot", "import os; os.mkdir('j'); os.chroot('j'); print('ESCAPED')", ERROR, says="not permitted"),
    attack("writing at the root", "open('/x', 'w'); print('ESCAPED')", ERROR, says="Read-only"),
    attack("writing outside", "open('@FOLDER@/x', 'w'); print('ESCAPED')", ERROR, says="No such file"),
    attack("changing the library", "import json; open(json.__file__, 'a'); print('ESCAPED')", ERROR),
    attack("deleting the library", "import json, os; os.remove(json.__file__); print('ESCAPED')", ERROR),
    attack("the host's packages", "import numpy; print('ESCAPED')", ERROR, says="ModuleNotFoundError"),
    attack(
        "the sandbox's own code", "import rlpost.reward.sandbox; print('ESCAPED')", ERROR, says="ModuleNotFoundError"
    ),
    attack(
        "device node",
        "import os, stat; os.mknod('d', stat.S_IFBLK | 0o666, os.makedev(254, 0)); print('ESCAPED')",
        ERROR,
    ),
    attack(
        "devices",
        "import os; print('ESCAPED' if set(os.listdir('/dev')) - {*'null urandom random shm'.split()} else 'few')",
        OK,
        says="few",
    ),
    attack(
        "inherited descriptors",
        """
        import os
        for fd in range(3, 5000):
            try: os.fstat(fd); print("ESCAPED", fd)
            except OSError: pass
        """,
        OK,
    ),
    attack(
        "secrets on the stack",
        """
        import sys
        frame = sys._getframe()
        while frame:
            print(frame.f_locals.keys(), frame.f_globals.get("SECRET"))
            frame = frame.f_back
        """,
        OK,
    ),
    attack(
        "secrets among the objects",
        """
        import gc
        for o in gc.get_objects():
            if isinstance(o, dict) and "SANDBOX_TEST_SECRET" in map(str, o): print("ESCAPED", o)
        """,
        OK,
    ),
]

RIGHTS = [
    attack("becoming root", "import os; os.setuid(0); print('ESCAPED')", ERROR),
    attack("starting a shell", "import subprocess; print('ESCAPED', subprocess.run(['/bin/sh', '-c', 'id']))", ERROR),
    attack(
        "starting a shell by name",
        "import os; print('ESCAPED' if os.system('true') == 0 else 'refused')",
        OK,
        says="refused",
    ),
    attack(
        "running a file it wrote",
        """
        import os
        open("b", "wb").write(b"#!/tmp/b"); os.chmod("b", 0o755)
        os.execv("/tmp/b", ["b"])
        """,
        ERROR,
        says="not permitted",
    ),
    attack(
        "pickle",
        """
        import os, pickle
        class Poison:
            def __reduce__(self): return os.execv, ("/bin/sh", ["sh"])
        pickle.loads(pickle.dumps(Poison()))
        """,
        ERROR,
        says="not permitted",
    ),
    attack(
        "signal to init", "import os, signal; os.kill(1, signal.SIGKILL); print('still here')", OK, says="still here"
    ),
    attack("signal to the parent", "import os; os.kill(os.getppid(), 15); print('still here')", OK, says="still here"),
    attack("signal to the host", "import os; os.kill(@PID@, 9); print('ESCAPED')", ERROR, says="No such process"),
    attack("signal to its group", "import os; os.kill(0, 9)", Reason.KILLED),
    attack(
        "signal to its parent's group",
        "import os; os.killpg(os.getpgid(1), 9); print('still here')",
        OK,
        ERROR,
        Reason.KILLED,
    ),
    attack("signal to everybody", "import os; os.kill(-1, 9); print('still here')", OK, ERROR, Reason.KILLED),
    attack(
        "forbidden calls, by name",
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        for name in "mount umount2 unshare setns chroot personality memfd_create shmget semget pivot_root".split():
            result = getattr(libc, name)(*[ctypes.c_long(1)] * 6)
            print("ESCAPED " + name if result != -1 or ctypes.get_errno() not in (1, 38) else "refused")
        """,
        OK,
        says="refused",
    ),
    attack(
        "forbidden calls, by number",
        """
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        for number in @CALLS@:
            result = libc.syscall(number, 0, 0, 0, 0, 0, 0)
            print("refused" if result == -1 and ctypes.get_errno() in (1, 38) else f"ESCAPED {number}")
        """,
        OK,
        says="refused",
    ),
]

LIVING_ON = [
    attack(
        "daemon thread",
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        OK,
    ),
    attack(
        "thread that stays",
        "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
        TIMEOUT,
        limits=BRIEF,
    ),
    attack(
        "daemon process",
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3): os.close(fd)
                time.sleep(600)
            os._exit(0)
        os.wait()
        """,
        OK,
    ),
    attack("exit handler that stays", "import atexit, time; atexit.register(time.sleep, 600)", TIMEOUT, limits=BRIEF),
    attack("leaving at once", "import os; os._exit(0); print('ESCAPED')", OK),
    attack("leaving politely", "import sys; sys.exit(0); print('ESCAPED')", OK),
    attack("leaving with a message", "import sys; sys.exit('good bye')", ERROR, says="good bye"),
    attack("raising what is no Exception", "raise KeyboardInterrupt", ERROR, says="KeyboardInterrupt"),
    attack(
        "an exception that cannot be shown",
        """
        class E(Exception):
            def __str__(self): raise E
        raise E
        """,
        ERROR,
    ),
    attack(
        "forging the verdict",
        """
        import os
        for fd in range(3, 200):
            try: os.write(fd, b"0"); print("ESCAPED", fd)
            except OSError: pass
        os._exit(9)
        """,
        ERROR,
    ),
    attack(
        "breaking the builtins",
        "import builtins\nfor name in list(vars(builtins)): vars(builtins).pop(name)",
        *(OK, ERROR),
    ),
    attack(
        "breaking the exit",
        "import os, threading\nos._exit = threading._shutdown = lambda *a: None\n1 / 0",
        ERROR,
        says="ZeroDivision",
    ),
]

HONEST = [
    attack(
        "honest: asyncio",
        "import asyncio\nasync def f(): return 7\nprint(asyncio.run(f()))",
        OK,
        says="7",
    ),
    attack(
        "honest: processes",
        """
        import multiprocessing as m
        if __name__ == "__main__":
            with m.Pool(2) as pool: print(pool.map(abs, [-1, -2]))
        """,
        OK,
        says="[1, 2]",
    ),
    attack(
        "honest: threads",
        "from concurrent.futures import *\nprint(list(ThreadPoolExecutor(4).map(abs, [-3])))",
        OK,
        says="[3]",
    ),
    attack("honest: files", "open('a.txt', 'w').write('x'); print(open('/tmp/a.txt').read())", OK, says="x"),
    attack("honest: its own module", "open('mine.py', 'w').write('y = 5'); import mine; print(mine.y)", OK, says="5"),
    attack(
        "honest: sqlite", "import sqlite3; print(sqlite3.connect('d').execute('select 6*7').fetchone())", OK, says="42"
    ),
    attack(
        "honest: imports",
        "import decimal, hashlib, lzma, ssl, wave, tomllib; print(decimal.Decimal(1) / 3)",
        OK,
        says="0.333",
    ),
    attack("honest: no output", "x = 1", OK),
]

ESCAPES = [*NETWORK, *FILES, *RIGHTS, *LIVING_ON, *HONEST]
