"""What people would write instead of this project, each in the fewest lines that do it well."""
