"""Management over HTTP: what no SCSI command can ask for."""
