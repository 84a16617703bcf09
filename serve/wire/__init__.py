"""HTTP bodies to and from arrays, in the contract's forms, whatever server they come through."""
