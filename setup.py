"""Build the native kernels where there is a compiler; everything else is in pyproject.toml.

Peewit works without them (PyTorch's own operators then do the same work, more slowly), so a
failed build is a warning and not an error.
"""

import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

# Not -ffast-math: it would change how the whole process treats denormal numbers.
OPTIMISE = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]

KERNELS = Path("src/peewit/kernels")


class BuildKernels(build_ext):
    def build_extensions(self) -> None:
        if self.compiler.compiler_type != "msvc":
            threads = ["-fopenmp"] if self.understands("-fopenmp") else []
            for extension in self.extensions:
                extension.extra_compile_args = OPTIMISE + threads
                extension.extra_link_args = threads
        super().build_extensions()

    def understands(self, flag: str) -> bool:
        """Try the flag: Apple's compiler has no OpenMP, and there is no asking it."""
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


# Pythons without the global lock have no limited interface, and so install without the kernels
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "peewit.kernels.native",
            sorted(path.as_posix() for path in KERNELS.glob("*.c")),
            depends=sorted(
                path.as_posix() for path in KERNELS.glob("*.h")
            ),  # they come with the sources
            py_limited_api=LIMITED,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
