"""Checks the files of `sesemi-paper-models write FOLDER` with nothing of SeSeMI's own code: ONNX's checker and onnxruntime.

Each model must pass ONNX's full check (shape inference included); its scores must be finite, differ between classes and
between images, be of a sensible scale for noise and for smooth images alike, be the same for an image alone and in a batch,
and be those of tests/expected/NAME.txt, which the Rust test compares with another engine. `--write` writes those files.
Exits with 1 on any failure.

    python3 -m venv venv && venv/bin/pip install -r crates/paper-models/requirements.txt
    cargo run -p sesemi-paper-models -- write models && venv/bin/python crates/paper-models/check.py models
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

EXPECTED = Path(__file__).resolve().parent / "tests" / "expected"
NAMES = ["mobilenet-v1", "densenet-121", "resnet-101"]
SHAPE = (3, 224, 224)
IMAGES = 4


def noise(image):
    """Uniform noise of variance 1.02: a hash of each element's place, to the bit what tests/engines.rs makes."""
    count = int(np.prod(SHAPE))
    x = np.arange(count, dtype=np.uint32) + np.uint32(image * count)
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    x ^= x >> 16
    return ((x >> 8).astype(np.float32) / np.float32(2**23) - np.float32(1)).reshape(SHAPE) * np.float32(1.75)


def smooth(image):
    """Seven by seven patches of one colour each, blurred into each other, as neighbouring pixels of a photograph are alike."""
    patches = noise(image)[:, :7, :7]
    at = np.linspace(0, 6, SHAPE[1])
    low = np.minimum(at.astype(int), 5)
    part = (at - low).astype(np.float32)
    rows = patches[:, low] * (1 - part)[:, None] + patches[:, low + 1] * part[:, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part


def must(holds, what):
    if not holds:
        sys.exit(f"FAILED: {what}")


def check_scores(kind, scores):
    must(np.isfinite(scores).all(), f"{kind}: a score is not finite")
    between_classes = scores.std(axis=1).min()
    between_images = scores.std(axis=0).mean()
    print(f"  {kind}: scores from {scores.min():.2f} to {scores.max():.2f}, "
          f"deviation {between_classes:.2f} between classes, {between_images:.3f} between images")
    must(0.5 < between_classes < 100, f"{kind}: the classes' scores do not differ, or are out of scale")
    must(0.01 < between_images, f"{kind}: the scores hardly depend on the image")


def check(path, write):
    print(path.name)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    must((image.name, image.shape, image.type) == ("image", ["N", *SHAPE], "tensor(float)"), "the input is another")
    must((logits.name, logits.shape, logits.type) == ("logits", ["N", 1000], "tensor(float)"), "the output is another")

    def run(images):
        return session.run(["logits"], {"image": np.stack(images).astype(np.float32)})[0]

    batch = run([noise(number) for number in range(IMAGES)])
    check_scores("noise", batch)
    check_scores("smooth", run([smooth(number) for number in range(IMAGES)]))
    alone = run([noise(1)])[0]
    must(np.abs(alone - batch[1]).max() < 1e-3, "an image alone has other scores than in a batch")

    expected = EXPECTED / f"{path.stem}.txt"
    if write:
        expected.parent.mkdir(exist_ok=True)
        expected.write_text("".join(f"{score:.6f}\n" for score in alone))
    difference = np.abs(np.loadtxt(expected) - alone).max()
    print(f"  at most {difference:.1e} from {expected.name}")
    must(difference < 1e-3, f"the scores are not those of {expected.name}")


def main():
    parser = argparse.ArgumentParser(description="Checks the files of `sesemi-paper-models write FOLDER`.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="write tests/expected instead of comparing with it")
    arguments = parser.parse_args()
    for name in NAMES:
        check(arguments.folder / f"{name}.onnx", arguments.write)
    print(f"{len(NAMES)} models are in order, by onnx {onnx.__version__} and onnxruntime {onnxruntime.__version__}")


if __name__ == "__main__":
    main()
