"""Builds the extensions; everything else stands in pyproject.toml.

JVQ_FAST_DEBUG=1     safety checks of Cython on, C assertions on, kernels for any processor, -O1 -g
JVQ_FAST_SANITIZE=1  address and undefined-behaviour sanitizers in our extensions, checks as in a release
JVQ_FAST_THREAD=1    thread sanitizer in our extensions, checks as in a release
JVQ_FAST_FUZZ=1      tells a fuzzer which branches are taken and what is compared (tests/fuzz), checks as in a release

Each variant has its own build directory, so that no build takes objects of another.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

VARIANT = (
    "debug"
    if os.environ.get("JVQ_FAST_DEBUG") == "1"
    else "sanitize"
    if os.environ.get("JVQ_FAST_SANITIZE") == "1"
    else "thread"
    if os.environ.get("JVQ_FAST_THREAD") == "1"
    else "fuzz"
    if os.environ.get("JVQ_FAST_FUZZ") == "1"
    else "release"
)
CHECKED = VARIANT == "debug"
BASE = f"build/{VARIANT}"
TAG = sys.implementation.cache_tag

DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "embedsignature": False,
    "auto_pickle": False,
    "autotestdict": False,
    "boundscheck": CHECKED,
    "wraparound": CHECKED,
    "initializedcheck": CHECKED,
    "cdivision": not CHECKED,
    # Cython can't compile these two into functions without the GIL; overflow is the sanitizers' to find.
    "nonecheck": False,
    "overflowcheck": False,
}

# No contraction to fused multiply-add: it would round once where float(text) rounds twice.
COMPILE = [] if sys.platform == "win32" else ["-std=c11", "-ffp-contract=off", "-fvisibility=hidden"]
LINK = []
if VARIANT == "release" and COMPILE:
    COMPILE += ["-O3"]
elif VARIANT == "debug":
    # The kernels for any processor: the other variants run those for this one.
    COMPILE += ["-O1", "-g", "-UNDEBUG", "-DJVQ_PORTABLE"]
elif VARIANT == "sanitize":
    COMPILE += [
        "-O1",
        "-g",
        "-UNDEBUG",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-fno-wrapv",  # CPython's own flag, which would hide signed overflow
    ]
    LINK += ["-fsanitize=address,undefined"]
elif VARIANT == "thread":
    # The sanitizer does not know fences. What they order are atomics, which never race.
    COMPILE += ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", "-fsanitize=thread", "-Wno-tsan"]
    LINK += ["-fsanitize=thread"]
elif VARIANT == "fuzz":
    COMPILE += ["-O1", "-g", "-UNDEBUG"]
# What tells the fuzzer must not be told of itself.
TOLD = ["-fsanitize-coverage=trace-pc,trace-cmp"]
TELLER = ["tests/fuzz/coverage.c"] if VARIANT == "fuzz" else []

# For the kernels only: what Cython writes is not ours to mend, and is compiled without warnings.
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wpointer-arith",
    "-Wcast-align",
    "-Wwrite-strings",
    "-Wundef",
    "-Wvla",
]

# Every C and .pxd file counts for every extension: a change of a shared header must never leave a stale object.
DEPENDS = [
    str(path)
    for pattern in ("jvq_fast/include/*.h", "src/*.c", "jvq_fast/*.pxd", *TELLER)
    for path in sorted(Path().glob(pattern))
]


def extension(name: str, *sources: str) -> Extension:
    return Extension(
        f"jvq_fast.{name}",
        [*(f"src/{source}" for source in sources), *TELLER],
        include_dirs=["jvq_fast/include"],
        depends=DEPENDS,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
    )


EXTENSIONS = [
    extension("meter", "meter.pyx"),
    extension("ring", "ring.pyx"),
    extension("native", "native.pyx"),
    extension("decoder", "decoder.pyx", "trades.c", "snapshots.c", "rows.c", "decimal.c", "inflate.c"),
    extension("listener", "listener.pyx"),
    extension("spinner", "spinner.pyx"),
]


class BuildExtensions(build_ext):
    """Cythonizes into the build directory, warns about our C alone, and writes down the picows that was built with."""

    def build_extensions(self) -> None:
        import Cython
        import numpy as np
        from Cython.Build import cythonize

        self.picows_version, self.picows_pxd = installed_picows()
        # What no file's time shows; left unnoticed, objects of another picows would get this one's hash.
        settings = repr((self.picows_pxd, Cython.__version__, np.__version__, DIRECTIVES, COMPILE, LINK, TOLD))
        stamp = Path(self.build_temp, "settings")
        if not stamp.exists() or stamp.read_text() != settings:
            self.force = True
        # Beside the C that Cython writes a header would come before ours; builds of an older layout left some.
        for stale in Path(f"build/cython/{VARIANT}/src").glob("*.h"):
            stale.unlink()
            self.force = True
        for ext in self.extensions:
            ext.include_dirs.append(np.get_include())
            ext.sources[0] = cythonize(
                Extension(ext.name, ext.sources[:1], language="c"),
                build_dir=f"build/cython/{VARIANT}",
                compiler_directives=DIRECTIVES,
                force=self.force,
                quiet=True,
            )[0].sources[0]
        self.set_flags_by_file()
        super().build_extensions()
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(settings)

    def set_flags_by_file(self) -> None:
        compile_one = getattr(self.compiler, "_compile", None)
        if compile_one is None or self.compiler.compiler_type != "unix":
            return

        def compile_with_flags(obj, src, ext, cc_args, extra_postargs, pp_opts):
            ours = Path(src).parent == Path("src")
            told = TOLD if VARIANT == "fuzz" and src not in TELLER else []
            compile_one(obj, src, ext, cc_args, [*extra_postargs, *told, *(WARNINGS if ours else ["-w"])], pp_opts)

        self.compiler._compile = compile_with_flags

    def run(self) -> None:
        if TELLER:
            self.parallel = False  # all extensions link the same object
        super().run()
        target = Path(self.built_with())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            '"""Written by the build: what the extensions beside this file were compiled with."""\n\n'
            f'VARIANT = "{VARIANT}"\n'
            f'PICOWS_VERSION = "{self.picows_version}"\n'
            f'PICOWS_PXD_SHA256 = "{self.picows_pxd}"\n'
        )

    def built_with(self) -> str:
        return str(Path(self.get_ext_fullpath("jvq_fast.ring")).with_name("_built_with.py"))

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), self.built_with()]


def installed_picows() -> tuple[str, str]:
    """Version and SHA-256 of picows.pxd of the picows that this build cimports."""
    spec = importlib.util.find_spec("picows")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("building jvq_fast needs picows: pip install 'picows>=2.3.1,<2.4'")
    pxd = Path(spec.submodule_search_locations[0], "picows.pxd")
    return importlib.metadata.version("picows"), hashlib.sha256(pxd.read_bytes()).hexdigest()


setup(
    # The examples ship with the package, so that `jvq-fast demo --strategy` runs the one that its users copy.
    packages=[*find_packages(include=["jvq_fast", "jvq_fast.*"]), "jvq_fast.examples"],
    package_dir={"jvq_fast.examples": "examples"},
    ext_modules=EXTENSIONS,
    cmdclass={"build_ext": BuildExtensions},
    options={} if VARIANT == "release" else {"build": {"build_base": BASE, "build_lib": f"{BASE}/lib-{TAG}"}},
)
