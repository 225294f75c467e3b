"""Builds of the image LMDB that do not come to their end, and go on where they stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest
from conftest import REPOSITORY
from image_shop import SIZE, Shop, contents, small_portions

from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.description import DESCRIPTION_KEY, Description, State
from adapter4rec.data.images.writing import DatabaseWriter
from adapter4rec.utils.errors import UserError


@pytest.fixture
def empty_shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def shop(empty_shop: Shop) -> Shop:
    return empty_shop.filled()


@pytest.fixture(autouse=True)
def several_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    small_portions(monkeypatch)


def run_build(settings: ImageLmdbSettings, before: str) -> subprocess.CompletedProcess[str]:
    """Build in a process and a session of its own, after some lines of Python."""
    values = {name: value for name, value in settings.plain().items() if value is not None}
    code = (
        "import os, signal, resource\n"
        # A shell starts what runs in its background with Ctrl-C ignored, and that would be inherited.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from adapter4rec.data.images import writing\n"
        "from adapter4rec.data.images.building import ImageLmdbSettings, build\n"
        "from adapter4rec.utils.errors import run_main\n"
        "writing._RECORDS_PER_TRANSACTION, writing._SMALLEST_MAP = 8, 1 << 16\n"
        "put, number = writing.DatabaseWriter.put, 0\n"
        "def counted(self, name, value):\n"
        "    global number\n"
        "    number += 1\n"
        "    put(self, name, value)\n"
        "    at(number)\n"
        "writing.DatabaseWriter.put = counted\n"
        f"{before}\n"
        f"run_main(lambda: build(ImageLmdbSettings(**{values!r})) and 0)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )


class TestInterrupted:
    @pytest.fixture
    def whole(self, shop: Shop) -> dict[bytes, bytes]:
        shop.add("broken", b"")
        into = shop.folder / "whole.lmdb"
        build(shop.settings(into=into, missing="skip"))
        return contents(into)

    @pytest.mark.parametrize(("end", "code", "least"), [("SIGKILL", -9, 24), ("SIGTERM", 143, 29)])
    def test_killed(self, shop: Shop, whole: dict[bytes, bytes], end: str, code: int, least: int) -> None:
        settings = shop.settings(missing="skip", workers=4)
        ran = run_build(settings, f"at = lambda n: n == 30 and os.kill(os.getpid(), signal.{end})")
        assert ran.returncode == code
        found = contents(settings.into)
        assert 1 + least <= len(found) <= 1 + 30  # a transaction of 8 at least; with time to flush, all
        assert Description.from_bytes(found[DESCRIPTION_KEY]).state is State.BUILDING
        with pytest.raises(UserError, match="incomplete LMDB"):
            ImageDatabase(settings.into).pixels(b"B001", SIZE)
        build(settings)
        assert contents(settings.into) == whole

    def test_going_on_writes_only_what_is_not_there(
        self, shop: Shop, whole: dict[bytes, bytes], capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = shop.settings(missing="skip")
        put = DatabaseWriter.put
        seen: list[bytes] = []

        def failing(writer: DatabaseWriter, name: bytes, value: bytes) -> None:
            put(writer, name, value)
            seen.append(name)
            if len(seen) == 30:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DatabaseWriter, "put", failing)
            with pytest.raises(KeyboardInterrupt):
                build(settings)
            assert "run the same command again" in capsys.readouterr().err
            assert len(contents(settings.into)) == 31  # what waited is written
            build(settings)
        assert len(seen) == len(set(seen)) == 60
        assert contents(settings.into) == whole

    def test_files_that_go_between_two_goes(self, shop: Shop, whole: dict[bytes, bytes]) -> None:
        settings = shop.settings(missing="skip")
        run_build(settings, "at = lambda n: n == 30 and os.kill(os.getpid(), signal.SIGKILL)")
        (shop.images / f"{shop.names[0]}.jpg").unlink()
        assert build(settings).left_out == (b"broken",)
        assert set(shop.left_out()) == {"broken"}
        assert contents(settings.into) == whole

    @pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
    def test_a_killed_build_leaves_no_process(self, shop: Shop, whole: dict[bytes, bytes]) -> None:
        items, into = shop.settings().items, shop.folder / "shop.lmdb"
        held_up = shop.images / f"{shop.names[-2]}.jpg"
        data = held_up.read_bytes()
        held_up.unlink()
        os.mkfifo(held_up)  # the build waits here for bytes until it is killed
        command = [sys.executable, str(REPOSITORY / "build_lmdb_hm.py"), "--items", str(items)]
        options = ["--images", str(shop.images), "--into", str(into), "--missing", "skip"]
        process = subprocess.Popen(
            [*command, *options, "--size", str(SIZE), "--workers", "4"],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        writer = opened_when_read(held_up, process)
        running = processes_of_session(process.pid)
        process.kill()
        process.wait()
        os.close(writer)
        assert running == {process.pid}  # another process could outlive the build
        assert not processes_of_session(process.pid)
        held_up.unlink()
        held_up.write_bytes(data)
        build(shop.settings(missing="skip"))
        assert contents(into) == whole

    def test_ctrl_c(self, shop: Shop) -> None:
        settings = shop.settings(workers=4)
        ran = run_build(settings, "at = lambda n: n == 30 and os.killpg(0, signal.SIGINT)")
        assert ran.returncode == 130
        assert "run the same command again" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert len(contents(settings.into)) == 1 + 30
        assert build(shop.settings()).images == 60

    def test_a_disk_that_takes_no_more(self, shop: Shop, whole: dict[bytes, bytes]) -> None:
        settings = shop.settings(missing="skip")
        limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))"
        ran = run_build(settings, f"{limit}\nat = lambda n: None")
        assert ran.returncode == 2
        assert "cannot write LMDB" in ran.stderr
        assert "images already written are kept" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert len(contents(settings.into)) > 10
        build(settings)
        assert contents(settings.into) == whole

    def test_a_full_disk(
        self, shop: Shop, whole: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = shop.settings(missing="skip")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DatabaseWriter, "_write", full_after(3))
            with pytest.raises(UserError, match=r"the disk is full.*images already written are kept"):
                build(settings)
        assert len(contents(settings.into)) == 17
        build(settings)
        assert contents(settings.into) == whole


def opened_when_read(fifo: Path, reader: subprocess.Popen) -> int:
    """Descriptor to write to a FIFO, as soon as a process reads it."""
    while reader.poll() is None:
        with suppress(OSError):  # nobody reads it yet
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.01)
    raise AssertionError(f"the process ended with {reader.returncode}")


def processes_of_session(session: int) -> set[int]:
    """Ids of the processes of a session that have not ended."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, _, of_session, *_ = stat.read_text().rpartition(")")[2].split()
            if int(of_session) == session and state != "Z":
                found.add(int(stat.parent.name))
    return found


def full_after(writes: int) -> Callable[..., None]:
    write = DatabaseWriter._write
    left = [writes]

    def limited(writer: DatabaseWriter, values: list[tuple[bytes, bytes]]) -> None:
        left[0] -= 1
        with writer._user_errors():
            if left[0] < 0:
                raise lmdb.DiskError("mdb_txn_commit: No space left on device")
        write(writer, values)

    return limited
