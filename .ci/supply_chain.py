"""The lock file from pip's report, what pip-audit finds in it, and a bill of materials of it (standard library alone).

python .ci/supply_chain.py platform               the platform that a lock made here is for
python .ci/supply_chain.py versions < LOCK        the lock without hashes, for other platforms
python .ci/supply_chain.py lock < REPORT          pip install --report -> lock
python .ci/supply_chain.py findings < ANSWER      pip-audit --format json -> sentences; exit code 1 if there are any
python .ci/supply_chain.py sbom < LOCK            CycloneDX JSON
"""

import json
import platform
import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
PIN = re.compile(r"^([\w.-]+)==([\w.+!]+) \\\n    --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)


def this_platform() -> str:
    """Return the kind of Python and machine, on which the files of the lock can be installed."""
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{platform.python_implementation()} {version}, {platform.system()} {platform.machine()}"


def lock(report: dict, made_for: str) -> str:
    """Return the lock of what pip chose, all but the project itself, with the hash of every file."""
    lines = [f"# The versions that CI runs, made by `make lock`. Hashes are those of the files for:\n# {made_for}"]
    for item in sorted(report["install"], key=lambda item: _name(item["metadata"]["name"])):
        if "archive_info" in item["download_info"]:  # the project is a folder
            digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
            name, version = item["metadata"]["name"], item["metadata"]["version"]
            lines.append(f"{_name(name)}=={version} \\\n    --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


def versions(text: str) -> str:
    """Return the lock without its hashes."""
    return "".join(f"{name}=={version}\n" for name, version, _ in PIN.findall(text))


def findings(answer: dict) -> list[str]:
    """Return a sentence for each distribution with a known vulnerability, and for each that could not be looked up."""
    sentences = []
    for one in answer["dependencies"]:
        if "skip_reason" in one:
            sentences.append(f"{one['name']} was not looked up: {one['skip_reason']}")
        for found in one.get("vulns", []):
            known = ", ".join([found["id"], *found.get("aliases", [])])
            fix = f"take {' or '.join(found['fix_versions'])}" if found["fix_versions"] else "no version mends it yet"
            sentences.append(f"{one['name']} {one['version']}: {known}; {fix}")
    return sentences


def sbom(text: str, project: dict) -> dict:
    """Return the bill of materials (CycloneDX 1.6) of a lock, the same for the same lock."""
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, version, digest in PIN.findall(text)
    ]
    about = {"type": "application", "bom-ref": project["name"], "name": project["name"], "version": project["version"]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": about | {"licenses": [{"license": {"id": project["license"]}}]}},
        "components": components,
        "dependencies": [{"ref": about["bom-ref"], "dependsOn": [one["bom-ref"] for one in components]}],
    }


def main(verb: str) -> int:
    """Do what a verb of the module's sentence says; the exit code."""
    if verb == "platform":
        print(this_platform())
    elif verb == "lock":
        print(lock(json.load(sys.stdin), this_platform()), end="")
    elif verb == "versions":
        print(versions(sys.stdin.read()), end="")
    elif verb == "sbom":
        project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
        print(json.dumps(sbom(sys.stdin.read(), project), indent=1))
    else:
        found = findings(json.load(sys.stdin))
        print("\n".join(found) or "no known vulnerability")
        return int(bool(found))
    return 0


def _name(name: str) -> str:
    """The name as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
