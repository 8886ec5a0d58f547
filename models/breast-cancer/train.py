#!/usr/bin/env python3
"""Train the breast cancer demonstration model and write its files.

    python train.py [--out DIR]

writes `breast-cancer.onnx` and `held-out.csv`, by default next to this script.
The data ships with scikit-learn, so nothing is downloaded. Every check runs before the first file is
written, and a failed check ends the script with exit code 1. Run twice on one machine, the script
writes the same bytes.
"""

import argparse
import csv
import io
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

SEED = 2024
HELD_OUT_SHARE = 0.25
HIDDEN_UNITS = 16
# Candidate strengths of the L2 penalty, from weak to strong.
ALPHAS = [0.1, 1.0, 10.0, 100.0]
FOLDS = 5
MIN_ACCURACY = 0.95
MAX_DIFFERENCE = 1e-5

# Opset 17 and IR version 8 belong together, and every current ONNX runtime accepts them.
OPSET = 17
IR_VERSION = 8


def require(condition, message):
    """End the script with exit code 1 unless `condition` holds."""
    if not condition:
        sys.exit(f"error: {message}")


def load_data():
    """Return the features as float32, the labels, the column names and the class names."""
    data = load_breast_cancer()
    # Serving takes float32, so everything below, training included, sees the float32 value.
    features = data.data.astype(np.float32)
    names = [name.replace(" ", "_") for name in data.feature_names]
    return features, data.target, names, list(data.target_names)


def train(features, labels):
    """Fit standardisation and classifier on the training rows; cross-validation picks the penalty."""
    pipeline = Pipeline(
        [
            ("scaler", StandardScaler()),
            (
                "classifier",
                # Few rows and few weights: full-batch L-BFGS converges.
                MLPClassifier(
                    hidden_layer_sizes=(HIDDEN_UNITS,),
                    activation="relu",
                    solver="lbfgs",
                    max_iter=2000,
                    random_state=SEED,
                ),
            ),
        ]
    )
    search = GridSearchCV(
        pipeline,
        {"classifier__alpha": ALPHAS},
        scoring="neg_log_loss",
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=SEED),
    )
    search.fit(features.astype(np.float64), labels)
    return search.best_estimator_


def build_graph(scaler, classifier, classes):
    """Build the ONNX model by hand, from plain ai.onnx operators only."""
    hidden_weight, output_weight = classifier.coefs_
    hidden_bias, output_bias = classifier.intercepts_

    # For two classes scikit-learn trains one logit z, the evidence for class 1, and reports
    # sigmoid(z). softmax([-z/2, z/2]) is the same pair of probabilities, and halving is exact.
    constants = {
        "feature_mean": scaler.mean_,
        "feature_scale": scaler.scale_,
        "hidden_weight": hidden_weight,
        "hidden_bias": hidden_bias,
        "output_weight": np.hstack([-output_weight / 2, output_weight / 2]),
        "output_bias": np.hstack([-output_bias / 2, output_bias / 2]),
    }
    nodes = [
        helper.make_node("Sub", ["features", "feature_mean"], ["centred"], "centre"),
        helper.make_node("Div", ["centred", "feature_scale"], ["standardised"], "standardise"),
        helper.make_node(
            "Gemm", ["standardised", "hidden_weight", "hidden_bias"], ["hidden"], "hidden_layer"
        ),
        helper.make_node("Relu", ["hidden"], ["activated"], "activate"),
        helper.make_node(
            "Gemm", ["activated", "output_weight", "output_bias"], ["logits"], "output_layer"
        ),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "normalise", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "breast-cancer",
        inputs=[
            helper.make_tensor_value_info(
                "features", TensorProto.FLOAT, ["batch", scaler.n_features_in_]
            )
        ],
        outputs=[
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(classes)])
        ],
        initializer=[
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sesemi-models",
        doc_string="Wisconsin diagnostic breast cancer. A demonstration, not a medical device.",
    )
    helper.set_model_props(model, {"classes": ",".join(classes)})
    return model


def run_onnx(model_bytes, features):
    """Run the ONNX model with ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model_bytes, options, providers=["CPUExecutionProvider"]
    )
    return session.run(["probabilities"], {"features": features})[0]


def to_csv(names, features, labels):
    """Return the rows as CSV. The shortest decimal form of a float32 reads back as the same float32."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "label"])
    for row, label in zip(features, labels):
        writer.writerow([*(str(value) for value in row), int(label)])
    return text.getvalue()


def from_csv(text):
    """Read back what `to_csv` wrote, to prove that nothing is lost."""
    rows = list(csv.reader(io.StringIO(text)))[1:]
    features = np.array([[np.float32(value) for value in row[:-1]] for row in rows])
    return features, np.array([int(row[-1]) for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    out = parser.parse_args().out

    features, labels, names, classes = load_data()
    train_x, held_out_x, train_y, held_out_y = train_test_split(
        features, labels, test_size=HELD_OUT_SHARE, stratify=labels, random_state=SEED
    )

    # One thread: the order of floating-point sums must not depend on the number of cores.
    with threadpool_limits(limits=1):
        pipeline = train(train_x, train_y)
        expected = pipeline.predict_proba(held_out_x.astype(np.float64))
    require(list(pipeline.classes_) == [0, 1], "unexpected class order")

    model = build_graph(pipeline["scaler"], pipeline["classifier"], classes)
    onnx.checker.check_model(model, full_check=True)
    model_bytes = model.SerializeToString(deterministic=True)

    actual = run_onnx(model_bytes, held_out_x)
    require(actual.shape == (len(held_out_x), 2) and actual.dtype == np.float32, "unexpected output")
    difference = float(np.abs(actual - expected).max())
    require(difference < MAX_DIFFERENCE, f"ONNX and scikit-learn differ by {difference:.2e}")

    correct = int((actual.argmax(axis=1) == held_out_y).sum())
    accuracy = correct / len(held_out_y)
    require(accuracy >= MIN_ACCURACY, f"held-out accuracy {accuracy:.4f} is below {MIN_ACCURACY}")

    table = to_csv(names, held_out_x, held_out_y)
    read_x, read_y = from_csv(table)
    require(
        np.array_equal(read_x, held_out_x) and np.array_equal(read_y, held_out_y),
        "the CSV does not read back exactly",
    )

    out.mkdir(parents=True, exist_ok=True)
    (out / "breast-cancer.onnx").write_bytes(model_bytes)
    (out / "held-out.csv").write_text(table, encoding="utf-8", newline="")

    print(f"training rows: {len(train_y)}, held-out rows: {len(held_out_y)}")
    print(f"L2 penalty chosen on the training rows: {pipeline['classifier'].alpha}")
    print(f"largest difference from scikit-learn: {difference:.2e}")
    print(f"held-out accuracy: {accuracy:.4f} ({correct} of {len(held_out_y)})")


if __name__ == "__main__":
    main()
