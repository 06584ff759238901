"""The command line: parsing, calling, printing. Nothing heavy is imported until a command needs it."""
