/* The extension module `native`: an empty Python module, so that setuptools builds and installs the
 * kernels like any extension. library.py calls the functions through ctypes; no other file includes
 * headers of Python or PyTorch. */
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include "common.h"

/* 1 if the kernels were compiled with OpenMP and can use several threads */
EXPORT int is_parallel(void) {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "native", NULL, -1, NULL, NULL, NULL,
                                    NULL, NULL};

PyMODINIT_FUNC PyInit_native(void) { return PyModule_Create(&module); }
