"""libvips operations that are prepared once and called often, and a fast way to read an image's properties.

At every call ``pyvips.Operation.call`` looks up the arguments of an operation by name, searches them for
images and makes a ``GValue`` for each. That takes 0.1 to 0.15 ms of the 0.2 to 0.5 ms of a call. A
``PreparedOperation`` does it once. It is meant for the few operations that almost every request needs; all
others are called through pyvips.

This module calls only those functions of libvips that pyvips itself uses, through pyvips' own binding. It is
not thread-safe: the values of arguments are kept between calls, and a worker has one thread.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pyvips
from pyvips import GValue, ffi, gobject_lib, vips_lib

_NUMBERS = {
    GValue.gdouble_type: gobject_lib.g_value_set_double,
    GValue.gint_type: gobject_lib.g_value_set_int,
}


class _Argument:
    """One argument of an operation: its name, and a reusable ``GValue``."""

    def __init__(self, operation: pyvips.Operation, name: str) -> None:
        kind = operation.get_typeof(name)
        self._name = ffi.new("char[]", name.encode())
        self._value = GValue()
        self._value.set_type(kind)
        self._set_number: Callable[[Any, Any], None] | None = _NUMBERS.get(kind)

    def set_fixed(self, value: Any) -> None:
        """Set the value for all later calls; any value that pyvips accepts."""
        self._value.set(value)

    def pass_fixed(self, operation: Any) -> None:
        """Set the operation's argument to the fixed value."""
        gobject_lib.g_object_set_property(operation, self._name, self._value.pointer)

    def pass_value(self, operation: Any, value: Any) -> None:
        """Set the operation's argument to a number, an image or a source. No reference to it is kept."""
        holder = self._value.pointer
        if self._set_number is not None:
            self._set_number(holder, value)
            gobject_lib.g_object_set_property(operation, self._name, holder)
        else:
            gobject_lib.g_value_set_object(holder, value.pointer)
            gobject_lib.g_object_set_property(operation, self._name, holder)
            gobject_lib.g_value_set_object(holder, ffi.NULL)

    def fetch(self, operation: Any) -> Any:
        """Return the result of an operation that was built: an image, or the bytes of a blob."""
        holder = self._value.pointer
        gobject_lib.g_object_get_property(operation, self._name, holder)
        if holder.g_type == GValue.blob_type:
            size = ffi.new("size_t *")
            data = vips_lib.vips_value_get_blob(holder, size)
            result = ffi.unpack(ffi.cast("char *", data), size[0])
            gobject_lib.g_value_unset(holder)
            gobject_lib.g_value_init(holder, GValue.blob_type)
            return result
        pointer = ffi.cast("VipsImage *", gobject_lib.g_value_get_object(holder))
        gobject_lib.g_object_ref(pointer)
        gobject_lib.g_value_set_object(holder, ffi.NULL)
        return pyvips.Image(pointer)


class PreparedOperation:
    """The libvips operation ``name``. The arguments ``inputs`` are given at each call; ``settings`` are
    fixed.

    An input is an image, a source, a float or an int. A call returns the argument ``output``: an image, or
    the bytes of a blob. All lookups happen at the first call, because libvips must have been set up.
    """

    def __init__(self, name: str, *inputs: str, output: str = "out", **settings: Any) -> None:
        self._name = name
        self._c_name = name.encode()
        self._input_names = inputs
        self._output_name = output
        self._settings = settings
        self._prepared = False

    def _prepare(self) -> None:
        operation = pyvips.Operation.new_from_name(self._name)
        self._inputs = [_Argument(operation, name) for name in self._input_names]
        self._output = _Argument(operation, self._output_name)
        self._fixed = [_Argument(operation, name) for name in self._settings]
        for argument, value in zip(self._fixed, self._settings.values(), strict=True):
            argument.set_fixed(value)
        self._prepared = True

    def __call__(self, *values: Any) -> Any:
        """Build the operation and return its result. Raises ``pyvips.Error``."""
        if not self._prepared:
            self._prepare()
        new = vips_lib.vips_operation_new(self._c_name)
        if new == ffi.NULL:
            raise pyvips.Error(f"no such operation {self._name}")
        operation = ffi.cast("GObject *", new)
        try:
            for argument, value in zip(self._inputs, values, strict=True):
                argument.pass_value(operation, value)
            for argument in self._fixed:
                argument.pass_fixed(operation)
            built = vips_lib.vips_cache_operation_build(new)
            if built == ffi.NULL:
                vips_lib.vips_object_unref_outputs(ffi.cast("VipsObject *", new))
                raise pyvips.Error(f"unable to call {self._name}")
        finally:
            gobject_lib.g_object_unref(operation)
        operation = ffi.cast("GObject *", built)
        try:
            result = self._output.fetch(operation)
        finally:
            vips_lib.vips_object_unref_outputs(ffi.cast("VipsObject *", built))
            gobject_lib.g_object_unref(operation)
        if isinstance(result, pyvips.Image):
            # As pyvips does: libvips does not own the memory that an image is read from.
            result._references.extend(getattr(values[0], "_references", ()))  # noqa: SLF001
        return result


class Shape(NamedTuple):
    """Width and height in pixels, number of bands, and the names of the band format and the colour space."""

    width: int
    height: int
    bands: int
    format: str
    interpretation: str


def shape(image: pyvips.Image) -> Shape:
    """Read these five properties of an image, in the time that pyvips takes for one."""
    # A VipsImage begins with its GObject.
    pointer = ffi.cast("GObject *", image.pointer)
    values = []
    for name, value, _ in _shape_values():
        gobject_lib.g_object_get_property(pointer, name, value)
        if value.g_type == GValue.gint_type:
            values.append(gobject_lib.g_value_get_int(value))
        else:
            values.append(_enum_name(value.g_type, gobject_lib.g_value_get_enum(value)))
    return Shape(*values)


@cache
def _shape_values() -> list[tuple[Any, Any, GValue]]:
    pixel = pyvips.Image.black(1, 1)
    values = []
    for name in Shape._fields:
        value = GValue()
        value.set_type(pixel.get_typeof(name))
        values.append((ffi.new("char[]", name.encode()), value.pointer, value))
    return values


@cache
def _enum_name(kind: int, number: int) -> Any:
    return GValue.from_enum(kind, number)
