"""What runs on this host, read and asked anew; nothing here changes anything."""

from __future__ import annotations

import time
from typing import Any

from . import history, recycle
from .config import Config
from .context import Context
from .files import read_object
from .gate import probe
from .journal import Transaction
from .locks import describe, holder
from .prune import whole


def verify(context: Context) -> dict[str, Any]:
    """Compare what is planned with what runs and what answers; `differences` are sentences."""
    config = context.config
    slot, record = config.live_slot(), config.live_record()
    if slot is None or not record:
        missing = [f"{config.app} has no live release on this host"]
        return {"live": record.public(), "fleet": config.fleet, "differences": missing}
    proof = probe(context, slot, record.plan.workers)
    seen = proof.as_dict()
    lock, transaction = holder(config), Transaction.read(config)
    cut_off = "" if lock is not None or transaction is None else transaction.release
    checks = [
        (seen["running"] == proof.planned, f"{proof.planned} workers planned, {seen['running']} run"),
        (
            seen["answering"] == seen["running"],
            f"{seen['running']} workers run, {seen['answering']} answer {config.health_path}"
            + (f" ({proof.trouble})" if proof.trouble else ""),
        ),
        (
            proof.releases in ((), (record.release,)),
            f"release {record.release} is recorded as live, the workers run {', '.join(proof.releases)}",
        ),
        (
            # Who went back has the settings of that time, on purpose.
            record.fingerprint == config.fingerprint or record.settings == "kept",
            "the settings on disk are not those that the workers run with: deploy",
        ),
        (not cut_off, f"a switch to release {cut_off} was cut off: {config.app}-release recover"),
    ]
    return {
        "live": record.public(),
        "label": history.label_of(config, record.release),
        "fleet": config.fleet,
        "slot": slot,
        "plan": record.plan.as_dict(),
        **seen,
        "differences": [text for good, text in checks if not good],
    }


def status(context: Context) -> dict[str, Any]:
    """Return what `verify` does, and what could be switched to."""
    config = context.config
    live, marks = config.live_record().release, history.bad(config)
    there = whole(config)
    back = history.rollback_candidates(config)
    return {
        **verify(context),
        "app": config.app,
        "rollback_to": back[0] if back else None,
        "no_rollback": "" if back else no_rollback(config),
        "releases": [
            {
                "id": name,
                "label": history.label_of(config, name),
                "live": name == live,
                "bad": marks.get(name, {}).get("reason"),
            }
            for name in there
        ],
        "origin": read_object(config.release_dir(live) / ".complete").get("origin") or {} if live else {},
        "lock": holder(config),
        "recycling": recycling(context),
    }


def recycling(context: Context) -> dict[str, Any]:
    """Return what the live workers take at most (MiB of PSS), the limit (0: none), why recycling stopped, if it did."""
    config = context.config
    return {
        "limit_mib": config.worker_memory_max_mib,
        "largest_mib": round(max((worker.mib for worker in recycle.sizes(context)), default=0)),
        "replaced": sum(line.get("result") == recycle.REPLACED for line in history.entries(config, history.RECYCLED)),
        "stopped": recycle.stopped(config),
    }


def no_rollback(config: Config) -> str:
    """Say why there is nothing to go back to."""
    marks = history.bad(config)
    bad = [name for name in dict.fromkeys(history.served(config)) if name in marks]
    more = f"; marked bad: {', '.join(bad)}" if bad else ""
    return f"no other release has served on this host and is still there{more}"


def as_text(result: dict[str, Any]) -> list[str]:
    """Return a status as lines to read."""
    lines = []
    if "planned" in result:
        live = result["live"]
        release = history.named(live["release"], result.get("label") or "")
        lines = [
            f"release {release} in the {result['slot']} slot, live since {time.ctime(live['at'])}",
            f"workers: {result['planned']} planned, {result['running']} running, {result['answering']} answering",
            f"engine: {live['engine']}",
            f"planned: {result['plan']['reason']}",
            *([f"fleet: {result['fleet']}"] if result["fleet"] else []),
            *(f"note: {note}" for note in result["plan"].get("notes", [])),
        ]
    if "rollback_to" in result:
        back = result["rollback_to"]
        labels = {entry["id"]: entry.get("label") or "" for entry in result["releases"]}
        to = history.named(back or "", labels.get(back, ""))
        lines.append(f"rollback: to {to}" if back else f"rollback: {result['no_rollback']}")
        if origin := result.get("origin"):
            changed = f", with {origin['changes']} uncommitted changes" if origin.get("changes") else ""
            commit = f"commit {origin['commit']}{changed}, " if origin.get("commit") else ""
            lines.append(f"origin: {commit}built by {origin.get('by')}")
        lines += [f"bad: {entry['id']}: {entry['bad']}" for entry in result["releases"] if entry["bad"]]
        said = result["recycling"]
        if said["limit_mib"]:
            lines.append(
                f"recycling: a worker takes {said['largest_mib']} MiB at most, {said['limit_mib']:g} are allowed; "
                + (f"stopped: {said['stopped']}" if said["stopped"] else f"{said['replaced']} replaced so far")
            )
        if result["lock"] is not None:
            lines.append(f"lock: {describe(result['lock'])}")
    for entry in result.get("tuned", {}).get("rounds", ()):
        figures = f"{entry['throughput']:g} a second, p50 {entry['p50_ms']:g} ms, p99 {entry['p99_ms']:g} ms"
        memory = f"{entry['cpu_ms']:g} ms of CPU each, {entry['pss_mib']:g} MiB"
        lines.append(f"round {entry['round']}: {entry['workers']} workers, {figures}, {memory}")
    lines += [f"note: {note}" for note in result.get("tuned", {}).get("notes", ())]
    return lines


def history_lines(config: Config) -> list[str]:
    """Return the history as lines to read, oldest first; behind it, which workers were recycled."""
    lines = []
    for entry in history.entries(config):
        when = time.strftime("%F %T", time.localtime(entry.get("at", 0)))
        way = f"{entry.get('from') or '-'} -> {history.named(str(entry.get('to')), str(entry.get('label') or ''))}"
        done = f"{entry.get('result')} in {entry.get('seconds')} s, by {entry.get('by')}"
        line = f"{when}  {entry.get('verb')!s:<9} {way:<28} {done}"
        lines.append(line + (f": {entry['reason']}" if entry.get("reason") else ""))
    for entry in history.entries(config, history.RECYCLED):
        when = time.strftime("%F %T", time.localtime(entry.get("at", 0)))
        line = f"{when}  recycle   worker {entry.get('worker')} with {entry.get('mib')} MiB: {entry.get('result')}"
        lines.append(line + (f": {entry['reason']}" if entry.get("reason") else ""))
    return lines
