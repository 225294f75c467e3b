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
from image_shop import SIZE, Shop, contents, small_batches

from adapter4rec.data.images import updating
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.description import DESCRIPTION_KEY
from adapter4rec.data.images.updating import unfinished_folder
from adapter4rec.utils.errors import UserError


@pytest.fixture
def empty_shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def shop(empty_shop: Shop) -> Shop:
    return empty_shop.filled()


@pytest.fixture(autouse=True)
def several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)


def started_build(settings: ImageLmdbSettings, before: str) -> subprocess.Popen[str]:
    """Build in a process and a session of its own, after some lines of Python."""
    values = {name: value for name, value in settings.plain().items() if value is not None}
    code = (
        "import os, signal, resource\n"
        # A shell starts what runs in its background with Ctrl-C ignored, and that would be inherited.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from adapter4rec.data.images import building, updating\n"
        "from adapter4rec.utils.errors import run_main\n"
        f"updating._BATCH_BYTES = {8 * 3 * SIZE**2}\n"
        "write, number = updating.write, 0\n"
        "def counted(environment, values, sources):\n"
        "    global number\n"
        "    at(number)\n"
        "    number += 1\n"
        "    write(environment, values, sources)\n"
        "updating.write = counted\n"
        f"{before}\n"
        f"run_main(lambda: building.build(building.ImageLmdbSettings(**{values!r})) and 0)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_build(settings: ImageLmdbSettings, before: str) -> subprocess.CompletedProcess[str]:
    """The end of a build in a process and a session of its own."""
    process = started_build(settings, before)
    printed = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, *printed)


class TestInterrupted:
    @pytest.fixture
    def whole(self, shop: Shop) -> dict[bytes, bytes]:
        shop.add("broken", b"")
        into = shop.folder / "whole.lmdb"
        build(shop.settings(into=into, missing="skip"))
        return contents(into)

    @pytest.mark.parametrize(("end", "code"), [("SIGKILL", -9), ("SIGTERM", 143)])
    def test_killed(self, shop: Shop, whole: dict[bytes, bytes], end: str, code: int) -> None:
        settings = shop.settings(missing="skip", workers=4)
        ran = run_build(settings, f"at = lambda n: n == 3 and os.kill(os.getpid(), signal.{end})")
        assert ran.returncode == code
        assert len(contents(unfinished_folder(settings.into))) == 1 + 3 * 8
        with pytest.raises(UserError, match="its build is not complete"):
            ImageDatabase(settings.into).read([b"B001"])
        build(settings)
        assert contents(settings.into) == whole

    def test_resuming_writes_only_what_is_not_there(
        self, shop: Shop, whole: dict[bytes, bytes], capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = shop.settings(missing="skip")
        write = updating.write
        seen: list[bytes] = []

        def failing(environment: lmdb.Environment, values: dict[bytes, bytes], *more: object) -> None:
            write(environment, values, *more)
            seen.extend(values)
            if len(seen) == 24:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(updating, "write", failing)
            with pytest.raises(KeyboardInterrupt):
                build(settings)
            assert "run the same command again" in capsys.readouterr().err
            assert len(contents(unfinished_folder(settings.into))) == 1 + 24
            build(settings)
        assert len(seen) == len(set(seen)) == 60
        assert contents(settings.into) == whole
        assert not unfinished_folder(settings.into).exists()

    def test_files_that_go_between_two_goes(self, shop: Shop, whole: dict[bytes, bytes]) -> None:
        settings = shop.settings(missing="skip")
        run_build(settings, "at = lambda n: n == 3 and os.kill(os.getpid(), signal.SIGKILL)")
        (shop.images / f"{shop.names[0]}.jpg").unlink()
        gone = shop.names[0].encode()
        assert build(settings).left_out == (gone, b"broken")
        found = contents(settings.into)
        assert whole.keys() - found.keys() == {gone}
        assert all(found[name] == whole[name] for name in found if name != DESCRIPTION_KEY)

    @pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
    def test_a_killed_build_leaves_no_process(self, shop: Shop, whole: dict[bytes, bytes]) -> None:
        settings, marker = shop.settings(missing="skip", workers=4), shop.folder / "waits"
        waiting = f"at = lambda n: n == 3 and (open({str(marker)!r}, 'w').close(), signal.pause())"
        process = started_build(settings, waiting)
        while not marker.exists():
            assert process.poll() is None
            time.sleep(0.01)
        running = processes_of_session(process.pid)
        process.kill()
        process.wait()
        assert running == {process.pid}  # another process could outlive the build
        assert not processes_of_session(process.pid)
        build(settings)
        assert contents(settings.into) == whole

    @pytest.mark.parametrize("kind", ["FIFO", "device"])
    def test_a_fifo_or_device_is_an_image_that_cannot_be_read(self, shop: Shop, kind: str) -> None:
        path = shop.images / f"{shop.names[0]}.jpg"
        path.unlink()
        os.mkfifo(path) if kind == "FIFO" else path.symlink_to("/dev/zero")
        with pytest.raises(UserError, match=rf"'{shop.names[0]}': expected a file, found a {kind}"):
            build(shop.settings())

    def test_ctrl_c(self, shop: Shop) -> None:
        settings = shop.settings(workers=4)
        ran = run_build(settings, "at = lambda n: n == 3 and os.killpg(0, signal.SIGINT)")
        assert ran.returncode == 130
        assert "run the same command again" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert len(contents(unfinished_folder(settings.into))) == 1 + 3 * 8
        assert build(shop.settings()).images == 60

    def test_a_disk_that_takes_no_more(self, shop: Shop, whole: dict[bytes, bytes]) -> None:
        settings = shop.settings(missing="skip")
        limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))"
        ran = run_build(settings, f"{limit}\nat = lambda n: None")
        assert ran.returncode == 2
        assert "cannot write LMDB" in ran.stderr
        assert "Images already written are kept" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert len(contents(unfinished_folder(settings.into))) > 10
        build(settings)
        assert contents(settings.into) == whole

    def test_a_full_disk(
        self, shop: Shop, whole: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = shop.settings(missing="skip")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(updating, "write", full_after(2))
            with pytest.raises(UserError, match=r"No space left.*Images already written are kept"):
                build(settings)
        assert len(contents(unfinished_folder(settings.into))) == 1 + 2 * 8
        build(settings)
        assert contents(settings.into) == whole


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
    write = updating.write
    left = [writes]

    def limited(environment: lmdb.Environment, values: dict[bytes, bytes], *more: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise lmdb.DiskError("mdb_txn_commit: No space left on device")
        write(environment, values, *more)

    return limited
