"""What a tape drive gives itself out as: names and codes that software looks up in tables.

Backup software and LTFS refuse drives that are not in theirs. A profile changes what they look at,
INQUIRY's identification, density codes and medium types, and one thing of how the drive works: what
it does at a block that cannot be read. Names and codes of the LTO profiles are those that LTFS's
tables have; so are the firmware levels of the two generations that LTFS refuses below one.
"""

from dataclasses import dataclass

from serverfree.target.units.base import REVISION, VENDOR


@dataclass(frozen=True, slots=True)
class Profile:
    """Names, the density code, and the MEDIUM TYPE of a data and of a WORM cartridge."""

    vendor: str
    product: str
    revision: str
    density: int
    data_medium: int
    worm_medium: int
    organization: str
    density_name: str
    description: str
    stays_at_damage: bool
    """Reading ends before a block that cannot be read, and finds it again (IBM GA32-0928-06 table
    16): LTFS relies on that. Else it is passed, as by HP's."""


def _lto(generation: int, density: int, tracks: int, revision: str = REVISION) -> Profile:
    medium = generation << 4
    return Profile(
        vendor="IBM",
        product=f"ULT3580-TD{generation}",
        revision=revision,
        density=density,
        data_medium=medium | 0x8,
        worm_medium=medium | 0xC,
        organization="LTO-CVE",
        density_name=f"U-{generation}{tracks}",
        description=f"Ultrium {generation}/{tracks}T",
        stays_at_damage=True,
    )


OWN = Profile(
    vendor=VENDOR,
    product="TAPE",
    revision=REVISION,
    density=0xF0,  # of the vendor's own: no tape on a reel has this format
    data_medium=0,
    worm_medium=0,
    organization=VENDOR,
    density_name="LOG-1",
    description="Record log",
    stays_at_damage=False,
)
PROFILES = {
    "own": OWN,
    "lto5": _lto(5, 0x58, 16, "B170"),
    "lto6": _lto(6, 0x5A, 16),
    "lto7": _lto(7, 0x5C, 32),
    "lto8": _lto(8, 0x5E, 32, "HB81"),
    "lto9": _lto(9, 0x60, 32),
}
