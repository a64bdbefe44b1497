"""Tuning as a person meets it, and a study of four workers, one of which is killed."""

import json
import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from unittest import mock

import nbformat
import optuna
import psutil
import pytest
from helpers import SMALL, CommandLine, finish, wait_for, wait_until_gone, write_dataset
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from asm_mapping import tuning
from asm_mapping.catalog import open_dataset
from asm_mapping.config import UserError
from asm_mapping.settings import make_settings
from asm_mapping.store import prepare
from asm_mapping.tuning import (
    ENDED,
    Search,
    Study,
    count_ended,
    is_defaults,
    make_search,
    open_storage,
    open_study,
    run_search,
    start_worker,
    suggest,
    work,
)

PASSWORD = "pa55-never-shown"
TRIALS, WORKERS = 40, 4
SPACE = """
encoder = "mobilenet_v2"
decoder_channels = "64,48,32,24,16"
batch_size = 4
"""


# ---------------------------------------------------------------- PostgreSQL


def postgres_binaries(scratch: Path) -> Path:
    "Find PostgreSQL's programs: the system's, else those of the pgserver package."
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    import pgserver  # wheels of PostgreSQL itself

    package = Path(pgserver.__file__).parent
    for part in ("pgserver/pginstall", "pgserver.libs"):  # where its user may read them
        shutil.copytree(package.parent / part, scratch / part)
    return scratch / "pgserver/pginstall/bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    "Start a PostgreSQL of our own, as an ordinary user, and stop it in the end."
    user = {"user": "nobody"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="asm-pg-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        programs, data, port = postgres_binaries(scratch), scratch / "data", free_port()
        data.mkdir(mode=0o700)
        secret = scratch / "secret"
        secret.write_text(PASSWORD)
        if user:
            owner = pwd.getpwnam("nobody")
            for path in (data, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        quiet = {"stdout": subprocess.DEVNULL, "cwd": scratch} | user
        made = [programs / "initdb", "-D", data, "-U", "asm", "-A", "scram-sha-256"]
        subprocess.run([*made, f"--pwfile={secret}", "-E", "UTF8"], check=True, **quiet)
        asked = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(
            [*asked, "-k", data, "-c", "fsync=off"], stderr=subprocess.DEVNULL, **quiet
        )
        try:
            wait_for(lambda: answers(port), server)
            yield f"postgresql://asm:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # fast: open connections are closed
            server.wait(timeout=30)


def answers(port: int) -> bool:
    "Say whether the server takes connections."
    import psycopg

    try:
        address = f"postgresql://asm:{PASSWORD}@127.0.0.1:{port}/postgres"
        psycopg.connect(address, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


# ---------------------------------------------------------------- the study


def cheap(trial: optuna.Trial) -> float:
    "Stand in for a training of a second: a valley over the learning rate, seen in rounds."
    chosen = suggest(trial, search_of("").space, search_of("").settings)
    trial.set_user_attr("pid", os.getpid())
    score = 1 - abs(chosen.learning_rate - 1e-3) * 100
    for step in range(4):
        time.sleep(0.15)
        trial.report(score * (step + 1) / 4, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score


def search_of(name: str) -> Search:
    settings = make_settings(modality="late_fusion", name=name)
    return Search(settings=settings, trials=TRIALS, beat_s=1, grace_s=6)


def serve(storage: str, name: str) -> None:
    "Be a worker."
    os.environ["ASM_STORAGE"] = storage
    work(open_study(search_of(name), "data"), cheap)


def halted(study: Study, trial: optuna.trial.FrozenTrial) -> bool:
    "Halt a trial's worker; one that has ended its trial meanwhile goes on."
    os.kill(trial.user_attrs["pid"], signal.SIGSTOP)
    still = False
    with suppress(StorageInternalError):  # it holds the database's lock
        still = study.trials()[trial.number].state == TrialState.RUNNING
    if not still:
        os.kill(trial.user_attrs["pid"], signal.SIGCONT)
    return still


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_four_workers_one_killed(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    address = f"sqlite:///{tmp_path}/study.db"
    if kind == "postgres":
        address = request.getfixturevalue("postgres")
    monkeypatch.setenv("ASM_STORAGE", address)
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=serve, args=(address, f"q-{kind}")) for _ in range(WORKERS)]
    for worker in workers:  # all at once: nobody has made the study before
        worker.start()
    monkeypatch.setattr(tuning, "LOCKED_S", 2)  # here: a halted worker may hold the database
    end = time.monotonic() + 300
    study = None
    while True:
        assert time.monotonic() < end, "no trial began"
        assert all(worker.is_alive() for worker in workers), "a worker died by itself"
        time.sleep(0.3)
        with suppress(StorageInternalError, UserError):  # locked by busy workers
            study = study or open_study(search_of(f"q-{kind}"), "data")
            running = study.trials(TrialState.RUNNING) if count_ended(study) >= 6 else []
            seen = [trial for trial in running if "pid" in trial.user_attrs]
            if victim := next((trial for trial in seen if halted(study, trial)), None):
                break
    os.kill(victim.user_attrs["pid"], signal.SIGKILL)
    for worker in workers:
        worker.join(timeout=300)
    assert sorted(worker.exitcode for worker in workers) == [-signal.SIGKILL, 0, 0, 0]
    check_study(open_study(search_of(f"q-{kind}"), "data"), victim.number)


def check_study(study: Study, killed: int) -> None:
    "Enough trials and hardly more, the defaults first, the killed one failed and retried."
    trials = study.trials()
    ended = [t for t in trials if t.state in ENDED]
    assert TRIALS <= len(ended) < TRIALS + WORKERS
    assert [(t.number, t.state) for t in trials if t not in ended] == [
        (killed, TrialState.FAIL)
    ]
    assert any(trial.state == TrialState.PRUNED for trial in ended)
    again = [t for t in ended if t.system_attrs.get("failed_trial") == killed]
    assert [trial.params for trial in again] == [trials[killed].params]
    assert [trial.number for trial in trials] == list(range(len(trials)))
    drawn = [
        str(trial.params) for trial in trials if not is_defaults(trial) and trial not in again
    ]
    assert len({*drawn}) == len(drawn)  # no two workers drew the same
    assert is_defaults(trials[0])
    assert (
        suggest(trials[0], study.search.space, study.search.settings) == study.search.settings
    )


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Twelve chips, each a place of its own, so that inner folds have something to divide."
    folder = tmp_path_factory.mktemp("tuning")
    manifest = write_dataset(folder, "places", seed=2)
    table = folder / "places/chips.csv"
    rows = [f"c{number:02d},g{number:02d}" for number in range(12)]
    table.write_text("\n".join(["chip,group", *rows]) + "\n")
    (folder / "space.toml").write_text(SPACE)
    return manifest


def words(places: Path, *more: object) -> list[object]:
    "Say a short search."
    space = places.with_name("space.toml")
    return ["tune", places, "--modality", "optical", "--inner-folds", 2, "--space", space,
            *SMALL, *more]  # fmt: skip


def trials_of(address: str, name: str) -> list[optuna.trial.FrozenTrial]:
    "Read the trials that are in the database."
    return optuna.load_study(study_name=name, storage=open_storage(address, 15, 60)).trials


def ended_trials(address: str, name: str) -> dict[int, float]:
    "Read the scores that are in the database."
    trials = trials_of(address, name)
    return {t.number: t.value for t in trials if t.state == TrialState.COMPLETE}


def last_attempt(
    stopped: optuna.trial.FrozenTrial, trials: list[optuna.trial.FrozenTrial]
) -> optuna.trial.FrozenTrial:
    "Follow a stopped trial to its last attempt: a worker may take one up, and be stopped too."
    again = {t.user_attrs.get("retry_of"): t for t in trials}
    while stopped.state == TrialState.FAIL:
        stopped = again[stopped.number]
    return stopped


def test_sigterm_keeps_trials_and_the_same_command_goes_on(
    cli: CommandLine, places: Path, postgres: str
):
    asked = words(places, "--trials", 5, "--pruner", "none", "--name", "shared")
    folder, study = cli.runs / "shared/tune/optical-fold-0", "shared-optical-fold-0"

    def one_is_done() -> bool:
        try:
            return bool(ended_trials(postgres, study))
        except KeyError:
            return False

    with mock.patch.dict(cli.env, {"ASM_STORAGE": postgres}):
        process = cli.start(*asked, "--jobs", 2)
        wait_for(one_is_done, process)
        process.send_signal(signal.SIGTERM)
        wait_until_gone(cli.mark)
        first = finish(process, 143).text
        assert "stopped" in first
        before = ended_trials(postgres, study)
        assert 1 <= len(before) < 5 and not list(folder.glob("_work/*/*"))
        told = cli(*asked).text
    after = ended_trials(postgres, study)
    assert len(after) == 5 and before.items() <= after.items()
    trials = trials_of(postgres, study)
    stopped = [t for t in trials if t.state == TrialState.FAIL]
    kept = {t.number: last_attempt(t, trials).params for t in stopped}
    assert stopped  # one may be stopped while its parameters are drawn
    assert all(t.params.items() <= kept[t.number].items() for t in stopped), (stopped, kept)
    assert "best.toml" in told and "next: asm-mapping compare" in told
    for name in ("trials.csv", "inner.csv", "outer.csv", "best.toml", "tune.ipynb"):
        assert (folder / name).exists(), name
    notebook = nbformat.read(folder / "tune.ipynb", as_version=4)
    assert sum("image/png" in str(cell.get("outputs")) for cell in notebook.cells) == 4
    assert not list(folder.glob("_work/*/*")) and not (folder.parent / "study.db").exists()
    check_unseen(cli, first + told)


def check_unseen(cli: CommandLine, told: str) -> None:
    "The password stands in nothing that was said or written."
    assert PASSWORD not in told
    for path in [*cli.runs.glob("shared*/**/*"), *cli.root.glob("reports/**/*")]:
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_two_commands_share_a_study(cli: CommandLine, places: Path):
    asked = words(places, "--pruner", "none", "--name", "both")
    address = f"sqlite:///{cli.runs}/both/tune/study.db"
    both = [cli.start(*asked, "--trials", 4) for _ in range(2)]
    with ThreadPoolExecutor() as threads:
        waits = [threads.submit(one.wait, 600) for one in both]
        ended_first, _ = wait(waits, return_when=FIRST_COMPLETED)
        other = both[waits[0] in ended_first]  # goes on with the inner folds
        other.send_signal(signal.SIGTERM)
    told = [finish(one, 143 if one is other else 0).text for one in both]
    assert any("another worker goes on with the inner folds" in text for text in told)
    ended = ended_trials(address, "both-optical-fold-0")
    assert 4 <= len(ended) <= 5 and all(f"{len(ended)} trials are done" in t for t in told)
    late = cli(*asked, "--trials", 6, "--minutes", 0.0001).text  # no time to begin one
    assert f"{len(ended)} of 6 trials are done" in late
    assert ended_trials(address, "both-optical-fold-0") == ended


def kill_worker(study: Study, killed: list[optuna.trial.FrozenTrial]) -> None:
    "Kill the worker that is in the midst of training its first trial."
    end = time.monotonic() + 120
    while not killed and time.monotonic() < end:
        begun = study.trials(TrialState.RUNNING)
        killed += [trial for trial in begun if "parameters" in trial.user_attrs]
        time.sleep(0.05)
    for process in psutil.Process().children():
        if "work_in_process" in " ".join(process.cmdline()):
            process.kill()


def test_a_killed_worker_is_replaced_and_its_trial_tried_again(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ASM_RUNS", str(tmp_path))
    settings = make_settings(
        dataset=str(places), modality="optical", name="killed", steps=6, rounds=2,
        batch_size=4, chip_px=32, threads=1,
    )  # fmt: skip
    space, ways = places.with_name("space.toml"), {"trials": 3, "pruner": "none"}
    search = make_search(settings, space, beat_s=1, grace_s=4, **ways)
    study = open_study(search, prepare(open_dataset(str(places))).key)
    said, killed = [], []
    killer = threading.Thread(target=kill_worker, args=(study, killed))
    killer.start()
    assert run_search(study, say=said.append)
    killer.join()
    trials, (first,) = study.trials(), killed
    assert trials[first.number].state == TrialState.FAIL
    again = [t for t in trials if t.system_attrs.get("failed_trial") == first.number]
    assert [(t.state, t.params) for t in again] == [(TrialState.COMPLETE, first.params)]
    assert 3 <= count_ended(study) <= 4
    assert len(said) == 1 and "a worker ended" in said[0]
    assert not list(search.folder.glob("_work/*/*"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--modality", "decision_fusion"], "finished runs"),
        (["--inner-folds", 9], "do not make 9 folds"),
        (["--fold", "final"], "no test part"),
        (["--also", 7], "fold 7"),
        (["--also", "x"], "neither a number"),
        (["--also", "final"], "no test part"),
        (["-p", "encoder", "resnet50", "-p", "weights", "nosuch"], "no weights"),
        (["--storage", "sqlite:///:memory:"], "share"),
        (["--storage", "postgresql://a:pa55:2/b"], "--storage is no database's"),
        (["--space", "nowhere.toml"], "nowhere.toml"),
        (["--settings", "nowhere.toml"], "nowhere.toml"),
        (["--goals", "speed"], "goals"),
        (["--storage", "postgresql://a:pa55@127.0.0.1:1/b"], "//***@127.0.0.1:1/b cannot"),
    ],
)
def test_wrong_words_are_told_before_any_trial(
    cli: CommandLine, places: Path, more: list, told: str
):
    asked = words(places, "--name", "wrong", *more)
    with mock.patch.dict(os.environ):  # the command keeps a storage in its environment
        said = cli.quickly(*asked, status=1)
    assert told in said and "pa55" not in said


def test_workers_open_the_file_that_the_command_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASM_STORAGE", "sqlite:///mine.db")
    with mock.patch("asm_mapping.tuning.start") as begun:
        start_worker(search_of("relative"), 1, tmp_path / "worker.log", until=None)
    asked = begun.call_args.kwargs
    assert Path(asked["cwd"]) != tmp_path
    assert asked["env"]["ASM_STORAGE"] == f"sqlite:///{tmp_path}/mine.db"


def test_a_database_away_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    answers = iter([StorageInternalError("away"), StorageInternalError("away"), 7])

    def look(study: Study) -> int:
        if isinstance(found := next(answers, StorageInternalError("away")), Exception):
            raise found
        return found

    monkeypatch.setattr(tuning, "PAUSE_S", 0.01)
    monkeypatch.setattr(tuning, "PATIENCE_S", 0.1)
    study = Study(search_of("away"), None)
    assert tuning.patiently(study, look) == 7
    with pytest.raises(UserError, match="does not answer any more"):
        tuning.patiently(study, look)


def test_settings_of_a_file_reach_a_run(cli: CommandLine, places: Path, tmp_path: Path):
    given = tmp_path / "best.toml"
    given.write_text('learning_rate = 0.002\nloss = "bce"\n')
    run = ["run", places, "--modality", "sar", "--name", "from-file", "--settings", given]
    cli(*run, *SMALL, "-p", "loss", "dice")
    kept = json.loads((cli.runs / "from-file/sar/fold-0/settings.json").read_text())
    assert (kept["learning_rate"], kept["loss"], kept["steps"]) == (0.002, "dice", 6)
    given.write_text('fold = "1"\n')
    assert "fold is the command's" in cli.quickly(*run, status=1)
