"""A SLURM of one node in a folder of its own: key, sockets, ports, state, logs.

No accounting daemon, no cgroups, no files outside the folder: a real cluster on the same machine
is not touched. Needs root, because slurmd starts jobs as their users.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
ClusterName=isic
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobRequeue=1
ReturnToService=2
KillWait=1
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Start it, wait until the node is idle; the variables of whoever wants to use it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    config = folder / "slurm.conf"
    ports = {"controller": free_port(), "daemon": free_port()}
    host = socket.gethostname().partition(".")[0]
    config.write_text(CONFIG.format(folder=folder, host=host, cpus=cpus, **ports))
    env = {**os.environ, "SLURM_CONF": str(config)}
    names = ("key-file=munge.key", "socket=munge.socket", "pid-file=munge.pid")
    names += ("log-file=munge.log", "seed-file=munge.seed")
    options = [f"--{key}={folder / name}" for key, name in (n.split("=") for n in names)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in (
            ["munged", "-F", "--force", *options],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            with (folder / f"{command[0]}.out").open("wb") as output:
                started.append(subprocess.Popen(command, env=env, stdout=output, stderr=output))
            time.sleep(0.5)
        wait_until(lambda: ask(env, "sinfo", "-h", "-o", "%T").strip() == "idle", 60)
        yield {"SLURM_CONF": str(config)}
    finally:
        stop(env, started)


def stop(env: Mapping[str, str], started: list[subprocess.Popen[bytes]]) -> None:
    """End jobs, then daemons, the last one first."""
    for words in (["--signal=KILL", "--full"], []):  # at once, and not requeued
        command = ["scancel", "--user=root", *words]
        subprocess.run(command, env=env, capture_output=True, timeout=30)
    try:
        wait_until(lambda: not ask(env, "squeue", "-h").strip(), 30)
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ask(env: Mapping[str, str], *command: str) -> str:
    """Output of a SLURM command; empty where the controller does not answer yet."""
    asked = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    return asked.stdout if asked.returncode == 0 else ""


def wait_until(true: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
