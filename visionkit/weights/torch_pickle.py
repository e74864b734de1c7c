"""A machine for the few pickle operations that PyTorch checkpoints are made of: it builds values, and calls nothing.

A pickle is a program. Python's own `Unpickler` runs it and may be told which names it may call; here there is nothing
to be called: every global is looked up in a table of words (`_GLOBALS`), any other is refused with its name, tensors
become descriptions (`TensorRef`), and time and memory are bounded by the length and the number of operations.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from visionkit.errors import ModelError

__all__ = ["MAX_DIMENSIONS", "MAX_PICKLE_BYTES", "StorageRef", "TensorRef", "brief", "unpickle"]

MAX_PICKLE_BYTES = 4 << 20  # ten times what the largest published vision networks need
MAX_OPERATIONS = 200_000  # 35 a tensor
MAX_KEY = 1 << 60  # Python's integers below have hashes of their own: no dictionary of colliding keys can be built
MAX_MEMO = 1 << 32
MAX_INTEGER = 1 << 63
MAX_DIMENSIONS = 32
MAX_ARGUMENTS = 16

STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"}
_TENSORS = {"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"}
_GLOBALS = {*STORAGES, *_PARAMETERS, *_TENSORS, "collections.OrderedDict", "torch.Size"}


@dataclass(frozen=True, slots=True)
class StorageRef:
    """Bytes that lie elsewhere in the file: `key` names them, `count` elements of `dtype` is what they are said to be.

    Args:
        view: of old files, (key, offset, count): a part of the storage that is a storage of its own.
    """

    key: str
    dtype: str
    count: int
    view: tuple[str, int, int] | None = None


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor over a storage, as the file describes it and nobody has checked: offset and stride in elements."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that the pickle mentions; only a word to us."""

    name: str


class _BrokenError(ValueError):
    """What does not fit in a pickle, in half a sentence."""


_MARK = object()


def unpickle(stream: BinaryIO, where: str, storages: list[StorageRef] | None = None) -> Any:
    """The value of the pickle at the position of `stream`, which is left behind it.

    Args:
        stream: no longer than `MAX_PICKLE_BYTES` from here on.
        where: the file's name in messages.
        storages: a list that gets every storage the pickle names.

    Returns:
        Dictionaries, lists, tuples, strings, numbers, None, `StorageRef` and `TensorRef`.

    Raises:
        ModelError: `model-unsafe` if it names what is no part of a tensor or is too long; `model-corrupt` if it is no
            pickle.
    """
    machine = _Machine(where)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if count + machine.copied >= MAX_OPERATIONS:
                raise ModelError(
                    "model-unsafe",
                    f"{where} has a pickle of more than {MAX_OPERATIONS} operations, more than any list of tensors "
                    "needs. Save only `model.state_dict()`.",
                )
            machine.step(operation.name, argument)
        if storages is not None:
            storages.extend(machine.storages)
        return machine.result()
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, Warning) as error:
        what = str(error) if isinstance(error, _BrokenError) else "its pickle is damaged or ends early"
        raise ModelError(
            "model-corrupt", f"{where} cannot be read as a PyTorch checkpoint: {what}. Fetch it again."
        ) from error


def brief(value: Any) -> str:
    """A few words about any unpickled value that cost nothing to make, however large it is."""
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() < 200 else "a number of many digits"
    return f"a {type(value).__name__}"


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.storages: list[StorageRef] = []
        self.copied = 0  # values copied from one list into a dictionary, which a single operation may ask for

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self._stack.append(_PUSHED[name]())
        elif name in _VALUES:
            self._stack.append(argument)
        elif (run := _STEPS.get(name)) is not None:
            run(self, argument)
        elif name not in _NOTHING:
            self._refuse_operation(name)

    def result(self) -> Any:
        (value,) = self._stack
        return value

    def _refuse_operation(self, name: str) -> NoReturn:
        raise ModelError(
            "model-unsafe",
            f"{self._where} has the pickle operation {name}, which no file of tensors needs and which can build any "
            "object. Save only `model.state_dict()` with torch.save.",
        )

    def _pop_mark(self) -> list[Any]:
        for position in range(len(self._stack) - 1, -1, -1):
            if self._stack[position] is _MARK:
                items = self._stack[position + 1 :]
                del self._stack[position:]
                return items
        raise _BrokenError("a mark is missing in its pickle")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise _BrokenError("its pickle takes what was never put")
        items = self._stack[-count:]
        del self._stack[-count:]
        if any(item is _MARK for item in items):
            raise _BrokenError("a mark is misplaced in its pickle")
        return items

    # One method an operation.

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def put(self, index: Any) -> None:
        if not 0 <= index < MAX_MEMO or self._stack[-1] is _MARK:
            raise _BrokenError("its pickle keeps a value under no number")
        self._memo[index] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self.put(len(self._memo))

    def get(self, index: Any) -> None:
        self._stack.append(self._memo[index])

    def pop(self, _: Any) -> None:
        self._stack.pop()

    def pop_mark(self, _: Any) -> None:
        self._pop_mark()

    def tuple_of_mark(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_mark()))

    def list_of_mark(self, _: Any) -> None:
        self._stack.append(self._pop_mark())

    def dict_of_mark(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._fill(items)

    def tuple1(self, _: Any) -> None:
        self._stack.append(tuple(self._pop(1)))

    def tuple2(self, _: Any) -> None:
        self._stack.append(tuple(self._pop(2)))

    def tuple3(self, _: Any) -> None:
        self._stack.append(tuple(self._pop(3)))

    def append(self, _: Any) -> None:
        (item,) = self._pop(1)
        self._target(list).append(item)

    def appends(self, _: Any) -> None:
        items = self._pop_mark()
        self._target(list).extend(items)

    def setitem(self, _: Any) -> None:
        self._fill(self._pop(2))

    def setitems(self, _: Any) -> None:
        self._fill(self._pop_mark())

    def _target(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise _BrokenError(f"its pickle fills a {kind.__name__} that is none")
        return self._stack[-1]

    def _fill(self, items: list[Any]) -> None:
        target = self._target(dict)
        if len(items) % 2:
            raise _BrokenError("a key in its pickle has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def named(self, argument: str) -> None:
        """GLOBAL and INST: 'module name'."""
        self._stack.append(self._known(argument.replace(" ", ".")))

    def stack_global(self, _: Any) -> None:
        module, name = self._pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise _BrokenError("a global of its pickle has no name")
        self._stack.append(self._known(f"{module}.{name}"))

    def _known(self, name: str) -> _Global:
        if name not in _GLOBALS:
            raise ModelError(
                "model-unsafe",
                f"{self._where} names {name[:200]!r}, which is no part of a tensor: unpickling it could run code, so "
                "nothing of it was read. If you trust its author, load it with PyTorch and save only "
                "`model.state_dict()`.",
            )
        return _Global(name)

    def reduce(self, _: Any) -> None:
        function, arguments = self._pop(2)
        if not isinstance(function, _Global) or not isinstance(arguments, tuple) or len(arguments) > MAX_ARGUMENTS:
            raise _BrokenError("its pickle calls what is no function")
        self.copied += sum(len(item) for item in arguments if isinstance(item, list | tuple))
        self._stack.append(_call(function.name, arguments))

    def build(self, _: Any) -> None:
        """The state of an object: hooks of a dictionary, flags of a parameter. Nothing of it matters here."""
        self._pop(1)
        if not self._stack or not isinstance(self._stack[-1], dict | TensorRef):
            raise _BrokenError("its pickle gives a state to what has none")

    def persistent(self, _: Any) -> None:
        (identity,) = self._pop(1)
        self.storages.append(_storage(identity))
        self._stack.append(self.storages[-1])

    def refuse_code(self, argument: Any) -> None:
        self._refuse_operation(f"EXT with code {argument}")


def _key(key: Any) -> str | int:
    if isinstance(key, str) or (type(key) is int and -MAX_KEY < key < MAX_KEY):
        return key
    raise _BrokenError(f"its pickle has {brief(key)} as a dictionary's key, where PyTorch has strings")


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    if name in _TENSORS:
        return _tensor(arguments)
    if name in _PARAMETERS and arguments and isinstance(arguments[0], TensorRef):
        return arguments[0]
    if name == "torch.Size" and len(arguments) == 1:
        return _integers(arguments[0])
    if name == "collections.OrderedDict" and len(arguments) <= 1:
        return _dictionary(arguments[0] if arguments else [])
    raise _BrokenError(f"its pickle calls {name} with what it does not take")


def _dictionary(pairs: Any) -> dict[str | int, Any]:
    """What Python 2 wrote: an OrderedDict from a list of pairs."""
    if not isinstance(pairs, list | tuple):
        raise _BrokenError("a dictionary of its pickle is made of no pairs")
    made = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _BrokenError("a dictionary of its pickle is made of no pairs")
        made[_key(pair[0])] = pair[1]
    return made


def _tensor(arguments: tuple[Any, ...]) -> TensorRef:
    if len(arguments) < 4 or not isinstance(arguments[0], StorageRef):
        raise _BrokenError("a tensor of its pickle has no storage, offset, size and stride")
    (offset,) = _integers((arguments[1],))
    return TensorRef(arguments[0], offset, _integers(arguments[2]), _integers(arguments[3]))


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MAX_DIMENSIONS:
        raise _BrokenError(f"a size or stride in its pickle is not of at most {MAX_DIMENSIONS} numbers")
    if not all(type(value) is int and -MAX_INTEGER <= value < MAX_INTEGER for value in values):
        raise _BrokenError("a size, stride or offset in its pickle is no integer of 64 bits")
    return tuple(values)


def _storage(identity: Any) -> StorageRef:
    """From ('storage', type, key, location, count), of old files with (key, offset, count) or None behind it."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise _BrokenError("its pickle refers to something that is no storage of a tensor")
    _, kind, key, _, count, *rest = identity
    if not isinstance(kind, _Global) or kind.name not in STORAGES:
        raise _BrokenError("a storage of its pickle has no type of element")
    if not isinstance(key, str) or type(count) is not int or not 0 <= count < MAX_INTEGER:
        raise _BrokenError("a storage of its pickle has no key and count")
    view = rest[0] if rest else None
    if view is not None:
        if not isinstance(view, tuple) or len(view) != 3 or not isinstance(view[0], str):
            raise _BrokenError("a part of a storage of its pickle has no key, offset and count")
        view = (view[0], *_integers(view[1:]))
    return StorageRef(key, STORAGES[kind.name], count, view)


_NOTHING = {"PROTO", "FRAME", "STOP"}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_PUSHED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "TUPLE": _Machine.tuple_of_mark,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "LIST": _Machine.list_of_mark,
    "DICT": _Machine.dict_of_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.named,
    "INST": _Machine.named,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    "EXT1": _Machine.refuse_code,
    "EXT2": _Machine.refuse_code,
    "EXT4": _Machine.refuse_code,
}
