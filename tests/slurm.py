"""A Slurm of one node on this machine, as long as it is needed."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
PACKAGES = ("slurmctld", "slurmd", "munge", "slurm-client")

ETC = Path("/etc/slurm")  # where a job's own srun looks, which is not told of another place

CONFIG = """
ClusterName=one
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=86400
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""


def installed() -> bool:
    """Whether it is there, for root, or could be installed, in CI."""
    if os.geteuid() != 0 or all(map(shutil.which, PROGRAMS)):
        return os.geteuid() == 0
    if os.environ.get("CI") != "true":
        return False
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-q"], check=False, **quiet)
    subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES], check=False, **quiet)
    return all(map(shutil.which, PROGRAMS))


@contextmanager
def running(folder: Path):
    """Start it, as root; its configuration lies in /etc meanwhile, all else that it writes in that folder."""
    host = socket.gethostname().split(".")[0]
    for own in ("state", "spool"):
        (folder / own).mkdir(parents=True)
    configuration = {ETC / "slurm.conf": CONFIG.format(host=host, folder=folder, cpus=os.cpu_count())}
    configuration[ETC / "cgroup.conf"] = "CgroupPlugin=cgroup/v1\n"
    if there := [own for own in configuration if own.exists()]:
        raise RuntimeError(f"this machine has a Slurm of its own: {there[0]}")
    ETC.mkdir(exist_ok=True)
    for path, text in configuration.items():
        path.write_text(text)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge.{own}" for option, own in munge.items()]
    daemons = []
    try:
        for call in (["munged", "--foreground", "--force", *options], ["slurmctld", "-D"], ["slurmd", "-D"]):
            with open(folder / f"{call[0]}.out", "wb") as out:
                daemons.append(subprocess.Popen(call, stdout=out, stderr=out))
            time.sleep(1)
        _wait(folder)
        yield
    finally:
        for own in reversed(daemons):
            own.terminate()
            own.wait(timeout=60)
        for path in configuration:
            path.unlink()


def _wait(folder: Path) -> None:
    """Until the node takes jobs."""
    for _ in range(60):
        run = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
        if run.stdout.strip() == "idle":
            return
        time.sleep(1)
    logs = "\n".join(own.read_text(errors="replace")[-1500:] for own in folder.glob("*.out"))
    raise RuntimeError(f"Slurm doesn't start: {run.stdout}{run.stderr}\n{logs}")
