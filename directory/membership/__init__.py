"""Which Stores hold a volume, under which epoch and which primary: deciding it and telling the Stores."""
