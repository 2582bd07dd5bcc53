"""The parts of the TFLite reader: one file for each family of operators."""
