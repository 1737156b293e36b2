"""The command ``doctor``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from flyxr.cli import base

if TYPE_CHECKING:
    import argparse

_MARKS = {"ok": "ok", "note": "note", "wrong": "WRONG"}


def add_doctor(commands: base.Commands) -> None:
    """Add the command ``doctor``."""
    parser = base.add_command(
        commands,
        "doctor",
        _doctor,
        "check that flyxr works on this machine, and say what to do if it does not",
        example="flyxr doctor --json",
        description="Looks at versions, cores, memory, GPU, disk and cache, lists the ensembles at hand, writes a "
        "store, and compares a simulated second of each engine with expected responses. Exits with 1 if something is "
        "wrong.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, to report a problem")


def _doctor(options: argparse.Namespace) -> int:
    from flyxr import diagnosis

    findings = []
    for finding in diagnosis.examine():
        findings.append(finding)
        if not options.json:
            print(f"{_MARKS[finding.status]:6} {finding.topic:16} {finding.text}", flush=True)
            if finding.way_out:
                print(f"{'':6} {'':16} -> {finding.way_out}", flush=True)
    n_wrong = sum(finding.status == "wrong" for finding in findings)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    elif n_wrong:
        print(f"\n{n_wrong} of {len(findings)} are wrong.")
    else:
        print("\nOK: flyxr works here. Start with `flyxr demo`.")
    return int(n_wrong > 0)
