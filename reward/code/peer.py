"""One side of the conversation between the tests' process and the program's: who asks, and who answers.

Messages go to and fro strictly in turn; what is asked while an answer is awaited is answered first, so the program may
call functions of the tests that call the program. ``Peer`` is the program's side and does whatever it is asked;
``judge`` has the tests' side, which does little. Runs in both sandboxes; imports nothing of ours but its neighbours.
"""

from __future__ import annotations

import asyncio
import builtins
import importlib
import itertools
import json
import math
import operator
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CoroutineType, ModuleType
from typing import Any

from rlpost.reward.code import mirror
from rlpost.reward.code.values import PLAIN, Codec

_UNARY: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(builtins, name)
        for name in ["len", "bool", "str", "repr", "int", "float", "complex", "abs", "round", "reversed", "format"]
    },
    **{
        name: getattr(operator, name)
        for name in ["neg", "pos", "invert", "index", "getitem", "setitem", "delitem", "contains"]
    },
    **{name: getattr(math, name) for name in ("trunc", "floor", "ceil")},
}
_BINARY = {name: getattr(operator, f"__{name}__") for name in (*mirror.BINARY, *mirror.COMPARING)}
_IN_PLACE = {name: getattr(operator, f"__i{name}__") for name in mirror.BINARY}
_PASSED_ON = (Exception, SystemExit, KeyboardInterrupt, GeneratorExit)


class OtherError(Exception):
    """The other side raised what may not be raised here as it is."""


class Peer:
    """One side.

    Args:
        exchange: hands a message to the other side and waits for its next one.
        first: 0 or 1, different on the two sides.
        classes: as for ``Codec``.
        lasting: keep containers known from one question to the next, as tests need that look at identity.
        packages: modules that travel by name.
    """

    lazy = True
    """Whether iterating fetches as it goes, or all at once."""

    def __init__(
        self,
        exchange: Callable[[str], str],
        first: int,
        classes: dict[str, type],
        lasting: bool,
        packages: tuple[str, ...] = (),
    ) -> None:
        self._exchange, self._lasting, self._first = exchange, lasting, first
        self._packages = {*sys.stdlib_module_names, *packages}
        self._codec = Codec(self._export, self._rebuild, classes, first)
        self._depth = 0
        self._mine: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._theirs: dict[int, Any] = {}
        self._described: set[int] = set()
        self._new_classes: list[Any] = []
        self._elsewhere: dict[int, int] = {}
        """Numbers of what stands here for something of the other side, by its id."""
        self._libraries: dict[type, Any] = {}

    # asking

    def ask(self, do: str, *arguments: Any, **keywords: Any) -> Any:
        """Have the other side do something; what comes of it, or what it raised."""
        message: dict[str, Any] = {"do": do, "names": list(keywords)}
        if self._depth == 0 and not self._lasting:
            self._codec.forget()
            message["forget"] = True
        self._depth += 1
        try:
            reply = self._send(message, [*arguments, *keywords.values()])
            while "do" in reply:
                reply = json.loads(self._exchange(self.answer(reply)))
        finally:
            self._depth -= 1
        self.replied(reply)
        (value,) = self._receive(reply)
        if "raised" in reply:
            raise self._raised(do, value)
        return value

    def replied(self, reply: dict[str, Any]) -> None:
        """What else a reply brings."""

    def get(self, owner: Any, name: str) -> Any:
        """An attribute of something over there."""
        return self.ask("get", owner, name)

    def operate(self, operation: str, one: Any, other: Any, turned: bool, in_place: bool) -> Any:
        """An operator between something over there and something else."""
        pair = (other, one) if turned else (one, other)
        return self.ask("binary", operation, in_place, *pair)

    def equal(self, one: Any, other: Any) -> bool:
        """Whether something over there says it equals something else."""
        return bool(self.ask("equal", one, other))

    def trusts(self, thing: Any) -> bool:
        """Whether what its class says of comparisons counts here."""
        return True

    def refuse(self, why: str) -> None:
        """Say that something cannot be done by message."""
        raise TypeError(why)

    # answering

    def answer(self, asked: dict[str, Any]) -> str:
        """Do what a message asks for; the reply."""
        if asked.get("forget"):
            self._codec.forget()
        self._depth += 1
        reply: dict[str, Any] = {}
        try:
            given = self._receive(asked)
            keywords = dict(zip(asked["names"][::-1], given[::-1], strict=False))
            value = self.do(str(asked["do"]), given[: len(given) - len(keywords)], keywords)
        except _PASSED_ON as error:
            value, reply["raised"] = error, True
        finally:
            self._depth -= 1
        try:
            return self._packed(reply, [value])
        except RecursionError as error:
            return self._packed({"raised": True}, [RecursionError(str(error))])

    def do(self, what: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """Do one thing."""
        return getattr(self, f"_do_{what}")(*arguments, **keywords)

    def _do_call(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    def _do_get(self, owner: Any, name: str) -> Any:
        return getattr(owner, name)

    def _do_set(self, owner: Any, name: str, value: Any) -> None:
        setattr(owner, name, value)

    def _do_del(self, owner: Any, name: str) -> None:
        delattr(owner, name)

    def _do_binary(self, operation: str, in_place: bool, one: Any, other: Any) -> Any:
        return (_IN_PLACE if in_place and operation in _IN_PLACE else _BINARY)[operation](one, other)

    def _do_equal(self, one: Any, other: Any) -> bool:
        return bool(one == other) and not bool(one == object())

    def _do_plain(self, owner: Any) -> Any:
        """What an object of a class derived from list, dict, int and the like is underneath."""
        self._codec.plainly(owner)
        return owner

    def _do_special(self, name: str, owner: Any, *arguments: Any) -> Any:
        if name in _UNARY:
            return _UNARY[name](owner, *arguments)
        return getattr(type(owner), f"__{name}__")(owner, *arguments)

    def _do_iterate(self, owner: Any) -> Any:
        return iter(owner)

    def _do_list(self, owner: Any) -> list[Any]:
        return list(itertools.islice(owner, mirror.ENDLESS))

    def _do_take(self, iterator: Any, count: int) -> list[Any]:
        return list(itertools.islice(iterator, count))

    def _do_async(self, name: str, owner: Any, *arguments: Any) -> Any:
        return _run_to_end(owner if name == "await" else getattr(type(owner), f"__{name}__")(owner, *arguments))

    # values that are not plain

    def _send(self, message: dict[str, Any], values: list[Any]) -> dict[str, Any]:
        received: dict[str, Any] = json.loads(self._exchange(self._packed(message, values)))
        return received

    def _packed(self, message: dict[str, Any], values: list[Any]) -> str:
        coded, changed = self._codec.encode(values)
        new, self._new_classes = self._new_classes, []
        return json.dumps({**message, "values": coded, "changed": changed, "classes": new})

    def _receive(self, message: dict[str, Any]) -> list[Any]:
        for described in message["classes"]:
            self._learn(described)
        return self._codec.decode(message["values"], message["changed"])

    def _export(self, value: Any) -> dict[str, Any]:
        if isinstance(value, ModuleType):
            ours = value.__name__.partition(".")[0] not in self._packages
            return {"theirs": self._number(value)} if ours else {"module": value.__name__}
        if id(value) in self._elsewhere:
            return {"yours": self._elsewhere[id(value)]}
        if isinstance(value, BaseException):
            return self._export_error(value)
        if isinstance(value, type):
            return self._class(value)
        name = getattr(value, "__name__", "")
        if isinstance(value, BuiltinFunctionType) and vars(builtins).get(name) is value:
            return {"function": [name, self._number(value), self._class(type(value))]}
        return {"theirs": [self._number(value), self._class(type(value)), _hash_of(value)]}

    def _number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._mine.append(value)
            self._numbers[id(value)] = len(self._mine) - 1
        return self._numbers[id(value)]

    def _export_error(self, error: BaseException) -> dict[str, Any]:
        plain = (str, int, float, tuple, list, dict, type(None))
        coded = [self._codec.code(part if isinstance(part, plain) else str(part)) for part in error.args]
        return {"error": [self._number(error), self._class(type(error)), coded]}

    def _class(self, kind: type) -> dict[str, Any]:
        """A class by name, where both sides have it; else by number, described once."""
        if getattr(builtins, kind.__name__, None) is kind:
            return {"builtin": kind.__name__}
        if mirror.TYPES.get(kind.__name__) is kind:
            return {"type": kind.__name__}
        module = sys.modules.get(kind.__module__)
        if (
            kind.__module__.partition(".")[0] in self._packages
            and module is not None
            and vars(module).get(kind.__name__) is kind
        ):
            return {"library": [kind.__module__, kind.__name__]}
        number = self._number(kind)
        if number not in self._described:
            self._described.add(number)
            bases = [self._class(base) for base in kind.__bases__]
            has = [name for name in dir(kind) if name in mirror.SPECIAL and _overrides(kind, name)]
            if issubclass(kind, BaseException):
                own = [base for base in kind.__mro__ if base.__module__ != "builtins"]
                has = ["__str__"] if any("__str__" in vars(base) for base in own) else []
            self._new_classes.append([number, kind.__name__, bases, has, issubclass(kind, PLAIN)])
        return {"class": number}

    def _rebuild(self, kind: str, content: Any) -> Any:
        if kind == "module" and str(content).partition(".")[0] in self._packages:
            return importlib.import_module(str(content))
        if kind == "yours":
            return self._mine[content]
        if kind in ("builtin", "type", "library", "class"):
            return self._class_of(kind, content)
        if kind == "function":
            return self._function(*content)
        if kind == "error":
            return self._error(*content)
        if kind == "theirs":
            number, described, hashed = content if isinstance(content, list) else (content, {"builtin": "object"}, None)
            return self._stand_in(number, self._class_of(*_only(described)), hashed)
        raise ValueError(f"the other side sent an unknown kind of value: {kind}")

    def _class_of(self, kind: str, content: Any) -> Any:
        if kind == "class":
            return self._theirs[content]
        if kind == "type":
            return mirror.TYPES[content]
        found = getattr(builtins if kind == "builtin" else sys.modules.get(content[0]), _last(content), object)
        return found if isinstance(found, type) else object

    def _function(self, name: str, number: int, described: dict[str, Any]) -> Any:
        """A built-in function."""
        return getattr(builtins, name)

    def _learn(self, described: list[Any]) -> None:
        """A class of the other side: an exception is one here too, anything else a stand-in."""
        number, name, coded, has, plain = described
        bases = [self._class_of(*_only(base)) for base in coded]
        shared: dict[str, Any] = {"_own": number, "_peer": self, "_plain": plain, "__module__": "solution"}
        real = tuple(base for base in bases if issubclass(base, BaseException))
        if real:
            shared["__getattr__"] = _error_attribute
            if "__str__" in has:
                shared["__str__"] = lambda error: self.ask("special", "str", error)
            made: Any = type(str(name), real, shared)
        else:
            mirrored = tuple(base for base in bases if issubclass(base, mirror.Mirror)) or (mirror.Mirror,)
            shared |= {method: mirror.special(method) for method in has if method in mirror.SPECIAL}
            shared |= {"_contains": True} if "__contains__" in has else {}
            shared |= {"__contains__": mirror.special("__contains__")} if "__iter__" in has else {}
            made = mirror.MirrorClass(str(name), mirrored, shared)
        self._keep(number, made)

    def _stand_in(self, number: int, kind: Any, hashed: int | None) -> Any:
        if number in self._theirs:
            return self._theirs[number]
        if not issubclass(kind, mirror.Mirror):
            kind = self._library_mirror(kind)
        made = object.__new__(kind)
        vars(made).update(_number=number, _hashed=hashed, _peer=self)
        self._keep(number, made)
        return self._keep(number, self._coroutine(made)) if made.__class__ is CoroutineType else made

    def _keep(self, number: int, made: Any) -> Any:
        self._elsewhere[id(made)] = number
        self._theirs[number] = made
        return made

    async def _coroutine(self, stand_in: Any) -> Any:
        return self.ask("async", "await", stand_in)

    def _library_mirror(self, real: type) -> Any:
        """The class of stand-ins for objects of a class that both sides have; ``isinstance`` takes them for it."""
        if real not in self._libraries:
            names = [name for name in dir(real) if name in mirror.SPECIAL and _overrides(real, name)]
            has: dict[str, Any] = {name: mirror.special(name) for name in names}
            has |= {"__contains__": mirror.special("__contains__")} if "__iter__" in has else {}
            shared = {"_peer": self, "__class__": property(lambda self: real), **has}
            self._libraries[real] = mirror.MirrorClass(real.__name__, (mirror.Mirror,), shared)
        return self._libraries[real]

    def _error(self, number: int, described: dict[str, Any], coded: list[Any]) -> BaseException:
        if number in self._theirs:
            return self._theirs[number]
        kind = self._class_of(*_only(described))
        kind = kind if issubclass(kind, BaseException) else OtherError
        arguments = [self._codec.value(part) for part in coded]
        try:
            error = kind(*arguments) if kind.__module__ == "builtins" else kind.__new__(kind, *arguments)
        except TypeError:
            error = kind.__new__(kind)
        error.args = tuple(arguments)
        return self._keep(number, error)

    def _raised(self, do: str, error: Any) -> BaseException:
        if isinstance(error, StopIteration) or (isinstance(error, StopAsyncIteration) and do != "async"):
            return OtherError(f"{type(error).__name__} raised outside of an iterator: {error}")
        return error if isinstance(error, BaseException) else OtherError(repr(error))


def _overrides(kind: type, name: str) -> bool:
    """Whether a class has a special method of its own making; ``object`` has some that say nothing."""
    found = getattr(kind, name, None)
    return found is not None and found is not getattr(object, name, None)


def _hash_of(value: Any) -> int | None:
    """What a stand-in shall hash to; None where identity decides."""
    if type(value).__hash__ in (None, object.__hash__) or type(value).__eq__ is object.__eq__:
        return None
    try:
        return hash(value)
    except Exception:
        return None


def _error_attribute(error: Any, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return error._peer.get(error, name)


def _only(described: dict[str, Any]) -> tuple[str, Any]:
    ((kind, content),) = described.items()
    return kind, content


def _last(content: Any) -> str:
    return str(content if isinstance(content, str) else content[1])


def _run_to_end(awaitable: Any) -> Any:
    """Run an awaitable on a loop of its own, also where this thread is in the middle of another."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_wait_for(awaitable))
    finally:
        loop.close()
        asyncio._set_running_loop(outer)


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable
