"""Writes a TUF repository with python-tuf: two versions, each way to delegate, each kind of key.

Usage: write_repository.py FOLDER
"""

import hashlib
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

EXPIRES = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)

# Which role names which files. The last two paths look alike: Unicode's forms C and D.
FILES = {
    "targets": ["top.txt"],
    "by-path": ["pool/a/one.deb", "pool/a/two words.deb"],
    "deeper": ["pool/b/three.deb"],
    "by-hash": ["hashed.bin"],
    "bins": ["bins/x", "bins/y", "bins/z"],
    "forms": ["forms/caf\u00e9", "forms/cafe\u0301"],
}


class Writer:
    def __init__(self, folder):
        self.folder = folder
        self.documents = {}
        self.signers = {}
        self.meta = {}

    def sign_and_write(self, role, name=None):
        document = self.documents[role]
        document.signatures.clear()
        for signer in self.signers[role]:
            document.sign(signer, append=True)
        data = document.to_bytes()
        version = document.signed.version
        name = name or f"{version}.{quote(role, '')}.json"
        (self.folder / "metadata" / name).write_bytes(data)
        self.meta[f"{role}.json"] = MetaFile(
            version, len(data), {"sha256": hashlib.sha256(data).hexdigest()}
        )

    def target(self, role, path):
        content = f"the content of {path}".encode()
        file = TargetFile.from_data(path, content, ["sha256", "sha512"])
        file.unrecognized_fields["custom"] = {"role": role}
        self.documents[role].signed.targets[path] = file
        folder, _, name = path.rpartition("/")
        place = self.folder / "targets" / folder / f"{file.hashes['sha256']}.{name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def delegated(self, delegator, role, signer, **how):
        keyid = signer.public_key.keyid
        delegations = self.documents[delegator].signed.delegations
        delegations.keys[keyid] = signer.public_key
        delegations.roles[role] = DelegatedRole(role, [keyid], 1, **how)
        self.add(role, [signer], Targets(expires=EXPIRES))

    def add(self, role, signers, signed):
        self.documents[role] = Metadata(signed)
        self.signers[role] = signers


def main(folder):
    writer = Writer(folder)
    (folder / "metadata").mkdir(parents=True)
    root_signers = [
        CryptoSigner.generate_ed25519(),
        CryptoSigner.generate_ecdsa(),
        CryptoSigner.generate_rsa(),
    ]
    online = CryptoSigner.generate_ecdsa()
    offline = CryptoSigner.generate_rsa()

    root = Root(expires=EXPIRES)
    for signer in root_signers:
        root.add_key(signer.public_key, "root")
    root.roles["root"].threshold = 3
    root.add_key(offline.public_key, "targets")
    root.add_key(online.public_key, "snapshot")
    root.add_key(online.public_key, "timestamp")
    writer.add("root", root_signers, root)
    writer.add("targets", [offline], Targets(expires=EXPIRES))
    writer.add("snapshot", [online], Snapshot(expires=EXPIRES))
    writer.add("timestamp", [online], Timestamp(expires=EXPIRES))
    writer.sign_and_write("root")

    targets = writer.documents["targets"].signed
    targets.delegations = Delegations({}, {})
    hashed = hashlib.sha256(b"hashed.bin").hexdigest()
    writer.delegated("targets", "by-hash", CryptoSigner.generate_ecdsa(),
                     terminating=False, path_hash_prefixes=[hashed[:3]])
    writer.delegated("targets", "by-path", CryptoSigner.generate_ed25519(),
                     terminating=False, paths=["pool/*/*.deb"])
    writer.delegated("targets", "never", CryptoSigner.generate_ed25519(),
                     terminating=False, paths=["unused/*"])
    writer.delegated("targets", "forms", CryptoSigner.generate_rsa(),
                     terminating=True, paths=["forms/*"])
    writer.delegated("targets", "bins", CryptoSigner.generate_ed25519(),
                     terminating=True, paths=["bins/?"])
    writer.documents["by-path"].signed.delegations = Delegations({}, {})
    writer.delegated("by-path", "deeper", CryptoSigner.generate_ecdsa(),
                     terminating=True, paths=["pool/b/*"])

    bin_signer = CryptoSigner.generate_ed25519()
    bins = SuccinctRoles([bin_signer.public_key.keyid], 1, 4, "bin")
    keys = {bin_signer.public_key.keyid: bin_signer.public_key}
    writer.documents["bins"].signed.delegations = Delegations(keys, None, bins)
    for role in bins.get_roles():
        writer.add(role, [bin_signer], Targets(expires=EXPIRES))

    for role, paths in FILES.items():
        for path in paths:
            writer.target(bins.get_role_for_target(path) if role == "bins" else role, path)

    for _ in range(2):
        top = ("root", "snapshot", "timestamp")
        for role in [role for role in writer.documents if role not in top]:
            writer.documents[role].signed.version += 1
            writer.sign_and_write(role)
        snapshot = writer.documents["snapshot"].signed
        snapshot.version += 1
        snapshot.meta = {
            name: file for name, file in writer.meta.items()
            if name not in {f"{role}.json" for role in top}
        }
        writer.sign_and_write("snapshot")
        timestamp = writer.documents["timestamp"].signed
        timestamp.version += 1
        timestamp.snapshot_meta = writer.meta["snapshot.json"]
        writer.sign_and_write("timestamp", "timestamp.json")
        root.version += 1
        writer.sign_and_write("root")


main(Path(sys.argv[1]))
