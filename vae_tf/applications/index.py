"""An index of codes: the nearest to others, exactly or approximately; kept in a file."""

import importlib.util
import pathlib
import zipfile
import zlib

import numpy as np

from vae_tf import files
from vae_tf.applications.sources import source_of
from vae_tf.errors import as_typed, check_choice, check_positive_int, invalid

METRICS = ("euclidean", "cosine")
LINKS = 32  # of a node of the approximate index: faiss's own default
SEARCHED = 128  # nodes that the approximate index looks at, at the least


class Index:
    """Codes, of which the nearest to others are found.

    Args:
        codes: `(N, ...)`; maps of codes are flattened.
        labels: of the codes, `(N,)`, or None.
        approximate: search a graph of neighbours, HNSW (Malkov & Yashunin 2018), by faiss, which does not
            look at every code; else every code is compared, by scikit-learn.
        metric: "euclidean", or "cosine": the distance between codes of length 1, whose square is twice
            one minus the cosine.

    Raises:
        ValueError: codes or labels do not fit, or faiss is not installed.

    Example:
        >>> index = Index(np.eye(3), labels=["a", "b", "c"])
        >>> rows, distances = index.query([[0.9, 0, 0]], k=2)
        >>> index.labels[rows[0, 0]]
        'a'
    """

    def __init__(self, codes, labels=None, approximate=False, metric="euclidean", _graph=None):
        self.metric = check_choice("metric", metric, METRICS)
        self.codes = self._placed(codes)
        self.labels = None if labels is None else np.asarray(labels)
        if labels is not None and self.labels.shape != (len(self.codes),):
            expected = f"a label for each of {len(self.codes)} codes"
            raise invalid("labels", expected, f"labels of shape {self.labels.shape}")
        self.approximate = bool(approximate)
        self._graph = _graph or (_graph_of(self.codes) if approximate else None)
        self._finder = None

    @classmethod
    def of_images(
        cls, source, x, labels=None, approximate=False, metric="euclidean", condition=None, progress=None
    ):  # fmt: skip
        """The index of the codes of images.

        Args:
            source: what `source_of` takes.
            x: images.
            labels, approximate, metric: as for `Index`.
            condition: one for each image, of a model that has one.
            progress: `progress(done, total)`.
        """
        codes = source_of(source).encode(x, condition, progress)
        return cls(codes, labels, approximate, metric)

    def _placed(self, codes):
        """Codes as the metric compares them."""
        codes = _flat("codes", codes)
        if self.metric == "euclidean":
            return codes
        lengths = np.linalg.norm(codes, axis=1, keepdims=True)
        return codes / np.maximum(lengths, np.finfo("float32").tiny)

    def __len__(self):
        return len(self.codes)

    def query(self, codes, k):
        """The k nearest, the nearest first: `(rows, distances)`, each `(num, k)`.

        Args:
            codes: `(num, ...)`, of as many numbers each as those of the index.
            k: at most as many as are in the index.
        """
        codes = self._placed(codes)
        if codes.shape[1] != self.codes.shape[1]:
            expected = f"codes of {self.codes.shape[1]} numbers, as those of the index"
            raise invalid("codes", expected, f"{codes.shape[1]}")
        if check_positive_int("k", k) > len(self):
            raise invalid("k", f"at most the {len(self)} codes of the index", as_typed("k", k))
        if self.approximate:
            self._graph.hnsw.efSearch = max(SEARCHED, k)
            squares, rows = self._graph.search(codes, k)
            return rows, np.sqrt(np.maximum(squares, 0))
        if self._finder is None:
            from sklearn.neighbors import NearestNeighbors

            self._finder = NearestNeighbors(algorithm="brute").fit(self.codes)
        distances, rows = self._finder.kneighbors(codes, k)
        return rows, distances

    def query_images(self, source, x, k, condition=None, progress=None):
        """The k nearest to images: `query` of their codes."""
        return self.query(source_of(source).encode(x, condition, progress), k)

    def save(self, path):
        """Write the index to a file, aside and then renamed."""
        arrays = {"codes": self.codes, "metric": np.array(self.metric)}
        if self.labels is not None:
            arrays["labels"] = self.labels
        if self.approximate:
            arrays["graph"] = faiss_module().serialize_index(self._graph)
        with files.aside(path) as scratch, open(scratch, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path):
        """The index that `save` wrote. (The graph of a stranger's file is not checked: load what you trust.)

        Raises:
            ValueError: there is none, or it is damaged; or it needs faiss, which is not installed.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise invalid("index", "a file that Index.save wrote", repr(str(path)))
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            codes, metric = arrays["codes"], str(arrays["metric"])
        except (
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            received = f"{str(path)!r}, which is none or is damaged ({error})"
            raise invalid("index", "a file that Index.save wrote", received) from error
        graph = None if "graph" not in arrays else _read_graph(path, arrays["graph"], codes)
        return cls(codes, arrays.get("labels"), graph is not None, metric, _graph=graph)


def _read_graph(path, content, codes):
    """faiss's graph of a file, which is of the codes beside it."""
    try:
        graph = faiss_module().deserialize_index(content)
    except RuntimeError as error:
        received = f"{str(path)!r}, whose graph is damaged"
        raise invalid("index", "a file that Index.save wrote", received) from error
    if (graph.ntotal, graph.d) != codes.shape:
        received = f"{str(path)!r}, whose graph is of other codes"
        raise invalid("index", "a file that Index.save wrote", received)
    return graph


def _flat(argument, codes):
    """Codes as float32 `(N, numbers)`, in one piece of memory."""
    codes = np.asarray(codes)
    if codes.ndim < 2 or not codes.size or codes.dtype.kind not in "buif":
        expected = "numbers of shape (N, ...), one code at least"
        raise invalid(argument, expected, f"{codes.dtype} of shape {codes.shape}")
    codes = np.ascontiguousarray(codes.reshape(len(codes), -1), "float32")
    if not np.isfinite(codes).all():
        raise invalid(argument, "finite numbers", "NaN or infinity")
    return codes


def faiss_module():
    """faiss, or the word that it is missing."""
    if importlib.util.find_spec("faiss") is None:
        hint = 'pip install "vae_tf[retrieve]"'
        raise invalid("approximate", "False where faiss is not installed", "True", hint)
    import faiss

    return faiss


def _graph_of(codes):
    """faiss's HNSW of codes. One thread makes it, so that the same codes give the same graph."""
    faiss = faiss_module()
    graph, threads = faiss.IndexHNSWFlat(codes.shape[1], LINKS), faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        graph.add(codes)
    finally:
        faiss.omp_set_num_threads(threads)
    return graph
