"""Images from a PACS over DICOMweb: search, retrieve, store. The command line is in `prepare`."""
