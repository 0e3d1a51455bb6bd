"""From the body of an HTTP request to samples, within limits that are checked before they are spent."""
