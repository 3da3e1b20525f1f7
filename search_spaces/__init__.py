"""Search spaces as YAML, and the zoo of published networks; see `nas.space_file` for the format."""
