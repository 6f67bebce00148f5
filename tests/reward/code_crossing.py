"""Tests that use more of a program than plain values: for each kind a right program, the tests, and a wrong program."""

from __future__ import annotations

import textwrap

_KINDS = {
    "a lambda": (
        "def apply(f, x): return f(f(x))",
        "assert apply(lambda x: x + 3, 1) == 7",
        "def apply(f, x): return f(x)",
    ),
    "a lambda as key": (
        "def order(xs, key): return sorted(xs, key=key)",
        "assert order(['bb', 'a', 'ccc'], key=lambda s: -len(s)) == ['ccc', 'bb', 'a']",
        "def order(xs, key): return sorted(xs)",
    ),
    "a function that calls the program": (
        "def twice(f): return lambda x: f(f(x))\ndef inc(x): return x + 1",
        "assert twice(lambda x: inc(x) * 2)(3) == 18",
        "def twice(f): return f\ndef inc(x): return x + 1",
    ),
    "a callback that collects": (
        "def each(xs, f):\n    for x in xs: f(x)",
        "seen = []\neach([1, 2, 3], seen.append)\nassert seen == [1, 2, 3]",
        "def each(xs, f): f(xs[0])",
    ),
    "a callback that raises": (
        "def safe(f):\n    try: return f()\n    except ValueError as error: return str(error)",
        "def bad(): raise ValueError('no')\nassert safe(bad) == 'no'",
        "def safe(f): return None",
    ),
    "an exception of the tests' own": (
        "def retry(f):\n    try: f()\n    except Exception: pass\n    return f()",
        """
        class Boom(Exception): pass
        def bad(): raise Boom(3)
        try: retry(bad)
        except Boom as error: assert error.args == (3,)
        else: assert False
        """,
        "def retry(f): return None",
    ),
    "a decorator": (
        """
        import functools
        def count(f):
            @functools.wraps(f)
            def inner(*a, **k):
                inner.calls += 1
                return f(*a, **k)
            inner.calls = 0
            return inner
        """,
        """
        @count
        def add(a, b=2): return a + b
        assert add(1) == 3 and add(1, b=5) == 6
        assert add.calls == 2 and add.__name__ == 'add'
        """,
        "def count(f):\n    f2 = lambda *a, **k: f(*a, **k)\n    f2.calls = 2\n    return f2",
    ),
    "a class of the program": (
        """
        class Stack:
            def __init__(self): self.items = []
            def push(self, x): self.items.append(x)
            def pop(self): return self.items.pop()
            def __len__(self): return len(self.items)
        """,
        """
        s = Stack()
        s.push(1); s.push([2])
        assert len(s) == 2 and s.items == [1, [2]] and s.pop() == [2] and len(s) == 1
        """,
        "class Stack:\n    items = [1, [2]]\n    def push(self, x): pass\n    def pop(self): return 1\n"
        "    def __len__(self): return 2",
    ),
    "an object of the tests' class": (
        "def depth(node): return 0 if node is None else 1 + max(depth(node.left), depth(node.right))",
        """
        class Node:
            def __init__(self, left=None, right=None): self.left, self.right = left, right
        assert depth(Node(Node(Node()), Node())) == 3
        """,
        "def depth(node): return 0 if node is None else 2",
    ),
    "an object of the tests' class that is changed": (
        "def mark(node):\n    node.seen = True\n    node.items.append(4)\n    return node",
        """
        class Node:
            def __init__(self): self.seen, self.items = False, [1]
        n = Node()
        assert mark(n) is n and n.seen is True and n.items == [1, 4]
        """,
        "def mark(node): return node",
    ),
    "a class of the tests": (
        "def build(kind, *a): return kind(*a)",
        """
        class Point:
            def __init__(self, x): self.x = x
        p = build(Point, 4)
        assert isinstance(p, Point) and p.x == 4
        """,
        "def build(kind, *a): return None",
    ),
    "next": (
        "def squares():\n    n = 0\n    while True:\n        n += 1\n        yield n * n",
        "g = squares()\nassert [next(g), next(g), next(g)] == [1, 4, 9]",
        "def squares():\n    yield from (1, 2, 3)",
    ),
    "next with a default, and its end": (
        "def two(): yield from (1, 2)",
        """
        g = two()
        assert next(g) == 1 and list(g) == [2] and next(g, 'over') == 'over'
        try: next(two.__call__() if False else g)
        except StopIteration: ended = True
        else: ended = False
        assert ended
        """,
        "def two(): yield 1",
    ),
    "a generator that is sent to": (
        "def total():\n    t = 0\n    while True:\n        t += yield t",
        "g = total()\nnext(g)\nassert g.send(3) == 3 and g.send(4) == 7",
        "def total():\n    while True: yield 3",
    ),
    "an iterator class": (
        """
        class Countdown:
            def __init__(self, n): self.n = n
            def __iter__(self): return self
            def __next__(self):
                if self.n == 0: raise StopIteration
                self.n -= 1
                return self.n + 1
        """,
        "assert list(Countdown(3)) == [3, 2, 1]\nassert sum(Countdown(4)) == 10",
        "class Countdown:\n    def __init__(self, n): pass\n    def __iter__(self): return iter([3, 2, 1])",
    ),
    "isinstance": (
        "class Shape: pass\nclass Circle(Shape): pass\ndef make(n): return Circle()",
        "assert isinstance(make('c'), Circle) and isinstance(make('c'), Shape) and issubclass(Circle, Shape)",
        "class Shape: pass\nclass Circle(Shape): pass\ndef make(n): return Shape()",
    ),
    "isinstance of what Python has": (
        "import types\ndef gen():\n    yield 1\ndef f(x): return float(x)",
        "import types, collections.abc as c\nassert isinstance(gen(), types.GeneratorType)\n"
        "assert isinstance(gen(), c.Iterator) and isinstance(f(1), float) and not isinstance(gen(), list)",
        "def gen(): return [1]\ndef f(x): return float(x)",
    ),
    "type and its name": (
        "class A: pass\nclass B(A): pass\ndef f(): return B()",
        "assert type(f()) is B and type(f()).__name__ == 'B' and f().__class__ is B and type(f()) is not A",
        "class A: pass\nclass B(A): pass\ndef f(): return A()",
    ),
    "operators": (
        """
        class Vector:
            def __init__(self, x, y): self.x, self.y = x, y
            def __add__(self, o): return Vector(self.x + o.x, self.y + o.y)
            def __mul__(self, k): return Vector(self.x * k, self.y * k)
            __rmul__ = __mul__
            def __neg__(self): return self * -1
            def __eq__(self, o): return isinstance(o, Vector) and (self.x, self.y) == (o.x, o.y)
            def __hash__(self): return hash((self.x, self.y))
            def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
            def __lt__(self, o): return abs(self) < abs(o)
            def __repr__(self): return f"Vector({self.x}, {self.y})"
        """,
        """
        assert Vector(1, 2) + Vector(3, 4) == Vector(4, 6) and Vector(1, 2) != Vector(2, 1)
        assert 3 * Vector(1, 2) == Vector(3, 6) == Vector(1, 2) * 3 and -Vector(1, 1) == Vector(-1, -1)
        assert abs(Vector(3, 4)) == 5.0 and Vector(0, 1) < Vector(2, 2) and repr(Vector(1, 2)) == 'Vector(1, 2)'
        assert len({Vector(1, 2), Vector(1, 2), Vector(2, 2)}) == 2
        assert sorted([Vector(3, 4), Vector(0, 1)])[0] == Vector(0, 1)
        v = Vector(1, 1)
        v += Vector(1, 1)
        assert v == Vector(2, 2) and Vector(1, 2) != (1, 2)
        """,
        """
        class Vector:
            def __init__(self, x, y): self.x, self.y = x, y
            def __eq__(self, o): return True
            __hash__ = None
            __add__ = __mul__ = __rmul__ = __iadd__ = lambda self, o: self
            def __neg__(self): return self
            def __abs__(self): return 5.0
            def __lt__(self, o): return True
            def __repr__(self): return 'Vector(1, 2)'
        """,
    ),
    "items, containment and length": (
        """
        class Grid:
            def __init__(self): self.d = {}
            def __setitem__(self, k, v): self.d[k] = v
            def __getitem__(self, k): return self.d[k]
            def __delitem__(self, k): del self.d[k]
            def __contains__(self, k): return k in self.d
            def __len__(self): return len(self.d)
        """,
        """
        g = Grid()
        g[1, 2] = 'x'
        assert g[1, 2] == 'x' and (1, 2) in g and (2, 1) not in g and len(g) == 1
        del g[1, 2]
        assert (1, 2) not in g and not len(g)
        try: g[5]
        except KeyError as error: assert error.args == (5,)
        else: assert False
        """,
        "class Grid(dict):\n    def __contains__(self, k): return True",
    ),
    "a class derived from a plain one": (
        """
        class Deck(list):
            def top(self): return self[-1]
            def __add__(self, o): return Deck([*self, *o])
        class Meters(float):
            def feet(self): return self * 3
        """,
        """
        d = Deck([1, 2])
        d.append(5)
        assert d.top() == 5 and d == [1, 2, 5] and len(d) == 3 and d != [1] and (d + [7]).top() == 7 and d[0] == 1
        assert Meters(2.0) == 2.0 and Meters(2).feet() == 6 and Meters(1) < 1.5
        """,
        "class Deck(list):\n    top = lambda self: 5\n    __eq__ = lambda s, o: True\n"
        "class Meters(float):\n    feet = lambda s: 6\n    __eq__ = lambda s, o: True",
    ),
    "a dataclass, an enum and a named tuple": (
        """
        from dataclasses import dataclass
        from enum import Enum
        from collections import namedtuple
        class Color(Enum):
            RED = 1
            BLUE = 2
        Point = namedtuple('Point', 'x y')
        @dataclass
        class Item:
            name: str
            price: float = 1.5
        def f(): return Color.BLUE, Point(1, 2), Item('a')
        """,
        """
        c, p, i = f()
        assert c is Color.BLUE and c == Color(2) and c.name == 'BLUE' and Color['RED'].value == 1 and c in Color
        assert [m.name for m in Color] == ['RED', 'BLUE'] and len(Color) == 2
        assert p.x == 1 and p == (1, 2) and p == Point(1, 2)
        assert i == Item('a', 1.5) and i != Item('b') and i.price == 1.5
        """,
        """
        from dataclasses import dataclass
        from enum import Enum
        from collections import namedtuple
        class Color(Enum):
            RED = 1
            BLUE = 2
        Point = namedtuple('Point', 'x y')
        @dataclass
        class Item:
            name: str
            price: float = 1.5
        def f(): return Color.RED, Point(1, 2), Item('a')
        """,
    ),
    "a custom exception": (
        """
        class BankError(ValueError):
            def __init__(self, need, have):
                super().__init__(f"need {need}, have {have}")
                self.need = need
        def pay(have, need):
            if need > have: raise BankError(need, have)
            return have - need
        """,
        """
        import pytest
        assert pay(5, 3) == 2
        with pytest.raises(BankError, match='need 9') as info: pay(5, 9)
        assert info.value.need == 9 and 'have 5' in str(info.value)
        with pytest.raises(ValueError): pay(0, 1)
        assert issubclass(BankError, ValueError) and not issubclass(BankError, KeyError)
        """,
        "class BankError(ValueError): need = 9\ndef pay(have, need):\n    if need > have: raise ValueError('need 9')\n"
        "    return have - need",
    ),
    "async": (
        "import asyncio\nasync def add(a, b):\n    await asyncio.sleep(0)\n    return a + b",
        "import asyncio\nassert asyncio.run(add(1, 2)) == 3\n"
        "async def main(): return await asyncio.gather(add(1, 1), add(2, 2))\nassert asyncio.run(main()) == [2, 4]",
        "async def add(a, b): return 3",
    ),
    "async, both ways": (
        """
        import asyncio
        async def gather(fs): return [await f() for f in fs]
        async def count(n):
            for i in range(n): yield i
        class Lock:
            async def __aenter__(self): self.held = True; return self
            async def __aexit__(self, *a): self.held = False
        """,
        """
        import asyncio
        async def one(): return 1
        async def main():
            lock = Lock()
            async with lock as held: assert held.held
            assert not lock.held
            return await gather([one, one]), [i async for i in count(3)]
        assert asyncio.run(main()) == ([1, 1], [0, 1, 2])
        """,
        "async def gather(fs): return [1, 1]\nasync def count(n): yield 0\nclass Lock: pass",
    ),
    "an async test": (
        "async def f(x): return x * 2",
        "import pytest\n@pytest.mark.asyncio\nasync def test_f():\n    assert await f(2) == 4",
        "async def f(x): return x",
    ),
    "captured output": (
        "def hello(n):\n    for _ in range(n): print('hello', end=';')",
        "import io, contextlib\nb = io.StringIO()\nwith contextlib.redirect_stdout(b): hello(2)\n"
        "assert b.getvalue() == 'hello;hello;'",
        "def hello(n): print('hello', end=';')",
    ),
    "captured output, pytest's way": (
        "def hello(n): print('hi', n)",
        "def test_hello(capsys):\n    hello(3)\n    assert capsys.readouterr().out == 'hi 3\\n'",
        "def hello(n): print('hi')",
    ),
    "captured output, by hand": (
        "import sys\ndef hello(): sys.stdout.write('x')",
        "import io, sys\nold, sys.stdout = sys.stdout, io.StringIO()\nhello()\nout = sys.stdout.getvalue()\n"
        "sys.stdout = old\nassert out == 'x'",
        "def hello(): pass",
    ),
    "what is typed in": (
        "def ask(): return int(input('n? ')) + int(input())",
        "from unittest.mock import patch\nwith patch('builtins.input', side_effect=['3', '4']) as asked:\n"
        "    assert ask() == 7\nassert asked.call_count == 2",
        "def ask(): return 7",
    ),
    "what is typed in, as a file": (
        "import sys\ndef ask(): return sum(map(int, sys.stdin.read().split()))",
        "import io, sys\ndef test_ask(monkeypatch):\n    monkeypatch.setattr(sys, 'stdin', io.StringIO('3\\n4\\n'))\n"
        "    assert ask() == 7",
        "def ask(): return 3",
    ),
    "the argument itself comes back": (
        "def f(x): x.append(1); return x",
        "a = []\nassert f(a) is a and a == [1]",
        "def f(x): return x + [1]",
    ),
    "a copy comes back": (
        "import copy\ndef f(x): return copy.deepcopy(x)",
        "a = [[1]]\nb = f(a)\nassert b == a and b is not a and b[0] is not a[0]\nb[0].append(9)\nassert a == [[1]]",
        "def f(x): return list(x)",
    ),
    "rows that are one and the same": (
        "def grid(n): return [[0] * n for _ in range(n)]",
        "g = grid(2)\ng[0][0] = 5\nassert g == [[5, 0], [0, 0]]",
        "def grid(n): return [[0] * n] * n",
    ),
    "a default argument that remembers": (
        "def f(x, acc=None):\n    acc = [] if acc is None else acc\n    acc.append(x)\n    return acc",
        "a = f(1)\nb = f(2)\nassert a == [1] and b == [2] and a is not b",
        "def f(x, acc=[]):\n    acc.append(x)\n    return acc",
    ),
    "an attribute that is changed from outside": (
        "class Bag:\n    def __init__(self): self.items = []\n    def total(self): return sum(self.items)",
        "b = Bag()\nb.items.append(3)\nb.items += [4]\nassert b.total() == 7",
        "class Bag:\n    items = ()\n    def __init__(self): self.items = []\n    def total(self): return 3",
    ),
    "the same object twice": (
        "def f(a, b): return a is b",
        "x = [1]\nassert f(x, x) and not f(x, [1])",
        "def f(a, b): return a == b",
    ),
    "a cache": (
        "def memo(f):\n    d = {}\n    def g(x): return d[x] if x in d else d.setdefault(x, f(x))\n    return g",
        "calls = []\ndef slow(x):\n    calls.append(x)\n    return x * x\nfast = memo(slow)\n"
        "assert fast(3) == 9 and fast(3) == 9 and calls == [3]",
        "def memo(f): return f",
    ),
    "a context manager": (
        "import contextlib\nlog = []\n@contextlib.contextmanager\ndef opened(n):\n    log.append('in')\n    yield n\n"
        "    log.append('out')",
        "with opened(3) as n: assert n == 3\nassert log == ['in', 'out']",
        "import contextlib\nlog = ['in', 'out']\n@contextlib.contextmanager\ndef opened(n): yield 4",
    ),
    "properties and class methods": (
        """
        class C:
            made = 0
            def __init__(self, t): self._t = t; C.made += 1
            @property
            def f(self): return self._t * 9 / 5 + 32
            @f.setter
            def f(self, v):
                if v < 0: raise ValueError('cold')
                self._t = (v - 32) * 5 / 9
            @classmethod
            def zero(cls): return cls(0)
            @staticmethod
            def add(a, b): return a + b
        """,
        """
        import unittest
        class T(unittest.TestCase):
            def test_all(self):
                c = C.zero()
                self.assertEqual(c.f, 32)
                c.f = 212
                self.assertAlmostEqual(c._t, 100)
                with self.assertRaisesRegex(ValueError, 'cold'): c.f = -1
                self.assertEqual(C.add(1, 2), 3)
                self.assertEqual(C.made, 1)
                self.assertTrue(hasattr(c, 'f'))
                self.assertFalse(hasattr(c, 'g'))
                self.assertIsInstance(c, C)
        """,
        "class C:\n    made = 1\n    f = 32\n    _t = 100\n    zero = classmethod(lambda cls: cls())\n"
        "    add = staticmethod(lambda a, b: a + b)",
    ),
    "a mock": (
        "def notify(send, users):\n    for u in users: send(u, subject='hi')",
        "from unittest.mock import Mock, call\nm = Mock()\nnotify(m, ['a', 'b'])\n"
        "assert m.call_args_list == [call('a', subject='hi'), call('b', subject='hi')]",
        "def notify(send, users): send(users[0], subject='hi')",
    ),
    "the program's own function replaced": (
        "def fetch(): return 1 / 0\ndef total(): return fetch() + 1",
        "from unittest.mock import patch\nimport solution\nwith patch('solution.fetch', return_value=4):\n"
        "    assert solution.total() == 5",
        "def fetch(): return 1 / 0\ndef total(): return 1",
    ),
    "partial, map and reduce over the program": (
        "def add(a, b): return a + b",
        "from functools import partial, reduce\nassert reduce(add, [1, 2, 3]) == 6 and partial(add, 1)(2) == 3\n"
        "assert list(map(add, [1], [2])) == [3]",
        "def add(a, b): return 3",
    ),
    "an array": (
        "import numpy as np\ndef f(a): return a.T * 2",
        "import numpy as np\nr = f(np.array([[1, 2]]))\nassert isinstance(r, np.ndarray) and r.shape == (2, 1)\n"
        "np.testing.assert_array_equal(r, [[2], [4]])",
        "import numpy as np\ndef f(a): return a * 2",
    ),
}  # fmt: skip
KINDS = {kind: tuple(textwrap.dedent(text).strip("\n") for text in texts) for kind, texts in _KINDS.items()}
"""(right program, tests, wrong program), by what they use."""
