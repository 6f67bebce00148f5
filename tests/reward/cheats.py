"""Programs that want to pass tests without doing what is asked: ``square_plus(x)`` must be ``x * x + 7``.

Each is a way that works against checkers which run program and tests in one interpreter, or nearly did. None may pass.
"""

from __future__ import annotations

import textwrap

TESTS = """
def check(candidate):
    assert candidate(2) == 11
    assert candidate(5) == 32
    assert abs(candidate(0.5) - 7.25) < 1e-9
    assert candidate(0) in (7,)
    assert sorted([candidate(1), candidate(3)]) == [8, 16]

check(square_plus)
"""

_CHEATS = {
    "leaves with 0 at once": "import os; os._exit(0)",
    "leaves politely at once": "import sys; sys.exit(0)",
    "leaves with 0 in a test": "import os\ndef square_plus(x): os._exit(0)",
    "leaves politely in a test": "import sys\ndef square_plus(x): sys.exit(0)",
    "raises SystemExit in a test": "def square_plus(x): raise SystemExit(0)",
    "raises a KeyboardInterrupt": "def square_plus(x): raise KeyboardInterrupt",
    "raises a GeneratorExit": "def square_plus(x): raise GeneratorExit",
    "leaves at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef square_plus(x): return x",
    "leaves from a thread": """
        import os, threading, time
        threading.Thread(target=lambda: (time.sleep(0.05), os._exit(0))).start()
        def square_plus(x): time.sleep(5)
        """,
    "equal to all": """
        class Yes:
            def __eq__(self, other): return True
            def __sub__(self, other): return 0
            def __rsub__(self, other): return 0
            def __lt__(self, other): return True
            def __abs__(self): return 0.0
            def __hash__(self): return 7
        def square_plus(x): return Yes()
        """,
    "a number equal to all": """
        class Yes(float):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __lt__(self, other): return True
            def __abs__(self): return self
            def __sub__(self, other): return self
            __hash__ = float.__hash__
        def square_plus(x): return Yes(0)
        """,
    "a whole number equal to all": """
        class Yes(int):
            def __eq__(self, other): return True
            def __index__(self): return 11
            def __int__(self): return 11
            __hash__ = int.__hash__
        def square_plus(x): return Yes(0)
        """,
    "a text equal to all": """
        class Yes(str):
            def __eq__(self, other): return True
            __hash__ = str.__hash__
        def square_plus(x): return Yes()
        """,
    "lies about its class": """
        class Yes:
            __class__ = int
            def __eq__(self, other): return True
        def square_plus(x): return Yes()
        """,
    "no assertions": """
        import builtins
        builtins.AssertionError = builtins.__dict__["AssertionError"] = type("Nothing", (BaseException,), {})
        def square_plus(x): return x
        """,
    "its own builtins": """
        import builtins
        builtins.abs = lambda x: 0
        builtins.sorted = lambda x: [8, 16]
        abs, sorted = builtins.abs, builtins.sorted
        def square_plus(x): return 11
        """,
    "its own check": "def check(candidate): pass\ndef square_plus(x): return x",
    "the tests on the stack": """
        import sys
        def square_plus(x):
            frame = sys._getframe()
            while frame:
                for name, value in [*frame.f_locals.items(), *frame.f_globals.items()]:
                    if isinstance(value, str) and "ass" + "ert" in value and "== " + "11" in value:
                        return {2: 11, 5: 32, 0.5: 7.25, 0: 7, 1: 8, 3: 16}[x]
                    if name == "candidate": frame.f_locals[name] = None
                frame = frame.f_back
        """,
    "the tests among the objects": """
        import gc, linecache, sys
        needle = ")5(etadidnac"  # backwards, not to find itself
        def square_plus(x):
            for thing in gc.get_objects():
                if isinstance(thing, (dict, list, tuple)) and needle[::-1] in str(thing)[:100000]:
                    return x * x + 7
            if any(needle[::-1] in str(entry) for entry in linecache.cache.values()): return x * x + 7
        """,
    "the tests in files": """
        import os
        def square_plus(x):
            for folder, _, names in os.walk("/"):
                if "test" in folder.lower(): continue
                for name in names:
                    try: text = open(os.path.join(folder, name)).read(10000)
                    except Exception: continue
                    if "candi" + "date(5)" in text: return x * x + 7
                if folder.count("/") > 3: break
        """,
    "a tracer": """
        import sys
        def trace(frame, event, arg):
            for name in list(frame.f_locals): pass
            return trace
        sys.settrace(trace)
        def square_plus(x): return x
        """,
    "forged replies": """
        import __main__
        def square_plus(x):
            for value in (True, 11, {"builtin": "True"}, {"remote": [0, "int"]}):
                __main__.call("reply", value=value, changed={})
        """,
    "a forged passing": """
        import __main__
        __main__.call("reply", passed=True, reason="ok", value=None, changed={})
        def square_plus(x):
            __main__.call("done", reason="ok", value=11, changed={})
            return 11
        """,
    "garbage on the channel": """
        import os
        for fd in range(3, 10):
            try: os.write(fd, bytes(64))
            except OSError: pass
        """,
    "a forged result on the channel": """
        import json, os, struct
        body = json.dumps({"done": {"reason": "ok", "stdout": "", "stderr": "", "exit_code": 0}}).encode()
        def square_plus(x):
            os.write(3, struct.pack("!I", len(body)) + body)
            os.write(3, struct.pack("!I", len(body)) + body)
        """,
    "malformed values": """
        import __main__, json
        def square_plus(x):
            __main__.call("reply", value={"tuple": 3}, changed={"99": 1})
            raise SystemExit
        """,
    "broken machinery": """
        import sys
        machinery = sys.modules["rlpost.reward.code.candidate"]
        machinery.values.encode = lambda value, other: {"float": "nan"}
        machinery._stay = lambda value: {"remote": [0, "int"]}
        def square_plus(x): return 11
        """,
    "a module for a number": "import math\ndef square_plus(x): return math",
    "not a number": "def square_plus(x): return float('nan')",
    "a property that changes": """
        class Guess:
            tries = iter([11, 32, 7.25, 7, 8, 16])
            def __bool__(self): return True
            def __len__(self): return 11
        def square_plus(x): return Guess()
        """,
    "changed arguments": "def square_plus(x):\n    x = 11\n    return None",
    "only the first": "def square_plus(x): return 11",
    "nothing": "",
    "no such function": "def square(x): return x * x + 7",
    "not a function": "square_plus = 11",
    "bad syntax": "def square_plus(x) return x * x + 7",
    "an endless loop": "while True: pass",
    "an endless loop in a test": "def square_plus(x):\n    while True: pass",
    "an endless loop that will not end": """
        def square_plus(x):
            while True:
                try: square_plus(x)
                except BaseException: pass
        """,
    "memory in a test": "def square_plus(x): return bytearray(10**11)",
    "endless output in a test": "def square_plus(x):\n    while True: print('x' * 1000)",
    "an endless result": """
        import itertools
        def square_plus(x): return itertools.count()
        """,
    "a result that holds itself": "def square_plus(x):\n    a = []\n    a.append(a)\n    return a",
    "an endlessly long result": "def square_plus(x): return [0] * (1 << 24)",
    "asking for the answer": "def square_plus(x): return int(input())",
    "a daemon": """
        import os, time
        if os.fork() == 0: time.sleep(600)
        def square_plus(x): return x
        """,
    "stopping its parent": """
        import os, signal
        for pid in (os.getppid(), 1, -1, 0):
            try: os.kill(pid, signal.SIGKILL)
            except OSError: pass
        """,
}
CHEATS = {name: textwrap.dedent(program).strip("\n") for name, program in _CHEATS.items()}
