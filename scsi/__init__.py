"""The SCSI vocabulary: commands, sense, pages, parameter lists. No I/O, no clocks, no state."""
