# SPDX-License-Identifier: Apache-2.0
"""From an empty machine to a working worker, and through its life: booted for real, with cloud-init, systemd and the package."""

from __future__ import annotations

import io
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from azure.storage.blob import BlobClient

from agent.protocol import (
    BackupPayload,
    CollectLogsPayload,
    Disk,
    Event,
    Failed,
    FlrReady,
    FlrStartPayload,
    FlrStopPayload,
    Heartbeat,
    LogItem,
    Ready,
    RepositoryReference,
    RestorePayload,
    Result,
    Secret,
)
from mover.repository.repository import Repository
from mover.store.open import open_store
from tests.agent.test_recovery import open_link
from tests.agent.waiting import wait_for
from tests.boot.conftest import Boot, Region
from tests.boot.machine import Machine
from tests.flr.corpus.catalogue import sample

pytestmark = [pytest.mark.boot, pytest.mark.azurite, pytest.mark.timeout(600)]
MIB = 1 << 20
SIZE = 160 * MIB


class Disks:
    """A page blob to back up, and where it is restored."""

    def __init__(self, region: Region, size: int = SIZE) -> None:
        self.region, self.size = region, size
        self.data = random.Random(3).randbytes(size)
        with self.client("disk") as client:
            client.create_page_blob(size)
            for at in range(0, size, 4 * MIB):
                client.upload_page(self.data[at : at + 4 * MIB], at, min(4 * MIB, size - at))
        self.url = f"{region.azurite.blob_url}/{region.container}/repository"
        store = open_store(self.url, {"DATA_MOVER_SAS": region.sas})
        Repository.create(store)
        store.close()
        self.repository = RepositoryReference(url=self.url)

    def client(self, name: str) -> BlobClient:
        server = self.region.azurite
        return BlobClient(server.blob_url, self.region.container, name, credential=server.account_key, retry_total=0)

    def secret(self, name: str) -> Secret:
        return Secret(clear=f"{self.region.azurite.blob_url}/{self.region.container}/{name}?{self.region.sas}")

    def back_up(self, job: str) -> None:
        disk = Disk(name="os", url=self.secret("disk"))
        payload = BackupPayload(what="vm", resource="vm1", repository=self.repository, disks=(disk,))
        self.region.appliance.issue("backup", payload, job=job)

    def restore(self, point: str, name: str) -> None:
        payload = RestorePayload(
            what="disk", repository=self.repository, point=point, url=self.secret(name), verify=True
        )
        self.region.appliance.issue("restore", payload, job=f"restore-{uuid.uuid4().hex[:8]}")

    def content(self, name: str) -> bytes:
        with self.client(name) as client:
            found: bytes = client.download_blob().readall()
        return found


def is_result(job: str = "") -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Result) and event.job.startswith(job)


@pytest.mark.parametrize("suite", ["bookworm", "trixie", "noble", "resolute"])
def test_an_empty_machine_becomes_a_worker_that_survives_a_stop_and_a_reboot(region: Region, boot: Boot) -> None:
    disks = Disks(region)
    odd = "a\"b\\ $HOME `id` #'\\"
    with boot(region.user_data(environment={"ODD": odd})) as machine:
        ready = region.wait_for(lambda event: isinstance(event, Ready | Failed), machine)
        assert isinstance(ready, Ready), ready
        assert ready.worker.startswith("worker-1")
        assert f"\0ODD={odd}\0" in machine.run("cat", f"/proc/{main_pid(machine)}/environ")
        machine.run("cloud-init", "schema", "--config-file", "/var/lib/cloud/seed/nocloud/user-data")
        footprint(machine)
        exposed = machine.run("systemd-analyze", "security", "--no-pager", "data-mover-agent.service").splitlines()[-1]
        assert float(re.findall(r"[0-9]+\.[0-9]+", exposed)[0]) <= 1.8, exposed
        disks.back_up("b1")
        done = region.wait_for(is_result("b1"), machine)
        assert isinstance(done, Result)
        assert done.status == "success", done
        disks.restore(done.point or "", "restored")
        assert region.wait_for(is_result("restore"), machine).status == "success"  # type: ignore[union-attr]
        assert disks.content("restored") == disks.data
        secrets_are_kept(machine, region)
        bundle_has_the_journal(machine, region)
        a_browser_has_its_parser(machine, region)

        # In the middle of a backup it is stopped, and the machine boots anew: the job goes on where it was.
        slow(machine, "6MiB")
        with disks.client("disk") as client:
            client.upload_page(random.Random(4).randbytes(4 * MIB), 0, 4 * MIB)
            for at in range(4 * MIB, SIZE, 4 * MIB):
                client.upload_page(random.Random(at).randbytes(4 * MIB), at, 4 * MIB)
        disks.back_up("b2")
        region.wait_until_reading("b2", machine)
        machine.run("systemctl", "stop", "data-mover-agent")
        back = region.wait_for(lambda event: isinstance(event, LogItem) and "stopping" in event.message, machine)
        assert isinstance(back, LogItem)
        slow(machine, "")
        machine.reboot()
        again = region.wait_for(is_result("b2"), machine)
        assert isinstance(again, Result)
        assert again.status == "success", again
        assert again.resumed
        disks.restore(again.point or "", "restored-2")
        region.wait_for(is_result("restore"), machine)
        assert disks.content("restored-2") == disks.content("disk")


def footprint(machine: Machine) -> None:
    """Of docs/performance.md: `make boot-test PYTEST_ARGS=-s` prints it."""
    waited = time.monotonic() - machine.booted_at
    pid = main_pid(machine)
    resident = int(re.findall(r"VmRSS:\s+(\d+) kB", machine.run("cat", f"/proc/{pid}/status"))[0]) >> 10
    installed = int(machine.run("dpkg-query", "--show", "--showformat=${Installed-Size}", "data-mover")) >> 10
    print(f"\nfrom boot to ready {waited:.1f} s, installed {installed} MiB, idle {resident} MiB resident")
    assert installed < 250
    assert resident < 150


def main_pid(machine: Machine) -> str:
    return machine.run("systemctl", "show", "--value", "--property=MainPID", "data-mover-agent").strip()


def bundle_has_the_journal(machine: Machine, region: Region) -> None:
    """By command, as the worker's own user; and by hand, as root."""
    region.appliance.issue("collect-logs", CollectLogsPayload(), job="logs")
    done = region.wait_for(is_result("logs"), machine)
    assert isinstance(done, Result)
    assert done.status == "success", done
    by_hand = machine.run("/bin/sh", "-ec", "cd /root; data-mover support-bundle --output b; tar -tzf b; tar -xzOf b")
    by_command = bytes(region.state.read_all(done.details["object"]))
    with tarfile.open(fileobj=io.BytesIO(by_command)) as archive:
        names = archive.getnames()
        journal = archive.extractfile("support/journal.jsonl")
        assert journal is not None
        assert b"command taken" in journal.read()
    assert "support/machine.json" in names
    assert "support/journal.jsonl" in by_hand
    assert region.sas.partition("sig=")[2] not in by_hand


def a_browser_has_its_parser(machine: Machine, region: Region) -> None:
    """A recovery browser on the worker: systemd starts its parser, with every layer of protection, and ends it with the session."""
    exposed = machine.run("systemd-analyze", "security", "--no-pager", "data-mover-parser@1.service").splitlines()[-1]
    assert float(re.findall(r"[0-9]+\.[0-9]+", exposed)[0]) <= 1.0, exposed
    shutil.copy(sample("fat32").image, machine.root / "srv/disk.img")
    (machine.root / "srv/disk.img").chmod(0o644)
    start = FlrStartPayload(disks=(Disk(path="/srv/disk.img"),), resource="vm1", names=("localhost",), port=443)
    region.appliance.issue("flr-start", start, job="browser")
    ready = region.wait_for(lambda event: isinstance(event, FlrReady | Result), machine)
    assert isinstance(ready, FlrReady), ready
    with open_link(ready) as client:
        assert client.get("/api/session").json()["notes"] == []  # no layer is missing
        assert client.get("/api/list", params={"point": "disks", "volume": "0"}).json()["total"] > 0
        units = machine.run("systemctl", "list-units", "--plain", "--no-legend", "data-mover-parser@*").splitlines()
        assert len(units) == 1, units
        pid = machine.run("systemctl", "show", "--value", "--property=MainPID", units[0].split()[0]).strip()
        status = machine.run("cat", f"/proc/{pid}/status")
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
        assert "CapEff:\t0000000000000000" in status
        refused = machine.run("runuser", "-u", "nobody", "--", "cat", "/run/data-mover-parser/socket", check=False)
        assert refused == ""
    region.appliance.issue("flr-stop", FlrStopPayload(target="browser"), job="flr-stop")
    assert region.wait_for(is_result("browser"), machine).status == "success"  # type: ignore[union-attr]
    wait_for(lambda: not machine.run("systemctl", "list-units", "--plain", "--no-legend", "data-mover-parser@*"))


def slow(machine: Machine, bandwidth: str) -> None:
    path = machine.root / "etc/data-mover/agent.toml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("bandwidth")]
    path.write_text("\n".join([*kept, f'bandwidth = "{bandwidth}"', ""]))
    machine.run("systemctl", "kill", "--signal=HUP", "data-mover-agent", check=False)


def secrets_are_kept(machine: Machine, region: Region) -> None:
    """Of mode 0600, in no log; what first boot had is gone."""
    root = machine.root
    signature = region.sas.partition("sig=")[2]
    assert (root / "etc/data-mover/secrets/DATA_MOVER_SAS").stat().st_mode & 0o777 == 0o600
    assert (root / "etc/data-mover/secrets").stat().st_mode & 0o777 == 0o700
    assert not (root / "var/lib/data-mover-setup/settings.json").exists()
    said = machine.console + machine.run("journalctl", "--no-pager")
    for name in ("cloud-init-output.log", "cloud-init.log"):
        said += (root / "var/log" / name).read_text()
    assert "secret-of-the-package" not in said
    assert signature not in said
    shutil.rmtree(root / "var/lib/cloud/seed")  # the test's own: Azure has it on a disk that is given to root
    for path in machine.run("grep", "-rlF", signature, "/etc", "/var/lib", "/run", "/var/log", check=False).split():
        others = (
            0o007 if path.startswith("/run/credentials/") else 0o077
        )  # there an ACL for the unit's user looks like a group's
        assert int(machine.run("stat", "--format=%a", path), 8) & others == 0, path


def failed(region: Region, machine: Machine) -> Failed:
    event = region.wait_for(lambda event: isinstance(event, Ready | Failed), machine)
    assert isinstance(event, Failed), event
    assert "FAILED at" in machine.console
    assert "sig=" not in repr(event) + machine.console
    return event


def test_a_wrong_hash_is_told(region: Region, boot: Boot) -> None:
    with boot(region.user_data(package_sha256="0" * 64)) as machine:
        event = failed(region, machine)
        assert event.step == "download"
        assert region.server.sha256 in event.what
        assert not (machine.root / "usr/bin/data-mover").exists()


def test_an_expired_sas_is_told(region: Region, boot: Boot) -> None:
    region.server.refuse = 403
    with boot(region.user_data()) as machine:
        event = failed(region, machine)
    assert (event.step, "403" in event.what, "expired" in event.hint) == ("download", True, True)
    assert region.server.asked == 1


def test_a_server_that_never_answers_is_told_in_time(region: Region, boot: Boot) -> None:
    region.server.refuse = 503
    with boot(region.user_data(time_limit=60)) as machine:
        event = failed(region, machine)
    assert event.step == "download"
    assert region.server.asked > 2


def test_a_configuration_for_another_version_is_told(region: Region, boot: Boot) -> None:
    """The renderer refuses an option that it does not know; the package may be an older one."""
    with boot(region.user_data().replace("checkpoint = 1", "checkpint = 1")) as machine:
        event = failed(region, machine)
    assert event.step == "configure"
    assert "worker.checkpint" in " ".join(event.lines)


def test_a_worker_that_cannot_start_is_told_with_its_own_words(region: Region, boot: Boot) -> None:
    text = region.configuration.replace("/var/lib/data-mover/seal.pem", "/no/such/folder/seal.pem")
    with boot(region.user_data(configuration=text)) as machine:
        event = failed(region, machine)
        assert "started again in 5 s" in machine.journal(), (
            "one that ends before it is ready is started ever more seldom"
        )
    assert event.step == "start"
    assert "/no/such/folder" in " ".join(event.lines)


def test_a_store_that_refuses_the_worker_is_told(region: Region, boot: Boot) -> None:
    """The daemon cannot be ready: its own words are in the event."""
    text = region.configuration.replace(f"/{region.container}/", "/no-such-container/")
    with boot(region.user_data(configuration=text, time_limit=60)) as machine:
        event = failed(region, machine)
    assert event.step == "start"
    assert "ContainerNotFound" in " ".join(event.lines)


def test_a_queue_that_never_answers_is_in_the_journal_and_on_the_console(region: Region, boot: Boot) -> None:
    """Nor can it be told by an event; a heartbeat of another queue would not come either."""
    text = region.configuration.replace(
        f'service = "{region.azurite.queue_url}"', 'service = "http://127.0.0.1:9/account"'
    )
    with boot(region.user_data(configuration=text, time_limit=60)) as machine:
        wait_for_console(machine, "it could not be reported")
        assert "FAILED at start" in machine.console
        assert "the queue's service" in machine.console.partition("FAILED at start")[2]
        assert (
            machine.run("systemctl", "show", "--value", "--property=ActiveState", "data-mover-agent").strip()
            == "activating"
        )


def wait_for_console(machine: Machine, text: str, seconds: float = 150) -> None:
    wait_for(lambda: text in machine.console, seconds, lambda: machine.console[-2000:])


def test_a_machine_that_is_restarted_in_its_first_boot_goes_on(region: Region, boot: Boot) -> None:
    region.server.hold = True
    with boot(region.user_data()) as machine:
        wait_for(lambda: region.server.asked, 120, lambda: machine.console[-2000:])
        region.server.hold = False
        machine.reboot()
        assert isinstance(region.wait_for(lambda event: isinstance(event, Ready | Failed), machine), Ready)


def test_updates_are_installed_by_themselves_where_the_image_did_not_do_so(region: Region, boot: Boot) -> None:
    machine = boot(region.user_data(configuration=region.configuration + "idle_exit = 5\n"))
    words = ["chroot", str(machine.root), "dpkg", "--purge", "--force-depends", "unattended-upgrades"]
    subprocess.run(words, check=True, capture_output=True)
    with machine:
        assert isinstance(region.wait_for(lambda event: isinstance(event, Ready | Failed), machine), Ready)

        # A worker without work ends for good, and says so.
        last = region.wait_for(lambda event: isinstance(event, Heartbeat) and event.state == "stopping", machine)
        assert isinstance(last, Heartbeat)
        assert last.reason == "idle"
        machine.run("systemctl", "is-system-running", "--wait", check=False)
        state = machine.run("systemctl", "show", "--property=ActiveState,NRestarts", "data-mover-agent").split()
        assert state == ["NRestarts=0", "ActiveState=inactive"]
        assert "install ok installed" in machine.run(
            "dpkg-query", "--show", "--showformat=${Status}", "unattended-upgrades"
        )
        assert 'Unattended-Upgrade::Automatic-Reboot "false"' in machine.run("apt-config", "dump")


def test_a_disk_with_too_little_room_is_told(region: Region, boot: Boot) -> None:
    with boot(region.user_data(), "--tmpfs=/opt:size=100M") as machine:
        event = failed(region, machine)
    assert event.step == "install"
    assert "MiB left" in event.what


def test_a_machine_without_a_network_says_so_on_its_console(region: Region, boot: Boot) -> None:
    """Nobody can be told: the console's log and cloud-init's own state are what is left."""
    with boot(region.user_data(time_limit=60), "--private-network") as machine:
        wait_for_console(machine, "it could not be reported")
        said = machine.console
        assert "FAILED at download" in said
        assert "port 443" in said
        assert "sig=" not in said
        assert not (machine.root / "usr/bin/data-mover").exists()


def test_a_lock_that_is_held_is_waited_for(region: Region, boot: Boot) -> None:
    machine = boot(region.user_data())
    hold = "import fcntl, time\nlock = open('/var/lib/dpkg/lock-frontend', 'w')\nfcntl.lockf(lock, fcntl.LOCK_EX)\ntime.sleep(12)\n"
    (machine.root / "hold.py").write_text(hold)
    unit = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/usr/bin/python3 /hold.py\n[Install]\nWantedBy=sysinit.target\n"
    (machine.root / "etc/systemd/system/hold.service").write_text(unit)
    wants = machine.root / "etc/systemd/system/sysinit.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "hold.service").symlink_to("/etc/systemd/system/hold.service")
    with machine:
        assert isinstance(region.wait_for(lambda event: isinstance(event, Ready | Failed), machine), Ready)
        assert "waiting for it" in machine.console


def test_an_upgrade_lets_a_busy_worker_end_its_job(region: Region, boot: Boot, package: Path) -> None:
    disks = Disks(region)
    text = region.configuration + 'bandwidth = "8MiB"\n'
    with boot(region.user_data(configuration=text)) as machine:
        assert isinstance(region.wait_for(lambda event: isinstance(event, Ready | Failed), machine), Ready)
        before = main_pid(machine)
        disks.back_up("b1")
        region.wait_until_reading("b1", machine)
        shutil.copy(newer(package), machine.root / "new.deb")
        # As unattended-upgrades would: nobody is asked anything, and what somebody wrote is kept.
        machine.run("dpkg", "--install", "/new.deb")
        assert main_pid(machine) == before
        assert (machine.root / "opt/data-mover/lib/newer").exists()
        assert not (machine.root / "opt/data-mover/running/newer").exists(), (
            "a busy worker runs from what it started with"
        )
        done = region.wait_for(is_result("b1"), machine)
        assert isinstance(done, Result)
        assert done.status == "success", done
        region.wait_for(lambda event: isinstance(event, Ready), machine)
        assert main_pid(machine) not in ("0", before)
        assert (machine.root / "opt/data-mover/running/newer").exists()
        disks.restore(done.point or "", "restored")
        assert region.wait_for(is_result("restore"), machine).status == "success"  # type: ignore[union-attr]


def wait_for_journal(machine: Machine, text: str, seconds: float = 120) -> None:
    wait_for(lambda: text in machine.journal(), seconds, machine.journal)


def newer(package: Path) -> Path:
    """A later version of the package, with another default configuration and one file more."""
    with tempfile.TemporaryDirectory() as folder:
        tree, to = Path(folder) / "tree", package.with_suffix(".newer")
        subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
        control = tree / "DEBIAN/control"
        control.write_text(re.sub(r"^Version: .*$", "Version: 99", control.read_text(), flags=re.MULTILINE))
        (tree / "opt/data-mover/lib/newer").touch()
        for name in ("usr/share/data-mover/agent.toml", "etc/apt/apt.conf.d/60data-mover-upgrades"):
            with (tree / name).open("a") as file:
                file.write("// later\n" if "apt" in name else "# later\n")
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, to], check=True, stdout=subprocess.DEVNULL
        )
    return to


def test_a_hung_worker_is_started_anew_and_one_that_crashes_comes_back_when_its_cause_is_gone(
    region: Region, boot: Boot
) -> None:
    machine = boot(region.user_data())
    drop_in = machine.root / "etc/systemd/system/data-mover-agent.service.d"
    drop_in.mkdir(parents=True)
    (drop_in / "quick.conf").write_text("[Service]\nWatchdogSec=6\nTimeoutAbortSec=1\nRestartSec=1\n")
    configuration = machine.root / "etc/data-mover/agent.toml"

    def is_ready(event: Event) -> bool:
        return isinstance(event, Ready | Failed)

    with machine:
        assert isinstance(region.wait_for(is_ready, machine), Ready)
        machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "data-mover-agent")
        assert isinstance(region.wait_for(is_ready, machine), Ready)
        assert "Watchdog timeout" in machine.run("journalctl", "--no-pager", "--unit=data-mover-agent")

        good = configuration.read_text()
        configuration.write_text(good + "nonsense = 1\n")
        machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "data-mover-agent")
        wait_for_journal(machine, "started again in 10 s")
        assert "an option that is not known" in machine.journal()
        configuration.write_text(good)
        assert isinstance(region.wait_for(is_ready, machine), Ready)
