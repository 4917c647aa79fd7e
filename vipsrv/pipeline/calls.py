"""libvips operations prepared once and called often.

``pyvips.Operation.call`` looks the arguments of an operation up by name, searches them for images and makes a
``GValue`` for each, at every call: about half of what building a small operation takes. A ``Call`` does so once.
It is for the few operations that almost every request needs; everything else is called the plain way.

Only functions of libvips that pyvips itself uses are called, through pyvips' own binding. Not thread-safe:
the values of the arguments are kept between calls, and a worker has one thread.
"""

from collections.abc import Callable
from typing import Any

import pyvips
from pyvips import GValue, ffi, gobject_lib, vips_lib

_NUMBERS = {
    GValue.gdouble_type: gobject_lib.g_value_set_double,
    GValue.gint_type: gobject_lib.g_value_set_int,
}


class _Argument:
    """One argument of an operation: its name and a value that is set again and again."""

    def __init__(self, operation: pyvips.Operation, name: str) -> None:
        kind = operation.get_typeof(name)
        self._name = ffi.new("char[]", name.encode())
        self._value = GValue()
        self._value.set_type(kind)
        self._set_number: Callable[[Any, Any], None] | None = _NUMBERS.get(kind)

    def fix(self, value: Any) -> None:
        """The value of all calls to come, as pyvips would take it."""
        self._value.set(value)

    def give(self, operation: Any) -> None:
        """Set the operation's argument to the fixed value."""
        gobject_lib.g_object_set_property(operation, self._name, self._value.pointer)

    def pass_on(self, operation: Any, value: Any) -> None:
        """Set the operation's argument to a number, an image or a source; nothing of the latter is kept."""
        holder = self._value.pointer
        if self._set_number is not None:
            self._set_number(holder, value)
            gobject_lib.g_object_set_property(operation, self._name, holder)
        else:
            gobject_lib.g_value_set_object(holder, value.pointer)
            gobject_lib.g_object_set_property(operation, self._name, holder)
            gobject_lib.g_value_set_object(holder, ffi.NULL)

    def fetch(self, operation: Any) -> Any:
        """The result of a built operation: an image, or the bytes of a blob."""
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


class Call:
    """The operation ``name``: its arguments ``inputs`` come with each call, its ``settings`` stay.

    An input is an image, a source, a float or an int. A call returns the argument ``output``: an image, or the
    bytes of a blob. Everything is looked up at the first call, when libvips has been set up.
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
            argument.fix(value)
        self._prepared = True

    def __call__(self, *values: Any) -> Any:
        """Build the operation; its result. Raises ``pyvips.Error``."""
        if not self._prepared:
            self._prepare()
        new = vips_lib.vips_operation_new(self._c_name)
        if new == ffi.NULL:
            raise pyvips.Error(f"no such operation {self._name}")
        operation = ffi.cast("GObject *", new)
        try:
            for argument, value in zip(self._inputs, values, strict=True):
                argument.pass_on(operation, value)
            for argument in self._fixed:
                argument.give(operation)
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
            # As pyvips does: libvips does not own the memory that a picture is read from.
            result._references.extend(getattr(values[0], "_references", ()))  # noqa: SLF001
        return result
