"""The autoencoders on MNIST's grey values: against PCA, as the beginning of a classifier, and as features.

    TFDS_DATA_DIR=... python benchmarks/autoencoders.py DIR [--rows NAME ...] [--seeds 0 1 2]

A line of JSON goes to DIR/results.jsonl as soon as a row is done for a seed; it is then not run again.

- `bottleneck`: test mean square error a pixel of an `Autoencoder`, 512-384-256, code 10, squared error, the default recipe; PCA's with
  10 and 20 components, from the same training images.
- `stack`, `no pretraining`: test error in % of 784-1000-1000-1000-10, sigmoid, whose layers were trained as denoising autoencoders
  (masking 0.1, 0.2, 0.3; 15 epochs each), or were not; then 36 epochs of fine-tuning on 50,000 images, the epoch taken that is best on the
  other 10,000 training images.
- `plain`, `sparse`, `contractive`: test error in % of a linear classifier (logistic regression) on codes of 1,000 units, one layer.
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import vae_tf

EPOCHS = {"layer": 15, "fine-tuning": 36, "features": 30}
FEATURES = {
    "plain": (vae_tf.Autoencoder, {"code_activation": "sigmoid"}),
    "sparse": (
        vae_tf.SparseAutoencoder,
        {"penalty": "kl", "sparsity": 0.05, "penalty_weight": 1.0},
    ),
    "sparse, l1": (vae_tf.SparseAutoencoder, {"penalty": "l1", "penalty_weight": 0.1}),
    "contractive": (vae_tf.ContractiveAutoencoder, {"penalty_weight": 0.1}),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="*", type=int, default=(0, 1, 2))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    out, images = args.folder / "results.jsonl", vae_tf.load("mnist")
    lines = out.read_text().splitlines() if out.exists() else []
    done = {(line["row"], line["seed"]): line for line in map(json.loads, lines)}
    for row in args.rows:
        for seed in args.seeds:
            if (row, seed) not in done:
                start = time.perf_counter()
                found = ROWS[row](images, seed)
                found |= {"seconds": round(time.perf_counter() - start)}
                done[row, seed] = {"row": row, "seed": seed, **found}
                with out.open("a") as file:
                    file.write(json.dumps(done[row, seed]) + "\n")
            print(json.dumps(done[row, seed]), flush=True)


def bottleneck(images, seed):
    """The autoencoder's error, and PCA's."""
    x = images.x_train.reshape(len(images.x_train), -1) / 255.0
    test = images.x_test.reshape(len(images.x_test), -1) / 255.0
    mean = x.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(x.T))
    left = {}
    for count in (10, 20):
        basis = vectors[:, -count:]
        left[f"pca_{count}"] = float(np.mean((test - mean - (test - mean) @ basis @ basis.T) ** 2))
    model = vae_tf.Autoencoder(
        10, error="squared_error", kernel_initializer="glorot_uniform", seed=seed
    )
    model.compile(vae_tf.training.RECIPES["default"].optimizer(2e-3, 10_000))
    model.fit(images.x_train, batch_size=100, epochs=17, verbose=0)
    again = model.reconstruct(images.x_test).reshape(test.shape)
    return {"mse": float(np.mean((again - test) ** 2)), **left}


def fine_tuned(images, seed, epochs):
    """The test error of the classifier whose layers were pre-trained for so many epochs."""
    train, held = slice(50_000), slice(50_000, None)
    stack = vae_tf.pretrain_stack(images.x_train[train], epochs=epochs, seed=seed, verbose=0)
    keras.utils.set_random_seed(seed)
    model = vae_tf.stacked_classifier(stack, 10)
    steps = 500 * EPOCHS["fine-tuning"]
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        ["accuracy"],
        jit_compile=True,
        steps_per_execution=100,
    )
    x, y = images.x_train / np.float32(255), images.y_train
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", patience=EPOCHS["fine-tuning"], restore_best_weights=True
    )
    history = model.fit(
        x[train], y[train], validation_data=(x[held], y[held]),
        batch_size=100, epochs=EPOCHS["fine-tuning"], callbacks=[best], verbose=0,
    ).history  # fmt: skip
    test = model.evaluate(images.x_test / np.float32(255), images.y_test, verbose=0)[1]
    valid = max(history["val_accuracy"])
    return {"test_error": 100 * (1 - test), "validation_error": 100 * (1 - valid)}


def features(images, seed, name):
    """The test error of logistic regression on the codes."""
    from sklearn.linear_model import LogisticRegression

    kind, options = FEATURES[name]
    model = kind(1000, (), kernel_initializer="glorot_uniform", seed=seed, **options)
    steps = 600 * EPOCHS["features"]
    model.compile(vae_tf.training.RECIPES["default"].optimizer(1e-3, steps))
    history = model.fit(
        images.x_train, batch_size=100, epochs=EPOCHS["features"], verbose=0
    ).history
    codes = [model.code(x) for x in (images.x_train, images.x_test)]
    scale = codes[0].std(axis=0) + 1e-6
    linear = LogisticRegression(max_iter=200, C=0.1).fit(codes[0] / scale, images.y_train)
    wrong = linear.predict(codes[1] / scale) != images.y_test
    last = {name: values[-1] for name, values in history.items() if np.ndim(values[-1]) == 0}
    return {"test_error": 100 * float(wrong.mean()), "history": last}


ROWS = {
    "bottleneck": bottleneck,
    "stack": lambda images, seed: fine_tuned(images, seed, EPOCHS["layer"]),
    "no pretraining": lambda images, seed: fine_tuned(images, seed, 0),
    **{name: lambda images, seed, name=name: features(images, seed, name) for name in FEATURES},
}


if __name__ == "__main__":
    main()
