"""What everything else is made of: step records, their JSON form, errors and the words users read."""
