"""What every command shares: settings, the account, names and places, requests, prices and errors."""
