"""Real worker processes with tiny packages."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from agent.backends.base import BackendSettings
from agent.errors import AnswerNotFinite, BadPackageFile, ImageRefused, LoadTimedOut, NoMemoryToLoad, SegmentTruncated
from agent.images.bitmap import BitmapLayout
from agent.workers.handle import ImageToInspect, OpenSegment, WorkerDied
from agent.workers.process import WorkerProcess
from agent.workers.slots import make_slots
from tests.support.agent_process import PATIENCE, freeze, processor_time, segment, wait_for
from tests.support.packages import HEIGHT, WIDTH, constant_score_model, greedy_model, grey, make_package, slow_model
from tests.support.pretended_gpu import GPU, pretended_gpu

SIZE = WIDTH * HEIGHT * 3
LAYOUT = BitmapLayout.of(WIDTH, HEIGHT, SIZE)
MEMORY = 1 << 30
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Opened:
    """A worker process and what it told its owner."""

    worker: WorkerProcess
    ended: threading.Event
    progress: list[str] = field(default_factory=list)

    def detect(self, pixels: np.ndarray, slot: int = 0, limit: float = PATIENCE):  # type: ignore[no-untyped-def]
        return self.worker.detect(slot, ImageToInspect(LAYOUT, pixels.tobytes()), limit)


ON_CPU = BackendSettings()


@contextmanager
def a_worker(
    package: Path, slots: int = 2, settings: BackendSettings = ON_CPU, memory: int = MEMORY
) -> Iterator[Opened]:
    """Started; the test waits until it is open. Closed on leaving, however the test ends."""
    ended, progress = threading.Event(), list[str]()
    worker = WorkerProcess(package, settings, slots, lambda text, stage: progress.append(text), ended.set, memory)
    try:
        yield Opened(worker, ended, progress)
    finally:
        worker.close()
        assert ended.wait(PATIENCE)
        assert is_gone(worker.pid)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    make_package(folder / "dark", any_size=True)
    make_package(folder / "red", task="classification")
    make_package(folder / "slow", task="classification", model=slow_model())
    make_package(folder / "nan", task="classification", model=constant_score_model(float("nan")))
    make_package(folder / "greedy", task="classification", model=greedy_model(512 << 20))
    make_package(folder / "bad")
    (folder / "bad" / "model.onnx").write_bytes(b"something else")
    return folder


@pytest.fixture(scope="module")
def dark(packages: Path) -> Iterator[Opened]:
    """A segmentation worker that is open, shared by the tests that do not harm it."""
    with a_worker(packages / "dark") as opened:
        opened.worker.wait_until_open(PATIENCE)
        yield opened


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def is_over(pid: int) -> bool:
    """Gone, or only not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@contextmanager
def open_memory(name: str) -> Iterator[int]:
    descriptor = os.open(Path("/dev/shm", name.removeprefix("/")), os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# --- opening ---


def test_a_worker_tells_what_it_does_and_then_which_runtime_serves(packages: Path) -> None:
    with a_worker(packages / "dark") as opened:
        runs_on = opened.worker.wait_until_open(PATIENCE)
        assert runs_on.runtime.startswith("ONNX Runtime") and runs_on.device == "CPU"
        assert opened.progress == ["verifying and loading the model", "running the self-test"]
        assert not opened.ended.is_set()


def test_a_bad_package_is_refused_with_its_sentence(packages: Path) -> None:
    with a_worker(packages / "bad") as opened:
        with pytest.raises(BadPackageFile, match=r'"model.onnx" in the package: it has 14 bytes; the manifest says'):
            opened.worker.wait_until_open(PATIENCE)
        assert opened.ended.wait(PATIENCE)


def test_a_worker_that_is_killed_while_it_opens_has_died(packages: Path) -> None:
    with a_worker(packages / "dark") as opened:
        os.kill(opened.worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            opened.worker.wait_until_open(PATIENCE)
        with pytest.raises(WorkerDied):
            opened.detect(grey(0))


def test_a_worker_whose_gpu_fails_ends_and_tells_why(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in pretended_gpu("working", switches=tmp_path).items():
        monkeypatch.setenv(name, value)
    with a_worker(packages / "dark", settings=BackendSettings(device="cuda")) as opened:
        assert opened.worker.wait_until_open(PATIENCE).device == GPU
        (tmp_path / "sticky").touch()
        with pytest.raises(WorkerDied, match=r"^its worker ended: the GPU failed \(a kernel read or wrote beyond"):
            opened.detect(grey(0))
        assert opened.ended.is_set()
        assert opened.worker.why_ended.startswith("its worker ended: the GPU failed")


def test_a_load_beyond_the_limit_ends_the_process(packages: Path) -> None:
    with a_worker(packages / "dark") as opened:
        with pytest.raises(LoadTimedOut, match=r"within 0\.01 s"):
            opened.worker.wait_until_open(0.01)
        assert opened.ended.wait(PATIENCE)
        assert is_gone(opened.worker.pid)


def test_a_load_beyond_the_memory_it_may_take_is_refused_and_takes_no_more(packages: Path) -> None:
    with (
        a_worker(packages / "greedy", memory=300 << 20) as opened,
        pytest.raises(NoMemoryToLoad, match="it needs more memory than is free on this device"),
    ):
        opened.worker.wait_until_open(PATIENCE)
    with a_worker(packages / "greedy", memory=2 << 30) as opened:
        opened.worker.wait_until_open(PATIENCE)


def test_a_worker_that_serves_may_take_what_there_is(packages: Path) -> None:
    with a_worker(packages / "dark", memory=300 << 20) as opened:
        opened.worker.wait_until_open(PATIENCE)
        assert resource.prlimit(opened.worker.pid, resource.RLIMIT_DATA) == resource.getrlimit(resource.RLIMIT_DATA)


def test_a_worker_can_be_closed_from_elsewhere_while_one_waits_for_it_to_open(packages: Path) -> None:
    with a_worker(packages / "dark") as opened, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(opened.worker.wait_until_open, PATIENCE)
        opened.worker.close()
        with pytest.raises(WorkerDied):
            waiting.result(PATIENCE)


# --- calls ---


def test_a_worker_that_is_closed_while_it_loads_leaves_no_complaint(
    packages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with a_worker(packages / "red"):
        pass
    assert not caplog.messages


def test_pixels_that_came_as_bytes_are_answered_with_a_mask_of_ones_own(dark: Opened) -> None:
    pixels = grey(255)
    pixels[10:20, 5:15] = 0
    answer = dark.detect(pixels)
    assert (answer.is_anomalous, answer.score, answer.threshold) == (True, 1.0, 0.5)
    assert [(region.name, region.color) for region in answer.regions] == [
        ("background", "#FFFFFF"),
        ("anomaly", "#23A436"),
    ]
    assert answer.mask is not None and answer.mask.shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(np.any(answer.mask != 255, axis=2), pixels[..., 0] == 0)
    # The slot's next call does not paint over what was handed out.
    before = answer.mask.copy()
    dark.detect(grey(0))
    assert np.array_equal(answer.mask, before)


def test_each_image_is_judged_by_the_threshold_that_comes_with_it(dark: Opened) -> None:
    image = ImageToInspect(LAYOUT, grey(102).tobytes())  # its score is 0.6
    judged = [
        dark.worker.detect(0, replace(image, threshold=threshold), PATIENCE) for threshold in (None, 0.62, 0.6, None)
    ]
    assert [(answer.threshold, answer.is_anomalous) for answer in judged] == [
        (0.5, True),
        (0.62, False),
        (0.6, True),
        (0.5, True),
    ]


def test_pixels_and_mask_may_lie_in_the_clients_segment(dark: Opened) -> None:
    pixels = grey(255)
    pixels[:, :48] = 0
    with segment(bytes(11) + pixels.tobytes(), 3 * SIZE) as name, open_memory(name) as descriptor:
        image = ImageToInspect(LAYOUT, OpenSegment(descriptor, 11), OpenSegment(descriptor, SIZE + 50))
        answer = dark.worker.detect(1, image, PATIENCE)
        assert answer.is_anomalous and answer.mask is None
        content = os.pread(descriptor, 3 * SIZE, 0)
        inline = dark.detect(pixels).mask
    assert inline is not None
    assert content[SIZE + 50 : 2 * SIZE + 50] == inline.tobytes()
    assert content[:11] == bytes(11) and content[11 : SIZE + 11] == pixels.tobytes()
    assert not any(content[SIZE + 11 : SIZE + 50]) and not any(content[2 * SIZE + 50 :])


def test_pixels_as_bytes_may_have_their_mask_in_a_segment(dark: Opened) -> None:
    with segment(bytes(SIZE)) as name, open_memory(name) as descriptor:
        image = ImageToInspect(LAYOUT, grey(255).tobytes(), OpenSegment(descriptor, 0))
        assert dark.worker.detect(0, image, PATIENCE).mask is None
        assert os.pread(descriptor, SIZE, 0) == b"\xff" * SIZE


def test_a_truncated_segment_is_refused_on_both_sides_and_never_grows(dark: Opened) -> None:
    with segment(bytes(2 * SIZE)) as name, open_memory(name) as descriptor:
        os.truncate(descriptor, SIZE - 1)
        with pytest.raises(SegmentTruncated):
            dark.worker.detect(0, ImageToInspect(LAYOUT, OpenSegment(descriptor, 0)), PATIENCE)
        with pytest.raises(SegmentTruncated):
            image = ImageToInspect(LAYOUT, grey(0).tobytes(), OpenSegment(descriptor, 0))
            dark.worker.detect(0, image, PATIENCE)
        assert os.fstat(descriptor).st_size == SIZE - 1
    assert dark.detect(grey(0)).is_anomalous


def test_an_answer_that_is_no_number_is_a_refusal_and_the_worker_serves_on(packages: Path) -> None:
    """Row A10 in short."""
    with a_worker(packages / "nan") as opened:
        opened.worker.wait_until_open(PATIENCE)
        with pytest.raises(AnswerNotFinite, match="score"):
            opened.detect(grey(9))
        assert opened.detect(grey(0)).score == 0


def test_calls_in_both_slots_get_their_own_answers(packages: Path) -> None:
    """Row C12 in short: the image carries a number and the answer tells which."""
    with a_worker(packages / "red") as opened, ThreadPoolExecutor(2) as threads:
        opened.worker.wait_until_open(PATIENCE)

        def call(slot: int) -> None:
            for number in range(slot, 256, 2):
                assert opened.detect(grey(number), slot).score == pytest.approx(number / 255, abs=1e-4)

        for done in [threads.submit(call, slot) for slot in range(2)]:
            done.result(60)


def test_a_worker_keeps_no_descriptor_of_a_call(dark: Opened) -> None:
    def count() -> int:
        return len(list(Path(f"/proc/{dark.worker.pid}/fd").iterdir()))

    with segment(bytes(2 * SIZE)) as name, open_memory(name) as descriptor:
        image = ImageToInspect(LAYOUT, OpenSegment(descriptor, 0), OpenSegment(descriptor, SIZE))
        dark.worker.detect(0, image, PATIENCE)
        before = count()
        for _ in range(100):
            dark.worker.detect(0, image, PATIENCE)
        assert count() == before


# --- ending ---


def test_a_call_beyond_the_time_limit_ends_the_process(packages: Path) -> None:
    """Row D4 in short."""
    with a_worker(packages / "slow") as opened, ThreadPoolExecutor(1) as threads:
        opened.worker.wait_until_open(PATIENCE)
        other = threads.submit(opened.detect, grey(255), 1)
        with pytest.raises(WorkerDied):
            opened.detect(grey(255), limit=0.05)
        # Who is told of the death can rely on it: the owner knows already.
        assert opened.ended.is_set()
        assert is_gone(opened.worker.pid)
        with pytest.raises(WorkerDied):
            other.result(PATIENCE)
        with pytest.raises(WorkerDied):
            opened.detect(grey(0))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_worker_that_is_killed_during_a_call_has_died_and_tells_its_owner_first(
    packages: Path, number: signal.Signals
) -> None:
    """Row D2 in short."""
    with a_worker(packages / "slow") as opened, ThreadPoolExecutor(1) as threads:
        opened.worker.wait_until_open(PATIENCE)
        worked = processor_time(opened.worker.pid)
        call = threads.submit(opened.detect, grey(255))
        wait_for("it to work on the call", lambda: processor_time(opened.worker.pid) > worked + 0.03)
        os.kill(opened.worker.pid, number)
        with pytest.raises(WorkerDied):
            call.result(PATIENCE)
        assert opened.ended.is_set()


def test_a_worker_that_hangs_is_ended_at_the_time_limit(packages: Path) -> None:
    """Row D3 in short."""
    with a_worker(packages / "red") as opened:
        opened.worker.wait_until_open(PATIENCE)
        freeze(opened.worker.pid)
        with pytest.raises(WorkerDied):
            opened.detect(grey(0), limit=0.1)
        assert is_gone(opened.worker.pid)


def test_closing_ends_the_process_and_gives_its_memory_back(packages: Path) -> None:
    with a_worker(packages / "red") as opened:
        opened.worker.wait_until_open(PATIENCE)
        opened.detect(grey(0))
        opened.worker.close()
        assert is_gone(opened.worker.pid)
        opened.worker.close()  # as often as one likes


def test_closing_ends_a_process_that_hangs(packages: Path) -> None:
    with a_worker(packages / "red") as opened:
        opened.worker.wait_until_open(PATIENCE)
        freeze(opened.worker.pid)
        opened.worker.close()
        assert is_gone(opened.worker.pid)


def test_nothing_is_left_of_workers_that_came_and_went(packages: Path) -> None:
    def held() -> tuple[int, list[str]]:  # a segment that another test keeps meanwhile is the same before and after
        links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum("memfd" in link or "socket" in link for link in links), sorted(
            path.name for path in Path("/dev/shm").glob(f"*-{os.getpid()}-*")
        )

    def come_and_go() -> None:
        with a_worker(packages / "red") as opened:
            opened.worker.wait_until_open(PATIENCE)
            opened.detect(grey(0))

    gc.collect()  # workers of other tests, kept by what pytest knows of their exceptions, go now and not in between
    before, threads = held(), threading.active_count()
    for _ in range(2):
        come_and_go()
    wait_for("its thread to end", lambda: threading.active_count() <= threads + 1)  # the spawner stays
    # Threads of the test before may have ended meanwhile, so that their count says too little.
    wait_for("its descriptors to be closed", lambda: held() == before)


def test_signals_that_come_before_a_worker_is_up_do_not_end_it(packages: Path) -> None:
    with a_worker(packages / "red") as opened:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(opened.worker.pid, number)
        opened.worker.wait_until_open(PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ignores_what_its_parent_is_to_be_asked(dark: Opened, number: signal.Signals) -> None:
    os.kill(dark.worker.pid, number)
    assert dark.detect(grey(0)).is_anomalous
    assert not dark.ended.is_set()


# --- what a worker is given ---


def test_secrets_of_the_environment_are_not_handed_on(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVCUID", "classified")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "classified")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "classified")
    monkeypatch.setenv("HARMLESS", "yes")
    with a_worker(packages / "red") as opened:
        opened.worker.wait_until_open(PATIENCE)
        environment = Path(f"/proc/{opened.worker.pid}/environ").read_bytes().split(b"\0")
    assert b"HARMLESS=yes" in environment
    assert not [variable for variable in environment if variable.startswith((b"SVCUID", b"AWS_"))]
    assert not [variable for variable in environment if b"classified" in variable]


def test_a_worker_has_no_threads_for_matrix_products_unless_somebody_wants_them(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given() -> list[bytes]:
        with a_worker(packages / "red") as opened:
            opened.worker.wait_until_open(PATIENCE)
            environment = Path(f"/proc/{opened.worker.pid}/environ").read_bytes().split(b"\0")
        return [variable for variable in environment if variable.startswith(b"OPENBLAS_NUM_THREADS=")]

    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert given() == [b"OPENBLAS_NUM_THREADS=1"]
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert given() == [b"OPENBLAS_NUM_THREADS=2"]


def test_a_worker_holds_its_link_its_output_and_nothing_of_its_parents(packages: Path, tmp_path: Path) -> None:
    """Row G7."""
    kept = tmp_path / "kept"
    with (
        socket.socket() as inet,
        socket.socket(socket.AF_UNIX) as unix,
        kept.open("w") as file,
        a_worker(packages / "dark") as other,
    ):
        inet.bind(("127.0.0.1", 0))
        inet.listen()
        for descriptor in (inet.fileno(), unix.fileno(), file.fileno()):
            os.set_inheritable(descriptor, True)  # even then
        other.worker.wait_until_open(PATIENCE)
        with a_worker(packages / "dark") as opened:
            opened.worker.wait_until_open(PATIENCE)
            folder = Path(f"/proc/{opened.worker.pid}/fd")
            held = {int(link.name): str(link.readlink()) for link in folder.iterdir()}
    sockets = [link for number, link in held.items() if number > 2 and link.startswith("socket:")]
    assert len(sockets) == 1, held  # the link
    assert held[0] == "/dev/null"
    assert sum("memfd" in link for link in held.values()) == 4, held  # image and mask of its two slots
    assert not [link for link in held.values() if link.startswith(str(tmp_path))], held
    assert len(held) < 16, held  # what the runtime opens for itself


def test_a_worker_does_not_outlive_its_parent(packages: Path) -> None:
    """Row D6 in short: the parent is killed while its worker is open."""
    script = textwrap.dedent(
        """
        import sys, threading
        from pathlib import Path
        from agent.backends.base import BackendSettings, say_nothing
        from agent.workers.process import WorkerProcess
        worker = WorkerProcess(Path(sys.argv[1]), BackendSettings(), 1, say_nothing, lambda: None, 1 << 30)
        worker.wait_until_open(60)
        print(worker.pid, flush=True)
        threading.Event().wait()
        """
    )
    command = [sys.executable, "-c", script, str(packages / "red")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_over(pid)
        parent.kill()
        begin = time.monotonic()
        wait_for("the worker to be gone", lambda: is_over(pid), patience=5)
        assert time.monotonic() - begin < 1


def test_a_worker_whose_parent_went_before_it_looked_leaves() -> None:
    """The signal is asked for after the imports; a parent that ended meanwhile is noticed."""
    command = [sys.executable, "-m", "agent.workers.loop", "0", "1"]  # nobody here is process 1's child
    ended = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    assert ended.returncode == 1


def test_a_worker_goes_before_the_agent_when_memory_runs_out(dark: Opened) -> None:
    score = int(Path(f"/proc/{dark.worker.pid}/oom_score_adj").read_text())
    assert score >= int(Path("/proc/self/oom_score_adj").read_text())


def test_nothing_that_lies_in_the_current_folder_is_run(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for decoy in ("agent", "numpy", "msgspec"):
        (tmp_path / decoy).mkdir()
        (tmp_path / decoy / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    with a_worker(packages / "red") as opened:
        opened.worker.wait_until_open(PATIENCE)
    assert not (tmp_path / "ran").exists()


def test_slots_that_cannot_all_be_made_leave_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def scarce(*arguments: object) -> int:
        if len(made) == 3:
            raise OSError(24, "Too many open files")
        made.append(memfd_create(*arguments))  # type: ignore[arg-type]
        return made[-1]

    memfd_create = os.memfd_create
    monkeypatch.setattr(os, "memfd_create", scarce)
    with pytest.raises(OSError, match="Too many"):
        make_slots(2)
    for descriptor in made:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)


def test_a_death_during_a_second_try_tells_which_image_it_was_and_that_image_is_refused(packages: Path) -> None:
    poison, good = ImageToInspect(LAYOUT, grey(255).tobytes()), ImageToInspect(LAYOUT, grey(0).tobytes())
    with a_worker(packages / "slow") as opened:
        opened.worker.wait_until_open(PATIENCE)
        with pytest.raises(WorkerDied) as death:
            opened.worker.detect(0, replace(poison, tell_image=True), 0.3)
        image = death.value.image
        assert image is not None and len(image) == 16
    with a_worker(packages / "slow") as opened:
        opened.worker.wait_until_open(PATIENCE)
        with pytest.raises(ImageRefused):
            opened.worker.detect(0, replace(poison, refuse=(bytes(16), image)), PATIENCE)
        assert not opened.worker.detect(0, replace(good, refuse=(bytes(16), image)), PATIENCE).is_anomalous


def test_a_first_try_looks_at_no_image_closely(packages: Path) -> None:
    with a_worker(packages / "slow") as opened:
        opened.worker.wait_until_open(PATIENCE)
        with pytest.raises(WorkerDied) as death:
            opened.detect(grey(255), limit=0.1)
        assert death.value.image is None


def test_the_steps_of_an_answer_are_timed(dark: Opened) -> None:
    times = dark.detect(grey(0)).times
    assert min(times.preprocessing, times.inferring, times.postprocessing) > 0


def test_a_workers_memory_is_told_until_it_has_ended(packages: Path) -> None:
    with a_worker(packages / "red") as opened:
        opened.worker.wait_until_open(PATIENCE)
        assert 1 << 20 < opened.worker.memory() < 1 << 30
        opened.worker.close()
        assert opened.worker.memory() == 0


def test_what_a_worker_prints_becomes_lines_of_the_log(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also more than a pipe holds, which would stop a worker that nobody reads."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'agent.workers.loop' in sys.orig_argv:\n"
        "    print('on\\x1be')\n"
        "    print('x' * 200_000, file=sys.stderr)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with a_worker(packages / "red") as opened:
        opened.worker.wait_until_open(PATIENCE)
        wait_for("all of it", lambda: caplog.text.count("x") >= 200_000)
    assert f"worker {opened.worker.pid}: on\\x1be\n" in caplog.text
