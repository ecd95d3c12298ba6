"""Task management functions as a logical unit reports them (SPC-4 6.36)."""

from enum import IntFlag


class TaskManagementSupport(IntFlag):
    """The functions in bytes 0 and 1 of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (table 304)."""

    ABORT_TASK = 0x8000
    ABORT_TASK_SET = 0x4000
    CLEAR_ACA = 0x2000
    CLEAR_TASK_SET = 0x1000
    LOGICAL_UNIT_RESET = 0x0800
    QUERY_TASK = 0x0400
    TARGET_RESET = 0x0200
    WAKEUP = 0x0100
    QUERY_ASYNCHRONOUS_EVENT = 0x0004
    QUERY_TASK_SET = 0x0002
    I_T_NEXUS_RESET = 0x0001
