"""TensorFlow's C API through ctypes: a SavedModel, run as a program in another language would run it.

It is written by hand for one reason. A check that an export needs nothing of Python is worth
something only in a process where `tensorflow`, Keras and `vae_tf` are not imported, since importing
them registers operations, gradients and classes. TensorFlow's wheel holds its C library, but no
Python binding of it that does without `import tensorflow`.

`run_in_fresh_process` starts this file as a script, `python -I c_api.py REQUEST RESPONSE`, so it
imports the standard library and NumPy alone. Both files are pickles that one user's process writes
for another.
"""

import ctypes
import importlib.util
import math
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import numpy as np

_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 9: np.int64, 10: np.bool_}
_STRING, _STRING_BYTES = 7, 24  # TF_STRING, and the size of a TF_TString


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("free", ctypes.c_void_p)]


_POINTER, _TEXT, _INT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
_OUTPUTS, _TENSORS = ctypes.POINTER(_Output), ctypes.POINTER(_POINTER)
_FUNCTIONS = {  # the result, then the arguments, as tensorflow/c/c_api.h has them
    "TF_Version": (_TEXT,),
    "TF_GetAllOpList": (ctypes.POINTER(_Buffer),),
    "TF_DeleteBuffer": (None, ctypes.POINTER(_Buffer)),
    "TF_NewStatus": (_POINTER,),
    "TF_GetCode": (_INT, _POINTER),
    "TF_Message": (_TEXT, _POINTER),
    "TF_DeleteStatus": (None, _POINTER),
    "TF_NewGraph": (_POINTER,),
    "TF_DeleteGraph": (None, _POINTER),
    "TF_GraphOperationByName": (_POINTER, _POINTER, _TEXT),
    "TF_NewSessionOptions": (_POINTER,),
    "TF_DeleteSessionOptions": (None, _POINTER),
    "TF_LoadSessionFromSavedModel": (
        _POINTER, _POINTER, _POINTER, _TEXT, ctypes.POINTER(_TEXT), _INT, _POINTER, _POINTER, _POINTER,
    ),
    "TF_CloseSession": (None, _POINTER, _POINTER),
    "TF_DeleteSession": (None, _POINTER, _POINTER),
    "TF_SessionRun": (
        None, _POINTER, _POINTER, _OUTPUTS, _TENSORS, _INT, _OUTPUTS, _TENSORS, _INT,
        _POINTER, _INT, _POINTER, _POINTER,
    ),
    "TF_AllocateTensor": (_POINTER, _INT, ctypes.POINTER(ctypes.c_int64), _INT, _SIZE),
    "TF_DeleteTensor": (None, _POINTER),
    "TF_TensorType": (_INT, _POINTER),
    "TF_NumDims": (_INT, _POINTER),
    "TF_Dim": (ctypes.c_int64, _POINTER, _INT),
    "TF_TensorByteSize": (_SIZE, _POINTER),
    "TF_TensorData": (_POINTER, _POINTER),
    "TF_StringGetDataPointer": (_POINTER, _POINTER),
    "TF_StringGetSize": (_SIZE, _POINTER),
}  # fmt: skip


def library_path():
    """Where TensorFlow's C library is, without importing TensorFlow."""
    for folder in importlib.util.find_spec("tensorflow").submodule_search_locations:
        if found := next(pathlib.Path(folder).glob("libtensorflow_cc.*"), None):
            return found
    raise RuntimeError("TensorFlow was installed without libtensorflow_cc, its C library")


class Library:
    """TensorFlow's shared library, `libtensorflow_cc`; every function of a status checks it.

    Raises:
        OSError: it cannot be loaded.
        AttributeError: it lacks a function of the C API.
    """

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.version = self.TF_Version().decode()

    def checked(self, name, *arguments):
        """Call a function whose last argument is a status; RuntimeError, with its message, if bad."""
        status = self.TF_NewStatus()
        try:
            result = getattr(self, name)(*arguments, status)
            if self.TF_GetCode(status):
                raise RuntimeError(self.TF_Message(status).decode(errors="replace"))
            return result
        finally:
            self.TF_DeleteStatus(status)

    def registered_operations(self):
        """The registry of operations, as the bytes of an `OpList`."""
        buffer = self.TF_GetAllOpList()
        try:
            return ctypes.string_at(buffer.contents.data, buffer.contents.length)
        finally:
            self.TF_DeleteBuffer(buffer)


class Session:
    """A SavedModel, loaded. A context manager, which closes it.

    Args:
        library: a `Library`.
        path: the directory that holds `saved_model.pb`.
        tags: of the graph to load.

    Raises:
        RuntimeError: TensorFlow does not load it; the message is TensorFlow's.
    """

    def __init__(self, library, path, tags=("serve",)):
        self._library, self._graph = library, library.TF_NewGraph()
        options, names = library.TF_NewSessionOptions(), [tag.encode() for tag in tags]
        try:
            self._session = library.checked(
                "TF_LoadSessionFromSavedModel", options, None, str(path).encode(),
                (_TEXT * len(names))(*names), len(names), self._graph, None,
            )  # fmt: skip
        except RuntimeError:
            library.TF_DeleteGraph(self._graph)
            raise
        finally:
            library.TF_DeleteSessionOptions(options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._library.checked("TF_CloseSession", self._session)
        self._library.checked("TF_DeleteSession", self._session)
        self._library.TF_DeleteGraph(self._graph)

    def run(self, feeds, fetches):
        """Feed arrays to tensors and fetch others.

        Args:
            feeds: `{tensor name: array}` of numbers; names as in a signature, `"generate_seed:0"`.
            fetches: tensor names.

        Returns:
            `{tensor name: array}`; strings are arrays of `bytes` objects.

        Raises:
            RuntimeError: TensorFlow does not run it; the message is TensorFlow's.
            ValueError: there is no such tensor, or an array of no known type.
        """
        fed, fetched = self._places(feeds), self._places(fetches)
        inputs, outputs = (_POINTER * len(feeds))(), (_POINTER * len(fetches))()
        try:
            for i, value in enumerate(feeds.values()):
                inputs[i] = self._tensor(np.asarray(value))
            self._library.checked(
                "TF_SessionRun", self._session, None, fed, inputs, len(inputs),
                fetched, outputs, len(outputs), None, 0, None,
            )  # fmt: skip
            return {
                name: self._array(tensor) for name, tensor in zip(fetches, outputs, strict=True)
            }
        finally:
            for tensor in filter(None, (*inputs, *outputs)):
                self._library.TF_DeleteTensor(tensor)

    def _places(self, names):
        places = (_Output * len(names))()
        for place, name in zip(places, names, strict=True):
            operation, _, index = name.partition(":")
            place.operation = self._library.TF_GraphOperationByName(self._graph, operation.encode())
            place.index = int(index or 0)
            if not place.operation:
                raise ValueError(f"The graph has no operation {operation!r}.")
        return places

    def _tensor(self, array):
        numbers = [number for number, dtype in _DTYPES.items() if dtype == array.dtype]
        if not numbers:
            raise ValueError(f"Arrays of {array.dtype} cannot be fed.")
        sizes = (ctypes.c_int64 * array.ndim)(*array.shape)
        tensor = self._library.TF_AllocateTensor(numbers[0], sizes, array.ndim, array.nbytes)
        ctypes.memmove(self._library.TF_TensorData(tensor), array.tobytes(), array.nbytes)
        return tensor

    def _array(self, tensor):
        library, number = self._library, self._library.TF_TensorType(tensor)
        shape = [library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor))]
        data = library.TF_TensorData(tensor)
        if number == _STRING:
            strings = np.empty(math.prod(shape), object)
            for i in range(len(strings)):
                place = data + i * _STRING_BYTES
                start, size = (
                    library.TF_StringGetDataPointer(place),
                    library.TF_StringGetSize(place),
                )
                strings[i] = ctypes.string_at(start, size)
            return strings.reshape(shape)
        if number not in _DTYPES:
            raise ValueError(f"Tensors of type {number} of TF_DataType cannot be read.")
        content = ctypes.string_at(data, library.TF_TensorByteSize(tensor))
        return np.frombuffer(content, _DTYPES[number]).reshape(shape)


def run(library, path, runs):
    """Load a model and make `runs`.

    Args:
        library: the path of `libtensorflow_cc`: `library_path()`.
        path: of the SavedModel.
        runs: a list of `(feeds, fetches)`, as for `Session.run`.

    Returns:
        A dictionary: `version`, TensorFlow's; `error`, why the model was not loaded, or "";
        `outcomes`, of each run its arrays, or a message if it failed; `modules`, what this process
        has imported.
    """
    library = Library(library)
    answer = {"version": library.version}
    try:
        with Session(library, path) as session:
            answer |= {"error": "", "outcomes": [_outcome(session, *run) for run in runs]}
    except RuntimeError as error:
        answer |= {"error": str(error), "outcomes": []}
    return answer | {"modules": sorted({name.partition(".")[0] for name in sys.modules})}


def run_in_fresh_process(library, path, runs, seconds):
    """`run` from a fresh process, on the CPU.

    Args:
        library, path, runs: as for `run`.
        seconds: until the process is killed.

    Raises:
        RuntimeError: the process ended without an answer, or did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, response = pathlib.Path(folder, "request"), pathlib.Path(folder, "response")
        request.write_bytes(pickle.dumps((str(library), str(path), runs)))
        try:
            result = subprocess.run(
                [sys.executable, "-I", str(pathlib.Path(__file__).resolve()), request, response],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            took = f"its process had not ended after {seconds:g} seconds, and was killed"
            message = f"{took}: an endless loop, or a model that needs more time"
            raise RuntimeError(message) from error
        if result.returncode:
            last = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"its process ended with {result.returncode}: {' '.join(last)}")
        return pickle.loads(response.read_bytes())


def _outcome(session, feeds, fetches):
    try:
        return session.run(feeds, fetches)
    except (RuntimeError, ValueError) as error:
        return str(error).partition("\n")[0]


def main(request, response):
    """Read the arguments of `run` from the pickle `request`, and write its answer to `response`."""
    arguments = pickle.loads(pathlib.Path(request).read_bytes())
    pathlib.Path(response).write_bytes(pickle.dumps(run(*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
