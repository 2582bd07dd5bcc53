"""An app on the device: how alike are two sentences? Needs `edgeq-runtime[onnxruntime]` alone.

python app.py minilm-rpi5-int8.edgeq "A cat is asleep." "The kitten naps."
"""

import sys
from pathlib import Path

from similarity import feeds
from tokenizer import Tokenizer

import edgeq_runtime

bundle, *sentences = sys.argv[1:]
tokenizer = Tokenizer(Path(__file__).with_name("vocab.txt"))
with edgeq_runtime.load(bundle) as model:
    one, other = (model.run(feeds(tokenizer, text))["embedding"][0] for text in sentences)

print(f"cosine {float(one @ other):.2f}")
