"""What calibration keeps of a tensor: fixed size, mergeable, whatever the number of samples."""
