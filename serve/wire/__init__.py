"""HTTP bodies to and from arrays: the contract's forms, without any server in sight."""
