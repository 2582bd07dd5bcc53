"""Metadata hook: says where `edgeq-runtime` comes from.

In a checkout it is the folder beside this file; with EDGEQ_RELEASE set, or in an sdist (which
does not hold that folder's project), it is the release of the same version.
"""

import os
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class RuntimeDependency(MetadataHookInterface):
    """Fills `project.dependencies`: the runtime first, then the hook's own table."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Pin the runtime to this version, or to this folder."""
        runtime = Path(self.root) / "runtimes" / "python"
        in_checkout = (runtime / "pyproject.toml").is_file() and not os.environ.get("EDGEQ_RELEASE")
        where = f" @ {runtime.as_uri()}" if in_checkout else f"=={metadata['version']}"
        metadata["dependencies"] = [f"edgeq-runtime{where}", *self.config["dependencies"]]
