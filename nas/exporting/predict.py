"""Says what is on a picture: `python predict.py PICTURE [PICTURE...]`. Needs onnxruntime, numpy and pillow only.

Stands beside model.onnx and metrics.json, which says how pictures are prepared. An .npy file, (C, H, W) or
(N, C, H, W), is taken in the units of the images that the network was trained on.

Exit code: 0; 2 where a file cannot be read.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).resolve().parent
MOST_BYTES = 2**31  # of a model: what its format can hold
TOLD = 3  # classes that are said of each picture, the most probable ones


def read(file: str, words: dict) -> np.ndarray:
    """Normalized images (N, C, H, W), float32, of a file; `words` is what metrics.json says of the input."""
    channels, height, width = words["shape"][1:]
    if file.endswith(".npy"):
        pixels = np.load(file, allow_pickle=False).astype(np.float32)
        pixels = pixels[None] if pixels.ndim == 3 else pixels
        if pixels.ndim != 4 or pixels.shape[1:] != (channels, height, width):
            raise ValueError(f"images of {pixels.shape[1:]}, not of {(channels, height, width)}")
    else:
        if channels not in (1, 3):
            raise ValueError(f"images of {channels} channels are read from .npy files")
        picture = Image.open(file)
        if picture.mode == "F":
            raise ValueError("floating-point pixels have no known range")
        if picture.mode.startswith("I"):  # 16-bit grey: Pillow would clip it to a byte
            picture = Image.fromarray((np.asarray(picture) / 257).astype(np.uint8))
        picture = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
        low, high = words["range"]  # black and white, in the units of the training images
        shares = np.asarray(picture, dtype=np.float32).reshape(1, height, width, channels) / 255
        pixels = low + (high - low) * shares.transpose(0, 3, 1, 2)
    mean, std = (np.array(words[name], dtype=np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    return (pixels - mean) / std


def main() -> None:
    """Prints for each picture the most probable classes."""
    if len(sys.argv) < 2:
        sys.exit("python predict.py PICTURE [PICTURE...]")
    known = json.loads((HERE / "metrics.json").read_text(encoding="utf-8"))
    if (HERE / "model.onnx").stat().st_size > MOST_BYTES:
        sys.exit(f"model.onnx is larger than {MOST_BYTES:,} bytes")
    session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
    for file in sys.argv[1:]:
        try:
            images = read(file, known["input"])
        except (OSError, EOFError, ValueError, Image.DecompressionBombError) as error:
            print(f"{file} cannot be read: {error}", file=sys.stderr)
            sys.exit(2)
        logits = np.asarray(session.run(["logits"], {"images": images})[0])
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        for image, shares in enumerate(odds / odds.sum(axis=1, keepdims=True)):
            best = np.argsort(-shares)[:TOLD]
            said = ", ".join(f"{known['classes'][each]} {shares[each]:.1%}" for each in best)
            print(f"{file}{f' [{image}]' if len(odds) > 1 else ''}: {said}")


if __name__ == "__main__":
    main()
