"""Pass tuples of many arrays to compiled code by address.

Numba passes a tuple by passing every field, and an array takes seven numbers or more. A step works with three tuples of
some forty arrays. Each of its functions would get hundreds of arguments, and would store and reload them to reach one
field; the compiler needs a second and more to find out that most of that work is useless.

When Python calls compiled code, a tuple of a class marked with `by_address` is written to memory and stays there until
the call ends. The compiled functions pass on its address and load only the fields that they name.

The tuples of many networks are kept in the rows of an array (`keep`), from which compiled code takes the one that it
wants (`kept_at`). The arrays that they name must live as long as the rows are used.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numba
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, intrinsic, lower_getattr_generic, models, register_model, typeof_impl, unbox

from gpuprop.backends.cpu.compiling import compiled

__all__ = ["ROW_BYTES", "by_address", "keep", "kept_at"]

ROW_BYTES = 2048
"""The bytes of a row that holds a tuple."""

Class = TypeVar("Class", bound=type[tuple[Any, ...]])


def by_address(kind: Class) -> Class:
    """Mark a class of named tuples, so that compiled code receives them by address."""

    @typeof_impl.register(kind)  # type: ignore[untyped-decorator]
    def type_of(value: Any, context: Any) -> _Address:
        return _Address(types.NamedTuple([numba.typeof(field) for field in value], kind))

    return kind


class _Address(types.Type):  # type: ignore[misc]
    """The Numba type of the address of a tuple, whose own type is `content`."""

    def __init__(self, content: Any) -> None:
        self.content = content
        super().__init__(f"Address({content.name})")

    def place(self, name: str) -> int:
        """Return the index of a field."""
        place: int = self.content.fields.index(name)
        return place


@register_model(_Address)
class _AddressModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: _Address) -> None:
        super().__init__(manager, kind, manager.lookup(kind.content).get_data_type().as_pointer())


@infer_getattr
class _Fields(AttributeTemplate):  # type: ignore[misc]
    key = _Address

    def generic_resolve(self, kind: _Address, name: str) -> Any:
        return kind.content.types[kind.place(name)] if name in kind.content.fields else None


@lower_getattr_generic(_Address)  # type: ignore[untyped-decorator]
def _load(context: Any, builder: Any, kind: _Address, address: Any, name: str) -> Any:
    place = kind.place(name)
    model = context.data_model_manager[kind.content.types[place]]
    return model.load_from_data_pointer(builder, cgutils.gep_inbounds(builder, address, 0, place))


@unbox(_Address)  # type: ignore[untyped-decorator]
def _store(kind: _Address, value: Any, c: Any) -> Any:
    """Write the fields of a tuple to memory that lasts as long as the call from Python."""
    address = cgutils.alloca_once(c.builder, c.context.get_value_type(kind).pointee)
    failed = cgutils.false_bit
    for place, field in enumerate(kind.content.types):
        given, own = c.pyapi.tuple_getitem(value, place), cgutils.gep_inbounds(c.builder, address, 0, place)
        if isinstance(field, types.Array):
            # Numba does the same with an array, but makes a copy of it first, and a step takes 0.4 s longer to compile.
            error = c.pyapi.numba_array_adaptor(given, c.builder.bitcast(own, c.pyapi.voidptr))
            wrong = cgutils.is_not_null(c.builder, error)
        else:
            native = c.unbox(field, given)
            c.builder.store(c.context.data_model_manager[field].as_data(c.builder, native.value), own)
            wrong = native.is_error
        failed = c.builder.or_(failed, wrong)
    return NativeValue(address, is_error=failed)


@intrinsic
def _store_in(context, given, rows, i):  # type: ignore[no-untyped-def]
    """Write the fields of a tuple to row i of an array of bytes."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, array, i = arguments
        content = source.type.pointee
        if context.get_abi_sizeof(content) > ROW_BYTES:
            raise TypeError(f"a tuple has {context.get_abi_sizeof(content)} bytes, expected at most {ROW_BYTES}")
        row = _row(context, builder, signature.args[1], array, i, source.type)
        cgutils.raw_memcpy(builder, row, source, context.get_constant(types.intp, 1), context.get_abi_sizeof(content))
        return context.get_dummy_value()

    return types.none(given, rows, types.intp), build


@intrinsic
def kept_at(context, like, rows, i):  # type: ignore[no-untyped-def]
    """Return the tuple in row i, which has the types of the tuple `like`; without rows that tuple itself."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given, array, i = arguments
        kind = signature.args[1]
        n_rows = builder.extract_value(context.make_array(kind)(context, builder, array).shape, 0)
        there = builder.icmp_signed(">", n_rows, n_rows.type(0))
        return builder.select(there, _row(context, builder, kind, array, i, given.type), given)

    return like(like, rows, types.intp), build


def _row(context: Any, builder: Any, kind: Any, array: Any, i: Any, pointer: Any) -> Any:
    """Return the address of a row as one of the given type."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [builder.mul(i, i.type(ROW_BYTES))]), pointer)


@compiled
def keep(given: Any, rows: Any, i: int) -> None:
    """Keep a tuple in row i of an array of shape (n, `ROW_BYTES`), uint8."""
    _store_in(given, rows, i)
