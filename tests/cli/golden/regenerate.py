"""Write the golden texts of tests/cli anew: run it, then read the difference before committing."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

if __name__ == "__main__":
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    command = [sys.executable, "-m", "pytest", "-q", str(FOLDER.parent)]
    environment = {**os.environ, "REGENERATE_GOLDEN": "1"}
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)
