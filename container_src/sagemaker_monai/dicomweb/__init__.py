"""Images from a PACS over DICOMweb: search, retrieve, store. `prepare` has the command line."""
