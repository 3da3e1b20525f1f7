"""Says what is on a picture: `python predict.py PICTURE [PICTURE...]`. Needs onnxruntime, numpy and pillow only.

Stands beside model.onnx and metrics.json, which says how pictures are prepared. An .npy file, (C, H, W) or
(N, C, H, W), is taken in the units of the images that the network was trained on.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).resolve().parent
TOLD = 3  # classes that are said of each picture, the most probable ones


def read(file: str, words: dict) -> np.ndarray:
    """Normalized images (N, C, H, W), float32, of a file; `words` is what metrics.json says of the input."""
    channels, height, width = words["shape"][1:]
    if file.endswith(".npy"):
        pixels = np.load(file, allow_pickle=False).astype(np.float32).reshape(-1, channels, height, width)
    else:
        if channels not in (1, 3):
            raise ValueError(f"{file}: images of {channels} channels are read from .npy files")
        picture = (
            Image.open(file).convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
        )
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
    session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
    for file in sys.argv[1:]:
        logits = np.asarray(session.run(["logits"], {"images": read(file, known["input"])})[0])
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        for image, shares in enumerate(odds / odds.sum(axis=1, keepdims=True)):
            best = np.argsort(-shares)[:TOLD]
            said = ", ".join(f"{known['classes'][each]} {shares[each]:.1%}" for each in best)
            print(f"{file}{f' [{image}]' if len(odds) > 1 else ''}: {said}")


if __name__ == "__main__":
    main()
