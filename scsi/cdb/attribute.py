"""READ ATTRIBUTE and WRITE ATTRIBUTE (SPC-4 6.17, 6.48): the memory of a medium."""

from serverfree.scsi.cdb.layout import Cdb, at, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction


@cdb(OperationCode.READ_ATTRIBUTE, ServiceAction.READ_ATTRIBUTE_VALUES)
class ReadAttributeValues(Cdb):
    """Values of the attributes from `first` on."""

    logical_volume: int = at(5)
    partition: int = at(7)
    first: int = at(8, 2)
    allocation_length: int = at(10, 4)
    cache: bool = flag(14, 0)


@cdb(OperationCode.READ_ATTRIBUTE, ServiceAction.READ_ATTRIBUTE_LIST)
class ReadAttributeList(Cdb):
    """Identifiers of the attributes that exist."""

    logical_volume: int = at(5)
    partition: int = at(7)
    first: int = at(8, 2)
    allocation_length: int = at(10, 4)
    cache: bool = flag(14, 0)


@cdb(OperationCode.READ_ATTRIBUTE, ServiceAction.READ_LOGICAL_VOLUME_LIST)
class ReadLogicalVolumeList(Cdb):
    """Which logical volumes there are."""

    logical_volume: int = at(5)
    partition: int = at(7)
    first: int = at(8, 2)
    allocation_length: int = at(10, 4)
    cache: bool = flag(14, 0)


@cdb(OperationCode.READ_ATTRIBUTE, ServiceAction.READ_PARTITION_LIST)
class ReadPartitionList(Cdb):
    """Which partitions there are."""

    logical_volume: int = at(5)
    partition: int = at(7)
    first: int = at(8, 2)
    allocation_length: int = at(10, 4)
    cache: bool = flag(14, 0)


@cdb(OperationCode.READ_ATTRIBUTE, ServiceAction.READ_SUPPORTED_ATTRIBUTES)
class ReadSupportedAttributes(Cdb):
    """Identifiers of the attributes that exist or can be written."""

    logical_volume: int = at(5)
    partition: int = at(7)
    first: int = at(8, 2)
    allocation_length: int = at(10, 4)
    cache: bool = flag(14, 0)


@cdb(OperationCode.WRITE_ATTRIBUTE)
class WriteAttribute(Cdb):
    """WRITE ATTRIBUTE. `through` (WTC) asks that it lasts when the command ends: it always does."""

    through: bool = flag(1, 0)
    logical_volume: int = at(5)
    partition: int = at(7)
    parameter_list_length: int = at(10, 4)
