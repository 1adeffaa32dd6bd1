"""How the loops of the CPU are compiled: the options of Numba, and where the machine code is kept.

Compiled code is kept on disk, beside the modules or in the user's cache folder as Numba chooses (the variable
NUMBA_CACHE_DIR names another), so that only the first process waits for the compiler. An entry is valid for the
exact text of every module that is compiled into it. A cache that cannot be read or written is as good as none; and
so is one that other users may write to, because Numba loads pickles from it, which can run any code. What lies beside
the modules is read also where it cannot be written: `gpuprop warm` fills that folder when an image is built.

Importing this module imports Numba.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpuprop.backends.cpu.numba_imports import spare_scipy
from gpuprop_kernels import formulas
from gpuprop_kernels.trusted_folders import why_untrusted

__all__ = [
    "announced", "cache_folders", "compiled", "counted", "inlined_sum", "joined", "part", "prefetch",
    "rows_of", "spliced", "wanted_soon",
]  # fmt: skip

Function = TypeVar("Function", bound=Any)

_LOGGER = logging.getLogger("gpuprop.loops")

#: These folders hold the code of the functions that this process has asked for.
_folders: set[str] = set()


# error_model: Python's check for division by zero keeps LLVM from vectorising (Adam's update: ten times as long).
# contract: a * b + c may become one fused operation. It changes the last bit and nothing else; the flags that assume
# that there are no NaNs and infinities stay off, because a training that diverges is known by them.
# _nrt: Numba does not count references to arrays. The caller holds the arrays and outlives the call, and a loop
# allocates nothing. Counting would cost an atomic operation of some 20 cycles for each slice, which is a third of the
# time of an epoch of small steps.
_OPTIONS: dict[str, Any] = {
    "error_model": "numpy", "nogil": True, "fastmath": {"contract"}, "no_cfunc_wrapper": True, "_nrt": False,
}  # fmt: skip
# A sum vectorises as several partial sums, whose error is smaller than that of a sum from left to right. These options
# are for loops that do nothing but add up.
_SUM_OPTIONS: dict[str, Any] = {**_OPTIONS, "fastmath": {"contract", "reassoc", "nsz"}}
# Most functions are called by compiled ones only. Without this option Numba would also compile what lets Python call
# them.
_UNCALLED: dict[str, Any] = {"no_cpython_wrapper": True}


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """Log that loops are being compiled, if the first call inside this context takes longer than a second."""
    message = "compiling the loops of this kind of training, which are kept for the next time"
    timer = threading.Timer(1.0, _LOGGER.info, (message,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _source_stamp() -> str:
    """Return a digest of all modules whose functions are compiled into each other."""
    digest = hashlib.sha256()
    for path in sorted((*Path(__file__).parent.glob("*.py"), *Path(formulas.__file__).parent.glob("*.py"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _identity(value: Any) -> Any:
    """Describe a function, by its name and all that it closes over, or a number, by itself; equal in every process."""
    function = getattr(value, "py_func", value)
    if not hasattr(function, "__qualname__"):
        return value
    cells = getattr(function, "__closure__", None) or ()  # a function of the module `math` has none
    return (function.__module__, function.__qualname__, *(_identity(cell.cell_contents) for cell in cells))


def _told_apart(function: Function) -> Function:
    """Give a function that a factory made a name of its own, after where it stands and what it closes over.

    The symbol of compiled code is the function's name and a number that begins at 0 in every process. Two loops of one
    factory, compiled by two processes and loaded from the cache by a third, would have the same symbol, and one of
    them would be called for both.
    """
    if "<locals>" in function.__qualname__ and not hasattr(function, "told_apart"):
        function.told_apart = True
        described = _identity(function), function.__code__.co_firstlineno
        made_for = hashlib.sha256(repr(described).encode()).hexdigest()[:16]
        function.__qualname__ = f"{function.__qualname__}_{made_for}"
    return function


def _forgiving_cache() -> type[Any]:
    """Return a cache of compiled functions that knows all our modules and survives a broken file.

    The stamp of Numba's own cache covers the file of a function, but not the files of the functions that are compiled
    into it; and an unreadable entry raises an error there.
    """
    caching: Any = importlib.import_module("numba.core.caching")
    base: Any = caching.FunctionCache
    stamp = _source_stamp()
    places = caching.CompileResultCacheImpl._locator_classes
    beside_module: Any = next(place for place in places if place.__name__.strip("_") == "InTreeCacheLocator")

    class Installed(beside_module):  # type: ignore[misc]
        """The folder beside a module where none can be written: `gpuprop warm` may have filled it before."""

        def ensure_cache_path(self) -> None:
            """Do nothing: it is only read."""

    class Cache(base):  # type: ignore[misc]
        def __init__(self, function: Callable[..., Any], stored: type[Any] | None) -> None:
            form = self._impl_class if stored is None else stored
            self._impl_class: Any = type(form.__name__, (form,), {"_locator_classes": (*places, Installed)})
            super().__init__(function)
            self._cache_file._source_stamp = stamp
            self._read_only = isinstance(self._impl.locator, Installed)
            beside = Path(function.__code__.co_filename).parent / "__pycache__"
            self._installed = None
            if str(beside) != self._cache_path and beside.is_dir() and _is_trusted(str(beside)):
                self._installed = type(self._cache_file)(str(beside), self._impl.filename_base, stamp)

        def _index_key(self, sig: Any, codegen: Any) -> Any:
            """Return the key of an entry: the stamp identifies the source, and this key what a closure was made for.

            Numba's own key contains the bytes of the functions that a closure refers to, which differ in each process.
            """
            return sig, codegen.magic_tuple(), _identity(self._py_func)

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                # Numba's own method first loads all that its compiler knows of Python and NumPy, half a second's work.
                # Machine code needs none of it, because the functions here count no references.
                with self._guard_against_spurious_io_errors():
                    found = self._load_overload(sig, target_context) or self._load_installed(sig, target_context)
            except Exception:
                # Half written, or by another program: whatever unpickling it raises, compiling anew is the answer.
                self._discard()
                found = None
            if found is None:
                with contextlib.suppress(Exception):  # another Numba, which is built in another way
                    spare_scipy()
            return found

        def _load_installed(self, sig: Any, target_context: Any) -> Any:
            """Return what lies beside the modules, if code is kept in another folder; or None."""
            if self._installed is None:
                return None
            data = self._installed.load(self._index_key(sig, target_context.codegen()))
            return None if data is None else self._impl.rebuild(target_context, data)

        def save_overload(self, sig: Any, data: Any) -> None:
            if self._read_only:
                return
            try:
                super().save_overload(sig, data)
            except Exception:
                # A full disk, a folder that became read-only, an unreadable index: the code in memory is good.
                self._discard()

        def _discard(self) -> None:
            """Empty the index, so that the next process writes it anew."""
            try:
                self.flush()
            except OSError:
                self.disable()

    return Cache


try:
    _CACHE: type[Any] | None = _forgiving_cache()
except Exception:
    # The cache of this Numba is built in another way. Everything works, and each process compiles for itself.
    _CACHE = None


def _joining() -> tuple[type[Any], type[Any]]:
    """Return a compiler that neither optimises a function nor makes machine code of it: its caller's compilation does.

    Numba's own compiler does both for each function, and again for each function that calls it: three times for a
    function that a piece of a piece of a step calls. With the compiler comes a cache of what it makes, so that kinds of
    training share their pieces.
    """
    libraries: Any = importlib.import_module("numba.core.codegen")
    compilers: Any = importlib.import_module("numba.core.compiler")
    caching: Any = importlib.import_module("numba.core.caching")
    llvm: Any = importlib.import_module("llvmlite.binding")

    class Library(libraries.JITCodeLibrary):  # type: ignore[misc]
        """Code that exists only to be linked into other code."""

        def finalize(self) -> None:
            for library in dict.fromkeys(self._linking_libraries):
                self._final_module.link_in(library._get_module_for_linking(), preserve=True)
            self._finalize_dynamic_globals()
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            return 0  # nothing that Python can call

        @property
        def codegen(self) -> Any:
            """Return an object on which Numba can call `set_env`."""
            return self

        def set_env(self, name: str, environment: Any) -> None:
            """Do nothing: without machine code there is nothing that could use Python objects."""

        def hold(self, bitcode: bytes) -> None:
            """Hold the code that `serialize_using_object_code` returned."""
            self._final_module = llvm.parse_bitcode(bitcode)
            self._finalized = True

        def serialize_using_object_code(self) -> tuple[str, bytes]:
            return self.name, self._final_module.as_bitcode()

    class Compiler(compilers.Compiler):  # type: ignore[misc]
        def define_pipelines(self) -> Any:
            self.state.library = Library(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
            return super().define_pipelines()

    class Stored(caching.CompileResultCacheImpl):  # type: ignore[misc]
        """What is kept of a piece: its types and LLVM's bitcode."""

        def reduce(self, compiled: Any) -> Any:
            described = compiled.fndesc
            described.typemap = described.calltypes = None  # they are not needed, and cannot always be pickled
            return compiled.library.serialize_using_object_code(), described, compiled.environment, compiled.signature

        def rebuild(self, target_context: Any, stored: Any) -> Any:
            (name, bitcode), described, environment, signature = stored
            library = Library(target_context.codegen(), name)
            library.hold(bitcode)
            return compilers.compile_result(
                target_context=target_context,
                typing_context=target_context.typing_context,
                library=library,
                environment=environment,
                entry_point=target_context.get_executable(library, described, environment),
                fndesc=described,
                signature=signature,
                objectmode=False,
                lifted=(),
                reload_init=[],
                referenced_envs=[],
            )

    return Compiler, Stored


_STORED: type[Any] | None = None
try:
    _COMPILER, _STORED = _joining()
    _JOINED: dict[str, Any] = {**_UNCALLED, **_OPTIONS, "pipeline_class": _COMPILER}
except Exception:
    # This Numba is built in another way. Everything works, and takes longer to compile.
    _JOINED = {**_UNCALLED, **_OPTIONS}


class _Kept:
    """The cache of one function, made when it is first needed; see `_forgiving_cache`.

    Most pieces of a step are never looked for, because what they would be compiled into is in the cache itself.
    """

    def __init__(self, function: Callable[..., Any], stored: type[Any] | None) -> None:
        self._function, self._stored = function, stored

    @functools.cached_property
    def _cache(self) -> Any:
        """The cache, or None if there is no folder in which machine code may be kept."""
        with contextlib.suppress(Exception):
            cache = _CACHE(self._function, self._stored)  # type: ignore[misc]
            if _is_trusted(cache.cache_path):
                _folders.add(cache.cache_path)
                return cache
        return None

    @property
    def cache_path(self) -> str | None:
        """The folder, or None."""
        return None if self._cache is None else str(self._cache.cache_path)

    def flush(self) -> None:
        """Forget what is kept of the function."""
        if self._cache is not None:
            self._cache.flush()

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        return None if self._cache is None else self._cache.load_overload(signature, target_context)

    def save_overload(self, signature: Any, data: Any) -> None:
        if self._cache is not None:
            self._cache.save_overload(signature, data)


@functools.cache
def _is_trusted(folder: str) -> bool:
    """Return whether machine code may be kept in a folder; if not, say why, once."""
    fault = why_untrusted(Path(folder), Path(__file__))
    if fault is not None:
        _LOGGER.warning("%s", fault)
    return fault is None


def cache_folders() -> list[str]:
    """Return the folders in which the code of the functions lies that this process has asked for."""
    return sorted(_folders)


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """List the functions that are compiled in this context, without those that are compiled into them."""
    events: Any = importlib.import_module("numba.core.event")
    names: list[str] = []
    depth = 0

    class Counter(events.Listener):  # type: ignore[misc]
        def on_start(self, event: Any) -> None:
            nonlocal depth
            depth += 1

        def on_end(self, event: Any) -> None:
            nonlocal depth
            depth -= 1
            if depth == 0:
                names.append(event.data["dispatcher"].py_func.__qualname__)

    with events.install_listener("numba:compile", Counter()):
        yield names


def compiled(function: Function) -> Function:
    """Compile a function for the types that it is called with, on the first such call.

    The function may close over numbers and over compiled functions: a loop over rows, say, over the activation.
    One compilation of everything, with the choice made by integers inside, was measured too: 9 seconds instead of 2,
    because most of it is never used.
    """
    dispatcher: Any = numba.njit(**_OPTIONS)(_told_apart(function))
    if _CACHE is not None:
        dispatcher._cache = _Kept(function, None)
    return dispatcher  # type: ignore[no-any-return]


def _part_of_others(function: Any, **options: Any) -> Any:
    """Compile a function as a part of others, and keep what was made of it beside the machine code of those."""
    dispatcher: Any = numba.njit(**_JOINED, **options)(function)
    if _CACHE is not None and _STORED is not None:
        dispatcher._cache = _Kept(function, _STORED)
    return dispatcher


def joined(function: Function) -> Function:
    """Compile a function as a part of the compiled functions that call it; a call from Python ends the process.

    A `compiled` function may be joined too: Python can still call it, and its code is compiled into the others as well.
    """
    given: Any = function
    joint: Function = _joint(given.py_func if hasattr(given, "py_func") else _told_apart(given))
    return joint


@functools.cache
def _joint(function: Any) -> Any:
    return _part_of_others(function)


def spliced(function: Function) -> Function:
    """Do as `joined`, and inline the function: it is a piece of a step that has a name so that it can be read."""
    dispatcher: Function = _part_of_others(_told_apart(function), forceinline=True)
    return dispatcher


def inlined_sum(function: Function) -> Function:
    """Compile a function that does nothing but add up into the loops that call it: the compiler orders the sum.

    Numba optimises it by itself first, so that it is summed alike in every loop.
    """
    dispatcher: Function = numba.njit(forceinline=True, **_UNCALLED, **_SUM_OPTIONS)(_told_apart(function))
    return dispatcher


def _field(context: Any, builder: Any, kind: Any, array: Any, name: str) -> Any:
    return context.data_model_manager[kind].get(builder, array, name)


def _view(context: Any, builder: Any, signature: Any, array: Any, offset: Any, shape: list[Any]) -> Any:
    """Write the code of a contiguous view that begins at a number of a contiguous array, without checking its ends.

    The view is a value. What Numba's own functions write goes through memory, and takes longer to compile.
    """
    kind = signature.return_type
    size_of_number = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides, size = [size_of_number], shape[-1]
    for extent in reversed(shape[1:]):
        strides.insert(0, builder.mul(extent, strides[0]))
    for extent in shape[:-1]:
        size = builder.mul(size, extent)
    fields = {
        "nitems": size,
        "itemsize": size_of_number,
        "data": builder.gep(_field(context, builder, signature.args[0], array, "data"), [offset]),
        "shape": cgutils.pack_array(builder, shape),
        "strides": cgutils.pack_array(builder, strides),
    }
    own = context.get_constant_null(kind)
    for name, value in fields.items():
        own = context.data_model_manager[kind].set(builder, own, value, name)
    return own


@intrinsic
def part(context, array, begin, size):  # type: ignore[no-untyped-def]
    """Return ``size`` numbers of a contiguous array from the one with number `begin` on, flat and unchecked.

    A slice looks at signs and ends, which is right of Python, and here much code to compile and to run for nothing.
    """
    if array.layout != "C":
        return None
    kind = types.Array(array.dtype, 1, "C", readonly=not array.mutable)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole, first, count = arguments
        return _view(context, builder, signature, whole, first, [count])

    return kind(array, types.intp, types.intp), build


@intrinsic
def rows_of(context, array, begin, end):  # type: ignore[no-untyped-def]
    """Return some rows of a contiguous matrix, unchecked; as `part` to a slice."""
    if array.layout != "C" or array.ndim != 2:
        return None
    kind = types.Array(array.dtype, 2, "C", readonly=not array.mutable)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole, first, last = arguments
        width = builder.extract_value(_field(context, builder, signature.args[0], whole, "shape"), 1)
        shape = [builder.sub(last, first), width]
        return _view(context, builder, signature, whole, builder.mul(first, width), shape)

    return kind(array, types.intp, types.intp), build


def prefetch(builder: Any, address: Any) -> None:
    """Ask for the cache line of an address, which need not be valid, without waiting for it."""
    pointer = ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [pointer, *[ir.IntType(32)] * 3])
    function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], signature)
    read, all_caches, data = (ir.IntType(32)(number) for number in (0, 3, 1))
    builder.call(function, [builder.bitcast(address, pointer), read, all_caches, data])


@intrinsic
def wanted_soon(context, array, place):  # type: ignore[no-untyped-def]
    """Ask for the cache line of a number of a contiguous array, which may be beyond its end, without waiting for it."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = _field(context, builder, signature.args[0], arguments[0], "data")
        prefetch(builder, builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return types.none(array, types.intp), build
