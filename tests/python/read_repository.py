"""Updates from a TUF repository with python-tuf's own client, and downloads target files from it.

Usage: read_repository.py ROOT METADATA_URL TARGETS_URL FOLDER TARGET...
"""

import sys
from pathlib import Path

from tuf.ngclient import Updater, UpdaterConfig


def main(root, metadata_url, targets_url, folder, *targets):
    metadata, downloads = Path(folder, "metadata"), Path(folder, "downloads")
    metadata.mkdir(parents=True, exist_ok=True)
    downloads.mkdir(exist_ok=True)
    updater = Updater(
        str(metadata),
        metadata_url,
        target_dir=str(downloads),
        target_base_url=targets_url,
        config=UpdaterConfig(prefix_targets_with_hash=True),
        bootstrap=Path(root).read_bytes(),
    )
    updater.refresh()
    for target in targets:
        info = updater.get_targetinfo(target)
        if info is None:
            sys.exit(f"nobody names {target}")
        print(updater.download_target(info))


main(*sys.argv[1:])
