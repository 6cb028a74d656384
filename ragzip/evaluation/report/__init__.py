"""What a run says to a person: a table in the terminal and one self-contained HTML page."""
