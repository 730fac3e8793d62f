"""What every other package may use: errors, messages, plug-ins, outside commands, files written aside, the terminal."""
