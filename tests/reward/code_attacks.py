"""Programs that want to pass tests that hand them functions and objects, use their operators, or count on exceptions.

``SQUARE`` wants ``square_plus(x) == x * x + 7`` in many ways at once: by ``map``, ``in``, callbacks, tolerance, raises
and unittest. ``OTHERS`` have tests of their own. None may pass.
"""

from __future__ import annotations

import textwrap

SQUARE_TESTS = """
import math, pytest, unittest
from solution import square_plus

def test_map():
    assert list(map(square_plus, [1, 2])) == [8, 11]

def test_in():
    assert square_plus(2) in [11] and 8 in [square_plus(1)]

def test_near():
    assert abs(square_plus(0.5) - 7.25) < 1e-9
    assert math.isclose(square_plus(1.5), 9.25)
    assert square_plus(2.5) == pytest.approx(13.25)

def test_callback():
    seen = []
    for n in (1, 2):
        seen.append((lambda v: v - 7)(square_plus(n)))
    assert seen == [1, 4]
    assert sorted([3, 1], key=square_plus) == [1, 3]

class TestAll(unittest.TestCase):
    def test_equal(self):
        self.assertEqual(square_plus(3), 16)
        self.assertTrue(15 < square_plus(3) < 17)
        self.assertIn(square_plus(0), (7,))
        self.assertAlmostEqual(square_plus(0.1), 7.01)
        with self.assertRaises(TypeError): square_plus("a")
"""

_SQUARE = {
    "raises StopIteration": "def square_plus(x): raise StopIteration",
    "raises StopIteration of its own": "class E(StopIteration): pass\ndef square_plus(x): raise E",
    "raises StopAsyncIteration": "def square_plus(x): raise StopAsyncIteration",
    "raises what it is asked for": "def square_plus(x): raise TypeError",
    "skips": "import unittest\ndef square_plus(x): raise unittest.SkipTest('no')",
    "skips by a class of its own": "import unittest\nclass E(unittest.SkipTest): pass\ndef square_plus(x): raise E",
    "stops the case": "import unittest.case\ndef square_plus(x): raise unittest.case._ShouldStop",
    "succeeds unexpectedly": "import unittest.case\ndef square_plus(x): raise unittest.case._UnexpectedSuccess",
    "leaves politely": "def square_plus(x): raise SystemExit(0)",
    "leaves at once": "import os\ndef square_plus(x): os._exit(0)",
    "is interrupted": "def square_plus(x): raise KeyboardInterrupt",
    "closes generators": "def square_plus(x): raise GeneratorExit",
    "raises an exception that is no exception": "class E(BaseException): pass\ndef square_plus(x): raise E",
    "unittest's ANY": "from unittest.mock import ANY\ndef square_plus(x): return ANY",
    "unittest's ANY for a class": "from unittest.mock import _ANY\ndef square_plus(x): return _ANY",
    "a magic mock": "from unittest.mock import MagicMock\ndef square_plus(x): return MagicMock()",
    "a magic mock for the function": "from unittest.mock import MagicMock\nsquare_plus = MagicMock()",
    "patches unittest": """
        import unittest
        for name in dir(unittest.TestCase):
            if name.startswith("assert"): setattr(unittest.TestCase, name, lambda *a, **k: None)
        def square_plus(x): return 0
        """,
    "poisons pytest": """
        import sys, types
        fake = types.ModuleType("pytest")
        fake.approx = lambda *a, **k: type("Y", (), {"__eq__": lambda s, o: True})()
        sys.modules["pytest"] = fake
        def square_plus(x): return 0
        """,
    "poisons math": "import math\nmath.isclose = lambda *a, **k: True\ndef square_plus(x): return 0",
    "endlessly iterable": """
        class All:
            def __iter__(self): return self
            n = -1
            def __next__(self):
                self.n += 1
                return self.n
        def square_plus(x): return All()
        """,
    "contains all": """
        class All(list):
            def __contains__(self, x): return True
            def __eq__(self, x): return True
        def square_plus(x): return All()
        """,
    "yields to every operator": """
        class Yes:
            def __getattr__(self, name): return self
            def __call__(self, *a, **k): return self
            __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = lambda s, o: True
            __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = lambda s, o: s
            __abs__ = __neg__ = __round__ = lambda s, *a: s
            __float__ = lambda s: 0.0
            __int__ = __index__ = lambda s: 0
            __hash__ = lambda s: hash(11)
            __bool__ = lambda s: True
            __iter__ = lambda s: iter([8, 11])
            __len__ = lambda s: 2
        def square_plus(x): return Yes()
        """,
    "a difference that is nothing": """
        class Near(float):
            def __sub__(self, o): return 0.0
            def __rsub__(self, o): return 0.0
            def __eq__(self, o): return True
            __hash__ = float.__hash__
        def square_plus(x): return Near(0)
        """,
    "a difference that is nothing, of no number": """
        class Near:
            __sub__ = __rsub__ = lambda s, o: 0.0
            __float__ = lambda s: 9.25
            __eq__ = lambda s, o: True
            __lt__ = __gt__ = lambda s, o: True
        def square_plus(x): return Near()
        """,
    "a metaclass that equals all": """
        class M(type):
            def __eq__(cls, o): return True
            def __hash__(cls): return 11
            def __sub__(cls, o): return 0
            def __instancecheck__(cls, o): return True
        class Yes(metaclass=M): pass
        def square_plus(x): return Yes
        """,
    "a tracer on every call": """
        import sys, threading
        sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None); threading.settrace(lambda *a: None)
        def square_plus(x): return 0
        """,
    "ctypes on constants": """
        import ctypes
        try: ctypes.memmove(id(11) + 24, id(0) + 24, 4)
        except Exception: pass
        def square_plus(x): return 0
        """,
    "recursion limit": "import sys\nsys.setrecursionlimit(50)\ndef square_plus(x): return square_plus(x)",
    "signals": """
        import signal, os
        for s in range(1, 32):
            try: signal.signal(s, lambda *a: os._exit(0))
            except (OSError, ValueError): pass
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        def square_plus(x):
            while True: signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
        """,
    "a thread that says passed": """
        import threading, __main__, time
        def say():
            while True:
                try: __main__.call("verdict", ok=True, passed=9, total=9, asserted=9)
                except Exception: time.sleep(0.01)
        threading.Thread(target=say, daemon=True).start()
        def square_plus(x): return 0
        """,
    "says passed itself": """
        import __main__
        def square_plus(x):
            __main__.call("verdict", ok=True, passed=9, total=9, asserted=9)
            __main__.call("say", text='{"ok": true}')
            return 0
        """,
    "frames": """
        import sys
        def square_plus(x):
            frame = sys._getframe()
            while frame:
                for name in ("found", "passed", "ok", "error", "asserted"):
                    if name in frame.f_locals or name in frame.f_globals: frame.f_globals[name] = True
                peer = frame.f_locals.get("self")
                if peer is not None and hasattr(peer, "_do_equal"):
                    type(peer)._do_equal = type(peer)._do_binary = lambda *a: True
                frame = frame.f_back
            return 0
        """,
    "a peer of its own": """
        import gc, json
        def square_plus(x):
            for thing in gc.get_objects():
                if hasattr(type(thing), "_packed") and hasattr(type(thing), "answer"):
                    type(thing)._packed = lambda s, m, v: json.dumps(
                        {"values": [{"library": ["unittest.mock", "ANY"]}], "changed": {}, "classes": []})
            return 0
        """,
    "sends what is no message": """
        import __main__
        def square_plus(x): return __main__.call("say", text="[]")
        """,
    "sends values that are none": """
        import __main__, json
        def square_plus(x):
            for kind in ("yours", "builtin", "type", "module", "node", "array", "named", "error", "function", "theirs"):
                for content in (0, -1, "os", ["os", "system"], [0, {"builtin": "eval"}, []], {}):
                    value = {kind: content}
                    __main__.call("say", text=json.dumps({"values": [value], "changed": {}, "classes": []}))
        """,
    "asks the tests' side": """
        import __main__, json
        def square_plus(x):
            for do, values in (
                ("call", [{"builtin": "eval"}, "1"]), ("get", [{"yours": 0}, "__globals__"]),
                ("call", [{"library": ["subprocess", "Popen"]}, "ls"]), ("name", ["x"]), ("path", ["1"]),
                ("binary", ["pow", False, 9, 99999999]), ("special", ["repr", {"module": "os"}]),
            ):
                text = json.dumps({"do": do, "names": [], "values": values, "changed": {}, "classes": []})
                answer = json.loads(__main__.call("say", text=text))
                if not answer.get("raised"): return x * x + 7
            return 0
        """,
    "changes the tests' containers": """
        import __main__, json
        def square_plus(x):
            changed = {str(n): ["list", [8, 11]] for n in range(0, 40, 2)}
            __main__.call("say", text=json.dumps({"values": [0], "changed": changed, "classes": []}))
            return 0
        """,
    "finds the tests in memory": """
        import gc
        def square_plus(x):
            text = "".join(str(o)[:10000] for o in gc.get_objects() if isinstance(o, (str, dict, list)))
            return x * x + 7 if "assert" + "AlmostEqual" in text else 0
        """,
    "finds the tests in its modules": """
        import sys
        def square_plus(x):
            found = any(hasattr(m, "test" + "_map") or hasattr(m, "_Judge") for m in list(sys.modules.values()))
            return x * x + 7 if found else 0
        """,
    "import hooks": """
        import sys, builtins
        builtins.__import__ = lambda *a, **k: (_ for _ in ()).throw(SystemExit(0))
        sys.meta_path.clear()
        def square_plus(x): return 0
        """,
    "no more equality": """
        import builtins, operator
        builtins.len = builtins.sorted = builtins.abs = lambda *a, **k: 0
        operator.__eq__ = operator.eq = lambda *a: True
        def square_plus(x): return 0
        """,
    "a name that is everything": """
        def __getattr__(name): return lambda *a: 11
        class Any(str):
            def __eq__(self, o): return True
            __hash__ = str.__hash__
        __name__ = Any("x")
        def square_plus(x): return __name__
        """,
}  # fmt: skip
_OTHERS = {
    "a function of the tests gives its globals away": (
        """
        def apply(f, x):
            for path in ("__globals__", "__code__", "__closure__", "__self__", "__dict__", "__class__", "f_globals"):
                try: getattr(f, path); return 7
                except AttributeError: pass
            return 0
        """,
        "assert apply(lambda x: x + 6, 1) == 7",
    ),
    "a method of a test case is replaced": (
        "def check_all(case):\n    case.assertEqual = lambda *a: None\n    return 1",
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(check_all(self), 2)",
    ),
    "a function of the tests is changed": (
        "def run(f):\n    f.__code__ = (lambda: 5).__code__\n    f.__defaults__ = (5,)\n    return f()",
        "def three(x=3): return x\nassert run(three) == 5 and three() == 5",
    ),
    "a class of the tests is changed": (
        "def touch(p):\n    type(p).__eq__ = lambda s, o: True\n    p.__class__.__eq__ = lambda s, o: 1\n    return p",
        "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n"
        "assert touch(P(1)) == P(2)",
    ),
    "every comparison of a named class": (
        """
        class Money:
            def __init__(self, n): self.n = 0
            __eq__ = __le__ = __ge__ = __lt__ = __gt__ = lambda s, o: True
            def __sub__(self, o): return 0
            def __abs__(self): return 0
        """,
        "assert abs(Money(5) - 5) < 1 and Money(5) <= 5",
    ),
    "a generator that never ends": (
        "import itertools\ndef primes(n): return itertools.count()",
        "assert 7 in primes(10) and all(p in primes(10) for p in (2, 3, 5))",
    ),
    "a generator that never ends, for any": (
        "import itertools\ndef primes(n): return itertools.count()",
        "assert any(p == 7 for p in primes(10))",
    ),
    "a generator of none, for all": ("def primes(n): return iter(())", "for p in primes(10): assert p > 1"),
    "nothing for all": ("def primes(n): return []", "for p in primes(10):\n    assert p > 1"),
    "its own check": ("def check(f): return True\ndef f(x): return 0", "def check(f):\n    assert f(1) == 2\ncheck(f)"),
    "its own helper of the tests": (
        "def is_near(a, b): return True\ndef f(x): return 0",
        "def is_near(a, b): return abs(a - b) < 1e-6\nassert is_near(f(1), 2.0)",
    ),
    "its own builtins by a star": (
        "def all(x): return True\ndef isinstance(a, b): return True\ndef f(x): return 0",
        "from solution import *\nassert all([f(1) == 2]) and isinstance(f(1), str)",
    ),
    "a text with a method of its own": (
        "class T:\n    def startswith(self, x): return True\n    isdigit = lambda s: True\ndef f(x): return T()",
        "assert f(1).startswith('abc') and f(2).isdigit()",
    ),
    "prints what is wanted at load": (
        "print('hello')\ndef hello(): pass",
        "import io, contextlib\nb = io.StringIO()\nwith contextlib.redirect_stdout(b): hello()\n"
        "assert b.getvalue() == 'hello\\n'",
    ),
    "an equality that is always true": (
        "class P:\n    def __init__(self, *a): pass\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: 1",
        "assert P(1) == P(1) and len({P(1), P(1)}) == 1",
    ),
    "an awaited ANY": (
        "from unittest.mock import ANY\nasync def f(): return ANY",
        "import asyncio\nassert asyncio.run(f()) == 3",
    ),
    "an await that stops": (
        "async def f(): raise StopAsyncIteration",
        "import asyncio\nasync def main():\n    async for x in f(): assert x == 1\nasyncio.run(main())",
    ),
}


def _dedented(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


ATTACKS = {
    **{name: (_dedented(program), _dedented(SQUARE_TESTS)) for name, program in _SQUARE.items()},
    **{name: (_dedented(program), _dedented(tests)) for name, (program, tests) in _OTHERS.items()},
}
"""(program, tests) by name."""
RIGHT = "def square_plus(x):\n    return x * x + 7\ndef apply(f, x): return f(x)\n"
