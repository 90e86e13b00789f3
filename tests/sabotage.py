"""Known sabotages: each is done to a copy of the package, and has to turn the suite red.

Run as a script it does all of them, or those named, and says which tests noticed::

    python tests/sabotage.py [--all-tests] [NAME ...]

``tests/test_sabotage.py`` does the same, so that the watchfulness of the suite is itself tested.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
FAILED = 1
"""pytest's exit status for failed tests; any other (no tests, a usage error) would prove nothing."""


@dataclass(frozen=True)
class Sabotage:
    """One change to the package, and the test, as pytest names it, that has to notice it."""

    name: str
    path: str
    was: str
    becomes: str
    watched_by: str


SABOTAGES = (
    Sabotage(
        "a device names arrays that are not stored yet",
        "devices/handover.py",
        "    return event.stored.done() and event.stored.exception() is None\n",
        "    return True\n",
        "tests/devices/test_recording.py::test_events_are_handed_out_up_to_the_first_that_is_not_stored",
    ),
    Sabotage(
        "files outside of the allowed roots are read",
        "foreign/roots.py",
        "        if not below:\n",
        "        if not resolved:\n",
        "tests/foreign/test_refused.py"
        "::test_paths_that_lead_out_of_the_allowed_roots_are_refused[AD_HDF5-up]",
    ),
    Sabotage(
        "subscribers are told before the journal has it",
        "documents/announcer.py",
        "        begin, end = self._append(raw, is_edge=",
        "        self._tell(raw)\n        raw, told = [], raw\n        begin, end = self._append(told, is_edge=",
        "tests/bluesky/test_writer_announcing.py"
        "::test_a_document_is_announced_when_an_outsider_finds_it_in_the_journal_and_its_pixels_on_disk",
    ),
    Sabotage(
        "documents are announced before the frames are stored",
        "documents/run_storage.py",
        "                asset.publish(count)\n            self._announcer.announce(lines, stored)\n",
        "                self._announcer.announce(lines, stored)\n                lines = lines[:0]\n"
        "                asset.publish(count)\n",
        "tests/bluesky/test_writer_announcing.py"
        "::test_a_document_is_announced_when_an_outsider_finds_it_in_the_journal_and_its_pixels_on_disk",
    ),
    Sabotage(
        "frames go to the index beside their own",
        "documents/announcing.py",
        "        return self.placed - 1\n",
        "        return (self.placed - 1) ^ 1\n",
        "tests/bluesky/test_writer_arrays.py::test_every_dtype_in_either_byte_order_comes_back[?-<]",
    ),
    Sabotage(
        "a datum names the frame after its own",
        "documents/announcing.py",
        'kwargs = {"point_number": index}',
        'kwargs = {"point_number": max(index - 1, 0)}',
        "tests/bluesky/test_writer_arrays.py::test_every_layout_of_one_to_five_axes_comes_back[C-1]",
    ),
    Sabotage(
        "a stream_datum names the event after its own",
        "documents/announcing.py",
        "(seq_num, seq_num + 1))",
        "(seq_num + 1, seq_num + 2))",
        "tests/bluesky/test_stream_assets.py"
        "::test_each_document_is_valid_and_says_exactly_what_is_stored[zarr]",
    ),
    Sabotage(
        "a failure is swallowed",
        "documents/failure.py",
        "            raise self.error\n",
        "            return\n",
        "tests/bluesky/test_writer_failures.py"
        "::test_what_storage_fails_at_is_raised_by_the_next_document_and_at_stop_the_same_object[write]",
    ),
    Sabotage(
        "a failed write ends in nothing",
        "documents/run_storage.py",
        "        if failure is not None:\n            raise failure\n",
        "",
        "tests/crash/test_failures.py::test_failure_at_one_event_spares_those_before_it[zarr-fill]",
    ),
    Sabotage(
        "frames are placed by seq_num",
        "documents/run_writer.py",
        "frame._replace(place=frame.asset.place())",
        'frame._replace(place=doc["seq_num"] - 1)',
        "tests/bluesky/test_writer_devices.py"
        "::test_a_device_that_was_reconfigured_to_another_shape_gets_a_second_asset",
    ),
    Sabotage(
        "the device's buffer is used again too early",
        "documents/intake.py",
        "        if not self._copies and array",
        "        if array",
        "tests/bluesky/test_writer_devices.py"
        "::test_the_frame_is_believed_not_the_device[returns the same buffer]",
    ),
    Sabotage(
        "memory is given back before the frame is stored",
        "documents/pipeline.py",
        "        while _has_ended_head(self._unstored):\n            if self._unstored[0].is_to_begin_anew():\n",
        "        while self._unstored:\n            if False:\n",
        "tests/bluesky/test_writer_buffer.py::test_a_full_buffer_makes_the_producer_wait_and_loses_no_frame",
    ),
    Sabotage(
        "a hot pool shows what was not announced",
        "documents/tasks.py",
        "elif self.pool is not None and is_announced:",
        "elif self.pool is not None:",
        "tests/bluesky/test_writer_hot.py::test_events_that_are_not_stored_leave_their_room",
    ),
    Sabotage(
        "a descriptor is not held back",
        "documents/run_writer.py",
        '        self._descriptors[doc["uid"]] = _Descriptor(doc)\n',
        '        self._descriptors[doc["uid"]] = _Descriptor(doc)\n'
        '        self._release(doc["uid"], {}, {})\n',
        "tests/bluesky/test_writer_devices.py"
        "::test_the_frame_is_believed_not_the_device[says nothing before the first trigger]",
    ),
    Sabotage(
        "recovery forgets what was announced last",
        "upkeep/dead_runs.py",
        "        end_journal(path, dead.end, stop)\n",
        "        end_journal(path, max(0, dead.end - 400), stop)\n",
        "tests/crash/test_kill.py::test_killed_writer_loses_no_announced_event[zarr-0-datum]",
    ),
    Sabotage(
        "events are announced before their pixels are synced",
        "backends/zarr_writing.py",
        '"file_io_sync": syncs',
        '"file_io_sync": False',
        "tests/crash/test_durability.py"
        "::test_what_is_announced_is_synced_when_the_level_says_so_and_not_before[zarr-event]",
    ),
    Sabotage(
        "a frame whose sync failed is given up",
        "documents/tasks.py",
        "        self.is_begun_anew = True\n        self.error, self.pendings = errors[0], []\n        return True\n",
        "        return False\n",
        "tests/crash/test_written_anew.py"
        "::test_frame_whose_sync_failed_is_written_anew_to_another_file[zarr-writer]",
    ),
    Sabotage(
        "a disk that hangs is noticed only by who waits for it",
        "documents/pipeline.py",
        "            self._tell_who_hangs,\n",
        "            lambda: None,\n",
        "tests/bluesky/test_hanging.py"
        "::test_disk_that_hangs_while_a_plan_sleeps_is_told_at_once_and_raised_by_the_next_document",
    ),
    Sabotage(
        "outsiders see an event more than there are",
        "documents/announcing.py",
        "            self._sink.publish(count - self._first)\n",
        "            self._sink.publish(count - self._first + 1)\n",
        "tests/crash/test_at_once.py::test_outsider_sees_what_was_announced_and_nothing_else[zarr]",
    ),
    Sabotage(
        "each run keeps a descriptor",
        "documents/journal.py",
        "            os.close(self._fd)\n            self._fd = -1\n",
        "            self._fd = -1\n",
        "tests/crash/test_endurance.py::test_nothing_grows_from_run_to_run",
    ),
    Sabotage(
        "frames that the root refused are not written again where the run goes on",
        "documents/run_storage.py",
        "            self._write(task)\n            if task.is_to_begin_anew():\n                self._write(task)\n",
        "            task.error = None\n            task.pendings.clear()\n",
        "tests/unit/test_second_place.py"
        "::test_frames_that_were_not_announced_are_written_again_in_the_second_place[write-datum]",
    ),
    Sabotage(
        "torn files of a dead run stay where they are",
        "upkeep/left_behind.py",
        '        elif is_here and fault.kind != "missing":\n',
        '        elif is_here and fault.kind == "foreign":\n',
        "tests/crash/test_reconcile.py"
        "::test_torn_files_of_a_dead_run_are_quarantined_one_by_one_and_reading_them_says_where_they_are[zarr]",
    ),
    Sabotage(
        "the torn end of a logbook is written on to",
        "upkeep/logbook.py",
        "        os.ftruncate(fd, end)\n        if end == 0:\n",
        "        end = os.fstat(fd).st_size\n        if end == 0:\n",
        "tests/unit/test_logbook.py::test_torn_tail_is_left_out_and_cut_before_the_next_entry",
    ),
    Sabotage(
        "the name of a file is not synced",
        "backends/tiff.py",
        '        if self._sync == "event":\n            sync_folder(self._path)\n',
        "        pass\n",
        "tests/crash/test_lost_power.py"
        "::test_whoever_was_told_finds_it_though_all_is_lost_that_was_not_synced[tiff-datum-writer]",
    ),
    Sabotage(
        "documents are announced before the journal is synced",
        "documents/journal.py",
        "        write_all(self._fd, data)\n        if sync:\n            self._fsync()\n",
        "        write_all(self._fd, data)\n",
        "tests/crash/test_lost_power.py"
        "::test_whoever_was_told_finds_it_though_all_is_lost_that_was_not_synced[zarr-stream-writer]",
    ),
    Sabotage(
        "pixels are read back and compared with nothing",
        "upkeep/asset_check.py",
        "        if digest is not None and found != digest:\n",
        "        if not found:\n",
        "tests/upkeep/test_verify.py"
        "::test_damage_to_an_event_is_told_by_its_kind_and_hides_no_other_event[tiff-stream-flipped]",
    ),
    Sabotage(
        "what is claimed takes memory before a file is looked at",
        "backends/own_files.py",
        "    if claimed > max(SMALL_BYTES, found * most_expansion):\n",
        "    if claimed < 0:\n",
        "tests/fuzz/test_hostile.py::test_what_is_claimed_is_checked_before_memory_is_taken[tiff shape]",
    ),
    Sabotage(
        "the place of a lone plane is believed",
        "backends/tiff_layout.py",
        "    return offset % ALIGNMENT == 0 and any(",
        "    return offset > 0 or any(",
        "tests/fuzz/test_damage.py::test_no_flipped_bit_beside_the_pixels_of_a_tiff_file_shows_other_pixels[shape0]",
    ),
    Sabotage(
        "a run that died is said to hold more than it does",
        "upkeep/left_behind.py",
        '"received": received, "stored": stored, "lost"',
        '"received": received, "stored": stored + 1, "lost"',
        "tests/fuzz/test_histories.py::test_a_store_answers_as_a_dict_does_whatever_has_happened_to_it",
    ),
    Sabotage(
        "a pin keeps nothing from being deleted",
        "upkeep/protection.py",
        "    if pin is not None:\n",
        "    if pin is None and run is None:\n",
        "tests/upkeep/test_deleting.py::test_what_is_protected_stays_until_that_is_waived",
    ),
    Sabotage(
        "files are moved to the trash before that is on record",
        "upkeep/run_lock.py",
        "        Logbook(root).append(entry, require=require)\n        self.is_settled = False\n",
        "        self.is_settled = False\n        for one in places_in([entry]).values():\n"
        "            place(root, one)\n        Logbook(root).append(entry)\n",
        "tests/crash/test_deleting.py::test_what_dies_at_a_call_is_finished_or_undone[tiff-stream-purge]",
    ),
    Sabotage(
        "the only copy on disk of what is in memory is purged",
        "upkeep/purging.py",
        "    return index.record(one.copy_of).format == MemoryBackend.spec\n",
        "    return index.record(one.copy_of).format is None\n",
        "tests/upkeep/test_deleting.py::test_the_only_copy_on_disk_of_what_is_in_memory_is_not_purged",
    ),
    Sabotage(
        "a thinned time point leaves nothing",
        "upkeep/retention_plan.py",
        "if thinning and is_only_thinned and not stay:",
        "if thinning and is_only_thinned and not one.nbytes:",
        "tests/unit/test_retention_plan.py",
    ),
    Sabotage(
        "a copy in another format is not read back",
        "upkeep/recoding.py",
        "                if digest != digests[event]:\n",
        "                if not digest:\n",
        "tests/upkeep/test_conversion.py",
    ),
    Sabotage(
        "a plan that has gone stale is done all the same",
        "retention.py",
        "        if again.fingerprint != plan.fingerprint or not plan.uids <= again.uids:\n",
        "        if not again.fingerprint:\n",
        "tests/upkeep/test_retention.py",
    ),
    Sabotage(
        "the checksum of a journal's line is not compared",
        "documents/journal.py",
        "int(checksum[1], 16) != crc32c(raw[: checksum.start()]):",
        "not checksum[1]:",
        "tests/unit/test_journal.py::test_a_flipped_bit_of_a_line_is_never_taken_for_what_it_says",
    ),
    Sabotage(
        "what comes home is compared with nothing",
        "upkeep/bringing.py",
        "            if digest is not None and read != digest:\n",
        "            if not read:\n",
        "tests/unit/test_homecoming.py::test_copy_that_is_not_what_was_announced_is_put_away_and_made_again",
    ),
    Sabotage(
        "what comes home is not synced",
        "upkeep/copying.py",
        "    sync_tree(target)\n",
        "    target.stat()\n",
        "tests/crash/test_homecoming.py"
        "::test_run_that_is_home_is_whole_though_all_is_lost_that_was_not_synced[zarr]",
    ),
    Sabotage(
        "a marker is written in place",
        "opening.py",
        "        create_file(temporary, data)\n",
        "        marker.write_bytes(data)\n        create_file(temporary, data)\n",
        "tests/crash/test_every_step.py"
        "::test_process_that_dies_while_it_makes_a_store_leaves_one_that_can_be_made",
    ),
    Sabotage(
        "files are put away before it is on record",
        "upkeep/quarantine.py",
        "    Logbook(root).append(*map(_entry, new))\n"
        "    left: dict[Path, None] = {}\n    reached: dict[Path, None] = {}\n    for one in planned:\n"
        "        source, target = root / one.path, root / one.now\n        make_folders(target.parent)\n"
        "        source.rename(target)\n        left[source.parent] = reached[target.parent] = None\n",
        "    left: dict[Path, None] = {}\n    reached: dict[Path, None] = {}\n    for one in planned:\n"
        "        source, target = root / one.path, root / one.now\n        make_folders(target.parent)\n"
        "        source.rename(target)\n        left[source.parent] = reached[target.parent] = None\n"
        "    Logbook(root).append(*map(_entry, new))\n",
        "tests/crash/test_recovery_dies.py"
        "::test_recovery_that_dies_inside_itself_is_finished_by_the_next[tiff]",
    ),
    Sabotage(
        "a short write is taken for a whole one",
        "files.py",
        "    while view:\n        view = view[os.write(fd, view) :]\n",
        "    os.write(fd, view)\n",
        "tests/crash/test_faulty_calls.py::test_refused_call_fails_its_run_loudly_and_no_other[tiff-datum]",
    ),
    Sabotage(
        "who waits for events is given those that are there",
        "stored.py",
        "        if _announced(extents) < events:\n            return None\n"
        "        array = _array(places, watch, of, index, extents)\n"
        "        return None if array is None or len(array) < events else array\n",
        "        return _array(places, watch, of, index, extents)\n",
        "tests/crash/test_live_reading.py"
        "::test_who_asks_beyond_what_is_stored_waits_or_is_told_to_ask_again[zarr-False]",
    ),
    Sabotage(
        "a line is believed whose checksum is that of other bytes",
        "documents/journal.py",
        "        raise ValueError(\n"
        '            "its checksum is that of other bytes; take it away if the line was changed on purpose"\n'
        "        )\n",
        "        pass\n",
        "tests/fuzz/test_damage.py::test_a_number_in_a_journal_that_was_flipped_is_not_read",
    ),
)


def copy(folder: Path) -> None:
    """Copy the project to ``folder``."""
    unwanted = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
    shutil.copytree(PROJECT, folder, ignore=unwanted, dirs_exist_ok=True)


def apply(sabotage: Sabotage, folder: Path) -> None:
    """Copy the project to ``folder`` and do the sabotage there; what it changes must stand there once."""
    copy(folder)
    path = folder / "gently_bluesky" / sabotage.path
    text = path.read_text("utf-8")
    if text.count(sabotage.was) != 1:
        raise SystemExit(
            f"{sabotage.name}: {sabotage.path} holds {text.count(sabotage.was)} times: {sabotage.was}"
        )
    path.write_text(text.replace(sabotage.was, sabotage.becomes), "utf-8")


def outcome_of(folder: Path, watched_by: Sequence[str]) -> tuple[int, str]:
    """Run tests in the copy until one fails; return pytest's exit status, and what it said.

    They get a temporary folder of their own: in the common one pytest would first sweep what earlier runs left.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        done = subprocess.run(
            [*command, "--basetemp", str(Path(temporary, "tests")), *watched_by],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    return done.returncode, done.stdout + done.stderr


def noticed_by(said: str) -> list[str]:
    """Return the tests that failed, as pytest names them."""
    lines = [line for line in said.splitlines() if line.startswith("FAILED ")]
    return [line.removeprefix("FAILED ").partition(" - ")[0] for line in lines]


def main() -> None:
    """Do the sabotages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all-tests", action="store_true", help="run the whole suite, not only the tests that watch"
    )
    parser.add_argument("names", nargs="*", help="parts of the names of sabotages; all without")
    arguments = parser.parse_args()
    unnoticed = 0
    for sabotage in SABOTAGES:
        if arguments.names and not any(name in sabotage.name for name in arguments.names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            apply(sabotage, Path(folder))
            everything = ["tests", "--ignore=tests/test_sabotage.py"]
            watched_by = everything if arguments.all_tests else [sabotage.watched_by]
            status, said = outcome_of(Path(folder), watched_by)
        red = status == FAILED
        noticed = noticed_by(said)
        print(
            f"{'red  ' if red else 'GREEN'}  {sabotage.name}\n       {noticed[0] if noticed else said[-300:]}"
        )
        unnoticed += not red
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
