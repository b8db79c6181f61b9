# SPDX-License-Identifier: Apache-2.0
"""An empty VM with a kernel of its own becomes a worker, backs a disk up and restores it: `python -m tests.boot.vm`, as root.

QEMU without KVM: a processor in software, some ten times slower than one of Azure's. What it shows is that nothing rests on the
host's kernel; its times are no VM's. This machine's servers are at 127.0.0.1 of the VM too: a program in it passes them on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from agent.protocol import Failed, Heartbeat, Ready, Result
from tests.azurite import Azurite
from tests.boot.conftest import Packages, PackageServer, Region
from tests.boot.machine import HERE, Machine, base
from tests.boot.test_boot import MIB, Disks, is_result

SUITE = "bookworm"
KERNEL = ",linux-image-cloud-amd64,initramfs-tools"
HOST = "10.0.2.2"
"""This machine, as QEMU shows it to its guest."""
FORWARD = """\
import asyncio, sys

async def copy(source, sink):
    try:
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    except OSError:
        pass
    sink.close()

async def serve(port):
    async def one(reader, writer):
        far_reader, far_writer = await asyncio.open_connection("HOST", port)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
    await asyncio.start_server(one, "127.0.0.1", port)

async def main():
    for port in sys.argv[1:]:
        await serve(int(port))
    await asyncio.Event().wait()

asyncio.run(main())
"""
UNIT = """\
[Unit]
Before=cloud-final.service
[Service]
ExecStart=/usr/bin/python3 /forward.py PORTS
[Install]
WantedBy=multi-user.target
"""


class VirtualMachine(Machine):
    """Its console is in `console`; nothing can be run in it, and it is ended by cutting its power."""

    def __init__(self, folder: Path, user_data: str, ports: list[int]) -> None:
        super().__init__(folder / "tree", SUITE, user_data, more=KERNEL)
        self._folder = folder
        (self.root / "forward.py").write_text(FORWARD.replace("HOST", HOST))
        units = self.root / "etc/systemd/system"
        (units / "forward.service").write_text(UNIT.replace("PORTS", " ".join(map(str, ports))))
        (self.root / "etc/systemd/network/20-all.network").write_text("[Match]\nName=en*\n[Network]\nDHCP=yes\n")
        wants = units / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "forward.service").symlink_to("/etc/systemd/system/forward.service")
        (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
        for name in ("vmlinuz", "initrd.img"):
            found = next((self.root / "boot").glob(f"{name}-*"))
            shutil.copy(found, folder / name)
        with open(folder / "image", "wb") as file:
            file.truncate(4096 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-d", self.root, folder / "image"], check=True)
        shutil.rmtree(self.root)

    def words(self) -> list[str]:
        append = "console=ttyS0 panic=-1 root=/dev/vda rw"
        words = [
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "4096",
            "-nographic",
        ]
        words += ["-no-reboot", "-kernel", str(self._folder / "vmlinuz"), "-initrd", str(self._folder / "initrd.img")]
        words += ["-drive", f"file={self._folder}/image,format=raw,if=virtio,cache=unsafe"]
        return [*words, "-nic", "user,model=virtio-net-pci", "-append", append]

    def journal(self) -> str:
        return self.console[-4000:]

    def _init(self) -> int:
        """QEMU itself: there is no process of the guest's here."""
        return 0

    def cut(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)


def main() -> None:
    subprocess.run([HERE / "packaging/apt-install.sh", "qemu-system-x86", "e2fsprogs"], check=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, Azurite(Path(name) / "azurite") as azurite:
        folder = Path(name)
        package = Packages(folder).of(SUITE)
        base(SUITE, KERNEL)
        with PackageServer(package) as server:
            region = Region(azurite, server)
            disks = Disks(region, 64 * MIB)
            ports = [
                int(url.rsplit(":", 1)[1].split("/")[0]) for url in (server.url, azurite.blob_url, azurite.queue_url)
            ]
            began = time.monotonic()

            def passed(what: str) -> None:
                print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

            with VirtualMachine(folder, region.user_data(time_limit=900), ports) as machine:
                began = time.monotonic()
                ready = region.wait_for(lambda event: isinstance(event, Ready | Failed), machine, 900)
                passed(f"{type(ready).__name__}: {ready}"[:100])
                assert isinstance(ready, Ready)
                disks.back_up("b1")
                done = region.wait_for(is_result("b1"), machine, 600)
                assert isinstance(done, Result)
                passed(f"backup: {done.status}")
                disks.restore(done.point or "", "restored")
                restored = region.wait_for(is_result("restore"), machine, 600)
                assert isinstance(restored, Result)
                passed(f"restore: {restored.status}, equal: {disks.content('restored') == disks.data}")

                # Its power is cut in the middle of a backup: with the same disk it boots anew, and goes on.
                with disks.client("disk") as client:
                    client.upload_page(os.urandom(4 * MIB), 0, 4 * MIB)
                disks.back_up("b2")
                region.wait_for(lambda event: isinstance(event, Heartbeat) and event.state == "busy", machine, 600)
                machine.cut()
                passed("power cut")
            with machine:
                again = region.wait_for(is_result("b2"), machine, 900)
                assert isinstance(again, Result)
                passed(f"backup after the cut: {again.status}, resumed: {again.resumed}")
                disks.restore(again.point or "", "restored-2")
                region.wait_for(is_result("restore"), machine, 600)
                passed(f"restored, equal: {disks.content('restored-2') == disks.content('disk')}")
            region.close()
        release = [line for line in machine.console.splitlines() if "Linux version" in line][-1:]
        print(*release)


if __name__ == "__main__":
    main()
