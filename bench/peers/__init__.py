"""Services that people would write instead of this project, in the fewest lines that do it well."""
