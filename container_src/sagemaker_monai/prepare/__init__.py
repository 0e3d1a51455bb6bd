"""One importer a source of data: what people have becomes images and a dataset.json."""
