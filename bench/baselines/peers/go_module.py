"""Building a Go module with the libvips that sharp ships for npm, so that all peers have the same libvips.

The package has the library and, in a second package, its headers, but no pkg-config files. libvips is built
there without its deprecated interface. The modules name parts of that interface which they do not need for
resizing: a header declares them, and the linker leaves them unresolved.
"""

import os
import shutil
import subprocess
from pathlib import Path

from bench.baselines.peers.locate import peers_folder
from bench.baselines.peers.npm import install_locked

_LIBVIPS = Path(__file__).with_name("libvips_npm")

_PKG_CONFIG = """Name: {name}
Description: libvips and glib of sharp's npm package
Version: {version}
Cflags: -I{headers} -I{headers}/glib-2.0 -I{library}/glib-2.0/include
Libs: -L{library} -lvips-cpp -Wl,-rpath,{library}
"""

_DEPRECATED = """#include <vips/vips.h>
static inline void im__print_all(void) { vips_object_print_all(); }
"""

_PACKAGES = ("vips", "glib-2.0", "gobject-2.0")


def build(module: str, version: str, target: Path) -> None:
    """Build the command of a module.

    Raises ``subprocess.CalledProcessError``, and ``OSError`` without Go or npm.
    """
    go = shutil.which("go")
    if go is None:
        raise FileNotFoundError("no go on the path; install Go 1.21 or later")
    packages, shim = _install_libvips()
    target.parent.mkdir(parents=True, exist_ok=True)
    # A module of our own that requires it, because "go install" also asks for the list of all its versions.
    (target.parent / "go.mod").write_text(f"module peer\n\ngo 1.21\n\nrequire {module} {version}\n")
    environment = os.environ | {
        "CGO_ENABLED": "1",
        "CGO_CFLAGS": f"-O2 -I{shim}",
        "CGO_LDFLAGS": "-Wl,--unresolved-symbols=ignore-in-object-files",
        "CGO_LDFLAGS_ALLOW": "-Wl,.*",
        "PKG_CONFIG_PATH": str(packages),
    }
    command = [go, "build", "-mod=mod", "-o", str(target), module]
    subprocess.run(command, cwd=target.parent, env=environment, check=True)


def _install_libvips() -> tuple[Path, Path]:
    """Return the folders of its pkg-config files and of the header for what is deprecated."""
    folder = peers_folder() / "libvips"
    install_locked(_LIBVIPS, folder)
    modules = folder / "node_modules" / "@img"
    (shared,) = modules.glob("sharp-libvips-linux-*/lib/libvips-cpp.so.*")
    link = shared.with_name("libvips-cpp.so")
    link.unlink(missing_ok=True)
    link.symlink_to(shared.name)
    version = shared.name.removeprefix("libvips-cpp.so.")
    packages, shim = folder / "pkgconfig", folder / "deprecated"
    packages.mkdir(exist_ok=True)
    for name in _PACKAGES:
        text = _PKG_CONFIG.format(
            name=name,
            version=version,
            headers=modules / "sharp-libvips-dev" / "include",
            library=shared.parent,
        )
        (packages / f"{name}.pc").write_text(text)
    (shim / "vips").mkdir(parents=True, exist_ok=True)
    (shim / "vips" / "vips7compat.h").write_text(_DEPRECATED)
    return packages, shim
