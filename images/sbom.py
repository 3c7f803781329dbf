"""What is in an image, as a CycloneDX document on standard output: `sbom.py IMAGE`, in the image itself.

The Python packages are cyclonedx-py's findings, with licences; the distribution's come from dpkg.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

_CYCLONEDX: Final = (sys.executable, "-m", "cyclonedx_py", "environment", "--of", "JSON", "--sv", "1.6")
_FIELDS: Final = "${Package}\t${Version}\t${Architecture}\n"


def main(image: str) -> None:
    document = json.loads(output(*_CYCLONEDX, "/opt/child/bin/python"))
    document["metadata"]["component"] = {"type": "container", "bom-ref": image, "name": image}
    distribution = release()
    document["components"] += [
        package(distribution, *line.split("\t")) for line in output("dpkg-query", "-W", "-f", _FIELDS).splitlines()
    ]
    text = json.dumps(document, indent=1)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        raise SystemExit(f"the document is not CycloneDX 1.6: {fault}")
    print(text)


def package(distribution: dict[str, str], name: str, version: str, architecture: str) -> dict[str, Any]:
    """A package of the distribution, named as https://github.com/package-url/purl-spec says for deb."""
    suite = f"{distribution['ID']}-{distribution['VERSION_ID']}"
    address = f"pkg:deb/{distribution['ID']}/{name}@{version.replace('+', '%2B').replace(':', '%3A')}"
    purl = f"{address}?arch={architecture}&distro={suite}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def release() -> dict[str, str]:
    """/etc/os-release."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1])
