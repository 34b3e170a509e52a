"""Compile the kernels if there is a C compiler; everything else is in pyproject.toml.

Peewit works without them, only more slowly (PyTorch's operators do the same work), so a failed
build is a warning, not an error.
"""

import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

# No -ffast-math: it would change the handling of denormal numbers in the whole process.
OPTIMISE = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]

KERNELS = Path("src/peewit/kernels")


class BuildKernels(build_ext):
    def build_extensions(self) -> None:
        if self.compiler.compiler_type != "msvc":
            threads = ["-fopenmp"] if self.accepts("-fopenmp") else []
            for extension in self.extensions:
                extension.extra_compile_args = OPTIMISE + threads
                extension.extra_link_args = threads
        super().build_extensions()

    def accepts(self, flag: str) -> bool:
        """Return whether the compiler accepts the flag: Apple's compiler has no OpenMP."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try.c")
            source.write_text(
                "#include <omp.h>\nint threads(void) { return omp_get_max_threads(); }"
            )
            try:
                objects = self.compiler.compile([str(source)], folder, extra_postargs=[flag])
                self.compiler.link_shared_object(
                    objects, str(Path(folder, "try.so")), extra_postargs=[flag]
                )
            except (CompileError, LinkError):
                return False
        return True


# Free-threaded Python has no limited API: the kernels are not compiled there
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "peewit.kernels.native",
            sorted(path.as_posix() for path in KERNELS.glob("*.c")),
            # also puts the headers into the source distribution
            depends=sorted(path.as_posix() for path in KERNELS.glob("*.h")),
            py_limited_api=LIMITED,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
