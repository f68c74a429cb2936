"""One optimizer update, where its arrays live, and how they survive a kill."""
