# SPDX-License-Identifier: Apache-2.0
"""Disks with LVM groups and md arrays, made by the real tools under a kernel that has them (`uml`), and what that kernel read.

Every volume is filled with random bytes of its own; the truth is its size and the SHA-256 of the whole of it, as read from the
assembled device. Nothing that is made here is all zeros, so a reader that answers with holes is found out.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.flr.corpus import cache, uml

MIB = 1 << 20
PATTERN = 48 * MIB

BEGIN = """
load dm-mod dm-raid raid0 raid1 raid456 raid10 linear dm-mirror dm-snapshot dm-thin-pool
mkdir /run/lvm-settings
export LVM_SYSTEM_DIR=/run/lvm-settings DM_DISABLE_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1
cat >/run/lvm-settings/lvm.conf <<END
devices { types = ["ubd", 16] use_devicesfile = 0 obtain_device_list_from_udev = 0 scan = ["/dev"] }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup = 0 archive = 0 }
END
number=0
fill() { number=$((number + 1)); tail -c +$((number * 12347)) pattern >$1 2>/dev/null || :; sync; blockdev --flushbufs $1; }
tell() { echo "TRUTH $1 $(blockdev --getsize64 $2) $(sha256sum <$2 | cut -d' ' -f1)"; }
full() { fill $2; tell $1 $2; }
until_() { for i in $(seq 600); do eval "$1" 2>/dev/null && return; sleep 0.1; done; echo "never: $1"; return 1; }
"""


class Known(msgspec.Struct, array_like=True):
    """A volume as the kernel read it: bytes, and the SHA-256 of all of them."""

    size: int
    sha256: str


class Made:
    """Disk images by name, and the truth by the name that the script gave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.truth = msgspec.json.decode((folder / "truth.json").read_bytes(), type=dict[str, Known])
        self.said = (folder / "said").read_text()

    def disk(self, name: str) -> Path:
        return self.folder / name


def made(name: str, disks: Sequence[tuple[str, int, str]], script: str, *programs: str, seconds: int = 120) -> Made:
    """`disks` are (name, bytes, sfdisk's script or nothing), in their order: /dev/ubda and so on."""
    uml.need(*programs)

    def make(folder: Path) -> None:
        for disk, size, table in disks:
            with open(folder / disk, "wb") as file:
                file.truncate(size)
            if table:
                subprocess.run(["sfdisk", "-q", folder / disk], input=table.encode(), check=True, capture_output=True)
        (folder / "pattern").write_bytes(random.Random(name).randbytes(PATTERN))
        said = uml.run(BEGIN + script, [folder / disk for disk, _, _ in disks], folder, seconds)
        (folder / "pattern").unlink()
        (folder / "said").write_text(said)
        known = {
            words[1]: Known(int(words[2]), words[3])
            for words in map(str.split, said.splitlines())
            if words and words[0] == "TRUTH"
        }
        (folder / "truth.json").write_bytes(msgspec.json.encode(known))

    if name in _failed:
        raise RuntimeError(_failed[name])
    try:
        return Made(cache.made(name, (cache.source(uml.__file__, __file__), list(disks), script), make))
    except RuntimeError as error:
        _failed[name] = str(error)
        raise


_failed: dict[str, str] = {}
"""Makings that failed in this run: one failure is enough, each takes its half a minute."""


def groups() -> Made:
    """LVM: every type of volume that is opened, and most of those that are not."""
    part = 'label: gpt\nsize=1MiB, type=uefi, name=EFI\ntype=lvm, name="data {}"\n'
    disks = [
        ("whole0", 48 * MIB, ""), ("whole1", 48 * MIB, ""), ("whole2", 48 * MIB, ""),
        ("part0", 12 * MIB, part.format(0)), ("part1", 16 * MIB, part.format(1)), ("part2", 12 * MIB, part.format(2)),
        ("mirrored0", 16 * MIB, ""), ("mirrored1", 16 * MIB, ""),
        ("stale0", 16 * MIB, ""), ("stale1", 16 * MIB, ""),
        ("half0", 24 * MIB, ""), ("half1", 24 * MIB, ""),
        ("guest", 24 * MIB, ""),
    ]  # fmt: skip
    return made("volumes-lvm", disks, GROUPS, "lvm", "mdadm", "thin_check", "sfdisk")


GROUPS = """
ubd() { for x; do echo /dev/ubd$x; done; }
make() { local name=$1 size=$2; shift 2; lvcreate -q -y -L $size -n $name "$@"; }

# Three whole disks. Segments lie in another order than they are used in.
pvcreate -q $(ubd a b c)
vgcreate -q -s 512K vgw $(ubd a b c)
make line 3M vgw -Wn /dev/ubda
make stripes 4M vgw -Wn -i 3 -I 16K
lvextend -q -L +2M vgw/line /dev/ubdc
lvextend -q -i 2 -I 64K -L +2M vgw/stripes /dev/ubdb /dev/ubdc
lvextend -q -L +1M vgw/line /dev/ubda
make last 2M vgw -Wn /dev/ubdc
make two 4M vgw -Wn --type raid1 -m 1 /dev/ubda /dev/ubdb
make zero 4M vgw -Wn --type raid0 -i 2 -I 32K
make glass 3M vgw -Wn --type mirror -m 1 --mirrorlog core /dev/ubdb /dev/ubda
make five 4M vgw -Wn --type raid5 -i 2
make pool 6M vgw -Zn --type thin-pool
lvcreate -q -y -V 8M -n thin --thinpool vgw/pool
for lv in line stripes last two zero glass five; do fill /dev/vgw/$lv; done
lvcreate -q -y -s -L 2M -n before vgw/last
head -c 65536 pattern >/dev/vgw/last
until_ '[ $(lvs --noheadings -o copy_percent vgw/two) = 100.00 ]'
until_ '[ $(lvs --noheadings -o copy_percent vgw/glass) = 100.00 ]'
until_ '[ $(lvs --noheadings -o copy_percent vgw/five) = 100.00 ]'
sync
for lv in line stripes last two zero glass; do tell vgw/$lv /dev/vgw/$lv; done
lvs -a -o+devices,lv_uuid vgw
vgchange -q -an vgw

# Partitions of three disks.
pvcreate -q /dev/ubdd2
pvcreate -q --metadatacopies 2 --dataalignment 192k /dev/ubde2
pvcreate -q --metadatacopies 0 --bootloaderareasize 100k /dev/ubdf2
vgcreate -q -s 1M vgp $(ubd d2 e2 f2)
make over 22M vgp -Wn
full vgp/over /dev/vgp/over
vgchange -q -an vgp

# Over md.
mdadm -C /dev/md0 -q -R -l1 -n2 -e1.2 -N under --homehost=made $(ubd g h)
until_ '! grep -q resync /proc/mdstat'
pvcreate -q /dev/md0
vgcreate -q vgm /dev/md0
make data 8M vgm -Wn
full vgm/data /dev/vgm/data
vgchange -q -an vgm
mdadm -q -S /dev/md0

# One leg was away while the other was written, and is back.
pvcreate -q $(ubd i j)
vgcreate -q -s 512K vgs $(ubd i j)
make two 6M vgs -Wn --type raid1 -m 1
make alone 1M vgs -Wn /dev/ubdj
full vgs/alone /dev/vgs/alone
fill /dev/vgs/two
until_ '[ $(lvs --noheadings -o copy_percent vgs/two) = 100.00 ]'
vgchange -q -an vgs
sync
only='devices { filter = [ "r|/dev/ubdi|" ] }'
lvchange -q -ay --activationmode degraded --config "$only" vgs/two
full vgs/two /dev/vgs/two
vgchange -q -an --config "$only" vgs
sync

# A leg that was added and is not filled yet.
pvcreate -q $(ubd k l)
vgcreate -q -s 512K vgh $(ubd k l)
make two 16M vgh -Wn /dev/ubdk
full vgh/two /dev/vgh/two
echo 1 >/proc/sys/dev/raid/speed_limit_min
echo 1 >/proc/sys/dev/raid/speed_limit_max
lvconvert -q -y --type raid1 -m 1 vgh/two /dev/ubdl
lvs -a -o+copy_percent,devices vgh
vgchange -q -an vgh
echo 200000 >/proc/sys/dev/raid/speed_limit_max

# A guest's disk inside of a volume.
pvcreate -q /dev/ubdm
vgcreate -q vgg /dev/ubdm
make disk 16M vgg -Wn
printf 'label: dos\\nsize=4MiB, type=83\\ntype=83\\n' | sfdisk -q --no-reread --no-tell-kernel /dev/vgg/disk
dd if=pattern of=/dev/vgg/disk bs=1M seek=1 count=15 conv=notrunc status=none
tell vgg/disk /dev/vgg/disk
vgchange -q -an vgg
"""


def arrays() -> Made:
    """md: over partitions of three disks (of other sizes each), over whole disks, and arrays over arrays."""
    table = "label: gpt\n" + "".join(f"size={{}}KiB, type=raid, name=m{n}\n" for n in range(1, 15))
    sizes = [
        [6, 6, 6, 6, 6, 6, 6, 4, 4, 6, 6, 6, 8, 8],
        [6, 6, 6, 6, 9, 9, 5, 4, 4, 6, 6, 6, 8, 8],
        [6, 6, 6, 6, 15, 15, 7, 4, 4, 6, 6, 6, 8, 8],
    ]
    disks = [
        (
            f"disk{number}",
            128 * MIB,
            table.format(*[size * 1024 + (320 if n in (4, 5) else 0) for n, size in enumerate(of)]),
        )
        for number, of in enumerate(sizes)
    ]
    disks += [(name, 10 * MIB + 40960, "") for name in ("old0", "old1", "end0", "end1")]
    return made("volumes-md", disks, ARRAYS, "mdadm", "sfdisk")


ARRAYS = """
create() { local name=$1; shift; mdadm -C /dev/md/$name -q -R -N $name --homehost=made "$@"; }
quiet() { until_ '! grep -qE "resync|recovery|reshape" /proc/mdstat'; }
ubd() { for x; do echo /dev/ubd$x; done; }
one() { local name=$1; shift; create $name "$@"; quiet; full $name /dev/md/$name; }

one one12 -l1 -n2 -e1.2 $(ubd a1 b1)
one one11 -l1 -n2 -e1.1 $(ubd a2 b2)
one one10 -l1 -n2 -e1.0 $(ubd a3 b3)
mdadm -C /dev/md90 -q -R -l1 -n2 -e0.90 $(ubd a4 b4); quiet; full one090 /dev/md90
one zero -l0 -n3 -c1024 --layout=original $(ubd a5 b5 c5)
one zeroalt -l0 -n3 -c1024 --layout=alternate $(ubd a6 b6 c6)
one line -llinear -n3 $(ubd a7 b7 c7)
one five -l5 -n3 $(ubd a8 b8 c8)
one ten -l10 -n3 $(ubd a9 b9 c9)
# One member failed, and the other was written on.
one stale -l1 -n2 --bitmap=none $(ubd a10 b10)
mdadm -q /dev/md/stale -f /dev/ubda10; full stale /dev/md/stale
one spare -l1 -n2 -x1 $(ubd a11 b11 c11)
# A member that is not filled yet.
create half -l1 -n2 --bitmap=none missing /dev/ubdb12
echo 1 >/proc/sys/dev/raid/speed_limit_min
echo 1 >/proc/sys/dev/raid/speed_limit_max
full half /dev/md/half
mdadm -q /dev/md/half -a /dev/ubda12
until_ "grep -q recovery /proc/mdstat"
cat /proc/mdstat
mdadm -q -S /dev/md/half
echo 200000 >/proc/sys/dev/raid/speed_limit_max
# Mirrors below stripes.
create left -l1 -n2 $(ubd a13 b13)
create right -l1 -n2 $(ubd c13 a14)
quiet
one both -l0 -n2 -c64 /dev/md/left /dev/md/right
# A copy of which a part could not be written. The kernel keeps a list of such parts, and reads them from the other copy.
create bad -l1 -n2 --bitmap=none $(ubd b14 c14)
quiet
fill /dev/md/bad
echo 3000 16 >/sys/block/$(basename $(readlink /dev/md/bad))/md/dev-ubdb14/bad_blocks
# The list is written with the superblock, which a write sees to.
dd if=pattern of=/dev/md/bad bs=4096 count=1 conv=notrunc,fsync status=none
mdadm -q -S /dev/md/bad
dd if=pattern of=/dev/ubdb14 bs=512 seek=3000 count=16 conv=notrunc,fsync status=none
mdadm -q -A /dev/md/bad $(ubd b14 c14)
tell bad /dev/md/bad
# Whole disks: metadata at the end, with a table of partitions inside.
mdadm -C /dev/md91 -q -R -l1 -n2 -e0.90 $(ubd d e); quiet; full old /dev/md91
create end -l1 -n2 -e1.0 $(ubd f g); quiet; fill /dev/md/end
printf 'label: gpt\\nsize=2MiB, name=first\\nname=second\\n' | sfdisk -q --no-reread --no-tell-kernel /dev/md/end
tell end /dev/md/end
cat /proc/mdstat
sync
mdadm -q -S /dev/md/both
mdadm -q -S --scan
sync
"""
