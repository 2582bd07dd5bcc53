"""The parts of the TFLite writer: the file, the emitter, and one module per family of operators."""
