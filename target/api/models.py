"""What the management API takes and gives: JSON objects, checked where they come in."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
LONGEST_WAIT = 86_400.0
LARGEST_GENERATION = 2**63 - 1

Seconds = Annotated[float, Field(ge=0, le=LONGEST_WAIT, allow_inf_nan=False)]


class SnapshotWish(BaseModel):
    """What a snapshot shall be."""

    model_config = ConfigDict(extra="forbid")

    quiet: Seconds | None = Field(
        None, description="seconds without a change to wait for; null: the disk's setting"
    )
    timeout: Seconds | None = Field(
        None, description="seconds to wait for them at the most; null: the disk's setting"
    )
    name: Annotated[str, Field(pattern=NAME)] | None = Field(
        None, description="a name that no other snapshot has; null: one is made"
    )
    consistency: Literal["crash", "fs", "app"] = Field(
        "crash", description="what the one who asks has seen to: nothing, file system, application"
    )


class Health(BaseModel):
    """That the server answers, and what it is."""

    status: Literal["ok"]
    version: str
    disks: int
    snapshots: int


class Unit(BaseModel):
    """A logical unit. The designator is its NAA one, hexadecimal."""

    name: str
    kind: str
    target: str
    lun: int
    url: str
    designator: str
    serial: str


class Disk(Unit):
    """A disk. Sizes are bytes, times seconds."""

    size: int
    block_size: int
    readonly: bool
    snapshots: bool = Field(description="whether snapshots can be taken of it")
    quiet: float | None = Field(description="how long nothing has changed it")
    quiet_period: float
    quiet_timeout: float
    generation: int | None = Field(description="of its newest snapshot")


class Quiet(BaseModel):
    """How long nothing has changed a disk, at least; and for how long a snapshot waits."""

    disk: str
    quiet: float
    quiet_period: float
    quiet_timeout: float


class Snapshot(Unit):
    """A snapshot; `generation` is what a later one's changes can be asked since."""

    disk: str
    created: str = Field(description="ISO 8601, UTC")
    consistency: str
    generation: int
    size: int
    used: int = Field(description="bytes that it takes on the storage")
    invalid: str | None = Field(description="why it cannot be read any more; null: it can")
    in_use: str | None = Field(description="why it would be missed now; null: it would not")


class Changes(BaseModel):
    """What changed: (offset, length) in bytes, ascending. Unless complete, take all for changed."""

    extents: list[tuple[int, int]]
    complete: bool


class Session(BaseModel):
    """An initiator that is logged in, and the LUNs that it sees."""

    target: str
    initiator: str
    isid: str
    tsih: int
    luns: list[int]


class Problem(BaseModel):
    """RFC 9457. A snapshot that did not come has more: asked, timeout, waited, last_write_age."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
