"""What the commands that talk to AWS share; the commands themselves lie beside this folder, one file each."""
