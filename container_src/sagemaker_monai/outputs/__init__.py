"""From predictions to bodies: JSON, CSV, JSON lines, structured reports."""
