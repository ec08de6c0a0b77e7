"""What must hold in every run, watched while it happens. Each oracle has its name and meaning in `names`."""
