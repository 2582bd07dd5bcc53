"""An app on the device: load a bundle, classify images. Needs `edgeq-runtime` alone, with the
engine of the bundle: `[onnxruntime]`, or `[litert]` for TFLite.

python app.py digits-rpi5-int8.edgeq eval.npz
"""

import sys

import numpy as np

import edgeq_runtime

with edgeq_runtime.load(sys.argv[1]) as model, np.load(sys.argv[2]) as samples:
    images, labels = samples["image"], samples["y"]
    digits = [int(model.run(image[None])["scores"].argmax()) for image in images]

print("the first ten:", *digits[:10])
print(f"{int((np.array(digits) == labels).sum())} of {len(labels)} images right")
