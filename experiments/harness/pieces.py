"""A training loop in pieces that end with a checkpoint each: one whose process was killed goes on from the last.

    FOLDER/qjax-checkpoint_...       those of `qjax.refine`
    FOLDER/account-STEP.json         what the run had spent by that step, and what its callback had gathered

Pieces end where chunks do, so the numbers are those of one loop in one process, bit for bit. The seconds are what was
spent until the checkpoint and what is spent after it. Checkpoints themselves are left out (in the ledger; the callback
sees the clock with what a piece took to read its own, under 0.1 s), and so is what a killed process did after its last
one. What the next process does again before it goes on (data, compilation, the start) was charged once, and is reported
as `Account.repeated`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.harness.presentation.cells import write_atomic
from qjax import Ledger, Refined
from qjax.descend import checkpoint, log

if TYPE_CHECKING:
    from experiments.harness.account import Account

SECONDS = 30.0  # a piece takes about that long, or one chunk


def in_pieces(
    account: Account,
    loop: Callable[..., Refined],
    num_steps: int,
    chunk_size: int,
    callback: Callable[..., bool | None],
    phase: str,
    folder: Path,
    gathered: list[Any],
) -> Refined:
    """loop(num_steps, callback, checkpoint) of a `Refine` with that chunk_size, up to num_steps, booked under `phase`.

    gathered: what the callback fills, for JSON; it is filled here with what an earlier process left. What is damaged in
    the folder is thrown away, and the loop begins anew. Errors: OSError; those of the loop.
    """
    done, chunks = _resumed(account, folder, gathered), 1
    while True:
        stop = min(done + chunks * chunk_size, num_steps)
        start = account.seconds
        refined = account.run(phase, _piece, account, loop, stop, callback, phase, folder, gathered)
        chunks = max(1, round(SECONDS * chunks / max(account.seconds - start, 1e-3)))
        done = refined.step
        if done >= num_steps or refined.info["status"] != "finished":
            return refined


def _piece(
    account: Account,
    loop: Callable[..., Refined],
    stop: int,
    callback: Callable[..., bool | None],
    phase: str,
    folder: Path,
    gathered: list[Any],
) -> Refined:
    """One piece, up to step `stop`. Seconds of its checkpoints are left out when it is over: what the callback reads
    still has those of reading the last one, about 0.1 s for a million parameters.
    """
    start = account.seconds

    def heard(step: int, *seen: Any) -> bool | None:
        ended = callback(step, *seen)
        spent = account.seconds - start
        if step == stop or ended:
            with account.aside():  # before the checkpoint, which must not be without it
                record = {"ledger": account.standing(phase, spent).to_dict(), "gathered": gathered}
                text = json.dumps(record | {"repeated": account.repeated}, allow_nan=False)
                write_atomic(_path(folder, step), text)
        return ended

    refined = loop(stop, heard, folder)
    account.leave_out(refined.info["seconds"]["checkpoint"])
    return refined


def _resumed(account: Account, folder: Path, gathered: list[Any]) -> int:
    """The step of the folder's checkpoint, 0 where there is none; with the seconds and what was gathered until then."""
    with account.aside():
        try:
            # Where there is a folder, what stores checkpoints is imported, too: now, since that takes seconds.
            folder.mkdir(parents=True, exist_ok=True)
            found = checkpoint.restore(folder, lambda record: log.check(folder, log.End(*record["metrics"])))
            if found is None:
                return 0
            step = int(found.arrays["state/step"])
            record = json.loads(_path(folder, step).read_text())
            ledger, repeated = Ledger.from_dict(record["ledger"]), float(record["repeated"])
            kept = list(record["gathered"])
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            return 0
    gathered[:] = kept
    account.resume(ledger, repeated)
    return step


def _path(folder: Path, step: int) -> Path:
    return folder / f"account-{step}.json"
